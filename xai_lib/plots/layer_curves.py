import numpy as np
import xarray as xr

from .. import statistics
from . import style

BAND = "size-matched random neurons: 95 % of sets"
_SCALED = ["mean", "low", "high", "speakers", "random_mean", "random_low", "random_high"]


def layer_curves(curves, *, ylabel="change of the target's log-odds (nats)", random=True, scale="raw"):
    """Plot the effect of an edit by edited layer, over speakers, in raw units.

    `curves` is a Dataset returned by `ablation.effect_over_speakers`, or several by name, with no dims but `layer` or `group`. With
    `random`, the bands of the random neurons are drawn, if there are any. With `scale` "min-max" each curve runs from
    0, its lowest mean, to 1, its highest, which shows its shape and hides its size.

    Raise ValueError for an unknown `scale`, for curves of layers mixed with curves of groups, and for other dims.
    """
    if scale not in ("raw", "min-max"):
        raise ValueError(f"unknown scale {scale!r}: choose 'raw' or 'min-max'")
    curves = {"selected neurons": curves} if isinstance(curves, xr.Dataset) else curves
    (row, *other_rows) = {style.edited(curve["mean"]) for curve in curves.values()}
    if other_rows:
        raise ValueError("curves of layers and of groups cannot share an axis: plot them in separate figures")
    figure, axes = style.panels()
    for index, (name, curve) in enumerate(curves.items()):
        names = curve[row].values
        layers = names if row == "layer" else np.arange(len(names))
        positions = layers + 0.08 * (index - (len(curves) - 1) / 2)
        curve = curve if scale == "raw" else _min_max(curve)
        draw(axes, layers, curve, positions=positions, index=index, name=name, random=random, alone=len(curves) == 1)
    if scale == "raw":
        axes.axhline(0, color="black", lw=0.6)
    else:
        ylabel = f"{ylabel.rsplit(' (')[0]},\nmin–max: 0 = lowest mean, 1 = highest"
    axes.set(xlabel=style.EDIT_DIM_LABELS[row], title=over(*curves.values()))
    axes.set_xticks(layers, names)
    axes.set_ylabel(ylabel, fontsize=10 if scale == "raw" else 9)
    figure.legend(loc="outside lower center", ncols=4)
    return figure


def draw(axes, x, curve, *, positions=None, index=0, name=None, random=True, alone=True):
    """Draw one curve with its interval (each speaker if too few for one), and the band of its random neurons."""
    if curve["mean"].ndim != 1:
        raise ValueError(f"a curve needs one dim, and this one has {', '.join(curve['mean'].dims)}: pick with .sel(…)")
    color, positions = style.COLORS[index % len(style.COLORS)], x if positions is None else positions
    if random and np.isfinite(curve["random_low"]).any():
        shade, opacity = (style.RANDOM_COLOR, 0.6) if alone else (color, 0.2)
        label = BAND if alone else f"{name}: 95 % of random sets"
        low, high = curve["random_low"].values, curve["random_high"].values
        axes.fill_between(x, low, high, color=shade, alpha=opacity, lw=0, label=label)
        known = np.isfinite(low)
        # A band without neighbours would have no width.
        for i in np.flatnonzero(known & ~np.r_[False, known[:-1]] & ~np.r_[known[1:], False]):
            axes.fill_between(x[i] + np.array([-0.15, 0.15]), low[i], high[i], color=shade, alpha=opacity, lw=0)
    if random and np.isfinite(curve["random_mean"]).any():
        banded = np.isfinite(curve["random_low"]).any()
        label = None if banded or not alone else "mean of random sets (too few for a band)"
        axes.plot(x, curve["random_mean"], color="#777777" if alone else color, lw=1, ls=":", label=label)
    if curve["n"].max() < statistics.MIN_SPEAKERS:  # too few for an interval: each speaker is shown
        axes.plot(positions, curve["speakers"].transpose(..., "speaker"), ".", color=color, alpha=0.5, ms=5)
    style.interval(axes, positions, curve, color=color, marker="osD^vP"[index % 6], ms=5, label=name)


def over(*curves):
    """Return the title's words on speakers: their number, and whether an interval is shown."""
    n = min(int(curve["n"].max()) for curve in curves)
    return (
        f"Mean and 95 % interval over {n} speakers"
        if n >= statistics.MIN_SPEAKERS
        else f"Mean over {n} speakers, and each speaker"
    )


def _min_max(curve):
    """Scale a curve so that its mean runs from 0, the lowest, to 1, the highest."""
    lowest, highest = curve["mean"].min(), curve["mean"].max()
    return curve.assign((curve[_SCALED] - lowest) / (highest - lowest if highest > lowest else 1))
