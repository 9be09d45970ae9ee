"""Fingerprints: 128 bits that identify the recording in a sound file, whatever its name, format, rate and level."""

from __future__ import annotations

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import fft, signal
from tqdm.auto import tqdm

from ..audio import reading

RATE = 16_000  # sample rate at which recordings are read, Hz
HOP = 80  # samples between frames
SPAN = 512  # samples per frame
LONGEST = 60  # maximum number of seconds that are read of a recording
SEGMENTS = 17
BANDS = 9  # neighbours have 16 × 8 differences, one bit each
LOWEST = 150  # Hz
HIGHEST = 3700  # Hz, within the band of a telephone
FLOOR = 0.01  # fraction of the mean energy; weaker energy counts as silence
STEADY = 0.01  # median difference, in nepers, below which rounding alone determines the bits

BITS = (SEGMENTS - 1) * (BANDS - 1)
COPY = 8  # maximum number of bits in which copies of one recording differ
ALIKE = 0.5  # minimum correlation of two copies, at the delay at which it is greatest

FILE = "recordings.csv"  # beside the weights of a model
COLUMNS = ["fingerprint", "use", "speaker"]


def of_waveform(waveform: np.ndarray) -> str | None:
    """Compute the fingerprint of a recording: 32 hexadecimal digits, 128 bits.

    The recording is divided into 17 segments that hold equal shares of its amplitude, so neither its level nor silence
    at its ends matters. In each segment the energy of nine mel-spaced bands is taken. A bit says whether the step from
    one band to the next grows or shrinks from one segment to the next (after Haitsma and Kalker 2002).

    Two recordings count as one where at most 8 bits differ (`COPY`). Measured on 1200 recordings of RAVDESS, 351 of
    LibriSpeech and 400 of ESC-10:

    * copies at 8, 22.05 or 48 kHz: at most 1 bit differs; at 0.3 of the level in 16 bits: 2, of a very quiet one 7;
    * up to 37 ms of silence added: at most 2; 5 ms cut off at either end: speech 1, sounds of ESC-10 up to 15 (95 % of
      the copies: 5);
    * MP3 and Ogg Vorbis: speech up to 13 (95 %: 7), sounds up to 21 (95 %: 14), so some of those are not recognised;
    * different recordings: 21 or more in RAVDESS, where one actor says one sentence twice in one emotion; 39 or more
      in LibriSpeech, 29 or more in ESC-10. Voices of the synthetic sample corpus are nearer to each other: 7 or more
      within one voice, 10 or more between two.

    Parameters
    ----------
    waveform : array [time]
        At 16 kHz. Only the first minute is read.

    Returns
    -------
    str or None
        None for silence, and for steady tones, which have no changes that could distinguish them.
    """
    waveform = np.asarray(waveform, dtype=np.float32)[: LONGEST * RATE]
    energy = _band_energies(waveform)
    amplitude = np.sqrt(energy.sum(axis=1))
    if not amplitude.any():
        return None

    # Edges of the segments, in frames: all segments hold equal shares of the amplitude.
    frames = np.arange(len(energy) + 1)
    share = np.append(0, np.cumsum(amplitude))
    edges = np.interp(np.linspace(0, share[-1], SEGMENTS + 1), share, frames)

    # Mean energy of each band between these edges, which lie between frames.
    total = np.vstack([np.zeros(BANDS), np.cumsum(energy, axis=0)])
    total_at_edges = np.stack([np.interp(edges, frames, band) for band in total.T], axis=1)
    mean = np.diff(total_at_edges, axis=0) / np.maximum(np.diff(edges), 1e-9)[:, None]

    level = np.log(mean + FLOOR * mean.mean())
    difference = np.diff(np.diff(level, axis=1), axis=0)
    if np.median(np.abs(difference)) < STEADY:
        return None
    return np.packbits(difference.ravel() > 0).tobytes().hex()


def of_file(path: str | Path) -> str | None:
    """Compute the fingerprint of a sound file; None where it cannot be read, or `of_waveform` returns None."""
    try:
        state = os.stat(path)
    except OSError:
        return None
    return _of_file(os.path.realpath(path), state.st_size, state.st_mtime_ns)


@lru_cache(maxsize=100_000)
def _of_file(path, size, changed) -> str | None:
    """Return the fingerprint of a file in its current state; it is cached until the file changes."""
    try:
        return of_waveform(reading.read(path, RATE))
    except reading.BadClip:
        return None


