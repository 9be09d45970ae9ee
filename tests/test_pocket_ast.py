"""The bundled AST: small, open to everyone, as good on unseen clips as its card says; and the loop that trained it."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

DATA = Path(__file__).parents[1] / "data"
sys.path.insert(0, str(DATA))

import pocket_ast
import training

FOLDER = DATA / "pocket-ast"
LABELS = [
    "dog bark",
    "rain",
    "sea waves",
    "baby cry",
    "clock tick",
    "person sneeze",
    "helicopter",
    "chainsaw",
    "rooster",
    "fire crackling",
]


@pytest.fixture(scope="module")
def network():
    return AutoModelForAudioClassification.from_pretrained(FOLDER).eval()


@pytest.fixture(scope="module")
def extract():
    return AutoFeatureExtractor.from_pretrained(FOLDER)


def card_accuracy():
    return float(re.search(r"fold 5 \| 80 \| \*\*(0\.\d+)\*\*", (FOLDER / "README.md").read_text()).group(1))


def test_it_is_small_and_opens_without_us(network, extract):
    assert sum(p.numel() for p in network.parameters()) <= 3e6
    assert (FOLDER / "model.safetensors").stat().st_size <= 12e6
    assert network.config.num_hidden_layers >= 4
    assert [network.config.id2label[i] for i in range(10)] == LABELS
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    inputs = extract(noise, sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_values"].shape == (1, network.config.max_length, network.config.num_mel_bins)
    with torch.inference_mode():
        assert network(**inputs).logits.isfinite().all()


def test_its_card_is_of_these_weights(network):
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in (FOLDER / "README.md").read_text()
    assert network.config.xai_metrics["accuracy_fold5"] == pytest.approx(card_accuracy(), abs=6e-4)
    assert network.config.xai_trained_on == ["esc10-fold-1", "esc10-fold-2", "esc10-fold-3", "esc10-fold-4"]


@pytest.mark.real
def test_unseen_clips(network, extract, real):
    clips = pocket_ast.corpus(real / "esc10")
    table = pocket_ast.scores(network, extract, clips[clips["fold"] == 5])
    assert len(table) == 80
    accuracy = (table["label"] == table["predicted"]).mean()
    assert accuracy == pytest.approx(card_accuracy(), abs=0.013)  # one clip may fall otherwise on another processor
    assert accuracy >= 0.80


@pytest.mark.real
def test_no_recording_is_on_both_sides(real):
    clips = pocket_ast.corpus(real / "esc10")
    assert clips["label"].unique().tolist() == LABELS and len(clips) == 400
    assert (clips.groupby("source")["fold"].nunique() == 1).all()


def test_a_folder_without_clips_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="not ESC-10"):
        pocket_ast.corpus(tmp_path)


def test_leaving_out_no_patch_is_the_network_itself(network):
    inputs = torch.randn(2, network.config.max_length, network.config.num_mel_bins)
    with torch.inference_mode():
        assert torch.allclose(pocket_ast.logits(network, inputs, 1.0), network(inputs).logits, atol=1e-4)


def fit(checkpoint, *, epochs=3, kill=None, scores=None, **options):
    """Train a tiny network with dropout on noise; `kill` is the step at which it is killed."""
    torch.manual_seed(0)
    module = nn.Sequential(nn.Linear(3, 8), nn.Dropout(0.5), nn.BatchNorm1d(8), nn.Linear(8, 2))
    seen = []

    def loss(module, batch):
        seen.append(batch)
        if len(seen) == kill:
            raise KeyboardInterrupt
        return (module(torch.from_numpy(batch)) - 1).square().mean(), {"size": len(batch)}

    said = iter(scores or [])
    history = training.fit(
        module,
        lambda rng: (rng.normal(size=(4, 3)).astype(np.float32) for _ in range(5)),
        loss,
        steps=5,
        epochs=epochs,
        learning_rate=0.05,
        weight_decay=0.01,
        average=0.8,
        checkpoint=checkpoint,
        settings={"sizes": (3, 8, 2)},
        after=(lambda module: {"score": next(said)}) if scores else None,
        best="score" if scores else None,
        **options,
    )
    return module, history


def same(one, other):
    return all(torch.equal(x, y) for x, y in zip(one.state_dict().values(), other.state_dict().values(), strict=True))


def test_killed_and_started_again_it_ends_at_the_same_weights(tmp_path):
    straight, history = fit(tmp_path / "straight.pt")
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed.pt", kill=8)  # in the second of three epochs
    resumed, again = fit(tmp_path / "killed.pt")
    assert same(straight, resumed)
    assert again.curve == history.curve and len(again.curve) == again.epoch == 3
    assert all(row["size"] == pytest.approx(4) for row in again.curve)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["killed.pt", "straight.pt"]
    finished, _ = fit(tmp_path / "killed.pt", kill=1)  # nothing is left to do
    assert same(finished, straight)


def test_another_seed_is_another_training(tmp_path):
    assert not same(fit(tmp_path / "0.pt")[0], fit(tmp_path / "1.pt", seed=1)[0])


def test_the_best_epoch_is_kept_the_later_of_equals(tmp_path):
    chosen, history = fit(tmp_path / "chosen.pt", scores=[0.2, 0.7, 0.7, 0.1], epochs=4)
    assert history.epoch == 3 and [row["score"] for row in history.curve] == [0.2, 0.7, 0.7, 0.1]
    with pytest.raises(KeyboardInterrupt):
        fit(tmp_path / "killed.pt", epochs=4, kill=16, scores=[0.2, 0.7, 0.7])
    at_three = torch.load(tmp_path / "killed.pt", weights_only=True)["average"]
    assert all(torch.equal(value, at_three[name]) for name, value in chosen.state_dict().items())
    resumed, history = fit(tmp_path / "killed.pt", epochs=4, scores=[0.1])
    assert history.epoch == 3 and same(resumed, chosen)


def test_other_settings_are_refused(tmp_path):
    fit(tmp_path / "training.pt")
    with pytest.raises(ValueError, match="other settings.*epochs 3, now 4"):
        fit(tmp_path / "training.pt", epochs=4)
    with pytest.raises(ValueError, match="seed 0, now 1"):
        fit(tmp_path / "training.pt", seed=1)
