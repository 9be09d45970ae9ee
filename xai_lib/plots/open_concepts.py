from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style

_COLOR = style.COLORS[0]  # neurons with the adjective
_OTHER_COLOR = style.COLORS[1]  # other neurons of the same layers
_POOLED = {"ms": 11, "mew": 2, "color": "#555555"}  # all draws from shuffled captions together


def adjective_check(result: xr.Dataset, *, units: str = "speakers") -> Figure:
    """Plot how many neurons follow the quantity their adjective names, on clips not used for the descriptions.

    `result` is as returned by `open_concepts.check`. Left: the share of neurons that do. Right: their mean correlation
    over speakers. Adjectives that no neuron has are left out. `units` is the title's word for speakers.
    """
    result = result.sel(adjective=result["neurons"].values > 0)
    n_rows = result.sizes["adjective"]
    if not n_rows:
        figure, ax = style.panels(height=1)
        ax.set_axis_off()
        ax.set_title("No neuron has an adjective")
        return figure

    figure, (share_axes, rho_axes) = style.panels(1, 2, height=1.5 + 0.26 * n_rows, sharey=True)
    rows = np.arange(n_rows)
    _draw_shares(share_axes, rows, result)
    _draw_correlations(rho_axes, rows, result)
    names = [f"{name} ({n})" for name, n in zip(result["adjective"].values, result["neurons"].values)]
    share_axes.set_yticks(rows, names, parse_math=False)
    share_axes.invert_yaxis()
    share_axes.set(
        xlabel="neurons that follow it (%, q < 0.05)", xlim=(-2, 102), title="Adjective (neurons that have it)"
    )
    interval_note = _interval_note(int(result["n"].max()), units)
    rho_axes.set(xlabel="ρ with the quantity", title=f"Held-out clips{interval_note}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure


def _draw_shares(axes, rows, result):
    """Draw the share of neurons that follow their adjective, of other neurons, and with shuffled captions."""
    if "chance" in result:
        shares = result["chance"].transpose("draw", "adjective")
        counts = result["chance_neurons"].transpose("draw", "adjective")
        for row, draws in zip(rows, shares.values.T):
            if np.isfinite(draws).any():
                ends = np.nanquantile(100 * draws, [0.025, 0.975])
                axes.plot(ends, [row, row], color=style.RANDOM_COLOR, lw=5, alpha=0.5, zorder=0)
        pooled = (shares * counts).sum("draw") / counts.sum("draw").where(lambda n: n > 0)
        axes.plot(100 * pooled, rows, "|", **_POOLED)
    axes.plot(100 * result["other"], rows, "D", ms=5, color=_OTHER_COLOR, mfc="white")
    axes.plot(100 * result["passed"], rows, "o", ms=6, color=_COLOR)


def _draw_correlations(axes, rows, result):
    """Draw the mean correlation of neurons with their adjective, with its interval, and of other neurons."""
    error = [result["mean"] - result["low"], result["high"] - result["mean"]]
    axes.errorbar(
        result["mean"], rows, xerr=error, fmt="o", ms=6, capsize=2, color=_COLOR, label="neurons with the adjective"
    )
    (others,) = axes.plot(result["mean_other"], rows, "D", ms=5, color=_OTHER_COLOR, mfc="white")
    if np.isfinite(result["mean_other"]).any():
        others.set_label("other neurons of the same layers")
    if "chance" in result and np.isfinite(result["chance"]).any():
        axes.plot([], [], "|", **_POOLED, label="shuffled captions: all draws (bar: 95 % of them)")
    axes.axvline(0, color="black", lw=0.8)


def _interval_note(n, units):
    """Return the title's words on the interval over `n` speakers."""
    if n >= statistics.MIN_SPEAKERS:
        return f", 95 % interval over {n} {units}"
    if n > 1:
        return f", mean over {n} {units}, no interval"
    return ", all together: no interval"
