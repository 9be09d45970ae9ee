"""A neuron that is wired to carry loudness: what moves when it is turned over, and what stays."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from scipy import signal, stats

from xai_lib import ablation, audio, hooks, models, statistics
from xai_lib.probing import acoustic_decoders

pytestmark = [pytest.mark.heavy, pytest.mark.full]

LOUD, LAYER, SEEDS = 7, 3, 4
STILL = ["zcr", "centroid", "f0", "f0_delta"]


def buzzes(folder, seed):
    """Clips of 18 speakers whose level, pitch and brightness are drawn independently of one another."""
    rng, rows = np.random.default_rng(seed), []
    for voice in range(18):
        for place in range(6 if voice < 10 else 2):
            level, pitch, bright = rng.uniform(-30, -10), rng.uniform(90, 260), rng.uniform(800, 4000)
            at = np.arange(9600) / 16000
            phase = np.cumsum(pitch * (1 + 0.08 * np.sin(2 * np.pi * rng.uniform(2, 4) * at))) / 16000
            wave = signal.lfilter(*signal.butter(1, bright, fs=16000), 2 * (phase % 1) - 1)
            wave = wave * (1 + 0.5 * np.sin(2 * np.pi * rng.uniform(2, 5) * at + rng.uniform(0, 6)))
            wave = 10 ** (level / 20) * wave / np.std(wave) + 1e-5 * rng.standard_normal(len(wave))
            path = folder / f"{voice}-{place}.wav"
            soundfile.write(path, wave.clip(-1, 1), 16000, subtype="FLOAT")
            rows.append({"path": str(path), "label": "sad", "speaker": f"s{voice:02}"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    """Of each seed R² [later, feature] and the effects [mode, later, feature]."""
    model, waves, every = models.load("pocket", device="cpu"), [], []
    prepare = model.prepare
    model.prepare = lambda x: waves.append(x) or prepare(x)

    def plant(hidden):
        rms = audio.features(waves[-1], 16000, names=("rms",))["rms"].to(hidden)
        hidden[..., LOUD] = 20 * torch.log10(rms + 1e-6) / 10 + 5
        return hidden

    for seed in range(SEEDS):
        clips = buzzes(tmp_path_factory.mktemp("factors"), seed)
        train, test = clips[clips["speaker"] < "s10"], clips[clips["speaker"] >= "s10"]
        with hooks.edit(model, {LAYER: plant}):
            fitted, activation_stats = acoustic_decoders.fit(model, train), ablation.activation_stats(model, train[::3])
            valid = acoustic_decoders.validity(model, test, fitted)[
                "training"
            ]  # few clips: a speaker's own mean says little
            swept = ablation.sweep(
                model,
                test,
                ablation.Selection({LAYER: [LOUD]}),
                controls=ablation.RandomControls(activation_stats, n=40),
                edit=ablation.Edit(("flip", "zero")),
                readouts=[ablation.Decoders(fitted)],
            )
        after = {"layer": LAYER, "readout_layer": slice(LAYER + 1, None)}
        random = ablation.control_values(swept["decoded_change"].sel(after), "random")
        draws = statistics.by_speaker(random).mean("speaker")
        spread = 1.48 * np.abs(draws - draws.median("random")).median(
            "random"
        )  # whatever the few do that are the neuron itself
        effect = ablation.effect_over_speakers(swept, "decoded_change", **after).assign(spread=spread)
        every.append((valid.sel(layer=after["readout_layer"]), effect))
    return every


@pytest.mark.parametrize("seed", range(SEEDS))
def test_sweep_of_planted_neuron_lowers_decoded_level(found, seed):
    """Flipping or zeroing a loudness neuron lowers the decoded level, and moves other features under half as much."""
    valid, effect = found[seed]
    assert (valid.sel(feature="level") > 0.9).all() and (valid.sel(feature=["zcr", "f0"]) > 0.8).all()
    size = np.abs(effect["mean"] - effect["random_mean"]) / effect["spread"]
    assert (size.sel(feature="level") > 6).all()
    assert (effect["p_random"].sel(feature="level") < 0.1).all()  # of 36 of its size one is drawn in 40 sets, or two
    assert (effect["mean"].sel(feature="level") < -5).all()  # dB: it was loud, and is not
    assert (size.sel(feature=STILL) < size.sel(feature="level") / 2).all()


def test_sweep_of_planted_neuron_spares_independent_features(found):
    """Independent features move no more often than by chance; one layer and mode count, as others read the same."""
    p = np.array([effect["p_random"].sel(mode="flip", readout_layer=LAYER + 1, feature=STILL) for _, effect in found])
    beyond = int((p < 0.05).sum())
    assert p.size == 4 * SEEDS and stats.binomtest(beyond, p.size, 0.05, alternative="greater").pvalue > 0.01
