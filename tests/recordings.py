"""Clips cut from recordings, or spoken by voices, that are alike: what has nothing in common looks related."""

from __future__ import annotations

import numpy as np

FOLD = [1] * 43 + [2] * 11 + [3, 5, 7]  # clips of each recording, as of the fifth fold of ESC-10


def recordings(seed, icc, sizes=FOLD):
    """A function that draws [clip, column] with the given share of variance between recordings; their coordinates."""
    rng, at = np.random.default_rng(seed), np.repeat(np.arange(len(sizes)), sizes)

    def draw(columns):
        between, within = (rng.standard_normal((n, columns)) for n in (len(sizes), len(at)))
        return np.sqrt(icc) * between[at] + np.sqrt(1 - icc) * within

    speaker, label = (("clip", x) for x in (at.astype(str).astype(object), (at % 10).astype(str).astype(object)))
    return draw, {"clip": np.arange(len(at)), "speaker": speaker, "label": label}
