import numpy as np

from .. import statistics
from . import style


def adjective_check(result, *, units="speakers"):
    """Whether neurons follow the quantity that their adjective names, on clips that they were not described from.

    `result` is of `concepts.check`. Left, the share of neurons that do; right, how closely, over speakers. Adjectives
    that no neuron has are left out. `units` is what the title calls the speakers.
    """
    result = result.sel(adjective=result["neurons"].values > 0)
    at, own, other = np.arange(result.sizes["adjective"]), style.COLORS[0], style.COLORS[1]
    if not len(at):
        figure, ax = style.panels(height=1)
        ax.set_axis_off()
        ax.set_title("No neuron has an adjective")
        return figure
    figure, (left, right) = style.panels(1, 2, height=1.5 + 0.26 * len(at), sharey=True)
    if "null" in result:
        null, weight = (result[name].transpose("draw", "adjective") for name in ("null", "null_neurons"))
        for place, draws in zip(at, null.values.T):
            if np.isfinite(draws).any():
                ends = np.nanquantile(100 * draws, [0.025, 0.975])
                left.plot(ends, [place, place], color=style.NULL_COLOR, lw=5, alpha=0.5, zorder=0)
        pooled = (null * weight).sum("draw") / weight.sum("draw").where(lambda n: n > 0)
        left.plot(100 * pooled, at, "|", ms=11, mew=2, color="#555555")
    left.plot(100 * result["other"], at, "D", ms=5, color=other, mfc="white")
    left.plot(100 * result["passed"], at, "o", ms=6, color=own)
    error = [result["mean"] - result["low"], result["high"] - result["mean"]]
    right.errorbar(
        result["mean"], at, xerr=error, fmt="o", ms=6, capsize=2, color=own, label="neurons of the adjective"
    )
    look = {"label": "others of the same layers"} if np.isfinite(result["mean_other"]).any() else {}
    right.plot(result["mean_other"], at, "D", ms=5, color=other, mfc="white", **look)
    if "null" in result and np.isfinite(result["null"]).any():
        right.plot([], [], "|", ms=11, mew=2, color="#555555", label="shuffled captions: all draws (bar: 95 % of them)")
    right.axvline(0, color="black", lw=0.8)
    names = [f"{name} ({n})" for name, n in zip(result["adjective"].values, result["neurons"].values)]
    left.set_yticks(at, names, parse_math=False)
    left.invert_yaxis()
    left.set(xlabel="neurons that follow it (%, q < 0.05)", xlim=(-2, 102), title="Adjective (neurons that have it)")
    n = int(result["n"].max())
    over = (
        f", 95 % interval over {n} {units}"
        if n >= statistics.FEWEST
        else (f", mean over {n} {units}, no interval" if n > 1 else ", all together: no interval")
    )
    right.set(xlabel="ρ with the quantity", title=f"Held-out clips{over}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
