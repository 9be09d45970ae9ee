"""Descriptions of what each neuron responds to, and tests of them on speakers whose clips were not used for them."""

from ..activations import activations, open_activations
from ..activations.exemplars import exemplars, snippets, top_frames
from .cards import NeuronCard, card
from .concept_matching import accuracy, choose, concept_fit, identify
from .describing import describe, predictivity
from .selectivity import selectivity
from .zero_ablation import zero_ablation

__all__ = [
    "NeuronCard",
    "accuracy",
    "activations",
    "card",
    "choose",
    "concept_fit",
    "describe",
    "exemplars",
    "identify",
    "open_activations",
    "predictivity",
    "selectivity",
    "snippets",
    "top_frames",
    "zero_ablation",
]
