"""All neurons from one pass, against Captum once per layer or once per neuron."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from captum.attr import LayerGradientXActivation, NeuronFeatureAblation

from xai_lib import attribution, audio, models

NEURONS = 4  # as many as Captum is asked for; ours answers for all of them


@pytest.fixture(scope="module")
def model():
    """WavLM base in shape, 12 layers of 768 neurons, with random weights."""
    from transformers import WavLMConfig, WavLMForSequenceClassification

    torch.manual_seed(0)
    network = WavLMForSequenceClassification(WavLMConfig(num_labels=8))
    return models.Model(
        network,
        labels=[str(i) for i in range(8)],
        name="base",
        trained="not trained: a benchmark",
        preprocessor={},
        device="cpu",
    )


@pytest.fixture(scope="module")
def clips(tmp_path_factory):
    path = tmp_path_factory.mktemp("bench") / "noise.wav"
    soundfile.write(path, 0.1 * np.random.default_rng(0).standard_normal(24_000), 16_000)
    return pd.DataFrame({"path": [str(path)]})


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("path", ["ours", "Captum, once per layer"])
def test_bench_grad_x_activation(measure, model, clips, path):
    x = model.tensor(audio.read(clips["path"][0]))

    def captum():
        # A block's last norm gives what the block does, without the position bias, which is no activation.
        places = [model.family.module(model.check(0)), *(block.final_layer_norm for block in model.family.layers)]
        found = [LayerGradientXActivation(model.logits, place).attribute(x, target=3) for place in places]
        return torch.stack([by_frame[0].sum(dim=0).detach() for by_frame in found])

    def ours():
        return attribution.grad_x_activation(model, clips, target=3)["signed"].values[0]

    if path == "ours":
        assert np.abs(ours() - captum().numpy()).max() <= 1e-4 * np.abs(ours()).max()
    measure(ours if path == "ours" else captum, row="gradient × activation, 12 layers × 768 neurons, 1.5 s", path=path)


@pytest.mark.parametrize("path", ["ours", f"Captum, {NEURONS} of 9,984 neurons"])
def test_bench_segment_response(measure, model, clips, path):
    x = model.tensor(audio.read(clips["path"][0]))
    mask = (torch.arange(x.shape[1]) // 4800).clamp(max=4)[None]

    def captum():
        method = NeuronFeatureAblation(model.logits, model.family.module(model.check(6)))
        pick = [lambda out, n=n: first(out)[:, :, n].mean(dim=1) for n in range(NEURONS)]
        return torch.stack([method.attribute(x, one, feature_mask=mask)[0, ::4800] for one in pick])

    def ours():
        return attribution.segment_response(model, clips, seconds=0.3, fade=0, frames="all")[0]

    if path == "ours":
        assert np.abs(ours().sel(layer=6).values[:, :NEURONS].T - captum().numpy()).max() <= 1e-4
    measure(ours if path == "ours" else captum, row="response of neurons to 5 segments, 1.5 s", path=path)
