"""Clips whose activations stand in for those of others: any other clip, or the same words said otherwise."""

import os

import numpy as np
import pandas as pd
import torch

from .. import audio, hooks
from ..corpora import as_clips
from . import extraction

AGREE = ("intensity", "repetition")  # what a minimal pair agrees in besides speaker and statement, where it can


def drawn(clips, pool, *, seed=0, sample_rate=None) -> pd.DataFrame:
    """A random clip of `pool` for each of `clips`, never the clip itself: for the mode "resample".

    `clips`, `pool` and `sample_rate` are as in `corpora.as_clips`. The table has the rows of `clips`, by index, and the
    columns of `pool`.
    """
    clips, pool = as_clips(clips, sample_rate), as_clips(pool, sample_rate)
    rng, chosen = np.random.default_rng(seed), []  # one draw a clip, in their order
    in_pool = np.empty(len(pool), dtype=object)
    in_pool[:] = [_identity(source) for source in audio.sources(pool)]
    for source in map(_identity, audio.sources(clips)):
        others = np.flatnonzero(in_pool != source)
        if not len(others):
            raise ValueError("there is no other clip to draw: give a larger pool")
        chosen.append(rng.choice(others))
    return pool.iloc[chosen].set_axis(clips.index)


def minimal_pairs(clips, pool, label) -> pd.DataFrame:
    """The same speaker saying the same statement with another emotion, `label`: for the mode "patch".

    Of several, one that agrees in intensity, and then repetition, comes first. Clips that have no such donor, or have
    the label themselves, are left out: go on with `clips.loc[pairs.index]`.

    Raises
    ------
    ValueError
        Speakers or statements are not known, or not one clip has a donor.
    """
    for name in ("speaker", "statement", "label"):
        if name not in clips or name not in pool:
            raise ValueError(f"minimal pairs need the column {name!r}: the same speaker, the same statement")
    labels, pool, found = set(pool["label"]), pool[pool["label"] == label], {}
    known = [name for name in AGREE if name in clips and name in pool]
    for index, clip in clips[clips["label"] != label].iterrows():
        some = pool[(pool["speaker"] == clip["speaker"]) & (pool["statement"] == clip["statement"])]
        if len(some):
            agree = (some[known] == clip[known]).to_numpy() @ [2, 1][: len(known)] if known else np.zeros(len(some))
            found[index] = some.iloc[int(np.argmax(agree))]
    if not found:
        there = ", ".join(sorted({str(name) for name in labels}))
        raise ValueError(
            f"no clip has a counterpart that is {label}, of the same speaker and statement: there are {there}"
        )
    return pd.DataFrame.from_dict(found, orient="index")


def usable(model, clips, frames, skipped, donors, sites):
    """`activations.usable`, of frames as in `edits.edit`, and what `read` gives of each clip's donor: ({}, None) of none.

    Clips whose donor cannot be read go to `skipped`.
    """
    policy = isinstance(frames, str) and frames in ("max_frame", "peak_frames")
    for index, waveform, keep in extraction.usable(model, clips, "all" if policy else frames, skipped):
        try:
            values, logits = ({}, None) if donors is None else read(model, audio.sources(donors)[index], sites)
        except audio.BadClip as error:
            skipped[index] = f"its donor cannot be used: {error}"
            continue
        yield index, waveform, keep, values, logits


@torch.no_grad()
def read(model, source, sites) -> tuple[dict, torch.Tensor]:
    """{site: activation [frame, neuron]} and logits [label] of a donor: a path, or sound in memory."""
    with hooks.capture(model, sites) as seen:
        logits = model.logits(model.tensor(audio.read(source, model.sample_rate)))
    return {site: seen[site][0] for site in sites}, logits[0]


def check(donors, clips, modes) -> None:
    """ValueError where a mode needs donors and a clip has none."""
    for mode, how in {"resample": "drawn", "patch": "minimal_pairs"}.items():
        if mode in modes and (donors is None or not clips.index.isin(donors.index).all()):
            raise ValueError(f"{mode} needs a donor for each clip: donors=donors.{how}(clips, pool, …)")
        theirs = audio.sources(donors).reindex(clips.index) if mode in modes else []
        if any(map(_is_same, theirs, audio.sources(clips))):
            raise ValueError(f"a clip is its own donor, which changes nothing: donors=donors.{how}(clips, pool, …)")


def _identity(source):
    """What tells one sound from others: the file that a path leads to, or what is in memory."""
    return os.path.realpath(source) if isinstance(source, (str, os.PathLike)) else source


def _is_same(source, other) -> bool:
    """Whether two clips are one and the same."""
    return _identity(source) == _identity(other)
