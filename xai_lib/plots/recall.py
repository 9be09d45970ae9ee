"""How well each speaker's emotions are recognised, beside what shuffled labels reach."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt

from .. import statistics
from . import style


def recall(by_speaker, null, *, chance=None) -> plt.Figure:
    """Unweighted average recall of each speaker, their mean and interval, and the null.

    Parameters
    ----------
    by_speaker : Series
        UAR by speaker.
    null : array
        UAR over all speakers, each time with the labels shuffled.
    chance : float, optional
        Marked where given: 1 over the number of labels.

    Returns
    -------
    Figure
    """
    figure, axis = plt.subplots(figsize=(style.WIDTH * 0.75, 0.22 * len(by_speaker) + 1.9), layout="constrained")
    low, high = np.quantile(null, [0.025, 0.975])
    axis.axvspan(low, high, color=style.NULL_COLOR, alpha=0.6, linewidth=0, label="95 % of shuffled labels")
    if chance is not None:
        axis.axvline(chance, color="gray", linestyle=":", label="chance")
    axis.plot(by_speaker, range(len(by_speaker)), "o", color=style.EMOTION_COLORS["sad"], label="a speaker")
    mean, low, high = statistics.interval(by_speaker)
    at = len(by_speaker) + 0.3
    axis.plot([low, high], [at, at], color="black")
    axis.plot(mean, at, "D", color="black", label="mean, 95 % interval")
    axis.set(xlim=(-0.02, 1.02), xlabel="unweighted average recall (0 to 1)", yticks=[*range(len(by_speaker)), at])
    axis.set_yticklabels([*map(str, by_speaker.index), "all speakers"], parse_math=False)
    axis.invert_yaxis()
    axis.legend(loc="upper left", bbox_to_anchor=(1, 1), fontsize=9)
    return figure
