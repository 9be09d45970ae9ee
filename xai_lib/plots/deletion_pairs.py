from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import results, statistics
from . import style


def deletion_pairs(drop: xr.DataArray) -> Figure:
    """Plot the drop of the target when frames are silenced: a line per speaker, and the mean.

    The mean has an interval from 8 speakers up. `drop` is as returned by `deletion_test.frame_deletion`.
    """
    units = results.units(drop)
    mean, low, high = statistics.interval(units.values)
    figure, axes = style.panels()
    figure.set_figwidth(0.6 * style.WIDTH)
    positions = range(units.shape[1])
    axes.plot(positions, units.T, color=style.RANDOM_COLOR, lw=0.8, marker="o", ms=3)
    options = {"color": style.EMOTION_COLORS["angry"], "marker": "D", "ls": "", "capsize": 4, "lw": 2}
    style.interval(axes, positions, {"mean": mean, "low": low, "high": high}, **options)
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(positions, drop["mode"].values)

    frames = "speech frames" if drop.attrs["frames"] == "speech" else "frames"
    scale = drop.attrs["scale"].replace("_", " ")
    axes.set_xlabel(f"which {drop.attrs['share']:.0%} of the {frames} are silenced")
    axes.set_ylabel(f"drop of the target ({scale})")
    title = f"Grey: {len(units)} {units.dims[0]}s, each a line; red: their mean"
    if np.isfinite(low).all():
        title += " with its 95 % interval"
    axes.set_title(title, fontsize=10)
    return figure
