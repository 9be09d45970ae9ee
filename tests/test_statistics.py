from __future__ import annotations

import itertools

import numpy as np
import pytest
import xarray as xr
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import balanced_accuracy_score

from xai_lib import statistics

numbers = st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=1, max_size=9)


def test_interval_is_scipys():
    x = np.random.default_rng(0).normal(size=(12, 3))
    mean, low, high = statistics.interval(x, 0.9)
    want = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose([low, high], [want.low, want.high])
    np.testing.assert_allclose(statistics.interval(x.T, 0.9, axis=1)[1], low)


def test_interval_needs_eight():
    assert np.isnan(statistics.interval(np.arange(7.0))[1:]).all() and statistics.interval(np.arange(7.0))[0] == 3
    assert np.isfinite(statistics.interval(np.arange(8.0))).all()
    holes = np.r_[np.arange(7.0), np.nan, np.inf]
    assert np.isnan(statistics.interval(holes)[1:]).all() and statistics.interval(holes)[0] == 3
    assert np.isnan(statistics.interval([np.nan])).all() and np.isnan(statistics.interval([])).all()


def test_interval_covers():
    """A 95 % interval over 8 speakers holds the truth 95 % of the time (5,000 draws: standard error 0.3 %)."""
    x = np.random.default_rng(0).normal(3, 2, size=(8, 5000))
    _, low, high = statistics.interval(x)
    assert abs(np.mean((low < 3) & (high > 3)) - 0.95) < 0.012


def test_over_speakers_takes_the_speaker_as_unit():
    rng = np.random.default_rng(0)
    speakers = np.repeat([f"s{i}" for i in range(10)], [1, 2, 3, 4, 5, 6, 7, 8, 9, 10])
    data = xr.DataArray(
        rng.normal(size=(55, 4)),
        dims=("clip", "layer"),
        coords={"clip": np.arange(55) + 100, "layer": range(4), "speaker": ("clip", speakers)},
    )
    data[0, 2] = np.nan  # the only clip of s0
    data[1, 3] = np.nan  # one of the two of s1
    got = statistics.over_speakers(data)
    means = np.stack(
        [np.nanmean(data.values[speakers == s], axis=0) if s != "s0" else data.values[0] for s in np.unique(speakers)]
    )
    np.testing.assert_allclose(got["mean"], np.nanmean(means, axis=0))
    assert (
        got["n"].values.tolist() == [10, 10, 9, 10]
        and list(got["layer"]) == [0, 1, 2, 3]
        and "speaker" not in got.coords
    )
    np.testing.assert_allclose(got["low"][0], stats.ttest_1samp(means[:, 0], 0).confidence_interval().low)
    xr.testing.assert_identical(statistics.over_speakers(statistics.by_speaker(data.T)), got)
    few = statistics.over_speakers(data.isel(clip=slice(0, 20)))
    assert few["low"].isnull().all() and few["mean"].notnull().all() and int(few["n"][0]) == 6
    with pytest.raises(ValueError, match="no coordinate 'speaker'"):
        statistics.over_speakers(data.drop_vars("speaker"))
    with pytest.raises(ValueError, match="missing for some clips"):
        statistics.over_speakers(data.assign_coords(speaker=("clip", [None, *speakers[1:]])))


@given(st.lists(st.floats(-100, 100).map(lambda x: round(x, 3)), min_size=8, max_size=10))
@example([0, 0, 0, 1, 28, 99.188, -28, -100])  # sums that tie but for rounding
@settings(max_examples=30, deadline=None)
def test_sign_flip_is_exact(values):
    x = np.array(values)
    signs = np.array(list(itertools.product([1, -1], repeat=len(x))))
    means = np.abs((signs * x).mean(axis=1))
    p = statistics.sign_flip_test(x)
    assert p == pytest.approx(np.mean(means >= abs(x.mean()) - 1e-9), abs=1e-6)
    assert 2 / 2 ** len(x) <= p <= 1 and statistics.sign_flip_test(-x) == p


