"""Figures of recordings, of differences between emotions, and of what a model recognises."""

from __future__ import annotations

from collections.abc import Hashable
from itertools import cycle

import numpy as np
import pandas as pd
import xarray as xr
from matplotlib import ticker
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from .. import statistics
from . import style

_WIDTH_OF_LABEL = 0.8  # in which seaborn draws the points of a label, one sex beside the other
_SEX_COLORS = ("#882255", "#44AA99", "#999933")  # of `style.MORE_COLORS`

# ---------- one recording


def clip(frames: xr.Dataset, *, title: str | None = None) -> Figure:
    """Plot waveform (speech shaded), spectrogram and F0 over seconds.

    `frames` are as returned by `emotion_profiles.frames`.
    """
    figure, (waveform_axes, spectrogram_axes, pitch_axes) = style.panels(
        3, height=5.2, sharex=True, height_ratios=(1, 1.7, 1.1)
    )
    _draw_waveform(waveform_axes, frames)
    waveform_axes.set_title(title or "", parse_math=False)  # a file name may contain a dollar sign
    image = style.spectrogram(spectrogram_axes, frames["waveform"].values, frames.attrs["sample_rate"])
    figure.colorbar(image, ax=spectrogram_axes, label="dB relative to the maximum", pad=0.01)
    _draw_pitch(pitch_axes, frames)
    return figure


def _draw_waveform(axes, frames):
    """Draw the waveform, with the frames of speech shaded."""
    style.waveform(axes, frames["waveform"].values, frames.attrs["sample_rate"])
    full_height = axes.get_xaxis_transform()
    options = {"color": style.EMOTION_COLORS["calm"], "alpha": 0.35, "lw": 0, "label": "speech"}
    axes.fill_between(
        frames["frame"].values, 0, 1, where=frames["speech"].values, step="mid", transform=full_height, **options
    )
    axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)


def _draw_pitch(axes, frames):
    """Draw F0 where there is speech."""
    f0 = frames["f0"].where(frames["speech"]).values
    axes.plot(frames["frame"].values, f0, color=style.EMOTION_COLORS["sad"], marker=".", markersize=3)
    axes.set(ylabel="F0 (Hz)", xlabel="time (s)")
    axes.grid(axis="y", color="#DDDDDD")
    if not np.isfinite(f0).any():
        axes.text(0.5, 0.5, "no voiced speech", transform=axes.transAxes, ha="center")


def over_time(
    result: xr.Dataset, *, clip: Hashable | None = None, max_classes: int = 4, ax: Axes | None = None
) -> Figure:
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
    ax : Axes, optional
        Draw into these axes.
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

    figure, axes = style.panel(ax, height=3.2)
    marker = "." if recording.sizes["window"] < 60 else None
    for name in reversed(peaks.index):
        options = {"color": style.RANDOM_COLOR, "lw": 0.8}
        if name in colored:
            options = {"color": colors[name], "label": name}
        axes.plot(recording["time"], probability.sel(target=name), marker=marker, **options)
    axes.set(xlabel="seconds", ylabel="probability")
    if probability.min() >= 0 and probability.max() <= 1:
        axes.set_ylim(-0.02, 1.02)
    axes.legend(loc="upper left", bbox_to_anchor=(1, 1), reverse=True)
    window_text = f"windows of {result.attrs['window']:g} s, a new one every {result.attrs['step']:g} s"
    axes.set_title(f"Class probabilities of {result.attrs['model']} over time ({window_text})")
    return figure


# ---------- emotions


def factors(cells: xr.DataArray) -> Figure:
    """Plot one panel per factor: labels across, one point per speaker, mean and interval, separately by sex.

    `cells` is as returned by `emotion_profiles.cells`. Where `sex` is known, women are drawn left of men. Intervals are
    drawn from 8 speakers up.
    """
    if "sex" not in cells.coords:
        cells = cells.assign_coords(sex=("speaker", np.full(cells.sizes["speaker"], "")))
    labels = cells["label"].values.tolist()
    sexes = sorted(set(cells["sex"].values))
    figure, panels = style.grid(cells.sizes["factor"], columns=2, row_height=2.1, margin=0.7, sharex=True)
    for axes, factor in zip(panels.flat, cells["factor"].values):
        values = cells.sel(factor=factor)
        if factor == "f0":
            axes.set_yscale("log", base=2)
            axes.yaxis.set_major_locator(ticker.LogLocator(2, subs=(1, 1.5)))
            axes.yaxis.set_major_formatter(ticker.FormatStrFormatter("%.0f"))
        _draw_speakers_by_sex(axes, values, labels, sexes)
        _draw_intervals_by_sex(axes, values, sexes)
        axes.set(xlabel="", ylabel=str(values["unit"].values), title=str(values["title"].values))
        axes.set_xticks(range(len(labels)), labels, parse_math=False, **style.SLANTED)

    handles = [Line2D([], [], color="black", label="mean, 95 % interval over speakers")]
    for sex in sexes:
        options = {"ls": "", "marker": "o", "color": _sex_colors(sexes)[sex]}
        handles.append(Line2D([], [], label=f"{sex} speaker".strip(), **options))
    figure.legend(handles=handles, loc="outside upper center", ncols=4)
    return figure


