import numpy as np
import xarray as xr

from .. import statistics
from . import style


def layer_curves(curves, *, ylabel="change of the target's log-odds (nats)", null=True):
    """Effect of an edit by the layer that is edited, over speakers, in raw units.

    `curves` is a Dataset of `ablation.summary`, or several by name, with no dims but `layer` (and `speaker`). With
    `null`, the bands of the matched random neurons are drawn, where there are any.
    """
    curves = {"chosen neurons": curves} if isinstance(curves, xr.Dataset) else curves
    figure, axes = style.panels()
    n, alone = int(min(curve["n"].max() for curve in curves.values())), len(curves) == 1
    many = n >= statistics.FEWEST
    for place, (name, curve) in enumerate(curves.items()):
        color, layers = style.COLORS[place % len(style.COLORS)], curve["layer"].values
        at = layers + 0.08 * (place - (len(curves) - 1) / 2)
        if null and np.isfinite(curve["null_low"]).any():
            shade, strength = (style.NULL_COLOR, 0.6) if alone else (color, 0.25)
            text = "matched random neurons: 95 % of further sets" if alone else f"{name}, random neurons"
            ends = curve["null_low"], curve["null_high"]
            axes.fill_between(layers, *ends, color=shade, alpha=strength, lw=0, label=text)
            axes.plot(layers, curve["null_mean"], color="#777777" if alone else color, lw=1, ls=":")
        if not many:  # too few for an interval: each speaker is shown
            axes.plot(at, curve["speakers"].transpose("layer", "speaker"), ".", color=color, alpha=0.5, ms=5)
        style.interval(axes, at, curve, color=color, marker="osD^v"[place % 5], ms=5, label=name)
    axes.axhline(0, color="black", lw=0.6)
    axes.set(xlabel="edited layer", ylabel=ylabel, xticks=layers)
    axes.set_title(f"Mean and 95 % interval over {n} speakers" if many else f"Mean over {n} speakers, and each")
    figure.legend(loc="outside lower center", ncols=4)
    return figure
