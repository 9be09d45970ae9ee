"""The one place that reads sound: files of any format, files held in memory, and waveforms.

Whatever is wrong with a clip, and whatever its decoder raises, is a `BadClip` that names it.
"""

import hashlib
import io
import warnings
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
SHORTEST = 400  # samples: one frame of an encoder
BLOCK = 2**18  # samples that are read at a time
SUFFIXES = (".wav", ".wave", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".aifc", ".au", ".snd")
SUFFIXES += (".w64", ".caf")
LOUD = 2.0  # full scale of floats is 1
UNSCALED = 100.0  # beyond this they are integers that were not scaled
CANCELLED = 0.05  # channels whose mean has less than this share of their power (times their number) cancel out


class BadClip(ValueError):
    """A clip that cannot be used; the message names it and says why."""


class NoClips(ValueError):
    """Not one of the clips could be used; `skipped` is {index: reason}."""

    def __init__(self, skipped):
        super().__init__(f"not one clip could be used ({len(skipped)} asked for): {next(iter(skipped.values()))}")
        self.skipped = skipped


@dataclass(frozen=True, eq=False)
class Waveform:
    """Sound that is in memory: mono samples [time], float32, at a rate in Hz; equal where both are."""

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
        """Hash of samples and rate."""
        return hashlib.blake2b(self.samples.tobytes() + str(self.sample_rate).encode()).hexdigest()


@dataclass(frozen=True, eq=False)
class Encoded:
    """A sound file whose bytes are in memory; equal where they are."""

    content: bytes = field(repr=False)
    name: str = "a sound file in memory"

    def __str__(self):
        return self.name

    def __eq__(self, other):
        return isinstance(other, Encoded) and self.content == other.content

    def __hash__(self):
        return hash(self.content)


def sources(clips) -> pd.Series:
    """What each clip of a table is read from: its `audio` (a `Waveform` or `Encoded`), or else its `path`."""
    if "audio" not in clips:
        return clips["path"]
    audio = clips["audio"].astype(object)
    return audio.where(audio.notna(), clips["path"]) if "path" in clips else audio


def content_hash(source) -> str:
    """Compute a hash of the bytes of a sound file, on disk or in memory, or of a waveform and its rate."""
    if isinstance(source, Waveform):
        return source.digest
    if isinstance(source, Encoded):
        return hashlib.blake2b(source.content).hexdigest()
    with open(source, "rb") as file:
        return hashlib.file_digest(file, "blake2b").hexdigest()


def rate_of(source) -> int:
    """The rate of a sound in Hz, as it was recorded; 16000 where that cannot be read."""
    if isinstance(source, Waveform):
        return source.sample_rate
    try:
        return soundfile.info(io.BytesIO(source.content) if isinstance(source, Encoded) else source).samplerate
    except (soundfile.LibsndfileError, TypeError, OSError):  # `read` says what is wrong with it
        return SAMPLE_RATE


def read(source, sample_rate=SAMPLE_RATE) -> np.ndarray:
    """Read a sound as mono float32 [time] at `sample_rate`; full scale is 1.

    Parameters
    ----------
    source : path, Waveform or Encoded
        Of files, any format of libsndfile (wav, flac, ogg, opus, mp3, aiff, …), rate, sample width and number of
        channels. Of wav, flac and mp3 all is read, also where the header leaves the length open or gets it wrong.
    sample_rate : int
        Hz. The rate is changed with soxr's HQ filter (what librosa calls ``soxr_hq``).

    Returns
    -------
    float32 array [time]
        The mean of the channels. A warning where channels are out of phase, so that they cancel out in their mean.

    Raises
    ------
    BadClip
        The file is missing, unreadable, broken or empty, or holds NaN or infinite samples.
    """
    if isinstance(source, Waveform):
        return _of_waveform(source, sample_rate)
    if isinstance(source, Encoded):
        name, content = str(source), source.content
    else:
        name, content = str(source), Path(source)
        _check_file(content)
    if isinstance(content, bytes) and not content:
        raise BadClip(f"{name}: empty, 0 bytes")

    readable = io.BytesIO(content) if isinstance(content, bytes) else content
    try:
        mended = headers.corrected(content)
        if mended is None:
            return _decoded(readable, name, sample_rate)
        try:
            return _decoded(mended, name, sample_rate)
        except soundfile.LibsndfileError:  # something else follows the sound: read as much as the header says
            return _decoded(readable, name, sample_rate, to_its_end=False)
    except BadClip:
        raise
    except soundfile.LibsndfileError as error:
        reason = error.error_string.rstrip(".").removeprefix("Error : ")
    except Exception as error:  # decoders raise TypeError, RuntimeError and others, of a file that is broken
        reason = f"{type(error).__name__}: {error}"
    advice = "wav, flac, ogg and mp3 can, so convert it to one of those"
    if headers.begins_as_sound(content):
        advice = "it begins as such a file does, so it may be cut off or damaged: get it again"
    raise BadClip(f"{name}: cannot be read as sound ({reason}); {advice}")


