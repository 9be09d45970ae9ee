"""Attributions equal Captum's: gradients of every neuron, GradientSHAP, responses to segments of the input."""

from __future__ import annotations

from contextlib import nullcontext
from itertools import pairwise

import numpy as np
import pytest
import torch
from captum.attr import (
    GradientShap,
    IntegratedGradients,
    LayerGradientXActivation,
    LayerIntegratedGradients,
    NeuronFeatureAblation,
)
from torch.utils.flop_counter import FlopCounterMode

from xai_lib import activations, audio, execution, hooks, targets
from xai_lib.attribution import gradients
from xai_lib.attribution.gradientshap import draws, gradient_shap
from xai_lib.attribution.occlusion import segment_response
from xai_lib.models.sites import PARTS


def first(output):
    return output[0] if isinstance(output, tuple) else output


# ---------- gradients


def same(found, theirs, tolerance):
    """Captum's [1, frame, neuron], each where the result is by frame; and its sums over frames, also of absolutes."""
    theirs = first(theirs).detach()[0].cpu()
    if "frame" in found.dims:
        signed = found["signed"].transpose("frame", "neuron").values[: len(theirs)]
        np.testing.assert_allclose(signed, theirs, rtol=0, atol=tolerance * theirs.abs().max().item())
        np.testing.assert_array_equal(np.isfinite(found["signed"]).sum("frame"), len(theirs))
        found = found[["signed", "absolute"]].sum("frame")
    scale = theirs.abs().sum(dim=0).max().item()
    for name, expected in {"signed": theirs.sum(dim=0), "absolute": theirs.abs().sum(dim=0)}.items():
        assert np.abs(found[name].values - expected.numpy()).max() <= tolerance * scale


def steps_of(model):
    """The model's forward, layer by layer: here a change of a layer's output also reaches a weighted sum of layers.

    In Hugging Face's own forward Captum's does not: the record of hidden states is made before Captum's hook.
    """
    return lambda x: execution.suffix(model, execution.prefix(model, x, 0))


def summed(by_frame, plain):
    """That a result is the sum over frames of the one by frame, which is returned."""
    for name in ("signed", "absolute"):
        np.testing.assert_allclose(by_frame[name].sum("frame"), plain[name], rtol=1e-4, atol=1e-5)
    return by_frame


@pytest.mark.parametrize("part", PARTS)
def test_grad_x_activation_equals_captum_at_every_layer(model, clips, part):
    """Gradient times activation equals Captum at every layer and part of a layer, by frame and summed over frames."""
    found = gradients.grad_x_activation(model, clips, target="sad", part=part, by_frame=True)
    summed(found, gradients.grad_x_activation(model, clips, target="sad", part=part))
    assert found["layer"].values.tolist() == list(range(part != "hidden_state", model.n_layers + 1))
    for index in clips.index:
        x = model.tensor(audio.read(clips["path"][index]))
        for layer in found["layer"].values:
            method = LayerGradientXActivation(model.logits, model.architecture.module(model.check((layer, part))))
            # After the last WavLM layer its second output, the position bias, is unused: zeros, not an error.
            theirs = method.attribute(x, target=model.target("sad"), grad_kwargs={"materialize_grads": True})
            same(found.sel(clip=index, layer=layer), theirs, 1e-5)


def test_grad_x_activation_over_speech_equals_captum(tiny, clips):
    """Gradient times activation over speech equals Captum's attributions summed over speech frames only."""
    model = tiny("base")
    x = audio.read(clips["path"].iloc[0])
    speech = audio.speech_mask(x)
    assert 0 < speech.sum() < len(speech)
    found = gradients.grad_x_activation(model, clips[:1], target="sad", layers=[2], frames="speech")
    method = LayerGradientXActivation(model.logits, model.architecture.module(model.check(2)))
    by_frame = first(method.attribute(model.tensor(x), target=3)).detach()[0].cpu()
    assert np.allclose(found.signed[0, 0], by_frame[speech].sum(dim=0), atol=1e-5)
    assert (found.absolute >= np.abs(found.signed) - 1e-6).all()


