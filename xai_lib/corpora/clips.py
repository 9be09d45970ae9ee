"""A table of clips from files, waveforms, data sets of Hugging Face and tables: what `corpora.as_clips` is made of."""

import array
import glob
import io
import os
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd

from ..audio.reading import SUFFIXES, Encoded, Waveform, check_scale
from . import filenames, folders

MOST_CHANNELS = 8
SHORTEST_SECONDS = 0.1  # of the waveforms of a large batch; rows that are shorter are those of a spectrogram
ALIKE = 0.5  # correlation of two waveforms that may be the channels of one
RATE_COLUMNS = ("sample_rate", "sampling_rate")  # the second is what Hugging Face calls it
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "actor")
LABEL_COLUMNS = ("label", "labels", "emotion", "class")


def collect(clips, sample_rate=None, first=None) -> pd.DataFrame:
    """The table of `corpora.as_clips`, of anything but folders and tables in files."""
    if isinstance(clips, pd.DataFrame):
        return _of_table(clips, sample_rate)
    if isinstance(clips, pd.Series) and not pd.api.types.is_numeric_dtype(clips):  # a column of a table, with its index
        table = _of_list(clips.tolist(), sample_rate)
        return table.set_axis(clips.index) if len(table) == len(clips) else table  # a pattern may name several
    if isinstance(clips, (str, os.PathLike)):
        paths = folders.named(clips, SUFFIXES)
        if not paths and glob.has_magic(str(clips)):
            raise FileNotFoundError(f"no file is called {clips}")
        return _of_files(paths or [os.path.expanduser(clips)])
    if isinstance(clips, (Waveform, Encoded)):
        return _of_sounds([clips])
    if _is_dataset(clips):
        return _of_dataset(clips, first, sample_rate)
    if isinstance(clips, dict) and clips and all(map(_is_dataset, clips.values())):
        parts = {name: _of_dataset(part, first, sample_rate).assign(split=name) for name, part in clips.items()}
        return pd.concat(parts.values(), ignore_index=True)
    if isinstance(clips, (dict, bytes, bytearray)) or _is_pair(clips):
        return _of_sounds([_sound(clips, sample_rate, "a clip")])
    if hasattr(clips, "read"):  # an open file
        return _of_sounds([_of_open_file(clips)])
    if isinstance(clips, (array.array, memoryview)):
        clips = np.asarray(clips)
    if getattr(getattr(clips, "dtype", None), "kind", "") in ("O", "U", "S", "T"):  # an array of paths
        return _of_list(np.atleast_1d(np.asarray(clips)).tolist(), sample_rate)
    if hasattr(clips, "__array__") or _are_numbers(clips):
        return _of_arrays(_rows(clips), sample_rate)
    if hasattr(clips, "__iter__"):
        return _of_list(list(clips), sample_rate)
    raise ValueError(
        f"clips cannot be made of a {type(clips).__name__}: give a path, a waveform with sample_rate=, a table with a "
        "column path or audio, a list of these, or a datasets.Dataset"
    )


# ---------- tables


def _of_table(clips, sample_rate):
    """The table, with what is in its column `audio` made ready."""
    if not {"path", "audio"} & set(clips):
        has = ", ".join(map(str, clips)) or "no columns"
        raise ValueError(f'clips are a table with a column "path" or "audio"; this one has {has}')
    if "path" in clips and "audio" not in clips:
        wrong = [path for path in clips["path"] if not isinstance(path, (str, os.PathLike)) or not str(path).strip()]
        if wrong:
            raise ValueError(f"{len(wrong)} of {len(clips)} clips name no file; one says {wrong[0]!r}: leave them out")
        return clips
    if all(isinstance(sound, (Waveform, Encoded)) for sound in clips["audio"]):
        return clips
    rates = _rates(clips, sample_rate)
    sounds = [
        None if _is_missing(sound) else _sound(sound, rate, f"clip {index}")
        for (index, sound), rate in zip(clips["audio"].items(), rates)
    ]
    nothing = np.array([sound is None for sound in sounds])
    if "path" in clips:
        nothing &= [_is_missing(path) or not str(path).strip() for path in clips["path"]]
    if nothing.any():
        columns = "the columns path and audio" if "path" in clips else "the column audio"
        raise ValueError(f"{nothing.sum()} of {len(clips)} clips have nothing in {columns}: leave them out")
    return clips.assign(audio=pd.Series(sounds, index=clips.index, dtype=object))