def _sex_colors(sexes):
    """Return a colour for each sex, which is that of no emotion."""
    return dict(zip(sexes, cycle(_SEX_COLORS)))


def _draw_speakers_by_sex(axes, values, labels, sexes):
    """Draw a point for each speaker, by label and, beside each other, by sex."""
    table = values.to_dataframe("value").reset_index()
    style.strip(
        table,
        x="label",
        y="value",
        hue="sex",
        order=labels,
        hue_order=sexes,
        palette=_sex_colors(sexes),
        dodge=True,
        jitter=0.2,
        size=3.8,
        ax=axes,
    )


def _draw_intervals_by_sex(axes, values, sexes):
    """Draw mean and interval over the speakers of each label and sex."""
    width = _WIDTH_OF_LABEL / len(sexes)
    values = values.transpose("label", "speaker")
    for index, sex in enumerate(sexes):
        mean, low, high = statistics.interval(values.sel(speaker=values["sex"] == sex).values.T)
        positions = np.arange(values.sizes["label"]) + width * (index - (len(sexes) - 1) / 2)
        axes.hlines(mean, positions - 0.4 * width, positions + 0.4 * width, color="black", lw=1.8, zorder=3)
        axes.vlines(positions, low, high, color="black", lw=1.2, zorder=3)


def differences(result: xr.Dataset) -> Figure:
    """Plot the difference of each label from the base in physical units: one panel per factor, one row per label.

    `result` is as returned by `emotion_profiles.differences`. Intervals are drawn from 8 speakers up; means with
    q < 0.05 are filled.
    """
    labels = result["label"].values.tolist()
    row_height = 0.28 * len(labels) + 1
    figure, panels = style.grid(result.sizes["factor"], columns=3, row_height=row_height, margin=0.5, sharey=True)
    for axes, factor in zip(panels.flat, result["factor"].values):
        factor_result = result.sel(factor=factor)
        _draw_differences(axes, factor_result, labels)
        axes.set_title(str(factor_result["title"].values))
        axes.set(xlabel=f"{factor_result['unit'].values} from {result.attrs['base']}", ylabel="")
        axes.set_yticks(range(len(labels)), labels, parse_math=False)
    handles = [
        Line2D([], [], ls="", marker=".", color="gray", label="speaker"),
        Line2D([], [], marker="o", color="black", mfc="gray", label="mean, q < 0.05"),
        Line2D([], [], marker="o", color="black", mfc="white", label="mean, q ≥ 0.05"),
    ]
    figure.legend(handles=handles, loc="outside upper center", ncols=3)
    return figure


def _draw_differences(axes, result, labels):
    """Draw a row per label: each speaker, the mean and its interval."""
    colors = style.colors(labels)
    table = result["difference"].to_dataframe().reset_index()
    style.strip(
        table,
        x="difference",
        y="label",
        hue="label",
        order=labels,
        palette=colors,
        jitter=0.25,
        size=3,
        edgecolor="#808080",
        linewidth=0.3,
        ax=axes,
    )
    axes.axvline(0, color="gray", lw=0.8, zorder=0)
    rows = np.arange(len(labels))
    axes.hlines(rows, result["low"], result["high"], color="black", lw=1.4, zorder=3)
    fills = np.where(result["q"] < 0.05, list(colors.values()), "white")
    axes.scatter(result["mean"], rows, s=36, color=fills, edgecolor="black", zorder=4)


# ---------- recognition


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
    style.tiles(axes, share, text=text, vmin=0, vmax=1, cmap=style.SEQUENTIAL)
    axes.set(xlabel="predicted label", ylabel="true label", title="clips (colour: share of the row)")
    style.name_columns(axes, counts.columns, **style.SLANTED)
    style.name_rows(axes, counts.index)


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
