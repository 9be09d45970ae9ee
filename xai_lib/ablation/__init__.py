"""Ablation: edit neurons and measure the effects downstream, compared with random and target-blind selections."""

from ..activations import activation_stats
from .conditions import Edit
from .controls import RandomControls
from .effects import (
    average_over_layers,
    contrast,
    control_values,
    distance,
    effect_over_speakers,
    patching_effect,
    recognition,
    report,
    selected_neurons,
    selected_values,
    strongest_layers,
    summary,
)
from .readouts import Decoders, Proxies, SpeakerSimilarity
from .selection import Selection, groups, select
from .sweeping import sweep
from .verdicts import verdict

__all__ = [
    "Decoders",
    "Edit",
    "Proxies",
    "RandomControls",
    "Selection",
    "SpeakerSimilarity",
    "activation_stats",
    "average_over_layers",
    "contrast",
    "control_values",
    "distance",
    "effect_over_speakers",
    "groups",
    "patching_effect",
    "recognition",
    "report",
    "select",
    "selected_neurons",
    "selected_values",
    "strongest_layers",
    "summary",
    "sweep",
    "verdict",
]
