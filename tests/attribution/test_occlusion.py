"""Input-segment ablation against planted and hand-made cases."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr

from xai_lib import audio, execution, hooks, models, workbook
from xai_lib.attribution import occlusion
from xai_lib.attribution.occlusion import segment_response
from xai_lib.faithfulness import deletion_test


def test_segment_response_equals_planted_contributions(tiny, clips, monkeypatch):
    """A neuron planted as a weighted sum of all samples, or one segment's, responds by each segment's share."""
    model, waves = tiny(), []
    prepare, weights = model.prepare, torch.randn(8000, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(model, "prepare", lambda x: waves.append(x) or prepare(x))
    inside = torch.arange(8000) // 1600 == 2
    x = torch.as_tensor(audio.read(clips["path"][7]))

    def plant(hidden, weights):
        hidden[..., 5] = (waves[-1] @ weights.to(hidden.device))[:, None]
        return hidden

    for some in (weights, weights * inside):
        with hooks.edit(model, {2: partial(plant, weights=some)}):
            found = segment_response(model, clips[:1], fade=0, frames="all", layers=[2])[0, :, 0]
        given = (x * some).reshape(5, 1600).sum(dim=1)
        np.testing.assert_allclose(found.sel(neuron=5), given, atol=1e-4 * given.abs().max())
    away = np.abs(found)[[0, 1, 3, 4]]
    assert away.sel(neuron=5).max() < 1e-4 < away.drop_sel(neuron=5).max("segment").min()


def test_segment_response_passes_speech_frames_to_respond(tiny, clips):
    """The callable `respond` gets batches of speech frames alone, and its outputs replace the neurons."""
    model, seen = tiny("base"), []

    def both(hidden):
        seen.append(tuple(hidden.shape))
        return torch.stack([hidden.sum(dim=(1, 2)), hidden[:, :, 4].mean(dim=1)], dim=1)

    speech = int(audio.speech_mask(audio.read(clips["path"][7])).sum())
    found = segment_response(model, clips[:1], respond=both, layers=[1, 2], batch=4)
    assert 0 < speech < 24 and seen == [(4, speech, 24)] * 2 + [(2, speech, 24)] * 2
    plain = segment_response(model, clips[:1], layers=[1, 2])
    assert np.allclose(found.isel(neuron=1), plain.sel(neuron=4), atol=1e-6)
    assert np.allclose(found.isel(neuron=0), plain.sum("neuron") * speech, atol=1e-3)


def test_segment_response_noise_depends_on_seed_only(tiny, clips):
    """Responses to noise depend on the seed and not on the batch size."""
    model = tiny("large")
    options = {"layers": [1, 3], "part": "ffn_hidden", "seconds": 0.2, "baseline": "noise"}
    noise = [segment_response(model, clips, seed=s, batch=b, **options) for s, b in ((0, 2), (0, 9), (1, 9))]
    assert noise[0].sizes["neuron"] == model.n_neurons((1, "ffn_hidden"))
    assert np.allclose(noise[0], noise[1], atol=1e-5, equal_nan=True)
    assert np.nanmax(np.abs(noise[0] - noise[2])) > 1e-3


def test_segment_response_noise_is_specific_to_clip(tiny, clips):
    """A clip's noise follows its index: equal in any selection, different for the same sound at another index."""
    options = {"layers": 2, "baseline": "noise", "frames": "all"}
    both = segment_response(tiny(), clips, **options)
    for order in (clips[::-1], clips[1:]):
        again = segment_response(tiny(), order, **options)
        assert np.allclose(again.sel(clip=9), both.sel(clip=9), atol=1e-6, equal_nan=True)
    twin = pd.concat([clips[:1], clips[:1].set_axis([8])])  # the same sound, under another name
    found = segment_response(tiny(), twin, **options)
    assert not np.allclose(found[0], found[1], atol=1e-4, equal_nan=True)


