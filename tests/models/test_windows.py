"""Long recordings, in windows that overlap; and what is too long to be heard in one piece."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from xai_lib import audio, corpora, models, plots
from xai_lib.models.windows import _window_bounds

RATE = 16000
ROOT = Path(__file__).parents[2]


@pytest.fixture
def call():
    """Five seconds of sound, of which the second from 2 to 3 is silent."""
    x = (0.1 * np.random.default_rng(3).standard_normal(5 * RATE + 700)).astype(np.float32)
    x[2 * RATE : 3 * RATE] = 0
    return x


def test_window_bounds_cover_recording():
    """Windows cover the whole recording; the last one ends with it, or is shorter only if the recording is."""
    assert _window_bounds(10, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10)]
    assert _window_bounds(11, 4, 2) == [(0, 4), (2, 6), (4, 8), (6, 10), (7, 11)]
    assert _window_bounds(4, 4, 2) == [(0, 4)]
    assert _window_bounds(3, 4, 2) == [(0, 3)]
    assert _window_bounds(9, 4, 4) == [(0, 4), (4, 8), (5, 9)]


@pytest.mark.parametrize("batch", [1, 3, 8])
def test_over_time_equals_predict_per_window(shared, call, batch):
    """The scores of a window equal `predict` on it alone, whatever the batch size; a silent window is NaN."""
    model = shared()
    found = model.over_time(call, RATE, window=1.0, step=0.5, batch=batch)
    assert found.sizes["clip"] == 1
    starts = found["start"].values[0]
    np.testing.assert_allclose(starts, [0, 0.5, 1, 1.5, 2, 2.5, 3, 3.5, 4, 4 + 700 / RATE])
    for place, start in enumerate(starts):
        if start == 2:
            assert found["probability"][0, place].isnull().all()  # silent
            continue
        piece = call[round(start * RATE) : round(start * RATE) + RATE]
        alone = model.predict(piece, RATE).iloc[0][model.labels].astype(float)
        np.testing.assert_allclose(found["probability"].values[0, place], alone, atol=1e-5)
    np.testing.assert_allclose(found["time"], found["start"] + 0.5)


def test_over_time_takes_unequal_recordings(shared, call, tmp_path):
    """Shorter recordings end in NaN windows, a silent one is skipped with a warning, and the result can be plotted."""
    model = shared()
    for name, samples in (("a", call), ("b", call[:RATE]), ("c", np.zeros(RATE))):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE, subtype="FLOAT")
    with pytest.warns(UserWarning, match="1 of 3 clips were skipped"):
        found = model.over_time([tmp_path / f"{name}.wav" for name in "abc"], window=1.0)
    assert found["probability"].notnull().any("target").sum("window").values.tolist() == [5, 1]
    figure = plots.over_time(found, clip=0)
    assert "windows of 1 s" in figure.axes[0].get_title()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"window": 1.0, "step": 2.0}, "no sound may be skipped"),
        ({"window": 1.0, "step": 0}, "step must lie between one sample and the window"),
        ({"window": 100.0}, "longer than the 60 s"),
    ],
)
def test_over_time_refuses_bad_windows(shared, call, options, message):
    """Windows over time refuse a step of zero or longer than the window, and a window longer than the model takes."""
    with pytest.raises(ValueError, match=message):
        shared().over_time(call, RATE, **options)


def test_predict_skips_too_long_recordings(tiny, call, tmp_path):
    """A recording over `max_seconds` is skipped by `predict` with its name; `over_time` takes it whole."""
    model = tiny()
    model.max_seconds = 2
    for name, samples in (("short", call[:RATE]), ("long", call)):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
    with pytest.warns(UserWarning, match=r"long.wav: 5.044 s, longer than the 2 s .* model.over_time"):
        table = model.predict([tmp_path / "short.wav", tmp_path / "long.wav"])
    assert table["label"].notna().tolist() == [True, False]
    assert model.over_time(tmp_path / "long.wav", window=1.0).sizes["window"] > 4
    cut = corpora.excerpt(tmp_path / "long.wav", 0.5, 1.5)
    assert model.predict(cut)["label"].notna().all()


def test_predict_cuts_off_20_ms_and_refuses_longer_clips(device):
    """The bundled AST predicts the longest clip of which no column is cut off; up to 20 ms more are, and no more."""
    model = models.load("pocket-ast", device=device)
    rng = np.random.default_rng(0)
    columns = model.architecture.base.config.max_length
    longer = 0.1 * rng.standard_normal(160 * columns + 641)  # column i is of samples 160 i to 160 i + 400
    whole = longer[:-321]
    full, shorter = (model.prepare(model.tensor(some))[0] for some in (whole, whole[:-160]))
    assert (full[-1] != shorter[-1]).any() and (full[:-1] == shorter[:-1]).all()  # the last column is no padding
    predicted = model.predict(whole, RATE)
    assert predicted["label"].notna().all()
    pd.testing.assert_frame_equal(model.predict(longer[:-1], RATE), predicted)
    with pytest.raises(audio.NoClips, match="5.02 s, longer than the 5 s that fit one forward pass"):
        model.predict(longer, RATE)


@pytest.mark.full
@pytest.mark.real
def test_predict_takes_clips_of_esc10(device, real):
    """The bundled AST predicts nearly all clips of ESC-10, whose coder made clips of 5 s a little longer."""
    clips = corpora.load("esc-10", real / "esc10").iloc[::10]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        labels = models.load("pocket-ast", device=device).predict(clips)["label"]
    assert labels.notna().mean() > 0.9


HOUR = """
import sys
sys.path.insert(0, "tests")
from peak_memory import peak_bytes
from xai_lib import models
model = models.load("pocket", device="cpu")
result = model.over_time(sys.argv[1], window=4.0, step=4.0)
print(result.sizes["window"], peak_bytes())
"""


@pytest.mark.full
def test_over_time_takes_little_memory(tmp_path):
    """An hour of sound in windows takes under 2 GB with the pocket model, in a process of its own."""
    path = tmp_path / "hour.wav"
    rng = np.random.default_rng(0)
    with soundfile.SoundFile(path, "w", 48000, 2) as file:
        for _ in range(60):
            file.write(0.1 * rng.standard_normal((60 * 48000, 2)))
    done = subprocess.run([sys.executable, "-c", HOUR, str(path)], cwd=ROOT, capture_output=True, text=True, check=True)
    n_windows, peak_bytes = map(int, done.stdout.split())
    assert n_windows == 900
    assert peak_bytes < 2e9
