"""A table of clips from files, waveforms, data sets of Hugging Face and tables: what `corpora.as_clips` is made of."""

import glob
import os
import warnings
from dataclasses import replace
from itertools import islice

import numpy as np
import pandas as pd

from . import folders, names
from .reading import SUFFIXES, Encoded, Waveform

MOST_CHANNELS = 8
LOUD = 2.0  # full scale of floats is 1
UNSCALED = 100.0  # beyond this they are integers that were not scaled
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "actor")
LABEL_COLUMNS = ("label", "labels", "emotion", "class")


def collect(clips, sample_rate=None, first=None) -> pd.DataFrame:
    """The table of `corpora.as_clips`, of anything but folders and tables in files."""
    if isinstance(clips, pd.DataFrame):
        return _of_table(clips, sample_rate)
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
    if isinstance(clips, (dict, bytes, bytearray)):
        return _of_sounds([_sound(clips, sample_rate, "a clip")])
    if hasattr(clips, "read"):  # an open file
        return _of_sounds([Encoded(clips.read(), str(getattr(clips, "name", "an open file")))])
    if isinstance(clips, (np.ndarray, pd.Series, pd.Index)) and getattr(clips.dtype, "kind", "O") in "OUST":
        return _of_list(clips.tolist(), sample_rate)  # an array or a column of paths
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
    rates = clips["sample_rate"] if "sample_rate" in clips else [sample_rate] * len(clips)
    sounds = [
        None if _is_missing(sound) else _sound(sound, rate, f"clip {index}")
        for (index, sound), rate in zip(clips["audio"].items(), rates)
    ]
    nothing = [sound is None for sound in sounds]
    if any(nothing) and "path" not in clips:
        raise ValueError(f"{sum(nothing)} of {len(clips)} clips have nothing in the column audio: leave them out")
    return clips.assign(audio=pd.Series(sounds, index=clips.index, dtype=object))


def _is_missing(sound) -> bool:
    """Whether a cell is empty: None or NaN."""
    return sound is None or (isinstance(sound, float) and np.isnan(sound))


def _sound(cell, sample_rate, name):
    """One cell of a column of sounds: a waveform, or a file in memory or on disk."""
    if isinstance(cell, (Waveform, Encoded)):
        return cell
    if isinstance(cell, (bytes, bytearray)):
        return Encoded(bytes(cell), name)
    if isinstance(cell, dict) and "array" in cell:
        rate = cell.get("sampling_rate", sample_rate)
        return _waveform(cell["array"], rate, str(cell.get("path") or name))
    if isinstance(cell, dict) and (cell.get("bytes") is not None or cell.get("path")):
        if cell.get("bytes") is not None:
            return Encoded(bytes(cell["bytes"]), str(cell.get("path") or name))
        return str(cell["path"])
    if isinstance(cell, (str, os.PathLike)):  # a file on disk, beside others in memory
        return str(cell)
    if hasattr(cell, "__array__") or _are_numbers(cell):
        return _waveform(cell, sample_rate, name)
    raise ValueError(f"{name}: its audio is a {type(cell).__name__}, which is neither a waveform nor a sound file")


# ---------- paths


def _of_files(paths):
    """A table of files, with what the names of known corpora say."""
    rows = [{"path": str(path), **(names.parse("ravdess", path) or {})} for path in paths]
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
        and all(np.isscalar(x) and not isinstance(x, str) for x in items)
    )


def _rows(array):
    """The waveforms of an array [time] or [clip, time]."""
    array = _numpy(array)
    if array.ndim not in (1, 2):
        raise ValueError(
            f"waveforms are [time] or [clip, time]; this array has the shape {array.shape}: give one waveform per clip"
        )
    if array.ndim == 2 and array.shape[1] == 1 < array.shape[0]:
        return [array[:, 0]]
    if array.ndim == 2 and array.shape[1] <= MOST_CHANNELS < array.shape[0]:
        raise ValueError(
            f"an array of shape {array.shape} looks like [time, channel], and waveforms are [time] or [clip, time]: "
            "take the mean of the channels, waveform.mean(axis=1)"
        )
    return [array] if array.ndim == 1 else list(array)


def _of_arrays(rows, sample_rate):
    """A table of waveforms."""
    labels = ["the waveform"] if len(rows) == 1 else [f"waveform {place}" for place in range(len(rows))]
    return _of_sounds([_waveform(row, sample_rate, label) for row, label in zip(rows, labels)])


def _numpy(array) -> np.ndarray:
    """Numbers of numpy, torch (on any device, with or without gradient) or a list, as an array of numpy."""
    if hasattr(array, "detach"):
        array = array.detach().cpu()
        array = array.float() if array.is_floating_point() else array
    try:
        return np.asarray(array)
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
    if kind == "u":
        half = 2.0 ** (8 * samples.dtype.itemsize - 1)
        scaled = samples.astype(float) / half - 1
    elif kind == "i" and samples.dtype.itemsize == 8:
        raise ValueError(
            f"{name}: its samples are integers of 64 bits, of which nobody knows the full scale: convert them to the type "
            "that was recorded, waveform.astype(np.int16), or to floats of full scale 1"
        )
    elif kind == "i":
        scaled = samples.astype(float) / 2.0 ** (8 * samples.dtype.itemsize - 1)
    elif kind == "f":
        scaled = samples
        _check_scale(samples, name)
    else:
        raise ValueError(f"{name}: samples are whole numbers or floats, not {samples.dtype}")
    return Waveform(np.ascontiguousarray(scaled, dtype=np.float32), rate, name)


def _check_scale(samples, name):
    """Raise, or warn, where floats go beyond full scale by far."""
    greatest = np.abs(samples[np.isfinite(samples)]).max(initial=0)
    message = f"{name}: its samples reach {greatest:g}, and full scale of floats is 1"
    if greatest > UNSCALED:
        raise ValueError(f"{message}: divide them, by 32768 if they were integers of 16 bits")
    if greatest > LOUD:
        warnings.warn(f"{message}: it is far louder than what models were trained on", stacklevel=2)


def _rate(sample_rate, name) -> int:
    """The rate, if it is one."""
    if sample_rate is None or (isinstance(sample_rate, float) and np.isnan(sample_rate)):
        raise ValueError(f"{name} needs its rate, such as sample_rate=16000: a wrong one would not be noticed")
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float, np.integer, np.floating)):
        raise ValueError(f"{name}: sample_rate is a number in Hz, not {sample_rate!r}")
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
    for name, feature in features.items():
        if type(feature).__name__ == "Audio":
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    rows = list(islice(dataset, first))
    if not rows:
        raise ValueError("there are no clips: the data set is empty")
    column = _audio_column(features, rows[0])
    sounds = [_sound_of_row(row[column], sample_rate, f"row {place}") for place, row in enumerate(rows)]
    table = _of_sounds(sounds)
    for name in rows[0]:
        if name == column:
            continue
        values = [row.get(name) for row in rows]
        words = getattr(features.get(name), "names", None)
        if words:
            values = [_word(words, number) for number in values]
        table[name] = pd.Series(values, dtype=object if words or name in SPEAKER_COLUMNS else None)
    return _with_usual_names(table)


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


def _with_usual_names(table):
    """The columns of labels and speakers under the names that they have here."""
    for usual, others in (("label", LABEL_COLUMNS), ("speaker", SPEAKER_COLUMNS)):
        there = [name for name in others if name in table]
        if there and usual not in table:
            table = table.rename(columns={there[0]: usual})
    if "speaker" in table:
        table["speaker"] = [None if pd.isna(name) else str(name) for name in table["speaker"]]
    return table
