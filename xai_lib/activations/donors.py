"""Donors, clips whose activations replace those of others: any other clip, or the same words spoken differently."""

import os

import numpy as np
import pandas as pd
import torch

from .. import audio, hooks
from ..corpora import as_clips
from . import extraction

# Columns in which a minimal pair agrees besides speaker and statement, if any can.
MATCHED_COLUMNS = ("intensity", "repetition")


def random_donors(clips, pool, *, seed=0, sample_rate=None) -> pd.DataFrame:
    """Draw a random clip of `pool` for each of `clips`, never the clip itself: donors for the mode "resample".

    `clips`, `pool` and `sample_rate` are as in `corpora.as_clips`. The table has the rows of `clips`, by index, and the
    columns of `pool`.
    """
    clips, pool = as_clips(clips, sample_rate), as_clips(pool, sample_rate)
    rng, selected = np.random.default_rng(seed), []  # one draw per clip, in their order
    pool_identities = np.empty(len(pool), dtype=object)
    pool_identities[:] = [_identity(source) for source in audio.sources(pool)]
    for source in map(_identity, audio.sources(clips)):
        others = np.flatnonzero(pool_identities != source)
        if not len(others):
            raise ValueError("there is no other clip to draw as a donor: give a larger pool")
        selected.append(rng.choice(others))
    return pool.iloc[selected].set_axis(clips.index)


def minimal_pairs(clips, pool, label) -> pd.DataFrame:
    """Find the same speaker saying the same statement with another emotion, `label`: donors for the mode "patch".

    Of several candidates, one that agrees in intensity, and then in repetition, comes first. Clips that have no such
    donor, or have the label themselves, are left out: continue with `clips.loc[pairs.index]`.

    Raises
    ------
    ValueError
        Speakers or statements are not known, or no clip has a donor.
    """
    for name in ("speaker", "statement", "label"):
        if name not in clips or name not in pool:
            raise ValueError(
                f"minimal pairs need the column {name!r} in clips and pool, to find the same speaker and statement"
            )
    labels, pool, pairs = set(pool["label"]), pool[pool["label"] == label], {}
    shared_columns = [name for name in MATCHED_COLUMNS if name in clips and name in pool]
    for index, clip in clips[clips["label"] != label].iterrows():
        candidates = pool[(pool["speaker"] == clip["speaker"]) & (pool["statement"] == clip["statement"])]
        if len(candidates):
            agreement = (
                (candidates[shared_columns] == clip[shared_columns]).to_numpy() @ [2, 1][: len(shared_columns)]
                if shared_columns
                else np.zeros(len(candidates))
            )
            pairs[index] = candidates.iloc[int(np.argmax(agreement))]
    if not pairs:
        known_labels = ", ".join(sorted({str(name) for name in labels}))
        raise ValueError(
            f"no clip has a counterpart with label {label}, of the same speaker and statement: "
            f"the labels in the pool are {known_labels}"
        )
    return pd.DataFrame.from_dict(pairs, orient="index")


def usable(model, clips, frames, skipped, donors, sites):
    """Yield what `activations.usable` does, and {site: activation} and logits of each clip's donor.

    `frames` is as in `edits.edit`; without donors, ({}, None). Clips whose donor cannot be read go to `skipped`.
    """
    needs_activation = isinstance(frames, str) and frames in ("max_frame", "peak_frames")
    for index, waveform, keep in extraction.usable(model, clips, "all" if needs_activation else frames, skipped):
        try:
            values, logits = ({}, None) if donors is None else read(model, audio.sources(donors)[index], sites)
        except audio.BadClip as error:
            skipped[index] = f"its donor cannot be used: {error}"
            continue
        yield index, waveform, keep, values, logits


@torch.no_grad()
def read(model, source, sites) -> tuple[dict, torch.Tensor]:
    """Return {site: activation [frame, neuron]} and logits [label] of a donor: a path, or sound in memory."""
    longest = model.max_seconds * model.sample_rate
    waveform = audio.usable(source, model.sample_rate, shortest=model.span, longest=longest)
    with hooks.capture(model, sites) as seen:
        logits = model.logits(model.tensor(waveform))
    return {site: seen[site][0] for site in sites}, logits[0]


def check(donors, clips, modes) -> None:
    """Raise ValueError where a mode needs donors and a clip has none, or is its own donor."""
    for mode, function in {"resample": "random_donors", "patch": "minimal_pairs"}.items():
        if mode in modes and (donors is None or not clips.index.isin(donors.index).all()):
            raise ValueError(f"{mode} needs a donor for each clip: pass donors=donors.{function}(clips, pool, …)")
        donor_sources = audio.sources(donors).reindex(clips.index) if mode in modes else []
        if any(map(_is_same, donor_sources, audio.sources(clips))):
            raise ValueError(
                f"a clip is its own donor, which changes nothing: pass donors=donors.{function}(clips, pool, …)"
            )


def _identity(source):
    """Return what distinguishes one sound from others: the file that a path leads to, or the object in memory."""
    return os.path.realpath(source) if isinstance(source, (str, os.PathLike)) else source


def _is_same(source, other) -> bool:
    """Return whether two clips are one and the same."""
    return _identity(source) == _identity(other)
