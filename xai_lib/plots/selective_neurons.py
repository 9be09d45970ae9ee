from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


def selective_neurons(selective: xr.Dataset, *, level: float = 0.05) -> Figure:
    """Plot the share of each layer's neurons that distinguish a label from the rest, by their best label.

    `selective` is as returned by `dissection.selectivity`; neurons with q < `level` count. Upward bars: neurons more
    active for the label than for the others; downward bars: less active.
    """
    mean = selective["mean"].transpose("layer", "neuron", "concept")
    deviation = np.abs(mean - 0.5).where(selective["q"] < level, -1.0)
    best = deviation.argmax("concept")
    significant = deviation.max("concept") > 0
    more_active = mean.isel(concept=best) > 0.5

    figure, ax = style.panels()
    layers = range(mean.sizes["layer"])
    colors = style.colors(mean["concept"].values)
    upward = np.zeros(len(layers))  # ends of the bars so far
    downward = np.zeros(len(layers))
    for index, (name, color) in enumerate(colors.items()):
        share = 100 * (significant & more_active & (best == index)).mean("neuron").values
        ax.bar(layers, share, 0.7, bottom=upward, color=color, edgecolor="white", label=name)
        upward += share
    for index, color in enumerate(colors.values()):
        share = 100 * (significant & ~more_active & (best == index)).mean("neuron").values
        ax.bar(layers, -share, 0.7, bottom=downward, color=color, edgecolor="white")
        downward -= share
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(layers, mean["layer"].values)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set(xlabel="layer", ylabel="← less active | more active →\nshare of neurons (%)")
    ax.set_title(f"Neurons that distinguish a label from the rest (false discovery rate {level:g})")
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