def of_files(paths: Sequence | pd.Series) -> pd.Series:
    """Compute the fingerprint of each file or sound in memory, indexed like `paths`, with a progress bar."""
    paths = pd.Series(paths, dtype=object)
    fingerprints = [of_sound(path) for path in tqdm(paths, "fingerprints", unit="clip", leave=False, delay=2)]
    return pd.Series(fingerprints, index=paths.index, dtype=object)


def of_sound(source: str | Path | reading.Waveform | reading.Encoded) -> str | None:
    """Compute the fingerprint of a file or of a sound in memory; None also where it cannot be read."""
    if isinstance(source, (reading.Waveform, reading.Encoded)):
        try:
            return of_waveform(reading.read(source, RATE))
        except reading.BadClip:
            return None
    return of_file(source)


def distances(fingerprints: Sequence, others: Sequence) -> np.ndarray:
    """Count the bits in which fingerprints differ, [fingerprint, other]; NaN where either is missing."""
    signs = _signs(fingerprints)
    other_signs = _signs(others)
    return (BITS - signs @ other_signs.T) / 2


def same_sound(path: str | Path, other: str | Path) -> bool:
    """Return whether two sound files hold one recording, sample by sample, whatever their level and delay.

    This confirms a match of fingerprints, since those of two synthetic voices may differ in few bits. At the best delay
    waveforms must correlate at 0.5 or more (`ALIKE`). Copies at 8 kHz, in MP3 or Ogg Vorbis had 0.95 or more (speech)
    and 0.65 or more (sounds); the nearest of different recordings, two takes and two synthetic voices, at most 0.25.
    False where a file cannot be read.
    """
    try:
        first = reading.read(path, RATE)[: LONGEST * RATE]
        second = reading.read(other, RATE)[: LONGEST * RATE]
    except reading.BadClip:
        return False
    norm = np.linalg.norm(first) * np.linalg.norm(second)
    if norm == 0:
        return False
    by_delay = signal.correlate(first, second, method="fft")
    return bool(np.abs(by_delay).max() >= ALIKE * norm)


def write(table: pd.DataFrame, folder: str | Path) -> None:
    """Write the recordings that a model was trained on to `recordings.csv` in its folder.

    Parameters
    ----------
    table : DataFrame
        `fingerprint`, `use` ("trained" or "selected" of the encoder, "head" of a head fitted later) and `speaker`. Rows
        without a fingerprint are left out.
    """
    rows = table[COLUMNS].dropna(subset="fingerprint").drop_duplicates()
    rows.sort_values(["use", "speaker", "fingerprint"]).to_csv(Path(folder) / FILE, index=False)


def read(folder: str | Path) -> pd.DataFrame | None:
    """Read the table that `write` wrote; None where the folder has none."""
    path = Path(folder) / FILE
    if not path.is_file():
        return None
    table = pd.read_csv(path, dtype=str)
    return table[COLUMNS] if set(COLUMNS) <= set(table) else None


def _band_energies(waveform) -> np.ndarray:
    """Compute the energy [frame, band] in bands of equal width in mel; a frame of zeros is added at either end."""
    padded = np.pad(waveform, SPAN)
    window = np.hanning(SPAN).astype(np.float32)
    frames = np.lib.stride_tricks.sliding_window_view(padded, SPAN)[::HOP] * window

    lowest = np.log1p(LOWEST / 700)
    highest = np.log1p(HIGHEST / 700)
    edges_hz = 700 * np.expm1(np.linspace(lowest, highest, BANDS + 1))
    edges = np.round(edges_hz * SPAN / RATE).astype(int)

    spectrum = fft.rfft(frames)[:, edges[0] : edges[-1]]
    power = spectrum.real**2 + spectrum.imag**2
    return np.add.reduceat(power, edges[:-1] - edges[0], axis=1).astype(float)


def _signs(fingerprints) -> np.ndarray:
    """Return the bits as ±1, [fingerprint, bit]; NaN where a fingerprint is missing."""
    signs = np.full((len(fingerprints), BITS), np.nan, dtype=np.float32)
    for row, digits in zip(signs, fingerprints):
        if isinstance(digits, str):
            bits = np.unpackbits(np.frombuffer(bytes.fromhex(digits), np.uint8))
            row[:] = np.where(bits, 1, -1)
    return signs
