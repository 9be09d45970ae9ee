"""Figures of pruning draw recalls, changes and intervals, and each speaker where they are few."""

from __future__ import annotations

import handmade
import numpy as np
import pytest
from drawn import words

from xai_lib import plots, pruning
from xai_lib.pruning import forgetting


@pytest.fixture
def compared():
    return handmade.compared()


@pytest.mark.parametrize("forgotten", ["angry", "calm"])
def test_class_changes_marks_forgotten_class(compared, forgotten):
    """`class_changes` sorts classes by value before pruning, sets the forgotten in bold, and refuses other doses."""
    (axes,) = plots.class_changes(compared, 5, forgotten=forgotten).axes
    bold = [tick.get_text() for tick in axes.get_xticklabels() if tick.get_fontweight() == "bold"]
    assert bold == [forgotten]
    names = [tick.get_text() for tick in axes.get_xticklabels()]
    before = forgetting.by_class(compared).sel(dose=0, neuron_set="selected").mean("speaker")
    assert names == list(before["label"].values[np.argsort(-before.values)])
    with pytest.raises(ValueError, match="the doses are"):
        plots.class_changes(compared, 7, forgotten=forgotten)


def test_class_changes_draws_single_units_when_few(compared):
    """Where units are too few for an interval, `class_changes` draws each of them, and its title says so."""
    (whole,) = plots.class_changes(compared, 5, forgotten="calm").axes
    few = compared.isel(clip=slice(0, 6))
    (axes,) = plots.class_changes(few, 5, forgotten="calm", units="recordings").axes
    assert "single recordings" in words(axes.figure) and "single" not in words(whole.figure)
    assert axes.get_ylabel().endswith("mean over recordings")
    drawn = [line for line in axes.lines if line.get_markersize() == 3 and np.isfinite(line.get_ydata()).any()]
    assert len(drawn) == 2 * 3  # conditions × speakers


def test_class_recalls_draws_three_bars_for_each_class(compared):
    """Bars are the recalls unpruned, without random and without selected neurons; lines the range of random sets."""
    recalls = pruning.recalls(compared)
    (axes,) = plots.class_recalls(recalls, 5, forgotten="calm").axes
    assert [tick.get_text() for tick in axes.get_xticklabels()] == ["calm", "angry"]
    means = recalls.mean("speaker").sel(label=["calm", "angry"])
    after = means.sel(dose=5)
    random = after.isel(neuron_set=slice(1, None))
    wanted = [means.sel(dose=0, neuron_set="selected"), random.mean("neuron_set"), after.sel(neuron_set="selected")]
    heights = [[bar.get_height() for bar in bars] for bars in axes.containers]
    np.testing.assert_allclose(heights, wanted)
    ranges = [segment[:, 1].tolist() for segment in axes.collections[0].get_segments()]
    np.testing.assert_allclose(ranges, np.transpose([random.min("neuron_set"), random.max("neuron_set")]))
    middles = [bar.get_x() + bar.get_width() / 2 for bar in axes.containers[1]]
    np.testing.assert_allclose(middles, [segment[0, 0] for segment in axes.collections[0].get_segments()], atol=1e-9)


def test_forgetting_plot_shows_points_under_eight_speakers(compared):
    """Under 8 speakers `margin_p` is NaN, and `plots.forgetting` draws a point for each speaker."""
    effects = pruning.effects(compared.isel(clip=slice(0, 8)), "angry")
    assert np.isnan(effects["margin_p"]).all() and np.isfinite(effects["across_p"]).all()
    shown = [line for line in plots.forgetting(effects).axes[1].lines if line.get_linestyle() == "None"]
    assert len(shown) == 2 * 4  # groups × speakers
    points = np.sort([line.get_ydata()[1] for line in shown[:4]])
    wanted = effects["log_odds"].sel(group="forgotten", dose=5, neuron_set="selected")
    np.testing.assert_allclose(points, np.sort(wanted))


def test_forgetting_plot_bounds_recall_intervals(compared):
    """Intervals of recall in `plots.forgetting` stay between 0 and 1; with ten speakers no single points are drawn."""
    effects = pruning.effects(compared, "angry")
    figure = plots.forgetting(effects)
    ends = np.concatenate([path.vertices[:, 1] for c in figure.axes[0].collections for path in c.get_paths()])
    assert len(ends) and ends.min() >= 0 and ends.max() <= 1
    assert not [line for ax in figure.axes for line in ax.lines if line.get_linestyle() == "None"]
