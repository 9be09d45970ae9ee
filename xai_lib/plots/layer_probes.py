from __future__ import annotations

import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from ..probing import linear_probes
from . import style

_NAMES = {"manner": "manner of articulation", "emotion": "emotion", "statement": "which statement"}
_COLORS = dict(zip(_NAMES, style.COLORS))


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
        color = _COLORS[task]
        label = _NAMES[task]
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
