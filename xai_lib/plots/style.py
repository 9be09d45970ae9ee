"""Common style of all figures: colours that colour-blind readers can distinguish, sizes, and shared elements."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence

import matplotlib
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.collections import QuadMesh
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import Rectangle
from matplotlib.ticker import MaxNLocator
from scipy import signal
from seaborn.utils import relative_luminance

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
SLANTED = {"rotation": 30, "ha": "right", "rotation_mode": "anchor"}  # tick labels that would overlap if level
_EQUAL_CONTRAST = 0.179  # luminance on which black and white are equally legible (WCAG 2.1)
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


def panel(ax: Axes | None, *, height: float = 3.6, width: float = WIDTH) -> tuple[Figure, Axes]:
    """Return `ax` and its figure or, if it is None, the only panel of a new figure; `width`, `height` in inches."""
    if ax is not None:
        return ax.get_figure(root=True), ax
    figure, axes = panels(height=height)
    figure.set_figwidth(width)
    return figure, axes


def grid(n: int, *, columns: int, row_height: float, margin: float = 0, **options) -> tuple[Figure, np.ndarray]:
    """Return a figure and its panels [row, column], of which the first `n` are for use, and the others hidden.

    A row is `row_height` inches high; `margin` is for what stands above and below all rows.
    """
    rows = math.ceil(n / columns)
    figure, axes = panels(rows, columns, height=rows * row_height + margin, squeeze=False, **options)
    for spare in axes.flat[n:]:
        spare.set_visible(False)
    return figure, axes


def heading(figure: Figure, text: str, fontsize: float = 11) -> None:
    """Write the title of a figure of several panels, at the left."""
    figure.suptitle(text, x=0.01, ha="left", fontsize=fontsize)


def legend_below(axes: Axes, *, columns: int, inside: bool) -> None:
    """Draw the legend of a panel below it; or, as in a figure with panels of others, `inside` of it."""
    if inside:
        axes.legend(fontsize="small", frameon=True)
    else:
        handles, labels = axes.get_legend_handles_labels()
        axes.figure.legend(handles, labels, loc="outside lower center", ncols=columns)


def unsigned(value: float, _position: int) -> str:
    """Return the number of a tick without its sign, for bars that point both ways."""
    return f"{abs(value):g}"


def interval(axes: Axes, positions: Sequence[float], over: Mapping | xr.Dataset, **options) -> None:
    """Draw means with error bars where finite; `over` is as returned by `statistics.over_speakers`: mean, low, high."""
    error = [over["mean"] - over["low"], over["high"] - over["mean"]]
    axes.errorbar(positions, over["mean"], error, **{"capsize": 2, **options})


def apart(n: int, width: float) -> np.ndarray:
    """Return offsets of n points, from −width to width, so that none hides another."""
    if n > 1:
        return np.linspace(-width, width, n)
    return np.zeros(n)


def strip(table: pd.DataFrame, **options) -> None:
    """Draw a point for each row of a table, by category, as `seaborn.stripplot` does, with the same jitter each time.

    Seaborn draws the jitter from numpy's global generator, which is left as it was.
    """
    state = np.random.get_state()
    np.random.seed(0)
    try:
        seaborn.stripplot(table, legend=False, **options)
    finally:
        np.random.set_state(state)


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


def tiles(
    axes: Axes, values: np.ndarray, *, text: np.ndarray | None = None, fontsize: float = 10, cmap=SEQUENTIAL, **options
) -> QuadMesh:
    """Draw numbers [row, column] as a heat map, with `text`, an array of the same shape, on it; return the image.

    The middle of a tile is at (column + 0.5, row + 0.5). Tiles of NaN are empty, without their text. `options` are
    those of `seaborn.heatmap`.
    """
    n_texts_before = len(axes.texts)
    seaborn.heatmap(
        values,
        cmap=cmap,
        annot=text,
        fmt="",
        annot_kws={"fontsize": fontsize},
        cbar=False,
        xticklabels=False,
        yticklabels=False,
        ax=axes,
        **options,
    )
    image = axes.collections[-1]
    _set_text_apart(axes.texts[n_texts_before:], image.to_rgba(values))
    return image


def _set_text_apart(numbers, shades):
    """Make the text on each tile black or white, whichever differs more from its shade [row, column, channel]."""
    for number in numbers:
        column, row = np.floor(number.get_position()).astype(int)
        is_light = relative_luminance(shades[row, column]) > _EQUAL_CONTRAST
        number.set_color("black" if is_light else "white")


def name_rows(axes: Axes, names: Iterable, **options) -> None:
    """Name the rows of a heat map; names are drawn literally: a "$" starts no formula."""
    names = list(names)
    axes.set_yticks(np.arange(len(names)) + 0.5, names, parse_math=False, **options)


def name_columns(axes: Axes, names: Iterable, **options) -> None:
    """Name the columns of a heat map; names are drawn literally: a "$" starts no formula."""
    names = list(names)
    axes.set_xticks(np.arange(len(names)) + 0.5, names, parse_math=False, **options)


def number_columns(axes: Axes, n: int) -> None:
    """Number some of the `n` columns of a heat map, from 0."""
    numbers = MaxNLocator(10, integer=True).tick_values(0, n - 1)
    numbers = numbers[numbers < n].astype(int)
    axes.set_xticks(numbers + 0.5, numbers)


def hatch(axes: Axes, mask: np.ndarray, pattern: str = "///") -> None:
    """Hatch the tiles of a heat map where `mask` [row, column] is True."""
    for row, column in np.argwhere(mask):
        axes.add_patch(Rectangle((column, row), 1, 1, fill=False, hatch=pattern, ec="#555555", lw=0))


def ring(axes: Axes, neurons: pd.DataFrame, layers: Sequence[int]) -> None:
    """Ring the neurons of a table (`layer`, `neuron`) in a heat map with a row for each of the layers."""
    rows = np.array([list(layers).index(layer) for layer in neurons["layer"]])
    columns = neurons["neuron"].to_numpy()
    axes.scatter(columns + 0.5, rows + 0.5, s=46, facecolors="none", edgecolors="black", linewidths=0.9)
