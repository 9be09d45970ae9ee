import numpy as np

from .. import results, statistics
from . import style


def deletion_pairs(drop):
    """What silencing frames costs the target: a line per speaker, and the mean with its interval from 8 speakers up.

    `drop` is of `attribution.frame_deletion`.
    """
    units = results.units(drop)
    over = dict(zip(("mean", "low", "high"), statistics.interval(units.values)))
    figure, axes = style.panels()
    figure.set_figwidth(0.6 * style.WIDTH)
    places = range(units.shape[1])
    axes.plot(places, units.T, color=style.NULL_COLOR, lw=0.8, marker="o", ms=3)
    style.interval(axes, places, over, color=style.EMOTION_COLORS["angry"], marker="D", ls="", capsize=4, lw=2)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(places, drop["mode"].values)
    share, scale = drop.attrs["share"], drop.attrs["scale"].replace("_", " ")
    frames = "speech frames" if drop.attrs["frames"] == "speech" else "frames"
    axes.set(xlabel=f"which {share:.0%} of the {frames} are silenced", ylabel=f"drop of the target ({scale})")
    told = " with its 95 % interval" if np.isfinite(over["low"]).all() else ""
    axes.set_title(f"Grey: {len(units)} {units.dims[0]}s, each a line; red: their mean{told}", fontsize=10)
    return figure
