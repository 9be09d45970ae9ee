"""Tables of clips from files, waveforms, Hugging Face data sets and tables: the parts of `corpora.as_clips`."""

from __future__ import annotations

import array
import glob
import io
import os
import warnings
from dataclasses import replace
from itertools import islice
from typing import Any

import numpy as np
import pandas as pd

from ..audio.reading import SUFFIXES, Encoded, Waveform, check_scale
from . import filenames, folders

MAX_CHANNELS = 8
MIN_SECONDS = 0.1  # minimum duration of the rows of a large batch; shorter rows are those of a spectrogram
ALIKE = 0.5  # correlation above which two waveforms may be the channels of one clip
RATE_COLUMNS = ("sample_rate", "sampling_rate")  # the second is Hugging Face's name
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id", "actor")
LABEL_COLUMNS = ("label", "labels", "emotion", "class")


def collect(clips: Any, sample_rate: int | None = None, first: int | None = None) -> pd.DataFrame:
    """Return the table of `corpora.as_clips` for everything but folders and tables in files."""
    if isinstance(clips, pd.DataFrame):
        return _from_table(clips, sample_rate)
    if isinstance(clips, pd.Series) and not pd.api.types.is_numeric_dtype(clips):  # a column of a table
        table = _from_list(clips.tolist(), sample_rate)
        is_one_to_one = len(table) == len(clips)  # not where a pattern matches several files
        return table.set_axis(clips.index) if is_one_to_one else table
    if isinstance(clips, (str, os.PathLike)):
        return _from_path(clips)
    if isinstance(clips, (Waveform, Encoded)):
        return _from_sounds([clips])
    if _is_dataset(clips):
        return _from_dataset(clips, first, sample_rate)
    if isinstance(clips, dict) and clips and all(map(_is_dataset, clips.values())):
        parts = [_from_dataset(part, first, sample_rate).assign(split=name) for name, part in clips.items()]
        return pd.concat(parts, ignore_index=True)
    if isinstance(clips, (dict, bytes, bytearray)) or _is_samples_and_rate(clips):
        return _from_sounds([_to_sound(clips, sample_rate, "a clip")])
    if hasattr(clips, "read"):  # an open file
        return _from_sounds([_read_open_file(clips)])
    if isinstance(clips, (array.array, memoryview)):
        clips = np.asarray(clips)
    if _is_array_of_objects(clips):  # of paths
        return _from_list(np.atleast_1d(np.asarray(clips)).tolist(), sample_rate)
    if hasattr(clips, "__array__") or _are_numbers(clips):
        return _from_arrays(_waveforms_of(clips), sample_rate)
    if hasattr(clips, "__iter__"):
        return _from_list(list(clips), sample_rate)
    raise ValueError(
        f"clips cannot be made from an object of type {type(clips).__name__}: pass a path, a waveform with "
        "sample_rate=, a table with a column path or audio, a list of these, or a datasets.Dataset"
    )


# ---------- tables


def _from_table(clips, sample_rate) -> pd.DataFrame:
    """Return the table with the cells of its column `audio` converted to sounds that can be read."""
    if not {"path", "audio"} & set(clips):
        present_columns = ", ".join(map(str, clips)) or "no columns"
        raise ValueError(f'a table of clips needs a column "path" or "audio"; this one has {present_columns}')
    if "audio" not in clips:
        _require_paths(clips["path"])
        return clips
    if all(isinstance(sound, (Waveform, Encoded)) for sound in clips["audio"]):
        return clips

    sounds = []
    for (index, cell), rate in zip(clips["audio"].items(), _row_rates(clips, sample_rate)):
        sounds.append(None if _is_missing(cell) else _to_sound(cell, rate, f"clip {index}"))

    is_empty = np.array([sound is None for sound in sounds])
    if "path" in clips:
        is_empty &= [_is_missing(path) or not str(path).strip() for path in clips["path"]]
    if is_empty.any():
        columns = "the columns path and audio" if "path" in clips else "the column audio"
        raise ValueError(f"{is_empty.sum()} of {len(clips)} clips have no value in {columns}: drop these rows")
    return clips.assign(audio=pd.Series(sounds, index=clips.index, dtype=object))


