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


def test_interval_needs_eight_units():
    """With fewer than eight finite units the bounds are NaN, and the mean is still given."""
    assert np.isnan(statistics.interval(np.arange(7.0))[1:]).all() and statistics.interval(np.arange(7.0))[0] == 3
    assert np.isfinite(statistics.interval(np.arange(8.0))).all()
    holes = np.r_[np.arange(7.0), np.nan, np.inf]
    assert np.isnan(statistics.interval(holes)[1:]).all() and statistics.interval(holes)[0] == 3
    assert np.isnan(statistics.interval([np.nan])).all() and np.isnan(statistics.interval([])).all()


def test_interval_covers_the_truth():
    """A 95 % interval over 8 speakers holds the truth 95 % of the time (5,000 draws: standard error 0.3 %)."""
    x = np.random.default_rng(0).normal(3, 2, size=(8, 5000))
    _, low, high = statistics.interval(x)
    assert abs(np.mean((low < 3) & (high > 3)) - 0.95) < 0.012


def test_over_speakers_takes_the_speaker_as_unit():
    """Clips are averaged within speakers first, without NaN; the interval is that of scipy over speakers."""
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
@settings(max_examples=30)
def test_sign_flip_test_is_exact(values):
    """The p value is the share of all sign patterns whose mean is as far from 0, also for negated values."""
    x = np.array(values)
    signs = np.array(list(itertools.product([1, -1], repeat=len(x))))
    means = np.abs((signs * x).mean(axis=1))
    p = statistics.sign_flip_test(x)
    assert p == pytest.approx(np.mean(means >= abs(x.mean()) - 1e-9), abs=1e-6)
    assert 2 / 2 ** len(x) <= p <= 1 and statistics.sign_flip_test(-x) == p


def test_sign_flip_test_is_seeded_and_never_zero():
    """With drawn patterns p is 2 (b + 1) / (m + 1), never 0, seeded, and near that of the t test."""
    far = np.arange(10.0, 40.0)
    assert statistics.sign_flip_test(far, permutations=999) == pytest.approx(2 / 1000)  # two-sided, (b + 1) / (m + 1)
    x = np.random.default_rng(0).normal(0.3, 1, size=20)
    assert statistics.sign_flip_test(x, seed=1) == statistics.sign_flip_test(x, seed=1)
    assert statistics.sign_flip_test(x) == pytest.approx(stats.ttest_1samp(x, 0).pvalue, abs=0.03)
    assert statistics.sign_flip_test(np.r_[far[:8], np.nan]) == 2 / 256
    assert np.isnan(statistics.sign_flip_test(far[:7])) and statistics.sign_flip_test(np.zeros(8)) == 1


@pytest.mark.parametrize("n", [62, 63, 64, 91])
def test_sign_flip_test_draws_signs_for_many_units(n):
    """Of many units, whose sign patterns no integer of the machine can count, some are drawn."""
    x = 0.2 + np.random.default_rng(0).standard_normal((n, 2))
    expected = stats.ttest_1samp(x, 0).pvalue
    assert statistics.sign_flip_test(x) == pytest.approx(expected, abs=0.03)


def test_sign_flip_test_is_exact_up_to_14():
    """With 14 units the least p is exactly 2 / 2^14; with 15 it is 2 (b + 1) / 10,000 of a few draws b."""
    assert statistics.sign_flip_test(np.arange(1.0, 15)) == pytest.approx(2 / 2**14, rel=1e-9)
    beyond = statistics.sign_flip_test(np.arange(1.0, 16)) * 10_000 / 2  # 0.3 draws are expected, and 1 is added
    assert beyond == pytest.approx(round(beyond)) and 1 <= beyond <= 4


def test_sign_flip_test_counts_ties_despite_rounding():
    """Sums that tie count as ties at any scale of the values, although rounding makes them differ."""
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    for seed in range(40):
        x = np.random.default_rng(seed).integers(-7, 8, 8)
        exact = np.mean(np.abs(signs @ x) >= abs(x.sum()))
        for unit in (1, 0.1, 1e-9, 1e9):
            assert statistics.sign_flip_test(x * unit) == exact


