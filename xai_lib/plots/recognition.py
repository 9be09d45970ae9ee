import numpy as np

from .. import statistics
from . import style


def recognition(counts, by_speaker, null):
    """Confusion matrix; beside it each speaker's unweighted average recall (UAR) and that of shuffled labels.

    `counts` are clips by true label (rows) and the model's label (columns), `by_speaker` UARs, `null` the UARs over all
    speakers with labels shuffled. The mean over speakers has its 95 % t interval from 8 speakers up.
    """
    n = counts.to_numpy()
    share = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
    height = max(0.42 * len(n), 0.2 * len(by_speaker), 1.2) + 1.6
    figure, (matrix, axis) = style.panels(1, 2, height=height, width_ratios=(1.5, 1))
    style.tiles(matrix, share, np.where(n, n.astype(str), ""), vmin=0, vmax=1, cmap=style.SEQUENTIAL)
    matrix.set(xlabel="the model's label", ylabel="true label", title="clips (colour: share of the row)")
    matrix.set_xticks(range(n.shape[1]), counts.columns, rotation=35, ha="right", parse_math=False)
    matrix.set_yticks(range(len(n)), counts.index, parse_math=False)
    matrix.spines[:].set_visible(False)

    ends = np.quantile(null, [0.025, 0.975])
    axis.axvspan(*ends, color=style.NULL_COLOR, alpha=0.6, lw=0, label="95 % of shuffled labels")
    axis.plot(by_speaker, range(len(by_speaker)), "o", color=style.EMOTION_COLORS["sad"], label="a speaker")
    mean, low, high = statistics.interval(by_speaker)
    at = len(by_speaker) + 0.3
    axis.plot([low, high], [at, at], color="black")
    axis.plot(mean, at, "D", color="black", label="mean" if np.isnan(low) else "mean, 95 % interval")
    axis.set(xlim=(-0.03, 1.03), xlabel="unweighted average recall (0 to 1)")
    names = [*map(str, by_speaker.index), "all speakers"]
    axis.set_yticks([*range(len(by_speaker)), at], names, parse_math=False)
    axis.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=3)
    return figure
