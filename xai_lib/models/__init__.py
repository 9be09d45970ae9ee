"""Loading of audio classifiers, from checkpoints or any module: raw waveform in, logits and named sites out."""

from .architectures.base import Architecture
from .loading import load, wrap
from .model import Model, UntrainedHead, require_model
from .sites import PARTS, Site, State

__all__ = ["Architecture", "Model", "PARTS", "Site", "State", "UntrainedHead", "load", "require_model", "wrap"]