def test_sign_flip_test_omits_nan_by_entry():
    """Each entry is tested over its own finite units, as it is alone; under eight of them p is NaN."""
    x = np.random.default_rng(0).normal(0.5, 1, size=(18, 40))
    for column in range(40):
        x[np.random.default_rng(column).permutation(18)[: column % 12], column] = [np.nan, np.inf][column % 2]
    left = [column[np.isfinite(column)] for column in x.T]
    np.testing.assert_array_equal(statistics.sign_flip_test(x), [statistics.sign_flip_test(one) for one in left])
    assert np.isnan(statistics.sign_flip_test(x)).sum() == sum(len(one) < 8 for one in left) > 0
    assert statistics.sign_flip_test(np.zeros((9, 0))).shape == (0,) and np.isnan(statistics.sign_flip_test([]))


def test_sign_flip_test_is_unchanged_by_blocks():
    """Columns among 1,500 that are tested in blocks have the same p as when tested alone."""
    x = np.random.default_rng(0).normal(0.3, 1, size=(16, 1500))
    found = statistics.sign_flip_test(x)
    assert found[::250].tolist() == [statistics.sign_flip_test(column) for column in x.T[::250]]


def test_sign_flip_test_holds_its_level():
    """With eight units of heavy tails p ≤ 0.05 in fewer than 8 % of 400 draws without an effect."""
    rng = np.random.default_rng(0)
    p = np.array([statistics.sign_flip_test(rng.standard_t(3, size=8)) for _ in range(400)])
    assert np.mean(p <= 0.05) < 0.08


def test_prediction_test_holds_its_level():
    """Draws of the null have p < 0.05 in 5 % of cases; p is that of the t test with n − 1 degrees of freedom."""
    rng = np.random.default_rng(0)
    draws = rng.normal(3, 2, size=(5, 4000))  # 4 draws of a null and one more, which is no different
    p = statistics.prediction_test(draws[0], draws[1:])
    assert 0.04 < np.mean(p < 0.05) < 0.06
    x, random = 7.0, np.array([1.0, 2, 4, 3])
    t = (x - random.mean()) / (random.std(ddof=1) * np.sqrt(1 + 1 / 4))
    assert statistics.prediction_test(x, random) == pytest.approx(2 * stats.t.sf(abs(t), 3))
    assert statistics.prediction_test(2 * random.mean() - x, random) == pytest.approx(
        statistics.prediction_test(x, random)
    )
    np.testing.assert_array_equal(statistics.prediction_test([1.0, 2.0], np.ones((4, 2))), [1, 0])
    assert np.isnan(statistics.prediction_test([1.0], [[1.0], [2.0]])).all()
    nan = statistics.prediction_test([np.nan, 1, np.nan], np.array([[1.0, 2, np.nan]] * 3))
    np.testing.assert_array_equal(nan, [np.nan, 0, np.nan])


def test_rank_test_equals_hand_computed_ranks():
    """The p values equal ranks by hand, with ties, NaN, no draws, constant values and dependent draws."""
    p, architecture = statistics.rank_test([9.0, 0.0], [[1.0, 2, 3, 4], [5, -5, 4, -4]])
    assert p == pytest.approx([1 / 5, 1]) and architecture[0] == p[0]
    assert statistics.rank_test(0.0, [1.0, 2, 3, 9])[0] == pytest.approx(2 / 5)  # 3 from the mean, and 9 is farther
    assert statistics.rank_test(2.0, [1.0, 2, 3, 4]) == pytest.approx((1, 1))  # 2.4 is the mean of all five
    one = statistics.rank_test(9.0, [1.0, 2, 3, 4, 9])  # a draw that is what was found
    assert one == pytest.approx((2 / 6, 2 / 6))
    nan = statistics.rank_test([np.nan, 1, 2], [[1.0, 2], [np.nan, 2], [5, 5]])
    np.testing.assert_array_equal(nan[0], [np.nan, np.nan, 1 / 3])
    np.testing.assert_array_equal(statistics.rank_test([1.0, 2.0], np.ones((2, 4)))[0], [1, 1 / 5])  # none varies
    assert np.isnan(statistics.rank_test([1.0], np.zeros((1, 0)))[0]).all()
    assert statistics.rank_test(9.0, np.arange(6.0), draws=3)[0] == pytest.approx(1 / 4)


