"""Figures of what layers and neurons encode, and when neurons are active."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.figure import Figure

from .. import results, statistics
from ..probing import linear_probes
from . import style

_TASK_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "which statement"}
_TASK_COLORS = dict(zip(_TASK_NAMES, style.COLORS))

# ---------- layers


def layer_probes(result: xr.Dataset) -> Figure:
    """Plot the accuracy of linear probes of each layer for unseen speakers, beside their control tasks.

    `result` is as returned by `linear_probes.layer_probes`. Left: accuracy; open and dashed: control tasks; dotted:
    chance level. Right: accuracy − control. Intervals are over speakers, from 8 up, and except for the accuracy over
    control tasks too; with fewer, each speaker is a dot. Where a control cannot be learnt, neither it nor a difference
    is drawn.
    """
    figure, (accuracy_axes, selectivity_axes) = style.panels(1, 2, width_ratios=[1.2, 1])
    layers = result["layer"].values
    n_tasks = result.sizes["task"]
    for index, task in enumerate(result["task"].values.tolist()):
        task_result = result.sel(task=task)
        positions = layers + 0.12 * (index - (n_tasks - 1) / 2)
        color = _TASK_COLORS[task]
        label = _TASK_NAMES[task]
        if not task_result["control"].notnull().any():
            label += " (no control task)"
        filled = {"color": color, "marker": "o", "ms": 5, "label": label}
        open_dashed = {"color": color, "marker": "o", "ms": 4, "mfc": "white", "ls": "--", "lw": 1, "label": None}
        accuracy = statistics.over_speakers(task_result["accuracy"])
        control = linear_probes.over_speakers_and_controls(task_result, "control")
        selectivity = linear_probes.over_speakers_and_controls(task_result, "selectivity")

        _draw_speakers(accuracy_axes, positions, task_result["accuracy"], color)
        style.interval(accuracy_axes, positions, accuracy, **filled)
        style.interval(accuracy_axes, positions, control, **open_dashed)
        accuracy_axes.axhline(float(task_result["chance"]), color=color, ls=":", lw=1)
        _draw_speakers(selectivity_axes, positions, task_result["selectivity"], color)
        style.interval(selectivity_axes, positions, selectivity, **filled)

    accuracy_axes.set(ylim=(0, 1.02), ylabel="mean recall of the classes (0 to 1)")
    accuracy_axes.set(xlabel="layer", xticks=layers, title="Filled: accuracy; open: control; dotted: chance")
    selectivity_axes.axhline(0, color="black", lw=0.6)
    selectivity_axes.set(ylabel="accuracy − control", xlabel="layer", xticks=layers, title="Selectivity")
    n = result.sizes["speaker"]
    speaker_note = f"{n} unseen speakers, each a dot"
    if n >= statistics.MIN_SPEAKERS:
        speaker_note = f"{n} unseen speakers, 95 % intervals over them and over control tasks"
    handles, names = selectivity_axes.get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=3, title=speaker_note)
    return figure


def _draw_speakers(axes, positions, values, color):
    """Draw each speaker, if they are too few for an interval."""
    if values.sizes["speaker"] < statistics.MIN_SPEAKERS:
        axes.plot(positions, values.transpose("layer", "speaker"), ".", color=color, alpha=0.4, ms=4)


# ---------- neurons


def selectivity_scatter(result: xr.Dataset, neurons: pd.DataFrame | None = None) -> Figure:
    """Plot the share of each neuron's variance that goes with phonetics (x) and emotion (y), coloured by layer.

    `result` is as returned by `variance_explained.selectivity`. All shares are relative to the chance level, the mean
    over shuffled labels. Right: the median neuron of each layer, with its interval over speakers from 8 up, and the
    interquartile range of the neurons. Neurons in the table `neurons` (`layer`, `neuron`) are ringed. Raise ValueError
    if the result has fewer than two tasks.
    """
    tasks = result["task"].values.tolist()
    if len(tasks) < 2:
        raise ValueError(f"a scatter plot needs two tasks, phonetics and emotion, and the result has only {tasks[0]}")
    layers = result["layer"].values
    figure, (scatter_axes, layer_axes) = style.panels(1, 2, height=4, width_ratios=[1.3, 1])
    dots = _draw_neurons(scatter_axes, result["excess"], neurons)
    figure.colorbar(dots, ax=scatter_axes, label="layer", ticks=layers)
    for task in tasks:
        _draw_layers(layer_axes, result.sel(task=task), task)
    layer_axes.axhline(0, color="black", lw=0.6)
    layer_axes.set(
        xlabel="layer", ylabel="share beyond chance (η²)", xticks=layers, title="Median neuron, interquartile range"
    )
    layer_axes.legend()
    return figure


def _draw_neurons(axes, excess, neurons):
    """Draw a dot per neuron, coloured by layer, and ring some; return the dots."""
    excess = excess.transpose("task", "layer", "neuron")
    x, y = excess
    order = np.random.default_rng(0).permutation(x.size)  # so that no layer hides another
    colors = np.repeat(excess["layer"].values, excess.sizes["neuron"])[order]
    dots = axes.scatter(x.values.ravel()[order], y.values.ravel()[order], c=colors, s=9, alpha=0.7, lw=0)
    if neurons is not None:
        for row in neurons.itertuples():
            neuron = {"layer": row.layer, "neuron": row.neuron}
            axes.plot(x.sel(neuron), y.sel(neuron), "o", ms=8, mfc="none", mec="black", mew=0.9)
    axes.set_xlabel(f"{_TASK_NAMES[x['task'].item()]}: share beyond chance (η²)")
    axes.set_ylabel(f"{_TASK_NAMES[y['task'].item()]}: share beyond chance (η²)")
    axes.set_title("Each neuron's variance within speakers")
    return dots


def _draw_layers(axes, result, task):
    """Draw the median neuron of each layer with its interval over speakers, and the neurons' interquartile range."""
    layers = result["layer"].values
    shares = result["excess"].transpose("layer", "neuron")
    low, middle, high = np.nanquantile(shares, [0.25, 0.5, 0.75], axis=1)
    axes.fill_between(layers, low, high, color=_TASK_COLORS[task], alpha=0.2, lw=0)
    interval = statistics.over_speakers(result["typical"])
    if result.sizes["speaker"] < statistics.MIN_SPEAKERS:
        interval["mean"] = "layer", middle
    style.interval(axes, layers, interval, color=_TASK_COLORS[task], marker="o", ms=5, label=_TASK_NAMES[task])


