import math

import numpy as np

from .. import statistics
from . import style
from .layer_curves import BAND, draw, over

_X_LABELS = style.EDIT_DIM_LABELS | {"k": "neurons edited"}
_COLOR = style.COLORS[0]


def mode_comparison(effects, *, ylabel="change of the target's log-odds (nats)"):
    """Plot modes of an edit side by side, each with its random neurons; open markers: not significant.

    `effects` is a Dataset returned by `ablation.effect_over_speakers`: [mode], a point each, or [layer, mode] (or `group`, or `k`),
    a panel each, all on one scale. Raise ValueError for other dims.
    """
    dims = effects["mean"].dims
    dim = next((d for d in _X_LABELS if d in dims), None)
    if {*dims, dim} != {"mode", dim}:
        raise ValueError(f"effects need the dims [mode] or [layer, mode], not {list(dims)}: pick with .sel(…)")
    modes = effects["mode"].values.tolist()
    rows, columns = (1, 1) if dim is None else (math.ceil(len(modes) / 3), min(len(modes), 3))
    height = 4 if dim is None else 1.2 + 2.2 * rows
    figure, panels = style.panels(rows, columns, height=height, sharey=True, squeeze=False)
    if dim is None:
        _points(panels[0, 0], effects)
        panels[0, 0].set_xlabel("mode")
    for axes, mode in zip(panels.flat, modes if dim else ()):
        mode_effects, positions = effects.sel(mode=mode), np.arange(effects.sizes[dim])
        draw(axes, positions, mode_effects, name="selected neurons")
        _mark_not_significant(axes, positions, mode_effects)
        axes.set(title=mode, xlabel=_X_LABELS[dim])
        axes.set_xticks(positions, mode_effects[dim].values, fontsize=8 if len(positions) > 8 else 10)
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
        axes.axhline(0, color="black", lw=0.6)
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(over(effects), x=0.01, ha="left", fontsize=11)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _points(axes, effects):
    """Draw a point per mode; right: band of random neurons; left: each speaker, if too few for an interval."""
    positions = np.arange(effects.sizes["mode"])
    low, high, mean = (effects[name].values for name in ("random_low", "random_high", "random_mean"))
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
    not_significant, label = ~(effects["q"].values < 0.05), "n.s. against random neurons (q ≥ 0.05), or not tested"
    axes.plot(
        positions[not_significant],
        effects["mean"].values[not_significant],
        "o",
        ms=5,
        mfc="white",
        mec=_COLOR,
        zorder=3,
        label=label,
    )
