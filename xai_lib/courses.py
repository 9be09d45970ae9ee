"""Whether neurons follow a course in time, from the onset of the speech to its end, and more than its loudness."""

from itertools import product

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import audio, execution, hooks, statistics, targets
from .activations import usable

COURSES = ("whole", "beyond_level", "other_words")


@torch.no_grad()
def course(model, clips, *, bins=10, layers="all", part="block", frames="speech") -> xr.Dataset:
    """Mean activation of every neuron by relative position between the first frame that counts and the last.

    Pauses in between belong to the course. Clips with fewer than `bins` frames are in attrs["skipped"].

    Returns
    -------
    Dataset
        `activation` [clip, position, layer, neuron] and `level` [clip, position] (dBFS, −80 or more, the mean over
        frames); `position` is the middle of a bin, 0 to 1.
    """
    sites, skipped, rows = model.sites(part, layers), {}, {}
    for index, waveform, keep in usable(model, clips, frames, skipped):
        first, last = np.flatnonzero(keep)[[0, -1]]
        if last + 1 - first < bins:
            skipped[index] = f"{last + 1 - first} frames are fewer than {bins} bins"
            continue
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, model.tensor(waveform), sites[-1].layer)
        hidden = torch.stack([seen[site][0, first : last + 1] for site in sites], dim=1).cpu().numpy()
        grid = {"hop": model.hop, "span": model.span}
        rms = audio.features(torch.from_numpy(waveform), model.sample_rate, names=("rms",), **grid)["rms"].numpy()
        level = 20 * np.log10(np.maximum(rms[first : last + 1], 1e-4))
        parts = (np.array_split(x, bins) for x in (hidden, level))
        rows[index] = [np.stack([part.mean(axis=0) for part in x]) for x in parts]
    hidden, level = map(np.stack, zip(*rows.values()))
    return xr.Dataset(
        {"activation": (("clip", "position", "layer", "neuron"), hidden), "level": (("clip", "position"), level)},
        {**targets.coordinates(clips, rows), **targets.axes(sites, hidden), "position": (np.arange(bins) + 0.5) / bins},
        targets.attributes(model, skipped, method="course", part=part, frames=frames),
    )


def consistency(courses, *, draws=9999, seed=0) -> xr.Dataset:
    """Whether the course of each neuron is the same from speaker to speaker, beyond loudness, and beyond the words.

    Courses are averaged over the clips of a speaker, centred over positions, and brought to equal length.

    Returns
    -------
    Dataset [course, layer, neuron]
        `r`, the mean correlation between the courses of two speakers; `p`, one-sided: how often it would be as great if
        each speaker's course were upside down by chance (all such sign flips up to 14 speakers, else `draws`; NaN under
        8); `q`, at a false discovery rate over neurons and layers. The `course` is "whole"; "beyond_level", what a
        regression on the speaker's own course of the level leaves; and, where there are several statements,
        "other_words": of that, one speaker's in a statement with another's in another one. Also `level_r` [layer,
        neuron], the correlation with the level, averaged over speakers.

    Raises
    ------
    ValueError
        Fewer than two speakers, or speakers that are not known.
    """
    values = courses["activation"].transpose("clip", "position", "layer", "neuron")
    names = np.unique(statistics.by_speaker(courses["level"])["speaker"])
    n, shape = len(names), values.shape[2:]
    if n < 2:
        raise ValueError("courses are compared between speakers: give clips of two or more")
    x, rest, level_r = _courses(values, courses["level"], names)
    one, other = np.triu_indices(n, 1)
    kinds = {kind: (np.einsum("ipu,ipu->iu", z[one], z[other]), len(one)) for kind, z in zip(COURSES, (x, rest))}
    said = courses["statement"].to_series() if "statement" in courses.coords else pd.Series()
    rows = [np.flatnonzero(said == name) for name in said.dropna().unique()]
    if len(rows) > 1:
        each = np.stack([_courses(values[some], courses["level"][some], names)[1] for some in rows])
        total, there = each.sum(axis=0), each.any(axis=(2, 3)).astype(int)  # [speaker, …], [statement, speaker]
        pairs = np.einsum("ipu,ipu->iu", total[one], total[other])
        pairs -= np.einsum("sipu,sipu->iu", each[:, one], each[:, other])
        count = there.sum(axis=0)[one] * there.sum(axis=0)[other] - (there[:, one] * there[:, other]).sum(axis=0)
        kinds[COURSES[2]] = pairs, max(count.sum(), 1)
    if n <= 14:
        flips = np.array(list(product((1, -1), repeat=n)))[: 2 ** (n - 1)]  # all turned over at once changes nothing
    else:
        flips = np.random.default_rng(seed).choice([-1, 1], (draws + 1, n))
    flips[0] = 1  # as it is
    found = {"r": [], "p": [], "q": []}
    for pairs, count in kinds.values():
        r, reached = pairs.sum(axis=0) / count, 0
        for some in np.array_split(flips, -(-len(flips) // 512)):
            reached = reached + ((some[:, one] * some[:, other]) @ pairs / count >= r - 1e-9).sum(axis=0)
        p = reached / (len(flips) if n >= statistics.FEWEST else np.nan)
        for name, value in {"r": r, "p": p, "q": statistics.fdr(p)}.items():
            found[name].append(value.reshape(shape))
    return xr.Dataset(
        {name: (("course", "layer", "neuron"), np.stack(value)) for name, value in found.items()},
        {"course": list(kinds), "layer": values["layer"].values, "neuron": values["neuron"].values},
        {"method": "consistency", "draws": len(flips), "seed": seed, "speakers": n},
    ).assign(level_r=(("layer", "neuron"), level_r.reshape(shape)))


def _courses(values, level, names):
    """Courses [speaker, position, unit] of unit length, what the level leaves of them, and their mean r with it."""
    means = (statistics.by_speaker(part).reindex(speaker=names).values.astype(float) for part in (values, level))
    x, loud = (_unit(np.nan_to_num(part.reshape(*part.shape[:2], -1))) for part in means)
    r = (x * loud).sum(axis=1, keepdims=True)
    return x, _unit(x - loud * r), r.mean(axis=0)


def _unit(x):
    """Centred over positions, of norm 1; zeros where nothing varies."""
    x = x - x.mean(axis=1, keepdims=True)
    norm = np.linalg.norm(x, axis=1, keepdims=True)
    return x / np.where(norm > 1e-9, norm, np.inf)
