"""Time courses of neurons, from the onset of the speech to its end, and what they have beyond its loudness.

A model has onsets and edges of its own: in stationary noise nearly every neuron has a course. So courses are compared
with those of the same speech cut into pieces and put together in random order. The joints would be audible as clicks in
voiced sound: so pieces fade in and out, in the speech itself as in its copies, at the same positions.
"""

from itertools import product

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import audio, execution, hooks, results, statistics, targets
from ..activations import usable
from ..corpora import as_clips

COURSES = ("whole", "beyond_level", "other_words")


@torch.no_grad()
def course(
    model, clips, *, bins=10, layers="all", part="hidden_state", frames="speech", shuffles=3, seed=0, sample_rate=None
):
    """Compute the mean activation of every neuron by relative position between the first and the last selected frame.

    Pauses in between belong to the course. Clips with fewer than `bins` frames are in attrs["skipped"]. What is between
    those two frames is cut into pieces of 80 ms, each faded in and out by 5 ms (a raised cosine), as is what lies
    outside, where it joins. The same is done with `shuffles` copies of each clip, in which the pieces are in random
    order, which does not depend on the other clips.

    Returns
    -------
    Dataset
        `activation` [clip, position, layer, neuron] and `level` [clip, position] (dBFS, −80 or more, the mean over
        frames), and their means over the shuffled copies, `shuffled` and `shuffled_level`; `position` is the middle of
        a bin, 0 to 1.
    """
    clips = as_clips(clips, sample_rate)
    if shuffles < 1:
        raise ValueError("a course is compared with that of shuffled copies: shuffles must be 1 or more")
    sites, skipped, rows = model.sites(part, layers), {}, {}
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        first, last = np.flatnonzero(frame_mask)[[0, -1]]
        if last + 1 - first < bins:
            skipped[index] = f"{last + 1 - first} frames are fewer than {bins} bins"
            continue
        inner = first * model.hop + model.span, last * model.hop  # samples shared with the end frames are not shuffled
        before, *pieces, after = _pieces(waveform, *inner, model.sample_rate)
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_COURSE))
        orders = [range(len(pieces)), *(rng.permutation(len(pieces)) for _ in range(shuffles))]
        copies = [np.concatenate([before, *(pieces[i] for i in order), after]) for order in orders]
        with hooks.capture(model, sites) as captured:
            execution.prefix(model, torch.cat([model.tensor(copy) for copy in copies]), sites[-1].layer)
        hidden = torch.stack([captured[site][:, first : last + 1] for site in sites], dim=2).cpu().numpy()
        batch, grid = audio.without_offset(torch.from_numpy(np.stack(copies))), {"hop": model.hop, "span": model.span}
        rms = audio.features(batch, model.sample_rate, names=("rms",), **grid)["rms"].numpy()
        level = 20 * np.log10(np.maximum(rms[:, first : last + 1], 1e-4))
        binned = (np.array_split(values, bins, axis=1) for values in (hidden, level))
        means = (np.stack([part.mean(axis=1) for part in parts], axis=1) for parts in binned)
        rows[index] = [mean for copy_means in means for mean in (copy_means[0], copy_means[1:].mean(axis=0))]
    names, dims = ("activation", "shuffled", "level", "shuffled_level"), ("clip", "position", "layer", "neuron")
    data = {name: (dims[: arrays[0].ndim + 1], np.stack(arrays)) for name, arrays in zip(names, zip(*rows.values()))}
    return xr.Dataset(
        data,
        {**results.coordinates(clips, rows), **results.axes(sites, hidden), "position": (np.arange(bins) + 0.5) / bins},
        results.attributes(model, skipped, method="course", part=part, frames=frames, shuffles=shuffles, seed=seed),
    )


