from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from speechlike import voice

from xai_lib import audio, execution, hooks
from xai_lib.probing import acoustic_decoders

NAMES = list(acoustic_decoders.FEATURES)


@pytest.fixture(scope="module")
def voices(gliding_voices):
    return gliding_voices


def plant(model, clips, make):
    """An edit by which a layer holds [frame, neuron] `make(truth [frame, feature], clip)`; clips are told by length."""
    known = {}
    for index, waveform in audio.stream(clips):
        true = acoustic_decoders.truth(model, waveform).T
        known[len(true)] = torch.as_tensor(make(true, clips.loc[index]))
    return lambda hidden: known[hidden.shape[1]].to(hidden).expand_as(hidden)


def noise(model, scale=1.0):
    """Noise, the same for clips of one length."""
    return lambda true, clip: scale * np.random.default_rng(len(true)).standard_normal((len(true), model.n_neurons(0)))


def test_truth_equals_audio_features(tiny, voices):
    """The true features are those of `audio` in their units, NaN outside of speech, with the pitch if voiced."""
    model = tiny()
    waveform = audio.read(voices["path"][4])
    waveform = np.concatenate([np.zeros(3200, np.float32), waveform, np.zeros(3200, np.float32)])
    found, speech = acoustic_decoders.truth(model, waveform), audio.speech_mask(waveform)
    assert found.shape == (6, model.n_frames(len(waveform))) and not speech.all()
    assert np.isnan(found[:, ~speech]).all() and np.isfinite(found[:4, speech]).all()
    true = audio.features(audio.without_offset(torch.as_tensor(waveform)))
    assert found[0, speech] == pytest.approx(20 * true["rms"].log10().numpy()[speech], abs=1e-3)
    assert found[1, speech] == pytest.approx(100 * true["envelope"].numpy()[speech], rel=1e-5)
    assert found[2, speech] == pytest.approx(16000 * true["zcr"].numpy()[speech])
    assert found[3, speech] == pytest.approx(true["centroid"].numpy()[speech], rel=1e-5)
    voiced = np.isfinite(found[4])
    assert 5 < voiced.sum() and not voiced[~np.isfinite(true["f0"].numpy())].any()
    assert 100 * 2 ** (found[4, voiced] / 12) == pytest.approx(true["f0"].numpy()[voiced], rel=1e-5)
    louder = acoustic_decoders.truth(model, 2 * waveform)
    assert louder[0, speech] - found[0, speech] == pytest.approx(20 * np.log10(2), abs=1e-2)
    assert louder[1, speech] == pytest.approx(2 * found[1, speech], rel=1e-5)
    assert louder[2:, speech] == pytest.approx(found[2:, speech], rel=1e-3, nan_ok=True)


@pytest.mark.parametrize("glide", [12, -24])
def test_truth_delta_is_slope_between_neighbours(tiny, glide):
    """The pitch delta is the slope from the frame before to the one after, and the rate of a planted glide."""
    found = acoustic_decoders.truth(tiny(), voice(np.random.default_rng(0), 16000, 150, glide))
    pitch, slope = found[4:]
    assert np.nanmedian(slope) == pytest.approx(glide, rel=0.1)
    for i, value in enumerate(slope):
        around = pitch[i - 1 : i + 2] if 0 < i < len(pitch) - 1 else np.array([np.nan])
        expected = (around[2] - around[0]) / 0.04 if np.isfinite(around).all() else np.nan
        assert value == pytest.approx(expected, nan_ok=True)


def test_truth_delta_is_nan_beside_gaps(tiny, wave, monkeypatch):
    """The pitch delta is NaN in unvoiced frames, beside them, and at both ends of the clip."""
    model, real = tiny(), audio.features
    pitch = torch.full((model.n_frames(len(wave)),), 200.0)
    pitch[[5, 9]] = torch.nan
    monkeypatch.setattr(audio, "features", lambda *args, **options: {**real(*args, **options), "f0": pitch})
    slope = acoustic_decoders.truth(model, wave)[5]
    assert np.flatnonzero(np.isnan(slope)).tolist() == [0, 4, 5, 6, 8, 9, 10, len(pitch) - 1]


