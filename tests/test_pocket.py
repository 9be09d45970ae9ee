"""The bundled model: small, open to everyone, and as good on unseen speakers as its card says."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoModelForAudioClassification

from xai_lib import checkpoints, corpora, models, statistics


@pytest.fixture(scope="module")
def pocket():
    return models.load("pocket", device="cpu")


def uar(model, clips):
    return statistics.uar(clips["label"], model.predict(clips)["label"])


def test_it_is_small_and_opens_without_us(pocket, wave):
    network = AutoModelForAudioClassification.from_pretrained(checkpoints.POCKET).eval()
    assert sum(p.numel() for p in network.parameters()) <= 3e6
    assert (checkpoints.POCKET / "model.safetensors").stat().st_size <= 12e6
    x = torch.as_tensor(wave)[None]
    with torch.no_grad():
        assert torch.equal(network(x).logits, pocket.logits(x))
    assert pocket.labels == list(corpora.EMOTIONS)


def test_its_training_left_out_the_speakers_it_is_tested_on(pocket):
    heard = set(pocket.trained_on)
    sample = corpora.load("sample")
    assert heard & set(sample["speaker"]) == set(sample.loc[sample["split"] == "train", "speaker"])
    assert {f"ravdess-{actor:02d}" for actor in range(1, 17)} == {s for s in heard if s.startswith("ravdess")}


def test_unseen_voices_of_the_sample_corpus(pocket):
    clips = corpora.load("sample").query("split == 'test'")
    said = pocket.network.config.xai_metrics["uar_sample"]
    assert uar(pocket, clips) == pytest.approx(said, abs=0.01) and said > 0.5


@pytest.mark.real
def test_unseen_actors_of_ravdess(pocket, real):
    clips = corpora.load("ravdess", root=real / "ravdess").query("actor in (19, 20)")
    said = pocket.network.config.xai_metrics["uar_ravdess"]
    assert uar(pocket, clips) == pytest.approx(said, abs=0.01) and said > 0.3