def _rates(table, sample_rate) -> list:
    """The rate of each row: of the column that says so, else the one that was given; ValueError where they differ."""
    named = [column for column in RATE_COLUMNS if column in table]
    if not named:
        return [sample_rate] * len(table)
    rates = [sample_rate if _is_missing(rate) else rate for rate in table[named[0]]]
    for rate in rates:
        _check_one_rate(rate, sample_rate, f"the column {named[0]}")
    return rates


def _check_one_rate(rate, sample_rate, what):
    """ValueError where a sound has another rate than was given."""
    if sample_rate is not None and rate != sample_rate:
        raise ValueError(f"{what} says {rate!r} Hz, and sample_rate={sample_rate!r} was given: leave one of them out")


def _is_missing(sound) -> bool:
    """Whether a cell is empty: None or NaN."""
    return sound is None or (isinstance(sound, float) and np.isnan(sound))


def _sound(cell, sample_rate, name):
    """One cell of a column of sounds: a waveform, or a file in memory or on disk."""
    if isinstance(cell, (Waveform, Encoded)):
        return cell
    if isinstance(cell, (bytes, bytearray)):
        return Encoded(bytes(cell), name)
    if _is_pair(cell):
        samples, rate = cell
        _check_one_rate(rate, sample_rate, name)
        return _waveform(samples, rate, name)
    if isinstance(cell, dict) and "array" in cell:
        rate = cell.get("sampling_rate") or sample_rate
        _check_one_rate(rate, sample_rate, name)
        return _waveform(cell["array"], rate, str(cell.get("path") or name))
    if hasattr(cell, "read"):
        return _of_open_file(cell)
    if isinstance(cell, dict) and (cell.get("bytes") is not None or isinstance(cell.get("path"), (str, os.PathLike))):
        if cell.get("bytes") is not None:
            return Encoded(bytes(cell["bytes"]), str(cell.get("path") or name))
        return str(cell["path"])
    if isinstance(cell, (str, os.PathLike)):  # a file on disk, beside others in memory
        return str(cell)
    if hasattr(cell, "__array__") or _are_numbers(cell):
        return _waveform(cell, sample_rate, name)
    if isinstance(cell, dict):
        raise ValueError(
            f"{name} is a dict of {', '.join(map(str, cell))}: give the cell that holds the sound, such as row['audio'], or "
            "make a table of columns, pd.DataFrame(…)"
        )
    raise ValueError(
        f"{name}: its audio is a {type(cell).__name__}, which is neither a waveform nor a sound file: give an array [time] "
        "with sample_rate=, a path, or the bytes of a file"
    )


def _of_open_file(file) -> Encoded:
    """What is left to be read of an open file."""
    name = str(getattr(file, "name", "an open file"))
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{name} was opened as text: open it with mode 'rb'")
    content = file.read()
    if not content and hasattr(file, "seek"):
        raise ValueError(f"{name}: there is nothing left to read: go back to its beginning, file.seek(0)")
    return Encoded(content, name)


# ---------- paths


def _of_files(paths):
    """A table of files, with what the names of known corpora say."""
    rows = [{"path": str(path), **(filenames.parse("ravdess", path) or {})} for path in paths]
    return pd.DataFrame(rows)


def _of_list(items, sample_rate):
    """A list of paths, or of sounds of any kind."""
    if not items:
        raise ValueError("there are no clips: what was given is empty")
    if all(isinstance(item, (str, os.PathLike)) for item in items):
        paths = []
        for item in items:
            several = folders.named(item, SUFFIXES) if glob.has_magic(str(item)) else []
            paths += several or [os.path.expanduser(item)]  # what is not there is named when it is read
        return _of_files(paths)
    return _of_sounds([_sound(item, sample_rate, f"clip {place}") for place, item in enumerate(items)])


def _of_sounds(sounds):
    """A table of sounds."""
    return pd.DataFrame({"audio": pd.Series(sounds, dtype=object)})


# ---------- waveforms


def _are_numbers(items) -> bool:
    """Whether this is a list of numbers."""
    return (
        isinstance(items, (list, tuple))
        and bool(items)
        and all(np.isscalar(x) and not isinstance(x, (str, bytes)) for x in items)
    )


