from __future__ import annotations

import math

import xarray as xr
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from . import style

_COLUMNS = 3


def differences(result: xr.Dataset) -> Figure:
    """Plot the difference of each label from the base in physical units: one panel per factor, one row per label.

    `result` is as returned by `emotion_profiles.differences`. Intervals are drawn from 8 speakers up; means with
    q < 0.05 are filled.
    """
    labels = [str(name) for name in result["label"].values]
    n_rows = math.ceil(result.sizes["factor"] / _COLUMNS)
    height = n_rows * (0.28 * len(labels) + 1) + 0.5
    figure, panels = style.panels(n_rows, _COLUMNS, height=height, sharey=True, squeeze=False)
    for axes, factor in zip(panels.flat, result["factor"].values):
        factor_result = result.sel(factor=factor)
        _draw_labels(axes, factor_result, labels)
        axes.set_title(str(factor_result["title"].values))
        axes.set_xlabel(f"{factor_result['unit'].values} from {result.attrs['base']}")
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
    panels[0, 0].invert_yaxis()
    for axes in panels.flat[result.sizes["factor"] :]:
        axes.set_axis_off()
    handles = [
        Line2D([], [], ls="", marker=".", color="gray", label="speaker"),
        Line2D([], [], marker="o", color="black", mfc="gray", label="mean, q < 0.05"),
        Line2D([], [], marker="o", color="black", mfc="white", label="mean, q ≥ 0.05"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _draw_labels(axes, result, labels):
    """Draw a row per label: each speaker, the mean and its interval."""
    axes.axvline(0, color="gray", lw=0.8)
    colors = style.colors(labels)
    for row, label in enumerate(labels):
        label_result = result.sel(label=label)
        points = label_result["difference"].values
        rows = row + style.apart(len(points), 0.25)
        fill = colors[label] if label_result["q"] < 0.05 else "white"
        axes.scatter(points, rows, s=9, color=colors[label], edgecolor="gray", lw=0.3)
        axes.plot([label_result["low"], label_result["high"]], [row, row], color="black", lw=1.4)
        axes.plot(label_result["mean"], row, "o", ms=6, mec="black", mfc=fill)
