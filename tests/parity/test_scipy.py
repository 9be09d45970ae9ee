"""Statistics, and the intervals, tests and correlations of results, equal scipy's."""

from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
import voiced_neurons
import xarray as xr
from handmade import angry_contrast, scores, swept
from scipy import stats
from scipy.stats import spearmanr
from voiced_neurons import LEXICON, PER, SPEAKERS, said_of

from xai_lib import ablation, attribution, dissection, statistics
from xai_lib.attribution.class_contrast import compare
from xai_lib.dissection import open_concepts
from xai_lib.probing import activation_proxies

# ---------- statistics


def test_interval_equals_scipy():
    """The interval is the mean with scipy's t confidence interval, along either axis."""
    x = np.random.default_rng(0).normal(size=(12, 3))
    mean, low, high = statistics.interval(x, 0.9)
    want = stats.ttest_1samp(x, 0).confidence_interval(0.9)
    np.testing.assert_allclose(mean, x.mean(axis=0))
    np.testing.assert_allclose([low, high], [want.low, want.high])
    np.testing.assert_allclose(statistics.interval(x.T, 0.9, axis=1)[1], low)


@pytest.mark.parametrize("n", [7, 8, 13, 14, 15, 20])
def test_sign_flip_test_equals_scipy(n):
    """The sign-flip test of many samples equals scipy's permutation test of each; of seven units it is NaN."""
    x = np.random.default_rng(n).normal(0.4, 1, size=(3, n, 2))
    options = {"permutation_type": "samples", "n_resamples": np.inf if n <= 14 else 999}
    found = statistics.sign_flip_test(x, axis=1, permutations=999, seed=3)
    assert found.shape == (3, 2)
    for i, j in np.ndindex(3, 2):
        one = stats.permutation_test((x[i, :, j],), np.sum, rng=np.random.default_rng(3), **options)
        np.testing.assert_allclose(found[i, j], one.pvalue if n > 7 else np.nan)
        alone = statistics.sign_flip_test(x[i, :, j], permutations=999, seed=3)
        assert np.isscalar(alone) and (alone == found[i, j] or n == 7)


def test_welch_equals_scipy():
    """Welch's test equals scipy's, with its interval, and gives no p where a group has fewer than eight units."""
    rng = np.random.default_rng(0)
    a, b = rng.normal(1, 1, size=(8, 3)), rng.normal(0, 4, size=(12, 3))
    want = stats.ttest_ind(a, b, equal_var=False)
    ends = want.confidence_interval(0.9)
    found = statistics.welch(a, b, 0.9)
    np.testing.assert_allclose(found, [a.mean(0) - b.mean(0), ends.low, ends.high, want.pvalue])
    holes = np.vstack([a, np.full((2, 3), np.nan)])
    np.testing.assert_allclose(statistics.welch(holes.T, b.T, 0.9, axis=1), found)
    difference, *rest = statistics.welch(a[:7], b)
    assert np.isfinite(difference).all() and np.isnan(rest).all()
    assert np.isnan(statistics.welch(b[:, 0], a[:7, 0])[1:]).all()
    assert np.isnan(statistics.welch(np.ones(8), np.ones(8))[3])


def test_t_test_equals_scipy():
    """The t test equals scipy's one-sample test over eight units or more, and is NaN over fewer."""
    x = np.random.default_rng(0).normal(0.5, 1, size=(9, 5))
    np.testing.assert_allclose(statistics.t_test(x), stats.ttest_1samp(x, 0).pvalue)
    x[0, 1] = np.nan
    np.testing.assert_allclose(statistics.t_test(x), stats.ttest_1samp(x, 0, nan_policy="omit").pvalue)
    x[:2, 2] = np.nan
    assert np.isnan(statistics.t_test(x)).tolist() == [False, False, True, False, False]
    np.testing.assert_array_equal(statistics.t_test(np.array([[0.0, 1.0]] * 8)), [1, 0])


