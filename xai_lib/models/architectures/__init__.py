"""Architectures: one file each with the positions of a network's parts."""

from .ast import AST
from .base import Architecture
from .generic import Wrapped
from .wavlm import WavLM

ARCHITECTURES = {"wavlm": WavLM, "audio-spectrogram-transformer": AST}

__all__ = ["AST", "ARCHITECTURES", "Architecture", "WavLM", "Wrapped"]