@pytest.mark.parametrize("part", ["hidden_state", "ffn_hidden"])
@pytest.mark.parametrize("scale", ["probability", "log_odds"])
def test_gradients_equal_captum_on_other_scales(tiny, clips, part, scale):
    """Gradients and integrated gradients equal Captum on the probability and log-odds scales."""
    model, options = tiny("large"), {"target": "sad", "part": part, "scale": scale, "by_frame": True}
    once = gradients.grad_x_activation(model, clips[:1], **options).isel(clip=0)
    path = gradients.integrated_gradients(model, clips[:1], baseline="silence", steps=12, **options).isel(clip=0)

    def scaled(x):
        p = torch.softmax(steps_of(model)(x), dim=-1)
        return p if scale == "probability" else torch.logit(p)

    x, more = model.tensor(audio.read(clips["path"].iloc[0])), {"grad_kwargs": {"materialize_grads": True}}
    for layer in once["layer"].values:
        module = model.architecture.module(model.check((layer, part)))
        theirs = LayerGradientXActivation(scaled, module).attribute(x, target=model.target("sad"), **more)
        same(once.sel(layer=layer), theirs, 1e-4)
        method = LayerIntegratedGradients(scaled, module)
        theirs = method.attribute(x, torch.zeros_like(x), target=model.target("sad"), n_steps=12, **more)
        same(path.sel(layer=layer), theirs, 1e-4)


@pytest.mark.parametrize("part", PARTS)
def test_integrated_gradients_equals_captum_from_waveform_baseline(model, clips, part):
    """Integrated gradients equal Captum where the baseline is a waveform, by frame and summed over frames."""
    options = {"target": "sad", "part": part, "steps": 12, "batch": 5}
    options["baseline"] = lambda wave: 0.3 * wave[::-1].copy()
    found = gradients.integrated_gradients(model, clips, by_frame=True, **options)
    summed(found, gradients.integrated_gradients(model, clips, **options))
    for index in clips.index:
        x = model.tensor(audio.read(clips["path"][index]))
        for layer in found["layer"].values:
            method = LayerIntegratedGradients(steps_of(model), model.architecture.module(model.check((layer, part))))
            more = {"n_steps": 12, "grad_kwargs": {"materialize_grads": True}}
            theirs = method.attribute(x, 0.3 * x.flip(1), target=model.target("sad"), **more)
            same(found.sel(clip=index, layer=layer), theirs, 1e-4)


@pytest.mark.parametrize("part", ["hidden_state", "ffn_hidden"])
@pytest.mark.parametrize("baseline", ["zero", "mean"])
def test_integrated_gradients_equals_captum_from_activation_baseline(model, clips, part, baseline):
    """From zero or mean activations, integrated gradients equal Captum on the layers above."""
    known = activations.activation_stats(model, clips, part=part)
    options = {"target": "sad", "baseline": baseline, "activation_stats": known, "steps": 10, "by_frame": True}
    found = gradients.integrated_gradients(model, clips[:1], part=part, **options)
    x = model.tensor(audio.read(clips["path"].iloc[0]))
    for layer in found["layer"].values:
        site = model.check((layer, part))
        with torch.no_grad(), hooks.capture(model, site) as seen:
            state = execution.prefix(model, x, layer)
        hidden, mean = seen[site], torch.as_tensor(known["mean"].sel(layer=layer).values, device=x.device)

        def above(values, site=site, state=state):
            if site.part == "hidden_state":
                return execution.suffix(model, model.architecture.replace(state.repeat_rows(len(values)), values))
            with hooks.edit(model, {site: lambda _: values}):
                return model.logits(x.expand(len(values), -1))

        there = torch.zeros_like(hidden) if baseline == "zero" else mean.float().expand_as(hidden).contiguous()
        theirs = IntegratedGradients(above).attribute(hidden, there, target=model.target("sad"), n_steps=10)
        same(found.sel(layer=layer).isel(clip=0), theirs, 1e-4)


class Untracked(nullcontext):
    """Counts FLOPs where the input of a module is a leaf, as with Captum: without asking which module they are of."""

    parents = frozenset({"Global"})


def flops(function):
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = Untracked()
    with counter:
        function()
    return counter.get_total_flops()


def test_integrated_gradients_takes_fewer_flops_than_captum(tiny, clips):
    """For three layers, integrated gradients equal Captum with less than 0.4 of its FLOPs."""
    model, x = tiny("base"), torch.as_tensor(audio.read(clips["path"].iloc[0]))[None]
    x = x.to(model.device)
    options = {"target": "sad", "baseline": "silence", "steps": 8, "layers": [1, 2, 3]}
    with FlopCounterMode(display=False) as counter:  # of ours also by module
        found = gradients.integrated_gradients(model, clips[:1], **options)
    assert counter.get_total_flops() == flops(lambda: gradients.integrated_gradients(model, clips[:1], **options))

    def theirs():
        for layer in (1, 2, 3):
            method = LayerIntegratedGradients(model.logits, model.architecture.module(model.check(layer)))
            more = {"n_steps": 8, "grad_kwargs": {"materialize_grads": True}}
            same(found.sel(layer=layer).isel(clip=0), method.attribute(x, torch.zeros_like(x), target=3, **more), 1e-4)

    assert counter.get_total_flops() < 0.4 * flops(theirs)


# ---------- gradient_shap


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("baseline", ["noise", "silence", "clips"])
@pytest.mark.parametrize("steps, layers", [(1, None), (3, "all")])
def test_gradient_shap_equals_captum(tiny, swelling_clips, size, baseline, steps, layers, monkeypatch):
    """GradientSHAP of frames equals Captum's attributions of samples summed by frame, under the same draws."""
    model, n = tiny(size), 6
    clips = swelling_clips
    baseline = clips if baseline == "clips" else baseline
    found = gradient_shap(
        model, clips[1:], target="sad", baseline=baseline, n=n, steps=steps, seed=3, batch=4, layers=layers
    )
    x = model.tensor(audio.read(clips["path"][1]))
    alphas, others = draws(
        x[0], range(n), steps=steps, baseline=baseline, key=targets.key(3, 1, "gradient_shap"), rate=16000
    )
    monkeypatch.setattr(np.random, "uniform", lambda low, high, shape: alphas.cpu().numpy().reshape(shape))
    monkeypatch.setattr(np.random, "choice", lambda count, size: np.arange(size))
    theirs = GradientShap(model.logits).attribute(x, others, n_samples=n, stdevs=0.0, target=model.target("sad"))[0]
    theirs, count = theirs.detach().cpu().double().numpy(), int(found["n_frames"][0])
    edges = np.append(np.arange(count) * 320, len(theirs))
    by_frame = np.array([theirs[a:b].sum() for a, b in pairwise(edges)])
    assert count == model.n_frames(len(theirs))
    assert np.abs(found["attribution"][0].values - by_frame).max() <= 1e-5 * max(np.abs(by_frame).max(), 1)


# ---------- segment_response


def captum(model, x, count, layer, select, width=1600, baselines=None):
    """The response of `select`, of what a block returns, to each segment."""
    mask = (torch.arange(x.shape[1]) // width).clamp(max=count - 1)[None].to(x.device)
    method = NeuronFeatureAblation(model.logits, model.architecture.module(model.check(layer)))
    found = method.attribute(x, lambda out: select(first(out)), feature_mask=mask, baselines=baselines)
    return found[0, ::width][:count].cpu().numpy()


def close(ours, theirs):
    assert np.abs(ours[: len(theirs)] - theirs).max() <= 1e-5 * max(
        np.abs(theirs).max(), 0.3
    )  # activations are about 1
    assert np.isnan(ours[len(theirs) :]).all() and np.abs(theirs).max() > 1e-4


def test_segment_response_equals_captum_for_single_neurons(model, clips):
    """The segment response of a neuron equals Captum's ablation of the same segments, in clips of unequal length."""
    found = segment_response(model, clips, seconds=0.1, fade=0, frames="all", batch=3)
    for index in clips.index:
        x, count = model.tensor(audio.read(clips["path"][index])), int(found["n_segments"].sel(clip=index))
        for layer, neuron in ((0, 3), (2, 17)):
            theirs = captum(model, x, count, layer, lambda out, neuron=neuron: out[:, :, neuron].mean(dim=1))
            close(found.sel(clip=index, layer=layer, neuron=neuron).values, theirs)
    assert found["n_segments"].values.tolist() == [5, 7] and found.sizes["segment"] == 7
    assert np.allclose(found["seconds"], 0.1 * np.arange(7)) and found["duration"].values.tolist() == [0.5, 0.625]


def test_segment_response_equals_captum_for_shared_baselines(model, clips):
    """The segment response equals Captum for a number, an array, a callable and the mean; silence equals zero."""
    x = model.tensor(audio.read(clips["path"][7]))
    wave = 0.1 * np.random.default_rng(5).standard_normal(x.shape[1]).astype(np.float32)
    options = {"fade": 0, "frames": "all", "layers": 2}

    def ours(baseline):
        return segment_response(model, clips[:1], baseline=baseline, **options).sel(layer=2, neuron=5).values[0]

    def theirs(baselines):
        return captum(model, x, 5, 2, lambda out: out[:, :, 5].mean(dim=1), baselines=baselines)

    close(ours(0.3), theirs(0.3))
    close(ours(wave), theirs(torch.from_numpy(wave).to(x.device)[None]))
    close(ours(lambda waveform: waveform[::-1].copy()), theirs(x.flip(1)))
    close(ours("mean"), theirs(x.mean().item()))
    assert np.allclose(ours("silence"), ours(0)) and not np.allclose(ours(0), ours(0.3), atol=1e-3)


def test_segment_response_equals_captum_for_frame_and_callable(model, clips):
    """The segment response equals Captum at one frame, and for a callable that reduces the hidden state."""
    x = model.tensor(audio.read(clips["path"][7]))
    found = segment_response(model, clips[:1], fade=0, frames=11, layers=[1, 3])
    close(found.sel(layer=3, neuron=8).values[0], captum(model, x, 5, 3, lambda out: out[:, 11, 8]))

    def norm(hidden):
        return hidden[..., 2:6].norm(dim=-1).amax(dim=1)

    found = segment_response(model, clips[:1], fade=0, frames="all", respond=norm)
    assert found.sizes["neuron"] == 1 and found.attrs["respond"] == "norm"
    for layer in (0, 2):
        close(found.sel(layer=layer).values[0, :, 0], captum(model, x, 5, layer, norm))


@pytest.mark.parametrize("part", ["ffn_hidden", "ffn_out", "attention"])
def test_segment_response_equals_captum_inside_a_layer(model, clips, part):
    """The segment response equals Captum for neurons of the feed-forward and of attention inside a layer."""
    x = model.tensor(audio.read(clips["path"][7]))
    found = segment_response(model, clips[:1], fade=0, frames="all", part=part, layers=[2])
    mask, width = (torch.arange(x.shape[1]) // 1600).clamp(max=4)[None].to(x.device), found.sizes["neuron"]
    for neuron in (0, width - 1):
        method = NeuronFeatureAblation(model.logits, model.architecture.module(model.check((2, part))))
        theirs = method.attribute(x, lambda out, neuron=neuron: first(out)[:, :, neuron].mean(1), feature_mask=mask)
        close(found.sel(layer=2, neuron=neuron).values[0], theirs[0, ::1600][:5].cpu().numpy())
