from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .. import statistics
from . import style

BAND = "size-matched random neurons: 95 % of sets"
_SCALED = ["mean", "low", "high", "speakers", "random_mean", "random_low", "random_high"]


def layer_curves(
    curves: xr.Dataset | Mapping[str, xr.Dataset],
    *,
    ylabel: str = "change of the target's log-odds (nats)",
    random: bool = True,
    scale: str = "raw",
) -> Figure:
    """Plot the effect of an edit by edited layer, over speakers, in raw units.

    `curves` is a Dataset returned by `ablation.effect_over_speakers`, or several by name, with no dims but `layer` or
    `group`. With `random`, the bands of the random neurons are drawn, if there are any. With `scale` "min-max" each
    curve runs from 0, its lowest mean, to 1, its highest, which shows its shape and hides its size.

    Raise ValueError for an unknown `scale`, for curves of layers mixed with curves of groups, and for other dims.
    """
    if scale not in ("raw", "min-max"):
        raise ValueError(f"unknown scale {scale!r}: choose 'raw' or 'min-max'")
    if isinstance(curves, xr.Dataset):
        curves = {"selected neurons": curves}
    row = _edit_dim(curves.values())
    figure, axes = style.panels()
    for index, (name, curve) in enumerate(curves.items()):
        names = curve[row].values
        layers = names if row == "layer" else np.arange(len(names))
        positions = layers + 0.08 * (index - (len(curves) - 1) / 2)
        if scale == "min-max":
            curve = _min_max(curve)
        draw(axes, layers, curve, positions=positions, index=index, name=name, random=random, alone=len(curves) == 1)
    axes.set(xlabel=style.EDIT_DIM_LABELS[row], title=over(*curves.values()))
    axes.set_xticks(layers, names)
    if scale == "raw":
        axes.axhline(0, color="black", lw=0.6)
        axes.set_ylabel(ylabel, fontsize=10)
    else:
        quantity = ylabel.rsplit(" (")[0]
        axes.set_ylabel(f"{quantity},\nmin–max: 0 = lowest mean, 1 = highest", fontsize=9)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def _edit_dim(curves):
    """Return the dim of the edits, "layer" or "group"; raise ValueError if some curves have one and some the other."""
    rows = {style.edited(curve["mean"]) for curve in curves}
    if len(rows) > 1:
        raise ValueError("curves of layers and of groups cannot share an axis: plot them in separate figures")
    return rows.pop()


def draw(
    axes: Axes,
    x: Sequence[float],
    curve: xr.Dataset,
    *,
    positions: Sequence[float] | None = None,
    index: int = 0,
    name: str | None = None,
    random: bool = True,
    alone: bool = True,
) -> None:
    """Draw one curve with its interval (each speaker if too few for one), and the band of its random neurons.

    Colour and marker are those of number `index`. The band is at `x`, the curve at `positions` (default: `x`). Random
    neurons are grey if the curve is `alone` in the panel, and otherwise in its colour.
    """
    if curve["mean"].ndim != 1:
        raise ValueError(f"a curve needs one dim, and this one has {', '.join(curve['mean'].dims)}: pick with .sel(…)")
    if positions is None:
        positions = x
    color = style.color(index)
    if random:
        _draw_random(axes, x, curve, color, name, alone)
    if curve["n"].max() < statistics.MIN_SPEAKERS:  # too few for an interval: each speaker is shown
        axes.plot(positions, curve["speakers"].transpose(..., "speaker"), ".", color=color, alpha=0.5, ms=5)
    style.interval(axes, positions, curve, color=color, marker=style.marker(index), ms=5, label=name)


def _draw_random(axes, x, curve, color, name, alone):
    """Draw band and mean of the random neurons of a curve, where there are any."""
    low = curve["random_low"].values
    high = curve["random_high"].values
    has_band = np.isfinite(low)
    if has_band.any():
        if alone:
            band_style = {"color": style.RANDOM_COLOR, "alpha": 0.6, "lw": 0}
            label = BAND
        else:
            band_style = {"color": color, "alpha": 0.2, "lw": 0}
            label = f"{name}: 95 % of random sets"
        axes.fill_between(x, low, high, **band_style, label=label)
        # A band without neighbours would have no width.
        neighbour_before = np.r_[False, has_band[:-1]]
        neighbour_after = np.r_[has_band[1:], False]
        for i in np.flatnonzero(has_band & ~neighbour_before & ~neighbour_after):
            axes.fill_between(x[i] + np.array([-0.15, 0.15]), low[i], high[i], **band_style)
    if np.isfinite(curve["random_mean"]).any():
        label = None
        if alone and not has_band.any():
            label = "mean of random sets (too few for a band)"
        axes.plot(x, curve["random_mean"], color="#777777" if alone else color, lw=1, ls=":", label=label)


def over(*curves: xr.Dataset) -> str:
    """Return the title's words on speakers: their number, and whether an interval is shown."""
    n = min(int(curve["n"].max()) for curve in curves)
    if n >= statistics.MIN_SPEAKERS:
        return f"Mean and 95 % interval over {n} speakers"
    return f"Mean over {n} speakers, and each speaker"


def _min_max(curve):
    """Scale a curve so that its mean runs from 0, the lowest, to 1, the highest."""
    lowest = curve["mean"].min()
    span = curve["mean"].max() - lowest
    return curve.assign((curve[_SCALED] - lowest) / (span if span > 0 else 1))
