"""Gradients of every neuron against finite differences, closed forms and planted neurons."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr

from xai_lib import activations, audio, execution, hooks, models, targets, workbook
from xai_lib.attribution import gradients
from xai_lib.models.sites import PARTS

METHODS = [gradients.grad_x_activation, gradients.gradient, gradients.integrated_gradients]
each_method = pytest.mark.parametrize("method", METHODS, ids=lambda method: method.__name__)


def test_integrated_gradients_accepts_waveform_baselines(tiny, clips):
    """Silence equals a function that returns zeros, and a short array equals a function that repeats it."""

    def of(baseline):
        return gradients.integrated_gradients(tiny("large"), clips, target="sad", baseline=baseline, steps=4)

    silence, zeros = of("silence"), of(np.zeros_like)
    assert np.array_equal(silence["signed"], zeros["signed"])
    assert (silence.attrs["baseline"], zeros.attrs["baseline"]) == ("silence", "waveform")
    short = np.random.default_rng(2).standard_normal(3000).astype(np.float32)
    repeated = of(lambda wave: np.concatenate([short] * 4)[: len(wave)])
    assert np.array_equal(of(short)["signed"], repeated["signed"])
    assert np.abs(repeated["signed"] - silence["signed"]).max() > 1e-3


@pytest.mark.parametrize("scale", ["logit", "probability", "log_odds"])
@pytest.mark.parametrize("target", ["predicted", ("angry", "calm")])
def test_integrated_gradients_residual_shrinks_with_steps(tiny, clips, scale, target):
    """Sum minus residual is the difference of two plain forward passes, and the residual shrinks with steps."""
    model = tiny("large")
    options = {"target": target, "scale": scale, "baseline": "silence"}
    one, two, many = (gradients.integrated_gradients(model, clips, steps=n, **options) for n in (1, 2, 24))
    sizes = [np.abs(found["residual"]).mean().item() for found in (one, two, many)]
    assert sizes[0] > 1.5 * sizes[1] > 10 * sizes[2]
    for place, path in enumerate(clips["path"]):  # the gap between f(x) and f(b) is that of two plain forwards
        x = model.tensor(audio.read(path))
        logits = model.logits(torch.cat([x, torch.zeros_like(x)]))
        values = targets.value(model, logits, targets.resolve(model, target, logits[:1]), scale)
        gap = many["signed"][place].sum("neuron") - many["residual"][place]
        assert np.allclose(gap, (values[0] - values[1]).item(), atol=1e-6)
        assert many["value"][place].item() == pytest.approx(values[0].item(), abs=1e-6)


def test_integrated_gradients_warns_of_large_residual(tiny, clips):
    """A residual above a tenth of the change causes a warning at one step, and none is left at 200 steps."""
    options = {"target": "sad", "layers": 2, "baseline": "zero"}
    with pytest.warns(UserWarning, match=r"miss more than a tenth of the change \(up to .* in layers 2"):
        few = gradients.integrated_gradients(tiny("base"), clips, steps=1, **options)
    share = np.abs(few["residual"] / few["change"]).median("clip")
    assert (share > 0.1).all()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        many = gradients.integrated_gradients(tiny("base"), clips, steps=200, **options)
    np.testing.assert_allclose(many["signed"].sum("neuron") - many["residual"], many["change"], atol=1e-5)


def test_integrated_gradients_residual_covers_all_frames(tiny, clips):
    """The residual covers all frames even where only speech is summed, and frames of speech keep their values."""
    options = {"target": "sad", "part": "ffn_hidden", "steps": 3, "by_frame": True}
    every, speech = (
        gradients.integrated_gradients(tiny("base"), clips, frames=frames, **options) for frames in ("all", "speech")
    )
    assert np.array_equal(every["residual"], speech["residual"])
    kept = np.isfinite(speech["signed"])
    assert 0 < kept.mean() < 0.9 and np.allclose(speech["signed"].values[kept], every["signed"].values[kept])


@each_method
def test_gradients_by_frame_sum_to_total(tiny, clips, method):
    """Attributions by frame, NaN outside the chosen frames, sum to those computed without `by_frame`."""
    model = tiny("large")
    for frames in ("all", "speech"):
        options = {"target": "sad", "layers": [1, 3], "part": "attention", "frames": frames}
        found, summed = (method(model, clips, by_frame=by_frame, **options) for by_frame in (True, False))
        assert found["signed"].dims == ("clip", "layer", "frame", "neuron")
        counts = [model.n_frames(8000), model.n_frames(10000)]
        assert found["n_frames"].values.tolist() == counts and found.sizes["frame"] == counts[1]
        assert np.isnan(found["signed"][0, :, counts[0] :]).all()
        for place, path in enumerate(clips["path"]):
            keep = model.speech(audio.read(path)) if frames == "speech" else np.ones(counts[place], bool)
            assert np.array_equal(np.isfinite(found["signed"][place, 0, : counts[place], 0]), keep)
        assert np.array_equal(found["absolute"], np.abs(found["signed"]), equal_nan=True)
        for name in ("signed", "absolute"):
            assert np.allclose(found[name].sum("frame"), summed[name], atol=1e-5)


def head_of(function, tiny_folder):
    """A tiny model with a head of its own: `function` of the last block, averaged over frames."""

    class Head(torch.nn.Module):
        def forward(self, hidden):
            return function(hidden)

    return models.load(tiny_folder("base"), head=Head(), labels=["calm", "angry"], device="cpu")


def from_zero(method):
    return {"baseline": "zero"} if method is gradients.integrated_gradients else {}


@each_method
def test_gradients_are_exact_for_linear_head(tiny_folder, clips, method):
    """With a linear head, attributions are its weights, times the mean activation except in `gradient`."""
    weights = torch.randn(24, 2)
    model = head_of(lambda hidden: hidden @ weights, tiny_folder)
    found = method(model, clips[:1], target=("angry", "calm"), layers=3, **from_zero(method))
    hidden = execution.prefix(model, model.tensor(audio.read(clips["path"].iloc[0])), 3).hidden[0]
    slope = weights[:, 1] - weights[:, 0]
    expected = slope if method is gradients.gradient else slope * hidden.mean(dim=0)
    assert np.allclose(found["signed"][0, 0], expected, atol=1e-5)
    if method is gradients.integrated_gradients:
        assert np.abs(found["residual"]).max() < 1e-5
        assert found["signed"].sum().item() == pytest.approx(found["value"].item(), abs=1e-5)


@each_method
def test_gradients_find_planted_neuron_of_last_block(tiny_folder, clips, method):
    """The only neuron of the last block that the head reads gets all of that block's attribution."""

    def head(hidden):
        return torch.stack([torch.zeros_like(hidden[..., 5]), torch.tanh(3 * hidden[..., 5])], dim=-1)

    found = method(head_of(head, tiny_folder), clips, target="angry", layers=[2, 3], **from_zero(method))
    last = found["absolute"].sel(layer=3)
    assert (last.argmax("neuron") == 5).all() and (last.drop_sel(neuron=5) == 0).all()
    assert (found["absolute"].sel(layer=2) > 0).all()  # before it, the whole layer makes it
    if method is gradients.integrated_gradients:
        assert np.allclose(found["signed"].sel(layer=3, neuron=5), found["value"], atol=1e-4)


