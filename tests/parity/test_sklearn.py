"""Probes, spaces, decoders and measures of ranks and recognition equal scikit-learn's."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import voiced_neurons
from handmade import angry_contrast, manners, probed
from scipy import stats
from scipy.optimize import brentq
from sklearn.decomposition import PCA
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.metrics import balanced_accuracy_score, recall_score, roc_auc_score, roc_curve
from sklearn.model_selection import PredefinedSplit, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from voiced_neurons import PER, SPEAKERS

from xai_lib import ablation, activations, audio, dissection, hooks, statistics
from xai_lib.attribution.class_contrast import compare
from xai_lib.dissection import open_concepts
from xai_lib.probing import acoustic_decoders, activation_proxies, linear_probes, speaker_space

# ---------- statistics


def test_auroc_equals_scikit_learn():
    """AUROC equals scikit-learn's, also with ties, along either axis and with the groups swapped."""
    rng = np.random.default_rng(0)
    a, b = rng.integers(0, 5, size=(9, 4)) + 1.0, rng.integers(0, 5, size=(14, 4))  # with ties
    truth = np.r_[np.ones(9), np.zeros(14)]
    want = [roc_auc_score(truth, column) for column in np.vstack([a, b]).T]
    np.testing.assert_allclose(statistics.auroc(a, b), want)
    np.testing.assert_allclose(statistics.auroc(b.T, a.T, axis=1), 1 - np.array(want))
    assert statistics.auroc([2, 3], [0, 1]) == 1 and statistics.auroc([1.0], [1.0, 1.0]) == 0.5


# ---------- class_contrast


@pytest.mark.parametrize(("a", "b"), [("angry", None), ("angry", "happy"), ("neutral", "angry"), ("neutral", None)])
def test_compare_equals_scikit_learn_and_scipy(a, b):
    """The AUROC of `compare` is scikit-learn's and Cohen's d is scipy's t rescaled, over the clips compared."""
    made = angry_contrast()
    found, label = compare(made, "label", a, b), made["label"].values
    keep = np.isin(label, [a, b]) if b else np.full(len(label), True)
    if a == "neutral":  # nobody is neutral strongly
        keep &= made["intensity"].values == "normal"
    first, x = label[keep] == a, made["activation"].values[keep].astype(float)
    m, n = first.sum(), (~first).sum()
    t = stats.ttest_ind(x[first], x[~first]).statistic
    np.testing.assert_allclose(found["cohens_d"], t * np.sqrt(1 / m + 1 / n))
    for layer, neuron in np.ndindex(2, 5):
        want = roc_auc_score(first, x[:, layer, neuron])
        assert found["auroc"].values[layer, neuron] == pytest.approx(want, abs=1e-12)
    assert found.attrs["b"] == (b or "the rest") and found.attrs["part"] == "ffn_hidden"
    assert (found.attrs["clips_a"], found.attrs["clips_b"]) == (m, n)


# ---------- ablation


def test_recognition_equals_scikit_learn(tiny, emotional_buzzes):
    """Recognition is scikit-learn's recall of each emotion that is a label of the model, with their mean."""
    clips, labels = emotional_buzzes, ("angry", "sad", "calm")
    neurons = {layer: [1, 4 + layer, 17] for layer in range(4)}
    model = tiny()
    odd = clips.iloc[12:].assign(label=["angry"] * 7 + ["sad"] * 3 + ["calm"] * 2 + ["bored"] * 3)  # of unequal numbers
    stats = ablation.activation_stats(model, clips.iloc[:3])
    controls = ablation.RandomControls(stats, n=2, target_blind=False)
    found = ablation.sweep(model, odd, ablation.Selection(neurons), controls=controls)
    known = found.isel(clip=slice(12)).sel(layer=2, mode="flip")
    truth = [model.labels.index(name) for name in known["emotion"].values]
    numbers = [model.labels.index(label) for label in labels]
    scores = ablation.recognition(found)
    assert scores["neuron_set"].values.tolist() == ["selected", "random 1", "random 2"]
    for neuron_set in scores["neuron_set"].values:
        said = known["logits"].sel(neuron_set=neuron_set).argmax("label").values
        each = recall_score(truth, said, labels=numbers, average=None, zero_division=0)
        here = scores.sel(layer=2, mode="flip", neuron_set=neuron_set)
        assert here["recall"].sel(emotion=list(labels)).values == pytest.approx(each)
        assert here["uar"].item() == pytest.approx(each.mean())
    assert set(scores["emotion"].values) == set(labels) and scores["clean_uar"].shape == ()


