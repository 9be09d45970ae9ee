import math

import numpy as np

from .. import statistics
from . import style
from .layer_curves import BAND, draw, over

_ACROSS = style.EDITED | {"k": "neurons edited"}
_COLOR = style.COLORS[0]


def mode_comparison(effects, *, ylabel="change of the target's log-odds (nats)"):
    """Modes of an edit side by side, each beside its own null; open markers are not told from it.

    `effects` is a Dataset of `ablation.summary`: [mode], a point each, or [layer, mode] (or `group`, or `k`), a panel
    each, all on one scale.
    """
    dims = effects["mean"].dims
    dim = next((d for d in _ACROSS if d in dims), None)
    if {*dims, dim} != {"mode", dim}:
        raise ValueError(f"modes are compared over [mode], or [layer, mode], not {list(dims)}: pick with .sel(…)")
    modes = effects["mode"].values.tolist()
    rows, columns = (1, 1) if dim is None else (math.ceil(len(modes) / 3), min(len(modes), 3))
    height = 4 if dim is None else 1.2 + 2.2 * rows
    figure, panels = style.panels(rows, columns, height=height, sharey=True, squeeze=False)
    if dim is None:
        _points(panels[0, 0], effects)
        panels[0, 0].set_xlabel("mode")
    for axes, mode in zip(panels.flat, modes if dim else ()):
        one, at = effects.sel(mode=mode), np.arange(effects.sizes[dim])
        draw(axes, at, one, name="chosen neurons")
        _open(axes, at, one)
        axes.set(title=mode, xlabel=_ACROSS[dim])
        axes.set_xticks(at, one[dim].values, fontsize=8 if len(at) > 8 else 10)
    for axes in panels.flat:
        axes.set_visible(axes.has_data())
        axes.axhline(0, color="black", lw=0.6)
    figure.supylabel(ylabel, fontsize=10)
    figure.suptitle(over(effects), x=0.01, ha="left", fontsize=11)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _points(axes, effects):
    """A point for each mode; right of it the band of its null, left of it each speaker where there are too few."""
    at = np.arange(effects.sizes["mode"])
    low, high, mean = (effects[name].values for name in ("null_low", "null_high", "null_mean"))
    if np.isfinite(low).any():
        axes.bar(at + 0.18, high - low, 0.2, low, color=style.NULL_COLOR, alpha=0.6, label=BAND)
        axes.hlines(mean, at + 0.08, at + 0.28, color="#777777", lw=1, ls=":")
    if effects["n"].max() < statistics.FEWEST:
        axes.plot(at - 0.15, effects["speakers"].transpose("mode", "speaker"), ".", color=_COLOR, alpha=0.5)
    style.interval(axes, at, effects, color=_COLOR, marker="o", ms=5, ls="", capsize=4, label="chosen neurons")
    _open(axes, at, effects)
    axes.set_xticks(at, effects["mode"].values)
    axes.set_xlim(-0.5, len(at) - 0.5)


def _open(axes, at, effects):
    """Open markers where the effect is not told from the null."""
    there, text = ~(effects["q"].values < 0.05), "not told from random neurons (q ≥ 0.05), or not tested"
    axes.plot(at[there], effects["mean"].values[there], "o", ms=5, mfc="white", mec=_COLOR, zorder=3, label=text)
