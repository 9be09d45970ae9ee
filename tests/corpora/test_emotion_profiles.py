"""Factors of emotion in closed form: planted differences come back, in the right units, within the speaker."""

from __future__ import annotations

import ipywidgets
import numpy as np
import pandas as pd
import pytest
from IPython.display import Audio
from scipy import stats

from xai_lib import statistics
from xai_lib.corpora import emotion_profiles
from xai_lib.widgets import ClipExplorer

SHIFT = {"neutral": 0.0, "sad": -1.0, "angry": 3.0}  # semitones, and twice that in dB


@pytest.fixture
def planted():
    """10 speakers, 20 to 38 semitones over 55 Hz, 3 emotions, 4 clips each, and the numbers of their clips."""
    rows = [
        {
            "label": label,
            "speaker": f"s{s}",
            "sex": "female" if s % 2 else "male",
            "clip": i,
            "f0": 55 * 2 ** ((20 + 2 * s + SHIFT[label] + (-1) ** i) / 12),
            "level_db": -40 + s + 2 * SHIFT[label] + (-1) ** i,
            "rate": 4 + 0.1 * (-1) ** i,
        }
        for s in range(10)
        for label in ("angry", "neutral", "sad")
        for i in range(4)
    ]
    rows = pd.DataFrame(rows, index=pd.RangeIndex(100, 220))
    return rows[["level_db", "f0", "rate"]], rows[["label", "speaker", "sex"]]


def test_cells_averages_clips_within_speaker(planted):
    """`cells` averages clips by speaker and label, geometrically for F0, with sexes and units as coordinates."""
    cells = emotion_profiles.cells(*planted)
    assert cells.dims == ("factor", "label", "speaker") and list(cells["label"].values) == list(SHIFT)
    one = cells.sel(label="angry", speaker="s3")
    # clips lie a semitone either side: their geometric mean is the speaker's own F0, the arithmetic is above it
    assert float(one.sel(factor="f0")) == pytest.approx(55 * 2 ** (29 / 12), rel=1e-12)
    assert float(one.sel(factor="level_db")) == pytest.approx(-31)
    assert cells["sex"].sel(speaker="s3") == "female" and cells["unit"].sel(factor="f0") == "Hz"


def test_differences_recovers_planted_effects(planted):
    """`differences` recovers the planted effects in each speaker, with exact p values and false discovery rates."""
    result = emotion_profiles.differences(emotion_profiles.cells(*planted))
    assert result.attrs["base"] == "neutral" and list(result["label"].values) == ["sad", "angry"]
    for label in ("sad", "angry"):
        one = result.sel(label=label)
        assert np.allclose(one["difference"].sel(factor="f0"), SHIFT[label])  # semitones, in every speaker
        assert np.allclose(one["difference"].sel(factor="level_db"), 2 * SHIFT[label])
        assert np.allclose(one["difference"].sel(factor="rate"), 0) and np.allclose(one["p"].sel(factor="rate"), 1)
        assert np.allclose(one["p"].sel(factor=["f0", "level_db"]), 2 / 2**10)  # 10 of one sign, exact
    assert (result["n"] == 10).all()
    np.testing.assert_allclose(
        result["q"], stats.false_discovery_control(result["p"].values.ravel()).reshape(result["p"].shape)
    )
    assert float(result["q"].sel(factor="f0", label="sad")) > 2 / 2**10  # some of the tests find nothing
    assert result["unit"].sel(factor="f0") == "semitones" and result["unit"].sel(factor="level_db") == "dB"
    turned = emotion_profiles.differences(emotion_profiles.cells(*planted), base="angry")
    assert np.allclose(turned["mean"].sel(label="neutral", factor="f0"), -3)


