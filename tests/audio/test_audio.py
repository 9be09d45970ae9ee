from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from speechlike import speech, tone, vowel

from xai_lib import audio, corpora
from xai_lib.audio import acoustic_features

RATE = 16000


# ---------- reading


@pytest.mark.parametrize(
    ("suffix", "subtype", "error"),
    [
        ("wav", "PCM_U8", 1e-2),
        ("wav", "PCM_16", 1e-4),
        ("wav", "PCM_24", 1e-6),
        ("wav", "PCM_32", 1e-6),
        ("wav", "FLOAT", 1e-7),
        ("wav", "DOUBLE", 1e-7),
        ("flac", "PCM_16", 1e-4),
        ("flac", "PCM_24", 1e-6),
        ("ogg", "VORBIS", 0.05),
        ("mp3", "MPEG_LAYER_III", 0.05),
    ],
)
def test_read_decodes_every_format(tmp_path, suffix, subtype, error):
    """Every format and sample width is decoded to mono float32 within its precision."""
    path = tmp_path / f"clip.{suffix}"
    soundfile.write(path, tone(440), RATE, subtype=subtype)
    x = audio.read(path)
    assert x.dtype == np.float32 and x.ndim == 1 and x.flags.c_contiguous
    n = min(len(x), RATE)
    assert abs(len(x) - RATE) <= 1152  # an mp3 frame
    assert np.abs(x[:n] - tone(440)[:n])[400 : n - 400].max() < error


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000, 96000])
def test_read_resamples(tmp_path, rate):
    """Files of other rates are resampled to 16 kHz with the right length and little error."""
    path = tmp_path / "clip.wav"
    soundfile.write(path, tone(1000, rate=rate), rate, subtype="FLOAT")
    x = audio.read(path)
    assert abs(len(x) - RATE) <= 1
    assert np.abs(x - tone(1000, 1.1)[: len(x)])[1000:-1000].max() < 2e-3


@pytest.mark.parametrize("channels", [2, 6])
def test_read_averages_channels(tmp_path, channels):
    """The channels of a file are averaged."""
    parts = np.random.default_rng(0).uniform(-0.5, 0.5, (4000, channels)).astype(np.float32)
    soundfile.write(tmp_path / "a.wav", parts, RATE, subtype="FLOAT")
    np.testing.assert_allclose(audio.read(tmp_path / "a.wav"), parts.mean(axis=1), atol=1e-6)


def test_read_refuses_bad_files(tmp_path):
    """Missing, empty, unreadable and non-finite files, and folders, are refused with a name and a reason."""
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "zero.wav").write_bytes(b"")
    soundfile.write(tmp_path / "empty.wav", np.zeros(0, np.float32), RATE)
    samples = np.zeros(1000, np.float32)
    samples[[3, 7]] = np.nan, np.inf
    soundfile.write(tmp_path / "nan.wav", samples, RATE, subtype="FLOAT")
    for name, reason in (
        ("text.wav", "cannot be read"),
        ("zero.wav", "empty, 0 bytes"),
        ("empty.wav", "empty"),
        ("nan.wav", "2 of 1000 samples"),
        ("none.wav", "no such file"),
    ):
        with pytest.raises(audio.BadClip, match=rf"{name}: .*{reason}"):
            audio.read(tmp_path / name)
    with pytest.raises(audio.BadClip, match="is a folder"):
        audio.read(tmp_path)


def test_stream_skips_and_counts_bad_clips(tmp_path):
    """Bad clips are skipped, counted and given a reason; without `skipped`, or if none is left, it raises."""
    soundfile.write(tmp_path / "good.wav", tone(200), RATE)
    soundfile.write(tmp_path / "short.wav", tone(200)[:399], RATE)
    soundfile.write(tmp_path / "just.wav", tone(200)[:400], RATE)
    soundfile.write(tmp_path / "silent.wav", np.zeros(RATE, np.float32), RATE)
    (tmp_path / "text.wav").write_text("no")
    clips = pd.DataFrame(
        {"path": [str(tmp_path / f"{n}.wav") for n in ("good", "short", "silent", "text", "just")]},
        index=[10, 11, 12, 13, 14],
    )
    skipped = {}
    with pytest.warns(UserWarning, match="3 of 5 clips were skipped"):
        got = dict(audio.stream(clips, RATE, skipped=skipped))
    assert list(got) == [10, 14] and len(got[14]) == 400
    assert list(skipped) == [11, 12, 13]
    assert "399 samples" in skipped[11] and "silent" in skipped[12] and "text.wav" in skipped[13]
    with pytest.raises(audio.BadClip, match="short.wav"):
        list(audio.stream(clips, RATE))
    with pytest.raises(ValueError, match="no clip could be used"):
        list(audio.stream(clips.loc[[11, 12]], RATE, skipped={}))
    with pytest.raises(ValueError, match="selection is empty"):
        list(audio.stream(clips.iloc[:0], RATE))