# ---------- linear_probes


@pytest.mark.heavy
def test_layer_probes_equal_scikit_learn_for_each_speaker():
    """For each speaker the accuracy of `layer_probes` is that of scikit-learn's logistic regression, balanced."""
    train, test = probed([manners]), probed([manners], first=8, seed=1)
    rng = np.random.default_rng(2)  # so that not all is right
    train, test = (
        side.assign(clip_mean=side["clip_mean"] + 3 * rng.standard_normal(side["clip_mean"].shape))
        for side in (train, test)
    )
    found = linear_probes.layer_probes(train, test, components=None)["accuracy"].sel(task="emotion", layer=0)
    scaler = StandardScaler().fit(train["clip_mean"].values[:, 0])
    probe = LogisticRegression(C=0.1, max_iter=2000)  # as many clips of each emotion
    probe.fit(scaler.transform(train["clip_mean"].values[:, 0]), train["label"].values.astype(str))
    said = probe.predict(scaler.transform(test["clip_mean"].values[:, 0]))
    for speaker in np.unique(test["speaker"].values):
        rows = test["speaker"].values == speaker
        expected = balanced_accuracy_score(test["label"].values[rows].astype(str), said[rows])
        assert found.sel(speaker=speaker) == pytest.approx(expected)
    assert 0.15 < float(found.mean()) < 0.95


# ---------- acoustic_decoders


def test_acoustic_decoders_equal_ridge_regressions(tiny, gliding_voices):
    """Decoders equal scikit-learn's ridge regressions, of strengths chosen by folds that keep speakers apart."""
    features = [*acoustic_decoders.FEATURES]
    model, clips = tiny(), gliding_voices[:15]
    fitted, seen, true, split = acoustic_decoders.fit(model, clips), [], [], []
    names = np.random.default_rng(0).permutation(clips["speaker"].unique())
    folds = clips["speaker"].map({name: i % 3 for i, name in enumerate(names)})
    for index, waveform in audio.stream(clips):
        with torch.no_grad(), hooks.capture(model, 1) as kept:
            model.logits(model.tensor(waveform))
        seen.append(kept[hooks.Site(1)][0].cpu().double().numpy())
        true.append(acoustic_decoders.truth(model, waveform).T)
        split += [folds[index]] * len(true[-1])
    seen, true, at = np.concatenate(seen), np.concatenate(true), fitted.sel(layer=1)
    assert fitted.attrs["frames"] == np.isfinite(true[:, 0]).sum() < 6000
    for i, name in enumerate(features):
        there = np.isfinite(true[:, i])
        x, y, apart = seen[there], true[there, i], PredefinedSplit(np.array(split)[there])
        tried = [make_pipeline(StandardScaler(), Ridge(one)) for one in acoustic_decoders.STRENGTHS]
        errors = [((cross_val_predict(one, x, y, cv=apart) - y) ** 2).sum() for one in tried]
        assert at["strength"][i] == acoustic_decoders.STRENGTHS[np.argmin(errors)]
        best = tried[int(np.argmin(errors))].fit(x, y)
        assert x @ at["weight"][i].values + at["bias"][i].item() == pytest.approx(best.predict(x), abs=1e-3)
        assert fitted["mean"][i] == pytest.approx(y.mean())


# ---------- activation_proxies


def test_activation_proxies_equal_principal_component_analysis(tiny, coloured_clips):
    """Fitted proxies have the first component, centre and explained variance of scikit-learn's PCA."""
    clips = coloured_clips
    model = tiny()
    fitted = activation_proxies.fit(model, clips)
    seen = {site: [] for site in model.sites()}
    for _, waveform in audio.stream(clips, 16000):
        with torch.no_grad(), hooks.capture(model, model.sites()) as kept:
            model.logits(model.tensor(waveform))
        for site, hidden in kept.items():
            seen[site].append(hidden[0].double().cpu().numpy())
    for site, frames in seen.items():
        found, frames = fitted.sel(layer=site.layer), np.concatenate(frames)
        pca = PCA(1).fit(frames)
        assert abs(found["component"].values @ pca.components_[0]) == pytest.approx(1, abs=1e-5)
        assert found["centre"].values == pytest.approx(pca.mean_, abs=1e-5)
        assert found["explained"].item() == pytest.approx(pca.explained_variance_ratio_[0], rel=1e-4)
    assert fitted.attrs["frames"] == len(frames)