def test_replacement_noise_matches_segment_moments():
    """Replacement noise has the mean and standard deviation of the segment that it replaces."""
    wave = np.concatenate([3 + np.random.default_rng(0).standard_normal(4000), np.full(4000, -1.0)]).astype(np.float32)
    other = occlusion._replacement("noise", wave, [0, 4000, 8000], np.random.default_rng(1), 0)
    assert other[:4000].mean() == pytest.approx(3, abs=0.1) and other[:4000].std() == pytest.approx(1, abs=0.05)
    assert np.allclose(other[4000:], -1)


def test_without_replaces_and_fades_segment():
    """Only samples within the segment are replaced, with symmetric fades inside its edges, or none at fade 0."""
    x, other = torch.ones(100), torch.zeros(100)
    kept = occlusion._without(x, other, 20, 60, 10)
    assert (kept[:20] == 1).all() and (kept[60:] == 1).all() and (kept[30:50] == 0).all()
    assert (kept[20:30].diff() < 0).all() and torch.allclose(kept[20:60], kept[20:60].flip(0))
    assert occlusion._without(x, other, 20, 60, 0).sum() == 60
    ramp = torch.arange(100.0)
    assert (occlusion._without(x, ramp, 20, 60, 0)[20:60] == ramp[20:60]).all()


@pytest.mark.parametrize("seconds", [0.1, 0.02])
def test_segment_response_batch_bounds_memory(tiny, clips, monkeypatch, seconds):
    """No forward pass holds more rows than the batch size, however many segments there are."""
    model, rows, plain = tiny("base"), [], execution.prefix

    def count(model, x, layer):
        rows.append(len(x))
        return plain(model, x, layer)

    monkeypatch.setattr(execution, "prefix", count)
    found = segment_response(model, clips[:1], seconds=seconds, batch=4, layers=2)
    segment_count = int(found["n_segments"][0])
    assert segment_count == {0.1: 5, 0.02: 24}[seconds] and sum(rows) == segment_count + 1
    assert max(rows) == 4


def test_segment_response_reports_frame_out_of_range(tiny, clips):
    """A clip that lacks the frame is skipped with the reason, and a frame that no clip has is refused."""
    model = tiny("base")
    found = segment_response(model, clips, frames=26, layers=1)
    assert found["clip"].values.tolist() == [9] and "frame 26 out of range: the clip has 0" in found.attrs["skipped"]
    for frame in (99, -1):
        with pytest.raises(ValueError, match=f"frame {frame} out of range"):
            segment_response(model, clips, frames=frame)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"baseline": "loud"}, "unknown baseline 'loud': use silence, noise, mean"),
        ({"baseline": np.zeros(8000)}, r"clip 9 has the shape \(8000,\): it must be as long as the clip, 10000"),
        ({"baseline": lambda wave: wave[1:]}, r"clip 7 has the shape \(7999,\)"),
        ({"baseline": np.nan}, "NaN"),
        ({"frames": "loud"}, "unknown frames"),
        ({"layers": 9}, "layer 9 out of range"),
        ({"part": "mlp"}, "unknown part"),
        ({"seconds": 0}, "shorter than one sample"),
        ({"batch": 0}, "batch must be 1"),
        ({"respond": lambda hidden: hidden}, r"respond returned .* must return a tensor \[batch\]"),
        ({"respond": lambda hidden: hidden.mean()}, r"respond returned .* must return a tensor \[batch\]"),
        ({"respond": lambda hidden: 1.0}, "returned float"),
    ],
)
def test_segment_response_refuses_invalid_options(tiny, clips, options, message):
    """Invalid baselines, outputs of `respond` and other options raise an error that names the problem."""
    with pytest.raises(ValueError, match=message):
        segment_response(tiny("base"), clips, **options)


def test_segment_response_refuses_untrained_head_and_no_speech(tiny_folder, tiny, clips, monkeypatch):
    """An untrained head is refused, and so are clips of which none contains speech."""
    model = models.load(tiny_folder("base"), device="cpu")
    model.trained = None
    with pytest.raises(models.UntrainedHead, match="heads.fit"):
        segment_response(model, clips)
    monkeypatch.setattr(audio, "speech_mask", lambda x, *_, **__: np.zeros(24 if len(x) == 8000 else 30, bool))
    with pytest.raises(ValueError, match="no speech was found"):
        segment_response(tiny("base"), clips)


