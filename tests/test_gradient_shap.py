"""GradientSHAP against Captum under the same draws, and exact where the model is linear."""

from __future__ import annotations

import io
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from captum.attr import GradientShap
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import spearmanr

from xai_lib import audio, execution, gradient_shap
from xai_lib.gradient_shap import deletion_masks, draws, frame_deletion, frame_table, gate, top_frames
from xai_lib.plots import style
from xai_lib.widgets import FrameExplorer


@pytest.fixture
def clips(tmp_path):
    rows = []
    for place, length in enumerate((8000, 9777)):
        samples = 0.2 * np.random.default_rng(place).standard_normal(length) * np.linspace(0.01, 1, length)
        soundfile.write(tmp_path / f"{place}.wav", samples.astype(np.float32), 16000, subtype="FLOAT")
        rows.append({"path": str(tmp_path / f"{place}.wav"), "label": "sad", "speaker": f"s{place}"})
    return pd.DataFrame(rows)


@pytest.fixture
def linear():
    """A model whose logits are weighted sums of the samples."""
    weights = torch.as_tensor(np.random.default_rng(5).standard_normal((20_000, 2)), dtype=torch.float32)
    return SimpleNamespace(
        name="linear",
        labels=["calm", "angry"],
        sample_rate=16000,
        hop=320,
        span=400,
        weights=weights,
        require_trained=lambda: None,
        target=["calm", "angry"].index,
        n_frames=audio.n_frames,
        stream=lambda clips, skipped=None: audio.stream(clips, skipped=skipped),
        speech=audio.speech_mask,
        tensor=lambda wave: torch.as_tensor(wave)[None],
        logits=lambda x: x @ weights[: x.shape[1]],
    )


shap = gradient_shap.gradient_shap


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("baseline", ["noise", "silence", "clips"])
def test_equals_captum_under_the_same_draws(tiny, clips, size, baseline, monkeypatch):
    model, n = tiny(size), 6
    baseline = clips if baseline == "clips" else baseline
    found = shap(model, clips[1:], target="sad", baseline=baseline, n=n, seed=3, batch=4)
    x = model.tensor(audio.read(clips["path"][1]))
    alphas, others = draws(x[0], range(n), n=n, baseline=baseline, key=(3, 0), rate=16000)
    monkeypatch.setattr(np.random, "uniform", lambda low, high, shape: alphas.cpu().numpy().reshape(shape))
    monkeypatch.setattr(np.random, "choice", lambda count, size: np.arange(size))
    theirs = GradientShap(model.logits).attribute(x, others, n_samples=n, stdevs=0.0, target=model.target("sad"))[0]
    theirs, count = theirs.detach().cpu().double().numpy(), int(found["n_frames"][0])
    edges = np.append(np.arange(count) * 320, len(theirs))
    by_frame = np.array([theirs[a:b].sum() for a, b in zip(edges[:-1], edges[1:])])
    assert count == model.n_frames(len(theirs))
    assert np.abs(found["attribution"][0].values - by_frame).max() <= 1e-5 * max(np.abs(by_frame).max(), 1)


def test_exact_on_a_linear_model(linear, clips):
    found = shap(linear, clips, target="angry", baseline="silence", n=3, window=0.1)
    for place, path in enumerate(clips["path"]):
        wave, count = audio.read(path), int(found["n_frames"][place])
        parts = wave * linear.weights[: len(wave), 1].numpy()
        edges = np.append(np.arange(count) * 1600, len(wave))
        expected = [parts[a:b].sum() for a, b in zip(edges[:-1], edges[1:])]
        assert np.allclose(found["attribution"][place, :count], expected, atol=1e-4)
        assert np.isnan(found["attribution"][place, count:]).all()
    assert np.abs(found["residual"]).max() < 1e-3 and np.nanmax(found["error"]) < 1e-5
    assert found["n_frames"].values.tolist() == [5, 6] and np.allclose(found["seconds"], 0.1 * np.arange(6))
    noisy = shap(linear, clips, target=("angry", "calm"), n=3)
    assert np.abs(noisy["residual"]).max() < 1e-3
    x = torch.as_tensor(audio.read(clips["path"][1]))
    others = draws(x, range(3), n=3, baseline="noise", key=(0, 1), rate=16000)[1]
    weights = linear.weights[: len(x)] @ torch.tensor([-1.0, 1])
    first = ((x - others) * weights)[:, :320].sum(dim=1)
    assert noisy["attribution"][1, 0] == pytest.approx(first.mean().item(), rel=1e-4)
    assert noisy["error"][1, 0] == pytest.approx(first.std().item() / 3**0.5, rel=1e-4)
    assert set(noisy["target"].values) == {"angry − calm"}


def test_the_residual_shrinks_with_draws(tiny, clips):
    few, many = (shap(tiny("base"), clips[:1], target="sad", n=n, scale="log_odds") for n in (8, 256))
    assert abs(many["residual"].item()) < 4 * many["residual_error"].item() + 1e-4
    assert many["residual_error"] < 0.5 * few["residual_error"]
    assert many["error"].mean() < 0.5 * few["error"].mean()


def test_draws_do_not_depend_on_the_batch(tiny, clips):
    one, two = (shap(tiny("base"), clips, target="predicted", n=5, batch=batch) for batch in (1, 4))
    assert np.allclose(one["attribution"], two["attribution"], atol=1e-5, equal_nan=True)
    guess = tiny("base").predict(clips)
    assert one["predicted"].values.tolist() == one["target"].values.tolist() == guess["label"].tolist()
    assert np.allclose(one["probability"], one["target_probability"])
    other = shap(tiny("base"), clips, target="predicted", n=5, seed=1)
    assert not np.allclose(one["attribution"], other["attribution"], equal_nan=True)


def test_alphas_are_stratified_and_all_clips_are_baselines(tmp_path):
    for level in (1, 2, 3):
        soundfile.write(tmp_path / f"{level}.wav", np.full(500, level / 10, np.float32), 16000, subtype="FLOAT")
    table = pd.DataFrame({"path": [str(tmp_path / f"{level}.wav") for level in (1, 2, 3)]})
    x = torch.zeros(800)
    alphas, others = draws(x, range(30), n=30, baseline=table, key=(0, 0), rate=16000)
    assert np.floor(30 * alphas.numpy()).tolist() == list(range(30))  # one in each thirtieth
    assert 0.2 < (30 * alphas - torch.arange(30)).std() < 0.4  # anywhere in it
    assert sorted(set(others[:, 0].mul(10).round().int().tolist())) == [1, 2, 3]
    assert others.shape == (30, 800) and (others == others[:, :1]).all()  # a shorter clip is repeated
    half = draws(x, range(10, 20), n=30, baseline=table, key=(0, 0), rate=16000)
    assert torch.equal(half[0], alphas[10:20]) and torch.equal(half[1], others[10:20])


def test_memory_is_bounded():
    """Out of memory halves the batch; at one row it is said."""
    sizes = []

    def function(rows):
        sizes.append(len(rows))
        if len(rows) > 2:
            raise torch.OutOfMemoryError("full")
        return torch.tensor(list(rows))

    assert torch.cat([*execution.in_batches(function, 7, 5)]).tolist() == list(range(7)) and sizes == [5, 3, 2, 2, 2, 1]
    with pytest.raises(ValueError, match="batch must be 1 or more"):
        list(execution.in_batches(function, 7, 0))
    with pytest.raises(torch.OutOfMemoryError):
        list(execution.in_batches(lambda rows: function(range(9)), 3, 2))


@given(st.integers(400, 60_000), st.floats(0.005, 1.5))
def test_windows_share_out_the_clip(n_samples, seconds):
    model = SimpleNamespace(sample_rate=16000, hop=320, span=400, n_frames=audio.n_frames)
    assert gradient_shap.windows(model, n_samples, 0.02) == (320, audio.n_frames(n_samples))
    width, count = gradient_shap.windows(model, n_samples, seconds)
    assert count >= 1 and (count - 1) * width < n_samples
    values = torch.arange(2 * n_samples, dtype=torch.float64).reshape(2, -1)
    summed = gradient_shap._summed(values, width, count)
    assert summed.shape == (2, count) and torch.allclose(summed.sum(dim=1), values.sum(dim=1))
    assert torch.allclose(summed[:, 0], values[:, : width if count > 1 else None].sum(dim=1))


def test_wrong_options_are_said(tiny, clips):
    for options, message in (
        ({"n": 1}, "n must be 2"),
        ({"window": 0}, "shorter than"),
        ({"baseline": "pink"}, "unknown baseline"),
        ({"batch": 0}, "batch must"),
    ):
        with pytest.raises(ValueError, match=message):
            shap(tiny("base"), clips, target="sad", **options)


def test_tables(linear, clips):
    found = shap(linear, clips, target="angry", n=4)
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


def test_level_is_that_of_the_window(linear, clips):
    found, wave = shap(linear, clips, target="angry", n=2), audio.read(clips["path"][0])
    assert found["level"][0, 3] == pytest.approx(10 * np.log10(np.mean(wave[960:1280] ** 2)), abs=1e-3)
    assert ((found["speech"] >= 0) | np.isnan(found["speech"])).all() and np.nanmax(found["speech"]) == 1


def test_gate():
    wave = np.ones(1000, np.float32)
    assert np.allclose(gate(wave, [True] * 3), 1) and np.abs(gate(wave, [False] * 3)).max() == 0
    middle = gate(wave, [False, True, False])
    assert middle[480] == pytest.approx(1) and middle[200] == middle[800] == 0
    assert np.abs(np.diff(middle)).max() < 0.05 and len(middle) == 1000
    assert np.allclose(middle + gate(wave, [True, False, True]), 1, atol=1e-6)
    sides = gate(np.ones(960, np.float32), [False, True, False])  # neither early nor late
    assert np.allclose(sides, sides[::-1], atol=1e-6)
    assert sides[319] + sides[320] == pytest.approx(1, abs=1e-5)
    hard = gate(wave, [False, True, False], fade=0)
    assert np.allclose(hard[322:638], 1) and np.abs(hard[:318]).max() == 0


