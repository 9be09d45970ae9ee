"""Activations of every neuron on every clip; activation statistics, exemplars, donors, random neurons, heads."""

from .activation_statistics import check_moments, moments
from .extraction import activations, counting, forwards, hidden_states, usable
from .storage import opened

__all__ = ["activations", "check_moments", "counting", "forwards", "hidden_states", "moments", "opened", "usable"]
