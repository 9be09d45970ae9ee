"""How far each emotion lies from the base, in real units."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from . import style


def differences(result) -> plt.Figure:
    """A panel for each factor: labels down, the paired difference from the base across.

    Parameters
    ----------
    result : Dataset
        Of `acoustics.differences`. Intervals are drawn from 8 speakers up; means with q < 0.05 are filled.
    """
    labels = [str(name) for name in result["label"].values]
    colors, rows = style.colors(labels), -(-result.sizes["factor"] // 3)
    figure, axes = plt.subplots(
        rows,
        3,
        sharey=True,
        squeeze=False,
        figsize=(style.WIDTH, rows * (0.28 * len(labels) + 1) + 0.5),
        layout="constrained",
    )
    for axis, factor in zip(axes.flat, result["factor"].values):
        one = result.sel(factor=factor)
        axis.axvline(0, color="gray", linewidth=0.8)
        for i, label in enumerate(labels):
            row = one.sel(label=label)
            points = row["difference"].values
            shift = np.linspace(-0.25, 0.25, len(points)) if len(points) > 1 else 0
            axis.scatter(points, i + shift, s=9, color=colors[label], edgecolor="gray", linewidth=0.3)
            axis.plot([row["low"], row["high"]], [i, i], color="black", linewidth=1.4)
            axis.plot(
                row["mean"],
                i,
                "o",
                markersize=6,
                markeredgecolor="black",
                markerfacecolor=colors[label] if row["q"] < 0.05 else "white",
            )
        axis.set(title=str(one["title"].values), xlabel=f"{one['unit'].values} from {result.attrs['base']}")
        axis.set_yticks(range(len(labels)), labels, parse_math=False)
    axes[0, 0].invert_yaxis()
    for axis in axes.flat[result.sizes["factor"] :]:
        axis.set_axis_off()
    styles = {
        "speaker": {"linestyle": "", "marker": ".", "color": "gray"},
        "mean, q < 0.05": {"marker": "o", "color": "black", "markerfacecolor": "gray"},
        "mean, q ≥ 0.05": {"marker": "o", "color": "black", "markerfacecolor": "white"},
    }
    handles = [plt.Line2D([], [], label=name, **options) for name, options in styles.items()]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure
