from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style
from .ablation import draw, over


def dose_response(
    curves: xr.Dataset, directions: xr.Dataset | None = None, *, ylabel: str = "change of the target's log-odds (nats)"
) -> Figure:
    """Plot the effect of an edit by the number of neurons, for one or several selections and random neurons.

    Parameters
    ----------
    curves : Dataset
        As returned by `ablation.effect_over_speakers` for one layer and mode of sweeps with several `k`, joined by
        `xr.concat`, and perhaps with several selections, such as "top" and "bottom": [k] or [selection, k].
    directions : Dataset, optional
        The same, with `against="direction"`; only its random directions are drawn.

    Raises
    ------
    ValueError
        `curves` has no dim `k`.
    """
    if "k" not in curves["mean"].dims:
        raise ValueError("a dose–response curve needs the dim k: join sweeps with several k by xr.concat")
    if "selection" not in curves.dims:
        curves = curves.expand_dims(selection=["selected neurons"])
    names = curves["selection"].values.tolist()
    k = curves["k"].values
    figure, axes = style.panels(height=4.2)
    if directions is not None:
        _draw_directions(axes, k, directions)
    for index, shift in enumerate(style.apart(len(names), 0.012 * np.log(k[-1] / k[0]))):
        curve = curves.isel(selection=index)
        positions = k * np.exp(shift)
        draw(axes, k, curve, positions=positions, index=index, name=names[index], alone=len(names) == 1)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xscale="log", xlabel="neurons edited (number, log axis)", ylabel=ylabel, title=over(curves))
    axes.set_xticks(k, k)
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _draw_directions(axes, k, directions):
    """Draw the band and the mean of random directions."""
    random = directions[["random_low", "random_high", "random_mean"]]
    if "selection" in random.dims:  # directions depend on k alone: the same for all selections
        random = random.isel(selection=0)
    options = {"facecolor": "none", "edgecolor": "#777777", "hatch": "....", "lw": 0}
    axes.fill_between(k, random["random_low"], random["random_high"], **options, label="95 % of random directions")
    axes.plot(k, random["random_mean"], color="#777777", ls="--", lw=1)
