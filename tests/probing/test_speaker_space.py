from __future__ import annotations

import json
import shutil
import zlib

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr

from xai_lib import audio, execution, hooks
from xai_lib.probing import speaker_space


def planted(model, clips, make):
    """An edit by which layer 2 holds `make(clip)` [neuron] in every frame; clips are told by their length."""
    known = {}
    for index, waveform in audio.stream(clips):
        known[model.n_frames(len(waveform))] = torch.as_tensor(make(clips.loc[index]))
    return hooks.edit(model, {hooks.Site(2): lambda hidden: known[hidden.shape[1]].to(hidden).expand_as(hidden)})


def own(name, width=24):
    """A place in the layer that is this name's alone."""
    return np.random.default_rng(zlib.crc32(name.encode())).standard_normal(width)


def test_readout_functions_project_frames_of_speech(model, voices, edited):
    """Readouts project the mean over the clean clip's speech; `similarity` is the cosine to the clean row."""
    fitted, waveform = speaker_space.fit(model, voices[:12]), audio.read(voices["path"][20])
    waveform = np.concatenate([np.zeros(3200, np.float32), waveform])
    speech = audio.speech_mask(waveform)
    assert not speech.all()
    reading = speaker_space.readout_functions(model, fitted, waveform)
    seen, hidden = edited(waveform, reading)
    cosines, _ = edited(waveform, {site: speaker_space.similarity(reader) for site, reader in reading.items()})
    for site, found in seen.items():
        at = fitted.sel(layer=site.layer)
        mean = hidden[site][:, speech].mean(axis=1) - at["centre"].values
        assert found == pytest.approx(mean @ at["projection"].values.T, rel=1e-3, abs=1e-2)
        expected = found @ found[0] / np.linalg.norm(found, axis=1) / np.linalg.norm(found[0])
        assert cosines[site].shape == (3, 1) and cosines[site][:, 0] == pytest.approx(expected, abs=1e-4)


def test_readout_functions_read_all_frames_without_speech(tiny, voices):
    """A clip in which no speech is found is placed by the mean of all its frames, at every layer."""
    model = tiny()
    fitted, hiss = speaker_space.fit(model, voices[:12]), 1e-5 * np.random.default_rng(0).standard_normal(4000)
    assert not audio.speech_mask(hiss).any()
    _, seen = execution.cascade_read(model, hiss, [], speaker_space.readout_functions(model, fitted, hiss))
    with torch.no_grad(), hooks.capture(model, model.sites()) as hidden:
        model.logits(model.tensor(hiss))
    assert list(seen) == model.sites() and hidden[hooks.Site(1)].shape[1] > 1
    for site, found in seen.items():
        at, mean = fitted.sel(layer=site.layer), hidden[site][0].mean(dim=0).cpu().numpy()
        expected = (mean - at["centre"].values) @ at["projection"].values.T
        assert found[0].cpu().numpy() == pytest.approx(expected, rel=1e-3, abs=1e-2)


@pytest.mark.parametrize(
    "same, different, rate, threshold",
    [
        ([0.8, 0.6, 0.4, 0.2], [0.5, 0.3, 0.1, -0.1], 0.25, 0.35),  # 0.2 is missed, 0.5 let through
        ([0.9, 0.7], [0.3, 0.1, -0.5], 0, 0.5),  # they lie apart: half-way
        ([0.7], [0.1, 0.3], 0, 0.5),
        ([-0.3, -0.1], [0.4, 0.6, 0.8], 1, 0.15),
        ([0.2, 0.2], [0.2], 0.5, 0.2),
    ],
)
def test_eer_equals_hand_computed_cases(same, different, rate, threshold):
    """The equal-error rate and its cosine are as computed by hand, in five cases."""
    kind = np.repeat([True, False], [len(same), len(different)])
    assert speaker_space._eer(kind, np.array(same + different)) == pytest.approx([rate, threshold])


def test_eer_balances_both_errors():
    """At the threshold the shares of missed and of falsely accepted pairs both equal the rate."""
    rng = np.random.default_rng(0)
    same = np.repeat([True, False], [300, 500])
    cosines = 0.3 * same + 0.2 * rng.standard_normal(800)
    rate, threshold = speaker_space._eer(same, cosines)
    assert threshold == pytest.approx(0.15, abs=0.03)  # of two normal distributions of one width: between them
    assert (cosines[same] < threshold).mean() == pytest.approx(rate, abs=1 / 300)
    assert (cosines[~same] >= threshold).mean() == pytest.approx(rate, abs=1 / 300)


