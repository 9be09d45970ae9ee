"""What every neuron of the feed-forwards does, beside a forward that nobody watches."""

from __future__ import annotations

import pytest
import torch
from transformers import ASTConfig, ASTForAudioClassification

from xai_lib import audio, models
from xai_lib.activations import activations


@pytest.fixture(scope="module")
def ast():
    """AST base in shape, 12 layers of 768 neurons and 1,214 patches, with random weights."""
    torch.manual_seed(0)
    network, labels = ASTForAudioClassification(ASTConfig(num_labels=8)), [str(i) for i in range(8)]
    told = {"name": "ast", "trained": "not trained: a benchmark", "preprocessor": {"mean": -4.3}, "device": "cpu"}
    return models.Model(network, labels=labels, **told)


@pytest.mark.parametrize("size", ["size of wavlm-base-plus, 3 s", "size of AST base, 10 s"])
def test_activations_equals_bare_forward(measure_in_turns, model, ast, noise, size):
    """Reading the activations of a file gives the logits of a bare forward of its samples; both are timed in turns."""
    watched, seconds = (model, 3) if "wavlm" in size else (ast, 10)
    clips = noise(seconds)
    waveform = watched.tensor(audio.read(clips["path"][0]))

    def ours():
        return activations(watched, clips)["logit"].values

    @torch.no_grad()
    def bare():
        return watched.network(watched.prepare(waveform)).logits.numpy()

    measure_in_turns(
        {"ours": ours, "bare forward": bare}, row=f"activations, {size}", asked="times faster 0.91 (1 / 1.10)"
    )