def courses(course: xr.Dataset, neurons: pd.DataFrame, consistency: xr.Dataset | None = None) -> Figure:
    """Plot the mean time course of some neurons from the onset of the speech to its end, with the level in grey.

    `course` is as returned by `time_courses.course`. The table `neurons` has the columns `layer` and `neuron`; each row
    has a panel. Each speaker's mean is subtracted. Bands are intervals over speakers; with fewer than 8, each speaker
    is a line. Dashed: the mean in shuffled speech. With `consistency`, as returned by `time_courses.consistency`,
    titles give the mean correlation between two speakers for each kind of course.
    """
    figure, panels = style.grid(len(neurons), columns=3, row_height=2.2, margin=0.7)
    for axes, row in zip(panels.flat, neurons.itertuples()):
        neuron = {"layer": row.layer, "neuron": row.neuron}
        _draw_level(axes, course, with_labels=axes in panels[:, -1])
        _draw_activation(axes, course, neuron)
        title = f"layer {row.layer}, neuron {row.neuron}"
        if consistency is not None:
            title += "\nr = " + ", ".join(f"{r:.2f}" for r in consistency["r"].sel(neuron).values)
        axes.set_title(title, fontsize=9)

    figure.supxlabel("position from onset (0) to end (1) of the speech", fontsize=10)
    figure.supylabel("activation (centred)", fontsize=10)
    title = "Grey, right: level (dBFS)"
    if consistency is not None:
        title += "; r: " + ", ".join(kind.replace("_", " ") for kind in consistency["course"].values)
    style.heading(figure, title, fontsize=10)
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
