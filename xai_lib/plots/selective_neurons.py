from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style


def selective_neurons(selective, *, level=0.05):
    """Share of each layer's neurons that tell a label from the rest on held-out speakers, by the label told best.

    Parameters
    ----------
    selective : Dataset
        Of `dissection.selectivity`.
    """
    figure, ax = plt.subplots(figsize=(style.WIDTH, 3.6))
    apart = np.abs(selective["mean"] - 0.5).where(selective["q"] < level, -1.0).transpose("layer", "neuron", "concept")
    best, found = apart.values.argmax(-1), apart.values.max(-1) > 0
    names, bottom = selective["concept"].values, np.zeros(len(apart))
    for j, (name, color) in enumerate(style.colors(names).items()):
        share = 100 * (found & (best == j)).mean(-1)
        ax.bar(range(len(share)), share, bottom=bottom, color=color, edgecolor="white", label=name)
        bottom += share
    ax.set_xticks(range(len(bottom)), selective["layer"].values)
    ax.set(xlabel="layer", ylabel="neurons (%)", ylim=(0, 100),
           title=f"Neurons that tell a label from the rest (false discovery rate {level:g})")  # fmt: skip
    ax.legend(loc="center left", bbox_to_anchor=(1, 0.5), reverse=True)
    return figure
