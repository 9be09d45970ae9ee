from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style


def selective_neurons(selective, *, level=0.05):
    """Share of each layer's neurons that tell a label from the rest, by the label told best.

    Bars upwards are neurons more active for the label than for the others, bars downwards less active.

    Parameters
    ----------
    selective : Dataset
        Of `dissection.selectivity`.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    mean = selective["mean"].transpose("layer", "neuron", "concept")
    apart = np.abs(mean - 0.5).where(selective["q"] < level, -1.0)
    best, found = apart.argmax("concept").values, apart.max("concept").values > 0
    more = np.take_along_axis(mean.values, best[..., None], -1)[..., 0] > 0.5
    layers, names = selective["layer"].values, selective["concept"].values
    for sign, side in ((1, more), (-1, ~more)):
        bottom = np.zeros(len(layers))
        for j, (name, color) in enumerate(style.colors(names).items()):
            share = sign * 100 * (found & side & (best == j)).mean(-1)
            ax.bar(range(len(layers)), share, 0.7, bottom=bottom, color=color, edgecolor="white", label=name)
            bottom += share
    ax.axhline(0, color="black", lw=0.8)
    ax.set_xticks(range(len(layers)), layers)
    ax.yaxis.set_major_formatter(lambda value, _: f"{abs(value):g}")
    ax.set(
        xlabel="layer",
        ylabel="← less active | more active →\nshare of neurons (%)",
        title=f"Neurons that tell an emotion from the rest (false discovery rate {level:g})",
    )
    handles, labels = ax.get_legend_handles_labels()
    ax.legend(handles[: len(names)], labels[: len(names)], loc="center left", bbox_to_anchor=(1, 0.5))
    return figure
