"""Architectures: one file each with the positions of a network's parts, which no other module knows."""

from .ast import AST
from .base import Family
from .generic import Wrapped
from .wavlm import WavLM

FAMILIES = {"wavlm": WavLM, "audio-spectrogram-transformer": AST}

__all__ = ["AST", "FAMILIES", "Family", "WavLM", "Wrapped"]
