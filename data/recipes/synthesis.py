"""Say a sentence with set factors: espeak-ng through ctypes, then what espeak-ng itself cannot set.

Loudness, spectral tilt, breath, jitter and pauses are added to espeak-ng's output; `clip` does it all.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import functools
import shutil
import tempfile
from pathlib import Path

import numpy as np
import prosody
from scipy import ndimage, signal

RATE = 16000
FLOOR_DB = -80.0  # the faint noise under every clip
EVENT_WORD, EVENT_PHONEME = 1, 7


class _Id(ctypes.Union):
    _fields_ = [("number", ctypes.c_int), ("name", ctypes.c_char_p), ("string", ctypes.c_char * 8)]


class _Event(ctypes.Structure):
    """espeak_EVENT of speak_lib.h."""

    _fields_ = [
        ("type", ctypes.c_int),
        ("identifier", ctypes.c_uint),
        ("text", ctypes.c_int),
        ("length", ctypes.c_int),
        ("milliseconds", ctypes.c_int),
        ("sample", ctypes.c_int),
        ("user", ctypes.c_void_p),
        ("id", _Id),
    ]


_CALLBACK = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.POINTER(_Event))


class Espeak:
    """The espeak-ng library, with a data folder of its own in which voice variants can be written."""

    def __init__(self):
        self.library = _library()
        self.version, home = self._information()
        self.folder = tempfile.TemporaryDirectory()
        data = Path(self.folder.name) / "espeak-ng-data"
        (data / "voices" / "!v").mkdir(parents=True)
        (data / "lang" / "gmw").mkdir(parents=True)
        for name in ("phondata", "phonindex", "phontab", "intonations", "en_dict", "lang/gmw/en-US"):
            shutil.copy(home / name, data / name)
        self.variant = data / "voices" / "!v" / "workbook"
        self.library.espeak_Terminate()
        self.rate = self.library.espeak_Initialize(
            2, 0, self.folder.name.encode(), 3
        )  # synchronous; IPA phoneme events
        self.chunks, self.events = [], []
        self._callback = _CALLBACK(self._receive)  # kept, or it is garbage-collected while C still calls it
        self.library.espeak_SetSynthCallback(self._callback)

    def _information(self):
        """Version of the library and where its data lie."""
        path = ctypes.c_char_p()
        self.library.espeak_Info.restype = ctypes.c_char_p
        self.library.espeak_Initialize(2, 0, None, 0)
        version = self.library.espeak_Info(ctypes.byref(path)).decode()
        return version, Path(path.value.decode())

    def _receive(self, samples, count, events):
        if samples and count > 0:
            self.chunks.append(np.ctypeslib.as_array(samples, (count,)).copy())
        for event in events:
            if event.type == 0:
                return 0
            if event.type in (EVENT_WORD, EVENT_PHONEME):
                name = event.id.string.decode() if event.type == EVENT_PHONEME else None
                self.events.append((event.sample, name))

    def say(self, text, variant, words_per_minute):
        """Speech (float, at `self.rate`) and its phonemes [(start, end, phoneme, word number)] in seconds."""
        self.chunks, self.events = [], []
        self.variant.write_text(variant)
        if self.library.espeak_SetVoiceByName(b"en-us+workbook"):
            raise RuntimeError("espeak-ng refused the voice variant; this script was written for espeak-ng 1.51")
        for parameter, value in ((1, words_per_minute), (2, 100), (3, 50), (4, 50)):  # rate, volume, pitch, range
            self.library.espeak_SetParameter(parameter, value, 0)
        self.library.espeak_Synth(text.encode(), len(text) + 1, 0, 1, 0, 1, None, None)
        phonemes, word = [], 0
        for (start, name), (end, _) in zip(self.events, self.events[1:] + [(self.events[-1][0], "")]):
            if name is None:
                word += 1
            elif name.strip("_ "):
                phonemes.append([start / self.rate, end / self.rate, name, word])
        for left, right in zip(phonemes, phonemes[1:]):  # a word event inside a phoneme must not cut it short
            left[1] = right[0]
        return np.concatenate(self.chunks) / 32768.0, phonemes


def _library():
    """libespeak-ng, or an error that says how to get it."""
    for name in (ctypes.util.find_library("espeak-ng"), "libespeak-ng.so.1", "libespeak-ng.dylib", "libespeak-ng.dll"):
        try:
            return ctypes.CDLL(name) if name else ctypes.CDLL("libespeak-ng.so.1")
        except OSError:
            continue
    raise FileNotFoundError(
        "libespeak-ng was not found: `apt-get install espeak-ng` or `brew install espeak-ng`, "
        "then run this again (to use what is bundled no espeak-ng is needed, only to make it anew)"
    )


@functools.lru_cache(maxsize=1)
def espeak():
    """One library per process."""
    return Espeak()


def _jitter(x, percent, f0, rng_cycle, rng_drift, rate):
    """Warp time so that pitch periods vary by `percent` (SD) over a slow drift of 0.4 %."""
    t = np.arange(len(x)) / rate
    cycles = rng_cycle.normal(size=int(t[-1] * f0) + 3).clip(-2.5, 2.5) * percent / 100
    drift = sum(np.sin(2 * np.pi * (hz * t + phase)) for hz, phase in zip((2.3, 4.1, 6.7), rng_drift.random(3))) * 0.003
    source = np.cumsum(1 + np.interp(t * f0, np.arange(len(cycles)), cycles) + drift)
    source *= (len(x) - 1) / source[-1]
    return ndimage.map_coordinates(x, source[None], order=3, mode="nearest"), source / rate


def _tilt(x, db_per_octave):
    """Turn the spectrum about 1 kHz, without touching phase; level below 250 Hz, so that F0 stays audible."""
    n = len(x) + RATE // 4
    octaves = np.log2(np.fft.rfftfreq(n, 1 / RATE).clip(250) / 1000)
    return np.fft.irfft(np.fft.rfft(x, n) * 10 ** (db_per_octave * octaves / 20), n)[: len(x)]


def _breath(x, amount, rng):
    """Add noise above 1.2 kHz, shaped like the speech: aspiration passes through the same formants."""
    options = {"fs": RATE, "nperseg": 512, "noverlap": 384}
    frequency, _, speech = signal.stft(x, **options)
    _, _, noise = signal.stft(rng.normal(size=len(x)), **options)
    envelope = np.sqrt(ndimage.gaussian_filter(np.abs(speech) ** 2, (8, 1)))
    noise /= np.sqrt(np.mean(np.abs(noise) ** 2))
    high = 1 / (1 + (1200 / frequency.clip(1)) ** 4)
    _, added = signal.istft(envelope * noise * high[:, None], **options)
    return x + 1.4 * amount * added[: len(x)]


def _pause(x, at, seconds):
    """Open a silence at the quietest point within 30 ms of `at` (s); returns the speech and where."""
    first = max(int((at - 0.03) * RATE), 1)
    energy = np.convolve(x**2, np.ones(160) / 160, "same")
    cut = first + int(np.argmin(energy[first : int((at + 0.03) * RATE)]))
    ramp = np.hanning(161)[:80]
    left, right = x[:cut].copy(), x[cut:].copy()
    left[-80:] *= ramp[::-1]
    right[:80] *= ramp
    return np.concatenate([left, np.zeros(round(seconds * RATE)), right]), cut / RATE


def speech_level(x):
    """RMS in dBFS over the frames (20 ms) within 30 dB of the loudest."""
    power = np.mean(x[: len(x) // 320 * 320].reshape(-1, 320) ** 2, axis=1)
    return 10 * np.log10(np.mean(power[power > power.max() / 1000]))


def clip(actor, statement, factors, key):
    """Synthesise one clip.

    Parameters
    ----------
    factors : dict
        A value for each of `prosody.FACTORS`.
    key : sequence of int
        Seeds what is random in the clip's sound.

    Returns
    -------
    samples : int16 array, 16 kHz
    phonemes : list of [start, end, phoneme, word], in seconds of the clip
    """
    rng = [np.random.default_rng([3, *key, purpose]) for purpose in range(5)]
    engine = espeak()
    low, high = prosody.pitch_line(actor, factors["f0_semitones"], factors["f0_range_semitones"])
    text = prosody.STATEMENTS[statement] + ("?" if factors["final_rise"] else ".")
    x, phonemes = engine.say(text, prosody.variant(actor, low, high), round(prosody.VOICES[actor][1] * factors["rate"]))

    x = signal.resample_poly(x, 2, 1)  # cubic interpolation is clean enough at twice the rate
    x, heard = _jitter(
        x,
        factors["jitter_percent"],
        prosody.VOICES[actor][0] * 2 ** (factors["f0_semitones"] / 12),
        rng[0],
        rng[1],
        2 * engine.rate,
    )
    times = np.interp(np.array([p[:2] for p in phonemes]), heard, np.arange(len(heard)) / (2 * engine.rate))
    x = signal.resample_poly(x, RATE, 2 * engine.rate)
    x = signal.sosfilt(signal.butter(2, 50, "high", fs=RATE, output="sos"), x)
    start = max(int((times[0, 0] - 0.03) * RATE), 0)
    x, times = x[start : int((times[-1, 1] + 0.03) * RATE)], times - start / RATE

    by = next(i for i, p in enumerate(phonemes) if p[3] == 4)
    x, cut = _pause(x, times[by, 0], factors["pause_seconds"])
    times[by:] += factors["pause_seconds"]
    x = _breath(_tilt(x, factors["tilt_db_per_octave"]), factors["breathiness"], rng[2])
    x[:160] *= np.hanning(320)[:160]
    x[-1280:] *= np.hanning(2560)[1280:]  # espeak-ng stops at full voice; people let go
    x *= 10 ** ((factors["level_db"] - speech_level(x)) / 20)
    loud = np.abs(x) > 0.6
    x[loud] = np.sign(x[loud]) * (
        0.6 + 0.35 * np.tanh((np.abs(x[loud]) - 0.6) / 0.35)
    )  # a soft knee instead of clipping

    before, after = (rng[3].uniform(0.15, 0.28, size=2) * RATE).astype(int)
    x = np.pad(x, (before, after))
    x += rng[4].normal(size=len(x)) * 10 ** (FLOOR_DB / 20)
    times = (times + before / RATE).round(4).tolist()
    return (x * 32767).round().astype(np.int16), [[*t, *p[2:]] for t, p in zip(times, phonemes)]
