"""Ablation: edit neurons and measure the effects downstream, compared with random and target-blind selections."""

from ..activations import moments
from .effects import averaged, contrast, distance, recognition, report, restored, summary
from .sweeping import groups, sweep
from .verdicts import verdict

__all__ = [
    "averaged",
    "contrast",
    "distance",
    "groups",
    "moments",
    "recognition",
    "report",
    "restored",
    "summary",
    "sweep",
    "verdict",
]
