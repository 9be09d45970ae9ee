"""GradientSHAP by hand, of planted neurons, and exact where the model is linear."""

from __future__ import annotations

import io
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr
from torch.multiprocessing.reductions import StorageWeakRef
from torch.utils._python_dispatch import TorchDispatchMode

from xai_lib import attribution, audio, execution, hooks, models, targets, workbook
from xai_lib.attribution import gradientshap
from xai_lib.attribution.gradientshap import draws, frame_table, top_frames
from xai_lib.faithfulness.deletion_test import gate
from xai_lib.plots import style
from xai_lib.widgets import FrameExplorer


@pytest.fixture
def clips(swelling_clips):
    return swelling_clips


shap = gradientshap.gradient_shap


def test_gradient_shap_is_exact_on_linear_model(linear, clips):
    """On a linear model, frame attributions and their errors equal closed forms, and the residual is 0."""
    found = shap(linear, clips, target="angry", baseline="silence", n=3, steps=1, window=0.1)
    for place, path in enumerate(clips["path"]):
        wave, count = audio.read(path), int(found["n_frames"][place])
        parts = wave * linear.weights[: len(wave), 1].numpy()
        edges = np.append(np.arange(count) * 1600, len(wave))
        expected = [parts[a:b].sum() for a, b in pairwise(edges)]
        assert np.allclose(found["attribution"][place, :count], expected, atol=1e-4)
        assert np.isnan(found["attribution"][place, count:]).all()
    assert np.abs(found["residual"]).max() < 1e-3 and np.nanmax(found["error"]) < 1e-5
    assert found["n_frames"].values.tolist() == [5, 6] and np.allclose(found["seconds"], 0.1 * np.arange(6))
    noisy = shap(linear, clips, target=("angry", "calm"), n=12, steps=4)
    assert np.abs(noisy["residual"]).max() < 1e-3
    x = torch.as_tensor(audio.read(clips["path"][1]))
    others = draws(x, range(0, 12, 4), steps=4, baseline="noise", key=targets.key(0, 1, "gradient_shap"), rate=16000)[
        1
    ]  # one a path
    weights = linear.weights[: len(x)] @ torch.tensor([-1.0, 1])
    first = ((x - others) * weights)[:, :320].sum(dim=1)
    assert noisy["attribution"][1, 0] == pytest.approx(first.mean().item(), rel=1e-4)
    assert noisy["error"][1, 0] == pytest.approx(first.std().item() / 3**0.5, rel=1e-4)
    value = (x @ weights).item()
    assert noisy["value"][1] == pytest.approx(value, rel=1e-4)
    assert noisy["attribution"][1].sum() == pytest.approx(value - (others @ weights).mean().item(), abs=1e-3)
    assert set(noisy["target"].values) == {"angry − calm"}


def test_gradient_shap_errors_shrink_with_draws(tiny, clips):
    """The residual stays within four standard errors of 0, and more draws shrink the standard errors."""
    few, many = (shap(tiny("base"), clips[:1], target="sad", n=n, steps=2, scale="log_odds") for n in (32, 512))
    assert abs(many["residual"].item()) < 4 * many["residual_error"].item() + 1e-4
    assert many["residual_error"] < 0.5 * few["residual_error"]
    assert many["error"].mean() < 0.5 * few["error"].mean()


def test_gradient_shap_error_matches_spread_over_seeds(tiny, clips):
    """The standard error over paths is the spread of the mean between seeds; over draws it would not be."""
    options = {"target": "sad", "n": 32, "steps": 4, "baseline": clips}
    found = [shap(tiny("base"), clips[:1], seed=seed, **options) for seed in range(20)]
    means, errors = (np.stack([one[name][0] for one in found]) for name in ("attribution", "error"))
    ratio = np.sqrt((errors**2).mean() / means.var(axis=0, ddof=1).mean())
    assert 0.75 < ratio < 1.33


def test_gradient_shap_is_independent_of_batch(tiny, clips):
    """Results depend on the seed but not on the batch size, even where a batch ends inside a path."""
    options = {"target": "predicted", "n": 12, "steps": 4, "layers": "all"}
    one, *more = (shap(tiny("base"), clips, batch=batch, **options) for batch in (1, 3, 5, 100))
    for two in more:  # also where a batch ends inside a path
        for name, values in one.data_vars.items():
            assert np.allclose(values, two[name], atol=1e-5, equal_nan=True)
    guess = tiny("base").predict(clips)
    assert one["predicted"].values.tolist() == one["target"].values.tolist() == guess["label"].tolist()
    assert np.allclose(one["probability"], one["target_probability"])
    other = shap(tiny("base"), clips, seed=1, **options)
    assert not np.allclose(one["attribution"], other["attribution"], equal_nan=True)