def _decoded(readable, name, sample_rate, *, to_its_end=True) -> np.ndarray:
    """A sound file to its end, or as far as its header says, mono and at another rate; errors of decoders as they come."""
    with _Sequential(readable) as file:
        result = _Mono(name, file.samplerate, file.channels, sample_rate)
        most = None if to_its_end else file.frames
        while len(block := file.read(_up_to(BLOCK, most, result.count), dtype="float32", always_2d=True)):
            result.add(block)
    return result.waveform()


def _up_to(block, most, done) -> int:
    """How many samples are read next."""
    return block if most is None else min(block, most - done)


def _check_file(path):
    """Raise BadClip where there is no such file, or nothing in it."""
    try:
        if path.is_dir():
            raise BadClip(f"{path}: is a folder, not a sound file")
        if not path.is_file():
            raise BadClip(f"{path}: {'a link to what is not there' if path.is_symlink() else 'no such file'}")
        if path.stat().st_size == 0:
            raise BadClip(f"{path}: empty, 0 bytes")
    except OSError as error:  # a name that is too long, a folder that may not be entered
        raise BadClip(f"{path}: {error.strerror or error}") from error


def _of_waveform(waveform, sample_rate):
    """The samples of a waveform in memory, at another rate."""
    result = _Mono(str(waveform), waveform.sample_rate, 1, sample_rate)
    for start in range(0, len(waveform.samples), BLOCK):
        result.add(waveform.samples[start : start + BLOCK, None])
    return result.waveform()


class _Sequential(soundfile.SoundFile):
    """A sound file that is read from its beginning to its end.

    soundfile seeks after each block where it can, which fails where the header leaves the length open.
    """

    def seekable(self):
        return False


class _Mono:
    """Collects blocks of samples [time, channel] as one mono waveform at another rate."""

    def __init__(self, name, rate, channels, wanted):
        self.name = name
        self.channels = channels
        self.wanted = wanted  # rate in Hz
        self.count = 0  # samples, at the file's own rate
        self.lowest = np.inf
        self.highest = -np.inf
        self.unusable = 0  # of them, NaN or infinite
        self.power = 0.0  # of all channels
        self.power_of_mean = 0.0
        self.parts = []
        self.resampler = soxr.ResampleStream(rate, wanted, 1, dtype="float32", quality="HQ") if rate != wanted else None

    def add(self, block):
        """Take the next samples [time, channel]."""
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
        """All of it; BadClip where that cannot be used."""
        if self.count == 0:
            raise BadClip(f"{self.name}: empty, it holds no samples")
        if self.unusable:
            raise BadClip(f"{self.name}: {self.unusable} of {self.count} samples are NaN or infinite")
        check_scale(max(-self.lowest, self.highest), self.name)
        if self.resampler:
            self.parts.append(self.resampler.resample_chunk(np.zeros(0, np.float32), last=True))
        waveform = np.concatenate(self.parts)
        if len(waveform) == 0:
            raise BadClip(f"{self.name}: empty, its {self.count} samples are none at {self.wanted} Hz")
        if self.power_of_mean * self.channels < CANCELLED * self.power:
            warnings.warn(
                f"{self.name}: its {self.channels} channels are out of phase, so little is left of them in their mean; "
                "save one of them as a file of its own and use that",
                stacklevel=5,
            )
        if self.lowest == self.highest:  # at its own rate: resampling rings at both ends
            return np.full(len(waveform), self.lowest, np.float32)
        return np.ascontiguousarray(waveform, dtype=np.float32)


