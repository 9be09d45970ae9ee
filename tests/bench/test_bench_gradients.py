"""Gradients by every neuron of every layer at once, against Captum."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import GradientShap, LayerGradientXActivation, LayerIntegratedGradients

from xai_lib import attribution, audio, targets
from xai_lib.attribution import gradientshap

LAYERS = range(1, 13)


def places(model):
    """The last norm of each block gives what the block does, without the position bias, which is no activation."""
    return [block.final_layer_norm for block in model.architecture.layers]


def by_layer(found):
    """Captum's [1, frame, neuron] of each layer, summed over frames, and our signed scores: [layer, neuron]."""
    if isinstance(found, list):
        return torch.stack([hidden[0].detach().sum(dim=0) for hidden in found])
    return found["signed"][0]


@pytest.mark.parametrize("path", ["ours", "Captum, list of layers", "Captum, 12 calls"])
def test_grad_x_activation_equals_captum(measure, model, noise, threads, path):
    """Gradient times activation of 12 layers equals Captum's, of a list of layers or in 12 calls; each is timed."""
    clips = noise(1)
    x, at = model.tensor(audio.read(clips["path"][0])), places(model)
    run = {
        "ours": lambda: attribution.grad_x_activation(model, clips, target=3, layers=LAYERS),
        "Captum, list of layers": lambda: LayerGradientXActivation(model.logits, at).attribute(x, target=3),
        "Captum, 12 calls": lambda: [LayerGradientXActivation(model.logits, one).attribute(x, target=3) for one in at],
    }
    rounds = 2 if path == "Captum, 12 calls" else 7
    measure(run[path], row="gradient × activation, 12 layers, 1 s", path=path, rounds=rounds, same=by_layer)


@pytest.mark.parametrize("path", ["ours", "Captum, 12 calls"])
def test_integrated_gradients_equals_captum(measure, model, noise, threads, path):
    """Integrated gradients of 12 layers equal Captum's in 12 calls; both are timed."""
    clips, options = noise(0.33), {"target": 3, "baseline": "silence", "steps": 20}
    x = model.tensor(audio.read(clips["path"][0]))

    def captum():
        methods = [LayerIntegratedGradients(model.logits, place) for place in places(model)]
        return [method.attribute(x, torch.zeros_like(x), target=3, n_steps=20) for method in methods]

    def ours():
        return attribution.integrated_gradients(model, clips, layers=LAYERS, **options)

    row = "integrated gradients, 12 layers, 20 steps, 0.33 s"
    measure(ours if path == "ours" else captum, row=row, path=path, rounds=1, same=by_layer)


@pytest.mark.parametrize("path", ["ours", "Captum, waveform alone"])
def test_gradient_shap_equals_captum(measure, model, noise, threads, path):
    """GradientSHAP of frames equals Captum's of the waveform, under the same draws; both are timed."""
    clips, n = noise(0.33), 32
    x = model.tensor(audio.read(clips["path"][0]))
    told = {"steps": 8, "baseline": "noise", "key": targets.key(0, 0, "gradient_shap"), "rate": 16_000}

    def captum():
        alphas, others = gradientshap.draws(x[0], range(n), **told)
        with pytest.MonkeyPatch.context() as patch:  # Captum is given our draws
            patch.setattr(np.random, "uniform", lambda low, high, shape: alphas.numpy())
            patch.setattr(np.random, "choice", lambda count, size: np.arange(size))
            return GradientShap(model.logits).attribute(x, others, n_samples=n, stdevs=0.0, target=3)

    def ours():
        return attribution.gradient_shap(model, clips, target=3, n=n, layers="all")

    def by_frame(found):
        if not torch.is_tensor(found):
            return found["attribution"][0]
        return np.add.reduceat(found[0].detach().numpy(), np.arange(model.n_frames(x.shape[1])) * model.hop)

    row = "GradientSHAP of frames and all layers, 32 draws, 0.33 s"
    measure(ours if path == "ours" else captum, row=row, path=path, rounds=2, same=by_frame)
