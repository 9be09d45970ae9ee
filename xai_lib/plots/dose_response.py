import numpy as np

from . import style
from .layer_curves import draw, over


def dose_response(curves, directions=None, *, ylabel="change of the target's log-odds (nats)"):
    """Effect of an edit by the number of neurons: those that score highest, lowest, and random ones of like size.

    Parameters
    ----------
    curves : Dataset
        Of `ablation.summary`, of a sweep with several `k` and `neurons` by name, such as "top" and "bottom", of one
        layer and mode: [k] or [chosen, k].
    directions : Dataset, optional
        The same, of `ablation.summary(sweep, against="direction")`. Only its null is drawn.
    """
    if "k" not in curves["mean"].dims:
        raise ValueError("a dose–response curve is of several k: run the sweep with k=(1, 5, 20), for instance")
    curves = curves if "chosen" in curves.dims else curves.expand_dims(chosen=["chosen neurons"])
    figure, axes = style.panels(height=4.2)
    k, names = curves["k"].values, curves["chosen"].values.tolist()
    if directions is not None:  # drawn by number alone: the same for all that are chosen
        ends = (directions[name] for name in ("null_low", "null_high", "null_mean"))
        low, high, mean = (end.isel(chosen=0) if "chosen" in end.dims else end for end in ends)
        look = {"facecolor": "none", "edgecolor": "#777777", "hatch": "....", "lw": 0}
        axes.fill_between(k, low, high, **look, label="95 % of random directions")
        axes.plot(k, mean, color="#777777", ls="--", lw=1)
    for place, (name, step) in enumerate(zip(names, style.apart(len(names), 0.012 * np.log(k[-1] / k[0])))):
        curve = curves.isel(chosen=place)
        draw(axes, k, curve, at=k * np.exp(step), place=place, name=name, alone=len(names) == 1)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xscale="log", xlabel="neurons edited (number, log axis)", ylabel=ylabel, title=over(curves))
    axes.set_xticks(k, k)
    axes.minorticks_off()
    figure.legend(loc="outside lower center", ncols=2)
    return figure