def test_sign_flip_is_never_zero_and_seeded():
    far = np.arange(10.0, 40.0)
    assert statistics.sign_flip_test(far, permutations=999) == pytest.approx(2 / 1000)  # two-sided, (b + 1) / (m + 1)
    x = np.random.default_rng(0).normal(0.3, 1, size=20)
    assert statistics.sign_flip_test(x, seed=1) == statistics.sign_flip_test(x, seed=1)
    assert statistics.sign_flip_test(x) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.03)
    assert statistics.sign_flip_test(np.r_[far[:8], np.nan]) == 2 / 256
    assert np.isnan(statistics.sign_flip_test(far[:7])) and statistics.sign_flip_test(np.zeros(8)) == 1


def test_sign_flip_is_exact_up_to_14():
    assert statistics.sign_flip_test(np.arange(1.0, 15)) == pytest.approx(2 / 2**14, rel=1e-9)
    assert statistics.sign_flip_test(np.arange(1.0, 16)) == pytest.approx(2 / 10000, rel=2)  # drawn


def test_sign_flip_holds_its_level():
    rng = np.random.default_rng(0)
    p = np.array([statistics.sign_flip_test(rng.standard_t(3, size=8)) for _ in range(400)])
    assert np.mean(p <= 0.05) < 0.08


def test_null_test_holds_its_level_and_sees_what_lies_outside():
    rng = np.random.default_rng(0)
    draws = rng.normal(3, 2, size=(5, 4000))  # 4 draws of a null and one more, which is no different
    p = statistics.null_test(draws[0], draws[1:])
    assert 0.04 < np.mean(p < 0.05) < 0.06
    x, null = 7.0, np.array([1.0, 2, 4, 3])
    t = (x - null.mean()) / (null.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert statistics.null_test(x, null) == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert statistics.null_test(2 * null.mean() - x, null) == pytest.approx(statistics.null_test(x, null))
    np.testing.assert_array_equal(statistics.null_test([1.0, 2.0], np.ones((4, 2))), [1, 0])
    assert np.isnan(statistics.null_test([1.0], [[1.0], [2.0]])).all()
    nan = statistics.null_test([np.nan, 1, np.nan], np.array([[1.0, 2, np.nan]] * 3))
    np.testing.assert_array_equal(nan, [np.nan, 0, np.nan])


def test_fdr_is_scipys_and_leaves_nan():
    p = np.random.default_rng(0).uniform(size=(4, 5))
    np.testing.assert_allclose(statistics.fdr(p), stats.false_discovery_control(p.ravel()).reshape(4, 5))
    q = statistics.fdr([0.01, np.nan, 0.04])
    np.testing.assert_allclose(q, [0.02, np.nan, 0.04])
    assert np.isnan(statistics.fdr([np.nan])).all()


def test_cohens_d_closed_forms():
    assert statistics.cohens_d([1, 2, 3], [2, 3, 4]) == pytest.approx(-1)
    assert statistics.cohens_d([1, 2, 3, np.nan]) == pytest.approx(2)
    assert np.isnan(statistics.cohens_d([1.0, 1.0])) and np.isnan(statistics.cohens_d([1.0], [2, 3.0]))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(14, 4))
    t = stats.ttest_ind(a, b).statistic
    np.testing.assert_allclose(statistics.cohens_d(a, b), t * np.sqrt(1 / 9 + 1 / 14))
    np.testing.assert_allclose(statistics.cohens_d(a), stats.ttest_1samp(a, 0).statistic / 3)


def test_eta_squared():
    assert statistics.eta_squared([1, 1, 5, 5], ["a", "a", "b", "b"]) == 1
    assert statistics.eta_squared([1, 5, 1, 5], ["a", "a", "b", "b"]) == 0
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=60), np.repeat([0, 1, 2], 20)
    f = stats.f_oneway(*(x[g == i] for i in range(3))).statistic
    assert statistics.eta_squared(np.r_[x, np.nan], np.r_[g, 2]) == pytest.approx(f * 2 / (f * 2 + 57))
    assert np.isnan(statistics.eta_squared([2, 2], ["a", "b"])) and np.isnan(statistics.eta_squared([], []))


def test_uar():
    truth, guess = ["a", "a", "a", "b"], ["a", "a", "c", "a"]
    assert statistics.uar(truth, guess) == pytest.approx((2 / 3 + 0) / 2)
    y = np.random.default_rng(0).integers(0, 8, size=(2, 300))
    assert statistics.uar(*y) == pytest.approx(balanced_accuracy_score(*y))