def _require_paths(paths):
    """Raise ValueError where a cell of the column `path` names no file."""
    invalid_paths = []
    for path in paths:
        if not isinstance(path, (str, os.PathLike)) or not str(path).strip():
            invalid_paths.append(path)
    if invalid_paths:
        raise ValueError(
            f"{len(invalid_paths)} of {len(paths)} clips name no file, e.g. {invalid_paths[0]!r}: drop these rows"
        )


def _row_rates(table, sample_rate) -> list:
    """Return the sample rate of each row: of its column, else `sample_rate`; ValueError where they differ."""
    column = next((name for name in RATE_COLUMNS if name in table), None)
    if column is None:
        return [sample_rate] * len(table)

    rates = []
    for cell in table[column]:
        rate = sample_rate if _is_missing(cell) else cell
        _check_rates_agree(rate, sample_rate, f"the column {column}")
        rates.append(rate)
    return rates


def _check_rates_agree(rate, sample_rate, rate_source):
    """Raise ValueError where a sound has another rate than `sample_rate`."""
    if sample_rate is not None and rate != sample_rate:
        raise ValueError(
            f"{rate_source} says {rate!r} Hz, but sample_rate={sample_rate!r} was passed: remove one of them"
        )


def _is_missing(cell) -> bool:
    """Return whether a cell is empty: None or NaN."""
    return cell is None or (isinstance(cell, float) and np.isnan(cell))


def _to_sound(cell, sample_rate, name) -> Waveform | Encoded | str:
    """Convert one cell of a column of sounds to a waveform, a file in memory, or the path of a file on disk."""
    if isinstance(cell, (Waveform, Encoded)):
        return cell
    if isinstance(cell, (bytes, bytearray)):
        return Encoded(bytes(cell), name)
    if _is_samples_and_rate(cell):
        samples, rate = cell
        _check_rates_agree(rate, sample_rate, name)
        return _to_waveform(samples, rate, name)
    if isinstance(cell, dict):
        return _to_sound_from_dict(cell, sample_rate, name)
    if hasattr(cell, "read"):
        return _read_open_file(cell)
    if isinstance(cell, (str, os.PathLike)):  # a file on disk, among others in memory
        return str(cell)
    if hasattr(cell, "__array__") or _are_numbers(cell):
        return _to_waveform(cell, sample_rate, name)
    raise ValueError(
        f"{name}: audio of type {type(cell).__name__} is neither a waveform nor a sound file: pass an array [time] "
        "with sample_rate=, a path, or the bytes of a file"
    )


def _to_sound_from_dict(cell, sample_rate, name) -> Waveform | Encoded | str:
    """Convert a cell in one of the forms of Hugging Face: samples, bytes or path."""
    path = cell.get("path")
    if "array" in cell:
        rate = cell.get("sampling_rate") or sample_rate
        _check_rates_agree(rate, sample_rate, name)
        return _to_waveform(cell["array"], rate, str(path or name))
    if cell.get("bytes") is not None:
        return Encoded(bytes(cell["bytes"]), str(path or name))
    if isinstance(path, (str, os.PathLike)):
        return str(path)
    raise ValueError(
        f"{name} is a dict with the keys {', '.join(map(str, cell))}: pass the value that holds the sound, e.g. "
        "row['audio'], or a table of columns, pd.DataFrame(…)"
    )


def _read_open_file(file) -> Encoded:
    """Return the unread content of an open file."""
    name = str(getattr(file, "name", "an open file"))
    if isinstance(file, io.TextIOBase):
        raise ValueError(f"{name} was opened as text: open it with mode 'rb'")
    content = file.read()
    if not content and hasattr(file, "seek"):
        raise ValueError(f"{name}: no bytes are left to read: return to the beginning with file.seek(0)")
    return Encoded(content, name)