def test_draws_stratify_alphas_within_paths(tmp_path):
    """Alphas are stratified within a path, each path has one baseline, and all clips serve as baselines."""
    for level in (1, 2, 3):
        soundfile.write(tmp_path / f"{level}.wav", np.full(500, level / 10, np.float32), 16000, subtype="FLOAT")
    table = pd.DataFrame({"path": [str(tmp_path / f"{level}.wav") for level in (1, 2, 3)]})
    x, options = torch.zeros(800), {"baseline": table, "key": (0, 0), "rate": 16000}
    alphas, others = draws(x, range(90), steps=3, **options)
    assert np.floor(3 * alphas.numpy()).tolist() == [0, 1, 2] * 30  # one in each third
    assert 0.2 < (3 * alphas % 1).std() < 0.4  # anywhere in it
    assert torch.equal(others[::3], others[1::3]) and torch.equal(others[::3], others[2::3])  # one baseline a path
    assert sorted(set(others[:, 0].mul(10).round().int().tolist())) == [1, 2, 3]
    assert others.shape == (90, 800) and (others == others[:, :1]).all()  # a shorter clip is repeated
    part = draws(x, range(10, 20), steps=3, **options)
    assert torch.equal(part[0], alphas[10:20]) and torch.equal(part[1], others[10:20])
    assert torch.equal(draws(x, range(0, 150, 5), steps=5, **options)[1], others[::3])  # the same for any steps


