from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from ..results import average
from . import style


def emotion_tracking(sweep: xr.Dataset, *, mode: str = "flip", title: str | None = None) -> Figure:
    """Plot the probability of every class, clean and with each layer edited in turn; mean over speakers or clips.

    `sweep` is as returned by `ablation.sweep`; for one clip pass `sweep.sel(clip=[17])`.
    """
    clean = average(sweep["clean_probability"])
    edited = style.of_mode(sweep, "probability", mode)
    row = style.edited(edited, "label")
    names = edited[row].values
    layers = names if row == "layer" else np.arange(len(names))
    start = layers.min() - 1.5

    figure, axes = style.panels()
    for label, color in style.colors(sweep["label"].values.tolist()).items():
        label_clean = clean.sel(label=label)
        label_edited = edited.sel(label=label)
        axes.plot(layers, label_edited, "o-", ms=4, color=color, label=label)
        axes.plot([start, layers[0]], [label_clean, label_edited[0]], color=color, lw=0.5, ls=":")
        axes.plot(start, label_clean, "D", ms=6, color=color)
    axes.set_xticks([start, *layers], ["clean", *names])
    axes.set(xlabel=style.EDIT_DIM_LABELS[row], ylabel="probability", ylim=(0, None))
    axes.set_title(title or f"{mode} of the selected neurons, mean of {sweep.sizes['clip']} clips")
    figure.legend(loc="outside right upper")
    return figure