def test_segment_response_skips_bad_clips_and_round_trips(tiny, clips, tmp_path):
    """A clip that is too short is skipped with the reason; response and summary can be saved and reopened."""
    soundfile.write(tmp_path / "short.wav", np.ones(100), 16000)
    more = pd.concat([clips, pd.DataFrame({"path": [str(tmp_path / "short.wav")], "label": None})])
    with pytest.warns(UserWarning, match="1 of 3 clips were skipped"):
        found = segment_response(tiny("base"), more, baseline=lambda wave: -wave)
    assert found["clip"].values.tolist() == [7, 9] and "shorter than" in found.attrs["skipped"]
    assert found.attrs["baseline"] == "given"
    for result in (found, occlusion.summary(found)):
        workbook.netcdf_safe(result).to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as again:
            assert again["speaker"].values.tolist() == ["s0", "s1"]
            for name, values in (result if isinstance(result, xr.Dataset) else result.to_dataset()).data_vars.items():
                np.testing.assert_array_equal(again[name], values)


def hand_made():
    """Two clips, one neuron; the second clip has two segments only."""
    values = np.array([[1, -4, 2], [-1, 3, np.nan]])[:, :, None, None]
    coords = {
        "clip": ["b", "a"],
        "n_segments": ("clip", [3, 2]),
        "duration": ("clip", [0.27, 0.22]),
        "layer": [6],
        "neuron": [0],
        "seconds": ("segment", [0.0, 0.1, 0.2]),
    }
    return xr.DataArray(values, coords, ("clip", "segment", "layer", "neuron"), "response", {"length": 0.1})


def test_summary_ignores_padding():
    """Mean, range, SD and peak of a clip leave out the padding after its last segment."""
    found = occlusion.summary(hand_made()).sel(layer=6, neuron=0)
    assert np.allclose(found["mean_absolute"], [7 / 3, 2]) and np.allclose(found["range"], [6, 4])
    assert np.allclose(found["sd"], [np.std([1, -4, 2]), 2]) and np.allclose(found["peak"], [0.1, 0.1])
    assert found["clip"].values.tolist() == ["b", "a"]


def test_top_segments_rank_by_magnitude():
    """Top segments are those of the largest absolute response in each clip, and the last one ends with the clip."""
    found = occlusion.top_segments(hand_made(), 6, 0, k=2)
    assert found["clip"].tolist() == ["b", "b", "a", "a"] and found["segment"].tolist() == [1, 2, 1, 0]
    assert np.allclose(found["start"], [0.1, 0.2, 0.1, 0.0]) and found["response"].tolist() == [-4, 2, 3, -1]
    assert np.allclose(found["stop"], [0.2, 0.27, 0.22, 0.1])  # the last segment of a clip ends with it
    assert len(occlusion.top_segments(hand_made(), 6, 0, k=9)) == 5


def test_top_segments_and_rest_sum_to_clip(tiny, clips):
    """The gated top segments and the gated rest add up to the clip, and a top segment's sound is unchanged."""
    found, wave = segment_response(tiny("base"), clips[:1]), audio.read(clips["path"][7])
    top = occlusion.top_segments(found, 2, 5, k=2)
    keep = np.isin(np.arange(found.sizes["segment"]), top["segment"])
    heard, rest = (deletion_test.gate(wave, which, window=found.attrs["length"]) for which in (keep, ~keep))
    assert np.allclose(heard + rest, wave, atol=1e-6) and np.abs(heard).max() > 0 and np.abs(rest).max() > 0
    start, stop = (round(16000 * top[name][0]) for name in ("start", "stop"))
    assert np.allclose(heard[start + 100 : stop - 100], wave[start + 100 : stop - 100], atol=1e-6)
