"""Anything that is sound becomes a table of clips, and nothing is misread silently."""

from __future__ import annotations

import array
import io
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from matplotlib.patches import Rectangle, StepPatch

from xai_lib import ablation, activations, attribution, audio, corpora, dissection, plots, pruning
from xai_lib.activations import donors
from xai_lib.corpora import as_clips
from xai_lib.faithfulness import deletion_test

RATE = 16000


def samples(clips, place=0):
    return audio.read(audio.sources(clips).iloc[place])


def write(path, values, rate=RATE, **options):
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, values, rate, **options)
    return Path(path)


# ---------- waveforms


@pytest.mark.parametrize(
    "convert",
    [
        lambda x: x,
        lambda x: x.astype(float),
        lambda x: x.astype(np.float16).astype(np.float32),
        lambda x: x[None],
        lambda x: x[:, None],
        torch.from_numpy,
        lambda x: torch.from_numpy(x)[None],
        lambda x: torch.from_numpy(x).requires_grad_(),
        lambda x: x.tolist(),
        lambda x: [x],
        lambda x: pd.Series(x),
    ],
)
def test_as_clips_accepts_waveform_types(wave, convert):
    """A single waveform of any array type or container becomes one clip with the same samples."""
    clips = as_clips(convert(wave), sample_rate=RATE)
    assert len(clips) == 1
    np.testing.assert_allclose(samples(clips), wave, atol=1e-3)


@pytest.mark.parametrize(
    ("dtype", "least", "greatest"),
    [(np.int16, -32768, 32767), (np.int32, -(2**31), 2**31 - 1), (np.uint8, 0, 255), (np.int8, -128, 127)],
)
def test_as_clips_scales_integers_by_range(dtype, least, greatest):
    """Integer samples are scaled by the range of their type to between -1 and 1."""
    middle = (int(least) + int(greatest) + 1) // 2
    x = samples(as_clips(np.array([least, middle, greatest] * 200, dtype=dtype), RATE))
    assert x[:2].tolist() == [-1, 0]
    assert 0.99 < x[2] <= 1


def test_as_clips_reads_int16_like_file(tmp_path):
    """A waveform of 16-bit integers equals the file that holds the same integers."""
    integers = (3000 * np.random.default_rng(0).standard_normal(4000)).astype(np.int16)
    path = write(tmp_path / "a.wav", integers, subtype="PCM_16")
    np.testing.assert_array_equal(samples(as_clips(integers, RATE)), audio.read(path))


def test_as_clips_accepts_batches(wave):
    """A batch gives one clip per row, and a list of waveforms of unequal lengths keeps their lengths."""
    assert len(as_clips(np.stack([wave] * 3), RATE)) == 3
    clips = as_clips([wave, torch.from_numpy(wave[:5000])], RATE)
    assert [len(samples(clips, place)) for place in range(2)] == [len(wave), 5000]


def test_as_clips_resamples_other_rates(wave):
    """A waveform at 8 kHz is resampled to 16 kHz."""
    x = samples(as_clips(wave, sample_rate=8000))
    assert abs(len(x) - 2 * len(wave)) <= 1


