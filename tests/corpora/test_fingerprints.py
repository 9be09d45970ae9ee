"""Fingerprints: alike for copies of one recording, and different for two takes of one sentence."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import soxr
from scipy import signal

from xai_lib import audio, corpora, models
from xai_lib.corpora import fingerprints
from xai_lib.models import checkpoints

COPY = fingerprints.COPY


def spoken(seed, seconds=2.0):
    """Noise whose level and colour change every tenth of a second, between silences of a fifth, 16 kHz."""
    rng = np.random.default_rng(seed)
    parts = []
    for _ in range(round(10 * seconds)):
        low = rng.uniform(100, 2500)
        band = signal.butter(2, [low, 1.5 * low], "bandpass", fs=16_000, output="sos")
        parts.append(rng.uniform(0.1, 1) * signal.sosfilt(band, rng.standard_normal(1600)))
    silence = np.zeros(3200)
    waveform = np.concatenate([silence, *parts, silence])
    return (0.5 * waveform / np.abs(waveform).max()).astype(np.float32)


def bits(one, other):
    found = fingerprints.distances([fingerprints.of_waveform(one)], [fingerprints.of_waveform(other)])
    return found[0, 0]


def copies(waveform):
    """The same recording in other forms."""
    at_48k = soxr.resample(waveform, 16_000, 48_000)
    yield "48 kHz and back", soxr.resample(at_48k, 48_000, 16_000)
    yield "8 kHz and back", soxr.resample(soxr.resample(waveform, 16_000, 8000), 8000, 16_000)
    yield "quieter, 16 bits", np.round(0.3 * waveform * 32767) / 32767
    yield "silence before", np.concatenate([np.zeros(123), waveform])
    yield "silence after", np.concatenate([waveform, np.zeros(400)])
    yield "ends cut off", waveform[80:-80]


@pytest.mark.parametrize("seed", range(5))
def test_of_waveform_matches_copies_only(seed):
    """Copies of a recording differ in at most `COPY` bits, and other recordings in more than three times as many."""
    waveform = spoken(seed)
    for name, copy in copies(waveform):
        assert bits(waveform, copy) <= COPY, name
    for other in range(5, 25):
        assert bits(waveform, spoken(other)) > 3 * COPY


@pytest.mark.parametrize("kind", ["wav", "flac", "mp3"])
def test_of_file_matches_across_formats(tmp_path, kind):
    """A stereo file at 48 kHz in WAV, FLAC or MP3 matches the fingerprint of the 16 kHz waveform."""
    path = tmp_path / f"renamed.{kind}"
    at_48k = soxr.resample(spoken(1), 16_000, 48_000)
    soundfile.write(path, np.stack([at_48k, at_48k], axis=1), 48_000)
    found = fingerprints.of_file(path)
    assert len(found) == fingerprints.BITS // 4 and int(found, 16)
    assert fingerprints.distances([found], [fingerprints.of_waveform(spoken(1))])[0, 0] <= COPY


def test_same_sound_compares_samples(tmp_path):
    """`same_sound` accepts an inverted, quieter, cut copy, but no noise of equal envelope, silence or broken file."""
    paths = [tmp_path / name for name in ("a.wav", "b.flac", "c.wav", "bad.wav", "silent.wav")]
    other_noise = np.random.default_rng(9).standard_normal(len(spoken(1)))
    envelope = signal.fftconvolve(np.abs(spoken(1)), np.ones(400) / 400, "same")
    for path, waveform in zip(paths, (spoken(1), -0.3 * spoken(1)[200:], 0.3 * envelope * other_noise)):
        soundfile.write(path, waveform, 16_000)
    paths[3].write_bytes(b"not sound")
    soundfile.write(paths[4], np.zeros(8000), 16_000)
    assert [fingerprints.same_sound(paths[0], path) for path in paths] == [True, True, False, False, False]


def test_of_file_rereads_changed_files(tmp_path):
    """The fingerprint of a file is computed again after the file has changed."""
    path = tmp_path / "a.wav"
    soundfile.write(path, spoken(1), 16_000)
    first = fingerprints.of_file(path)
    soundfile.write(path, spoken(2, seconds=3), 16_000)
    assert fingerprints.of_file(str(path)) != first


def test_of_waveform_is_none_for_tones_and_silence(tmp_path):
    """Steady tones, silence and unreadable files have no fingerprint, and missing fingerprints match nothing."""
    tones = [np.sin(2 * np.pi * hertz * np.arange(16_000) / 16_000) for hertz in (440, 880)]
    assert [fingerprints.of_waveform(x) for x in (*tones, np.zeros(16_000))] == [None] * 3
    (tmp_path / "bad.wav").write_bytes(b"not sound")
    files = [tmp_path / "bad.wav", tmp_path / "lacking.wav"]
    found = fingerprints.of_files(pd.Series(files, index=[4, 2]))
    assert found.index.tolist() == [4, 2] and found.isna().all()
    assert not (fingerprints.distances(found, found) <= COPY).any()


def test_distances_counts_bits():
    """`distances` counts the bits in which two fingerprints differ."""
    zero, one, all_ones = "0" * 32, "0" * 31 + "5", "f" * 32
    assert fingerprints.distances([zero, one], [zero, all_ones]).tolist() == [[0, 128], [2, 126]]


def test_write_round_trips_through_read(tmp_path):
    """`read` returns the fingerprints that `write` has stored, and None where there is no such table."""
    assert fingerprints.read(tmp_path) is None
    rows = [("0" * 31 + "7", "trained", "1"), ("1" * 32, "head", "b"), (None, "trained", "c")]
    fingerprints.write(pd.DataFrame(rows, columns=fingerprints.COLUMNS), tmp_path)
    read = fingerprints.read(tmp_path)
    assert sorted(map(tuple, read.to_numpy())) == sorted(rows[:2])
    pd.DataFrame({"path": ["a.wav"]}).to_csv(tmp_path / "recordings.csv")  # somebody's own
    assert fingerprints.read(tmp_path) is None


@pytest.mark.heavy
def test_trained_recordings_match_sample_split():
    """Recordings known to the bundled model match the sample's training clips and none of its test clips."""
    recordings = models.load("pocket", device="cpu").trained_recordings
    assert recordings["use"].value_counts().to_dict() == {"trained": 1790, "selected": 120}
    trained = recordings.loc[recordings["use"] == "trained", "speaker"]
    assert set(trained) == set(models.load("pocket", device="cpu").train_speakers)
    assert set(recordings.loc[recordings["use"] == "selected", "speaker"]) == {"ravdess-17", "ravdess-18"}
    sample = corpora.load("sample").groupby("split").head(40)
    found = fingerprints.distances(fingerprints.of_files(sample["path"]), recordings["fingerprint"]) <= COPY
    np.testing.assert_array_equal(found.any(axis=1), sample["split"] == "train")
    assert (checkpoints.POCKET / fingerprints.FILE).stat().st_size < 200_000


