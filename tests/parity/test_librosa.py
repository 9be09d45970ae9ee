"""Sound is read and measured as librosa does."""

from __future__ import annotations

import librosa
import numpy as np
import pytest
import soundfile
import torch
from speechlike import RATE, speech

from xai_lib import audio, corpora


def test_read_equals_librosa(tmp_path):
    """Reading a file resamples it from 22.05 to 16 kHz as librosa does with soxr."""
    y = np.random.default_rng(0).normal(size=22050).astype(np.float32) * 0.1
    soundfile.write(tmp_path / "a.wav", y, 22050, subtype="FLOAT")
    ours, theirs = (audio.read(tmp_path / "a.wav"), librosa.load(tmp_path / "a.wav", sr=RATE, res_type="soxr_hq")[0])
    np.testing.assert_allclose(ours, theirs[: len(ours)], atol=1e-6)


@pytest.mark.parametrize("width", [400, 1024])
def test_features_equal_librosa(width):
    """RMS, envelope, zero crossings and, where there is sound, the spectral centroid equal librosa's."""
    for x in (speech(), np.random.default_rng(1).normal(size=9000).astype(np.float32) * 0.1):
        got = {k: v.numpy() for k, v in audio.features(torch.as_tensor(x), frame_length=width).items()}
        padded = np.pad(x, ((width - 400) // 2, width))
        n = len(got["rms"])
        at = {"frame_length": width, "hop_length": 320, "center": False}
        rms = librosa.feature.rms(y=padded, **at)[0, :n]
        np.testing.assert_allclose(got["rms"], rms, rtol=1e-6)
        np.testing.assert_allclose(
            got["envelope"],
            np.abs(librosa.util.frame(padded, frame_length=width, hop_length=320)).max(0)[:n],
            rtol=1e-6,
        )
        np.testing.assert_array_equal(
            got["zcr"], librosa.feature.zero_crossing_rate(padded, **at)[0, :n].astype(np.float32)
        )
        centroid = librosa.feature.spectral_centroid(y=padded, sr=RATE, n_fft=width, hop_length=320, center=False)[
            0, :n
        ]
        heard = rms > 1e-3
        assert heard.sum() > 25 and np.abs(got["centroid"] - centroid)[heard].max() < 0.01


@pytest.mark.full
@pytest.mark.real
def test_features_f0_agrees_with_pyin(real):
    """On real speech F0 differs from pYIN's by less than 0.5 % at the median, and by over 5 % in few frames."""
    clips = corpora.balanced(corpora.load("ravdess", real / "ravdess"), 12, seed=3)
    off, both, theirs = [], 0, 0
    for _, x in audio.stream(clips):
        f0 = audio.features(torch.as_tensor(x), names=("f0",))["f0"].numpy()
        reference, _, _ = librosa.pyin(
            np.pad(x, (312, 1024)), fmin=60, fmax=800, sr=RATE, frame_length=1024, hop_length=320, center=False
        )
        reference, speech_ = reference[: len(f0)], audio.speech_mask(x)
        voiced = np.isfinite(f0) & np.isfinite(reference) & speech_
        off.append(np.abs(f0[voiced] / reference[voiced] - 1))
        both, theirs = both + voiced.sum(), theirs + (np.isfinite(reference) & speech_).sum()
    off = np.concatenate(off)
    assert np.median(off) < 0.005 and np.mean(off < 0.05) > 0.95 and np.mean(off > 0.4) < 0.01
    assert both / theirs > 0.7  # pyin calls more frames voiced
