import numpy as np

from .. import statistics
from . import style


def recognition(counts, by_speaker, null_distribution):
    """Plot the confusion matrix and each speaker's unweighted average recall (UAR) beside that of shuffled labels.

    `counts` are clips by true label (rows) and predicted label (columns), `by_speaker` the UAR of each speaker,
    `null_distribution` the UARs over all speakers with shuffled labels. The mean over speakers has a 95 % t
    interval from 8 speakers up.
    """
    n = counts.to_numpy()
    share = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
    height = max(0.42 * len(n), 0.2 * len(by_speaker), 1.2) + 1.6
    figure, (matrix_axes, recall_axes) = style.panels(1, 2, height=height, width_ratios=(1.5, 1))
    style.tiles(matrix_axes, share, np.where(n, n.astype(str), ""), vmin=0, vmax=1, cmap=style.SEQUENTIAL)
    matrix_axes.set(xlabel="predicted label", ylabel="true label", title="clips (colour: share of the row)")
    matrix_axes.set_xticks(range(n.shape[1]), counts.columns, rotation=35, ha="right", parse_math=False)
    matrix_axes.set_yticks(range(len(n)), counts.index, parse_math=False)
    matrix_axes.spines[:].set_visible(False)

    ends = np.quantile(null_distribution, [0.025, 0.975])
    recall_axes.axvspan(*ends, color=style.RANDOM_COLOR, alpha=0.6, lw=0, label="95 % of shuffled labels")
    recall_axes.plot(by_speaker, range(len(by_speaker)), "o", color=style.EMOTION_COLORS["sad"], label="speaker")
    mean, low, high = statistics.interval(by_speaker)
    mean_row = len(by_speaker) + 0.3
    recall_axes.plot([low, high], [mean_row, mean_row], color="black")
    recall_axes.plot(mean, mean_row, "D", color="black", label="mean" if np.isnan(low) else "mean, 95 % interval")
    recall_axes.set(xlim=(-0.03, 1.03), xlabel="unweighted average recall (0 to 1)")
    names = [*map(str, by_speaker.index), "all speakers"]
    recall_axes.set_yticks([*range(len(by_speaker)), mean_row], names, parse_math=False)
    recall_axes.invert_yaxis()
    figure.legend(loc="outside upper right", ncols=3)
    return figure