def by_hand(model, wave, place, *, part, target, scale, n, steps, seed):
    """Attributions of the neurons [path, layer, frame, neuron], and f(x) − f(b) [path], one forward at a time."""
    x, sites = model.tensor(wave)[0], model.sites(part)

    def at(point):
        point = point[None].clone().requires_grad_()
        with torch.enable_grad(), hooks.capture(model, sites) as seen:
            value = targets.value(model, model.logits(point), targets.resolve(model, target, None), scale)[0]
        slopes = torch.autograd.grad(value, [seen[site] for site in sites])
        return value.item(), torch.stack([seen[site][0].detach() for site in sites]), torch.cat(slopes)

    found, gaps, (value, end, _) = [], [], at(x)
    for path in range(n // steps):
        rows = range(path * steps, (path + 1) * steps)
        alphas, others = draws(
            x, rows, steps=steps, baseline="noise", key=targets.key(seed, place, "gradient_shap"), rate=16000
        )
        start_value, start, _ = at(others[0])
        points = [at(other + alpha * (x - other)) for alpha, other in zip(alphas, others)]
        hidden = [start, *(point[1] for point in points), end]
        slope = [points[0][2], *(point[2] for point in points), points[-1][2]]
        stretches = [(slope[i] + slope[i + 1]) / 2 * (hidden[i + 1] - hidden[i]) for i in range(1, steps)]
        stretches += [slope[0] * (hidden[1] - start), slope[-1] * (end - hidden[-2])]
        found.append(sum(stretches))
        gaps.append(value - start_value)
    return torch.stack(found).cpu().numpy(), np.array(gaps)


@pytest.mark.parametrize("part", ["hidden_state", "ffn_hidden"])
@pytest.mark.parametrize("kind", ["base", "large", "large-sum"])
@pytest.mark.parametrize(
    "target, scale, frames", [("sad", "probability", "speech"), (("angry", "calm"), "logit", "all")]
)
def test_gradient_shap_neurons_equal_hand_computation(tiny, clips, kind, part, target, scale, frames):
    """Neuron attributions and their residual equal a sum by hand over single forward and backward passes."""
    model = tiny(kind.split("-")[0], **({"use_weighted_layer_sum": True} if "-" in kind else {}))
    options = {"target": target, "scale": scale, "part": part, "n": 6, "steps": 3, "seed": 4}
    found = shap(model, clips, layers="all", frames=frames, batch=4, **options)
    assert found["layer"].values.tolist() == list(range(part != "hidden_state", 4))
    assert found.sizes["neuron"] == model.n_neurons((1, part)) and found.attrs["part"] == part
    for place, path in enumerate(clips["path"]):
        wave = audio.read(path)
        keep = model.speech(wave) if frames == "speech" else np.ones(model.n_frames(len(wave)), bool)
        expected, gaps = by_hand(model, wave, place, **options)
        mean = expected.mean(axis=0)
        for name, values in {"signed": mean[:, keep], "absolute": np.abs(mean[:, keep])}.items():
            ours, theirs = found[name][place].values, values.sum(axis=1)
            assert np.abs(ours - theirs).max() <= 1e-5 * np.abs(mean).sum(axis=1).max()
        left = mean.sum(axis=(1, 2)) - gaps.mean()
        assert found["neuron_residual"][place].values == pytest.approx(left, abs=1e-6)
    spread = found["signed"].std("neuron") / np.abs(found["signed"]).mean("neuron")
    assert (spread > 0.5).all()  # each neuron has its own


@pytest.mark.parametrize("size", ["base", "large"])
def test_gradient_shap_neuron_residual_shrinks_with_steps(tiny, clips, size):
    """The residual of the neurons completes their sum to the change of the target, and shrinks with steps."""
    left = []
    for steps in (1, 8, 32):  # on paths from the same baselines
        found = shap(tiny(size), clips, target="sad", n=8 * steps, steps=steps, layers="all")
        left.append(np.abs(found["neuron_residual"]).mean().item())
        gap = (found["attribution"].sum("frame") - found["residual"]).values[:, None]  # f(x) − mean f(b)
        assert np.allclose(found["signed"].sum("neuron") - found["neuron_residual"], gap, atol=1e-6)
    assert left[0] > 1.5 * left[1] > 3 * left[2] and left[2] < 0.15 * left[0]


def test_gradient_shap_neurons_are_exact_for_linear_head(tiny_folder, clips):
    """With a linear head, a neuron gets its weight times its change from the baselines, and the residual is 0."""
    model = models.load(tiny_folder("base"), head=torch.nn.Linear(24, 2), labels=["calm", "angry"], device="cpu")
    found = shap(model, clips[:1], target="angry", n=4, steps=2, layers=3)
    x = model.tensor(audio.read(clips["path"][0]))
    others = draws(x[0], [0, 2], steps=2, baseline="noise", key=targets.key(0, 0, "gradient_shap"), rate=16000)[1]
    hidden = execution.prefix(model, torch.cat([x, others]), 3).hidden.mean(dim=1)
    expected = model.head.weight[1] * (hidden[0] - hidden[1:].mean(dim=0))
    assert np.allclose(found["signed"][0, 0], expected, atol=1e-5)
    assert np.abs(found["neuron_residual"]).max() < 1e-5


@pytest.mark.parametrize("size", ["base", "large"])
def test_gradient_shap_finds_planted_neuron(tiny, clips, size):
    """The only FFN neuron with outgoing weights gets all attribution of its layer, and ranks first."""
    model = tiny(size)
    model.architecture.layers[1].feed_forward.output_dense.weight[:, torch.arange(40) != 7] = 0
    found = shap(model, clips, target="sad", n=4, steps=2, layers=[2], part="ffn_hidden")
    assert (found["absolute"].drop_sel(neuron=7) == 0).all() and (found["absolute"].sel(neuron=7) > 0).all()
    best = attribution.top_neurons(found, 1)
    assert best[["layer", "part", "neuron"]].values.tolist() == [[2, "ffn_hidden", 7]]


@pytest.mark.parametrize("kind", ["base", "large"])
def test_gradient_shap_neurons_need_no_extra_passes(tiny, clips, kind, monkeypatch):
    """Neuron attributions need no further forward or backward pass, and leave those of frames unchanged."""
    model, forwards, backwards = tiny(kind), [], []
    model.architecture.base.feature_extractor.register_forward_hook(lambda _, args, out: forwards.append(len(args[0])))
    grad = torch.autograd.grad
    monkeypatch.setattr(torch.autograd, "grad", lambda *args: backwards.append(1) or grad(*args))
    options = {"target": "sad", "n": 12, "steps": 4, "batch": 6}
    plain = shap(model, clips[:1], **options)
    assert (len(backwards), forwards) == (2, [1, 2, 6, 1, 6])  # the clip; the baselines of a batch, and its draws
    both = shap(model, clips[:1], layers="all", **options)
    assert (len(backwards), forwards) == (4, 2 * [1, 2, 6, 1, 6])
    for name, values in plain.data_vars.items():
        assert np.allclose(values, both[name], atol=1e-6, rtol=1e-6)


class Live(TorchDispatchMode):
    """Weighs the tensors that live, those kept for a backward included."""

    def __init__(self):
        super().__init__()
        self.storages, self.most = {}, 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        found = function(*args, **(kwargs or {}))
        for tensor in found if isinstance(found, (tuple, list)) else [found]:
            if isinstance(tensor, torch.Tensor):
                storage = tensor.untyped_storage()
                self.storages[storage.data_ptr()] = StorageWeakRef(storage), storage.nbytes()
        if function is torch.ops.aten.gelu_backward.default:
            self.storages = {key: (ref, size) for key, (ref, size) in self.storages.items() if not ref.expired()}
            self.most = max(self.most, sum(size for _, size in self.storages.values()))
        return found


def test_gradient_shap_memory_is_constant_in_draws(tiny, clips):
    """Peak memory does not grow with the number of draws, only with the batch size."""

    def weigh(n, batch):
        with Live() as live:
            shap(tiny("base"), clips[:1], target="sad", n=n, steps=8, layers="all", batch=batch)
        return live.most

    few, many, wide = weigh(16, 4), weigh(64, 4), weigh(16, 8)
    assert many < 1.02 * few and wide > 1.5 * few


def test_gradient_shap_reduces_draws(tiny, clips):
    """Draws are averaged, summed, maximised or kept; the residual stays that of the mean; tables need the mean."""
    options = {"target": "sad", "n": 8, "steps": 4}
    found = {reduce: shap(tiny("base"), clips, reduce=reduce, **options) for reduce in gradientshap.REDUCE}
    every, mean = found["none"], found["mean"]
    assert every["attribution"].dims == ("clip", "draw", "frame") and every["alpha"].dims == ("clip", "draw")
    assert every["path"].values.tolist() == [0] * 4 + [1] * 4
    assert (np.floor(4 * every["alpha"]) == [0, 1, 2, 3, 0, 1, 2, 3]).all()
    assert np.isnan(every["attribution"][0, :, int(every["n_frames"][0]) :]).all()
    assert np.allclose(every["attribution"].mean("draw"), mean["attribution"], atol=1e-6, equal_nan=True)
    assert np.array_equal(every["attribution"].max("draw"), found["max"]["attribution"], equal_nan=True)
    for name in ("attribution", "error"):
        assert np.allclose(found["sum"][name], 8 * mean[name], rtol=1e-5, equal_nan=True)
    assert np.isnan(found["max"]["error"]).all() and np.isnan(every["error"]).all()
    paths = every["attribution"].groupby("path").mean()
    assert np.allclose(paths.std("path", ddof=1) / 2**0.5, mean["error"], atol=1e-6, equal_nan=True)
    for one in found.values():  # what is left over is always that of the mean
        assert np.array_equal(one["residual"], mean["residual"])
    for table in (frame_table, lambda shap: top_frames(shap, 3)):
        with pytest.raises(ValueError, match="reduce='mean'"):
            table(every)


def test_gradient_shap_round_trips_through_netcdf(tiny, clips, tmp_path):
    """Neuron attributions and single draws are unchanged after saving to NetCDF and reopening."""
    found = shap(tiny("base"), clips, target="sad", n=4, steps=2, layers=[0, 3], reduce="none")
    workbook.netcdf_safe(found).to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as again:
        assert np.array_equal(again["alpha"], found["alpha"]) and again["layer"].values.tolist() == [0, 3]
        assert again["speaker"].values.tolist() == ["s0", "s1"] and again.attrs["steps"] == 2
        assert np.array_equal(again["signed"], found["signed"])


def test_gradient_shap_survives_running_out_of_memory(tiny, clips, monkeypatch):
    """A batch that runs out of memory at its end is repeated in parts, from the draw that was before it."""
    options = {"target": "sad", "n": 8, "steps": 4, "batch": 6, "layers": "all"}  # the second batch is inside a path
    undisturbed = shap(tiny("base"), clips[:1], **options)
    plain, failures = targets.value, []

    def value(model, logits, *arguments):
        if len(logits) == 0 and not failures:  # of the baselines of a batch that begins no path
            failures.append("full")
            raise torch.OutOfMemoryError("full")
        return plain(model, logits, *arguments)

    monkeypatch.setattr(targets, "value", value)
    found = shap(tiny("base"), clips[:1], **options)
    assert failures
    for name, values in undisturbed.data_vars.items():
        np.testing.assert_allclose(found[name], values, atol=1e-5)


@given(st.integers(400, 60_000), st.floats(0.005, 1.5))
def test_windows_partition_the_clip(n_samples, seconds):
    """Windows of 20 ms are the encoder frames, and sums over windows of any length add up to the whole clip."""
    model = SimpleNamespace(sample_rate=16000, hop=320, span=400, n_frames=audio.n_frames)
    assert gradientshap.windows(model, n_samples, 0.02) == (320, audio.n_frames(n_samples))
    width, count = gradientshap.windows(model, n_samples, seconds)
    assert count >= 1 and (count - 1) * width < n_samples
    values = torch.arange(2 * n_samples, dtype=torch.float64).reshape(2, -1)
    summed = gradientshap._summed(values, width, count)
    assert summed.shape == (2, count) and torch.allclose(summed.sum(dim=1), values.sum(dim=1))
    assert torch.allclose(summed[:, 0], values[:, : width if count > 1 else None].sum(dim=1))


def test_gradient_shap_refuses_invalid_options(tiny, clips):
    """Numbers of draws and steps that do not fit, and unknown options, raise an error that names the problem."""
    for options, message in (
        ({"n": 8}, "n must be a multiple of steps, twice or more .*, not n=8 with steps=8"),
        ({"n": 9, "steps": 4}, "not n=9 with steps=4"),
        ({"steps": 0}, "steps must be a whole number from 1 up, not 0"),
        ({"n": [4]}, r"n must be a whole number from 1 up, not \[4\]"),
        ({"reduce": "median"}, "unknown reduce 'median': use mean, sum, max, none"),
        ({"layers": 4}, "layer 4 out of range"),
        ({"layers": "all", "part": "mlp"}, "unknown part"),
        ({"frames": "loud"}, "unknown frames"),
        ({"frames": [3]}, "unknown frames"),
        ({"window": 0}, "shorter than"),
        ({"baseline": "pink"}, "unknown baseline"),
        ({"batch": 0}, "batch must"),
    ):
        with pytest.raises(ValueError, match=message):
            shap(tiny("base"), clips, target="sad", **options)


def test_frame_table_and_top_frames_equal_hand_values(linear, clips):
    """The tables give the rank correlation with level, the shares of speech, and the highest frames of each clip."""
    found = shap(linear, clips, target="angry", n=4, steps=2)
    table = frame_table(found)
    one = found.isel(clip=0, frame=slice(int(found["n_frames"][0])))
    size = np.abs(one["attribution"].values)
    assert table.index.tolist() == [0, 1]
    assert table["level_rho"][0] == pytest.approx(spearmanr(size, one["level"]).statistic)
    assert table["speech_time"][0] == pytest.approx(one["speech"].values.mean())
    assert table["speech_attribution"][0] == pytest.approx((size * one["speech"]).sum() / size.sum())
    best = top_frames(found, 3)
    assert len(best) == 6 and best["attribution"][0] == found["attribution"][0].max()
    assert np.allclose(best["start"], 0.02 * best["frame"]) and np.allclose(best["stop"] - best["start"], 0.02)
    assert best["frame"].tolist()[:3] == np.argsort(-one["attribution"].values)[:3].tolist()


def test_gradient_shap_level_is_that_of_window(linear, clips):
    """The level of a frame is that of its own samples in dBFS, and its share of speech is between 0 and 1."""
    found, wave = shap(linear, clips, target="angry", n=2, steps=1), audio.read(clips["path"][0])
    assert found["level"][0, 3] == pytest.approx(10 * np.log10(np.mean(wave[960:1280] ** 2)), abs=1e-3)
    assert ((found["speech"] >= 0) | np.isnan(found["speech"])).all() and np.nanmax(found["speech"]) == 1


@pytest.mark.heavy
def test_frame_explorer_plays_top_frames_and_rest(linear, clips):
    """The explorer plays the top frames and the rest, which add up to the clip, and can switch baselines."""
    style.use()
    shaps = {name: shap(linear, clips, target="angry", n=4, steps=2, baseline=name) for name in ("noise", "silence")}
    panel = FrameExplorer(shaps, clips, k=5)
    panel.controls["k"].value, panel.controls["clip"].value = 7, 1
    assert panel.error is None and "1.wav" in panel.figure.axes[0].get_title(loc="left")
    assert "top 7 frames" in panel.figure.axes[0].get_title(loc="left")
    top, rest = (soundfile.read(io.BytesIO(item.children[1].value))[0] for item in panel.shown[1:])
    keep = np.zeros(int(shaps["noise"]["n_frames"][1]), bool)
    keep[top_frames(shaps["noise"].isel(clip=[1]), 7)["frame"]] = True
    wave = audio.read(clips["path"][1])
    assert np.allclose(top, gate(wave, keep), atol=1e-4) and np.allclose(top + rest, wave, atol=1e-4)
    panel.controls["baseline"].value = "silence"
    assert panel.error is None
