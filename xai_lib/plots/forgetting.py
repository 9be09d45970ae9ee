import numpy as np

from .. import statistics
from ..pruning.forgetting import random_sets
from . import style

_MEASURES = {
    "recall": "recall",
    "log_odds": "change of the true class's\nlog odds (nats)",
    "moved": "mean |change| of these\nlog odds (nats)",
}


def forgetting(effects, *, units="speakers"):
    """Plot what is forgotten and what is kept as more neurons are pruned, beside size-matched random neurons.

    `effects` is as returned by `pruning.effects`; `units` is the title's word for speakers.
    """
    figure, axes = style.panels(1, 3, height=3.9)
    doses, positions, has_intervals = effects["dose"].values, np.arange(effects.sizes["dose"]), True
    groups = {  # offset, colour, marker, name
        "forgotten": (-0.06, style.COLORS[1], "o", f"{effects.attrs['forgotten']} (to forget)"),
        "kept": (0.06, style.COLORS[0], "s", "other classes, among themselves"),
    }
    for ax, (measure, label) in zip(axes, _MEASURES.items()):
        for group, (shift, color, marker, name) in groups.items():
            speaker_values = effects[measure].sel(group=group).transpose("dose", "speaker", "neuron_set")
            summary = statistics.over_speakers(speaker_values)
            selected, random = summary.sel(neuron_set="selected"), random_sets(summary["mean"])
            ax.fill_between(positions, random.min("neuron_set"), random.max("neuron_set"), color=color, alpha=0.2, lw=0)
            ax.plot(positions, random.mean("neuron_set"), color=color, ls=":", lw=1.2)
            ax.plot(positions + shift, selected["mean"], color=color, marker=marker, label=name)
            low, high = (
                np.clip(selected[end], 0, 1) if measure == "recall" else selected[end] for end in ("low", "high")
            )
            ax.vlines(positions + shift, low, high, color=color, lw=1)
            if bool((selected["n"] < statistics.MIN_SPEAKERS).any()):  # too few for an interval
                ax.plot(
                    positions + 2 * shift,
                    speaker_values.sel(neuron_set="selected"),
                    ls="",
                    marker=marker,
                    ms=3,
                    color=color,
                    alpha=0.6,
                )
                has_intervals = False
        ax.set_xticks(positions, doses)
        ax.set(xlabel="neurons pruned", ylabel=label)
    axes[0].set(ylim=(-0.03, 1.03))
    axes[1].axhline(0, color="black", lw=0.8)
    unit_note = f"bars: 95 % over {units}" if has_intervals else f"small: {units}, too few for an interval"
    figure.suptitle(
        f"Selected neurons ({unit_note}); shaded, dotted: size-matched random neurons", ha="left", x=0.01, size=11
    )
    figure.legend(*axes[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure
