"""One look for all figures: colours that colour-blind readers can tell apart, sizes, rules."""

from __future__ import annotations

from collections.abc import Iterable

import matplotlib

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
SEQUENTIAL = "cividis"
DIVERGING = "PuOr_r"
NULL_COLOR = "#BBBBBB"  # the matched random control
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
    """A colour for each label: the emotion's own; for others the rest of the palette, then tab20."""
    labels = list(dict.fromkeys(labels))
    spare = [color for name, color in EMOTION_COLORS.items() if name not in labels]
    spare += [matplotlib.colors.to_hex(color) for color in matplotlib.colormaps["tab20"].colors]
    others = iter(spare * (1 + len(labels) // len(spare)))
    return {label: EMOTION_COLORS.get(label) or next(others) for label in labels}