@each_method
@pytest.mark.parametrize("size", ["base", "large"])
def test_gradients_find_planted_ffn_neuron(tiny, clips, method, size):
    """The only FFN neuron with outgoing weights gets all attribution of its layer."""
    model = tiny(size)
    weights = model.architecture.layers[1].feed_forward.output_dense.weight
    weights[:, torch.arange(40) != 7] = 0  # the only one that the network reads
    found = method(model, clips, target="predicted", layers=2, part="ffn_hidden")
    assert (found["absolute"].drop_sel(neuron=7) == 0).all() and (found["absolute"].sel(neuron=7) > 0).all()


def test_integrated_gradients_equals_ablation_of_planted_neuron(tiny, clips):
    """From a zero baseline, a planted neuron's attribution equals the fall of the logit when it is removed."""
    model = tiny("large")
    model.architecture.layers[1].feed_forward.output_dense.weight[:, torch.arange(40) != 7] = 0
    found = gradients.integrated_gradients(model, clips, target="sad", layers=2, part="ffn_hidden", baseline="zero")
    for place, path in enumerate(clips["path"]):
        logits = execution.cascade(model, audio.read(path), [((2, "ffn_hidden"), torch.zeros_like)])[:, 3]
        removed = (logits[0] - logits[1]).item()
        assert found["signed"].sel(neuron=7).values[place, 0] == pytest.approx(removed, abs=1e-6)


def test_gradient_equals_finite_differences(model, clips):
    """The gradient of a neuron equals the slope of the target by central finite differences."""
    found = gradients.gradient(model, clips[:1], target="sad", layers=[1, 3])
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
            slope = (moved((layer, "hidden_state"), neuron, step) - moved((layer, "hidden_state"), neuron, -step)) / (
                2 * step
            )
            assert slope == pytest.approx(slopes[neuron], rel=0.05, abs=0.02 * float(np.abs(slopes).max()))


def test_gradient_follows_target_and_scale(tiny, clips):
    """Contrasts are differences, `predicted` takes the label of each clip, and scales obey the chain rule."""
    model = tiny("base")

    def signed(target, scale="logit"):
        return gradients.gradient(model, clips, target=target, layers=2, scale=scale)

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


