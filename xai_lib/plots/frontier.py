from __future__ import annotations

from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from .. import statistics
from . import style


def frontier(result: xr.Dataset, *, measure: str = "accuracy") -> Figure:
    """Plot what is kept against what is forgotten as more neurons are pruned, by selection strategy and at random.

    `result` is as returned by `pruning.frontier`; the means over its classes are shown. Best is the lower right corner.
    """
    mean = result["value"].sel(measure=measure).mean("class")
    losses = -result["change"].sel(measure=measure).transpose("class", ...)
    figure, (curve_axes, loss_axes) = style.panels(1, 2, height=4.0, width_ratios=[3, 2])
    for name, color in zip(result["strategy"].values, cycle(style.COLORS)):
        strategy_mean = mean.sel(strategy=name)
        _draw_curve(curve_axes, strategy_mean.sel(random=True), color=color, ls=":", marker="x", alpha=0.6)
        _draw_curve(curve_axes, strategy_mean.sel(random=False), color=color, marker="o", ms=5, label=name)
        # A strategy may lack neurons for the larger doses.
        strategy_losses = losses.sel(strategy=name, random=False).dropna("dose", how="all")
        dose_indices = np.flatnonzero(result["dose"].isin(strategy_losses["dose"]))
        _draw_losses(loss_axes, dose_indices, strategy_losses.sel(group="forgotten"), color=color, ls="-")
        _draw_losses(loss_axes, dose_indices, strategy_losses.sel(group="kept"), color=color, ls="--")

    loss_axes.set_xticks(np.arange(result.sizes["dose"]), result["dose"].values)
    loss_axes.set(xlabel="neurons pruned", ylabel=f"loss of {measure}")
    loss_axes.set_title("— forgotten, – – kept", fontsize=10)
    curve_axes.set(xlabel=f"{measure} of the classes to keep", ylabel=f"{measure} of the class to forget")
    low, high = curve_axes.get_xlim()
    if measure != "logit" and high - low < 0.5:  # otherwise small changes would look large
        middle = (low + high) / 2
        curve_axes.set(xlim=(middle - 0.25, middle + 0.25), ylim=(-0.03, 1.03))
    n_classes = result.sizes["class"]
    classes = result["class"].item() if n_classes == 1 else f"mean of {n_classes} classes"
    curve_axes.set_title(f"To forget: {classes} (each dot a dose; ×: random)", fontsize=10)
    figure.legend(*curve_axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure


def _draw_curve(axes, mean, **options):
    """Draw what is forgotten against what is kept, [group, dose]."""
    curve = mean.dropna("dose")
    axes.plot(curve.sel(group="kept"), curve.sel(group="forgotten"), **options)


def _draw_losses(axes, positions, losses, **options):
    """Draw the mean loss over classes by dose, with its interval."""
    mean, low, high = statistics.interval(losses.transpose("class", "dose").values)
    axes.errorbar(positions, mean, [mean - low, high - mean], capsize=2, **options)
