"""What trains the bundled WavLM: teachers who never judge whom they have heard, windows in which all stays in place."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from sklearn.linear_model import Ridge
from sklearn.metrics import recall_score

sys.path.insert(0, str(Path(__file__).parents[2] / "data" / "recipes"))

import pocket_speech
import pocket_teacher
import pocket_wavlm
import pocket_wavlm_card
import pocket_windows
import prosody
import training

from xai_lib import audio, corpora, statistics

pytestmark = pytest.mark.heavy

RATE, HOP = 16_000, 320


@pytest.fixture
def small(monkeypatch):
    """Teachers of few kernels."""
    monkeypatch.setattr(pocket_teacher, "TEACHER", {**pocket_teacher.TEACHER, "banks": 2, "kernels": 20, "ridge": 1.0})


@pytest.fixture
def prepared(tmp_path):
    """The files of `pocket_speech.prepare`, of tones in noise: 16 actors to learn from, one to choose on, one who reads."""
    rng = np.random.default_rng(0)
    clips = []
    for actor in [*range(1, 17), 17, None]:
        for label in corpora.EMOTIONS:
            source = {None: "librispeech"}.get(actor, "ravdess")
            tone = np.sin(2 * np.pi * rng.uniform(100, 300) * np.arange(RATE) / RATE) * (np.arange(RATE) < RATE // 2)
            wave = (0.3 * tone + 0.1 * rng.normal(size=RATE)).astype(np.float32)
            told = {"source": source, "speaker": f"{source}-{actor}", "label": label if actor else None, "actor": actor}
            clips.append(pocket_speech._clip(wave, **told))
    waves, f0 = ([clip.pop(name) for clip in clips] for name in ("wave", "f0"))
    table = pd.DataFrame(clips)
    table["length"] = [len(wave) for wave in waves]
    table["start"] = table["length"].cumsum() - table["length"]
    table["f0_start"] = np.cumsum([0, *map(len, f0)])[:-1]
    for name in prosody.FACTORS:
        table[name] = np.nan
    table.attrs["made"] = "for a test"
    np.save(tmp_path / "waves.npy", np.concatenate(waves))
    np.save(tmp_path / "f0.npy", np.concatenate(f0))
    return table, tmp_path


def test_ridge_equals_scikit_learn(small):
    """`ridge` predicts what scikit-learn's `Ridge` predicts with classes weighted equally."""
    rng = np.random.default_rng(0)
    x, labels = rng.normal(3, 2, size=(80, 30)), rng.integers(8, size=80)
    slope, constant = pocket_teacher.ridge(x, labels)
    mean, deviation = x.mean(axis=0), x.std(axis=0)
    weight = (1 / np.bincount(labels))[labels]
    weight *= len(labels) / weight.sum()
    z, y = (x - mean) / deviation, 2.0 * np.eye(8)[labels] - 1
    # Ours keeps the plain mean of the features where scikit-learn takes the weighted one: give it no intercept of its own.
    middle = (weight[:, None] * y).sum(axis=0) / weight.sum()
    theirs = Ridge(alpha=1.0, fit_intercept=False).fit(z, y - middle, sample_weight=weight).predict(z) + middle
    np.testing.assert_allclose(x @ slope + constant, theirs, atol=1e-4)


def test_judge_frames_average_to_clip(small):
    """A teacher's scores of frames average to its score of the whole clip."""
    rng = np.random.default_rng(0)
    x, kernels = rng.normal(size=(50, 36)).astype(np.float32), [pocket_teacher.bank(0)]
    slope, constant = rng.normal(size=(80, 8)).astype(np.float32), rng.normal(size=8).astype(np.float32)
    (by_frame,) = pocket_teacher._judge([x], [[(slope, constant)]], kernels)
    whole = pocket_teacher._means([x], kernels)[0][0] @ slope + constant
    assert by_frame.shape == (50, 8)
    np.testing.assert_allclose(by_frame.astype(float).mean(axis=0), whole, atol=0.02)


