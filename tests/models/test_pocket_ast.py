"""The bundled AST: small, open to everyone, as good on unseen clips as its card says."""

from __future__ import annotations

import hashlib
import re
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

DATA = Path(__file__).parents[2] / "data"
sys.path.insert(0, str(DATA / "recipes"))

import pocket_ast

pytestmark = pytest.mark.heavy

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


def test_pocket_ast_is_small_and_opens_in_transformers(network, extract):
    """The bundled AST has at most 3 million weights and ten labels, and runs with transformers alone."""
    assert sum(p.numel() for p in network.parameters()) <= 3e6
    assert (FOLDER / "model.safetensors").stat().st_size <= 12e6
    assert network.config.num_hidden_layers >= 4
    assert [network.config.id2label[i] for i in range(10)] == LABELS
    noise = np.random.default_rng(0).normal(0, 0.1, 80_000).astype(np.float32)
    inputs = extract(noise, sampling_rate=16_000, return_tensors="pt")
    assert inputs["input_values"].shape == (1, network.config.max_length, network.config.num_mel_bins)
    with torch.inference_mode():
        assert network(**inputs).logits.isfinite().all()


def test_pocket_ast_matches_its_card(network):
    """The card gives the hash and the accuracy of the bundled AST, which was trained on folds 1 to 4."""
    assert hashlib.sha256((FOLDER / "model.safetensors").read_bytes()).hexdigest() in (FOLDER / "README.md").read_text()
    assert network.config.xai_metrics["accuracy_fold5"] == pytest.approx(card_accuracy(), abs=6e-4)
    assert network.config.xai_train_speakers == ["esc10-fold-1", "esc10-fold-2", "esc10-fold-3", "esc10-fold-4"]


@pytest.mark.real
@pytest.mark.full
def test_pocket_ast_reaches_accuracy_of_card(network, extract, real):
    """On the 80 clips of the unseen fold 5 the accuracy is that of the card, and at least 0.80."""
    clips = pocket_ast.corpus(real / "esc10")
    table = pocket_ast.scores(network, extract, clips[clips["fold"] == 5])
    assert len(table) == 80
    accuracy = (table["label"] == table["predicted"]).mean()
    assert accuracy == pytest.approx(card_accuracy(), abs=0.013)  # one clip may fall otherwise on another processor
    assert accuracy >= 0.80


@pytest.mark.real
def test_corpus_keeps_recordings_within_folds(real):
    """ESC-10 has 400 clips of the ten labels, and all clips of a recording are in one fold."""
    clips = pocket_ast.corpus(real / "esc10")
    assert clips["label"].unique().tolist() == LABELS and len(clips) == 400
    assert (clips.groupby("recording")["fold"].nunique() == 1).all()


def test_corpus_refuses_folder_without_clips(tmp_path):
    """A folder that holds no clips of ESC-10 is refused with FileNotFoundError."""
    with pytest.raises(FileNotFoundError, match="is not ESC-10, or not there"):
        pocket_ast.corpus(tmp_path)


def test_logits_of_all_patches_equal_network(network):
    """With a share of 1.0, all patches, the recipe's `logits` equal those of the network."""
    inputs = torch.randn(2, network.config.max_length, network.config.num_mel_bins)
    with torch.inference_mode():
        assert torch.allclose(pocket_ast.logits(network, inputs, 1.0), network(inputs).logits, atol=1e-4)
