import numpy as np

from .. import statistics
from . import style


def adjective_check(result, *, units="speakers"):
    """Plot how many neurons follow the quantity their adjective names, on clips not used for the descriptions.

    `result` is as returned by `open_concepts.check`. Left: the share of neurons that do. Right: their mean correlation
    over speakers. Adjectives that no neuron has are left out. `units` is the title's word for speakers.
    """
    result = result.sel(adjective=result["neurons"].values > 0)
    rows, color, other_color = np.arange(result.sizes["adjective"]), style.COLORS[0], style.COLORS[1]
    if not len(rows):
        figure, ax = style.panels(height=1)
        ax.set_axis_off()
        ax.set_title("No neuron has an adjective")
        return figure
    figure, (share_axes, rho_axes) = style.panels(1, 2, height=1.5 + 0.26 * len(rows), sharey=True)
    if "chance" in result:
        shuffled_shares, shuffled_counts = (
            result[name].transpose("draw", "adjective") for name in ("chance", "chance_neurons")
        )
        for row, draws in zip(rows, shuffled_shares.values.T):
            if np.isfinite(draws).any():
                ends = np.nanquantile(100 * draws, [0.025, 0.975])
                share_axes.plot(ends, [row, row], color=style.RANDOM_COLOR, lw=5, alpha=0.5, zorder=0)
        pooled = (shuffled_shares * shuffled_counts).sum("draw") / shuffled_counts.sum("draw").where(lambda n: n > 0)
        share_axes.plot(100 * pooled, rows, "|", ms=11, mew=2, color="#555555")
    share_axes.plot(100 * result["other"], rows, "D", ms=5, color=other_color, mfc="white")
    share_axes.plot(100 * result["passed"], rows, "o", ms=6, color=color)
    error = [result["mean"] - result["low"], result["high"] - result["mean"]]
    rho_axes.errorbar(
        result["mean"], rows, xerr=error, fmt="o", ms=6, capsize=2, color=color, label="neurons with the adjective"
    )
    label_options = {"label": "other neurons of the same layers"} if np.isfinite(result["mean_other"]).any() else {}
    rho_axes.plot(result["mean_other"], rows, "D", ms=5, color=other_color, mfc="white", **label_options)
    if "chance" in result and np.isfinite(result["chance"]).any():
        rho_axes.plot(
            [], [], "|", ms=11, mew=2, color="#555555", label="shuffled captions: all draws (bar: 95 % of them)"
        )
    rho_axes.axvline(0, color="black", lw=0.8)
    names = [f"{name} ({n})" for name, n in zip(result["adjective"].values, result["neurons"].values)]
    share_axes.set_yticks(rows, names, parse_math=False)
    share_axes.invert_yaxis()
    share_axes.set(
        xlabel="neurons that follow it (%, q < 0.05)", xlim=(-2, 102), title="Adjective (neurons that have it)"
    )
    n = int(result["n"].max())
    interval_note = (
        f", 95 % interval over {n} {units}"
        if n >= statistics.MIN_SPEAKERS
        else (f", mean over {n} {units}, no interval" if n > 1 else ", all together: no interval")
    )
    rho_axes.set(xlabel="ρ with the quantity", title=f"Held-out clips{interval_note}")
    figure.legend(loc="outside lower center", ncols=3)
    return figure