@pytest.mark.parametrize(
    ("given_", "rate", "message"),
    [
        (np.zeros(4000), None, "the waveform has no sample rate: pass it, e.g. sample_rate=16000"),
        (np.zeros(4000), True, "a number in Hz, not True"),
        (np.zeros(4000), "16k", "a number in Hz, not '16k'"),
        (np.zeros(4000), 16, "from 100 to 1000000, not 16"),
        (np.zeros(4000), 16000.5, "a whole number in Hz"),
        (np.zeros((2, 3, 4000)), RATE, r"the shape \(2, 3, 4000\)"),
        (np.zeros((4000, 2)), RATE, r"looks like \[time, channel\]"),
        (np.array(0.5), RATE, r"the shape \(\)"),
        (20_000 * np.ones(4000), RATE, "divide them, by 32768"),
        (np.ones(4000, np.int64), RATE, "64-bit integers"),
        ([1, 2, 3] * 1000, RATE, "64-bit integers"),
        (np.zeros(4000, complex), RATE, "integers or floats, not complex"),
        (np.zeros(4000, bool), RATE, "integers or floats, not bool"),
        ([], RATE, "the input is empty"),
        (pd.DataFrame({"path": []}), None, "the input is empty"),
        (pd.DataFrame({"file": ["a.wav"]}), None, 'column "path" or "audio"; this one has file'),
        (pd.DataFrame({"path": ["a.wav", None]}), None, "1 of 2 clips name no file"),
        (pd.DataFrame({"audio": [object()]}), None, "neither a waveform nor a sound file"),
        (5, None, "clips cannot be made from an object of type int"),
        (None, None, "clips cannot be made from an object of type NoneType"),
        ({"array": np.zeros(4000)}, None, "has no sample rate"),
    ],
)
def test_as_clips_refuses_invalid_input(given_, rate, message):
    """Input without a sample rate, of an invalid rate, shape, type or scale, or without clips is refused."""
    with pytest.raises(ValueError, match=message):
        as_clips(given_, rate)


def test_random_donors_excludes_same_sound(wave, tmp_path, monkeypatch):
    """No clip is its own donor, whether it is given as an array, bytes or a path."""
    clips = as_clips([wave, wave[::-1].copy()], RATE)
    pool = as_clips([wave, wave[::-1].copy()], RATE)
    assert donors.random_donors(clips, pool)["audio"].tolist() == pool["audio"].tolist()[::-1]
    with pytest.raises(ValueError, match="there is no other clip"):
        donors.random_donors(clips.iloc[:1], pool.iloc[:1])
    file = write(tmp_path / "a.wav", wave)
    for one, same in ((as_clips(file.read_bytes()), as_clips(file.read_bytes())), ([file], [str(file)])):
        with pytest.raises(ValueError, match="there is no other clip"):
            donors.random_donors(one, same)
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="there is no other clip"):
        donors.random_donors(["a.wav"], [file])
    with pytest.raises(ValueError, match="its own donor"):
        donors.check(as_clips(file), as_clips("a.wav"), ["resample"])
    drawn = donors.random_donors([wave, wave[::-1].copy()], [wave, wave[::-1].copy()], sample_rate=RATE)
    assert drawn["audio"].tolist() == pool["audio"].tolist()[::-1]


def test_as_clips_warns_of_loud_floats(wave):
    """Floats far beyond the full scale of 1 cause a warning."""
    with pytest.warns(UserWarning, match="reach .*, and full scale of floats is 1"):
        as_clips(40 * wave, RATE)


ARRAYS = {
    "values": arrays.arrays(
        st.sampled_from([np.int16, np.uint8, np.float32, np.float64]),
        arrays.array_shapes(min_dims=1, max_dims=2, max_side=600),
    ),
    "rate": st.sampled_from([8000, 16000, 44100]),
}


def check_array(values, rate):
    with np.errstate(all="ignore"):
        try:
            clips = as_clips(values, rate)
        except ValueError:
            is_two_channels = values.ndim == 2 and values.shape[1] <= 8 < values.shape[0]
            is_unscaled = values.dtype.kind == "f" and np.nanmax(np.abs(values[np.isfinite(values)]), initial=0) > 100
            is_spectrogram = values.ndim == 2 and values.shape[0] > 8 and values.shape[1] < 0.1 * rate
            assert values.size == 0 or is_two_channels or is_unscaled or is_spectrogram
            return
        for source in clips["audio"]:
            try:
                x = audio.read(source)
            except audio.BadClip as error:
                assert "waveform" in str(error)
            else:
                assert x.dtype == np.float32 and np.isfinite(x).all()


@pytest.mark.filterwarnings("ignore:.*full scale of floats is 1")
@settings(max_examples=50)
@given(**ARRAYS)
def test_as_clips_converts_or_refuses_any_array(values, rate):
    """Random arrays become clips of finite samples, or are refused for a known reason."""
    check_array(values, rate)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*full scale of floats is 1")
