"""Effects over speakers and against the null, on sweeps made by hand."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from scipy import stats

from xai_lib import ablation


def made(speakers=9, clips=2, nulls=20, seed=0):
    """A sweep's `delta` by hand: [clip, layer, mode], speakers with two clips each."""
    rng = np.random.default_rng(seed)
    shape, dims = (speakers * clips, 3, 2), ("clip", "layer", "mode")
    return xr.Dataset(
        {
            "delta": (dims, rng.standard_normal(shape) - np.array([0.0, 1, 3])[:, None]),
            "null_delta": ((*dims, "null"), rng.standard_normal((*shape, nulls))),
        },
        {
            "layer": [1, 2, 5],
            "mode": ["flip", "zero"],
            "speaker": ("clip", np.repeat([f"s{i}" for i in range(speakers)], clips).astype(object)),
        },
    )


def by_hand(values):
    """Speakers' means of [2 clips each]."""
    return values.reshape(-1, 2, *values.shape[1:]).mean(1)


def test_summary_against_scipy():
    result = made()
    found = ablation.summary(result)
    units, null = by_hand(result["delta"].values), by_hand(result["null_delta"].values)
    expected = stats.ttest_1samp(units, 0).confidence_interval(0.95)
    assert found["mean"].values == pytest.approx(units.mean(0)) and (found["n"] == 9).all()
    assert found["low"].values == pytest.approx(expected.low) and found["high"].values == pytest.approx(expected.high)
    assert found["speakers"].transpose("speaker", "layer", "mode").values == pytest.approx(units)
    draws = null.mean(0)
    assert found["null_low"].values == pytest.approx(np.quantile(draws, 0.025, axis=-1))
    assert found["null_high"].values == pytest.approx(np.quantile(draws, 0.975, axis=-1))
    outside = (units.mean(0) < draws.min(-1)) | (units.mean(0) > draws.max(-1))
    assert outside.any() and found["beyond"].values[outside].all()
    away = units - null.mean(-1)
    interval = stats.ttest_1samp(away, 0).confidence_interval(0.95)
    assert found["difference"].values == pytest.approx(away.mean(0))
    assert found["difference_low"].values == pytest.approx(interval.low)
    signs = np.array(list(itertools.product([-1, 1], repeat=9)))
    for layer, mode in itertools.product(range(3), range(2)):
        x = away[:, layer, mode]
        p = (np.abs(signs @ x) >= np.abs(x.sum()) - 1e-9).mean()
        assert found["p"].values[layer, mode] == pytest.approx(p)
    for mode in range(2):  # corrected over layers, for each mode
        q = stats.false_discovery_control(found["p"].values[:, mode])
        assert found["q"].transpose("layer", "mode").values[:, mode] == pytest.approx(q)


def test_contrast_is_paired():
    result = made()
    found = ablation.contrast(result["delta"].sel(mode="flip"), result["delta"].sel(mode="zero"))
    units = by_hand(result["delta"].values)
    test = stats.ttest_rel(units[..., 0], units[..., 1])
    assert found["mean"].values == pytest.approx((units[..., 0] - units[..., 1]).mean(0))
    assert found["low"].values == pytest.approx(test.confidence_interval().low)
    assert found["q"].values == pytest.approx(stats.false_discovery_control(found["p"].values))


def test_below_eight_speakers_there_is_no_interval_and_no_test():
    found = ablation.summary(made(speakers=7))
    for name in ("low", "high", "difference_low", "p", "q"):
        assert np.isnan(found[name]).all(), name
    assert np.isfinite(found["mean"]).all() and found.sizes["speaker"] == 7


def test_without_nulls_there_is_nothing_to_compare_with():
    found = ablation.summary(made(nulls=0))
    assert np.isfinite(found["low"]).all() and not found["beyond"].any()
    for name in ("null_mean", "null_low", "difference", "p", "q"):
        assert np.isnan(found[name]).all(), name


def test_summary_needs_speakers():
    with pytest.raises(ValueError, match="speaker"):
        ablation.summary(made().drop_vars("speaker"))
