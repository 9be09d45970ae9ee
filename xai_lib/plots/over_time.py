from __future__ import annotations

from collections.abc import Hashable

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


def over_time(result: xr.Dataset, *, clip: Hashable | None = None, max_classes: int = 4) -> Figure:
    """Plot the probability of each class through a recording, in each window, at the window's middle.

    Parameters
    ----------
    result : Dataset
        As returned by `Model.over_time`.
    clip
        Index of the recording; default: the first.
    max_classes : int
        Number of classes, by their highest probability in any window, that are drawn in colour; so is every class that
        ranks first in some window. The others are grey.
    """
    if clip is None:
        clip = result["clip"].values[0]
    recording = result.sel(clip=clip)
    recording = recording.isel(window=np.isfinite(recording["time"].values))
    probability = recording["probability"]
    peaks = probability.max("window").fillna(0).to_series().sort_values(ascending=False)
    winners = probability.dropna("window", how="all").idxmax("target").values
    colored = {*peaks.index[:max_classes], *winners}
    colors = style.colors([str(name) for name in probability["target"].values])

    figure, axes = style.panels(height=3.2)
    marker = "." if recording.sizes["window"] < 60 else None
    for name in reversed(peaks.index):
        options = {"color": style.RANDOM_COLOR, "lw": 0.8}
        if name in colored:
            options = {"color": colors[name], "label": name}
        axes.plot(recording["time"], probability.sel(target=name), marker=marker, **options)
    axes.set(xlabel="seconds", ylabel="probability")
    if probability.min() >= 0 and probability.max() <= 1:
        axes.set_ylim(-0.02, 1.02)
    handles, names = axes.get_legend_handles_labels()
    axes.legend(handles[::-1], names[::-1], loc="upper left", bbox_to_anchor=(1, 1))
    window_text = f"windows of {result.attrs['window']:g} s, a new one every {result.attrs['step']:g} s"
    axes.set_title(f"Class probabilities of {result.attrs['model']} over time ({window_text})")
    return figure