def test_truth_is_finite_for_one_frame_or_no_speech(tiny):
    """A clip of one frame, and one without speech, have finite features in all frames, except for pitch."""
    rng, model = np.random.default_rng(0), tiny()
    assert np.isfinite(acoustic_decoders.truth(model, voice(rng, 400, 200))[:4]).all()
    hiss = (1e-5 * rng.standard_normal(8000)).astype(np.float32)
    assert not audio.speech_mask(hiss).any() and np.isfinite(acoustic_decoders.truth(model, hiss)[:4]).all()


@pytest.fixture(scope="module")
def planted(tiny, voices):
    """A model that holds the features themselves in layer 2, and noise in layer 3; what fits and how well."""
    model = tiny()
    filler, scales = noise(model, 0.1), np.array([0.1, 0.2, 0.001, 0.001, 0.1, 0.01])

    def features(true, clip):
        held = filler(true, clip)
        held[:, :6] = np.where(np.isfinite(true), scales * true, held[:, :6])
        return held

    both = {hooks.Site(2): plant(model, voices, features), hooks.Site(3): plant(model, voices, noise(model))}
    with hooks.edit(model, both):
        fitted = acoustic_decoders.fit(model, voices[:24])
        valid = acoustic_decoders.validity(model, voices[24:], fitted)
        doubled = acoustic_decoders.validity(model, voices, fitted.assign_attrs(speakers="[]"))
    return fitted, valid, doubled, scales


def test_validity_separates_planted_features_from_noise(planted):
    """Features that a layer holds linearly are decoded with R² above 0.995; in a layer of noise, below 0.03."""
    fitted, valid, _, scales = planted
    assert fitted["weight"].dims == ("layer", "feature", "neuron") and list(fitted["feature"]) == NAMES
    assert fitted["unit"].sel(feature="f0").item() == "semitones"
    found = fitted["weight"].sel(layer=2).values
    assert found[:, :6].diagonal() * scales == pytest.approx(1, abs=0.05)
    assert (valid["mean"].sel(layer=2) > 0.995).all()
    assert (valid["training"].sel(layer=2) > 0.995).all()
    assert (valid["mean"].sel(layer=3) < 0.03).all() and (valid["training"].sel(layer=3) < 0.2).all()
    assert (fitted["strength"].sel(layer=2) < fitted["strength"].sel(layer=3)).all()


def test_validity_of_shuffled_decoders_is_near_zero(planted):
    """Decoders fitted to the features of other clips have an R² near 0, and other weights."""
    fitted, valid, _, _ = planted
    assert np.abs(valid["shuffled"].sel(layer=[2, 3])).max() < 0.25
    assert np.abs(valid["shuffled"].sel(layer=2, feature=NAMES[:4])).max() < 0.15
    assert not fitted["weight"].equals(fitted["shuffled_weight"])


def test_validity_averages_over_speakers(planted):
    """Validity is the mean over speakers, with an interval for twelve of them and none for four."""
    _, valid, doubled, _ = planted
    assert valid["speakers"].dims == ("speaker", "layer", "feature") and (valid["n"] == 4).all()
    assert valid["low"].isnull().all() and valid["mean"].notnull().all()
    assert (doubled["n"] == 12).all() and (doubled["low"] <= doubled["mean"]).all()
    assert doubled["mean"].values == pytest.approx(doubled["speakers"].mean("speaker").values)


def test_validity_equals_r2_within_speakers(tiny, voices):
    """R² is one minus the squared error over the variance of the speaker's own frames."""
    model = tiny()
    fitted = acoustic_decoders.fit(model, voices[:12])
    valid = acoustic_decoders.validity(model, voices[24:30], fitted)
    true, decoded = [], []
    for index, waveform in audio.stream(voices[24:27]):
        with torch.no_grad(), hooks.capture(model, 2) as kept:
            model.logits(model.tensor(waveform))
        at = fitted.sel(layer=2)
        decoded.append(kept[hooks.Site(2)][0].cpu().numpy() @ at["weight"].values.T + at["bias"].values)
        true.append(acoustic_decoders.truth(model, waveform).T)
    true, decoded = np.concatenate(true), np.concatenate(decoded)
    for i in range(6):
        y, said = true[:, i][np.isfinite(true[:, i])], decoded[:, i][np.isfinite(true[:, i])]
        error = ((y - said) ** 2).sum()
        assert valid["speakers"][0, 2, i] == pytest.approx(1 - error / ((y - y.mean()) ** 2).sum(), rel=1e-4)