def consistency(courses, *, draws=9999, seed=0) -> xr.Dataset:
    """Test whether the course of each neuron is the same across speakers, beyond loudness, and beyond the words.

    Courses are those of `course` minus what they are in shuffled speech: they are averaged over the clips of a speaker,
    centred over positions, and brought to equal length.

    Returns
    -------
    Dataset [course, layer, neuron]
        `r`, the mean correlation between the courses of two speakers; `p`, one-sided: how often it would be as great if
        each speaker's course were sign-flipped at random (all such sign flips up to 14 speakers, else `draws`; NaN
        under 8); `q`, at a false discovery rate over neurons and layers. The `course` is "whole"; "beyond_level", what
        a linear regression on the speaker's own course of the level (minus that in shuffled speech) leaves, so linearly
        beyond the level; and, where there are several statements, "other_words": of that, one speaker's in a statement
        with another's in another one.

    Raises
    ------
    ValueError
        Fewer than two speakers, or speakers that are not known.
    """
    values = (courses["activation"] - courses["shuffled"]).transpose("clip", "position", "layer", "neuron")
    level = courses["level"] - courses["shuffled_level"]
    names = np.unique(statistics.by_speaker(level)["speaker"])
    n, shape = len(names), values.shape[2:]
    if n < 2:
        raise ValueError("courses are compared between speakers: give clips of two or more")
    whole, beyond_level = _courses(values, level, names)
    first, second = np.triu_indices(n, 1)
    kinds = {
        kind: (np.einsum("ipu,ipu->iu", units[first], units[second]), len(first))
        for kind, units in zip(COURSES, (whole, beyond_level))
    }
    statements = courses["statement"].to_series() if "statement" in courses.coords else pd.Series()
    rows = [np.flatnonzero(statements == name) for name in statements.dropna().unique()]
    if len(rows) > 1:
        parts = np.stack([_courses(values[clips], level[clips], names)[1] for clips in rows])
        total, present = parts.sum(axis=0), parts.any(axis=(2, 3)).astype(int)  # [speaker, …], [statement, speaker]
        pairs = np.einsum("ipu,ipu->iu", total[first], total[second])
        pairs -= np.einsum("sipu,sipu->iu", parts[:, first], parts[:, second])
        count = present.sum(axis=0)[first] * present.sum(axis=0)[second]
        count = count - (present[:, first] * present[:, second]).sum(axis=0)
        kinds[COURSES[2]] = pairs, max(count.sum(), 1)
    if n <= 14:
        flips = np.array(list(product((1, -1), repeat=n)))[: 2 ** (n - 1)]  # to flip all changes nothing
    else:
        flips = np.random.default_rng(seed).choice([-1, 1], (draws + 1, n))
    flips[0] = 1  # the observed signs
    tests = {"r": [], "p": [], "q": []}
    for pairs, count in kinds.values():
        r, exceeding = pairs.sum(axis=0) / count, 0
        for batch in np.array_split(flips, -(-len(flips) // 512)):
            exceeding = exceeding + ((batch[:, first] * batch[:, second]) @ pairs / count >= r - 1e-9).sum(axis=0)
        p = exceeding / (len(flips) if n >= statistics.MIN_SPEAKERS else np.nan)
        for name, value in {"r": r, "p": p, "q": statistics.fdr(p)}.items():
            tests[name].append(value.reshape(shape))
    return xr.Dataset(
        {name: (("course", "layer", "neuron"), np.stack(value)) for name, value in tests.items()},
        {"course": list(kinds), "layer": values["layer"].values, "neuron": values["neuron"].values},
        {"method": "consistency", "draws": len(flips), "seed": seed, "speakers": n},
    )


def _courses(values, level, names):
    """Return courses [speaker, position, unit] of unit length, and what the level leaves of them."""
    means = (statistics.by_speaker(part).reindex(speaker=names).values.astype(float) for part in (values, level))
    whole, loudness = (
        statistics.standardize(np.nan_to_num(part.reshape(*part.shape[:2], -1)), axis=1, min_norm=1e-9)
        for part in means
    )
    explained = loudness * (whole * loudness).sum(axis=1, keepdims=True)
    return whole, statistics.standardize(whole - explained, axis=1, min_norm=1e-9)


def _pieces(waveform, start, stop, rate, piece=0.08, fade=0.005):
    """Cut the waveform [time] at two samples and into pieces (s) in between, that fade (s) at each joint."""
    stop = max(start, stop)
    n, length = max(round((stop - start) / (piece * rate)), 2), round(fade * rate)
    parts = [waveform[:start], *np.array_split(waveform[start:stop], n), waveform[stop:]]
    ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)
    dip, gain = np.concatenate([ramp[::-1], ramp]), np.ones(len(waveform))
    cuts = np.cumsum([len(part) for part in parts[:-1]])
    for cut in cuts if stop > start else ():
        gain[cut - length : cut + length] *= dip
    return np.split((gain * waveform).astype(waveform.dtype), cuts)
