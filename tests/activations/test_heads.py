from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

from xai_lib import audio, heads, models
from xai_lib.corpora import fingerprints
from xai_lib.corpora.filenames import EMOTIONS
from xai_lib.workbook import inputs

pytestmark = pytest.mark.heavy

LABELS = ("sad", "angry", "calm")


@pytest.fixture(scope="module")
def corpus(make_clips, tmp_path_factory):
    """Six speakers, three classes that differ in brightness and in nothing else."""

    def hum(place, rng):
        noise = rng.standard_normal(3200)
        tone = np.sin(2 * np.pi * (300, 1200, 3000)[place % 3] * np.arange(3200) / 16_000)
        return 0.1 * (tone + 0.3 * noise)

    return make_clips(
        tmp_path_factory.mktemp("corpus"),
        36,
        signal=hum,
        seed=0,
        subtype="PCM_16",
        names=lambda i: f"{i // 6}-{i % 6}.wav",
        label=LABELS * 12,
        speaker=lambda i: f"s{i // 6}",
    )


def planted(classes=3, speakers=10, seed=0, strength=3.0):
    """Features of two layers: only layer 5 tells the classes apart; every speaker has an offset of their own."""
    rng = np.random.default_rng(seed)
    label = np.tile(np.arange(classes), speakers * 4)
    speaker = np.repeat(np.arange(speakers), classes * 4)
    x = rng.standard_normal((len(label), 2, 12)) + 2 * rng.standard_normal((speakers, 1, 12))[speaker]
    x[np.arange(len(label)), 1, label] += strength
    coords = {
        "clip": np.arange(len(label)),
        "layer": [2, 5],
        "neuron": np.arange(12),
        "label": ("clip", np.array(EMOTIONS)[label].astype(object)),
        "speaker": ("clip", np.array([f"s{s}" for s in speaker], dtype=object)),
    }
    return xr.DataArray(x, coords, ("clip", "layer", "neuron"))


def test_features_are_means_over_frames(tiny, corpus):
    """Features are means of the hidden states over frames."""
    model = tiny("large")
    found = heads.features(model, corpus.head(3), layers=[0, 3])
    x = model.tensor(audio.read(corpus["path"][2]))
    states = model.network(model.prepare(x), output_hidden_states=True).hidden_states
    for layer in (0, 3):
        expected = states[layer][0].mean(0).cpu().numpy()
        np.testing.assert_allclose(found.sel(clip=2, layer=layer), expected, atol=1e-5)


def test_cross_validate_finds_informative_layer():
    """The layer that separates the classes is selected, with a UAR above 0.7; shuffled labels are at chance."""
    report = heads.cross_validate(planted())
    assert (report["selected"] == 5).all()
    assert report["uar"] > 0.7 and report["uar_layer"].sel(layer=5) > 0.7
    assert report["uar_layer"].sel(layer=2) < 0.5 and report["chance"] == pytest.approx(1 / 3)
    assert report["uar_shuffled"].mean() == pytest.approx(1 / 3, abs=0.1)
    assert report["confusion"].sum() == report.sizes["clip"]
    truth, predicted = report["label"].values, report["predicted"].values
    assert float(report["uar"]) == pytest.approx(np.mean([np.mean(predicted[truth == t] == t) for t in set(truth)]))


def test_cross_validate_is_at_chance_without_signal():
    """Without a signal the unweighted average recall is at chance."""
    report = heads.cross_validate(planted(strength=0.0))
    assert abs(float(report["uar"]) - 1 / 3) < 0.13


@pytest.mark.full
def test_cross_validate_selects_layer_without_test_fold():
    """Of 40 noise layers, chosen without the test fold, the UAR is below 0.5 (about 0.65 if chosen on it)."""
    rng = np.random.default_rng(0)
    data = planted(strength=0.0, speakers=5)
    noise = rng.standard_normal((data.sizes["clip"], 40, 3))
    data = xr.DataArray(
        noise,
        {
            "clip": data["clip"],
            "layer": range(40),
            "neuron": range(3),
            "label": data["label"],
            "speaker": data["speaker"],
        },
        data.dims,
    )
    assert float(heads.cross_validate(data, shuffles=0)["uar"]) < 0.5


def test_cross_validate_separates_speakers():
    """No speaker is in two folds: labels fixed by speaker cannot be predicted for new speakers."""
    data = planted(speakers=12, strength=0.0)
    own = np.random.default_rng(1).integers(0, 3, 12)
    names = np.array(EMOTIONS)[own].astype(object)
    speaker = np.array([int(s[1:]) for s in data["speaker"].values])
    report = heads.cross_validate(data.assign_coords(label=("clip", names[speaker])), folds=4, shuffles=0)
    assert float(report["uar"]) < 0.7  # a leak would give 1: the offsets identify each speaker


