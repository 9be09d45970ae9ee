"""Pruning: zero neurons in the weights, restore them exactly, and measure what is forgotten and what is kept."""

from .evaluation import compare, evaluate, importance
from .forgetting import effects, frontier, random_sets, recalls, selectivity, summary, table
from .neuron_selection import (
    contrast,
    controls,
    count_mentions,
    greedy,
    neurons_of,
    output_norm,
    support,
    target_blind,
    top,
)
from .weights import fingerprint, prune, save

__all__ = [
    "target_blind",
    "compare",
    "contrast",
    "controls",
    "effects",
    "evaluate",
    "fingerprint",
    "frontier",
    "greedy",
    "importance",
    "count_mentions",
    "neurons_of",
    "prune",
    "random_sets",
    "output_norm",
    "recalls",
    "save",
    "selectivity",
    "summary",
    "support",
    "table",
    "top",
]
