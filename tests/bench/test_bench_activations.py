"""What every neuron of the feed-forwards does, beside a forward that nobody watches: at most a tenth longer."""

from __future__ import annotations

from time import perf_counter

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


@pytest.fixture(params=["size of wavlm-base-plus, 3 s", "size of AST base, 10 s"])
def pair(request, model, ast, noise):
    """Its name, and two functions: ours from the file on, and the bare forward of what was read; both give logits."""
    which, seconds = (model, 3) if "wavlm" in request.param else (ast, 10)
    clips = noise(seconds)
    x = which.tensor(audio.read(clips["path"][0]))

    @torch.no_grad()
    def bare():
        return which.network(which.prepare(x)).logits.numpy()

    return request.param, lambda: activations(which, clips)["logit"].values, bare


@pytest.mark.parametrize("path", ["ours", "bare forward"])
def test_bench_activations(measure, pair, path):
    name, ours, bare = pair
    measure({"ours": ours, "bare forward": bare}[path], row=f"activations, {name}", path=path, same=lambda x: x)


def test_bench_activations_cost_a_tenth_at_most(pair):
    """The quickest of five, in turns: other work on the machine only ever slows."""
    _, *both = pair
    quickest = [float("inf")] * 2
    for _ in range(5):
        for place, function in enumerate(both):
            start = perf_counter()
            function()
            quickest[place] = min(quickest[place], perf_counter() - start)
    assert quickest[0] <= 1.1 * quickest[1], quickest