def heavy(rng, *shape):
    """Draws of far tails, and skewed."""
    return np.exp(1.5 * rng.standard_normal(shape)) * rng.standard_cauchy(shape)


@pytest.mark.parametrize("draw", [np.random.Generator.standard_normal, heavy], ids=["normal", "heavy tails"])
def test_rank_test_holds_its_level_for_any_tails(draw):
    """Any of seven layers of unequal scale has a family p < 0.05 in about 5 % of 2,000 draws, even with heavy tails."""
    rng, any_, single = np.random.default_rng(0), [], []
    for _ in range(2000):
        every = draw(rng, (7, 41)) if draw is not heavy else heavy(rng, 7, 41)
        every *= np.geomspace(1, 1000, 7)[:, None]
        p, architecture = statistics.rank_test(every[:, 0], every[:, 1:])
        any_.append((architecture < 0.05).any())
        single.append((p < 0.05).mean())
        assert (architecture >= p - 1e-12).all()
    assert 0.03 < np.mean(any_) < 0.062 and 0.035 < np.mean(single) < 0.06
    if draw is heavy:  # what normal theory would have said
        every = heavy(rng, 2000, 7, 41)
        normal = statistics.prediction_test(every[..., 0], every[..., 1:], axis=-1)
        assert (normal < 0.01).mean() > 0.02


def test_rank_test_finds_layer_beyond_all_draws():
    """A layer beyond all 40 draws is the only significant one of the family, with p = 1 / 41."""
    rng = np.random.default_rng(1)
    every = rng.standard_normal((7, 41))
    every[3, 0] += 8
    _, architecture = statistics.rank_test(every[:, 0], every[:, 1:])
    assert (architecture < 0.05).nonzero()[0].tolist() == [3] and architecture[3] == pytest.approx(1 / 41)


@pytest.mark.parametrize("many", [20, 40, 100, 200])
def test_rank_band_matches_rank_test(many):
    """Over 97 % of values lie outside the band if, and only if, `rank_test` has p < 0.05; NaN under 20 draws."""
    rng = np.random.default_rng(many)
    drawn = rng.standard_normal((300, many))
    low, high = statistics.rank_band(drawn)
    values = rng.normal(0, 2, 300)
    outside = (values < low) | (values > high)
    told = statistics.rank_test(values, drawn)[0] < 0.05
    assert (outside == told).mean() > 0.97 and 0.15 < outside.mean() < 0.6
    assert np.isnan(statistics.rank_band(drawn[:, :19])).all()


def test_cohens_d_equals_closed_forms():
    """Cohen's d equals values computed by hand and scaled t statistics; it is NaN where nothing varies."""
    assert statistics.cohens_d([1, 2, 3], [2, 3, 4]) == pytest.approx(-1)
    assert statistics.cohens_d([1, 2, 3, np.nan]) == pytest.approx(2)
    assert np.isnan(statistics.cohens_d([1.0, 1.0])) and np.isnan(statistics.cohens_d([1.0], [2, 3.0]))
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(9, 4)), rng.normal(size=(14, 4))
    t = stats.ttest_ind(a, b).statistic
    np.testing.assert_allclose(statistics.cohens_d(a, b), t * np.sqrt(1 / 9 + 1 / 14))
    np.testing.assert_allclose(statistics.cohens_d(a), stats.ttest_1samp(a, 0).statistic / 3)


