import numpy as np

from . import style
from .layer_curves import draw, over


def dose_response(curves, directions=None, *, ylabel="change of the target's log-odds (nats)"):
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
    figure, axes = style.panels(height=4.2)
    k, names = curves["k"].values, curves["selection"].values.tolist()
    if directions is not None:  # directions depend on k alone: the same for all selections
        ends = (directions[name] for name in ("random_low", "random_high", "random_mean"))
        low, high, mean = (end.isel(selection=0) if "selection" in end.dims else end for end in ends)
        options = {"facecolor": "none", "edgecolor": "#777777", "hatch": "....", "lw": 0}
        axes.fill_between(k, low, high, **options, label="95 % of random directions")
        axes.plot(k, mean, color="#777777", ls="--", lw=1)
    for index, (name, offset) in enumerate(zip(names, style.apart(len(names), 0.012 * np.log(k[-1] / k[0])))):
        curve = curves.isel(selection=index)
        draw(axes, k, curve, positions=k * np.exp(offset), index=index, name=name, alone=len(names) == 1)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xscale="log", xlabel="neurons edited (number, log axis)", ylabel=ylabel, title=over(curves))
    axes.set_xticks(k, k)
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