def _is_pair(thing) -> bool:
    """Whether this is samples and their rate, as librosa and soundfile read them."""
    if not isinstance(thing, tuple) or len(thing) != 2:
        return False
    samples, rate = thing
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    return is_number and getattr(samples, "ndim", 0) > 0


def _rows(numbers):
    """The waveforms of an array [time] or [clip, time]."""
    numbers = _numpy(numbers)
    if numbers.ndim not in (1, 2):
        raise ValueError(
            f"waveforms are [time] or [clip, time]; this array has the shape {numbers.shape}: give one waveform per clip"
        )
    if numbers.ndim == 2 and numbers.shape[1] == 1 < numbers.shape[0]:
        return [numbers[:, 0]]
    if numbers.ndim == 2 and numbers.shape[1] <= MOST_CHANNELS < numbers.shape[0]:
        raise ValueError(
            f"an array of shape {numbers.shape} looks like [time, channel], and waveforms are [time] or [clip, time]: "
            "take the mean of the channels, waveform.mean(axis=1)"
        )
    return [numbers] if numbers.ndim == 1 else list(numbers)


def _check_rows(rows, sample_rate):
    """Refuse a spectrogram, and warn where two waveforms are two channels by the look of them."""
    if (
        len(rows) > MOST_CHANNELS
        and sample_rate
        and 0 < len(rows[0]) / _rate(sample_rate, "a batch") < SHORTEST_SECONDS
    ):
        raise ValueError(
            f"an array of shape {(len(rows), len(rows[0]))} would be {len(rows)} waveforms of "
            f"{len(rows[0]) / sample_rate:.3f} s: if it is a spectrogram, give the waveform, which models take as it was "
            "recorded"
        )
    if len(rows) == 2 and len(rows[0]) > 1 and min(np.ptp(row) for row in rows) > 0:
        first, second = (np.asarray(row, float) for row in rows)
        if np.isfinite(first).all() and np.isfinite(second).all() and np.corrcoef(first, second)[0, 1] > ALIKE:
            warnings.warn(
                "an array [2, time] of two waveforms that are much alike is taken as two clips: if they are the channels of "
                "one, give their mean, waveform.mean(axis=0)",
                stacklevel=6,
            )


def _of_arrays(rows, sample_rate):
    """A table of waveforms."""
    _check_rows(rows, sample_rate)
    labels = ["the waveform"] if len(rows) == 1 else [f"waveform {place}" for place in range(len(rows))]
    return _of_sounds([_waveform(row, sample_rate, label) for row, label in zip(rows, labels)])


def _numpy(numbers) -> np.ndarray:
    """Numbers of numpy, torch (on any device, with or without gradient) or a list, as an array of numpy."""
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu()
        numbers = numbers.float() if numbers.is_floating_point() else numbers
    try:
        return np.asarray(numbers)
    except (ValueError, TypeError) as error:
        raise ValueError(f"a waveform is an array of numbers, and this is none: {error}") from error


def _waveform(samples, sample_rate, name) -> Waveform:
    """Samples of any type as mono float32 of full scale 1."""
    rate = _rate(sample_rate, name)
    samples = _numpy(samples)
    if samples.ndim == 2 and 1 in samples.shape:
        samples = samples.reshape(-1)
    if samples.ndim != 1:
        raise ValueError(f"{name}: a waveform is [time]; this one has the shape {samples.shape}")
    kind = samples.dtype.kind
    bits = 8 * samples.dtype.itemsize
    if kind in "iu":
        _check_integers(samples, bits, name)
    if kind == "u":
        scaled = samples.astype(float) / 2.0 ** (bits - 1) - 1
    elif kind == "i":
        scaled = samples.astype(float) / 2.0 ** (bits - 1)
    elif kind == "f":
        scaled = samples
        check_scale(np.abs(samples[np.isfinite(samples)]).max(initial=0), name)
    else:
        raise ValueError(f"{name}: samples are whole numbers or floats, not {samples.dtype}")
    # A copy: what is done to the caller's array later, such as a buffer that is used again, is not heard.
    return Waveform(np.array(scaled, dtype=np.float32, order="C", copy=True), rate, name)


