"""Figures of attributions and contrasts draw the results, and name what is significant."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn import heat_map, words
from handmade import LABELS, angry_contrast, scores
from matplotlib.collections import PathCollection
from matplotlib.colors import same_color

from xai_lib import attribution, audio, plots
from xai_lib.attribution.class_contrast import compare, distribution
from xai_lib.plots import style


def test_layer_neuron_map_refuses_datasets():
    """The map of all neurons refuses scores of clips, and says how to average them."""
    table = scores(np.arange(12).reshape(1, 3, 4), ["a"])
    with pytest.raises(ValueError, match=r"not a Dataset: pass attribution\.mean_score\(scores"):
        plots.layer_neuron_map(table)


def test_frame_attribution_scales_each_baseline(linear, swelling_clips):
    """The panel of each baseline fits its own mean curve, despite a huge error, and marks its own top frames."""
    style.use()
    shaps = {}
    for name in ("noise", "silence"):
        shap = attribution.gradient_shap(linear, swelling_clips, target="angry", n=4, steps=2, baseline=name)
        shaps[name] = shap.sel(clip=1).copy(deep=True)
    count = int(shaps["noise"]["n_frames"])
    shaps["silence"]["attribution"] *= 100
    shaps["silence"]["error"][0] = 1e6  # one draw in many is huge: the band leaves the panel, the curve stays readable
    figure = plots.frame_attribution(audio.read(swelling_clips["path"][1]), 16000, shaps, k=3, name="a$b$.wav")
    assert len(figure.axes) == 4 and "a$b$.wav" in figure.axes[0].get_title(loc="left")
    for axes, (name, one) in zip(figure.axes[2:], shaps.items()):
        mean = one["attribution"].values[:count]
        low, high = axes.get_ylim()
        assert low <= mean.min() and mean.max() <= high and high - low < 1.5 * np.ptp(np.append(mean, 0))
        assert name in axes.get_title(loc="left")
        yellow = [patch for patch in axes.patches if patch.get_zorder() == 0]
        starts = sorted(round(patch.get_x() / 0.02) for patch in yellow)
        assert starts == sorted(np.argsort(-mean)[:3])
        assert all(patch.get_linewidth() >= 1 for patch in yellow)  # a frame of a long clip would be a hairline
    figure.canvas.draw()


@pytest.mark.parametrize("n", [3, 8])
def test_deletion_pairs_draws_line_per_speaker(n):
    """`deletion_pairs` draws one line for each speaker's mean, and names an interval from 8 speakers up."""
    style.use()
    modes, speakers = ["top", "loudest", "shifted", "random"], [f"s{place}" for place in range(n)] * 2
    values = np.random.default_rng(0).standard_normal((2 * n, 4))
    attributes = {"share": 0.2, "scale": "log_odds", "frames": "speech"}
    drop = xr.DataArray(values, {"mode": modes, "speaker": ("clip", speakers)}, ("clip", "mode"), attrs=attributes)
    (axes,) = plots.deletion_pairs(drop).axes
    lines = [line.get_ydata() for line in axes.lines[:n]]
    assert np.allclose(lines, (values[:n] + values[n:]) / 2)
    title = axes.get_title(loc="left")
    assert f"{n} speakers" in title and ("95 % interval" in title) == (n == 8)


def test_contrast_map_shows_significant_neurons():
    """The map fades neurons that are not significant, counts the others by layer, and notes too few speakers."""
    made = angry_contrast()
    found = compare(made, "label", "angry")
    found["q"][0, :2] = 0.2
    figure = plots.contrast_map(found, pd.DataFrame({"layer": [2], "neuron": [4]}), variable="auroc")
    axes, beside = figure.axes[:2]
    assert "angry against the rest: 16 speakers" in words(figure) and "AUROC" in words(figure)
    assert "agree in intensity, statement" in words(figure)
    np.testing.assert_array_equal(heat_map(axes).get_array(), found["auroc"])
    faded = np.where(found["q"] < 0.05, 1, 0.25)
    np.testing.assert_array_equal(heat_map(axes).get_alpha().reshape(faded.shape), faded)
    told = 100 * ((found["q"] < 0.05) & (found["auroc"] > 0.5)).mean("neuron")
    assert [bar.get_width() for bar in beside.patches[:2]] == told.values.tolist() and told[0] < 100
    assert axes.collections[-1].get_offsets().tolist() == [[4.5, 1.5]]
    few = compare(made.isel(clip=made["speaker"].values < "s05"), "sex", "female")
    figure = plots.contrast_map(few)
    assert "3 against 2 speakers (too few for a test)" in words(figure) and not figure.axes[1].get_visible()
    assert (heat_map(figure.axes[0]).get_alpha() == 1).all()


def test_neuron_groups_shows_each_speaker():
    """The figure shows every speaker by emotion, intensity and sex, and joins the two intensities of each."""
    made = angry_contrast()
    tables = [distribution(made, 2, 3, column) for column in ("label", "intensity", "sex")]
    figure = plots.neuron_groups(*tables)
    text = words(figure)
    assert all(name in text for name in (*LABELS, "strong", "female", "Layer 2, neuron 3 of ffn_hidden", "16 speakers"))
    emotions, intensity, sex = figure.axes
    dots = [found for found in emotions.collections if isinstance(found, PathCollection)]
    np.testing.assert_allclose([np.sort(found.get_offsets()[:, 1]) for found in dots], np.sort(tables[0].T))
    assert same_color(dots[2].get_facecolor()[0, :3], style.EMOTION_COLORS["angry"])
    pairs = [line.get_ydata().tolist() for line in intensity.lines if np.array_equal(line.get_xdata(), [0, 1])]
    assert pairs == tables[1].values.tolist()
    assert not any(np.array_equal(line.get_xdata(), [0, 1]) for line in sex.lines)
    (means,) = [line.get_ydata() for line in sex.lines if line.get_marker() == "D"]
    assert means.tolist() == pytest.approx(tables[2].mean().tolist())