def test_t_test_above_equals_scipy():
    """The test of means above zero equals scipy's one-sided t test, and is NaN over seven units."""
    values = np.random.default_rng(0).standard_normal((9, 5)) + [0, 1, -1, 0.5, 0]
    values[0, 4], values[:2, 3] = np.nan, np.nan  # eight units, and seven
    expected = stats.ttest_1samp(values, 0, alternative="greater", nan_policy="omit").pvalue
    np.testing.assert_allclose(statistics.t_test_above(values), [*expected[:3], np.nan, expected[4]])


def test_repeated_measures_test_equals_scipy_for_two_conditions():
    """The repeated-measures test of two conditions equals scipy's paired t test over complete units."""
    values = np.random.default_rng(0).standard_normal((9, 2, 5))
    expected = stats.ttest_rel(values[:, 0], values[:, 1]).pvalue
    np.testing.assert_allclose(statistics.repeated_measures_test(values), expected)
    values[0, 1] = np.nan
    expected = stats.ttest_rel(values[1:, 0], values[1:, 1]).pvalue
    np.testing.assert_allclose(statistics.repeated_measures_test(values), expected)
    assert np.isnan(statistics.repeated_measures_test(values[1:8])).all()
    assert (statistics.repeated_measures_test(np.ones((8, 3, 2))) == 1).all()


def test_fdr_equals_scipy():
    """FDR equals scipy's false discovery control over all values, and leaves NaN as it is."""
    p = np.random.default_rng(0).uniform(size=(4, 5))
    np.testing.assert_allclose(statistics.fdr(p), stats.false_discovery_control(p.ravel()).reshape(4, 5))
    q = statistics.fdr([0.01, np.nan, 0.04])
    np.testing.assert_allclose(q, [0.02, np.nan, 0.04])
    assert np.isnan(statistics.fdr([np.nan])).all()


# ---------- ablation


def speaker_means(values):
    """Speakers' means of [2 clips each]."""
    return values.reshape(-1, 2, *values.shape[1:]).mean(1)


def test_effect_over_speakers_equals_scipy():
    """Intervals, tests and FDR over speakers equal scipy's, and neurons are ranked among random ones."""
    result = swept()
    found = ablation.effect_over_speakers(result)
    means = speaker_means(result["target_change"].values)
    units, random = means[..., 0], means[..., 1:]
    expected = stats.ttest_1samp(units, 0).confidence_interval(0.95)
    assert found["mean"].values == pytest.approx(units.mean(0)) and (found["n"] == 9).all()
    assert found["low"].values == pytest.approx(expected.low) and found["high"].values == pytest.approx(expected.high)
    assert found["speakers"].transpose("speaker", "layer", "mode").values == pytest.approx(units)
    draws = random.mean(0)
    half = np.abs(draws - draws.mean(-1, keepdims=True)).max(-1)  # of 20 the farthest
    assert found["random_low"].values == pytest.approx(draws.mean(-1) - half)
    assert found["random_high"].values == pytest.approx(draws.mean(-1) + half)
    every = np.concatenate([units.mean(0)[..., None], draws], axis=-1)
    score = np.abs(stats.zscore(every, axis=-1))
    assert found["p_random"].values == pytest.approx((score >= score[..., :1] - 1e-9).mean(-1))
    greatest = score[..., 1:].max(0)  # over layers, for each mode
    expected = (1 + (greatest >= score[..., :1] - 1e-9).sum(-1)) / 21
    assert found["q_random"].values == pytest.approx(expected)
    away = units - random.mean(-1)
    interval = stats.ttest_1samp(away, 0).confidence_interval(0.95)
    assert found["difference"].values == pytest.approx(away.mean(0))
    assert found["difference_low"].values == pytest.approx(interval.low)
    for layer, mode in itertools.product(range(3), range(2)):
        p = stats.ttest_1samp(away[:, layer, mode], 0).pvalue
        assert found["p"].values[layer, mode] == pytest.approx(max(p, found["p_random"].values[layer, mode]))
    for mode in range(2):  # corrected over layers, for each mode
        q = stats.false_discovery_control(found["p_speakers"].values[:, mode])
        assert found["q"].values[:, mode] == pytest.approx(np.maximum(q, found["q_random"].values[:, mode]))