# ---------- paths


def _from_path(path) -> pd.DataFrame:
    """Return a table of one file, or of those that a pattern matches."""
    paths = folders.named(path, SUFFIXES)
    if not paths and glob.has_magic(str(path)):
        raise FileNotFoundError(f"no file matches the pattern {path}")
    return _from_files(paths or [os.path.expanduser(path)])


def _from_files(paths) -> pd.DataFrame:
    """Return a table of files, with the fields that RAVDESS file names hold."""
    rows = []
    for path in paths:
        fields = filenames.parse("ravdess", path) or {}
        rows.append({"path": str(path), **fields})
    return pd.DataFrame(rows)


def _from_list(items, sample_rate) -> pd.DataFrame:
    """Return a table of a list of paths, or of sounds of any kind."""
    if not items:
        raise ValueError("there are no clips: the input is empty")
    if all(isinstance(item, (str, os.PathLike)) for item in items):
        paths = []
        for item in items:
            matches = folders.named(item, SUFFIXES) if glob.has_magic(str(item)) else []
            paths += matches or [os.path.expanduser(item)]  # a missing file is reported when it is read
        return _from_files(paths)
    return _from_sounds([_to_sound(item, sample_rate, f"clip {position}") for position, item in enumerate(items)])


def _from_sounds(sounds) -> pd.DataFrame:
    """Return a table with sounds in the column `audio`."""
    return pd.DataFrame({"audio": pd.Series(sounds, dtype=object)})


# ---------- waveforms


def _are_numbers(items) -> bool:
    """Return whether this is a list or tuple of numbers that is not empty."""
    if not isinstance(items, (list, tuple)) or not items:
        return False
    return all(np.isscalar(item) and not isinstance(item, (str, bytes)) for item in items)


def _is_array_of_objects(item) -> bool:
    """Return whether this is an array of strings or other objects, not of numbers."""
    dtype = getattr(item, "dtype", None)
    return getattr(dtype, "kind", "") in ("O", "U", "S", "T")


def _is_samples_and_rate(item) -> bool:
    """Return whether this is a pair of samples and their rate, as returned by librosa and soundfile."""
    if not isinstance(item, tuple) or len(item) != 2:
        return False
    samples, rate = item
    is_number = isinstance(rate, (int, float, np.integer, np.floating)) and not isinstance(rate, bool)
    return is_number and getattr(samples, "ndim", 0) > 0


def _waveforms_of(array_like) -> list[np.ndarray]:
    """Return the waveforms of an array [time] or [clip, time]; ValueError for other shapes."""
    samples = _to_numpy(array_like)
    if samples.ndim not in (1, 2):
        raise ValueError(
            f"waveforms must be [time] or [clip, time]; this array has the shape {samples.shape}: pass one waveform "
            "per clip"
        )
    if samples.ndim == 2 and samples.shape[1] == 1 < samples.shape[0]:
        return [samples[:, 0]]
    if samples.ndim == 2 and samples.shape[1] <= MAX_CHANNELS < samples.shape[0]:
        raise ValueError(
            f"an array of shape {samples.shape} looks like [time, channel], but waveforms must be [time] or [clip, "
            "time]: pass the mean of the channels, waveform.mean(axis=1)"
        )
    return [samples] if samples.ndim == 1 else list(samples)


def _check_rows(rows, sample_rate):
    """Raise ValueError for a spectrogram; warn where two waveforms look like two channels of one clip."""
    n_samples = len(rows[0])
    if len(rows) > MAX_CHANNELS and sample_rate and n_samples:
        seconds = n_samples / _validated_rate(sample_rate, "a batch")
        if seconds < MIN_SECONDS:
            raise ValueError(
                f"an array of shape {(len(rows), n_samples)} would be {len(rows)} waveforms of {seconds:.3f} s: if it "
                "is a spectrogram, pass the recorded waveform instead"
            )
    if len(rows) == 2 and _are_alike(rows[0], rows[1]):
        warnings.warn(
            "an array [2, time] of two correlated waveforms is taken as two clips: if they are the channels of one "
            "clip, pass their mean, waveform.mean(axis=0)",
            stacklevel=6,
        )