def check_scale(greatest, name):
    """Raise BadClip, or warn, where the greatest sample, without its sign, is far beyond the full scale of floats."""
    message = f"{name}: its samples reach {greatest:g}, and full scale of floats is 1"
    if greatest > UNSCALED:
        raise BadClip(f"{message}: divide them, by 32768 if they were integers of 16 bits")
    if greatest > LOUD:
        warnings.warn(f"{message}: it is far louder than what models were trained on", stacklevel=2)


def stream(clips, sample_rate=SAMPLE_RATE, *, shortest=SHORTEST, longest=None, skipped=None):
    """Yield (index, float32 array [time]) of each of `clips`, with a progress bar.

    Parameters
    ----------
    clips : DataFrame
        As returned by `corpora.as_clips`: with the column `path` or `audio`.
    shortest : int
        Clips of fewer samples, at `sample_rate`, are refused: 400 is one encoder frame.
    longest : int, optional
        Clips of more samples are refused too.
    skipped : dict, optional
        Takes {index: reason} for each clip that is unreadable, empty, too short or long, constant (digital silence) or
        holds NaN; a warning counts them at the end. Without it the first such clip raises BadClip.

    Raises
    ------
    ValueError
        `clips` has no rows.
    NoClips
        Not one of them could be used.
    """
    if not isinstance(clips, pd.DataFrame) or not {"path", "audio"} & set(clips):
        raise ValueError(
            'clips are a table with a column "path", of one file pd.DataFrame({"path": ["mine.wav"]}), or what '
            "corpora.as_clips(…) makes of waveforms, files and data sets"
        )
    if len(clips) == 0:
        raise ValueError("there are no clips to read: the selection is empty")
    if not clips.index.is_unique:
        raise ValueError(
            f"two clips have the index {clips.index[clips.index.duplicated()][0]!r}: use clips.reset_index(drop=True)"
        )
    bad = {}
    for index, source in tqdm(sources(clips).items(), total=len(clips), unit="clip", leave=False, delay=2):
        try:
            waveform = usable(source, sample_rate, shortest=shortest, longest=longest)
        except BadClip as error:
            if skipped is None:
                raise
            bad[index] = skipped[index] = str(error)
            continue
        yield index, waveform
    if bad:
        if len(bad) == len(clips):
            raise NoClips(bad)
        message = f"{len(bad)} of {len(clips)} clips were skipped, e.g. {next(iter(bad.values()))}"
        warnings.warn(message, stacklevel=2)


def usable(source, sample_rate=SAMPLE_RATE, *, shortest=SHORTEST, longest=None) -> np.ndarray:
    """Read a sound that a model can hear: BadClip also where it is too short or long, in samples, or silent."""
    waveform = read(source, sample_rate)
    if longest is not None and len(waveform) > longest:
        raise BadClip(
            f"{source}: {len(waveform) / sample_rate:.1f} s, longer than the {longest / sample_rate:g} s that are heard in "
            "one piece: model.over_time(recording) takes it in windows, corpora.stretch(recording, start, end) a part"
        )
    if len(waveform) < shortest:
        short = f"{len(waveform)} samples at {sample_rate} Hz, shorter than the {shortest} needed"
        raise BadClip(f"{source}: {short}")
    if np.ptp(waveform) == 0:
        raise BadClip(f"{source}: silent, all samples are {waveform[0]:g}")
    return waveform