def test_equal_error_rate_gives_scale_of_cosines(tiny, voices):
    """For clips at known angles, mean cosines within and between speakers, threshold and rate are as by hand."""
    model, test = tiny(), voices[12:]
    space = speaker_space.fit(model, voices[:12]).drop_vars("projection")
    space["projection"] = ("layer", "axis", "neuron"), np.stack([np.eye(24)] * 4)
    space["centre"] *= 0

    def place(clip):
        angle = np.radians([0, 40, 80][clip["statement"]])
        return np.cos(angle) * np.eye(24)[int(clip["speaker"][1:])] + np.sin(angle) * np.eye(24)[0]

    with planted(model, test, place):
        found = speaker_space.equal_error_rate(model, test, space, draws=2).sel(layer=2)
    cos = {angle: np.cos(np.radians(angle)) for angle in (40, 80)}
    assert found["same"].item() == pytest.approx((2 * cos[40] + cos[80]) / 3, abs=1e-5)
    sin = [np.sin(np.radians(angle)) for angle in (0, 40, 80)]
    between = np.mean([sin[i] * sin[j] for i in range(3) for j in range(3) if i != j])  # other statements
    assert found["different"].item() == pytest.approx(between, abs=1e-5)
    assert cos[80] < found["threshold"] < cos[40] and found["eer"] == pytest.approx(1 / 3, abs=0.01)


def test_equal_error_rate_separates_planted_voices(tiny, voices):
    """The rate is near 0 for voices planted apart, and near 0.5 for positions by clip and for shuffled speakers."""
    model, train, test = tiny(), voices[:12], voices[12:]

    def rates(make):
        with planted(model, voices, make):
            fitted = speaker_space.fit(model, train)
            return speaker_space.equal_error_rate(model, test, fitted).sel(layer=2)

    rng = np.random.default_rng(0)
    axes = np.linalg.qr(rng.standard_normal((24, 24)))[0][:8]  # voices differ in these, all else is the clip's
    apart = rates(lambda clip: own(clip["speaker"], 8) @ axes + 0.01 * own(clip["path"]))
    assert apart["eer"] == pytest.approx(0, abs=0.12) and apart["shuffled"] == pytest.approx(0.5, abs=0.08)
    assert apart["speakers"] == 8 and apart.attrs["reason"] == ""
    chance = rates(lambda clip: own(clip["path"]))
    assert chance["eer"] == pytest.approx(0.5, abs=0.15)


def test_equal_error_rate_is_zero_for_separable_voices(tiny, voices):
    """In a space whose axes are neurons, one for each voice, the rate is 0, and near 0.5 for shuffled speakers."""
    model, test = tiny(), voices[12:]
    space = speaker_space.fit(model, voices[:12]).drop_vars("projection")
    space["projection"] = ("layer", "axis", "neuron"), np.stack([np.eye(24)] * 4)
    space["centre"] *= 0
    with planted(model, test, lambda clip: np.eye(24)[int(clip["speaker"][1:])] + 0.1 * own(clip["path"])):
        found = speaker_space.equal_error_rate(model, test, space).sel(layer=2)
    assert found["eer"] == 0 and found["shuffled"] == pytest.approx(0.5, abs=0.08)


