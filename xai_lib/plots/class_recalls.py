from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Patch

from . import style


def class_recalls(recalls, dose, *, forgotten):
    """Recall of each class, mean over speakers: the model as it is, without the chosen neurons, without random ones.

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
    names = sorted(recalls["label"].values, key=lambda name: name != forgotten)
    by, at, colors = recalls.mean("speaker").sel(label=names), np.arange(len(names)), style.colors(names)
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    random = by.sel(dose=dose).isel(who=slice(1, None))
    before, after = by.sel(dose=0, who="chosen"), by.sel(dose=dose, who="chosen")
    ax.bar(at - 0.27, before, 0.25, color="white", edgecolor="black", lw=0.8)
    ax.bar(at, random.mean("who"), 0.25, color=style.NULL_COLOR, edgecolor="black", lw=0.8)
    ax.vlines(at, random.min("who"), random.max("who"), color="black", lw=1.2)
    ax.bar(at + 0.27, after, 0.25, color=list(colors.values()), edgecolor="black", lw=0.8)
    ax.set_xticks(at, names)
    ax.set(
        ylabel="recall, mean over speakers",
        ylim=(0, 1.02),
        xlabel="emotion (the first is the one to forget)",
        title=f"{dose} neurons pruned",
    )
    parts = {
        "as it is": "white",
        "random neurons pruned (line: range)": style.NULL_COLOR,
        "chosen neurons pruned": colors[names[0]],
    }
    handles = [Patch(facecolor=color, edgecolor="black", label=label) for label, color in parts.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure
