"""Common style of all figures: colours that colour-blind readers can distinguish, sizes, and shared elements."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from scipy import signal

from ..ablation import selected_values
from ..results import average

# Okabe and Ito (2008), https://jfly.uni-koeln.de/color/ ; each emotion keeps its colour in every figure.
EMOTION_COLORS = {
    "neutral": "#999999",
    "calm": "#56B4E9",
    "happy": "#E69F00",
    "sad": "#0072B2",
    "angry": "#D55E00",
    "fearful": "#CC79A7",
    "disgust": "#009E73",
    "surprised": "#F0E442",
}
COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")  # of anything but emotions
MORE_COLORS = ("#882255", "#332288", "#44AA99", "#999933")  # Paul Tol's, distinct from the above
MARKERS = ("o", "s", "D", "^", "v", "P")
SEQUENTIAL = "cividis"
DIVERGING = "PuOr_r"
RANDOM_COLOR = "#BBBBBB"  # random neurons and null distributions
EDIT_DIM_LABELS = {"layer": "edited layer", "group": "edited layers"}  # axis labels of the dims of edits
WIDTH = 9.0  # inches, a notebook's column


def use() -> None:
    """Set matplotlib's defaults for the workbook."""
    matplotlib.rcParams.update(
        {
            "figure.figsize": (WIDTH, 3.6),
            "figure.dpi": 90,
            "figure.constrained_layout.use": True,
            "font.size": 10,
            "axes.titlesize": 11,
            "axes.titlelocation": "left",
            "axes.labelsize": 10,
            "axes.spines.top": False,
            "axes.spines.right": False,
            "axes.grid": False,
            "legend.frameon": False,
            "lines.linewidth": 1.6,
            "image.cmap": SEQUENTIAL,
            "image.aspect": "auto",
            "image.interpolation": "nearest",
        }
    )


def colors(labels: Iterable[str]) -> dict[str, str]:
    """Return a colour for each label: the emotion's, or one of the other palettes, whatever the order of the labels."""
    labels = list(dict.fromkeys(labels))
    spare = [color for name, color in EMOTION_COLORS.items() if name not in labels]
    spare += MORE_COLORS
    spare += [matplotlib.colors.to_hex(color) for color in matplotlib.colormaps["tab20"].colors]
    others = sorted((label for label in labels if label not in EMOTION_COLORS), key=str)
    other_colors = dict(zip(others, itertools.cycle(spare)))
    return {label: EMOTION_COLORS.get(label) or other_colors[label] for label in labels}


def color(index: int) -> str:
    """Return the colour of curve number `index`; colours are repeated when they run out."""
    return COLORS[index % len(COLORS)]


def marker(index: int) -> str:
    """Return the marker of curve number `index`; markers are repeated when they run out."""
    return MARKERS[index % len(MARKERS)]


def panels(rows: int = 1, columns: int = 1, *, height: float = 3.6, **options) -> tuple[Figure, Axes | np.ndarray]:
    """Return `plt.subplots` as wide as a notebook's column; `height` in inches."""
    return plt.subplots(rows, columns, figsize=(WIDTH, height), layout="constrained", **options)


def interval(axes: Axes, positions: Sequence[float], over: Mapping | xr.Dataset, **options) -> None:
    """Draw means with error bars where finite; `over` is as returned by `statistics.over_speakers`: mean, low, high."""
    error = [over["mean"] - over["low"], over["high"] - over["mean"]]
    axes.errorbar(positions, over["mean"], error, **{"capsize": 2, **options})


def apart(n: int, width: float) -> np.ndarray:
    """Return offsets of n points, from −width to width, so that none hides another."""
    if n > 1:
        return np.linspace(-width, width, n)
    return np.zeros(n)


def waveform(axes: Axes, samples: np.ndarray, rate: int) -> None:
    """Draw the amplitude over seconds."""
    axes.plot(np.arange(len(samples)) / rate, samples, color="#444444", lw=0.5)
    axes.set(ylabel="amplitude\n(full scale 1)", xlim=(0, len(samples) / rate))


def spectrogram(axes: Axes, samples: np.ndarray, rate: int) -> AxesImage:
    """Draw the level by frequency over seconds, down to 70 dB below the maximum; return the image."""
    width = round(0.025 * rate)
    hop = round(0.005 * rate)
    hertz, times, power = signal.spectrogram(samples, rate, "hann", width, width - hop, 2 * width, scaling="spectrum")
    level = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-12)
    edges = (times[0] - hop / rate / 2, times[-1] + hop / rate / 2, 0, hertz[-1] / 1000)
    image = axes.imshow(level, origin="lower", vmin=-70, vmax=0, extent=edges)
    axes.set(ylabel="frequency (kHz)", xlim=(0, len(samples) / rate))
    return image


def tiles(axes: Axes, grid: np.ndarray, text: np.ndarray, *, fontsize: float = 10, **limits) -> AxesImage:
    """Draw numbers [row, column] as an image, with `text`, an array of the same shape, on it; return the image."""
    image = axes.imshow(grid, aspect="auto", **limits)
    for i, j in np.argwhere(text != ""):
        red, green, blue, _ = image.cmap(image.norm(grid[i, j]))
        brightness = np.dot((red, green, blue), (0.3, 0.6, 0.1))
        is_light = np.isnan(grid[i, j]) or brightness > 0.5
        color = "black" if is_light else "white"
        axes.text(j, i, text[i, j], ha="center", va="center", fontsize=fontsize, color=color)
    return image


def hatch(axes: Axes, mask: np.ndarray, pattern: str = "///") -> None:
    """Hatch the tiles where `mask` [row, column] is True."""
    for i, j in np.argwhere(mask):
        axes.add_patch(Rectangle((j - 0.5, i - 0.5), 1, 1, fill=False, hatch=pattern, ec="#555555", lw=0))


def ring(axes: Axes, neurons: pd.DataFrame, layers: Sequence[int]) -> None:
    """Ring the neurons of a table (`layer`, `neuron`) in an image with a row for each of the layers."""
    rows = [list(layers).index(layer) for layer in neurons["layer"]]
    axes.scatter(neurons["neuron"], rows, s=46, facecolors="none", edgecolors="black", linewidths=0.9)


def edited(values: xr.DataArray, *others: str) -> str:
    """Return the dim of the edits, "layer" or "group"; raise ValueError if the dims are not that one and `others`."""
    row = next((dim for dim in EDIT_DIM_LABELS if dim in values.dims), "layer")
    for dim in sorted({*values.dims} ^ {row, *others}):
        if dim in values.dims:
            raise ValueError(f"this figure cannot show the dim {dim}: pick one with .sel({dim}=…)")
        raise ValueError(f"this figure needs the dim {dim}: keep it, e.g. with .sel({dim}=[…])")
    return row


def of_mode(sweep: xr.Dataset, name: str, mode: str) -> xr.DataArray:
    """Return a variable of the selected neurons under one mode, mean over speakers or clips.

    Raise ValueError if the mode was not run.
    """
    available = np.atleast_1d(sweep["mode"].values).tolist()
    if mode not in available:
        raise ValueError(f"mode {mode!r} was not run: choose from {', '.join(available)}")
    values = sweep[name]
    if sweep["mode"].ndim:
        values = values.sel(mode=mode)
    return average(selected_values(values))


def layer_tiles(
    axes: Axes, values: xr.DataArray, title: str, *, digits: int = 2, significant: xr.DataArray | None = None, **limits
) -> None:
    """Draw [layer or group, readout layer] as numbered tiles.

    They are empty where not finite, and hatched where `significant` is False.
    """
    row = edited(values, "readout_layer")
    grid = values.transpose(row, "readout_layer").values
    finite = np.isfinite(grid)
    few = grid.size <= 120  # more numbers would be unreadable
    text = np.where(finite & few, np.char.mod(f"%.{digits}f", grid), "")
    image = tiles(axes, grid, text, fontsize=8, **limits)
    if not few:
        axes.figure.colorbar(image, ax=axes)
    if significant is not None:
        hatch(axes, finite & ~significant.transpose(row, "readout_layer").values)
    axes.set_xticks(range(values.sizes["readout_layer"]), values["readout_layer"].values)
    axes.set_yticks(range(values.sizes[row]), values[row].values)
    axes.set_xlabel("readout layer")
    axes.set_title(title, fontsize=10)
