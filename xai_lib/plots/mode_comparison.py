from __future__ import annotations

import math

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style
from .ablation import BAND, draw, over

_X_LABELS = style.EDIT_DIM_LABELS | {"k": "neurons edited"}
_COLOR = style.COLORS[0]
_COLUMNS = 3


def mode_comparison(effects: xr.Dataset, *, ylabel: str = "change of the target's log-odds (nats)") -> Figure:
    """Plot modes of an edit side by side, each with its random neurons; open markers: not significant.

    `effects` is a Dataset returned by `ablation.effect_over_speakers`: [mode], a point each, or [layer, mode] (or
    `group`, or `k`), a panel each, all on one scale. Raise ValueError for other dims.
    """
    dim = _panel_dim(effects["mean"].dims)
    if dim is None:
        figure, panels = style.panels(height=4, squeeze=False)
        _draw_points(panels[0, 0], effects)
        panels[0, 0].set_xlabel("mode")
    else:
        modes = effects["mode"].values.tolist()
        n_rows = math.ceil(len(modes) / _COLUMNS)
        n_columns = min(len(modes), _COLUMNS)
        figure, panels = style.panels(n_rows, n_columns, height=1.2 + 2.2 * n_rows, sharey=True, squeeze=False)
        for axes, mode in zip(panels.flat, modes):
            _draw_curve(axes, effects.sel(mode=mode), dim)
            axes.set(title=mode, xlabel=_X_LABELS[dim])
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
        axes.axhline(0, color="black", lw=0.6)
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(over(effects), x=0.01, ha="left", fontsize=11)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _panel_dim(dims):
    """Return the dim along a mode's panel, None if each mode is a point; raise ValueError for other dims."""
    if set(dims) == {"mode"}:
        return None
    for dim in _X_LABELS:
        if set(dims) == {"mode", dim}:
            return dim
    raise ValueError(f"effects need the dims [mode] or [layer, mode], not {list(dims)}: pick with .sel(…)")


def _draw_curve(axes, effects, dim):
    """Draw the effects of one mode along `dim`."""
    positions = np.arange(effects.sizes[dim])
    draw(axes, positions, effects, name="selected neurons")
    _mark_not_significant(axes, positions, effects)
    axes.set_xticks(positions, effects[dim].values, fontsize=8 if len(positions) > 8 else 10)


def _draw_points(axes, effects):
    """Draw a point per mode; right: band of random neurons; left: each speaker, if too few for an interval."""
    positions = np.arange(effects.sizes["mode"])
    low = effects["random_low"].values
    high = effects["random_high"].values
    mean = effects["random_mean"].values
    if np.isfinite(low).any():
        axes.bar(positions + 0.18, high - low, 0.2, low, color=style.RANDOM_COLOR, alpha=0.6, label=BAND)
        axes.hlines(mean, positions + 0.08, positions + 0.28, color="#777777", lw=1, ls=":")
    if effects["n"].max() < statistics.MIN_SPEAKERS:
        axes.plot(positions - 0.15, effects["speakers"].transpose("mode", "speaker"), ".", color=_COLOR, alpha=0.5)
    style.interval(axes, positions, effects, color=_COLOR, marker="o", ms=5, ls="", capsize=4, label="selected neurons")
    _mark_not_significant(axes, positions, effects)
    axes.set_xticks(positions, effects["mode"].values)
    axes.set_xlim(-0.5, len(positions) - 0.5)


def _mark_not_significant(axes, positions, effects):
    """Draw open markers where the effect is not significant against random neurons."""
    not_significant = ~(effects["q"].values < 0.05)
    means = effects["mean"].values[not_significant]
    label = "n.s. against random neurons (q ≥ 0.05), or not tested"
    axes.plot(positions[not_significant], means, "o", ms=5, mfc="white", mec=_COLOR, zorder=3, label=label)