# ---------- frames


@given(n=st.integers(400, 20000))
@settings(max_examples=40)
def test_n_frames_matches_encoder(n):
    """Frames of `n_frames`, `features` and `speech_mask` are as many as those of the encoder's convolutions."""
    frames = n
    for kernel, stride in ((10, 5), (3, 2), (3, 2), (3, 2), (3, 2), (2, 2), (2, 2)):  # wav2vec 2.0's convolutions
        frames = (frames - kernel) // stride + 1
    assert audio.n_frames(n) == frames
    x = torch.ones(n)
    x[0] = 0.5
    got = audio.features(x, names=("rms", "centroid"))
    assert got["rms"].shape == (frames,) and len(audio.speech_mask(x)) == frames


@given(n=st.integers(400, 5000), width=st.integers(2, 2048))
@settings(max_examples=60)
def test_windows_are_centred(n, width):
    """Windows of any width are centred on their frames, with zeros beyond the ends of the clip."""
    x = torch.arange(1.0, n + 1)
    windows = acoustic_features._windows(x, width, 320, 400)
    assert windows.shape == (audio.n_frames(n), width)
    for i in (0, len(windows) - 1):
        first = 320 * i - (width - 400) // 2
        want = [float(j + 1) if 0 <= j < n else 0.0 for j in range(first, first + width)]
        assert windows[i].tolist() == want


def test_frame_times_are_frame_centres():
    """Frame times are the centres of frames of 25 ms every 20 ms."""
    np.testing.assert_allclose(audio.frame_times(3), [0.0125, 0.0325, 0.0525])


def test_features_equal_closed_forms():
    """Features of a sine and of silence equal their closed forms."""
    got = audio.features(torch.as_tensor(tone(1000, amplitude=0.5)))  # 25 ms are 25 whole periods
    torch.testing.assert_close(got["rms"], torch.full_like(got["rms"], 0.5 / np.sqrt(2)), rtol=1e-4, atol=0)
    torch.testing.assert_close(got["envelope"], torch.full_like(got["envelope"], 0.5), rtol=1e-3, atol=0)
    assert (got["zcr"] * 400 - 50).abs().max() <= 1
    assert (got["centroid"] - 1000).abs().max() < 1
    silence = audio.features(torch.zeros(4000))
    assert silence["rms"].max() < 1e-15 and silence["envelope"].max() == 0 and silence["zcr"].max() == 0
    assert silence["centroid"].isnan().all() and silence["f0"].isnan().all()


@pytest.mark.parametrize("hertz", [70, 97.3, 110, 220, 341.7, 440, 700])
def test_f0_is_accurate_on_steady_sounds(hertz):
    """F0 of steady tones and vowels from 70 to 700 Hz has a median error below 0.2 %, and 2 % at most."""
    for x in (tone(hertz), vowel(hertz)):
        f0 = audio.features(torch.as_tensor(x), names=("f0",))["f0"][3:-3]
        assert f0.isfinite().all()
        assert (f0 / hertz - 1).abs().median() < 0.002 and (f0 / hertz - 1).abs().max() < 0.02


def test_f0_follows_glide_and_ignores_noise():
    """F0 follows a glide within 2 %, and is NaN in more than 95 % of the frames of noise."""
    track = np.linspace(100, 200, RATE)
    f0 = audio.features(torch.as_tensor(vowel(track)), names=("f0",))["f0"].numpy()
    want = np.interp(audio.frame_times(len(f0)), np.arange(RATE) / RATE, track)
    assert np.abs(f0[3:-3] / want[3:-3] - 1).max() < 0.02
    noise = torch.as_tensor(np.random.default_rng(0).normal(size=RATE).astype(np.float32))
    assert audio.features(noise, names=("f0",))["f0"].isnan().float().mean() > 0.95


def test_f0_resists_octave_jumps():
    """Briefly weaker alternate pulses cause no octave jump in F0, but much weaker ones halve it."""
    f0 = audio.features(torch.as_tensor(vowel(200, weak=0.35)), names=("f0",))["f0"]
    assert (f0[3:-3] / 200 - 1).abs().max() < 0.02
    assert ((audio.features(torch.as_tensor(vowel(200, weak=0.7)))["f0"] / 100 - 1).abs() < 0.02).any()


