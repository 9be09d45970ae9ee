"""A neuron that is wired to carry loudness: what moves when it is turned over, and what stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy import signal

from xai_lib import ablation, audio, decoders, hooks, models

LOUD, LAYER = 7, 3


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    """Buzzes of 18 speakers whose level, pitch and brightness are drawn independently of one another."""
    folder, rng, rows = tmp_path_factory.mktemp("factors"), np.random.default_rng(0), []
    for who in range(18):
        for place in range(5 if who < 10 else 3):
            level, pitch, bright = rng.uniform(-30, -10), rng.uniform(90, 260), rng.uniform(800, 4000)
            at = np.arange(9600) / 16000
            phase = np.cumsum(pitch * (1 + 0.08 * np.sin(2 * np.pi * rng.uniform(2, 4) * at))) / 16000
            wave = signal.lfilter(*signal.butter(1, bright, fs=16000), 2 * (phase % 1) - 1)
            wave = wave * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * at + rng.uniform(0, 6)))
            wave = 10 ** (level / 20) * wave / np.std(wave) + 1e-5 * rng.standard_normal(len(wave))
            path = folder / f"{who}-{place}.wav"
            soundfile.write(path, wave.clip(-1, 1), 16000, subtype="FLOAT")
            rows.append({"path": str(path), "label": "sad", "speaker": f"s{who:02}"})
    return pd.DataFrame(rows)


def test_turning_it_over_moves_the_decoded_level_and_nothing_that_is_independent_of_it(clips, monkeypatch):
    model, waves = models.load("pocket", device="cpu"), []
    prepare = model.prepare
    monkeypatch.setattr(model, "prepare", lambda x: waves.append(x) or prepare(x))

    def plant(hidden):
        rms = audio.features(waves[-1], 16000, names=("rms",))["rms"].to(hidden)
        hidden[..., LOUD] = 20 * torch.log10(rms + 1e-6) / 10 + 5
        return hidden

    train, test = clips[clips["speaker"] < "s10"], clips[clips["speaker"] >= "s10"]
    with hooks.edit(model, {LAYER: plant}):
        fitted, moments = decoders.fit(model, train), ablation.moments(model, train)
        track = decoders.validity(model, test, fitted)
        found = ablation.sweep(
            model,
            test,
            neurons={LAYER: [LOUD]},
            modes=("flip", "zero"),
            moments=moments,
            decoders=fitted,
            nulls=30,
            nearest=30,
        )
    still, later = ["zcr", "centroid", "f0", "f0_delta"], slice(LAYER + 1, None)
    assert (track["mean"].sel(layer=later, feature=["level", "zcr", "centroid", "f0"]) > 0.8).all()
    for mode in ("flip", "zero"):
        effect = ablation.summary(found, "decoded_change", mode=mode, layer=LAYER, later=later)
        size = np.abs(effect["mean"] - effect["null_mean"]) / (effect["null_high"] - effect["null_mean"])
        assert (size.sel(feature="level") > 3).all() and (effect["p_null"].sel(feature="level") < 1e-3).all()
        assert (effect["mean"].sel(feature="level") < -5).all()  # dB: it was loud, and is not
        assert (effect["p_null"].sel(feature=still) > 0.05).all() and (size.sel(feature=still) < 1).all()
