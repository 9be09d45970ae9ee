"""Where the parts of a network lie: one file for each architecture. Nothing else in the library knows them."""

from .ast import AST
from .base import Family
from .generic import Wrapped
from .wavlm import WavLM

FAMILIES = {"wavlm": WavLM, "audio-spectrogram-transformer": AST}

__all__ = ["AST", "FAMILIES", "Family", "WavLM", "Wrapped"]
