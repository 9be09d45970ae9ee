"""Pruning: zero neurons in the weights, restore them exactly, and measure what is forgotten and what is kept."""

from .evaluation import compare, evaluate, importance
from .forgetting import effects, frontier, random_sets, recalls, selectivity, summary, table
from .neuron_selection import blind, contrast, controls, greedy, mentions, neurons_of, reach, support, top
from .weights import fingerprint, prune, save

__all__ = [
    "blind",
    "compare",
    "contrast",
    "controls",
    "effects",
    "evaluate",
    "fingerprint",
    "frontier",
    "greedy",
    "importance",
    "mentions",
    "neurons_of",
    "prune",
    "random_sets",
    "reach",
    "recalls",
    "save",
    "selectivity",
    "summary",
    "support",
    "table",
    "top",
]
