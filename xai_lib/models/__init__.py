"""Loading of audio classifiers, from checkpoints or any module: raw waveform in, logits and named sites out."""

from .architectures.base import Architecture
from .loading import load, wrap
from .model import Model, UntrainedHead
from .sites import PARTS, Site, State

__all__ = ["Architecture", "Model", "PARTS", "Site", "State", "UntrainedHead", "load", "wrap"]