@settings(max_examples=4000)
@given(**ARRAYS)
def test_as_clips_converts_or_refuses_many_arrays(values, rate):
    """Thousands of random arrays become clips of finite samples, or are refused for a known reason."""
    check_array(values, rate)


# ---------- files and tables


def test_as_clips_accepts_paths_folders_and_tables(tmp_path, wave):
    """A path, list, pattern, open file, folder or table gives the clips of its files in order."""
    for name in ("angry/a.wav", "happy/b.wav"):
        write(tmp_path / name, wave)
    a, b = str(tmp_path / "angry/a.wav"), str(tmp_path / "happy/b.wav")
    (tmp_path / "mine.csv").write_text("path,label\nangry/a.wav,angry\n")
    assert as_clips(a)["path"].tolist() == [a]
    assert as_clips(Path(a))["path"].tolist() == [a]
    assert as_clips([a, Path(b)])["path"].tolist() == [a, b]
    for paths in (pd.Series([a, b]), np.array([a, b]), np.array([Path(a), Path(b)]), pd.Index([a, b])):
        assert as_clips(paths)["path"].map(str).tolist() == [a, b]
    gone = str(tmp_path / "take [2].wav")
    assert as_clips([a, gone])["path"].tolist() == [a, gone]
    with pytest.raises(FileNotFoundError, match="no file matches the pattern"):
        as_clips(str(tmp_path / "none/*.wav"))
    with open(a, "rb") as file:
        np.testing.assert_allclose(samples(as_clips(file)), wave, atol=1e-4)
    assert as_clips(str(tmp_path / "*/*.wav"))["path"].tolist() == [a, b]
    assert as_clips(tmp_path)["label"].tolist() == ["angry", "happy"]
    assert as_clips(tmp_path / "mine.csv")["path"].tolist() == [a]
    table = pd.DataFrame({"path": [a], "label": "angry"})
    assert as_clips(table) is table


def test_as_clips_joins_folders_and_tables(tmp_path, wave):
    """A list of folders, tables and files joins their clips, drops repeated files and adds up what is left out."""
    for name in ("one/angry/a.wav", "one/happy/b.wav", "two/sad/c.wav", "two/calm/d.wav", "e.wav", "f.wav"):
        write(tmp_path / name, np.roll(wave, ord(name[-5])))
    for folder in ("one", "two"):
        (tmp_path / folder / ".hidden").mkdir()
    (tmp_path / "mine.csv").write_text("path,label,speaker\ne.wav,fearful,007\n")
    with pytest.warns(UserWarning, match="left out: 1"):
        clips = as_clips([tmp_path / "one", tmp_path / "two", tmp_path / "mine.csv", tmp_path / "f.wav"])
    assert clips["label"].tolist()[:5] == ["angry", "happy", "calm", "sad", "fearful"]
    assert pd.isna(clips["label"][5]) and clips["speaker"][4] == "007"
    assert clips.index.tolist() == list(range(6))
    assert clips.attrs["left_out"] == {"hidden folders": 2}
    with pytest.raises(FileNotFoundError, match="no sound files"):
        as_clips([tmp_path / "one", tmp_path / "one/.hidden"])
    (tmp_path / "other.csv").write_text("path,label,speaker\none/angry/a.wav,angry,P1\none/happy/b.wav,happy,p1 \n")
    again = as_clips([tmp_path / "other.csv", tmp_path / "one/angry", tmp_path / "other.csv"])
    assert again["speaker"].tolist() == ["P1", "P1"] and again.attrs["left_out"] == {"the same file again": 3}


def test_as_clips_parses_ravdess_names(tmp_path, wave):
    """A RAVDESS file name gives the label and the speaker, and another file name gives no label."""
    clips = as_clips([write(tmp_path / "03-01-05-01-02-01-12.wav", wave), write(tmp_path / "mine.wav", wave)])
    assert clips["label"].tolist()[0] == "angry" and clips["speaker"][0] == "ravdess-12"
    assert pd.isna(clips["label"][1])