@pytest.mark.real
def test_distances_separates_real_recordings(real):
    """Copies of RAVDESS clips match, and of two actors' takes only one pair, of one recording, is nearly alike."""
    clips = corpora.load("ravdess", root=real / "ravdess").query("actor in (1, 7)").reset_index(drop=True)
    found = fingerprints.of_files(clips["path"])
    between = fingerprints.distances(found, found)
    pairs = np.argwhere(np.triu(between <= 2 * COPY, 1))
    names = [sorted(Path(clips["path"][row]).stem for row in pair) for pair in pairs]
    assert names == [["03-01-03-01-02-01-07", "03-01-03-01-02-02-07"]]  # two files of one recording
    for waveform in map(audio.read, clips["path"][::12]):
        for name, copy in copies(waveform):
            assert bits(waveform, copy) <= COPY, name


@pytest.mark.real
def test_trained_recordings_name_real_speakers(real):
    """Real RAVDESS clips match recordings of their own speaker up to actor 18, and no recording beyond."""
    table = fingerprints.read(checkpoints.POCKET)
    clips = corpora.load("ravdess", root=real / "ravdess").groupby("actor").head(2)
    alike = fingerprints.distances(fingerprints.of_files(clips["path"]), table["fingerprint"]) <= COPY
    for speaker, actor, row in zip(clips["speaker"], clips["actor"], alike):
        assert set(table["speaker"][row]) == ({speaker} if actor <= 18 else set())
