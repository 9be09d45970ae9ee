from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..pruning.forgetting import random_sets
from . import style
from .pruning import check_choice


def class_recalls(recalls: xr.DataArray, dose: int, *, forgotten: str) -> Figure:
    """Plot the recall of each class, mean over speakers: unpruned, without the selected, and without random neurons.

    `recalls` is as returned by `pruning.recalls`, `dose` is one of its numbers of neurons; the `forgotten` class is put
    first. Raise ValueError for a dose or a class that `recalls` does not have.
    """
    check_choice(recalls, dose, forgotten)
    names = sorted(recalls["label"].values, key=lambda name: name != forgotten)
    mean_recalls = recalls.mean("speaker").sel(label=names)
    before = mean_recalls.sel(dose=0, neuron_set="selected")
    after = mean_recalls.sel(dose=dose, neuron_set="selected")
    random = random_sets(mean_recalls.sel(dose=dose))
    colors = list(style.colors(names).values())

    figure, ax = style.panels()
    positions = np.arange(len(names))
    options = {"width": 0.25, "edgecolor": "black", "lw": 0.8}
    ax.bar(positions - 0.27, before, color="white", label="unpruned", **options)
    if random.sizes["neuron_set"]:
        label = "random neurons pruned (line: range)"
        ax.bar(positions, random.mean("neuron_set"), color=style.RANDOM_COLOR, label=label, **options)
        ax.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), color="black", lw=1.2)
    ax.bar(positions + 0.27, after, color=colors, label="selected neurons pruned", **options)
    tick_options = {"rotation": 30, "ha": "right"} if len(names) > 8 else {}
    ax.set_xticks(positions, names, **tick_options)
    ax.set(ylabel="recall, mean over speakers", xlabel="class (the first is the one to forget)", ylim=(0, 1.02))
    ax.set_title(f"{dose} neurons pruned")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