def test_teach_leaves_own_fold_out(small, prepared):
    """Each actor is scored by teachers fitted without that actor's fold, so scores of pure noise stay near chance."""
    table, folder = prepared
    taught = pocket_teacher.teach(table, folder, jobs=1)
    assert taught.attrs["uar"]["training"] < 0.3  # chance is 0.125; on what they have heard they are right
    scores = np.load(folder / "scores.npy").astype(float)
    first = taught[taught["actor"] == 1].index
    fresh = {}
    for side in ("left out", "heard"):
        clips = table[(table["source"] == "ravdess") & (table["actor"] <= 16)]
        clips = clips[(clips["actor"] - 1) % 8 != 0] if side == "left out" else clips
        x = pocket_teacher._inputs_of(table[table["source"] != ""].to_dict("records"), folder)
        some = np.concatenate([one for one, side in zip(x[::9], table["actor"][::9]) if side != 17])
        x = [(one - some.mean(axis=0)) / some.std(axis=0) for one in x]
        kernels = [pocket_teacher.bank(seed) for seed in range(2)]
        features = np.stack(pocket_teacher._means(x, kernels), axis=1)
        labels = np.array([corpora.EMOTIONS.index(name) for name in clips["label"]])
        teachers = [pocket_teacher.ridge(one[clips.index], labels) for one in features]
        fresh[side] = pocket_teacher._judge([x[i] for i in first], [teachers] * len(first), kernels)
    for row, left_out, heard in zip(taught.loc[first].to_dict("records"), fresh["left out"], fresh["heard"]):
        kept = scores[row["score_start"] :][: row["score_length"]]
        np.testing.assert_allclose(kept, left_out, atol=0.02)
        assert np.abs(kept - heard).max() > 0.1


def test_teach_refuses_other_settings(small, prepared, monkeypatch):
    """`teach` refuses a folder with scores of teachers of other settings."""
    table, folder = prepared
    pocket_teacher.teach(table, folder, jobs=1)
    monkeypatch.setitem(pocket_teacher.TEACHER, "ridge", 5.0)
    with pytest.raises(ValueError, match="other teachers"):
        pocket_teacher.teach(table, folder, jobs=1)


def test_teach_refuses_other_speech(small, prepared):
    """`teach` refuses a folder with scores of other speech."""
    table, folder = prepared
    pocket_teacher.teach(table, folder, jobs=1)
    table.attrs["made"] = "of other recordings"
    with pytest.raises(ValueError, match="other speech"):
        pocket_teacher.teach(table, folder, jobs=1)


@pytest.fixture
def recordings(tmp_path, monkeypatch, espeak):
    """RAVDESS of 20 actors and a reader, a file each: prepare(actors) prepares them with nothing else."""
    read = tmp_path / "read" / "1-2-3.flac"
    read.parent.mkdir()
    soundfile.write(read, 0.1 * np.random.default_rng(0).standard_normal(RATE), RATE)
    rows = []
    for actor in range(1, 21):
        path = tmp_path / f"{actor}.wav"
        soundfile.write(path, 0.1 * np.random.default_rng(actor).standard_normal(RATE), RATE)
        rows.append({"path": str(path), "label": "sad", "speaker": f"ravdess-{actor:02d}", "actor": actor})
    real, nothing = pd.DataFrame(rows), corpora.load("sample").query("split == 'train'")[:1]
    monkeypatch.setattr(pocket_speech, "SPEECH", {**pocket_speech.SPEECH, "altered": 1, "synthetic": 0})

    def prepare(actors):
        selected = {"ravdess": real[real["actor"].isin(actors)], "sample": nothing}
        monkeypatch.setattr(corpora, "load", lambda name, root=None: selected[name])
        return pocket_speech.prepare(None, read.parent, tmp_path / "speech", jobs=1)

    return prepare, real


def test_prepare_leaves_out_reported_actors(recordings):
    """`prepare` leaves out actors 19 and 20, alters only actors 1–16, and reads its files the second time."""
    prepare, _ = recordings
    table = prepare(range(1, 21))
    assert set(table.loc[table["source"] == "ravdess", "actor"]) == set(range(1, 19))
    assert set(table.loc[table["variant"] > 0, "actor"]) == set(range(1, 17))
    pd.testing.assert_frame_equal(prepare(range(1, 21)), table)  # from the files


