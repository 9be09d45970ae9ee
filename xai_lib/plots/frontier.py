import numpy as np

from .. import statistics
from . import style


def frontier(found, *, measure="accuracy"):
    """What is kept against what is forgotten as more neurons are pruned, for each way to choose them and for random ones.

    `found` is of `forgetting.frontier`; shown are means over its classes. The aim is the lower right corner.
    """
    mean = found["value"].sel(measure=measure).mean("class")
    figure, (left, right) = style.panels(1, 2, height=4.0, width_ratios=[3, 2])
    lost = -found["change"].sel(measure=measure).transpose("class", ...)
    for name, color in zip(found["strategy"].values, style.COLORS * found.sizes["strategy"]):
        for random, look in ((True, {"ls": ":", "marker": "x", "alpha": 0.6}), (False, {"marker": "o", "ms": 5})):
            one = mean.sel(strategy=name, random=random).dropna("dose")
            label = None if random else name
            kept, forgotten = one.sel(group="kept"), one.sel(group="forgotten")
            left.plot(kept, forgotten, color=color, label=label, **look)
        one = lost.sel(strategy=name, random=False).dropna("dose", how="all")
        for group, look in (("forgotten", "-"), ("kept", "--")):
            over, low, high = statistics.interval(one.sel(group=group).transpose("class", "dose").values)
            at = np.flatnonzero(found["dose"].isin(one["dose"]))  # a way may lack neurons for the larger doses
            right.errorbar(at, over, [over - low, high - over], color=color, ls=look, capsize=2)
    right.set_xticks(np.arange(found.sizes["dose"]), found["dose"].values)
    left.set(xlabel=f"{measure} of what is to be kept", ylabel=f"{measure} of what is to be forgotten")
    right.set(xlabel="neurons pruned", ylabel=f"loss of {measure}")
    right.set_title("— forgotten, – – kept", fontsize=10)
    low, high = left.get_xlim()
    if measure != "logit" and high - low < 0.5:  # or else what hardly changes would look as if it did
        left.set(xlim=((low + high) / 2 - 0.25, (low + high) / 2 + 0.25), ylim=(-0.03, 1.03))
    n = found.sizes["class"]
    over = found["class"].item() if n == 1 else f"mean of {n} classes"
    left.set_title(f"To forget: {over} (each dot a dose; ×: random)", fontsize=10)
    figure.legend(*left.get_legend_handles_labels(), loc="outside lower center", ncols=6)
    return figure