def _are_alike(first, second) -> bool:
    """Return whether two waveforms of equal length are correlated like the channels of one clip."""
    if len(first) < 2 or np.ptp(first) <= 0 or np.ptp(second) <= 0:
        return False
    pair = np.asarray([first, second], float)
    return bool(np.isfinite(pair).all() and np.corrcoef(pair)[0, 1] > ALIKE)


def _from_arrays(rows, sample_rate) -> pd.DataFrame:
    """Return a table of waveforms."""
    _check_rows(rows, sample_rate)
    if len(rows) == 1:
        return _from_sounds([_to_waveform(rows[0], sample_rate, "the waveform")])
    return _from_sounds([_to_waveform(row, sample_rate, f"waveform {position}") for position, row in enumerate(rows)])


def _to_numpy(numbers) -> np.ndarray:
    """Convert numbers of numpy, torch (on any device, with or without gradient) or a list to a numpy array."""
    if hasattr(numbers, "detach"):
        numbers = numbers.detach().cpu()
        if numbers.is_floating_point():
            numbers = numbers.float()  # numpy has no bfloat16
    try:
        return np.asarray(numbers)
    except (ValueError, TypeError) as error:
        raise ValueError(f"a waveform must be an array of numbers: {error}") from error


def _to_waveform(samples, sample_rate, name) -> Waveform:
    """Convert samples of any type to mono float32 of full scale 1."""
    rate = _validated_rate(sample_rate, name)
    samples = _to_numpy(samples)
    if samples.ndim == 2 and 1 in samples.shape:
        samples = samples.reshape(-1)
    if samples.ndim != 1:
        raise ValueError(f"{name}: a waveform must be [time]; this one has the shape {samples.shape}")
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
        raise ValueError(f"{name}: samples must be integers or floats, not {samples.dtype}")
    # A copy, so that later changes of the caller's array, such as a reused buffer, do not reach the clip.
    return Waveform(np.array(scaled, dtype=np.float32, order="C", copy=True), rate, name)


def _check_integers(samples, bits, name):
    """Raise ValueError where the type of the integers does not determine their full scale."""
    if bits == 64:
        raise ValueError(
            f"{name}: samples are 64-bit integers, whose full scale is unknown: convert them to the recorded type, "
            "waveform.astype(np.int16), or to floats of full scale 1"
        )
    maximum = int(np.abs(samples.astype(np.int64)).max(initial=0))
    if bits == 32 and 0 < maximum < 2**16:
        raise ValueError(
            f"{name}: samples are 32-bit integers of magnitude {maximum} at most, which is near silence: if they were "
            "recorded in 16 bits, convert them, waveform.astype(np.int16)"
        )


def _validated_rate(sample_rate, name) -> int:
    """Return the sample rate as an int; ValueError where it is missing or not a valid rate."""
    if sample_rate is None or (isinstance(sample_rate, float) and np.isnan(sample_rate)):
        raise ValueError(
            f"{name} has no sample rate: pass it, e.g. sample_rate=16000 (no default: a wrong one would go unnoticed)"
        )
    if isinstance(sample_rate, bool) or not isinstance(sample_rate, (int, float, np.integer, np.floating)):
        hint = ""
        if np.ndim(sample_rate):
            hint = "; for several rates, pass a table with the columns audio and sample_rate"
        raise ValueError(f"{name}: sample_rate must be a number in Hz, not {sample_rate!r}{hint}")
    if not 100 <= sample_rate <= 1_000_000 or sample_rate != int(sample_rate):
        raise ValueError(f"{name}: sample_rate must be a whole number in Hz, from 100 to 1000000, not {sample_rate!r}")
    return int(sample_rate)