# ---------- speaker_space


def test_speaker_space_equals_linear_discriminant_analysis(tiny, voices):
    """The projection of `speaker_space` is that of scikit-learn's linear discriminant analysis with shrinkage."""
    model, clips = tiny(), voices[:12]
    fitted = speaker_space.fit(model, clips)
    assert (
        fitted["projection"].shape == (4, 3, 24)
        and json.loads(fitted.attrs["speakers"]) == clips["speaker"][::3].tolist()
    )
    x = activations.activations(model, clips, "hidden_state")["activation"].values
    for layer in range(4):
        lda = LinearDiscriminantAnalysis(solver="eigen", shrinkage="auto").fit(
            x[:, layer].astype(float), clips["speaker"]
        )
        centre = np.mean([x[i : i + 3, layer].mean(axis=0) for i in range(0, 12, 3)], axis=0)
        assert fitted["centre"][layer].values == pytest.approx(centre, abs=1e-5)
        found = (x[:, layer] - centre) @ fitted["projection"][layer].values.T
        expected = lda.transform(x[:, layer]) - lda.transform(centre[None])
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-3)


@pytest.mark.parametrize("spread", [0.5, 2, 20])
def test_speaker_space_error_rate_equals_roc_crossing(spread):
    """The equal error rate is where both errors of scikit-learn's ROC curve are equal, also with ties."""
    rng = np.random.default_rng(0)
    same = rng.random(400) < 0.2
    cosines = np.round(same + spread * rng.standard_normal(400), 1)  # with ties
    false, true, _ = roc_curve(same, cosines)
    expected = brentq(lambda x: 1 - x - np.interp(x, false, true), 0, 1)
    assert speaker_space._eer(same, cosines)[0] == pytest.approx(expected, abs=1e-9)
    assert speaker_space._eer(same, same)[0] == 0 and speaker_space._eer(same, -1.0 * same)[0] == 1
    assert speaker_space._eer(same, np.zeros(400)) == (0.5, 0)


# ---------- dissection


def test_selectivity_equals_scikit_learn_within_speakers():
    """The mean of `selectivity` is scikit-learn's AUROC within each speaker, averaged over speakers."""
    activations = voiced_neurons.emotional()
    found = dissection.selectivity(activations)["mean"].sel(layer=1, neuron=7, concept="sad")
    one, each = activations.sel(layer=1, neuron=7), []
    for name in np.unique(one["speaker"]):
        rows = one["speaker"].values == name
        each.append(roc_auc_score(one["label"].values[rows] == "sad", one.values[rows]))
    assert float(found) == pytest.approx(np.mean(each))


def test_predictivity_auroc_equals_scikit_learn_within_speakers():
    """The predictivity of neurons is scikit-learn's AUROC within speakers, with an interval over speakers."""
    measured = voiced_neurons.measured()
    activations, described = voiced_neurons.following(measured), voiced_neurons.described()
    captions = voiced_neurons.captions(activations, measured)
    found = open_concepts.predictivity_auroc(activations, described, captions, draws=199)
    scores = captions.map({"a loud voice": 1, "a quiet voice": -1}).fillna(0)
    for neuron, sign in ((0, 1), (1, -1)):
        each = []
        for i in range(SPEAKERS):
            rows = slice(i * PER, (i + 1) * PER)
            own = activations.sel(layer=1, neuron=neuron)[rows].values
            each.append(roc_auc_score(own >= np.sort(own)[-3], sign * 2 * scores.iloc[rows]))
        here = found.sel(layer=1, neuron=neuron)
        np.testing.assert_allclose([here[name] for name in ("auroc", "low", "high")], statistics.interval(each))
        assert float(here["p"]) < 1 / 200 and int(here["n"]) == SPEAKERS and float(here["auroc"]) > 0.7
    assert np.isnan(found["auroc"].sel(layer=1, neuron=4)) and np.isnan(found["auroc"].sel(layer=2, neuron=29))
    np.testing.assert_allclose(found["q"], statistics.fdr(found["p"]))
    assert float((found["p"].sel(layer=2) < 0.05).mean()) < 0.15 and float(
        found["auroc"].sel(layer=2).mean()
    ) == pytest.approx(0.5, abs=0.05)