def test_deletion_of_the_top_frames_costs_most(linear, clips):
    found = shap(linear, clips, target="angry", n=2, baseline="silence")
    drop = frame_deletion(linear, clips, found, target="angry", share=0.3, frames="all", n=6, scale="logit")
    assert drop.dims == ("clip", "mode") and drop["speaker"].values.tolist() == ["s0", "s1"]
    for place in range(2):
        one = drop.isel(clip=place)
        best = np.sort(found["attribution"][place].dropna("frame").values)[::-1]
        expected = best[: round(0.3 * len(best))].sum()
        assert one.sel(mode="top").item() == pytest.approx(expected, rel=0.3)
        assert one.sel(mode="top") > max(one.sel(mode=mode) for mode in ("loudest", "shifted", "random"))
    again = frame_deletion(linear, clips, found, target="angry", share=0.3, frames="all", n=6, scale="logit", batch=2)
    assert np.allclose(drop, again, atol=1e-3)
    with pytest.raises(ValueError, match="share must be"):
        frame_deletion(linear, clips, found, target="angry", share=1.5)
    with pytest.raises(ValueError, match="unknown frames"):
        frame_deletion(linear, clips, found, target="angry", frames="loud")


def test_controls_stay_in_the_speech(linear, tmp_path):
    """Four fifths of the clip are silence: the top of all frames is the whole speech, its controls are mostly pauses."""
    wave = np.zeros(16400, np.float32)  # 51 frames
    wave[6400:9600] = 0.3 * np.random.default_rng(0).standard_normal(3200)
    soundfile.write(tmp_path / "speech.wav", wave, 16000, subtype="FLOAT")
    clips = pd.DataFrame({"path": [str(tmp_path / "speech.wav")], "label": "angry", "speaker": "s0"})
    linear.weights[:, 1] = 100 * torch.as_tensor(np.pad(wave, (0, 3600)))  # each frame is worth its energy
    found = shap(linear, clips, target="angry", n=2, baseline="silence")
    worth, count = found["attribution"].values[0], int((found["speech"].values[0] > 0.5).sum())
    assert 8 <= count <= 14
    options = {"target": "angry", "share": 0.4, "n": 40, "scale": "logit"}
    drop = frame_deletion(linear, clips, found, **options).isel(clip=0)
    expected = worth.sum() * round(0.4 * count) / count
    for mode in ("shifted", "random"):
        assert drop.sel(mode=mode).item() == pytest.approx(expected, rel=0.15)
    anywhere = frame_deletion(linear, clips, found, **options, frames="all").isel(clip=0)
    assert anywhere.sel(mode="random").item() == pytest.approx(0.4 * worth.sum(), rel=0.15)  # as large a share of all
    best = np.sort(worth)[::-1][: round(0.4 * count)].sum()
    assert drop.sel(mode="top").item() == pytest.approx(best, rel=0.15) and best < 0.7 * worth.sum()
    assert anywhere.sel(mode="top").item() == pytest.approx(worth.sum(), rel=0.02)


@given(st.integers(1, 40), st.floats(0.05, 0.95), st.integers(0, 9))
def test_deletion_masks(size, share, seed):
    rng = np.random.default_rng(seed)
    pool = np.sort(rng.permutation(60)[:size])
    attribution, level = rng.standard_normal((2, 60))
    masks = deletion_masks(attribution, level, pool, share, 5, rng)
    count = max(round(share * size), 1)
    assert masks.shape == (13, 60) and not masks[0].any() and (masks[1:].sum(axis=1) == count).all()
    assert not masks[:, np.setdiff1d(np.arange(60), pool)].any()
    for mask, values in ((masks[1], attribution), (masks[2], level)):
        assert set(np.flatnonzero(mask)) == set(pool[np.argsort(-values[pool])[:count]])
    turns = [np.roll(masks[1, pool], step).tolist() for step in range(size)]
    assert all(mask[pool].tolist() in (turns[1:] or turns) for mask in masks[3:8])  # never where they were


def test_a_clip_without_speech_is_named(linear, clips):
    found = shap(linear, clips, target="angry", n=2)
    found["speech"][0] = 0
    drop = frame_deletion(linear, clips, found, target="angry")
    assert drop["clip"].values.tolist() == [1] and "no speech" in drop.attrs["skipped"]
    found["speech"][1] = 0
    with pytest.raises(ValueError, match="not one clip could be used"):
        frame_deletion(linear, clips, found, target="angry")


def test_the_explorer_plays_the_top_frames_and_the_rest(linear, clips):
    style.use()
    shaps = {name: shap(linear, clips, target="angry", n=2, baseline=name) for name in ("noise", "silence")}
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