def test_f0_ignores_faint_hum():
    """A hum 60 dB below the preceding tone gets no F0."""
    x = np.concatenate([tone(200), 0.001 * tone(100)])
    f0 = audio.features(torch.as_tensor(x), names=("f0",))["f0"]
    assert f0[3:46].isfinite().all() and f0[53:].isnan().all()


def test_f0_survives_gain_noise_and_rate():
    """F0 withstands low gain, noise, an offset and another sample rate; a range that is too low is refused."""
    rng = np.random.default_rng(0)
    x = vowel(150)
    for y in (1e-3 * x, x + 0.01 * rng.normal(size=len(x)).astype(np.float32), x + 0.2):
        f0 = audio.features(torch.as_tensor(y), names=("f0",))["f0"][3:-3]
        assert (f0 / 150 - 1).abs().nanmedian() < 0.01 and f0.isfinite().float().mean() > 0.9
    f0 = audio.features(torch.as_tensor(tone(150, rate=24000)), 24000, hop=480, span=600, names=("f0",))["f0"]
    assert (f0[3:-3] / 150 - 1).abs().max() < 0.005
    with pytest.raises(ValueError, match="raise f0_range"):
        audio.features(torch.as_tensor(x), names=("f0",), f0_range=(20, 500))


def test_features_of_batch_equal_single_clips(device):
    """Features of a batch, computed on the chosen device, equal those of each clip alone on the CPU."""
    x = torch.as_tensor(np.stack([speech(seed=0), speech(seed=1), 0.1 * speech(seed=2)]))
    together = audio.features(x.to(device))
    for i in range(3):
        alone = audio.features(x[i])
        for name in audio.FEATURES:
            assert together[name].device.type == torch.device(device).type
            a, b = together[name][i].cpu(), alone[name]
            tolerance = {"rtol": 1e-5, "atol": 1e-6} if name != "centroid" else {"rtol": 1e-3, "atol": 1.0}
            torch.testing.assert_close(a, b, equal_nan=True, **tolerance)


def test_features_pass_gradients_to_waveform():
    """Gradients of RMS, envelope and centroid reach the waveform, and are finite even in silence."""
    x = torch.zeros(2000)
    x[700:1500] = torch.as_tensor(tone(200)[:800])
    x.requires_grad_()
    got = audio.features(x, names=("rms", "envelope", "centroid"))
    (got["rms"].sum() + got["envelope"].sum() + got["centroid"].nansum()).backward()
    assert x.grad.isfinite().all() and x.grad[700:1500].abs().max() > 0


def test_features_refuse_invalid_input():
    """Clips shorter than a frame, NaN and unknown names are refused; `speech_mask` refuses the first two."""
    with pytest.raises(ValueError, match="shorter than one frame"):
        audio.features(torch.zeros(399))
    with pytest.raises(ValueError, match="NaN"):
        audio.features(torch.full((1000,), torch.nan))
    with pytest.raises(ValueError, match="unknown features.*loudness.*rms"):
        audio.features(torch.zeros(1000), names=("loudness",))
    with pytest.raises(ValueError, match="NaN"):
        audio.speech_mask(np.full(1000, np.nan))
    with pytest.raises(ValueError, match="shorter than one frame"):
        audio.speech_mask(np.zeros(10))


# ---------- where speech is


@given(gain=st.floats(-20, 10), start=st.floats(0.3, 1.0), floor=st.floats(-95, -75))
@settings(max_examples=25)
def test_speech_mask_finds_planted_speech(gain, start, floor):
    """The mask covers planted speech with its closure, but neither the noise around it nor a click."""
    rng = np.random.default_rng(0)
    x = 10 ** (floor / 20) * rng.normal(size=3 * RATE)
    first, last = int(start * RATE), int((start + 1.2) * RATE)
    x[first:last] += 10 ** (gain / 20) * tone(200, 1.2)[: last - first]
    x[first + 8000 : first + 8000 + 1600] = 1e-5  # a closure of 100 ms belongs to the speech
    x[-2000:-1900] += 0.1  # a click of 6 ms does not
    times = audio.frame_times(audio.n_frames(len(x)))
    mask = audio.speech_mask(x.astype(np.float32))
    inside = (times > start + 0.02) & (times < start + 1.18)
    outside = (times < start - 0.03) | (times > start + 1.23)
    assert mask[inside].all() and not mask[outside].any()


