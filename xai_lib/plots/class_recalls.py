from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style


def class_recalls(recalls, dose, *, forgotten):
    """Recall of each class with the model as it is, with the chosen neurons pruned, and with random ones.

    Parameters
    ----------
    recalls : DataArray
        Of `pruning.recalls`.
    dose : int
        Number of neurons, one of the result's.
    forgotten : str
        The class that was to be forgotten; it is put first.
    """
    if dose not in recalls["dose"].values:
        raise ValueError(f"{dose} neurons were not tried: the doses are {recalls['dose'].values.tolist()}")
    by = recalls.groupby("label").mean()
    names = [forgotten, *(name for name in style.colors(by["label"].values) if name != forgotten)]
    by, places = by.sel(label=names), np.arange(len(names))
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    random = by.sel(dose=dose).isel(who=slice(1, None))
    series = (
        ("as it is", by.sel(dose=0, who="chosen"), "white"),
        ("random neurons pruned (line: range)", random.mean("who"), style.NULL_COLOR),
        ("chosen neurons pruned", by.sel(dose=dose, who="chosen"), [style.colors(names)[n] for n in names]),
    )
    for i, (label, values, color) in enumerate(series):
        ax.bar(places + 0.27 * (i - 1), values, 0.25, color=color, edgecolor="black", lw=0.8, label=label)
    ax.vlines(places, random.min("who"), random.max("who"), color="black", lw=1.2)
    ax.set_xticks(places, names)
    ax.set(ylabel="recall", ylim=(0, 1.02), xlabel="emotion (the first is the one to forget)",
           title=f"{dose} neurons pruned")  # fmt: skip
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=3)
    ax.get_legend().legend_handles[2].set_facecolor("#D55E00")
    return figure