def test_validity_ignores_speaker_identity(tiny, voices):
    """A layer that holds only the speaker's mean pitch gets no R², though it does beat the training mean."""
    model = tiny()
    pitch = {}
    for index, waveform in audio.stream(voices):
        pitch.setdefault(voices["speaker"][index], []).append(acoustic_decoders.truth(model, waveform)[4])
    pitch = {name: np.nanmean(np.concatenate(rows)) for name, rows in pitch.items()}

    def told(true, clip):
        return np.full((len(true), model.n_neurons(0)), pitch[clip["speaker"]])

    train = voices["speaker"].isin(voices["speaker"].unique()[::2])
    with hooks.edit(model, {hooks.Site(2): plant(model, voices, told)}):
        fitted = acoustic_decoders.fit(model, voices[train])
        valid = acoustic_decoders.validity(model, voices[~train], fitted).sel(layer=2)
    assert (valid["mean"] <= 0.001).all()
    assert valid["training"].sel(feature="f0") > 0.3


def test_fit_draws_frames_by_seed(tiny, voices):
    """The frames of a fit are drawn by seed, and those of a clip do not depend on the order of the clips."""
    model = tiny()
    fitted = acoustic_decoders.fit(model, voices[:12], frames=120)
    assert fitted.attrs["frames"] == 120
    assert fitted.equals(acoustic_decoders.fit(model, voices[:12], frames=120))
    assert not fitted.equals(acoustic_decoders.fit(model, voices[:12], frames=120, seed=1))
    mixed = acoustic_decoders.fit(model, voices[:12].sample(frac=1, random_state=0), frames=120)
    assert mixed["mean"].values == pytest.approx(fitted["mean"].values)  # a clip's frames are its own
    assert mixed["sd"].values == pytest.approx(fitted["sd"].values)


def test_fit_sd_is_that_of_clip_means(tiny, voices):
    """The SD is that between the means of clips; for the pitch delta, of its magnitude."""
    model, rows = tiny(), []
    for _, waveform in audio.stream(voices[:9]):
        true = acoustic_decoders.truth(model, waveform)
        true[5] = np.abs(true[5])
        rows.append(np.nanmean(true, axis=1))
    assert acoustic_decoders.fit(model, voices[:9])["sd"].values == pytest.approx(
        np.std(rows, axis=0, ddof=1), rel=1e-5
    )


def test_readout_functions_decode_frames_of_clean_clip(model, voices, edited):
    """Readouts decode every edited row as a mean over the frames that have a value in the clean clip."""
    fitted, waveform = acoustic_decoders.fit(model, voices[:9]), audio.read(voices["path"][20])
    waveform = np.concatenate([np.zeros(1600, np.float32), waveform])
    true = acoustic_decoders.truth(model, waveform)
    seen, hidden = edited(waveform, acoustic_decoders.readout_functions(model, fitted, waveform))
    for site, found in seen.items():
        at = fitted.sel(layer=site.layer)
        decoded = hidden[site] @ at["weight"].values.T + at["bias"].values
        decoded[..., 5] = np.abs(decoded[..., 5])
        expected = np.nanmean(np.where(np.isfinite(true.T), decoded, np.nan), axis=1)
        assert found == pytest.approx(expected, rel=1e-3, abs=1e-2)


