"""Audio input: reading, speech detection, and acoustic features and pitch per frame and per clip."""

from .acoustic_features import (
    FEATURES,
    HOP,
    OFFSET,
    SPAN,
    features,
    frame_times,
    grid,
    n_frames,
    rhythm,
    speech_mask,
    without_offset,
)
from .reading import SAMPLE_RATE, SUFFIXES, BadClip, Encoded, NoClips, Waveform, read, sources, stream, usable

__all__ = [
    "BadClip",
    "Encoded",
    "FEATURES",
    "HOP",
    "NoClips",
    "OFFSET",
    "SAMPLE_RATE",
    "SPAN",
    "SUFFIXES",
    "Waveform",
    "features",
    "frame_times",
    "grid",
    "n_frames",
    "read",
    "rhythm",
    "sources",
    "speech_mask",
    "stream",
    "usable",
    "without_offset",
]