def test_eta_squared_equals_f_statistic():
    """Eta squared is 0 and 1 in the extremes, follows from scipy's F, and leaves NaN out column by column."""
    assert statistics.eta_squared([1, 1, 5, 5], ["a", "a", "b", "b"]) == 1
    assert statistics.eta_squared([1, 5, 1, 5], ["a", "a", "b", "b"]) == 0
    rng = np.random.default_rng(0)
    x, g = rng.normal(size=60), np.repeat([0, 1, 2], 20)
    f = stats.f_oneway(*(x[g == i] for i in range(3))).statistic
    assert statistics.eta_squared(np.r_[x, np.nan], np.r_[g, 2]) == pytest.approx(f * 2 / (f * 2 + 57))
    many = np.c_[np.r_[x[::-1], np.nan], np.r_[np.inf, x], np.r_[x, 1]]
    one_by_one = [statistics.eta_squared(column, np.r_[g, 2]) for column in many.T]
    np.testing.assert_allclose(statistics.eta_squared(many, np.r_[g, 2]), one_by_one)
    assert np.isnan(statistics.eta_squared([2, 2], ["a", "b"])) and np.isnan(statistics.eta_squared([], []))


def test_standardize_makes_products_correlations():
    """Products of standardised columns are correlations, along either axis; constant columns become 0."""
    x = np.random.default_rng(0).normal(3, 2, size=(9, 4))
    np.testing.assert_allclose(statistics.standardize(x).T @ statistics.standardize(x), np.corrcoef(x.T))
    np.testing.assert_allclose(statistics.standardize(x.T, axis=1), statistics.standardize(x).T)
    np.testing.assert_array_equal(statistics.standardize(np.full((5, 2), 7.3)), np.zeros((5, 2)))


def test_uar_equals_scikit_learn():
    """UAR is the mean recall of the true classes, equal to scikit-learn's balanced accuracy."""
    truth, guess = ["a", "a", "a", "b"], ["a", "a", "c", "a"]
    assert statistics.uar(truth, guess) == pytest.approx((2 / 3 + 0) / 2)
    y = np.random.default_rng(0).integers(0, 8, size=(2, 300))
    assert statistics.uar(*y) == pytest.approx(balanced_accuracy_score(*y))


@pytest.mark.parametrize("n", [0, 1])
def test_prediction_sd_is_nan_without_two_draws(n):
    """With no draw, or one, the SD is NaN for each entry, whichever axis the draws lie along."""
    assert np.isnan(statistics.prediction_sd(np.zeros(n)))
    np.testing.assert_equal(statistics.prediction_sd(np.zeros((n, 3))), np.full(3, np.nan))
    np.testing.assert_equal(statistics.prediction_sd(np.zeros((3, n)), axis=-1), np.full(3, np.nan))


def test_permutation_p_continues_beyond_draws():
    """Beyond all draws p is the tail of a Student distribution, else the share of draws; NaN stays NaN."""
    drawn = np.random.default_rng(0).standard_normal((99, 4))
    drawn[:, 3] = 0.0
    third = np.sort(drawn[:, 1])[-3]
    found = statistics.permutation_p([9, third, np.nan, 1], np.split(drawn, [10, 50]))
    mean, spread = drawn[:, 0].mean(), drawn[:, 0].std(ddof=1) * np.sqrt(1 + 1 / 99)
    np.testing.assert_allclose(found, [stats.t.sf((9 - mean) / spread, 98), 0.04, np.nan, 0.01])
    assert statistics.permutation_p(5.0, [np.zeros(1)]) == 0.5  # one draw tells no spread
    assert statistics.permutation_p(5.0, []) == 1