def test_as_clips_converts_audio_column(wave, tmp_path):
    """The column `audio` may mix arrays, bytes and paths, and the index and the labels are kept."""
    content = write(tmp_path / "a.wav", wave).read_bytes()
    table = pd.DataFrame(
        {
            "audio": [
                {"array": wave, "sampling_rate": RATE},
                {"bytes": content, "path": "x.wav"},
                {"bytes": None, "path": str(tmp_path / "a.wav")},
                content,
                str(tmp_path / "a.wav"),
            ],
            "label": list("abcde"),
        },
        index=list("vwxyz"),
    )
    clips = as_clips(table)
    assert clips.index.tolist() == list("vwxyz") and clips["label"].tolist() == list("abcde")
    for place in range(5):
        np.testing.assert_allclose(samples(clips, place), wave, atol=1e-4)
    assert as_clips(clips)["audio"].tolist() == clips["audio"].tolist()


def test_as_clips_uses_rate_column(wave):
    """Arrays in a table take the sample rate from the column beside them."""
    table = pd.DataFrame({"audio": [wave, wave], "sample_rate": [8000, 16000]})
    clips = as_clips(table)
    assert [len(samples(clips, place)) for place in range(2)] == pytest.approx([2 * len(wave), len(wave)], abs=1)


def test_as_clips_refuses_contradictory_rates(wave):
    """`sampling_rate` is recognized, an empty cell takes the given rate, and contradictory rates are refused."""
    table = pd.DataFrame({"audio": [wave, wave], "sampling_rate": [8000, 8000]})
    assert len(samples(as_clips(table))) == pytest.approx(2 * len(wave), abs=1)
    with pytest.raises(ValueError, match="sampling_rate says 8000 Hz, but sample_rate=16000 was passed"):
        as_clips(table, RATE)
    with pytest.raises(ValueError, match="8000 Hz, but sample_rate=16000 was passed"):
        as_clips({"array": wave, "sampling_rate": 8000}, RATE)
    gaps = pd.DataFrame({"audio": [wave, wave], "sample_rate": [RATE, None]})
    assert len(samples(as_clips(gaps, RATE), 1)) == len(wave)


def test_as_clips_keeps_series_index(wave, tmp_path):
    """A column of paths or waveforms keeps its index, so that results join the right rows of the table."""
    paths = [str(write(tmp_path / f"{place}.wav", wave)) for place in range(3)]
    column = pd.Series(paths, index=[7, 3, 5])
    assert as_clips(column).index.tolist() == [7, 3, 5]
    assert as_clips(column)["path"].tolist() == paths
    sounds = as_clips(pd.Series([wave, wave], index=["b", "a"]), RATE)
    assert sounds.index.tolist() == ["b", "a"]


def test_as_clips_copies_arrays(wave):
    """Clips stay unchanged if the array or tensor that they were made from is overwritten later."""
    for buffer in (wave.copy(), torch.from_numpy(wave.copy())):
        clips = as_clips(buffer, RATE)
        buffer[:] = 0
        np.testing.assert_array_equal(samples(clips), wave)


def test_as_clips_accepts_further_containers(wave, tmp_path):
    """`array`, `memoryview`, bytes and binary files are read; text files, exhausted files and odd dicts are refused."""
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    content = path.read_bytes()
    whole = (16384 * wave).astype(np.int16)
    for given_ in (array.array("h", whole.tolist()), memoryview(whole)):
        np.testing.assert_allclose(samples(as_clips(given_, RATE)), wave / 2, atol=1e-4)
    for given_, number in (([content, content], 2), (np.array(str(path)), 1), ([open(path, "rb"), path], 2)):
        clips = as_clips(given_)
        assert len(clips) == number
        for place in range(number):
            np.testing.assert_allclose(samples(clips, place), wave, atol=1e-6)
    with open(path) as as_text, pytest.raises(ValueError, match="opened as text: open it with mode 'rb'"):
        as_clips(as_text)
    at_its_end = io.BytesIO(content)
    at_its_end.seek(0, io.SEEK_END)
    with pytest.raises(ValueError, match=r"file.seek\(0\)"):
        as_clips(at_its_end)
    with pytest.raises(ValueError, match="dict with the keys label, sound: pass the value that holds the sound"):
        as_clips({"label": "angry", "sound": {"array": wave}})
    with pytest.raises(ValueError, match="1 of 2 clips have no value in the columns path and audio"):
        as_clips(pd.DataFrame({"path": [str(path), None], "audio": [None, None]}))


