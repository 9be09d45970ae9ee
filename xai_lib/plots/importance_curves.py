from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style


def importance_curves(result: xr.Dataset) -> Figure:
    """Plot accuracy against the share of neurons pruned, for each ranking; dotted: random neurons of the same layers.

    `result` is as returned by `pruning.importance`. Lines are means over draws and speakers, shades the range of the
    draws.
    """
    n_rankings = result.sizes["ranking"]
    n_columns = min(n_rankings, 3)
    n_rows = math.ceil(n_rankings / n_columns)
    figure, panels = style.panels(n_rows, n_columns, height=2.7 * n_rows, sharey=True, squeeze=False)
    accuracy = statistics.by_speaker(result["right"]).mean("speaker")
    percentages = 100 * result["share"].values
    for ax, name in zip(panels.flat, result["ranking"].values):
        ranking = accuracy.sel(ranking=name)
        _draw_curve(ax, percentages, ranking.sel(neuron_set="random"), "#777777", ":", "random neurons")
        _draw_curve(ax, percentages, ranking.sel(neuron_set="selected"), style.COLORS[0], "-", "selected neurons")
        ax.set_title(name, fontsize=10)
        ax.set(xlim=(percentages.min() - 0.5, percentages.max() + 0.5), ylim=(-0.02, 1.02))
    for ax in panels.flat[n_rankings:]:
        ax.set_axis_off()
    for ax in panels[:, 0]:
        ax.set_ylabel("accuracy")
    figure.supxlabel("% of neurons pruned", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _draw_curve(ax, percentages, accuracy, color, linestyle, label):
    """Draw mean and range over draws of the accuracy [draw, share], where all draws are finite."""
    values = accuracy.transpose("draw", "share").values
    finite = np.isfinite(values).all(axis=0)
    x = percentages[finite]
    draws = values[:, finite]
    ax.fill_between(x, draws.min(axis=0), draws.max(axis=0), color=color, alpha=0.2, lw=0)
    ax.plot(x, draws.mean(axis=0), color=color, ls=linestyle, marker="o", ms=3, label=label)
