"""Reading of sound: files of any format, files held in memory, and waveforms.

Any fault of a clip, and any error of its decoder, is raised as a `BadClip` that names the clip.
"""

from __future__ import annotations

import hashlib
import io
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
from tqdm.auto import tqdm

from . import headers

SAMPLE_RATE = 16000
SHORTEST = 400  # samples: one encoder frame
MAX_EXCESS = 0.02  # seconds over the longest clip that are cut off: coders add some (ESC's clips of 5 s last 5.001 s)
BLOCK = 2**18  # samples read at a time
SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd")
SUFFIXES += (".w64", ".caf")
LOUD = 2.0  # full scale of floats is 1
UNSCALED = 100.0  # greater samples are integers that were not scaled
CANCELLED = 0.05  # channels cancel out if their mean has less than this share of their power (times their number)


class BadClip(ValueError):
    """A clip that cannot be used; the message gives its name and the reason."""


class NoClips(ValueError):
    """None of the clips could be used; `skipped` is {index: reason}."""

    def __init__(self, skipped):
        super().__init__(f"no clip could be used (0 of {len(skipped)}): {next(iter(skipped.values()))}")
        self.skipped = skipped


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound in memory: mono samples [time], float32, and their rate in Hz; equal if both are equal."""

    samples: np.ndarray = field(repr=False)
    sample_rate: int
    name: str = "a waveform"

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Waveform) and self.digest == other.digest

    def __hash__(self):
        return hash(self.digest)

    @cached_property
    def digest(self) -> str:
        """Return a hash of samples and rate."""
        return hashlib.blake2b(self.samples.tobytes() + str(self.sample_rate).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sound file whose bytes are in memory; equal if the bytes are equal."""

    content: bytes = field(repr=False)
    name: str = "a sound file in memory"

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Encoded) and self.content == other.content

    def __hash__(self):
        return hash(self.content)


def sources(clips: pd.DataFrame) -> pd.Series:
    """Return what each clip of a table is read from: its `audio` (a `Waveform` or `Encoded`), or else its `path`."""
    if "audio" not in clips:
        return clips["path"]
    audio = clips["audio"].astype(object)
    if "path" not in clips:
        return audio
    return audio.where(audio.notna(), clips["path"])


def content_hash(source: str | Path | Waveform | Encoded) -> str:
    """Compute a hash of the bytes of a sound file, on disk or in memory, or of a waveform and its rate."""
    if isinstance(source, Waveform):
        return source.digest
    if isinstance(source, Encoded):
        return hashlib.blake2b(source.content).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def rate_of(source: str | Path | Waveform | Encoded) -> int:
    """Return the recorded rate of a sound in Hz; 16000 if it cannot be read."""
    if isinstance(source, Waveform):
        return source.sample_rate
    file = io.BytesIO(source.content) if isinstance(source, Encoded) else source
    try:
        return soundfile.info(file).samplerate
    except (soundfile.LibsndfileError, TypeError, OSError):  # `read` reports the fault
        return SAMPLE_RATE


def read(source: str | Path | Waveform | Encoded, sample_rate: int = SAMPLE_RATE) -> np.ndarray:
    """Read a sound as mono float32 [time] at `sample_rate`; full scale is 1.

    Parameters
    ----------
    source : path, Waveform or Encoded
        Files can have any format of libsndfile (wav, flac, ogg, opus, mp3, aiff, …), rate, sample width and number of
        channels. Wav, flac and mp3 are read to their end, even if the header leaves the length open or gets it wrong.
    sample_rate : int
        Hz. Sound of another rate is resampled with soxr's HQ filter (``soxr_hq`` in librosa).

    Returns
    -------
    float32 array [time]
        The mean of the channels. Warns if channels are out of phase, so that they cancel out in their mean.

    Raises
    ------
    BadClip
        The file is missing, unreadable, broken or empty, or contains NaN or infinite samples.
    """
    if isinstance(source, Waveform):
        return _resampled(source, sample_rate)
    name = str(source)
    if isinstance(source, Encoded):
        content = source.content
        if not content:
            raise BadClip(f"{name}: empty, 0 bytes")
        readable = io.BytesIO(content)
    else:
        content = Path(source)
        _check_file(content)
        readable = content
    try:
        corrected = headers.corrected(content)
        if corrected is None:
            return _decoded(readable, name, sample_rate)
        try:
            return _decoded(corrected, name, sample_rate)
        except soundfile.LibsndfileError:  # other data follow the sound: read as much as the header says
            return _decoded(readable, name, sample_rate, to_its_end=False)
    except BadClip:
        raise
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".").removeprefix("Error : ")
    except Exception as error:  # decoders raise TypeError, RuntimeError and others for broken files
        reason = f"{type(error).__name__}: {error}"
    advice = "convert it to wav, flac, ogg or mp3"
    if headers.begins_as_sound(content):
        advice = "it begins like a sound file, so it may be cut off or damaged: copy or download it again"
    raise BadClip(f"{name}: cannot be read as sound ({reason}); {advice}")


