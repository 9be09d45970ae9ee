from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from .. import statistics
from . import style


def deletion_pairs(drop):
    """What silencing frames costs the target: a line per speaker, and the mean with its interval from 8 speakers up.

    Parameters
    ----------
    drop : DataArray [clip, mode]
        From `attribution.frame_deletion`.
    """
    named = "speaker" in drop.coords and not pd.isna(drop["speaker"].values).any()
    units = statistics.by_speaker(drop).values if named else drop.values
    mean, low, high = statistics.interval(units)
    figure, axes = plt.subplots(figsize=(0.6 * style.WIDTH, 3.6))
    places = np.arange(units.shape[1])
    axes.plot(places, units.T, color=style.NULL_COLOR, lw=0.8, marker="o", ms=3)
    axes.errorbar(
        places, mean, [mean - low, high - mean], color=style.EMOTION_COLORS["angry"], marker="D", ls="", capsize=4, lw=2
    )
    axes.axhline(0, color="black", lw=0.6)
    axes.set_xticks(places, drop["mode"].values)
    share, scale = drop.attrs["share"], drop.attrs["scale"].replace("_", " ")
    axes.set(xlabel=f"which {share:.0%} of the frames are silenced", ylabel=f"drop of the target ({scale})")
    axes.set_title(f"Each line one of {len(units)} {'speakers' if named else 'clips'}")
    return figure
