"""Fill the cache of librosa's compiled functions in one process: `python tests/librosa_cache.py`.

numba compiles librosa's functions when they are first called and keeps the machine code in `__pycache__`. Two processes
that do so at the same time can each write a file of the same name, and leave an index that points at the wrong machine
code: every later process then dies of a segmentation fault. So the tests and `make pocket` call `fill` first.
A cache that was left broken is deleted and filled anew.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

BROKEN = (-signal.SIGSEGV, -signal.SIGBUS, -signal.SIGILL, -signal.SIGABRT)  # how a process dies of wrong machine code
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
    """Call what this project uses of librosa, in a process of its own; RuntimeError where that cannot be done."""
    status = call()
    if status in BROKEN:
        for path in files():
            path.unlink(missing_ok=True)
        status = call()
    if status:
        where = f", delete {os.environ['NUMBA_CACHE_DIR']}" if "NUMBA_CACHE_DIR" in os.environ else ""
        raise RuntimeError(f"librosa cannot be called (exit status {status}): install librosa and numba anew{where}")


def call() -> int:
    """Exit status of a process that calls the functions."""
    return subprocess.run([sys.executable, "-c", CALLS], check=False).returncode


def files() -> list[Path]:
    """The files of the cache beside librosa's own; none where NUMBA_CACHE_DIR has them elsewhere, with others' files."""
    import librosa

    folder = Path(librosa.__file__).parent
    return sorted([*folder.rglob("*.nbi"), *folder.rglob("*.nbc")])


if __name__ == "__main__":
    fill()
