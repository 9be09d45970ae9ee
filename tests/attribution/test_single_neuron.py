"""Exhaustive ablation against one hooked forward after another."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy.special import log_softmax

from xai_lib import audio, edits, hooks, models, targets
from xai_lib.activations import activation_stats, donors
from xai_lib.attribution.single_neuron import exhaustive_ablation


@pytest.fixture
def clips(make_clips, tmp_path):
    """Three clips of unequal length by three speakers, silent at both ends."""
    about = {"index": [7, 9, 4], "label": "angry", "speaker": "s{}"}
    return make_clips(tmp_path, 3, lengths=(6000, 6700, 7400), silent=(1500, 1000), **about)


def hooked(model, path, edit):
    """Logits of one forward."""
    with torch.no_grad(), hooks.edit(model, edit):
        return model.logits(model.tensor(audio.read(path)))[0].double().cpu().numpy()


def log_odds(logits, c):
    log_p = log_softmax(logits)
    return log_p[c] - np.log1p(-np.exp(log_p[c]))


@pytest.mark.parametrize("part", ["hidden_state", "ffn_hidden"])
@pytest.mark.parametrize("mode", edits.MODES)
def test_exhaustive_ablation_equals_hooked_forwards(model, clips, mode, part):
    """In every mode, a score is the fall of the log odds in one hooked forward pass that edits this neuron."""
    known = activation_stats(model, clips, part=part)
    options, donor = {"mode": mode, "seed": 5}, clips[1:2].set_axis(clips.index[:1])
    own = {"mode": mode, "seed": targets.key(5, clips.index[0], "noise")}
    more = {"activation_stats": known, "donors": donor, "batch": 7}
    found = exhaustive_ablation(model, clips[:1], target="sad", part=part, frames="speech", **options, **more)
    assert found["layer"].values.tolist() == known["layer"].values.tolist()
    assert found.sizes["neuron"] == model.n_neurons((1, part))
    path, c = clips["path"].iloc[0], model.target("sad")
    clean, speech = hooked(model, path, {}), model.speech(audio.read(path))
    values = donors.read(model, donor["path"].iloc[0], model.sites(part))[0]
    assert 0 < speech.sum() < len(speech)
    for layer in found["layer"].values:
        training = {"means": known["mean"].sel(layer=layer).values, "stds": known["std"].sel(layer=layer).values}
        training["values"] = values[hooks.Site(layer, part)]
        for neuron in range(0, found.sizes["neuron"], 3):
            function = edits.edit(neuron, frames="speech", speech=speech, **own, **training)
            edited = hooked(model, path, {hooks.Site(layer, part): function})
            lost = log_odds(clean, c) - log_odds(edited, c)
            assert found["signed"].sel(layer=layer, neuron=neuron).item() == pytest.approx(lost, abs=4e-6)
    assert found["absolute"].max() > 1e-4 and found["value"].item() == pytest.approx(log_odds(clean, c), abs=1e-5)
    np.testing.assert_array_equal(found["absolute"], np.abs(found["signed"]))


def test_exhaustive_ablation_uses_own_donor_and_noise(tiny, clips):
    """Each clip gets its own donor and noise, whichever other clips are in the selection."""
    model, own = tiny(), clips.set_axis([4, 7, 9])  # each clip's donor is another one
    options = {"target": "sad", "layers": 2, "activation_stats": activation_stats(model, clips)}
    for mode in ("resample", "noise"):
        both = exhaustive_ablation(model, clips, mode=mode, donors=own, **options)
        for clip in clips.index:
            alone = exhaustive_ablation(model, clips.loc[[clip]], mode=mode, donors=own, **options)
            np.testing.assert_allclose(alone["signed"].sel(clip=clip), both["signed"].sel(clip=clip), atol=1e-5)
    twins = pd.concat([clips[:1], clips[:1].set_axis([8])])
    found = exhaustive_ablation(model, twins, mode="noise", **options)["signed"]
    assert not np.allclose(found[0], found[1], atol=1e-4)
    other = clips.set_axis([9, 4, 7])  # the other way round
    swapped = exhaustive_ablation(model, clips, mode="resample", donors=other, **options)
    same = exhaustive_ablation(model, clips, mode="resample", donors=own, **options)
    assert not np.allclose(swapped["signed"], same["signed"], atol=1e-4)


@pytest.mark.parametrize("frames", ["all", "max_frame", "peak_frames", [2, 5]])
def test_exhaustive_ablation_supports_every_frame_policy(tiny, clips, frames):
    """For every choice of frames, scores equal those of hooked forward passes with the same edit."""
    model = tiny()
    found = exhaustive_ablation(model, clips, target="sad", frames=frames, layers=[0, 2], scale="logit", mode="flip")
    for clip, path in clips["path"].items():
        clean = hooked(model, path, {})
        for layer, neuron in ((0, 3), (2, 0), (2, 23)):
            edited = hooked(model, path, {layer: edits.edit(neuron, "flip", frames=frames)})
            lost = (clean - edited)[model.target("sad")]
            assert found["signed"].sel(clip=clip, layer=layer, neuron=neuron).item() == pytest.approx(lost, abs=2e-5)


class Reads(torch.nn.Module):
    """The first label is a weighted sum of the last layer's neurons, averaged over frames, the second 0."""

    def __init__(self, weights):
        super().__init__()
        self.register_buffer("weights", torch.as_tensor(weights, dtype=torch.float32))

    def forward(self, hidden):
        value = hidden.mean(1) @ self.weights
        return torch.stack([value, 0 * value], dim=-1)


