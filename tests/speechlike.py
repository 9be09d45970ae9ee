"""Sounds that are like speech, of known pitch."""

from __future__ import annotations

import numpy as np
from scipy import signal

RATE = 16000


def tone(hertz, seconds=1.0, rate=RATE, amplitude=0.5):
    """A sine."""
    return (amplitude * np.sin(2 * np.pi * hertz * np.arange(round(seconds * rate)) / rate)).astype(np.float32)


def vowel(f0, seconds=1.0, weak=None):
    """A pulse train through two resonances: the fundamental is weaker than its harmonics.

    With `weak`, every other pulse from 0.4 to 0.5 s loses that share of its strength.
    """
    phase = np.cumsum(np.broadcast_to(f0, round(seconds * RATE)) / RATE)
    x = np.diff(np.floor(phase), prepend=0.0)
    if weak:
        x[(np.floor(phase) % 2 == 1) & (phase > 0.4 * f0) & (phase < 0.5 * f0)] *= 1 - weak
    for centre, width in ((700, 90), (1200, 110)):
        r = np.exp(-np.pi * width / RATE)
        x = signal.lfilter([1], [1, -2 * r * np.cos(2 * np.pi * centre / RATE), r * r], x)
    return (0.3 * x / np.abs(x).max()).astype(np.float32)


def speech(seconds=2.0, seed=0):
    """Silence, a vowel with a gap in it and a hiss, silence: something of everything."""
    rng = np.random.default_rng(seed)
    hiss = 0.05 * rng.normal(size=RATE // 5)
    x = np.concatenate([vowel(120, 0.4), np.zeros(800), hiss, vowel(np.linspace(150, 210, RATE // 2), 0.5)])
    x = np.pad(x, (RATE // 2, RATE // 2)) + 10 ** (-80 / 20) * rng.normal(size=len(x) + RATE)
    return x.astype(np.float32)


def voice(rng, length, pitch, glide=0.0, rate=RATE):
    """A buzz that glides in pitch (semitones per second), swells, and grows noisy."""
    t = np.arange(length) / rate
    phase = 2 * np.pi * np.cumsum(pitch * 2 ** (glide * t / 12)) / rate
    loud = 0.06 * (1.5 + np.sin(2 * np.pi * rng.uniform(1, 6) * t + rng.uniform(0, 6)))
    breath = rng.uniform(0, 0.3) * rng.standard_normal(length) * (t > t[-1] / 2)
    return (loud * (sum(np.sin(k * phase) / k for k in range(1, 12)) + breath)).astype(np.float32)