def test_as_clips_accepts_waveform_rate_pairs(wave):
    """Pairs of samples and rate, as `librosa.load` and `soundfile.read` return them, are accepted alone or in lists."""
    clips = as_clips((wave, 8000))
    assert len(clips) == 1 and len(samples(clips)) == pytest.approx(2 * len(wave), abs=1)
    several = as_clips([(wave, 8000), (torch.from_numpy(wave), RATE)])
    assert [len(samples(several, place)) for place in range(2)] == pytest.approx([2 * len(wave), len(wave)], abs=1)
    with pytest.raises(ValueError, match="8000 Hz, but sample_rate=16000 was passed"):
        as_clips((wave, 8000), RATE)


def test_as_clips_detects_channels_and_spectrograms(wave, recwarn):
    """Two rows alike, as of stereo, are taken as two clips with a warning, and a spectrogram is refused."""
    as_clips(np.stack([wave, np.roll(wave, 100)]), RATE)
    as_clips(np.stack([wave] * 3), RATE)
    assert not recwarn
    with pytest.warns(UserWarning, match="taken as two clips"):
        assert len(as_clips(np.stack([wave, 0.8 * wave + 0.001]), RATE)) == 2
    with pytest.raises(ValueError, match=r"shape \(80, 300\) would be 80 waveforms of 0.019 s: if it is a spectrogram"):
        as_clips(np.random.default_rng(0).random((80, 300)), RATE)
    assert len(as_clips(np.random.default_rng(0).random((80, 4000)), RATE)) == 80


@pytest.mark.parametrize("dtype", [np.int32, np.uint32])
def test_as_clips_refuses_too_wide_integers(wave, dtype):
    """32-bit integers of small magnitude and all 64-bit integers are refused, but zeros are accepted."""
    loud = np.abs(20_000 * wave / np.abs(wave).max()).astype(dtype)
    with pytest.raises(ValueError, match="32-bit integers of magnitude 20000 at most"):
        as_clips(loud, RATE)
    with pytest.raises(ValueError, match="64-bit integers"):
        as_clips(loud.astype(np.uint64), RATE)
    assert samples(as_clips(np.zeros(4000, np.int32), RATE)).max() == 0


def test_excerpt_cuts_recording(wave, tmp_path):
    """`excerpt` returns the samples between two times, records them, and refuses times outside the recording."""
    path = write(tmp_path / "call.wav", np.tile(wave, 8), 16000)
    cut = corpora.excerpt(path, 1, 1.5)
    np.testing.assert_allclose(samples(cut), wave, atol=1e-4)
    assert "call.wav, 1 to 1.5 s" in str(cut["audio"].iloc[0])
    for start, end in ((-1, 1), (2, 2), (3, 5)):
        with pytest.raises(ValueError, match=r"does not lie within .*call.wav, which lasts 4.00 s"):
            corpora.excerpt(path, start, end)


# ---------- data sets of Hugging Face


def dataset(tmp_path, wave):
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    path = str(write(tmp_path / "a.wav", wave))
    features = datasets.Features(
        {
            "audio": {"path": datasets.Value("string"), "bytes": datasets.Value("binary")},
            "label": datasets.ClassLabel(names=["calm", "angry"]),
            "speaker_id": datasets.Value("int64"),
        }
    )
    columns = {
        "audio": [{"path": path, "bytes": None}, {"path": None, "bytes": Path(path).read_bytes()}],
        "label": [1, 0],
        "speaker_id": [7, 8],
    }
    table = datasets.Dataset.from_dict(columns, features=features)
    return table.cast_column("audio", datasets.Audio(sampling_rate=8000))  # as downloaded ones are: not yet decoded


def check_dataset(clips, wave):
    assert clips["label"].tolist() == ["angry", "calm"]
    assert clips["speaker"].tolist() == ["7", "8"]
    for place in range(2):
        np.testing.assert_allclose(samples(clips, place), wave, atol=1e-4)


