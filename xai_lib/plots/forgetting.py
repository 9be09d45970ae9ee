import numpy as np

from .. import statistics
from ..pruning.forgetting import random_sets
from . import style

_MEASURES = {
    "recall": "recall",
    "log_odds": "change of own class's\nlog odds (nats)",
    "moved": "mean |change| of these\nlog odds (nats)",
}


def forgetting(effects, *, units="speakers"):
    """What is forgotten and what is kept as more neurons are pruned, and the same for random neurons of like size.

    `effects` are of `pruning.effects`; `units` is what the title calls the speakers.
    """
    figure, axes = style.panels(1, 3, height=3.9)
    doses, at, bars = effects["dose"].values, np.arange(effects.sizes["dose"]), True
    groups = {  # where it stands, colour, marker, name
        "forgotten": (-0.06, style.COLORS[1], "o", f"{effects.attrs['forgotten']} (to forget)"),
        "kept": (0.06, style.COLORS[0], "s", "the others, among themselves"),
    }
    for ax, (measure, label) in zip(axes, _MEASURES.items()):
        for group, (shift, color, marker, name) in groups.items():
            each = effects[measure].sel(group=group).transpose("dose", "speaker", "who")
            over = statistics.over_speakers(each)
            one, null = over.sel(who="chosen"), random_sets(over["mean"])
            ax.fill_between(at, null.min("who"), null.max("who"), color=color, alpha=0.2, lw=0)
            ax.plot(at, null.mean("who"), color=color, ls=":", lw=1.2)
            ax.plot(at + shift, one["mean"], color=color, marker=marker, label=name)
            low, high = (np.clip(one[end], 0, 1) if measure == "recall" else one[end] for end in ("low", "high"))
            ax.vlines(at + shift, low, high, color=color, lw=1)
            if bool((one["n"] < statistics.FEWEST).any()):  # no interval then
                ax.plot(at + 2 * shift, each.sel(who="chosen"), ls="", marker=marker, ms=3, color=color, alpha=0.6)
                bars = False
        ax.set_xticks(at, doses)
        ax.set(xlabel="neurons pruned", ylabel=label)
    axes[0].set(ylim=(-0.03, 1.03))
    axes[1].axhline(0, color="black", lw=0.8)
    which = f"bars: 95 % over {units}" if bars else f"small: {units}, too few for an interval"
    figure.suptitle(
        f"Chosen neurons ({which}); shaded, dotted: random neurons of like size", ha="left", x=0.01, size=11
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
