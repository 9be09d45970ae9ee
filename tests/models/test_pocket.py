"""The bundled model: small, open to everyone, and as good on unseen speakers as its card says."""

from __future__ import annotations

import hashlib
import re

import pytest
import torch
from transformers import AutoModelForAudioClassification

from xai_lib import corpora, models, statistics
from xai_lib.models import checkpoints


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


def uar(model, clips):
    return statistics.uar(clips["label"], model.predict(clips)["label"])


def card(side):
    """UAR as the card tells it."""
    text = (checkpoints.POCKET / "README.md").read_text()
    return float(re.search(rf"{side} \| \d+ \| \**(0\.\d+)\**", text).group(1))


def test_pocket_is_small_and_equals_transformers(pocket, wave):
    """The bundled model has at most 3 million weights, the same logits in transformers alone, and the emotions."""
    network = AutoModelForAudioClassification.from_pretrained(checkpoints.POCKET).eval()
    assert sum(p.numel() for p in network.parameters()) <= 3e6
    assert (checkpoints.POCKET / "model.safetensors").stat().st_size <= 12e6
    x = torch.as_tensor(wave)[None]
    with torch.no_grad():
        assert torch.equal(network(x).logits, pocket.logits(x))
    assert pocket.labels == list(corpora.EMOTIONS)


def test_pocket_training_excludes_test_speakers(pocket):
    """Of the sample corpus and RAVDESS, only the training voices and actors 1 to 16 are training speakers."""
    heard = set(pocket.train_speakers)
    sample = corpora.load("sample")
    assert heard & set(sample["speaker"]) == set(sample.loc[sample["split"] == "train", "speaker"])
    assert {f"ravdess-{actor:02d}" for actor in range(1, 17)} == {s for s in heard if s.startswith("ravdess")}


def test_pocket_matches_its_card(pocket):
    """The card gives the hash of the weights, and the UARs that the configuration holds."""
    weights = (checkpoints.POCKET / "model.safetensors").read_bytes()
    assert hashlib.sha256(weights).hexdigest() in (checkpoints.POCKET / "README.md").read_text()
    said = pocket.network.config.xai_metrics
    for name, side in (("choose", "actors 17–18"), ("ravdess", "actors 19–20"), ("sample", "voices 17–24")):
        assert said[f"uar_{name}"] == pytest.approx(card(side), abs=6e-4)


@pytest.mark.full
def test_pocket_reaches_uar_of_card_on_sample(pocket):
    """On the test voices of the sample corpus the UAR is that of the card, and at least 0.60."""
    clips = corpora.load("sample").query("split == 'test'")
    found = uar(pocket, clips)
    assert found == pytest.approx(card("voices 17–24"), abs=0.01)  # a clip or two, on another processor
    assert found >= 0.60


@pytest.mark.real
@pytest.mark.full
def test_pocket_reaches_uar_of_card_on_ravdess(pocket, real):
    """On 120 clips of RAVDESS actors 19 and 20 the UAR is that of the card, and at least 0.55."""
    clips = corpora.load("ravdess", root=real / "ravdess").query("actor in (19, 20)")
    found = uar(pocket, clips)
    assert len(clips) == 120 and found == pytest.approx(card("actors 19–20"), abs=0.02)  # as above
    assert found >= 0.55