def test_as_clips_reads_datasets(tmp_path, wave):
    """A Hugging Face data set gives label names, speakers as text, and the right samples."""
    check_dataset(as_clips(dataset(tmp_path, wave)), wave)


def test_as_clips_keeps_dataset_gaps(tmp_path, wave):
    """Missing labels and speakers of a data set stay missing, and reading a missing sound fails by row."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    table = dataset(tmp_path, wave)
    rows = {"audio": [{"path": None, "bytes": Path(tmp_path / "a.wav").read_bytes()}, None], "label": [None, 1]}
    rows["speaker_id"] = [7, None]
    features = datasets.Features(
        {
            "audio": {"path": datasets.Value("string"), "bytes": datasets.Value("binary")},
            "label": table.features["label"],
            "speaker_id": datasets.Value("int64"),
        }
    )
    gaps = datasets.Dataset.from_dict(rows, features=features).cast_column("audio", datasets.Audio())
    clips = as_clips(gaps)
    assert clips["label"].tolist() == [None, "angry"] and clips["speaker"][0] == "7" and pd.isna(clips["speaker"][1])
    with pytest.raises(audio.BadClip, match="row 1: empty"):
        samples(clips, 1)


def test_as_clips_reads_streamed_datasets(tmp_path, wave):
    """A streamed data set is refused without `first`, and gives that number of clips with it."""
    streamed = dataset(tmp_path, wave).to_iterable_dataset()
    with pytest.raises(ValueError, match="first=100"):
        as_clips(streamed)
    check_dataset(as_clips(streamed, first=2), wave)
    assert len(as_clips(streamed, first=1)) == 1


def test_as_clips_marks_dataset_splits(tmp_path, wave):
    """Parts of a `DatasetDict` become the column `split` with a unique index, and `first` applies to each part."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    whole = datasets.DatasetDict({"train": dataset(tmp_path, wave), "test": dataset(tmp_path, wave)})
    clips = as_clips(whole)
    assert clips["split"].tolist() == ["train"] * 2 + ["test"] * 2
    assert clips.index.is_unique
    assert as_clips(whole, first=1)["split"].tolist() == ["train", "test"]


@pytest.mark.parametrize("form", ["torch", "numpy", "pandas", "arrow"])
def test_as_clips_ignores_dataset_format(tmp_path, wave, form):
    """A data set in the format of torch, numpy, pandas or arrow gives the same label names, speakers and samples."""
    check_dataset(as_clips(dataset(tmp_path, wave).with_format(form)), wave)


# ---------- what the library does with them


def same(one, other, **tolerance):
    """Whether two results hold the same numbers, whatever their clips are called."""
    for name in one.data_vars:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(one[name].values, other[name].values, **{"atol": 1e-5, **tolerance})


METHODS = {
    "grad_x_activation": lambda m, clips, **rate: attribution.grad_x_activation(m, clips, target="angry", **rate),
    "gradient": lambda m, clips, **rate: attribution.gradient(m, clips, target="angry", **rate),
    "integrated_gradients": lambda m, clips, **rate: attribution.integrated_gradients(
        m, clips, target="angry", steps=2, **rate
    ),
    "exhaustive_ablation": lambda m, clips, **rate: attribution.exhaustive_ablation(
        m, clips, target="angry", layers=[3], **rate
    ),
    "gradient_shap": lambda m, clips, **rate: attribution.gradient_shap(
        m, clips, target="angry", n=4, steps=2, layers="all", **rate
    ),
    "segment_response": lambda m, clips, **rate: attribution.segment_response(
        m, clips, frames="all", **rate
    ).to_dataset(name="response"),
    "activations": lambda m, clips, **rate: dissection.activations(m, clips, **rate),
    "activation_stats": lambda m, clips, **rate: activations.activation_stats(m, clips, **rate),
    "sweep": lambda m, clips, **rate: ablation.sweep(
        m, clips, ablation.Selection({2: [0, 1]}), controls=None, target="angry", **rate
    ),
}