def test_differences_pairs_speakers(planted):
    """`differences` compares labels within each speaker, and leaves out speakers who lack one of the two labels."""
    table, clips = planted
    d = np.linspace(5, 7, 10)  # the effect varies over speakers, mean 6
    angry = clips["label"] == "angry"
    table.loc[angry, "level_db"] += np.repeat(d - 6, 4)
    one = emotion_profiles.differences(emotion_profiles.cells(table, clips)).sel(factor="level_db", label="angry")
    assert one["mean"] == pytest.approx(6) and one["d"] == pytest.approx(6 / d.std(ddof=1))
    low, high = statistics.interval(d)[1:]
    assert one["low"] == pytest.approx(low) and one["high"] == pytest.approx(high) and low > 5.4
    keep = ~(angry & (clips["speaker"] == "s9")) & ~((clips["label"] == "neutral") & (clips["speaker"] == "s0"))
    one = emotion_profiles.differences(emotion_profiles.cells(table[keep], clips)).sel(factor="level_db", label="angry")
    assert one["n"] == 8 and one["mean"] == pytest.approx(d[1:9].mean())


def test_centred_removes_speaker_means(planted):
    """`centred` subtracts the mean of each speaker, with F0 in semitones."""
    values = emotion_profiles.centred(*planted)
    assert np.allclose(values.groupby(planted[1]["speaker"]).mean(), 0)
    angry = values[planted[1]["label"] == "angry"]
    assert np.allclose(angry["f0"].groupby(planted[1]["speaker"]).mean(), 3 - 2 / 3)  # semitones over the mean


def test_eta_squared_equals_closed_form(planted):
    """`eta_squared` equals its closed form, and its shuffled baseline lies where chance predicts."""
    table, clips = planted
    result = emotion_profiles.eta_squared(table, clips, shuffles=100)
    between = np.var([0, -1, 3])  # within speaker and emotion the clips are one either side: variance 1
    assert result.loc["f0", "eta_squared"] == pytest.approx(between / (between + 1))
    assert result.loc["level_db", "eta_squared"] == pytest.approx(4 * between / (4 * between + 1))
    assert result.loc["rate", "eta_squared"] == pytest.approx(0, abs=1e-12)
    # of 120 clips and 3 emotions about 2 / 110 is explained by chance, and three times that at the 95th percentile
    assert result["shuffled"].between(0.02, 0.1).all()
    other = clips.assign(said=np.tile(["x", "y"], 60))  # another column, which goes with the clip's number
    assert emotion_profiles.eta_squared(table, other, by="said", shuffles=1).loc[
        "rate", "eta_squared"
    ] == pytest.approx(1)


def test_eta_squared_shuffles_within_speakers(planted):
    """With one label per speaker, `eta_squared` and its shuffled baseline are 0, and `differences` is refused."""
    table, clips = planted
    clips = clips.assign(label=np.where(clips["sex"] == "male", "sad", "angry"))
    result = emotion_profiles.eta_squared(table, clips, shuffles=3)
    assert np.allclose(result, 0, atol=1e-12)
    with pytest.raises(ValueError, match="no speaker has clips of both angry and another|both sad and another"):
        emotion_profiles.differences(emotion_profiles.cells(table, clips))


def test_cells_refuses_incomparable_clips(planted):
    """`cells` refuses clips without speakers or labels, and `differences` a single label or an unknown base."""
    table, clips = planted
    with pytest.raises(ValueError, match="no column 'speaker'"):
        emotion_profiles.cells(table, clips.drop(columns="speaker"))
    with pytest.raises(ValueError, match="every clip needs a label: drop the 40 clips without one"):
        emotion_profiles.cells(table, clips.assign(label=clips["label"].replace("sad", None)))
    angry = clips[clips["label"] == "angry"]
    with pytest.raises(ValueError, match="all clips have the label angry"):
        emotion_profiles.differences(emotion_profiles.cells(table.loc[angry.index], angry))
    with pytest.raises(KeyError, match="no clip has the label 'calm': the labels are neutral, sad, angry"):
        emotion_profiles.differences(emotion_profiles.cells(table, clips), base="calm")


