"""Figures of a corpus draw its clips, its speakers and what a model recognises."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn import heat_map, words
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color

from xai_lib import plots
from xai_lib.corpora import emotion_profiles
from xai_lib.plots import style


@pytest.fixture
def cells(rng):
    """Level and F0 of ten speakers, five of either sex: sad is 6 dB below neutral, and one never sounds sad."""
    level = rng.normal(-30, 2, (2, 10))
    level[1] -= 6
    level[1, 3] = np.nan
    coords = {
        "factor": ["level_db", "f0"],
        "label": ["neutral", "sad"],
        "speaker": [f"s{i}" for i in range(10)],
        "sex": ("speaker", ["female", "male"] * 5),
        "title": ("factor", ["level", "F0"]),
        "unit": ("factor", ["dBFS", "Hz"]),
    }
    return xr.DataArray([level, 200 + level], coords, ("factor", "label", "speaker"))


def test_factors_draws_each_speaker_by_sex(cells):
    """Each label has a point for each speaker, women left of men, and the mean of either sex."""
    axes = plots.factors(cells).axes[0]
    points = [found for found in axes.collections if isinstance(found, PathCollection)]
    by_sex = [cells.sel(factor="level_db", speaker=cells["sex"] == sex) for sex in ("female", "male")]
    wanted = [values.sel(label=label).dropna("speaker") for label in ("neutral", "sad") for values in by_sex]
    for found, values in zip(points, wanted, strict=True):
        np.testing.assert_allclose(np.sort(found.get_offsets()[:, 1]), np.sort(values))
    places = [found.get_offsets()[:, 0].mean() for found in points]
    assert places == sorted(places)
    female_means = axes.collections[len(points)].get_segments()
    np.testing.assert_allclose([line[0, 1] for line in female_means], by_sex[0].mean("speaker"))
    assert abs(female_means[0][:, 0].mean() - places[0]) < 0.1


def test_factors_sets_sexes_apart_from_emotions(cells):
    """Women and men are not drawn in the colour of an emotion."""
    axes = plots.factors(cells).axes[0]
    points = [found for found in axes.collections if isinstance(found, PathCollection)]
    colors = [found.get_facecolor()[0] for found in points[:2]]
    assert not same_color(*colors)
    assert not any(same_color(color, emotion) for color in colors for emotion in style.EMOTION_COLORS.values())


def test_differences_fills_significant_means(cells):
    """Each speaker is a point and each mean a circle, filled where significant; the axis names the unit."""
    result = emotion_profiles.differences(cells)
    figure = plots.differences(result)
    axes = figure.axes[0]
    level = result.sel(factor="level_db", label="sad")
    speakers, means = axes.collections[0], axes.collections[-1]
    np.testing.assert_allclose(np.sort(speakers.get_offsets()[:, 0]), np.sort(level["difference"].dropna("speaker")))
    np.testing.assert_allclose(means.get_offsets(), [[level["mean"], 0]])
    assert float(level["q"]) < 0.05 and same_color(means.get_facecolor()[0], style.EMOTION_COLORS["sad"])
    assert "semitones from neutral" in words(figure)
    result["q"][:] = 0.2
    means = plots.differences(result).axes[0].collections[-1]
    assert same_color(means.get_facecolor()[0], "white")


def test_recognition_draws_confusion_and_recalls():
    """The matrix shows counts, coloured by their share of the row; the points are the recalls of speakers."""
    counts = pd.DataFrame([[3, 1], [0, 4]], index=["sad", "angry"], columns=["sad", "angry"])
    matrix, recall = plots.recognition(counts, pd.Series({"a": 0.5, "b": 0.75}), [0.4, 0.6]).axes
    assert [text.get_text() for text in matrix.texts] == ["3", "1", "", "4"]
    np.testing.assert_allclose(heat_map(matrix).get_array(), [[0.75, 0.25], [0, 1]])
    assert list(recall.lines[0].get_xdata()) == [0.5, 0.75] and recall.lines[2].get_xdata() == [0.625]


def test_strip_leaves_generator_as_it_was(cells):
    """The points of a figure are jittered the same way each time, and numpy's global generator goes on as before."""
    np.random.seed(1)
    expected = np.random.random()
    np.random.seed(1)
    first, second = (plots.factors(cells).axes[0].collections[0].get_offsets() for _ in range(2))
    assert np.random.random() == expected
    np.testing.assert_array_equal(first, second)
    assert len(set(first[:, 0])) > 1


def test_tiles_set_text_apart():
    """Numbers are black on light tiles and white on dark ones."""
    _, axes = style.panels()
    axes.text(-5, 9, "mine", color="red")
    values = np.array([[0.0, 0.5, 1.0]])
    style.tiles(axes, values, text=np.array([["dark", "middle", "light"]]), vmin=0, vmax=1)
    assert [text.get_color() for text in axes.texts] == ["red", "white", "black", "black"]
