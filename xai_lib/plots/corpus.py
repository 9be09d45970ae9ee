from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib import ticker
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import statistics
from . import style

_COLUMNS = 2
_MARKERS = {"female": "o", "male": "^"}


def factors(cells: xr.DataArray) -> Figure:
    """Plot one panel per factor: labels across, one point per speaker, mean and interval, separately by sex.

    `cells` is as returned by `emotion_profiles.cells`. Where `sex` is known, women are drawn left of men. Intervals are
    drawn from 8 speakers up.
    """
    if "sex" not in cells.coords:
        cells = cells.assign_coords(sex=("speaker", np.full(cells.sizes["speaker"], "")))
    labels = [str(name) for name in cells["label"].values]
    groups = sorted(set(cells["sex"].values))
    n_rows = math.ceil(cells.sizes["factor"] / _COLUMNS)
    figure, panels = style.panels(n_rows, _COLUMNS, height=2.1 * n_rows + 0.7, sharex=True, squeeze=False)
    for axes, factor in zip(panels.flat, cells["factor"].values):
        values = cells.sel(factor=factor).transpose("label", "speaker")
        _draw_factor(axes, values, labels, groups)
        if factor == "f0":
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_locator(ticker.LogLocator(2, subs=(1, 1.5)))
            axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.0f"))
        axes.set(ylabel=str(values["unit"].values), title=str(values["title"].values))
        axes.set_xticks(range(len(labels)), labels, rotation=35, ha="right", parse_math=False)
    for axes in panels.flat[cells.sizes["factor"] :]:
        axes.set_axis_off()
    handles = [Line2D([], [], color="black", label="mean, 95 % interval over speakers")]
    for group in groups:
        options = {"ls": "", "marker": _MARKERS.get(group, "s"), "color": "gray"}
        handles.append(Line2D([], [], label=f"{group} speaker".strip(), **options))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def _draw_factor(axes, values, labels, groups):
    """Draw each speaker, and mean and interval over speakers, of each label and sex."""
    colors = style.colors(labels)
    sex = values["sex"].values
    for i, label in enumerate(labels):
        for j, group in enumerate(groups):
            points = values.values[i, sex == group]
            mean, low, high = statistics.interval(points)
            position = i + (j - (len(groups) - 1) / 2) * 0.7 / len(groups)
            axes.scatter(
                position + style.apart(len(points), 0.08),
                points,
                14,
                marker=_MARKERS.get(group, "s"),
                color=colors[label],
                edgecolor="black",
                lw=0.3,
            )
            axes.plot([position - 0.16, position + 0.16], [mean, mean], color="black", lw=1.8)
            axes.plot([position, position], [low, high], color="black", lw=1.2)