def test_equal_error_rate_omits_pairs_of_one_statement(tiny, voices):
    """Pairs known to say the same statement do not count; pairs of which a statement is unknown do."""
    model, fitted = tiny(), speaker_space.fit(tiny(), voices[:12])
    test = voices[12:].assign(statement=([0, 0, 1] * 8)).astype({"statement": object})
    test.loc[[20, 30], "statement"] = None  # of these it is not known
    found = speaker_space.equal_error_rate(model, test, fitted, draws=2)
    same = different = 0
    for i in test.index:
        for j in test.index[test.index > i]:
            a, b = test["statement"][i], test["statement"][j]
            if a is None or b is None or a != b:
                same += test["speaker"][i] == test["speaker"][j]
                different += test["speaker"][i] != test["speaker"][j]
    assert (found["same_pairs"], found["different_pairs"]) == (same, different)
    every = speaker_space.equal_error_rate(model, test.drop(columns="statement"), fitted, draws=2)
    assert (every["same_pairs"], every["different_pairs"]) == (8 * 3, 24 * 23 // 2 - 8 * 3)


def test_equal_error_rate_is_nan_with_a_reason(tiny, voices):
    """Under 8 speakers, or without pairs of a kind, rate and threshold are NaN, and the result says why."""
    model, fitted = tiny(), speaker_space.fit(tiny(), voices[:12])
    few = speaker_space.equal_error_rate(model, voices[12:33], fitted)
    assert all(few[name].isnull().all() for name in ("eer", "shuffled", "threshold"))
    assert few["same"].notnull().all() and few["different"].notnull().all()
    assert few.attrs["reason"] == "7 unseen speakers are too few: 8 are needed" and few["same_pairs"] == 21
    single = speaker_space.equal_error_rate(model, voices[12::3], fitted)
    assert single["eer"].isnull().all() and "one speaker" in single.attrs["reason"]
    assert single["same"].isnull().all() and single["different"].isnull().all()  # they say the same
    apart = speaker_space.equal_error_rate(model, voices[12::3].drop(columns="statement"), fitted)
    assert apart["same"].isnull().all() and apart["different"].notnull().all() and apart["threshold"].isnull().all()


@pytest.mark.filterwarnings("error")
def test_equal_error_rate_is_unchanged_by_saving(tiny, voices, tmp_path):
    """A space saved to NetCDF and opened again gives identical rates, without a warning."""
    model = tiny()
    fitted = speaker_space.fit(model, voices[:12])
    found = speaker_space.equal_error_rate(model, voices[12:], fitted)
    assert all(found[name].notnull().all() for name in ("eer", "shuffled", "same", "different", "threshold"))
    found.to_netcdf(tmp_path / "rate.nc")
    fitted.to_netcdf(tmp_path / "space.nc")
    with xr.open_dataset(tmp_path / "space.nc") as again:
        assert speaker_space.equal_error_rate(model, voices[12:], again.load()).equals(found)


def test_speaker_space_refuses_unfit_clips_and_models(tiny, voices):
    """Fitting and rating refuse clips without speakers, too few or training speakers, and other models."""
    model = tiny()
    with pytest.raises(ValueError, match="36 of 36 clips have no speaker: add a column"):
        speaker_space.fit(model, voices.drop(columns="speaker"))
    with pytest.raises(ValueError, match="3 speakers or more, and there are 2"):
        speaker_space.fit(model, voices[:6])
    with pytest.raises(ValueError, match="3 speakers or more, and there are 2"):
        speaker_space.fit(model, voices[:7])  # the third has a single clip
    fitted = speaker_space.fit(model, voices[:10])
    assert fitted.sizes["axis"] == 2 and json.loads(fitted.attrs["speakers"]) == ["s00", "s01", "s02"]
    assert json.loads(fitted.attrs["skipped"]) == {"9": "its speaker has no other clip"}
    with pytest.raises(ValueError, match="s02 is a training speaker"):
        speaker_space.equal_error_rate(model, voices[8:], fitted)
    with pytest.raises(ValueError, match="clips have no speaker"):
        speaker_space.equal_error_rate(model, voices[12:].assign(speaker=None), fitted)
    with pytest.raises(ValueError, match="expected the Dataset returned by speaker_space.fit.*, not a DataFrame"):
        speaker_space.equal_error_rate(model, voices[12:], voices)
    for other in (tiny(num_hidden_layers=2), tiny("large")):
        with pytest.raises(ValueError, match="fitted on another model.*speaker_space.fit"):
            speaker_space.equal_error_rate(other, voices[12:], fitted)


def test_xvector_gives_rate_and_skips_short_clips(tiny, xvector_heads, voices, tmp_path):
    """X-vectors get an equal-error rate at the last layer; clips too short for the head are skipped."""
    model = tiny()
    space = speaker_space.xvector(model, xvector_heads()[1])
    soundfile.write(tmp_path / "short.wav", 0.1 * np.random.default_rng(0).standard_normal(3000), 16000)
    clips = pd.concat([voices, voices[:1].assign(path=str(tmp_path / "short.wav"))], ignore_index=True)
    found = speaker_space.equal_error_rate(model, clips, space)  # 9 frames; its convolutions need 10
    assert found["layer"].values.tolist() == [3] and 0 <= found["eer"] <= 1 and found["speakers"] == 12
    assert json.loads(found.attrs["skipped"]) == {"36": "it is too short for the x-vector head"}
    assert space(torch.zeros(2, 9, 24)).isnan().all() and space(torch.randn(2, 10, 24)).isfinite().all()
    with pytest.raises(ValueError, match="no clip could be used: it is too short"):
        speaker_space.equal_error_rate(model, clips[36:], space)


def test_xvector_refuses_other_heads(tiny, tiny_folder, xvector_heads, tmp_path):
    """Untrained x-vector heads, other encoders, weighted layers, and weights not in safetensors are refused."""
    model = tiny()
    with pytest.raises(ValueError, match="has no trained x-vector head: it lacks feature_extractor"):
        speaker_space.xvector(model, tiny_folder("base"))
    with pytest.raises(FileNotFoundError, match="no folder"):
        speaker_space.xvector(model, tmp_path / "nowhere")
    network, folder = xvector_heads(use_weighted_layer_sum=True)
    with pytest.raises(ValueError, match="reads a weighted sum of layers"):
        speaker_space.xvector(model, folder)
    network, folder = xvector_heads()
    speaker_space.xvector(model, folder)
    with pytest.raises(ValueError, match="another encoder than"):
        speaker_space.xvector(tiny("large"), folder)
    with torch.no_grad():
        network.wavlm.encoder.layers[1].attention.q_proj.weight[0, 0] += 1e-3
    network.save_pretrained(folder)
    with pytest.raises(ValueError, match=r"layers.1.attention.q_proj.weight differs"):
        speaker_space.xvector(model, folder)
    shutil.move(folder / "model.safetensors", tmp_path / "away")
    torch.save(network.state_dict(), folder / "pytorch_model.bin")
    with pytest.raises(FileNotFoundError, match="could not be read from safetensors"):
        speaker_space.xvector(model, folder)
