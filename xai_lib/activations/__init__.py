"""Activations of every neuron on every clip; activation statistics, exemplars, donors, random neurons, heads."""

from .activation_statistics import activation_stats, check_activation_stats
from .extraction import activations, forwards, frame_selector, hidden_states, require_named_frames, usable
from .storage import open_activations

__all__ = [
    "activations",
    "check_activation_stats",
    "frame_selector",
    "forwards",
    "hidden_states",
    "activation_stats",
    "open_activations",
    "require_named_frames",
    "usable",
]
