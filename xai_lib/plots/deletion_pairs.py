import numpy as np

from .. import results, statistics
from . import style


def deletion_pairs(drop):
    """Plot the drop of the target when frames are silenced: a line per speaker, and the mean.

    The mean has an interval from 8 speakers up. `drop` is as returned by `deletion_test.frame_deletion`.
    """
    units = results.units(drop)
    interval = dict(zip(("mean", "low", "high"), statistics.interval(units.values)))
    figure, axes = style.panels()
    figure.set_figwidth(0.6 * style.WIDTH)
    positions = range(units.shape[1])
    axes.plot(positions, units.T, color=style.RANDOM_COLOR, lw=0.8, marker="o", ms=3)
    style.interval(axes, positions, interval, color=style.EMOTION_COLORS["angry"], marker="D", ls="", capsize=4, lw=2)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(positions, drop["mode"].values)
    share, scale = drop.attrs["share"], drop.attrs["scale"].replace("_", " ")
    frames = "speech frames" if drop.attrs["frames"] == "speech" else "frames"
    axes.set(xlabel=f"which {share:.0%} of the {frames} are silenced", ylabel=f"drop of the target ({scale})")
    interval_note = " with its 95 % interval" if np.isfinite(interval["low"]).all() else ""
    axes.set_title(f"Grey: {len(units)} {units.dims[0]}s, each a line; red: their mean{interval_note}", fontsize=10)
    return figure