def test_selection_test_equals_all_sign_patterns():
    """The p value is that over all 2⁸ sign patterns, or Bonferroni's bound where no other pattern is as great."""
    rng = np.random.default_rng(0)
    values = rng.standard_normal((8, 30, 4))
    values[:, 0, 2] += 9
    selected = values.sum(axis=0).argmax(axis=1)
    found = statistics.selection_test(values, selected, draws=256)
    signs = np.array(list(itertools.product([1, -1], repeat=8)))
    for entry in range(1, 30):
        best = (signs @ values[:, entry]).max(axis=1)
        assert found[entry] == pytest.approx((best >= best[0] - 1e-6).mean())
    assert selected[0] == 2 and found[0] == pytest.approx(4 * stats.ttest_1samp(values[:, 0, 2], 0).pvalue / 2)
    few = values.copy()
    few[0, 3, selected[3]] = np.nan
    assert (
        np.isnan(statistics.selection_test(few, selected)[3])
        and np.isnan(statistics.selection_test(few[1:], selected)).all()
    )
    many = statistics.selection_test(np.concatenate([values, values, values]), selected, draws=400, seed=1)
    assert ((many > 0) & (many <= 1)).all() and many[0] < 1e-9


def test_selection_test_holds_its_level():
    """The best of ten quantities of noise has p < 0.05 in 5 % of cases, and in over 30 % by a plain t test."""
    values = np.random.default_rng(1).standard_normal((12, 2000, 10))
    selected = values.sum(axis=0).argmax(axis=1)
    assert np.mean(statistics.selection_test(values, selected, draws=199) < 0.05) == pytest.approx(0.05, abs=0.015)
    own = np.take_along_axis(values, selected[None, :, None], axis=2)[..., 0]
    assert np.mean(statistics.t_test_above(own) < 0.05) > 0.3


def test_repeated_measures_test_holds_its_level():
    """With conditions of unequal variance p < 0.05 in about 5 %; a true difference is found in over 95 %."""
    noise = np.random.default_rng(0).standard_normal((10, 6, 2000)) * np.array([1, 1, 1, 1, 1, 5])[:, None]
    assert np.mean(statistics.repeated_measures_test(noise) < 0.05) == pytest.approx(0.055, abs=0.02)
    same = np.random.default_rng(1).standard_normal((12, 4, 50))
    moved = same + np.array([0, 0, 0, 3.0])[:, None]
    assert (statistics.repeated_measures_test(moved) < 0.01).mean() > 0.95


def test_restricted_permutations_keep_speakers():
    """Rows are shuffled within speakers, or exchanged as whole speakers of one size; a warning says if few can be."""
    groups = [np.array(rows) for rows in ([3, 0], [1, 5], [2], [4], [6, 7, 8])]
    of = np.array([0, 1, 2, 0, 3, 1, 4, 4, 4])
    moved = np.zeros(9)
    for rows in statistics.restricted_permutations(groups, 200, 0):
        assert (of[rows] == of).all() and sorted(rows) == list(range(9))
        moved += rows != np.arange(9)
    np.testing.assert_allclose(moved / 200, [1 / 2, 1 / 2, 0, 1 / 2, 0, 1 / 2, 2 / 3, 2 / 3, 2 / 3], atol=0.15)
    came = {}
    for rows in statistics.restricted_permutations(groups, 400, 0, whole_speakers=True):
        assert sorted(rows) == list(range(9)) and all(len(set(of[rows][own])) == 1 for own in groups)  # none is torn
        for at, own in enumerate(groups):
            came.setdefault(at, []).append(of[rows][own[0]])
    assert {at: set(x) for at, x in came.items()} == {0: {0, 1}, 1: {0, 1}, 2: {2, 3}, 3: {2, 3}, 4: {4}}
    assert np.mean(np.array(came[0]) == 1) == pytest.approx(0.5, abs=0.1)
    unlike = [np.arange(6), np.array([6]), np.array([7]), np.array([8])]
    with pytest.warns(UserWarning, match="6 of 9 clips .* same number of clips of each"):
        next(statistics.restricted_permutations(unlike, 1, 0, whole_speakers=True))
