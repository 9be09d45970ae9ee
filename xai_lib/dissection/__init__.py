"""Descriptions of what each neuron responds to, and tests of them on speakers whose clips were not used for them."""

from ..activations import activations, opened
from ..activations.exemplars import exemplars, snippets, top_frames
from .cards import card, zeroed
from .concept_matching import accuracy, choose, concept_fit, identify
from .describing import describe, predictivity
from .selectivity import selectivity

__all__ = [
    "accuracy",
    "activations",
    "card",
    "choose",
    "concept_fit",
    "describe",
    "exemplars",
    "identify",
    "opened",
    "predictivity",
    "selectivity",
    "snippets",
    "top_frames",
    "zeroed",
]
