"""How far each emotion lies from the base, in real units."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from . import style


def differences(result, *, level=0.05) -> plt.Figure:
    """A panel for each factor: labels down, the paired difference from the base across.

    Parameters
    ----------
    result : Dataset
        Of `acoustics.differences`.
    level : float
        Means whose corrected p value `q` lies under it are filled.

    Returns
    -------
    Figure
        Small points are speakers, the marker is their mean, the line its 95 % interval (from 8 speakers up).
    """
    labels = [str(name) for name in result["label"].values]
    colors, base = style.colors(labels), result.attrs["base"]
    columns = min(4, result.sizes["factor"])
    rows = -(-result.sizes["factor"] // columns)
    figure, axes = plt.subplots(
        rows, columns, sharey=True, squeeze=False, layout="constrained",
        figsize=(style.WIDTH, rows * (0.32 * len(labels) + 1.0) + 0.4),
    )  # fmt: skip
    for axis, factor in zip(axes.flat, result["factor"].values):
        one = result.sel(factor=factor)
        axis.axvline(0, color="gray", linewidth=0.8)
        for i, label in enumerate(labels):
            row = one.sel(label=label)
            points = row["difference"].values
            shift = np.linspace(-0.22, 0.22, len(points)) if len(points) > 1 else 0
            axis.scatter(points, i + shift, s=5, color=colors[label], alpha=0.7, linewidth=0)
            axis.plot([row["low"], row["high"]], [i, i], color="black", linewidth=1.4)
            axis.plot(row["mean"], i, "o", markersize=6, markeredgecolor="black",
                      markerfacecolor=colors[label] if row["q"] < level else "white")
        axis.set_title(str(one["title"].values))
        axis.set(xlabel=f"{base} ± {one['unit'].values}".replace("±", "+"), yticks=range(len(labels)))
        axis.set_yticklabels(labels, parse_math=False)
    axes[0, 0].invert_yaxis()
    for axis in axes.flat[result.sizes["factor"] :]:
        axis.set_axis_off()
    handles = [
        plt.Line2D([], [], linestyle="", marker=".", color="gray", label="speaker"),
        plt.Line2D([], [], marker="o", color="black", markerfacecolor="gray", label=f"mean, q < {level:g}"),
        plt.Line2D([], [], marker="o", color="black", markerfacecolor="white", label=f"mean, q ≥ {level:g}"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure
