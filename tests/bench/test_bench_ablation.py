"""Segments of the input silenced, and neurons zeroed one by one: all at once, against one after another."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from captum.attr import NeuronFeatureAblation

from xai_lib import attribution, audio, edits, hooks, targets

CUT = {"seconds": 0.0625, "fade": 0, "frames": "all"}  # 16 segments of one second


def captum(model, x, layer, neuron, at_once=1):
    """Response of one neuron to each of 16 segments."""
    mask = (torch.arange(x.shape[1]) // 1000)[None]
    method = NeuronFeatureAblation(model.logits, model.architecture.layers[layer - 1].final_layer_norm)
    found = method.attribute(
        x, lambda out: out[:, :, neuron].mean(dim=1), feature_mask=mask, perturbations_per_eval=at_once
    )
    return found[0, ::1000]


@pytest.mark.parametrize("path", ["ours", "Captum", "Captum, 16 segments at once"])
def test_segment_response_equals_captum_for_one_neuron(measure, model, noise, threads, path):
    """The segment response of one neuron equals Captum's, with segments one by one or at once; each is timed."""
    clips = noise(1)
    x = model.tensor(audio.read(clips["path"][0]))

    def run():
        if path == "ours":
            return attribution.segment_response(model, clips, layers=[6], **CUT)[0, :, 0, 7].values
        return captum(model, x, 6, 7, 1 if path == "Captum" else 16)

    measure(run, row="16 segments, one neuron of layer 6, 1 s", path=path, same=np.asarray)


@pytest.mark.parametrize("path", ["ours", "Captum, 300 calls, timed on 2"])
def test_segment_response_equals_captum_for_many_neurons(measure, model, noise, threads, path):
    """The segment response of three layers equals Captum's in two neurons; 300 calls are timed on these two."""
    clips, asked = noise(1), [(3, 7), (9, 70)]
    x = model.tensor(audio.read(clips["path"][0]))

    def run():
        if path == "ours":
            found = attribution.segment_response(model, clips, layers=[3, 6, 9], **CUT)[0]
            return np.stack([found.sel(layer=at, neuron=one) for at, one in asked])
        return torch.stack([captum(model, x, *one) for one in asked])

    times = 1 if path == "ours" else 300 / len(asked)
    measure(run, row="16 segments, 100 neurons of 3 layers, 1 s", path=path, rounds=1, times=times, same=np.asarray)


@pytest.mark.parametrize("path", ["ours", "768 hooked forwards, timed on 16"])
def test_exhaustive_ablation_equals_hooked_forwards(measure, model, noise, threads, path):
    """Exhaustive ablation of 768 neurons equals hooked forwards in 16 of them; both are timed."""
    clips, neurons, site = noise(0.2), range(0, 768, 48), hooks.Site(6)
    x = model.tensor(audio.read(clips["path"][0]))

    @torch.no_grad()
    def hooked():
        rows = [model.logits(x)]
        for neuron in neurons:
            with hooks.edit(model, {site: edits.edit(neuron, "zero")}):
                rows.append(model.logits(x))
        value = targets.value(model, torch.cat(rows).double(), (3,), "logit")
        return value[0] - value[1:]

    def ours():
        found = attribution.exhaustive_ablation(model, clips, target=3, layers=[site.layer], scale="logit")
        return found["signed"][0, 0, list(neurons)].values

    run, times = (ours, 1) if path == "ours" else (hooked, 769 / (1 + len(neurons)))
    row = "each of 768 neurons of layer 6 zeroed, 0.2 s"
    measure(run, row=row, path=path, rounds=1, times=times, same=np.asarray)