def test_contrast_equals_scipy_paired_test():
    """A contrast equals scipy's paired interval over speakers, and its q values are scipy's FDR of its p values."""
    values = ablation.selected_values(swept()["target_change"])
    found = ablation.contrast(values.sel(mode="flip"), values.sel(mode="zero"))
    units = speaker_means(values.values)
    test = stats.ttest_rel(units[..., 0], units[..., 1])
    assert found["mean"].values == pytest.approx((units[..., 0] - units[..., 1]).mean(0))
    assert found["low"].values == pytest.approx(test.confidence_interval().low)
    assert found["q"].values == pytest.approx(stats.false_discovery_control(found["p"].values))


# ---------- attribution


def test_agreement_equals_scipy():
    """Agreement is scipy's Spearman correlation of each clip's scores with the mean scores, by layer."""
    rng = np.random.default_rng(3)
    a, b = scores(rng.standard_normal((3, 2, 30)), list("abc")), scores(rng.standard_normal((2, 2, 30)), list("de"))
    found, mean = attribution.agreement(a, b, by="signed"), attribution.mean_score(b, by="signed").values
    for clip in range(3):
        for layer in range(2):
            one = a["signed"].values[clip, layer]
            assert found.values[clip, layer] == pytest.approx(spearmanr(one, mean[layer]).statistic)
    assert found["speaker"].values.tolist() == list("abc")
    assert np.allclose(attribution.agreement(a.isel(clip=[0]), a.isel(clip=[0])), 1)


def test_compare_equals_scipy_between_speakers():
    """Comparing the sexes equals scipy's Welch test of the speakers' means."""
    made = angry_contrast()
    found, means = compare(made, "sex", "female"), made["activation"].astype(float).groupby("speaker").mean()
    own = np.arange(16) % 2 == 0
    want = stats.ttest_ind(means[own], means[~own], equal_var=False)
    np.testing.assert_allclose(found["difference"], means[own].mean("speaker") - means[~own].mean("speaker"), atol=1e-7)
    np.testing.assert_allclose(found["p"], want.pvalue, rtol=1e-4)
    np.testing.assert_allclose(found["low"], want.confidence_interval().low, rtol=1e-4)
    about = [found.attrs[name] for name in ("paired", "speakers_a", "speakers_b", "cells", "cell")]
    assert about == [0, 8, 8, 10, "label, intensity, statement"]


# ---------- probing


@pytest.mark.filterwarnings("error")
def test_validity_equals_scipy_within_speakers(monkeypatch):
    """Validity is the mean over speakers of scipy's rank correlation within each, with its t interval."""
    rng = np.random.default_rng(0)
    value, true = rng.standard_normal((9, 5, 2, 3)), rng.standard_normal((9, 5, 3))
    value[:, :, 1, 0], value[:, :, 1, 1] = np.exp(true[..., 0]), -(true[..., 1] ** 3)  # monotonic, rising and falling
    louder = 100 * np.arange(9.0)[:, None]  # over all clips, every one would rise
    value, true = value + louder[..., None, None], true + louder[..., None]
    value[4, 0, 0, 2], value[5, :3, 0, 1], value[6, :, 0, 0] = np.nan, np.nan, 1  # a clip, too few, constant

    def validity(speakers):
        names = np.repeat([f"s{i}" for i in range(9)], 5)[: 5 * speakers].astype(object)
        flat = {"value": (("clip", "layer", "proxy"), value.reshape(45, 2, 3)[: len(names)])}
        flat["true"] = ("clip", "proxy"), true.reshape(45, 3)[: len(names)]
        made = xr.Dataset(flat, {"speaker": ("clip", names)})
        monkeypatch.setattr(activation_proxies, "measure", lambda *_: made)
        return activation_proxies.validity(None, None, None)

    found = validity(9)
    assert found["mean"].dims == ("layer", "proxy")
    assert found["mean"][1, :2].values == pytest.approx([1, -1])
    assert found["n"].values.tolist() == [[8, 8, 9], [9, 9, 9]]
    each = [stats.spearmanr(v, t, nan_policy="omit").statistic for v, t in zip(value[:, :, 0, 2], true[..., 2])]
    assert found["mean"][0, 2] == pytest.approx(np.mean(each))
    expected = stats.ttest_1samp(each, 0).confidence_interval()
    assert (found["low"][0, 2], found["high"][0, 2]) == pytest.approx((expected.low, expected.high))
    few = validity(7)
    assert few["mean"].notnull().all() and few["low"].isnull().all()


