from __future__ import annotations

from collections.abc import Mapping
from itertools import cycle

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style

_COLORS = ("#0072B2", "#D55E00", "#009E73")


def frame_attribution(
    waveform: np.ndarray, sample_rate: int, shaps: xr.Dataset | Mapping[str, xr.Dataset], *, k: int = 20, name: str = ""
) -> Figure:
    """Plot waveform [time] and spectrogram of one clip and, on the same time axis, its attribution and top frames.

    `shaps` is one clip of the result of `attribution.gradient_shap`, or {baseline: one clip}: each has a panel with its
    own scale and its `k` top frames in yellow. `name` is the clip's name, for the title.
    """
    if isinstance(shaps, xr.Dataset):
        shaps = {shaps.attrs["baseline"]: shaps}
    first = next(iter(shaps.values()))
    n_frames = int(first["n_frames"])
    edges = np.append(np.arange(n_frames) * first.attrs["window"], len(waveform) / sample_rate)

    panel_height = 1.5 if len(shaps) == 1 else 1.1
    heights = [1, 1.3] + [panel_height] * len(shaps)
    figure, panels = style.panels(len(heights), height=1.58 * sum(heights), sharex=True, height_ratios=heights)
    style.waveform(panels[0], waveform, sample_rate)
    style.spectrogram(panels[1], waveform, sample_rate)
    scale = first.attrs["scale"].replace("_", " ")
    for axes, color, baseline in zip(panels[2:], cycle(_COLORS), shaps):
        _draw_attribution(axes, shaps[baseline], edges, k, color)
        axes.set_title(f"{baseline} baseline ± 1 standard error", color=color, fontsize=10)
        axes.set_ylabel(f"attribution\n({scale})")
    panels[-1].set(xlabel="time (s)", xlim=(0, edges[-1]))
    figure.align_ylabels(panels)

    title = (
        f"target {first['target'].item()}, p = {float(first['target_probability']):.2f}; predicted "
        f"{first['predicted'].item()}, p = {float(first['probability']):.2f}; yellow: top {min(k, n_frames)} frames"
    )
    if name:
        title = f"{name}: {title}"
    panels[0].set_title(title, parse_math=False)  # a file name may contain a dollar sign
    return figure


def _draw_attribution(axes, shap, edges, k, color):
    """Draw the attribution of each frame with its standard error, and the top frames in yellow."""
    n_frames = len(edges) - 1
    mean = shap["attribution"].values[:n_frames]
    error = shap["error"].values[:n_frames]
    # The outline keeps a frame visible when it is thinner than a pixel.
    top_style = {"color": style.EMOTION_COLORS["surprised"], "alpha": 0.55, "lw": 1, "zorder": 0}
    for frame in np.argsort(-mean, kind="stable")[:k]:
        axes.axvspan(edges[frame], edges[frame + 1], **top_style)
    axes.stairs(mean + error, edges, baseline=mean - error, fill=True, color=color, alpha=0.3, lw=0)
    axes.stairs(mean, edges, baseline=None, color=color, lw=1.2 if n_frames < 200 else 0.9)
    axes.axhline(0, color="black", lw=0.6)
    # Bands may leave the panel: a single huge draw would otherwise flatten the curve.
    low = np.min(mean, initial=0)
    high = np.max(mean, initial=0)
    if high > low:
        margin = 0.15 * (high - low)
        axes.set_ylim(low - margin, high + margin)
