import numpy as np

from .. import statistics
from . import style


def importance_curves(found):
    """Accuracy against the share of neurons pruned, by each ranking; dotted: random neurons of the same layers.

    `found` is of `pruning.importance`. Lines are means over draws and speakers, shades the range of the draws.
    """
    n = found.sizes["ranking"]
    columns = min(n, 3)
    figure, axes = style.panels(-(-n // columns), columns, height=2.7 * -(-n // columns), sharey=True, squeeze=False)
    units = statistics.by_speaker(found["right"]).mean("speaker")
    at = 100 * found["share"].values
    for ax, name in zip(axes.flat, found["ranking"].values):
        for who, color, look in (("random", "#777777", ":"), ("chosen", style.COLORS[0], "-")):
            curves = units.sel(ranking=name, who=who).transpose("draw", "share").values
            there = np.isfinite(curves).all(axis=0)
            ax.fill_between(at[there], curves[:, there].min(0), curves[:, there].max(0), color=color, alpha=0.2, lw=0)
            ax.plot(at[there], curves[:, there].mean(0), color=color, ls=look, marker="o", ms=3, label=who)
        ax.set_title(name, fontsize=10)
        ax.set(xlim=(at.min() - 0.5, at.max() + 0.5), ylim=(-0.02, 1.02))
    for ax in axes.flat[n:]:
        ax.set_axis_off()
    for ax in axes[:, 0]:
        ax.set_ylabel("accuracy")
    figure.supxlabel("% of neurons pruned", fontsize=10)
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper right", ncols=2)
    return figure