def test_speech_mask_handles_silence_noise_and_tone():
    """Silence and faint noise have no speech and a tone is all speech, also in a batch and at 48 kHz."""
    assert not audio.speech_mask(np.zeros(RATE, np.float32)).any()
    assert not audio.speech_mask(1e-5 * np.random.default_rng(0).normal(size=RATE)).any()
    assert audio.speech_mask(tone(300)).all()
    both = audio.speech_mask(torch.as_tensor(np.stack([tone(300), np.zeros(RATE, np.float32)])))
    assert both.shape == (2, 49) and both[0].all() and not both[1].any()
    long = np.pad(tone(300, rate=48000), 48000)
    assert abs(audio.speech_mask(long, 48000).sum() - 50) <= 2


def test_speech_mask_handles_noisy_recording():
    """In noise that is 25 dB below a tone, the mask covers the tone alone."""
    x = np.pad(tone(200), RATE) + 0.02 * np.random.default_rng(0).normal(size=3 * RATE)  # 25 dB under the tone
    mask, times = audio.speech_mask(x), audio.frame_times(audio.n_frames(3 * RATE))
    assert mask[(times > 1.02) & (times < 1.98)].all() and not mask[(times < 0.97) | (times > 2.03)].any()


def test_speech_mask_excludes_long_pause():
    """A pause of half a second between two tones is not speech."""
    x = np.concatenate([tone(200), np.zeros(RATE // 2), tone(200)]).astype(np.float32)
    mask, times = audio.speech_mask(x), audio.frame_times(audio.n_frames(len(x)))
    assert not mask[(times > 1.03) & (times < 1.47)].any() and mask[times < 0.98].all()


def test_features_table_summarises_speech(tmp_path):
    """The table gives F0, level and duration of the speech by clip, and NaN where there is no speech."""
    paths = []
    for i, (f0, gain) in enumerate(((120, 1.0), (240, 0.1))):
        x = gain * np.pad(vowel(f0, 1.0), RATE // 2) + 1e-5 * np.random.default_rng(i).normal(size=2 * RATE)
        paths.append(str(tmp_path / f"{i}.wav"))
        soundfile.write(paths[-1], x, RATE, subtype="FLOAT")
    soundfile.write(tmp_path / "none.wav", 1e-5 * np.random.default_rng(0).normal(size=RATE), RATE, subtype="FLOAT")
    clips = pd.DataFrame({"path": [*paths, str(tmp_path / "none.wav")]}, index=[5, 6, 7])
    table = corpora.features_table(clips)
    assert list(table.index) == [5, 6, 7]
    np.testing.assert_allclose(table["f0"].iloc[:2], [120, 240], rtol=0.005)
    assert table["level_db"][5] - table["level_db"][6] > 10
    np.testing.assert_allclose(table["speech_seconds"].iloc[:2], 1.0, atol=0.06)
    assert table.loc[7, "speech_seconds"] == 0 and table.loc[7].drop("speech_seconds").isna().all()


# ---------- real recordings


@pytest.mark.real
def test_speech_mask_excludes_ends_of_ravdess(real):
    """In RAVDESS, the mask covers about half of the frames, loses no statement, and seldom reaches the ends."""
    clips = corpora.balanced(corpora.load("ravdess", real / "ravdess"), 200, seed=0)
    share, first, last = [], [], []
    for _, x in audio.stream(clips):
        mask = audio.speech_mask(x)
        share.append(mask.mean())
        first.append(mask[:15].any())
        last.append(mask[-15:].any())
        assert mask.sum() * 0.02 > 0.9  # no clip loses its statement
    assert 0.4 < np.mean(share) < 0.6
    assert np.mean(first) < 0.06 and np.mean(last) < 0.1  # some clips have a sigh there


@pytest.mark.real
def test_read_decodes_real_recordings(real):
    """Real stereo WAV, Ogg and FLAC files become finite mono float32 of the right duration."""
    stereo = real / "ravdess" / "Actor_01" / "03-01-02-01-01-02-01.wav"
    assert soundfile.info(stereo).channels == 2 and soundfile.info(stereo).samplerate == 48000
    files = [stereo, *sorted((real / "esc10").rglob("*.ogg"))[::40], next((real / "librispeech").rglob("*.flac"))]
    for path in files:
        x = audio.read(path)
        assert x.ndim == 1 and abs(len(x) / RATE - soundfile.info(path).duration) < 1e-3
        assert np.isfinite(x).all() and re.search(r"float32", str(x.dtype))