@pytest.mark.parametrize("method", METHODS)
def test_methods_agree_on_waveform_and_file(shared, tmp_path, wave, method):
    """Each method gives the same result for a file as for its waveform in numpy or torch."""
    model = shared()
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    of_file = METHODS[method](model, path)
    same(METHODS[method](model, wave, sample_rate=RATE), of_file)
    same(METHODS[method](model, torch.from_numpy(wave), sample_rate=RATE), of_file)


@pytest.mark.parametrize("method", METHODS)
def test_methods_use_sample_rate(shared, tmp_path, wave, method):
    """In each method a waveform at 8 kHz gives the result of its file, and without its rate it is refused."""
    model = shared()
    slow = np.repeat(wave, 2)
    path = write(tmp_path / "slow.wav", slow, 8000, subtype="FLOAT")
    same(METHODS[method](model, slow, sample_rate=8000), METHODS[method](model, path))
    with pytest.raises(ValueError, match="has no sample rate"):
        METHODS[method](model, slow)


def test_model_accepts_waveforms(shared, wave, tmp_path):
    """A model computes logits and predictions of waveforms, and refuses them without a sample rate."""
    model = shared()
    path = write(tmp_path / "a.wav", wave, subtype="FLOAT")
    logits = model(wave, sample_rate=RATE)
    assert logits.shape == (1, len(model.labels))
    torch.testing.assert_close(logits, model.logits(model.tensor(wave)))
    assert model([wave, wave[:6000]], sample_rate=RATE).shape == (2, len(model.labels))
    pd.testing.assert_frame_equal(model.predict(wave, RATE), model.predict(path))
    with pytest.raises(ValueError, match="has no sample rate"):
        model(wave)


def test_pruning_evaluates_one_waveform(shared, wave):
    """Pruning is evaluated on one waveform: its change is finite for the forgotten class, and missing for kept ones."""
    model = shared()
    with pytest.warns(UserWarning, match="was not checked"):
        found = pruning.evaluate(model, wave, {(2, "ffn_hidden"): [0, 1]}, "angry", draws=2, sample_rate=RATE)
    assert np.isfinite(found["change"].sel(group="forgotten", measure="probability").values).all()
    assert found["change"].sel(group="kept").isnull().all()


def test_gradient_shap_feeds_deletion_and_figure(shared, wave):
    """`gradient_shap` of a waveform can be passed to `frame_deletion`, and `plots.frame_attribution` draws it."""
    model = shared()
    shap = attribution.gradient_shap(model, wave, target="angry", n=4, steps=2, sample_rate=RATE)
    table = deletion_test.frame_deletion(model, wave, shap, target="angry", frames="all", sample_rate=RATE)
    assert table.sizes["clip"] == 1
    axes = plots.frame_attribution(wave, RATE, {"noise": shap.isel(clip=0)}, k=3).axes[-1]
    curve = [patch.get_data().values for patch in axes.patches if isinstance(patch, StepPatch) and not patch.get_fill()]
    np.testing.assert_array_equal(curve, shap["attribution"])
    marked = [patch.get_x() for patch in axes.patches if isinstance(patch, Rectangle)]
    frames = np.argsort(shap["attribution"].values[0])[-3:]
    np.testing.assert_allclose(np.sort(marked), np.sort(frames) * shap.attrs["window"])


def test_explorers_accept_waveforms(shared, wave):
    """`ClipExplorer` and `FrameExplorer` accept a waveform, and the latter refuses it without a sample rate."""
    from xai_lib import widgets

    model = shared()
    clip_explorer = widgets.ClipExplorer(wave, model=model, sample_rate=RATE)
    shap = attribution.gradient_shap(model, wave, target="angry", n=4, steps=2, sample_rate=RATE)
    frame_explorer = widgets.FrameExplorer({"noise": shap}, wave, sample_rate=RATE)
    for explorer in (clip_explorer, frame_explorer):
        assert explorer.error is None
    with pytest.raises(ValueError, match="has no sample rate"):
        widgets.FrameExplorer({"noise": shap}, wave)