@pytest.mark.parametrize("part", PARTS)
def test_integrated_gradients_batches_partial_passes(tiny, clips, part):
    """Only the clip and its baseline take a full pass; steps share batches, whose size changes no result."""
    model, sizes = tiny("large"), []
    handles = [
        layer.register_forward_hook(lambda _, args, out: sizes.append(len(out[0])))
        for layer in model.architecture.layers
    ]
    whole = []
    handles.append(model.architecture.base.feature_extractor.register_forward_hook(lambda *_: whole.append(1)))
    options = {"target": "sad", "part": part, "baseline": "silence", "layers": [2, 3], "steps": 7}
    found = gradients.integrated_gradients(model, clips[:1], batch=4, **options)
    assert len(whole) == 2 and max(sizes) == 4  # the clip and the silent one
    assert sizes.count(4) == sizes.count(3) == (1 if part == "hidden_state" else 3)
    for handle in handles:
        handle.remove()
    other = gradients.integrated_gradients(model, clips[:1], batch=100, **options)
    assert np.allclose(found["signed"], other["signed"], atol=1e-6)


@each_method
def test_gradients_refuse_untrained_head(tiny_folder, clips, method):
    """Every method refuses an untrained head and refers to `heads.fit`."""
    model = models.load(tiny_folder("base"), device="cpu")
    model.trained = None
    with pytest.raises(models.UntrainedHead, match="heads.fit"):
        method(model, clips, target="sad")


@pytest.mark.parametrize(
    "options, message",
    [
        ({"target": "bored"}, "unknown label"),
        ({"target": ("sad", "calm", "angry")}, "a pair"),
        ({"scale": "odds"}, "unknown scale"),
        ({"layers": 9}, "layer 9 out of range"),
        ({"layers": []}, "layers is empty"),
        ({"frames": "loud"}, "unknown frames"),
        ({"frames": [3]}, "unknown frames"),
        ({"layers": "top"}, "must be an integer"),
        ({"part": "mlp"}, "unknown part"),
    ],
)
def test_gradients_refuse_invalid_options(tiny, clips, options, message):
    """In every method, an invalid target, scale, layer, part or frames raises an error that names the problem."""
    for method in METHODS:
        with pytest.raises(ValueError, match=message):
            method(tiny("base"), clips, **{"target": "sad", **options})


@pytest.mark.parametrize(
    "options, message",
    [
        ({"steps": 0}, "steps must be a whole number from 1 up, not 0"),
        ({"steps": [8]}, r"steps must be a whole number from 1 up, not \[8\]"),
        ({"batch": 0}, "batch must be 1"),
        ({"baseline": "noise"}, "unknown baseline 'noise'"),
        ({"baseline": 0.5}, "one-dimensional"),
        ({"baseline": np.zeros((2, 400))}, "2 dimensions"),
        ({"baseline": lambda wave: wave[:500]}, "returned 500 samples for a clip of 8000"),
        (
            {"baseline": "mean"},
            r"activation_stats=activations.activation_stats\(model, training clips, part='hidden_state'\)",
        ),
    ],
)
def test_integrated_gradients_refuses_invalid_arguments(tiny, clips, options, message):
    """Invalid steps, batch sizes and baselines raise an error that names the problem."""
    with pytest.raises(ValueError, match=message):
        gradients.integrated_gradients(tiny("base"), clips, **{"target": "sad", **options})


def test_integrated_gradients_refuses_stats_of_other_part(tiny, clips):
    """The mean baseline refuses activation statistics of another part."""
    known = activations.activation_stats(tiny("base"), clips, part="ffn_out")
    with pytest.raises(ValueError, match="of ffn_out instead of hidden_state"):
        gradients.integrated_gradients(tiny("base"), clips, target="sad", baseline="mean", activation_stats=known)


@each_method
def test_gradients_skip_bad_clips_and_round_trip(tiny, clips, tmp_path, method):
    """A clip that is too short is skipped with a warning and a reason, and results survive saving to NetCDF."""
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    more = pd.concat([clips, pd.DataFrame({"path": [str(tmp_path / "short.wav")], "label": None})])
    with pytest.warns(UserWarning, match="1 of 3 clips were skipped"):
        found = method(tiny("base"), more, target="sad", by_frame=True)
    assert found["clip"].values.tolist() == [7, 9] and "shorter than" in found.attrs["skipped"]
    workbook.netcdf_safe(found).to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as again:
        assert again["speaker"].values.tolist() == ["s0", "s1"] and again.attrs["method"] == method.__name__
        assert np.array_equal(again["signed"], found["signed"], equal_nan=True)


def test_grad_x_activation_documents_all_parts(shared):
    """The docstring lists every part that the bundled architecture has."""
    documented = gradients.grad_x_activation.__doc__
    assert all(f'"{part}"' in documented for part in shared().architecture.parts)