def tone(hertz, seconds=1.0, rate=16000):
    """A voice-like tone with a quarter of a second of silence at both ends."""
    t = np.arange(int(seconds * rate)) / rate
    sound = sum(np.sin(2 * np.pi * hertz * h * t) / h for h in range(1, 6)) * 0.1
    return np.pad(sound, rate // 4).astype(np.float32)


def test_frames_tracks_known_tone():
    """`frames` finds the F0 and the speech frames of a known tone, with as many frames at 8 as at 16 kHz."""
    track = emotion_profiles.frames(tone(200))
    inside = (track["frame"] > 0.35) & (track["frame"] < 1.15)
    assert np.allclose(track["f0"].where(inside, drop=True), 200, rtol=0.01)
    assert track["speech"].where(inside, drop=True).all() and not track["speech"][:8].any()
    assert track["frame"][0] == pytest.approx(0.0125) and track["sample"][-1] == pytest.approx(1.5, abs=1e-3)
    assert emotion_profiles.frames(tone(200, rate=8000), 8000).sizes["frame"] == track.sizes["frame"]


@pytest.fixture
def clips(make_clips, tmp_path):
    """Four tones, of which one has a label that is markup."""
    return make_clips(
        tmp_path,
        4,
        signal=lambda i, _: tone((110, 220, 165, 300)[i], 0.4),
        subtype="PCM_16",
        index=[5, 6, 8, 9],
        label=["sad", "angry", "sad", "<b>$x"],
        sex=["female", "male", "male", "male"],
    )


def drawn_f0(panel):
    """F0 in the picture that the panel shows, in Hz."""
    return np.nanmedian(panel.figure.axes[2].lines[0].get_ydata())


@pytest.mark.heavy
def test_clip_explorer_steps_through_selection(clips):
    """`ClipExplorer` steps through the clips of the selected label, and shows the F0 and title of each."""
    panel = ClipExplorer(clips, emotion="sad")
    assert list(panel.controls) == ["label", "sex", "clip"] and panel.error is None
    assert panel.controls["label"].options == ("any", "sad", "angry", "<b>$x")  # emotions in their order
    assert panel.controls["clip"].max == 2 and drawn_f0(panel) == pytest.approx(110, rel=0.02)
    panel.controls["clip"].value = 2
    assert drawn_f0(panel) == pytest.approx(165, rel=0.02) and isinstance(panel.shown[1], Audio)
    panel.controls["label"].value = "angry"  # one clip: the slider comes back
    assert panel.controls["clip"].value == 1 and drawn_f0(panel) == pytest.approx(220, rel=0.02)
    panel.controls["label"].value = "any"
    assert panel.controls["clip"].max == 4 and "clip 1 of 4: 0.wav" in panel.shown[2].value
    panel.controls["clip"].value = 4
    assert panel.figure.axes[0].get_title(loc="left") + panel.figure.axes[0].get_title() == "<b>$x, male"


def test_clip_explorer_reports_missing_clips(clips, tmp_path):
    """`ClipExplorer` reports an empty selection or a missing file, and refuses an empty table."""
    panel = ClipExplorer(clips, emotion="angry")
    panel.controls["sex"].value = "female"
    assert "no clip matches angry, female" in panel.error
    panel.controls["label"].value = "sad"
    assert panel.error is None and drawn_f0(panel) == pytest.approx(110, rel=0.02)
    (tmp_path / "2.wav").unlink()
    panel.controls["sex"].value = "male"
    assert "no such file" in panel.error
    with pytest.raises(ValueError, match="there are no clips to explore"):
        ClipExplorer(clips.head(0))


def test_clip_explorer_shows_prediction(clips, tiny):
    """`ClipExplorer` shows the label that the model predicts, and needs neither labels nor sexes."""
    model = tiny()
    panel = ClipExplorer(clips[["path"]], model=model)  # neither labels nor sexes are needed
    assert list(panel.controls) == ["clip"] and isinstance(panel.controls["clip"], ipywidgets.IntSlider)
    best = model.predict(clips["path"].iloc[0])["label"][0]
    assert f"predicted: {best} " in panel.shown[2].value
