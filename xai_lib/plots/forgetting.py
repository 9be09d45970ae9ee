from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from ..pruning.forgetting import random_sets
from . import style

_MEASURES = {
    "recall": "recall",
    "log_odds": "change of the true class's\nlog odds (nats)",
    "moved": "mean |change| of these\nlog odds (nats)",
}


@dataclass(frozen=True)
class _Group:
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
        _Group("forgotten", -0.06, style.COLORS[1], "o", f"{effects.attrs['forgotten']} (to forget)"),
        _Group("kept", 0.06, style.COLORS[0], "s", "other classes, among themselves"),
    )
    figure, panels = style.panels(1, 3, height=3.9)
    positions = np.arange(effects.sizes["dose"])
    smallest_n = np.inf
    for ax, (measure, label) in zip(panels, _MEASURES.items()):
        for group in groups:
            values = effects[measure].sel(group=group.key).transpose("dose", "speaker", "neuron_set")
            summary = statistics.over_speakers(values)
            _draw_random(ax, positions, random_sets(summary["mean"]), group)
            _draw_selected(ax, positions, values, summary, group, clip=measure == "recall")
            smallest_n = min(smallest_n, int(summary.sel(neuron_set="selected")["n"].min()))
        ax.set_xticks(positions, effects["dose"].values)
        ax.set(xlabel="neurons pruned", ylabel=label)
    panels[0].set(ylim=(-0.03, 1.03))
    panels[1].axhline(0, color="black", lw=0.8)

    unit_note = f"bars: 95 % over {units}"
    if smallest_n < statistics.MIN_SPEAKERS:
        unit_note = f"small: {units}, too few for an interval"
    figure.suptitle(
        f"Selected neurons ({unit_note}); shaded, dotted: size-matched random neurons", ha="left", x=0.01, size=11
    )
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _draw_random(ax, positions, random, group):
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
