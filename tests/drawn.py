"""What a figure shows: its text, lines, bars, bands, heat maps and hatched tiles."""

from __future__ import annotations

import itertools

import numpy as np
from matplotlib.collections import QuadMesh


def words(figure):
    """All text of a figure."""
    figure.canvas.draw()
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def has(axes, values):
    """Whether one of the lines is just that."""
    lines = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    return any(line.shape == np.shape(values) and np.allclose(line, values) for line in lines)


def bars(axes):
    """[bar, end] of every error bar that can be seen."""
    segments = [part for one in axes.containers if hasattr(one, "has_yerr") for part in one[2][0].get_segments()]
    return np.array([part[:, 1] for part in segments if len(part) and np.isfinite(part).all()])


def band(collection):
    """The least and the greatest of a shaded band, in the order of its x."""
    points = collection.get_paths()[0].vertices
    return np.array([[f(points[points[:, 0] == x, 1]) for x in np.unique(points[:, 0])] for f in (np.min, np.max)])


def heat_map(axes):
    """The one heat map of a panel."""
    (image,) = [found for found in axes.collections if isinstance(found, QuadMesh)]
    return image


def tile(artist):
    """(column, row) of the tile of a heat map on which a number or a hatching is drawn."""
    x, y = artist.get_position() if hasattr(artist, "get_position") else artist.get_xy()
    return int(x), int(y)


def hatched(axes):
    """The tiles of a heat map that are hatched."""
    return {tile(patch) for patch in axes.patches if patch.get_hatch()}


def overlapping(figure, axes):
    """Pairs of tick labels of the x axis that lie upon each other."""
    figure.canvas.draw()
    boxes = [label.get_window_extent() for label in axes.get_xticklabels()]
    return [i for i, (a, b) in enumerate(itertools.pairwise(boxes)) if a.x1 > b.x0]
