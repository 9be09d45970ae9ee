"""Ablation: edit neurons and measure the effects downstream, compared with random and target-blind selections."""

from ..activations import activation_stats
from .effects import average_over_layers, contrast, distance, patching_effect, recognition, report, summary
from .sweeping import groups, sweep
from .verdicts import verdict

__all__ = [
    "average_over_layers",
    "contrast",
    "distance",
    "groups",
    "activation_stats",
    "recognition",
    "report",
    "patching_effect",
    "summary",
    "sweep",
    "verdict",
]
