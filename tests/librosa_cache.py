"""Fill the cache of librosa's compiled functions in one process: `python tests/librosa_cache.py`.

numba compiles librosa's functions when they are first called and keeps the machine code in `__pycache__`. Two processes
that do so at the same time can each write a file of the same name, and leave an index that points at the wrong machine
code: every later process then dies of a segmentation fault. So whatever starts several processes calls `fill` first.
A cache that was left broken is deleted and filled anew.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

CALLS = """
import librosa
import numpy as np

for dtype in (np.float32, np.float64):
    sound = np.random.default_rng(0).standard_normal(8000).astype(dtype)
    librosa.stft(sound)
    librosa.feature.rms(y=sound)
    librosa.feature.zero_crossing_rate(sound)
    librosa.feature.spectral_centroid(y=sound)
    librosa.pyin(sound, fmin=100, fmax=400, sr=16000)
librosa.filters.mel(sr=16000, n_fft=512)
"""


def fill() -> None:
    """Call what this project uses of librosa, in a process of its own; RuntimeError where even a new cache fails."""
    if _called():
        return
    for path in files():
        path.unlink()
    if not _called():
        raise RuntimeError("librosa's compiled functions cannot be called: install librosa and numba anew")


def files() -> list[Path]:
    """The files of the cache."""
    import librosa

    folder = Path(librosa.__file__).parent
    return sorted([*folder.rglob("*.nbi"), *folder.rglob("*.nbc")])


def _called() -> bool:
    return subprocess.run([sys.executable, "-c", CALLS]).returncode == 0


if __name__ == "__main__":
    fill()