def _decoded(readable, name, sample_rate, *, to_its_end=True) -> np.ndarray:
    """Read a sound file to its end, or as far as its header says, as mono at `sample_rate`; pass on decoder errors."""
    with _Sequential(readable) as file:
        result = _Mono(name, file.samplerate, file.channels, sample_rate)
        limit = None if to_its_end else file.frames
        while len(block := file.read(_next_size(BLOCK, limit, result.count), dtype="float32", always_2d=True)):
            result.add(block)
    return result.waveform()


def _next_size(block_size, limit, n_read) -> int:
    """Return the number of samples to read next; `limit` is the number to read in total, None for no limit."""
    return block_size if limit is None else min(block_size, limit - n_read)


def _check_file(path):
    """Raise BadClip if the file does not exist or is empty."""
    try:
        if path.is_dir():
            raise BadClip(f"{path}: is a folder, not a sound file")
        if not path.is_file():
            raise BadClip(f"{path}: {'a broken link' if path.is_symlink() else 'no such file'}")
        if path.stat().st_size == 0:
            raise BadClip(f"{path}: empty, 0 bytes")
    except OSError as error:  # the name is too long, or the folder may not be entered
        raise BadClip(f"{path}: {error.strerror or error}") from error


def _resampled(waveform, sample_rate) -> np.ndarray:
    """Return the samples of a waveform in memory at `sample_rate`."""
    result = _Mono(str(waveform), waveform.sample_rate, 1, sample_rate)
    for start in range(0, len(waveform.samples), BLOCK):
        result.add(waveform.samples[start : start + BLOCK, None])
    return result.waveform()


class _Sequential(soundfile.SoundFile):
    """A sound file that is read from beginning to end without seeking.

    soundfile seeks after each block where it can, which fails if the header leaves the length open.
    """

    def seekable(self):
        return False


