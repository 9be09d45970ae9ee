"""Attributions against Captum, finite differences and hand-made cases."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from captum.attr import LayerGradientXActivation, NeuronFeatureAblation
from scipy.stats import spearmanr

from xai_lib import attribution, audio, hooks, models, statistics, workbook
from xai_lib.families import PARTS
from xai_lib.plots import agreement_curves, style
from xai_lib.widgets import NeuronExplorer

KINDS = {"base": {}, "large": {}, "large-sum": {"use_weighted_layer_sum": True}}


@pytest.fixture(params=KINDS)
def model(request, tiny):
    return tiny(request.param.split("-")[0], **KINDS[request.param])


@pytest.fixture
def clips(tmp_path):
    """Two clips of unequal length by two speakers, silent at both ends."""
    rows = []
    for place, length in enumerate((8000, 10000)):
        samples = 0.2 * np.random.default_rng(place).standard_normal(length)
        samples[:2000] *= 1e-4
        samples[-1000:] *= 1e-4
        path = tmp_path / f"{place}.wav"
        soundfile.write(path, samples.astype(np.float32), 16000, subtype="FLOAT")
        rows.append({"path": str(path), "label": "angry", "speaker": f"s{place}"})
    return pd.DataFrame(rows, index=[7, 9])


def first(output):
    return output[0] if isinstance(output, tuple) else output


@pytest.mark.parametrize("part", PARTS)
def test_equals_captum_at_every_layer(model, clips, part):
    found = attribution.grad_x_activation(model, clips, target="sad", part=part)
    assert found["layer"].values.tolist() == list(range(part != "block", model.n_layers + 1))
    for index in clips.index:
        x = model.tensor(audio.read(clips["path"][index]))
        for layer in found["layer"].values:
            method = LayerGradientXActivation(model.logits, model.family.module(model.check((layer, part))))
            # After the last WavLM layer its second output, the position bias, is unused: zeros, not an error.
            by_frame = method.attribute(x, target=model.target("sad"), grad_kwargs={"materialize_grads": True})
            by_frame = first(by_frame).detach()[0]
            ours = found.sel(clip=index, layer=layer)
            scale = by_frame.abs().sum(dim=0).max().item()
            for name, theirs in {"signed": by_frame.sum(dim=0), "absolute": by_frame.abs().sum(dim=0)}.items():
                assert np.abs(ours[name].values - theirs.cpu().numpy()).max() <= 1e-5 * scale


def test_gradient_is_the_slope_of_the_target(model, clips):
    found = attribution.gradient(model, clips[:1], target="sad", layers=[1, 3])
    x, step = model.tensor(audio.read(clips["path"].iloc[0])), 0.02

    def moved(layer, neuron, by):
        def add(hidden):
            hidden[..., neuron] += by
            return hidden

        with torch.no_grad(), hooks.edit(model, {layer: add}):
            return model.logits(x)[0, model.target("sad")].item()

    for layer in (1, 3):
        slopes = found["signed"].sel(layer=layer).values[0]
        for neuron in (0, 11, 23):
            slope = (moved((layer, "block"), neuron, step) - moved((layer, "block"), neuron, -step)) / (2 * step)
            assert slope == pytest.approx(slopes[neuron], rel=0.05, abs=0.02 * float(np.abs(slopes).max()))


def test_targets_and_scales(tiny, clips):
    model = tiny("base")

    def signed(target, scale="logit"):
        return attribution.gradient(model, clips, target=target, layers=2, scale=scale)

    contrast = signed(("angry", "calm"))
    assert np.allclose(contrast.signed, signed("angry").signed - signed("calm").signed, atol=1e-5)
    assert set(contrast["target"].values) == {"angry − calm"}
    guess = model.predict(clips)
    own = signed("predicted")
    assert own["target"].values.tolist() == guess["label"].tolist()
    assert np.allclose(own.signed[0], signed(guess["label"].iloc[0]).signed[0])
    p = guess["angry"].to_numpy(float)
    odds = signed("angry", "log_odds")
    assert np.allclose(odds["value"], np.log(p / (1 - p)), atol=1e-4)
    # The chain rule: dp = p (1 − p) d log odds.
    slope = (p * (1 - p))[:, None, None]
    assert np.allclose(signed("angry", "probability").signed, slope * odds.signed, atol=1e-6)


def test_speech_frames_only(tiny, clips):
    model = tiny("base")
    x = audio.read(clips["path"].iloc[0])
    speech = audio.speech_mask(x)
    assert 0 < speech.sum() < len(speech)
    found = attribution.grad_x_activation(model, clips[:1], target="sad", layers=[2], frames="speech")
    method = LayerGradientXActivation(model.logits, model.family.module(model.check(2)))
    by_frame = first(method.attribute(model.tensor(x), target=3)).detach()[0].cpu()
    assert np.allclose(found.signed[0, 0], by_frame[speech].sum(dim=0), atol=1e-5)
    assert (found.absolute >= np.abs(found.signed) - 1e-6).all()


@pytest.mark.parametrize("name", ["grad_x_activation", "gradient", "gradient_shap", "segment_response"])
def test_an_untrained_head_is_refused(tiny_folder, clips, name):
    model = models.load(tiny_folder("base"), device="cpu")
    model.trained = None
    options = {} if name == "segment_response" else {"target": "sad"}
    with pytest.raises(models.UntrainedHead, match="heads.fit"):
        getattr(attribution, name)(model, clips, **options)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "bored"}, "unknown emotion"),
        ({"target": ("sad", "calm", "angry")}, "a pair"),
        ({"target": "sad", "scale": "odds"}, "unknown scale"),
        ({"target": "sad", "layers": 9}, "layer 9 out of range"),
        ({"target": "sad", "layers": []}, "layers is empty"),
        ({"target": "sad", "frames": "loud"}, "unknown frames"),
        ({"target": "sad", "layers": "top"}, "whole number"),
        ({"target": "sad", "part": "mlp"}, "unknown part"),
    ],
)
def test_wrong_options_are_said(tiny, clips, options, message):
    with pytest.raises(ValueError, match=message):
        attribution.grad_x_activation(tiny("base"), clips, **options)


def test_bad_clips_are_named_and_results_can_be_saved(tiny, clips, tmp_path):
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    more = pd.concat([clips, pd.DataFrame({"path": [str(tmp_path / "short.wav")], "label": None})])
    for function, options in (
        (attribution.grad_x_activation, {"target": "sad"}),
        (attribution.segment_response, {}),
        (attribution.gradient_shap, {"target": "sad", "n": 2}),
    ):
        with pytest.warns(UserWarning, match="1 of 3 clips were skipped"):
            found = function(tiny("base"), more, **options)
        assert found["clip"].values.tolist() == [7, 9] and "shorter than" in found.attrs["skipped"]
        workbook._netcdf_safe(found).to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as again:
            assert again["speaker"].values.tolist() == ["s0", "s1"]


def scores(values, speakers):
    values = np.asarray(values, float)
    return xr.Dataset(
        {"absolute": (("clip", "layer", "neuron"), np.abs(values)), "signed": (("clip", "layer", "neuron"), values)},
        {
            "clip": range(len(values)),
            "speaker": ("clip", np.array(speakers, object)),
            "layer": range(values.shape[1]),
            "neuron": range(values.shape[2]),
        },
        {"part": "block"},
    )


def test_top_neurons_count_speakers_not_clips():
    # Three clips of a favour neuron 0; one each of b and c favour neuron 1.
    table = scores([[[9, 0]], [[9, 0]], [[9, 0]], [[0, 7]], [[0, -7]]], list("aaabc"))
    best = attribution.top_neurons(table, 1)
    assert best.loc[0].to_dict() == {
        "layer": 0,
        "part": "block",
        "neuron": 1,
        "score": pytest.approx(14 / 3),
        "signed": 0,
    }
    assert attribution.top_neurons(table, 1, by="signed").loc[0, "neuron"] == 0
    unknown = table.assign_coords(speaker=("clip", [None] * 5))
    assert attribution.top_neurons(unknown, 1).loc[0, "neuron"] == 0


def test_top_neurons_of_a_layer():
    table = scores(np.arange(12).reshape(1, 3, 4), ["a"])
    assert attribution.top_neurons(table, 2)["neuron"].tolist() == [3, 2]
    assert attribution.top_neurons(table, 9, layer=1)[["layer", "neuron"]].values.tolist() == [
        [1, n] for n in (3, 2, 1, 0)
    ]
    with pytest.raises(ValueError, match=r"layer 5 is not in these scores: they have \[0, 1, 2\]"):
        attribution.top_neurons(table, 2, layer=5)
    with pytest.raises(ValueError, match="unknown by"):
        attribution.top_neurons(table, 2, by="size")


def test_agreement_is_spearman():
    rng = np.random.default_rng(3)
    a, b = scores(rng.standard_normal((3, 2, 30)), list("abc")), scores(rng.standard_normal((2, 2, 30)), list("de"))
    found, mean = attribution.agreement(a, b, by="signed"), attribution.mean_score(b, by="signed").values
    for clip in range(3):
        for layer in range(2):
            one = a["signed"].values[clip, layer]
            assert found.values[clip, layer] == pytest.approx(spearmanr(one, mean[layer]).statistic)
    assert found["speaker"].values.tolist() == list("abc")
    assert np.allclose(attribution.agreement(a.isel(clip=[0]), a.isel(clip=[0])), 1)


def test_agreement_of_several_targets_can_be_set_side_by_side(tiny, clips):
    found = {name: attribution.grad_x_activation(tiny("base"), clips, target=name) for name in ("sad", "angry", "calm")}
    rho = xr.concat(
        [attribution.agreement(one, found["sad"]) for one in found.values()], pd.Index(found, name="target")
    )
    assert rho.dims == ("target", "clip", "layer") and rho["target"].values.tolist() == ["sad", "angry", "calm"]
    assert (rho.sel(target="sad").mean("clip") > rho.sel(target="angry").mean("clip")).any()
    curves = statistics.over_speakers(rho)
    figure = agreement_curves({"absolute": curves}, "angry")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert np.allclose(lines["sad"], curves["mean"].sel(target="sad")) and np.allclose(lines["calm"], curves["mean"][2])
    bold = figure.axes[0].containers[0]
    assert bold.get_label() == "angry" and np.allclose(bold.lines[0].get_ydata(), curves["mean"][1])
    plt.close(figure)


def test_segment_response_equals_captum(model, clips):
    found = attribution.segment_response(model, clips, seconds=0.1, fade=0, frames="all", batch=3)
    for index in clips.index:
        x = model.tensor(audio.read(clips["path"][index]))
        count = int(found["n_segments"].sel(clip=index))
        mask = (torch.arange(x.shape[1]) // 1600).clamp(max=count - 1)[None].to(x.device)
        for layer, neuron in ((0, 3), (2, 17)):
            method = NeuronFeatureAblation(model.logits, model.family.module(model.check(layer)))
            expected = method.attribute(
                x, lambda out, neuron=neuron: first(out)[:, :, neuron].mean(dim=1), feature_mask=mask
            )[0, ::1600][:count].cpu()
            ours = found.sel(clip=index, layer=layer, neuron=neuron).values
            assert np.abs(ours[:count] - expected.numpy()).max() <= 1e-5 * max(expected.abs().max().item(), 0.1)
            assert np.isnan(ours[count:]).all()
    assert found["n_segments"].values.tolist() == [5, 7] and found.sizes["segment"] == 7
    assert np.allclose(found["seconds"], 0.1 * np.arange(7))


def test_segment_baselines(tiny, clips):
    model = tiny("large")
    options = {"layers": [1, 3], "part": "ffn_hidden", "seconds": 0.2}
    noise = [
        attribution.segment_response(model, clips, baseline="noise", seed=s, batch=b, **options)
        for s, b in ((0, 2), (0, 9), (1, 9))
    ]
    assert noise[0].sizes["neuron"] == model.n_neurons((1, "ffn_hidden"))
    assert np.allclose(noise[0], noise[1], atol=1e-5, equal_nan=True)
    assert np.nanmax(np.abs(noise[0] - noise[2])) > 1e-3
    with pytest.raises(ValueError, match="unknown baseline"):
        attribution.segment_response(model, clips, baseline="loud", **options)


def test_a_segment_is_replaced_and_faded_at_its_edges():
    x = torch.ones(100)
    kept = attribution._without(x, 20, 60, 10, None)
    assert (kept[:20] == 1).all() and (kept[60:] == 1).all() and (kept[30:50] == 0).all()
    assert (kept[20:30].diff() < 0).all() and torch.allclose(kept[20:60], kept[20:60].flip(0))
    assert attribution._without(x, 20, 60, 0, None).sum() == 60
    x[20:60] = 3 + torch.randn(40)
    noise = attribution._without(x, 20, 60, 0, torch.linspace(-1, 1, 100).sign())[20:60]
    high, low = noise.max().item(), noise.min().item()  # mean ± SD of the segment
    assert (high + low) / 2 == pytest.approx(x[20:60].mean().item(), rel=1e-4)
    assert (high - low) / 2 == pytest.approx(x[20:60].std(correction=0).item(), rel=1e-4)


def test_clips_without_speech_are_named(tiny, clips, monkeypatch):
    monkeypatch.setattr(audio, "speech_mask", lambda x, *_, **__: np.zeros(24 if len(x) == 8000 else 30, bool))
    with pytest.raises(ValueError, match="no speech was found"):
        attribution.segment_response(tiny("base"), clips)


def test_the_explorer_shows_the_neuron_of_that_rank(tiny, clips):
    found = attribution.grad_x_activation(tiny("base"), clips, target="sad")
    response = attribution.segment_response(tiny("base"), clips, frames="all", seconds=0.2)
    style.use()
    panel = NeuronExplorer(found, response)
    panel.controls["by"].value = "absolute"
    panel.controls["layer"].value, panel.controls["rank"].value, panel.controls["clip"].value = 1, 3, 1
    third = attribution.top_neurons(found, 3, layer=1)["neuron"].iloc[2]
    left, right = panel.figure.axes
    assert panel.error is None and left.get_title(loc="left") == f"Layer 1: neuron {third} is number 3 of 24"
    shown = right.patches[0].get_data().values
    assert np.allclose(shown, response.isel(clip=1).sel(layer=1, neuron=third).dropna("segment"))
    absolute = found["absolute"].sel(layer=1, neuron=third)  # the bar is the mean of its dots
    assert left.patches[2].get_height() == pytest.approx(float(absolute.mean()), rel=1e-5)
    assert np.allclose([dots.get_ydata()[2] for dots in left.lines], absolute)
    panel.controls["rank"].value = 24  # beyond those that have a bar of their own
    assert panel.error is None and "number 24 of 24" in panel.figure.axes[0].get_title(loc="left")