def linear(tiny_folder, weights):
    return models.load(tiny_folder(), device="cpu", head=Reads(weights), labels=["yes", "no"])


def test_exhaustive_ablation_is_exact_for_linear_head(tiny_folder, clips):
    """With a linear head, zeroing a neuron loses its contribution, flipping it loses twice that, and all add up."""
    weights = np.random.default_rng(0).normal(size=24)
    model = linear(tiny_folder, weights)
    found = exhaustive_ablation(model, clips, target="yes", layers=3)
    for clip, path in clips["path"].items():
        with torch.no_grad(), hooks.capture(model, 3) as seen:
            value = model.logits(model.tensor(audio.read(path)))[0, 0].item()
        gave = weights * seen[hooks.Site(3)][0].mean(0).numpy()
        assert found["signed"].sel(clip=clip, layer=3).values == pytest.approx(gave, abs=1e-5)
        assert found["signed"].sel(clip=clip).sum().item() == pytest.approx(value, abs=1e-4)
    flipped = exhaustive_ablation(model, clips, target=("no", "yes"), layers=3, mode="flip")
    np.testing.assert_allclose(flipped["signed"], -2 * found["signed"], atol=2e-5)
    assert set(flipped["target"].values) == {"no − yes"}


def test_exhaustive_ablation_finds_planted_neuron(tiny_folder, clips):
    """The only neuron that the head reads is the only one with a score above rounding error."""
    found = exhaustive_ablation(linear(tiny_folder, np.eye(24)[5]), clips, target="yes", layers=3)["absolute"]
    assert (found.argmax("neuron") == 5).all() and found.drop_sel(neuron=5).max() < 1e-5 < found.sel(neuron=5).min()


def test_exhaustive_ablation_reports_targets_and_metadata(tiny, clips):
    """Predicted targets, their probabilities, the speakers and the options are reported with the scores."""
    model = tiny()
    found = exhaustive_ablation(model, clips, target="predicted", layers=2, scale="probability", seed=3)
    guess = model.predict(clips)
    assert found["target"].values.tolist() == guess["label"].tolist() and found["clip"].values.tolist() == [7, 9, 4]
    best = guess.drop(columns="label").astype(float).max(axis=1)
    np.testing.assert_allclose(found["value"], best, atol=1e-5)
    assert found["speaker"].values.tolist() == ["s0", "s1", "s2"]
    made = {
        "method": "exhaustive_ablation",
        "mode": "zero",
        "part": "hidden_state",
        "frames": "all",
        "scale": "probability",
        "seed": 3,
    }
    assert made.items() <= found.attrs.items()


def test_exhaustive_ablation_skips_bad_clips_and_round_trips(tiny, clips, tmp_path):
    """Unreadable clips are skipped with a warning and named, and results survive saving to NetCDF."""
    clips.loc[9, "path"] = "nowhere.wav"
    with pytest.warns(UserWarning, match="nowhere"):
        found = exhaustive_ablation(tiny(), clips, target="sad", layers=3, frames=[0, 1])
    assert found["clip"].values.tolist() == [7, 4] and list(json.loads(found.attrs["skipped"])) == ["9"]
    found.to_netcdf(tmp_path / "found.nc")
    with xr.open_dataset(tmp_path / "found.nc") as again:
        xr.testing.assert_identical(again.load(), found)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"target": "bored"}, "bored"),
        ({"mode": "explode"}, "unknown mode"),
        ({"frames": "some"}, "unknown frames"),
        ({"frames": [999]}, "frame 999 out of range"),
        ({"layers": 4}, "layer 4 out of range"),
        ({"part": "brain"}, "unknown part"),
        ({"scale": "percent"}, "unknown scale"),
        ({"batch": 0}, "batch must be 1 or more"),
        (
            {"mode": "mean"},
            r"mean needs activation_stats=activations.activation_stats\(model, training clips, part='hidden_state'\)",
        ),
        ({"mode": "noise"}, "noise needs activation_stats="),
        ({"mode": "patch"}, "patch needs a donor for each clip: pass donors=donors.minimal_pairs"),
    ],
)
def test_exhaustive_ablation_refuses_invalid_options(tiny, clips, options, message):
    """Unknown or missing options raise an error that names the problem."""
    with pytest.raises(ValueError, match=message):
        exhaustive_ablation(tiny(), clips, **{"target": "sad", **options})


def test_exhaustive_ablation_refuses_other_stats_and_untrained_head(tiny, tiny_folder, clips):
    """Activation statistics of another part and an untrained head are refused."""
    model = tiny()
    with pytest.raises(ValueError, match="of ffn_out instead of hidden_state"):
        exhaustive_ablation(
            model, clips, target="sad", mode="mean", activation_stats=activation_stats(model, clips, part="ffn_out")
        )
    model.trained = None
    with pytest.raises(models.UntrainedHead):
        exhaustive_ablation(model, clips, target="sad")