class _Mono:
    """Collector of blocks of samples [time, channel] into one mono waveform at `target_rate` (Hz)."""

    def __init__(self, name, rate, channels, target_rate):
        self.name = name
        self.channels = channels
        self.target_rate = target_rate
        self.count = 0  # samples, at the rate of the file
        self.lowest = np.inf
        self.highest = -np.inf
        self.unusable = 0  # samples that are NaN or infinite
        self.power = 0.0  # of all channels
        self.power_of_mean = 0.0
        self.parts = []
        self.resampler = None
        if rate != target_rate:
            self.resampler = soxr.ResampleStream(rate, target_rate, 1, dtype="float32", quality="HQ")

    def add(self, block):
        """Add the next samples [time, channel]."""
        mean = block.mean(axis=1)
        self.count += len(block)
        self.lowest = min(self.lowest, float(mean.min(initial=np.inf)))
        self.highest = max(self.highest, float(mean.max(initial=-np.inf)))
        self.unusable += int((~np.isfinite(block)).any(axis=1).sum())
        if self.channels > 1:
            self.power += float(np.square(block, dtype=float).mean(axis=1).sum())
            self.power_of_mean += float(np.square(mean, dtype=float).sum())
        self.parts.append(self.resampler.resample_chunk(mean) if self.resampler else mean)

    def waveform(self) -> np.ndarray:
        """Return the whole waveform [time]; raise BadClip if it cannot be used."""
        if self.count == 0:
            raise BadClip(f"{self.name}: empty, it holds no samples")
        if self.unusable:
            raise BadClip(f"{self.name}: {self.unusable} of {self.count} samples are NaN or infinite")
        check_scale(max(-self.lowest, self.highest), self.name)
        if self.resampler:
            self.parts.append(self.resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        waveform = np.concatenate(self.parts)
        if len(waveform) == 0:
            raise BadClip(f"{self.name}: empty, its {self.count} samples give none at {self.target_rate} Hz")
        if self.power_of_mean * self.channels < CANCELLED * self.power:
            warnings.warn(
                f"{self.name}: its {self.channels} channels are out of phase and cancel out in their mean; "
                "save one channel as a file of its own and use that",
                stacklevel=5,
            )
        if self.lowest == self.highest:  # compared before resampling, which rings at both ends
            return np.full(len(waveform), self.lowest, np.float32)
        return np.ascontiguousarray(waveform, dtype=np.float32)


def check_scale(greatest: float, name: str) -> None:
    """Raise BadClip, or warn, if the greatest absolute sample is far beyond the full scale of floats."""
    message = f"{name}: its samples reach {greatest:g}, and full scale of floats is 1"
    if greatest > UNSCALED:
        raise BadClip(f"{message}: divide them, by 32768 if they were integers of 16 bits")
    if greatest > LOUD:
        warnings.warn(f"{message}: it is far louder than what models were trained on", stacklevel=2)


def stream(
    clips: pd.DataFrame,
    sample_rate: int = SAMPLE_RATE,
    *,
    shortest: int = SHORTEST,
    longest: int | None = None,
    skipped: dict | None = None,
) -> Iterator[tuple]:
    """Yield (index, float32 array [time]) of each clip, with a progress bar.

    Parameters
    ----------
    clips : DataFrame
        As returned by `corpora.as_clips`: with the column `path` or `audio`.
    shortest : int
        Clips with fewer samples at `sample_rate` are rejected; default: 400, one encoder frame.
    longest : int, optional
        Clips with more samples are rejected too. Up to 20 ms more (`MAX_EXCESS`) are cut off at the end.
    skipped : dict, optional
        Receives {index: reason} for each clip that is unreadable, empty, too short or long, constant (digital silence)
        or contains NaN; a warning counts them at the end. Without it the first such clip raises BadClip.

    Raises
    ------
    ValueError
        `clips` is no table of clips, has no rows, or has an index that is not unique.
    NoClips
        None of the clips could be used.
    """
    if not isinstance(clips, pd.DataFrame) or not {"path", "audio"} & set(clips):
        raise ValueError(
            'clips must be a DataFrame with a column "path" or "audio", such as pd.DataFrame({"path": ["mine.wav"]}), '
            "or as returned by corpora.as_clips(…) for waveforms, files and data sets"
        )
    if len(clips) == 0:
        raise ValueError("there are no clips to read: the selection is empty")
    if not clips.index.is_unique:
        raise ValueError(
            f"several clips have the index {clips.index[clips.index.duplicated()][0]!r}: "
            "use clips.reset_index(drop=True)"
        )
    reasons = {}
    for index, source in tqdm(sources(clips).items(), total=len(clips), unit="clip", leave=False, delay=2):
        try:
            waveform = usable(source, sample_rate, shortest=shortest, longest=longest)
        except BadClip as error:
            if skipped is None:
                raise
            reasons[index] = str(error)
            skipped[index] = str(error)
            continue
        yield index, waveform
    if len(reasons) == len(clips):
        raise NoClips(reasons)
    if reasons:
        message = f"{len(reasons)} of {len(clips)} clips were skipped, e.g. {next(iter(reasons.values()))}"
        warnings.warn(message, stacklevel=2)


def usable(
    source: str | Path | Waveform | Encoded,
    sample_rate: int = SAMPLE_RATE,
    *,
    shortest: int = SHORTEST,
    longest: int | None = None,
) -> np.ndarray:
    """Read a sound as `read` does, and raise BadClip also if it is silent, or has too few or too many samples.

    Up to `MAX_EXCESS` seconds over `longest` are cut off at the end.
    """
    waveform = read(source, sample_rate)
    if longest is not None:
        if len(waveform) > longest + MAX_EXCESS * sample_rate:
            seconds = round(len(waveform) / sample_rate, 3)
            raise BadClip(
                f"{source}: {seconds:g} s, longer than the {longest / sample_rate:g} s that fit one forward pass: use "
                "model.over_time(recording) for windows, or corpora.excerpt(recording, start, end) for a part"
            )
        waveform = waveform[: round(longest)]
    if len(waveform) < shortest:
        raise BadClip(f"{source}: {len(waveform)} samples at {sample_rate} Hz, shorter than the {shortest} needed")
    if np.ptp(waveform) == 0:
        raise BadClip(f"{source}: silent, all samples are {waveform[0]:g}")
    return waveform