# ---------- data sets of Hugging Face


def _is_dataset(item) -> bool:
    """Return whether this is a `datasets.Dataset` or a streamed one; the library itself is not needed."""
    return hasattr(item, "cast_column") and hasattr(item, "features") and hasattr(item, "__iter__")


def _from_dataset(dataset, first, sample_rate):
    """Return a table of the clips of a data set, which are decoded by this library when they are read."""
    if first is None and not hasattr(dataset, "__len__"):
        raise ValueError("a streamed data set has no known length: pass the number of clips to take, e.g. first=100")
    features = dict(dataset.features or {})
    if hasattr(dataset, "with_format"):  # plain Python objects, whatever format the data set has
        dataset = dataset.with_format(None)
    for name, feature in features.items():
        if type(feature).__name__ == "Audio":
            dataset = dataset.cast_column(name, replace(feature, decode=False))
    rows = list(islice(dataset, first))
    if not rows:
        raise ValueError("there are no clips: the data set is empty")
    audio_column = _audio_column(features, rows[0])

    rate_cells = [{name: row[name] for name in RATE_COLUMNS if name in row} for row in rows]
    rates = _row_rates(pd.DataFrame(rate_cells), sample_rate)
    sounds = []
    for position, row in enumerate(rows):
        sounds.append(_sound_of_cell(row[audio_column], rates[position], f"row {position}"))

    table = _from_sounds(sounds)
    for name in rows[0]:
        if name != audio_column:
            table[name] = _column_of(rows, name, features.get(name))
    return with_usual_names(table)


def _column_of(rows, name, feature) -> pd.Series:
    """Return a column of the rows of a data set, with numbers of classes replaced by their names."""
    values = [row.get(name) for row in rows]
    class_names = getattr(feature, "names", None)
    if class_names:
        return pd.Series([_class_name(class_names, number) for number in values], dtype=object)
    return pd.Series(values, dtype=object if name in SPEAKER_COLUMNS else None)


def _sound_of_cell(cell, sample_rate, name) -> Waveform | Encoded | str:
    """Convert one cell of a data set; an empty cell becomes a clip that is skipped by name when it is read."""
    return Encoded(b"", name) if cell is None else _to_sound(cell, sample_rate, name)


def _audio_column(features, row) -> str:
    """Return the name of the column that holds audio: by its type Audio, else by its cells, else by its name."""
    by_type = [name for name, feature in features.items() if type(feature).__name__ == "Audio"]
    by_cells = [name for name, cell in row.items() if isinstance(cell, dict) and {"array", "bytes", "path"} & set(cell)]
    by_name = [name for name in ("audio", "path", "file") if name in row]
    candidates = by_type or by_cells or by_name
    if not candidates:
        raise ValueError(f"no column of the data set holds audio: its columns are {', '.join(row)}")
    return candidates[0]


def _class_name(class_names, index) -> str | None:
    """Return the name of a class; None where it is not known (-1)."""
    is_known = isinstance(index, (int, np.integer)) and 0 <= index < len(class_names)
    return class_names[index] if is_known else None


def with_usual_names(table: pd.DataFrame) -> pd.DataFrame:
    """Rename the columns of labels and speakers to `label` and `speaker`, whatever their case; speakers become text."""
    names_by_lower_case = {str(name).lower(): name for name in reversed(list(table))}
    for standard_name, aliases in (("label", LABEL_COLUMNS), ("speaker", SPEAKER_COLUMNS)):
        present = [names_by_lower_case[name] for name in aliases if name in names_by_lower_case]
        if present and standard_name not in table:
            table = table.rename(columns={present[0]: standard_name})
    if "speaker" in table:
        table = table.assign(speaker=[None if pd.isna(name) else str(name) for name in table["speaker"]])
    return table
