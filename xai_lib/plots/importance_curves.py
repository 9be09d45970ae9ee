import numpy as np

from .. import statistics
from . import style


def importance_curves(result):
    """Plot accuracy against the share of neurons pruned, for each ranking; dotted: random neurons of the same layers.

    `result` is as returned by `pruning.importance`. Lines are means over draws and speakers, shades the range of the
    draws.
    """
    n = result.sizes["ranking"]
    columns = min(n, 3)
    figure, axes = style.panels(-(-n // columns), columns, height=2.7 * -(-n // columns), sharey=True, squeeze=False)
    units = statistics.by_speaker(result["right"]).mean("speaker")
    percentages = 100 * result["share"].values
    for ax, name in zip(axes.flat, result["ranking"].values):
        for neuron_set, color, linestyle in (("random", "#777777", ":"), ("selected", style.COLORS[0], "-")):
            curves = units.sel(ranking=name, neuron_set=neuron_set).transpose("draw", "share").values
            finite = np.isfinite(curves).all(axis=0)
            ax.fill_between(
                percentages[finite], curves[:, finite].min(0), curves[:, finite].max(0), color=color, alpha=0.2, lw=0
            )
            ax.plot(
                percentages[finite],
                curves[:, finite].mean(0),
                color=color,
                ls=linestyle,
                marker="o",
                ms=3,
                label=f"{neuron_set} neurons",
            )
        ax.set_title(name, fontsize=10)
        ax.set(xlim=(percentages.min() - 0.5, percentages.max() + 0.5), ylim=(-0.02, 1.02))
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    figure.supxlabel("% of neurons pruned", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure
