import numpy as np

from .. import statistics
from . import style


def frontier(result, *, measure="accuracy"):
    """Plot what is kept against what is forgotten as more neurons are pruned, by selection strategy and at random.

    `result` is as returned by `pruning.frontier`; the means over its classes are shown. Best is the lower right corner.
    """
    mean = result["value"].sel(measure=measure).mean("class")
    figure, (curve_axes, loss_axes) = style.panels(1, 2, height=4.0, width_ratios=[3, 2])
    losses = -result["change"].sel(measure=measure).transpose("class", ...)
    for name, color in zip(result["strategy"].values, style.COLORS * result.sizes["strategy"]):
        for random, options in ((True, {"ls": ":", "marker": "x", "alpha": 0.6}), (False, {"marker": "o", "ms": 5})):
            curve = mean.sel(strategy=name, random=random).dropna("dose")
            label = None if random else name
            kept, forgotten = curve.sel(group="kept"), curve.sel(group="forgotten")
            curve_axes.plot(kept, forgotten, color=color, label=label, **options)
        strategy_losses = losses.sel(strategy=name, random=False).dropna("dose", how="all")
        for group, linestyle in (("forgotten", "-"), ("kept", "--")):
            centre, low, high = statistics.interval(strategy_losses.sel(group=group).transpose("class", "dose").values)
            # A strategy may lack neurons for the larger doses.
            dose_indices = np.flatnonzero(result["dose"].isin(strategy_losses["dose"]))
            loss_axes.errorbar(
                dose_indices, centre, [centre - low, high - centre], color=color, ls=linestyle, capsize=2
            )
    loss_axes.set_xticks(np.arange(result.sizes["dose"]), result["dose"].values)
    curve_axes.set(xlabel=f"{measure} of the classes to keep", ylabel=f"{measure} of the class to forget")
    loss_axes.set(xlabel="neurons pruned", ylabel=f"loss of {measure}")
    loss_axes.set_title("— forgotten, – – kept", fontsize=10)
    low, high = curve_axes.get_xlim()
    if measure != "logit" and high - low < 0.5:  # otherwise small changes would look large
        curve_axes.set(xlim=((low + high) / 2 - 0.25, (low + high) / 2 + 0.25), ylim=(-0.03, 1.03))
    class_count = result.sizes["class"]
    classes = result["class"].item() if class_count == 1 else f"mean of {class_count} classes"
    curve_axes.set_title(f"To forget: {classes} (each dot a dose; ×: random)", fontsize=10)
    figure.legend(*curve_axes.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