def test_fit_saves_standard_checkpoint(tiny, tiny_folder, corpus, tmp_path):
    """A fitted head is a checkpoint that transformers opens with the same logits, and is never overwritten."""
    for size in ("base", "large"):
        model = tiny(size)
        read = heads.features(model, corpus)
        fitted, report = heads.fit(model, read, tmp_path / size, folds=3)
        layer = fitted.network.config.xai_metrics["layer"]
        direct = heads._head(0.1).fit(read.sel(layer=layer).values, read["label"].values)
        expected = pd.DataFrame(direct.predict_log_proba(read.sel(layer=layer).values), columns=direct.classes_)
        wave = audio.read(corpus["path"][4])
        plain = AutoModelForAudioClassification.from_pretrained(tmp_path / size).eval()
        inputs = AutoFeatureExtractor.from_pretrained(tmp_path / size)(wave, sampling_rate=16_000, return_tensors="pt")
        with torch.no_grad():
            logits = plain(**inputs).logits
            ours = fitted.logits(fitted.tensor(wave)).cpu()
        assert torch.allclose(ours, logits, atol=1e-4)
        assert fitted.labels == ["calm", "sad", "angry"]
        assert logits.log_softmax(-1)[0].tolist() == pytest.approx(expected.loc[4, fitted.labels].tolist(), abs=1e-3)
        fitted.require_trained()
        assert fitted.head_train_speakers == [f"s{i}" for i in range(6)] and fitted.train_speakers is None
        assert fitted.network.config.xai_metrics["uar"] == pytest.approx(float(report["uar"]), abs=1e-3)
        with pytest.raises(FileExistsError, match="there is a model in"):
            heads.fit(model, read, tmp_path / size)


def test_fit_warns_of_speaker_leakage(tiny, corpus, tmp_path):
    """Fitting a head warns of speakers on whom the encoder was trained."""
    model = tiny()
    model.train_speakers = ["s1", "s2", "x"]
    with pytest.warns(UserWarning, match="trained on 2 of these 6 speakers"):
        heads.fit(model, corpus, tmp_path / "heard", layers=[1], folds=3)


def test_fit_records_training_recordings(tiny, corpus, tmp_path):
    """A fitted model lists the recordings of its head and encoder by fingerprint; from features it lists none."""
    model = tiny()
    assert model.trained_recordings is None
    rows = [(fingerprints.of_file(corpus["path"][0]), "trained", "ravdess-01"), ("0" * 32, "selected", "ravdess-02")]
    model.trained_recordings = pd.DataFrame([*rows, ("1" * 32, "head", "x")], columns=fingerprints.COLUMNS)
    model.train_speakers = ["ravdess-01"]
    with pytest.warns(UserWarning, match="trained on 1 of these 6 speakers"):
        fitted, _ = heads.fit(model, corpus, tmp_path / "head", layers=[1], folds=3)
    table = fitted.trained_recordings
    assert sorted(map(tuple, table[table["use"] != "head"].to_numpy())) == sorted(rows)  # not what another head heard
    own = table[table["use"] == "head"]
    assert set(own["speaker"]) == set(corpus["speaker"])
    assert set(own["fingerprint"]) == set(fingerprints.of_files(corpus["path"]))
    renamed = corpus.assign(speaker=corpus["speaker"].str.replace("s", "P"))
    assert inputs.describe_test_speakers(fitted, renamed).endswith("; the head was trained on 6")
    alone, _ = heads.fit(tiny(), heads.features(tiny(), corpus, layers=[1]), tmp_path / "features", folds=3)
    assert alone.trained_recordings is None  # features do not say of which files they are


def test_fit_supports_two_classes(tiny, corpus, tmp_path):
    """A head of two classes predicts the probabilities of the classifier that it was made from."""
    two = corpus[corpus["label"] != "calm"]
    model = tiny()
    fitted, _ = heads.fit(model, two, tmp_path / "two", layers=[1, 3], folds=3)
    read = heads.features(model, two, layers=[fitted.network.config.xai_metrics["layer"]])[:, 0]
    direct = heads._head(0.1).fit(read.values, read["label"].values)
    table = fitted.predict(two)
    expected = pd.DataFrame(direct.predict_proba(read.values), columns=direct.classes_, index=two.index)
    np.testing.assert_allclose(table[["sad", "angry"]].astype(float), expected[["sad", "angry"]], atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.drop_vars("speaker"), "every clip needs its speaker"),
        (lambda d: d.assign_coords(label=("clip", [None] * d.sizes["clip"])), "every clip needs its label"),
        (lambda d: d[d["label"].values == "calm"], "two classes or more, and all clips are calm"),
        (
            lambda d: d[np.isin(d["speaker"].values, ["s1", "s2"])],
            "5 folds need at least as many speakers, and there are 2",
        ),
    ],
)
def test_cross_validate_refuses_unfit_clips(change, message):
    """Missing speakers or labels, a single class, and fewer speakers than folds are refused."""
    with pytest.raises(ValueError, match=message):
        heads.cross_validate(change(planted()))


def test_fit_accepts_encoder_without_head(tiny_folder, corpus, tmp_path):
    """A head can be fitted to an encoder that has none, and the model then predicts known labels."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMModel

    WavLMModel.from_pretrained(tiny_folder("base")).save_pretrained(tmp_path / "encoder")
    Wav2Vec2FeatureExtractor(do_normalize=False).save_pretrained(tmp_path / "encoder")
    encoder = models.load(tmp_path / "encoder")
    assert encoder.trained is None
    fitted, _ = heads.fit(encoder, corpus, tmp_path / "fitted", folds=3)
    assert "metrics" in fitted.trained and fitted.predict(corpus.head(2))["label"].isin(LABELS).all()


def test_fit_refuses_other_architectures(corpus, tmp_path):
    """A head for a model other than a WavLM is refused, and no folder is left."""
    with pytest.raises(ValueError, match="a head can only be fitted to a WavLM, and pocket-ast is none"):
        heads.fit(models.load("pocket-ast", device="cpu"), corpus, tmp_path / "head")
    assert not (tmp_path / "head").exists()
