"""Recognising three seconds on one core: the pocket models against a network of the size of wavlm-base-plus."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from transformers import AutoModelForAudioClassification, WavLMConfig, WavLMForSequenceClassification

from xai_lib.models import checkpoints

CLIP = 0.1 * torch.from_numpy(np.random.default_rng(0).standard_normal((1, 48_000), dtype=np.float32))


@pytest.fixture
def one_core():
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.mark.parametrize("path", ["ours", "size of wavlm-base-plus"])
def test_pocket_is_timed_on_one_core(measure, one_core, path):
    """The pocket model gives eight logits, and is timed on one core against one of the size of wavlm-base-plus."""
    if path == "ours":
        network = AutoModelForAudioClassification.from_pretrained(checkpoints.POCKET)
    else:
        network = WavLMForSequenceClassification(WavLMConfig(num_labels=8))
    network.eval()

    def forward():
        with torch.no_grad():
            return network(CLIP).logits

    assert forward().shape == (1, 8)
    measure(forward, row="pocket-wavlm, forward of 3 s on one core", path=path, rounds=10)