def test_prepare_refuses_missing_actors_and_other_recordings(recordings):
    """`prepare` refuses a corpus that lacks actors, and a folder prepared from other recordings."""
    prepare, real = recordings
    with pytest.raises(ValueError, match=r"lacks actors \[19, 20\]"):
        prepare(range(1, 19))
    prepare(range(1, 21))
    soundfile.write(real["path"][3], np.zeros(RATE // 2), RATE)
    with pytest.raises(ValueError, match="other recordings"):
        prepare(range(1, 21))


def test_write_card_reports_results(tmp_path):
    """The card has the UAR and recalls of the given predictions, the hash of the weights, and a training figure."""
    rng, emotions = np.random.default_rng(0), list(corpora.EMOTIONS)

    def said(speakers, right):
        labels = np.tile(emotions, 4 * len(speakers))
        other = rng.choice(emotions, len(labels))
        predicted = np.where(rng.random(len(labels)) < right, labels, other)
        return pd.DataFrame({"speaker": np.repeat(speakers, 32), "label": labels, "predicted": predicted})

    tables = {
        "choose": said(["ravdess-17", "ravdess-18"], 0.9),
        "ravdess": said(["ravdess-19", "ravdess-20"], 0.7),
        "sample": said([f"sample-{voice}" for voice in range(17, 25)], 0.5),
    }
    curve = {"emotion": 1.0, "bands": 1.0, "frames": 1.0, "clips": 1.0, "uar": 0.5}
    histories = {name: training.History([curve] * 2, 2, 60.0) for name in ("listen", "learn")}
    heard = pd.DataFrame({"source": ["ravdess", "ravdess", "sample", "synthetic", "librispeech"], "variant": 0})
    heard["speaker"], heard["actor"] = ["a", "b", "c", "d", "e"], [1, 17, np.nan, np.nan, np.nan]
    heard.attrs["uar"] = {"training": 0.6, "choosing": 0.6}
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    pocket_wavlm_card.write_card(tmp_path, torch.nn.Linear(2, 2), tables, histories, heard, 3, "4 cores")
    text = (tmp_path / "README.md").read_text()
    uar = {name: statistics.uar(table["label"], table["predicted"]) for name, table in tables.items()}
    assert f"actors 19–20 | 64 | **{uar['ravdess']:.3f}**" in text
    assert f"voices 17–24 | 256 | **{uar['sample']:.3f}**" in text
    recalls = recall_score(tables["ravdess"]["label"], tables["ravdess"]["predicted"], labels=emotions, average=None)
    assert f"| disgust | {recalls[6]:.2f} |" in text
    one = tables["sample"][tables["sample"]["speaker"] == "sample-20"]
    assert f"20 {statistics.uar(one['label'], one['predicted']):.2f}" in text
    assert hashlib.sha256(b"weights").hexdigest() in text and (tmp_path / "training.png").stat().st_size > 1000


def test_speech_window_aligns_sound_f0_and_scores(small, prepared, monkeypatch):
    """In a window of `Speech`, sound, F0 and scores agree to half a frame, and the window lies over the speech."""
    table, folder = prepared
    table["score_start"], table["score_length"], table["score_first"] = table["f0_start"], 49, 0
    table["first"], table["last"], table["gain"] = 6400, 9600, 1.0
    frames = len(np.load(folder / "f0.npy"))
    np.save(folder / "f0.npy", (100 + np.arange(frames) % 49).astype(np.float16))  # a frame's number, in Hz
    np.save(folder / "scores.npy", np.repeat((np.arange(frames) % 49)[:, None], 8, axis=1).astype(np.float16))
    table["f0_start"] = table["score_start"] = np.arange(len(table)) * 49
    still = {"speed": 0.0, "gain_db": 0.0, "judged_gain_db": 0.0, "room": 0.0, "noise": 0.0, "noise_db": (1.0, 2.0)}
    monkeypatch.setattr(pocket_windows, "AUGMENT", still)
    speech = pocket_windows.Speech(table, folder)
    row, rng = speech.rows[3], np.random.default_rng(0)
    whole = speech.waves[row["start"] :][: row["length"]].astype(np.float32) / 32767
    for _ in range(20):
        x, clean, f0, scores = speech.window(row, 8000, rng)
        assert len(x) == 8000 and len(f0) == len(scores) == (8000 - 400) // HOP + 1
        np.testing.assert_array_equal(x, clean)
        place = np.correlate(whole, x, "valid").argmax()
        np.testing.assert_allclose(whole[place:][:8000], x, atol=1e-6)
        assert np.abs(scores[:, 0] * HOP - (place + np.arange(len(f0)) * HOP)).max() <= HOP / 2
        np.testing.assert_array_equal(f0 - 100, scores[:, 0])
        assert place <= row["first"] + RATE // 10 and place + 8000 >= row["last"] - RATE // 10


def test_speech_window_has_no_f0_beyond_clip(small, prepared):
    """Beyond the end of a clip, F0 of a window is 0, also where another clip follows in the file."""
    table, folder = prepared
    frames = len(np.load(folder / "f0.npy")) // len(table)
    np.save(folder / "f0.npy", np.full(frames * len(table), 200, np.float16))
    np.save(folder / "scores.npy", np.zeros((1, 8), np.float16))
    table["score_start"], table["score_length"], table["score_first"] = -1, 0, 0
    speech = pocket_windows.Speech(table, folder)
    for row in (speech.rows[0], speech.rows[-1]):  # before another clip, and at the end of the file
        f0 = speech.window(row, 3 * RATE, np.random.default_rng(0))[2]
        assert 0 < (f0 > 0).sum() <= frames + 3  # slower by 6 % at most


def test_speech_window_scales_f0_with_speed(small, prepared, monkeypatch):
    """F0 of a window at varied speed is that measured in its sound; scores are NaN for clips that have none."""
    table, folder = prepared
    np.save(folder / "f0.npy", np.full(len(np.load(folder / "f0.npy")), 200, np.float16))
    np.save(folder / "scores.npy", np.zeros((1, 8), np.float16))
    table["score_start"], table["score_length"], table["score_first"] = -1, 0, 0
    t = np.arange(RATE) / RATE
    tone = np.tile((0.5 * np.sin(2 * np.pi * 200 * t) * 32767).astype(np.int16), len(table))
    np.save(folder / "waves.npy", tone)
    monkeypatch.setattr(pocket_windows, "AUGMENT", {**pocket_windows.AUGMENT, "speed": 0.2, "noise": 0.0, "room": 0.0})
    speech = pocket_windows.Speech(table, folder)
    said = []
    for seed in range(5):
        x, _, f0, scores = speech.window(speech.rows[0], 8000, np.random.default_rng(seed))
        assert np.isnan(scores).all()
        heard = audio.features(torch.from_numpy(x)[None], RATE)["f0"][0].numpy()
        said.append(np.median(f0[f0 > 0]))
        assert np.nanmedian(heard) == pytest.approx(said[-1], rel=0.02)
    assert np.ptp(said) > 20


def test_altered_changes_f0_and_keeps_level():
    """`altered` changes the F0 of a voice, keeps its power within 2 %, and its duration within 25 %."""
    t = np.arange(RATE) / RATE
    voice = np.sign(np.sin(2 * np.pi * 150 * t)) * 0.1 * np.hanning(RATE)
    voice = voice.astype(np.float32)
    others = [pocket_speech.altered(voice, np.random.default_rng(seed)) for seed in range(6)]
    pitches = [np.nanmedian(audio.features(torch.from_numpy(x)[None], RATE)["f0"][0]) for x in others]
    assert np.ptp(np.log2(pitches)) > 0.1 and all(60 < pitch < 400 for pitch in pitches)
    for other in others:
        assert np.mean(other**2) == pytest.approx(np.mean(voice**2), rel=0.02)
        assert 0.8 < len(other) / len(voice) < 1.25


def test_loss_is_finite_without_factors(small, prepared):
    """The loss is finite and can be differentiated where no clip of a batch has prosodic factors."""
    table, folder = prepared
    taught = pocket_teacher.teach(table, folder, jobs=1)
    speech = pocket_windows.Speech(
        taught.assign(source=taught["source"].where(taught["actor"] != 2, "synthetic")), folder
    )
    module = torch.nn.ModuleDict({"network": pocket_wavlm.untrained(), "readers": pocket_wavlm.Readers()})
    plan = {**pocket_wavlm.LEARN, "steps": 1, "batch": {"ravdess": 2, "synthetic": 2, "librispeech": 2}}
    speech.pools["ravdess"] = [speech.pools["ravdess"][0]] * 2
    (batch,) = speech.batches(plan, 1, np.random.default_rng(0))
    total, parts = pocket_wavlm.loss(module, batch, plan=plan, device="cpu")
    assert torch.isfinite(total) and parts["factors"] == 0 and parts["frames"] > 0
    total.backward()
