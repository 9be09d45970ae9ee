from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from .. import statistics
from . import style


def recognition(counts: pd.DataFrame, by_speaker: pd.Series, null_distribution: np.ndarray) -> Figure:
    """Plot the confusion matrix and each speaker's unweighted average recall (UAR) beside that of shuffled labels.

    `counts` are clips by true label (rows) and predicted label (columns), `by_speaker` the UAR of each speaker,
    `null_distribution` the UARs over all speakers with shuffled labels. The mean over speakers has a 95 % t
    interval from 8 speakers up.
    """
    height = max(0.42 * len(counts), 0.2 * len(by_speaker), 1.2) + 1.6
    figure, (matrix_axes, recall_axes) = style.panels(1, 2, height=height, width_ratios=(1.5, 1))
    _draw_confusion(matrix_axes, counts)
    _draw_recalls(recall_axes, by_speaker, null_distribution)
    figure.legend(loc="outside upper right", ncols=3)
    return figure


def _draw_confusion(axes, counts):
    """Draw the confusion matrix: numbers of clips, coloured by their share of the row."""
    n = counts.to_numpy()
    share = n / np.maximum(n.sum(axis=1, keepdims=True), 1)
    text = np.where(n, n.astype(str), "")
    style.tiles(axes, share, text, vmin=0, vmax=1, cmap=style.SEQUENTIAL)
    axes.set(xlabel="predicted label", ylabel="true label", title="clips (colour: share of the row)")
    axes.set_xticks(range(n.shape[1]), counts.columns, rotation=35, ha="right", parse_math=False)
    axes.set_yticks(range(len(n)), counts.index, parse_math=False)
    axes.spines[:].set_visible(False)


def _draw_recalls(axes, by_speaker, null_distribution):
    """Draw the recall of each speaker and their mean, beside that of shuffled labels."""
    rows = range(len(by_speaker))
    start, end = np.quantile(null_distribution, [0.025, 0.975])
    axes.axvspan(start, end, color=style.RANDOM_COLOR, alpha=0.6, lw=0, label="95 % of shuffled labels")
    axes.plot(by_speaker, rows, "o", color=style.EMOTION_COLORS["sad"], label="speaker")
    mean, low, high = statistics.interval(by_speaker)
    mean_row = len(by_speaker) + 0.3
    axes.plot([low, high], [mean_row, mean_row], color="black")
    axes.plot(mean, mean_row, "D", color="black", label="mean" if np.isnan(low) else "mean, 95 % interval")
    axes.set(xlim=(-0.03, 1.03), xlabel="unweighted average recall (0 to 1)")
    names = [str(name) for name in by_speaker.index]
    axes.set_yticks([*rows, mean_row], [*names, "all speakers"], parse_math=False)
    axes.invert_yaxis()