# ---------- dissection


def test_selectivity_equals_scipy():
    """The p of `selectivity` is scipy's rank-sum p in one speaker, and over speakers at least that of the t test."""
    activations = voiced_neurons.emotional()
    found = dissection.selectivity(activations)
    rows = activations["speaker"].values == "s0"
    with pytest.warns(UserWarning, match="speakers are not known"):
        alone = dissection.selectivity(activations.isel(clip=np.flatnonzero(rows)).drop_vars("speaker"))
    one = activations.isel(clip=np.flatnonzero(rows)).sel(layer=1, neuron=9)
    own = one["label"].values == "calm"
    exact = stats.mannwhitneyu(one.values[own], one.values[~own], method="asymptotic", use_continuity=False)
    assert float(alone["p"].sel(layer=1, neuron=9, concept="calm")) == pytest.approx(exact.pvalue)
    assert np.isnan(alone["low"]).all()
    each = [
        float(
            dissection.selectivity(activations.isel(clip=activations["speaker"].values == name))["mean"].sel(
                layer=1, neuron=9, concept="calm"
            )
        )
        for name in np.unique(activations["speaker"])
    ]
    t = stats.ttest_1samp(each, 0.5).pvalue
    assert float(found["p"].sel(layer=1, neuron=9, concept="calm")) >= t - 1e-12


def test_by_layer_equals_scipy():
    """The trend over layers is scipy's linear regression, with its interval and p; over two layers it is NaN."""
    rng = np.random.default_rng(0)
    layers = np.arange(1, 7)
    said = rng.random((6, 40, 5)) < (0.2 + 0.1 * layers)[:, None, None]
    said = xr.DataArray(said, {"layer": layers, "adjective": list("abcde")}, ("layer", "neuron", "adjective"))
    found = open_concepts.by_layer(said)
    line = stats.linregress(layers, said.values.sum(2).mean(1))
    half = stats.t.ppf(0.975, 4) * line.stderr
    expected = [line.slope, line.slope - half, line.slope + half, line.pvalue, line.intercept]
    np.testing.assert_allclose([found[name] for name in ("slope", "low", "high", "p", "intercept")], expected)
    np.testing.assert_allclose(found["mean"], said.values.sum(2).mean(1))
    assert float(found["slope"]) == pytest.approx(0.5, abs=0.15) and float(found["low"]) > 0
    assert np.isnan(open_concepts.by_layer(said.sel(layer=[1, 2]))["slope"])


def test_check_equals_scipy_within_speakers():
    """The rho of `check` is the mean over speakers of scipy's over measured clips, with an interval over speakers."""
    measured = voiced_neurons.measured()
    activations = voiced_neurons.following(measured)
    found = open_concepts.check(activations, said_of(activations), measured, LEXICON, draws=1)
    for name, column, sign in (("loud", "level_db", 1), ("low-pitched", "f0", -1)):
        one, each = activations.sel(layer=2, neuron=4), []
        for speaker in np.unique(one["speaker"]):
            own = one.isel(clip=one["speaker"].values == speaker)
            pair = pd.DataFrame({"a": own.values, "b": measured.loc[own["clip"].values, column].to_numpy()}).dropna()
            each.append(sign * stats.spearmanr(pair["a"], pair["b"]).statistic)
        assert float(found["rho"].sel(layer=2, neuron=4, adjective=name)) == pytest.approx(np.mean(each))
    said = said_of(activations, loud=[(2, 4)])
    found = open_concepts.check(activations, said, measured, LEXICON, draws=1).sel(adjective="loud")
    level = [stats.spearmanr(activations.sel(layer=2, neuron=4)[rows], measured["level_db"][rows]).statistic
             for rows in (slice(i * PER, (i + 1) * PER) for i in range(SPEAKERS))]  # fmt: skip
    np.testing.assert_allclose([found[name] for name in ("mean", "low", "high")], statistics.interval(level))
    assert int(found["n"]) == SPEAKERS