def _check_integers(samples, bits, name):
    """Raise where the type of integers does not tell their full scale."""
    if bits == 64:
        raise ValueError(
            f"{name}: its samples are integers of 64 bits, of which nobody knows the full scale: convert them to the type "
            "that was recorded, waveform.astype(np.int16), or to floats of full scale 1"
        )
    greatest = int(np.abs(samples.astype(np.int64)).max(initial=0))
    if bits == 32 and 0 < greatest < 2**16:
        raise ValueError(
            f"{name}: its samples are integers of 32 bits and reach {greatest} only, which would be near silence: if 16 "
            "bits were recorded, say so, waveform.astype(np.int16)"
        )


def _rate(sample_rate, name) -> int:
    """The rate, if it is one."""
    if sample_rate is None or (isinstance(sample_rate, float) and np.isnan(sample_rate)):
        raise ValueError(f"{name} needs its rate, such as sample_rate=16000: a wrong one would not be noticed")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float, np.integer, np.floating)):
        several = (
            "; of several rates, make a table with the columns audio and sample_rate" if np.ndim(sample_rate) else ""
        )
        raise ValueError(f"{name}: sample_rate is a number in Hz, not {sample_rate!r}{several}")
    if not 100 <= sample_rate <= 1_000_000 or sample_rate != int(sample_rate):
        raise ValueError(f"{name}: sample_rate is a whole number in Hz, from 100 to 1000000, not {sample_rate!r}")
    return int(sample_rate)


# ---------- data sets of Hugging Face


def _is_dataset(thing) -> bool:
    """Whether this is a `datasets.Dataset` or a streamed one; the library itself is not needed."""
    return hasattr(thing, "cast_column") and hasattr(thing, "features") and hasattr(thing, "__iter__")


def _of_dataset(dataset, first, sample_rate):
    """A table of the clips of a data set, which are decoded here when they are read."""
    if first is None and not hasattr(dataset, "__len__"):
        raise ValueError("this data set is streamed, and may have no end: say how many clips to take, first=100")
    features = dict(dataset.features or {})
    if hasattr(dataset, "with_format"):  # plain Python, whatever the data set gives otherwise
        dataset = dataset.with_format(None)
    for name, feature in features.items():
        if type(feature).__name__ == "Audio":
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    rows = list(islice(dataset, first))
    if not rows:
        raise ValueError("there are no clips: the data set is empty")
    column = _audio_column(features, rows[0])
    rates = _rates(pd.DataFrame([{key: row[key] for key in RATE_COLUMNS if key in row} for row in rows]), sample_rate)
    sounds = [_sound_of_row(row[column], rate, f"row {place}") for place, (row, rate) in enumerate(zip(rows, rates))]
    table = _of_sounds(sounds)
    for name in rows[0]:
        if name == column:
            continue
        values = [row.get(name) for row in rows]
        words = getattr(features.get(name), "names", None)
        if words:
            values = [_word(words, number) for number in values]
        table[name] = pd.Series(values, dtype=object if words or name in SPEAKER_COLUMNS else None)
    return with_usual_names(table)


def _sound_of_row(cell, sample_rate, name):
    """One cell of a data set; nothing in it is a clip that is skipped by name when it is read."""
    return Encoded(b"", name) if cell is None else _sound(cell, sample_rate, name)


def _audio_column(features, row) -> str:
    """The column that holds sound: of the type Audio, or whose cells look like it."""
    typed = [name for name, feature in features.items() if type(feature).__name__ == "Audio"]
    shaped = [name for name, cell in row.items() if isinstance(cell, dict) and {"array", "bytes", "path"} & set(cell)]
    found = typed or shaped or [name for name in ("audio", "path", "file") if name in row]
    if not found:
        raise ValueError(f"no column of the data set holds sound: it has {', '.join(row)}")
    return found[0]


def _word(words, number):
    """The name of a class, None where it is not known (-1)."""
    known = isinstance(number, (int, np.integer)) and 0 <= number < len(words)
    return words[number] if known else None


def with_usual_names(table) -> pd.DataFrame:
    """The columns of labels and speakers under the names that they have here, whatever their case."""
    spelled = {str(name).lower(): name for name in reversed(list(table))}
    for usual, others in (("label", LABEL_COLUMNS), ("speaker", SPEAKER_COLUMNS)):
        present = [spelled[name] for name in others if name in spelled]
        if present and usual not in table:
            table = table.rename(columns={present[0]: usual})
    if "speaker" in table:
        table = table.assign(speaker=[None if pd.isna(name) else str(name) for name in table["speaker"]])
    return table