def test_fit_gives_no_pitch_for_whispers(tiny, tmp_path):
    """Unvoiced clips have no decoder and no readout of pitch (NaN), but have those of the other features."""
    model, rows = tiny(), []
    for place in range(16):
        hiss = 0.05 * np.random.default_rng(place).standard_normal(6000 + 320 * place)
        soundfile.write(tmp_path / f"{place}.wav", hiss, 16000, subtype="FLOAT")
        rows.append({"path": str(tmp_path / f"{place}.wav"), "label": "calm", "speaker": place // 4})
    clips = pd.DataFrame(rows)
    fitted = acoustic_decoders.fit(model, clips[:12])
    assert fitted["weight"].sel(feature=["f0", "f0_delta"]).isnull().all()
    assert fitted["weight"].sel(feature=NAMES[:4]).notnull().all()
    valid = acoustic_decoders.validity(model, clips[12:], fitted)
    assert valid["mean"].sel(feature=["f0", "f0_delta"]).isnull().all()
    assert valid["mean"].sel(feature="level").notnull().all()
    waveform = audio.read(clips["path"][12])
    _, seen = execution.cascade_read(model, waveform, [], acoustic_decoders.readout_functions(model, fitted, waveform))
    found = torch.stack(list(seen.values()))
    assert found[..., 4:].isnan().all() and found[..., :4].isfinite().all()


def test_validity_is_nan_without_decoder(tiny, voices):
    """Where a feature has no decoder, its R² is NaN and counts no speaker."""
    model = tiny()
    fitted = acoustic_decoders.fit(model, voices[:9])
    fitted["bias"].loc[{"feature": "f0"}] = np.nan
    valid = acoustic_decoders.validity(model, voices[9:12], fitted)
    assert valid["mean"].sel(feature="f0").isnull().all() and (valid["n"].sel(feature="f0") == 0).all()


@pytest.mark.filterwarnings("error")
def test_validity_is_unchanged_by_saving(tiny, voices, tmp_path):
    """Decoders saved to NetCDF and opened again give the same validity, without a warning."""
    model = tiny()
    fitted = acoustic_decoders.fit(model, voices[:9])
    valid = acoustic_decoders.validity(model, voices[9:15], fitted)
    valid.to_netcdf(tmp_path / "validity.nc")
    fitted.to_netcdf(tmp_path / "decoders.nc")
    with xr.open_dataset(tmp_path / "decoders.nc") as again:
        assert json.loads(again.attrs["speakers"]) == ["s00", "s01", "s02"]
        assert acoustic_decoders.validity(model, voices[9:15], again.load())["mean"].equals(valid["mean"])


def test_acoustic_decoders_refuse_unfit_clips_and_models(tiny, voices):
    """Fitting, validity and readouts refuse clips without speakers, too few or training speakers, and other models."""
    model = tiny()
    with pytest.raises(ValueError, match="no speaker: add a column"):
        acoustic_decoders.fit(model, voices.drop(columns="speaker"))
    with pytest.raises(ValueError, match="1 of 9 clips have no speaker"):
        acoustic_decoders.fit(model, voices[:9].assign(speaker=[None, *voices["speaker"][1:9]]))
    with pytest.raises(ValueError, match="3 speakers or more, and there are 2"):
        acoustic_decoders.fit(model, voices[:6])
    fitted = acoustic_decoders.fit(model, voices[:9])
    with pytest.raises(ValueError, match="s02 is a training speaker"):
        acoustic_decoders.validity(model, voices[8:15], fitted)
    for other in (tiny(num_hidden_layers=2), tiny("large")):
        with pytest.raises(ValueError, match="fitted on another model.*acoustic_decoders.fit"):
            acoustic_decoders.readout_functions(other, fitted, np.zeros(8000))
        with pytest.raises(ValueError, match="another model"):
            acoustic_decoders.validity(other, voices[9:], fitted)


def test_fit_names_bad_clips(tiny, voices):
    """Clips that cannot be read are listed, with a warning; if too few speakers are left, the fit is refused."""
    clips = voices[:12].copy()
    clips.loc[1, "path"] = "nowhere.wav"
    with pytest.warns(UserWarning, match="nowhere"):
        fitted = acoustic_decoders.fit(tiny(), clips)
    assert '"1"' in fitted.attrs["skipped"]
    clips["path"] = ["nowhere.wav"] * 6 + clips["path"].tolist()[6:]
    with pytest.warns(UserWarning), pytest.raises(ValueError, match="there are 2"):  # of two, not one can be read
        acoustic_decoders.fit(tiny(), clips)


def test_measure_averages_frames_with_a_value(tiny, clips):
    """Clips are measured as means over the frames that have a value, with the magnitude of the pitch delta."""
    model = tiny()
    found = acoustic_decoders.measure(model, clips[:3])
    for clip, path in clips["path"][:3].items():
        true = acoustic_decoders.truth(model, audio.read(path))
        want = pd.DataFrame(np.vstack([true[:-1], np.abs(true[-1:])])).mean(axis=1)
        np.testing.assert_allclose(found.sel(clip=clip), want)
    assert found["unit"].sel(feature="level").item() == "dB" and "speaker" in found.coords
