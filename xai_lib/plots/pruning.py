"""Figures of pruning: what is forgotten and what is kept."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import cycle

import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import statistics
from ..pruning import forgetting as forgetting_results
from . import style

# ---------- class by class


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
    compared: xr.Dataset,
    dose: int,
    *,
    forgotten: str,
    measure: str = "logit",
    units: str = "speakers",
    ax: Axes | None = None,
) -> Figure:
    """Plot a measure of the true class before and after pruning, and with random neurons pruned, class by class.

    `compared` is as returned by `pruning.compare`, `dose` one of its numbers of neurons, `measure` "logit",
    "probability" or "accuracy". Classes are sorted by the value before pruning; the `forgotten` class is marked.
    `units` is the axis label's word for speakers, who are drawn one by one where they are too few for an interval. With
    `ax`, draw into these axes.

    Raise ValueError for a dose or a class that `compared` does not have.
    """
    values = forgetting_results.by_class(compared, measure)
    _check_choice(values, dose, forgotten)
    before = values.sel(dose=0, neuron_set="selected").mean("speaker")
    values = values.isel(label=np.argsort(-before.values, kind="stable"))
    summary = statistics.over_speakers(values)
    names = values["label"].values
    positions = np.arange(len(names))

    figure, axes = style.panel(ax, height=4)
    random = forgetting_results.random_sets(summary["mean"].sel(dose=dose))
    if random.sizes["neuron_set"]:
        options = {"color": style.RANDOM_COLOR, "lw": 7, "label": "random neurons pruned (range)"}
        axes.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), **options)
    unpruned = _Condition(0, -0.12, "o", "white", "white", "unpruned")
    forgotten_fill = style.COLORS[1] if dose else style.COLORS[0]
    pruned = _Condition(dose, 0.12, "s", style.COLORS[0], forgotten_fill, f"{dose} selected neurons pruned")
    for condition in (unpruned, pruned):
        _draw_condition(axes, positions, condition, values, summary, names == forgotten)

    axes.set_xticks(positions, names, parse_math=False, **style.SLANTED)
    for tick, name in zip(axes.get_xticklabels(), names):
        if name == forgotten:
            tick.set(color=style.COLORS[1], fontweight="bold")
    axes.set(ylabel=f"{measure} of the true class, mean over {units}")
    title = f"To forget: {forgotten}"
    if (summary["n"].sel(dose=0, neuron_set="selected") < statistics.MIN_SPEAKERS).any():
        title += f" (small: single {units}, too few for an interval)"
    axes.set_title(title)
    style.legend_below(axes, columns=3, inside=ax is not None)
    return figure


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


def class_recalls(recalls: xr.DataArray, dose: int, *, forgotten: str, ax: Axes | None = None) -> Figure:
    """Plot the recall of each class, mean over speakers: unpruned, without random, and without the selected neurons.

    `recalls` is as returned by `pruning.recalls`, `dose` is one of its numbers of neurons; the `forgotten` class is put
    first. With `ax`, draw into these axes. Raise ValueError for a dose or a class that `recalls` does not have.
    """
    _check_choice(recalls, dose, forgotten)
    names = sorted(recalls["label"].values, key=lambda name: name != forgotten)
    mean_recalls = recalls.mean("speaker").sel(label=names)
    random = forgetting_results.random_sets(mean_recalls.sel(dose=dose))
    table = pd.DataFrame({"unpruned": mean_recalls.sel(dose=0, neuron_set="selected").values}, index=names)
    colors = ["white"]
    if random.sizes["neuron_set"]:
        table["random neurons pruned (line: range)"] = random.mean("neuron_set").values
        colors.append(style.RANDOM_COLOR)
    table["selected neurons pruned"] = mean_recalls.sel(dose=dose, neuron_set="selected").values
    colors.append(style.COLORS[0])

    figure, axes = style.panel(ax)
    bars = table.melt(var_name="condition", value_name="recall", ignore_index=False).reset_index(names="class")
    seaborn.barplot(
        bars,
        x="class",
        y="recall",
        hue="condition",
        palette=colors,
        saturation=1,
        gap=0.08,
        errorbar=None,
        edgecolor="black",
        linewidth=0.8,
        ax=axes,
    )
    positions = range(len(names))
    if random.sizes["neuron_set"]:  # their bars are the middle ones
        axes.vlines(positions, random.min("neuron_set"), random.max("neuron_set"), color="black", lw=1.2)
    tick_options = style.SLANTED if len(names) > 8 else {}
    axes.set_xticks(positions, names, parse_math=False, **tick_options)
    axes.set(ylabel="recall, mean over speakers", xlabel="class (the first is the one to forget)", ylim=(0, 1.02))
    axes.set_title(f"{dose} neurons pruned")
    axes.get_legend().remove()
    style.legend_below(axes, columns=3, inside=ax is not None)
    return figure


def _check_choice(values, dose, forgotten):
    """Raise ValueError if there are no results for the dose, or no clips of the forgotten class."""
    if dose not in values["dose"].values:
        raise ValueError(f"no result for {dose} neurons: the doses are {values['dose'].values.tolist()}; choose one")
    if forgotten not in values["label"].values:
        raise ValueError(
            f"there are no clips of {forgotten!r}: the classes are {', '.join(values['label'].values)}; choose one"
        )


# ---------- the forgotten class and all others


_MEASURES = {
    "recall": "recall",
    "log_odds": "change of the true class's\nlog odds (nats)",
    "moved": "mean |change| of these\nlog odds (nats)",
}


@dataclass(frozen=True)
class _ClassGroup:
    """How the classes of a group are drawn."""

    key: str
    shift: float
    color: str
    marker: str
    label: str


def forgetting(effects: xr.Dataset, *, units: str = "speakers") -> Figure:
    """Plot what is forgotten and what is kept as more neurons are pruned, beside size-matched random neurons.

    `effects` is as returned by `pruning.effects`; `units` is the title's word for speakers.
    """
    groups = (
        _ClassGroup("forgotten", -0.06, style.COLORS[1], "o", f"{effects.attrs['forgotten']} (to forget)"),
        _ClassGroup("kept", 0.06, style.COLORS[0], "s", "other classes, among themselves"),
    )
    figure, panels = style.panels(1, 3, height=3.9)
    positions = np.arange(effects.sizes["dose"])
    smallest_n = np.inf
    for ax, (measure, label) in zip(panels, _MEASURES.items()):
        for group in groups:
            values = effects[measure].sel(group=group.key).transpose("dose", "speaker", "neuron_set")
            summary = statistics.over_speakers(values)
            _draw_random_range(ax, positions, forgetting_results.random_sets(summary["mean"]), group)
            _draw_selected(ax, positions, values, summary, group, clip=measure == "recall")
            smallest_n = min(smallest_n, int(summary.sel(neuron_set="selected")["n"].min()))
        ax.set_xticks(positions, effects["dose"].values)
        ax.set(xlabel="neurons pruned", ylabel=label)
    panels[0].set(ylim=(-0.03, 1.03))
    panels[1].axhline(0, color="black", lw=0.8)

    unit_note = f"bars: 95 % over {units}"
    if smallest_n < statistics.MIN_SPEAKERS:
        unit_note = f"small: {units}, too few for an interval"
    style.heading(figure, f"Selected neurons ({unit_note}); shaded, dotted: size-matched random neurons")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_random_range(ax, positions, random, group):
    """Draw range and mean of the random sets."""
    low = random.min("neuron_set")
    high = random.max("neuron_set")
    ax.fill_between(positions, low, high, color=group.color, alpha=0.2, lw=0)
    ax.plot(positions, random.mean("neuron_set"), color=group.color, ls=":", lw=1.2)


def _draw_selected(ax, positions, values, summary, group, *, clip):
    """Draw the mean of the selected neurons with its interval (`clip`: to 0–1), or each speaker if too few for one."""
    selected = summary.sel(neuron_set="selected")
    shifted = positions + group.shift
    ax.plot(shifted, selected["mean"], color=group.color, marker=group.marker, label=group.label)
    ends = selected[["low", "high"]]
    if clip:
        ends = ends.clip(0, 1)
    ax.vlines(shifted, ends["low"], ends["high"], color=group.color, lw=1)
    if (selected["n"] < statistics.MIN_SPEAKERS).any():
        speaker_values = values.sel(neuron_set="selected")
        options = {"ls": "", "marker": group.marker, "ms": 3, "color": group.color, "alpha": 0.6}
        ax.plot(shifted + group.shift, speaker_values, **options)


def frontier(result: xr.Dataset, *, measure: str = "accuracy") -> Figure:
    """Plot what is kept against what is forgotten as more neurons are pruned, by selection strategy and at random.

    `result` is as returned by `pruning.frontier`; the means over its classes are shown. Best is the lower right corner.
    """
    mean = result["value"].sel(measure=measure).mean("class")
    losses = -result["change"].sel(measure=measure).transpose("class", ...)
    figure, (curve_axes, loss_axes) = style.panels(1, 2, height=4.0, width_ratios=[3, 2])
    for name, color in zip(result["strategy"].values, cycle(style.COLORS)):
        strategy_mean = mean.sel(strategy=name)
        _draw_tradeoff(curve_axes, strategy_mean.sel(random=True), color=color, ls=":", marker="x", alpha=0.6)
        _draw_tradeoff(curve_axes, strategy_mean.sel(random=False), color=color, marker="o", ms=5, label=name)
        # A strategy may lack neurons for the larger doses.
        strategy_losses = losses.sel(strategy=name, random=False).dropna("dose", how="all")
        dose_indices = np.flatnonzero(result["dose"].isin(strategy_losses["dose"]))
        _draw_losses(loss_axes, dose_indices, strategy_losses.sel(group="forgotten"), color=color, ls="-")
        _draw_losses(loss_axes, dose_indices, strategy_losses.sel(group="kept"), color=color, ls="--")

    loss_axes.set_xticks(np.arange(result.sizes["dose"]), result["dose"].values)
    loss_axes.set(xlabel="neurons pruned", ylabel=f"loss of {measure}")
    loss_axes.set_title("— forgotten, – – kept", fontsize=10)
    curve_axes.set(xlabel=f"{measure} of the classes to keep", ylabel=f"{measure} of the class to forget")
    low, high = curve_axes.get_xlim()
    if measure != "logit" and high - low < 0.5:  # otherwise small changes would look large
        middle = (low + high) / 2
        curve_axes.set(xlim=(middle - 0.25, middle + 0.25), ylim=(-0.03, 1.03))
    n_classes = result.sizes["class"]
    classes = result["class"].item() if n_classes == 1 else f"mean of {n_classes} classes"
    curve_axes.set_title(f"To forget: {classes} (each dot a dose; ×: random)", fontsize=10)
    figure.legend(*curve_axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _draw_tradeoff(axes, mean, **options):
    """Draw what is forgotten against what is kept, [group, dose]."""
    curve = mean.dropna("dose")
    axes.plot(curve.sel(group="kept"), curve.sel(group="forgotten"), **options)


def _draw_losses(axes, positions, losses, **options):
    """Draw the mean loss over classes by dose, with its interval."""
    mean, low, high = statistics.interval(losses.transpose("class", "dose").values)
    axes.errorbar(positions, mean, [mean - low, high - mean], capsize=2, **options)


# ---------- accuracy without neurons


def importance_curves(result: xr.Dataset) -> Figure:
    """Plot accuracy against the share of neurons pruned, for each ranking; dotted: random neurons of the same layers.

    `result` is as returned by `pruning.importance`. Lines are means over draws and speakers, shades the range of the
    draws.
    """
    n_rankings = result.sizes["ranking"]
    figure, panels = style.grid(n_rankings, columns=min(n_rankings, 3), row_height=2.7, sharey=True)
    accuracy = statistics.by_speaker(result["right"]).mean("speaker")
    percentages = 100 * result["share"].values
    for ax, name in zip(panels.flat, result["ranking"].values):
        ranking = accuracy.sel(ranking=name)
        _draw_accuracy(ax, percentages, ranking.sel(neuron_set="random"), "#777777", ":", "random neurons")
        _draw_accuracy(ax, percentages, ranking.sel(neuron_set="selected"), style.COLORS[0], "-", "selected neurons")
        ax.set_title(name, fontsize=10)
        ax.set(xlim=(percentages.min() - 0.5, percentages.max() + 0.5), ylim=(-0.02, 1.02))
    for ax in panels[:, 0]:
        ax.set_ylabel("accuracy")
    figure.supxlabel("% of neurons pruned", fontsize=10)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure


def _draw_accuracy(ax, percentages, accuracy, color, linestyle, label):
    """Draw mean and range over draws of the accuracy [draw, share], where all draws are finite."""
    values = accuracy.transpose("draw", "share").values
    finite = np.isfinite(values).all(axis=0)
    x = percentages[finite]
    draws = values[:, finite]
    ax.fill_between(x, draws.min(axis=0), draws.max(axis=0), color=color, alpha=0.2, lw=0)
    ax.plot(x, draws.mean(axis=0), color=color, ls=linestyle, marker="o", ms=3, label=label)
