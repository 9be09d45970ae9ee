from __future__ import annotations

import math

import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import results, statistics
from . import style

_COLUMNS = 3


def courses(course: xr.Dataset, neurons: pd.DataFrame, consistency: xr.Dataset | None = None) -> Figure:
    """Plot the mean time course of some neurons from the onset of the speech to its end, with the level in grey.

    `course` is as returned by `time_courses.course`. The table `neurons` has the columns `layer` and `neuron`; each row
    has a panel. Each speaker's mean is subtracted. Bands are intervals over speakers; with fewer than 8, each speaker
    is a line. Dashed: the mean in shuffled speech. With `consistency`, as returned by `time_courses.consistency`,
    titles give the mean correlation between two speakers for each kind of course.
    """
    n_rows = math.ceil(len(neurons) / _COLUMNS)
    figure, panels = style.panels(n_rows, _COLUMNS, height=0.7 + 2.2 * n_rows, squeeze=False)
    for axes, row in zip(panels.flat, neurons.itertuples()):
        neuron = {"layer": row.layer, "neuron": row.neuron}
        _draw_level(axes, course, with_labels=axes in panels[:, -1])
        _draw_activation(axes, course, neuron)
        title = f"layer {row.layer}, neuron {row.neuron}"
        if consistency is not None:
            title += "\nr = " + ", ".join(f"{r:.2f}" for r in consistency["r"].sel(neuron).values)
        axes.set_title(title, fontsize=9)
    for axes in panels.flat[len(neurons) :]:
        axes.set_axis_off()

    figure.supxlabel("position from onset (0) to end (1) of the speech", fontsize=10)
    figure.supylabel("activation (centred)", fontsize=10)
    title = "Grey, right: level (dBFS)"
    if consistency is not None:
        title += "; r: " + ", ".join(kind.replace("_", " ") for kind in consistency["course"].values)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    return figure


def _draw_level(axes, course, *, with_labels):
    """Draw the mean level behind a panel, on an axis of its own at the right."""
    level_axes = axes.twinx()
    level_axes.plot(course["position"].values, results.average(course["level"]), color=style.RANDOM_COLOR, lw=3)
    level_axes.set_ylim(-80, 0)
    level_axes.tick_params(labelsize=7, colors="#888888", labelright=with_labels)
    axes.set_zorder(level_axes.get_zorder() + 1)
    axes.patch.set_visible(False)


def _draw_activation(axes, course, neuron):
    """Draw the mean course of a neuron, its interval over speakers (or each speaker), and that in shuffled speech."""
    color = style.COLORS[0]
    positions = course["position"].values
    units = results.units(course["activation"].sel(neuron))
    units = units - units.mean("position")
    if "speaker" in units.dims and units.sizes["speaker"] >= statistics.MIN_SPEAKERS:
        interval = statistics.over_speakers(units)
        axes.fill_between(positions, interval["low"], interval["high"], color=color, alpha=0.25, lw=0)
    else:
        axes.plot(positions, units.transpose("position", ...), color=color, lw=0.6, alpha=0.4)
    shuffled = results.average(course["shuffled"].sel(neuron))
    mean = units.mean([dim for dim in units.dims if dim != "position"])
    axes.plot(positions, shuffled - shuffled.mean(), color=color, ls="--", lw=1)
    axes.plot(positions, mean, color=color)
    axes.set_xlim(0, 1)
