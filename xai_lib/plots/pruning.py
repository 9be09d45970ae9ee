from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from ..pruning import forgetting
from . import style


@dataclass(frozen=True)
class _Condition:
    """How the values before or after pruning are drawn."""

    dose: int
    shift: float
    marker: str
    fill: str
    forgotten_fill: str
    label: str


def class_changes(
    compared: xr.Dataset, dose: int, *, forgotten: str, measure: str = "logit", units: str = "speakers"
) -> Figure:
    """Plot a measure of the true class before and after pruning, and with random neurons pruned, class by class.

    `compared` is as returned by `pruning.compare`, `dose` one of its numbers of neurons, `measure` "logit",
    "probability" or "accuracy". Classes are sorted by the value before pruning; the `forgotten` class is marked.
    `units` is the axis label's word for speakers, who are drawn one by one where they are too few for an interval.
    Raise ValueError for a dose or a class that `compared` does not have.
    """
    values = forgetting.by_class(compared, measure)
    check_choice(values, dose, forgotten)
    before = values.sel(dose=0, neuron_set="selected").mean("speaker")
    values = values.isel(label=np.argsort(-before.values, kind="stable"))
    summary = statistics.over_speakers(values)
    names = values["label"].values
    positions = np.arange(len(names))

    figure, ax = style.panels(height=4.0)
    random = forgetting.random_sets(summary["mean"].sel(dose=dose))
    if random.sizes["neuron_set"]:
        options = {"color": style.RANDOM_COLOR, "lw": 7, "label": "random neurons pruned (range)"}
        ax.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), **options)
    unpruned = _Condition(0, -0.12, "o", "white", "white", "unpruned")
    forgotten_fill = style.COLORS[1] if dose else style.COLORS[0]
    pruned = _Condition(dose, 0.12, "s", style.COLORS[0], forgotten_fill, f"{dose} selected neurons pruned")
    for condition in (unpruned, pruned):
        _draw_condition(ax, positions, condition, values, summary, names == forgotten)

    ax.set_xticks(positions, names, rotation=30, ha="right")
    for tick, name in zip(ax.get_xticklabels(), names):
        if name == forgotten:
            tick.set(color=style.COLORS[1], fontweight="bold")
    ax.set(ylabel=f"{measure} of the true class, mean over {units}")
    title = f"To forget: {forgotten}"
    if (summary["n"].sel(dose=0, neuron_set="selected") < statistics.MIN_SPEAKERS).any():
        title += f" (small: single {units}, too few for an interval)"
    ax.set_title(title)
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def check_choice(values: xr.Dataset | xr.DataArray, dose: int, forgotten: str) -> None:
    """Raise ValueError if there are no results for the dose, or no clips of the forgotten class."""
    if dose not in values["dose"].values:
        raise ValueError(f"no result for {dose} neurons: the doses are {values['dose'].values.tolist()}; choose one")
    if forgotten not in values["label"].values:
        raise ValueError(
            f"there are no clips of {forgotten!r}: the classes are {', '.join(values['label'].values)}; choose one"
        )


def _draw_condition(ax, positions, condition, values, summary, is_forgotten):
    """Draw the mean of each class with its interval, or each speaker if they are too few, and mark the forgotten."""
    marker_style = {"ls": "", "marker": condition.marker, "ms": 6, "mec": "black"}
    interval = summary.sel(dose=condition.dose, neuron_set="selected")
    shifted = positions + condition.shift
    style.interval(ax, shifted, interval, color="black", mfc=condition.fill, label=condition.label, **marker_style)

    too_few = interval["n"] < statistics.MIN_SPEAKERS
    speaker_values = values.sel(dose=condition.dose, neuron_set="selected").where(too_few)
    ax.plot(
        shifted + condition.shift,
        speaker_values.transpose("label", "speaker"),
        ls="",
        marker=condition.marker,
        ms=3,
        color="#555555",
        mfc=condition.fill,
        alpha=0.6,
    )
    forgotten_mean = interval["mean"].values[is_forgotten]
    ax.plot(shifted[is_forgotten], forgotten_mean, mfc=condition.forgotten_fill, zorder=4, **marker_style)
