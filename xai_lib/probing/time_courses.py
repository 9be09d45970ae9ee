"""Time courses of neurons, from the onset of the speech to its end, and what they have beyond its loudness.

A model has onsets and edges of its own: in stationary noise nearly every neuron has a course. So courses are compared
with those of the same speech cut into pieces and put together in random order. The joints would be audible as clicks in
voiced sound: so pieces fade in and out, in the speech itself as in its copies, at the same positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import numpy as np
import torch
import xarray as xr

from .. import audio, execution, hooks, results, statistics, targets
from ..activations import require_named_frames, usable
from ..checks import require_whole_number
from ..corpora import as_clips
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model


@torch.no_grad()
def course(
    model: Model,
    clips,
    *,
    bins: int = 10,
    layers: str | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str = "speech",
    shuffles: int = 3,
    seed: int = 0,
    sample_rate: int | None = None,
) -> xr.Dataset:
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    require_named_frames(frames)
    require_whole_number("bins", bins)
    require_whole_number("shuffles", shuffles)  # a course is compared with that of shuffled copies
    sites = model.sites(part, layers)
    skipped = {}
    activation_by_clip = {}
    level_by_clip = {}
    for index, waveform, frame_mask in usable(model, clips, frames, skipped):
        first, last = np.flatnonzero(frame_mask)[[0, -1]]
        inner = slice(first, last + 1)
        n_frames = last + 1 - first
        if n_frames < bins:
            skipped[index] = f"{n_frames} frames are fewer than {bins} bins"
            continue

        # Samples shared with the end frames are not shuffled.
        before, *pieces, after = _pieces(waveform, first * model.hop + model.span, last * model.hop, model.sample_rate)
        rng = np.random.default_rng(targets.key(seed, index, targets.SEED_COURSE))
        versions = [np.concatenate([before, *pieces, after])]
        for _ in range(shuffles):
            shuffled_pieces = [pieces[position] for position in rng.permutation(len(pieces))]
            versions.append(np.concatenate([before, *shuffled_pieces, after]))

        with hooks.capture(model, sites) as captured:
            execution.prefix(model, torch.cat([model.tensor(version) for version in versions]), sites[-1].layer)
        hidden = torch.stack([captured[site][:, inner] for site in sites], dim=2).cpu().numpy()
        level = _level(model, np.stack(versions))[:, inner]
        activation_by_clip[index] = _SpeechAndShuffled.from_versions(_bin_means(hidden, bins))
        level_by_clip[index] = _SpeechAndShuffled.from_versions(_bin_means(level, bins))

    activation = _SpeechAndShuffled.stack(activation_by_clip.values())
    level = _SpeechAndShuffled.stack(level_by_clip.values())
    return xr.Dataset(
        {
            "activation": (("clip", "position", "layer", "neuron"), activation.speech),
            "shuffled": (("clip", "position", "layer", "neuron"), activation.shuffled),
            "level": (("clip", "position"), level.speech),
            "shuffled_level": (("clip", "position"), level.shuffled),
        },
        {
            **results.coordinates(clips, activation_by_clip),
            **results.axes(sites, activation.speech),
            "position": (np.arange(bins) + 0.5) / bins,
        },
        results.attributes(model, skipped, method="course", part=part, frames=frames, shuffles=shuffles, seed=seed),
    )


@dataclass(frozen=True)
class _SpeechAndShuffled:
    """A course of the speech itself, and its mean over the copies in which pieces are shuffled."""

    speech: np.ndarray
    shuffled: np.ndarray

    @classmethod
    def from_versions(cls, courses):
        """Take them from courses [version, position, …], of which the first is that of the speech."""
        return cls(courses[0], courses[1:].mean(axis=0))

    @classmethod
    def stack(cls, clips):
        """Stack those of several clips along a first dim."""
        return cls(np.stack([clip.speech for clip in clips]), np.stack([clip.shuffled for clip in clips]))


def _bin_means(values, bins):
    """Average [version, frame, …] over consecutive frames: [version, bin, …]."""
    return np.stack([part.mean(axis=1) for part in np.array_split(values, bins, axis=1)], axis=1)


def _level(model, waveforms):
    """Compute the level (dBFS, −80 or more) of waveforms [version, time] at the model's frames, [version, frame]."""
    centred = audio.without_offset(torch.from_numpy(waveforms))
    features = audio.features(centred, model.sample_rate, names=("rms",), hop=model.hop, span=model.span)
    return 20 * np.log10(np.maximum(features["rms"].numpy(), 1e-4))


def consistency(courses: xr.Dataset, *, draws: int = 9999, seed: int = 0) -> xr.Dataset:
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
    speakers = np.unique(statistics.by_speaker(level)["speaker"])
    if len(speakers) < 2:
        raise ValueError("courses are compared between speakers: give clips of two or more")

    first, second = np.triu_indices(len(speakers), 1)
    speaker_courses = _SpeakerCourses.from_clips(values, level, speakers)
    correlations = {
        "whole": _PairCorrelations(_correlate(speaker_courses.whole, first, second), len(first)),
        "beyond_level": _PairCorrelations(_correlate(speaker_courses.beyond_level, first, second), len(first)),
    }
    by_statement = []
    for clips in _clips_by_statement(courses):
        by_statement.append(_SpeakerCourses.from_clips(values[clips], level[clips], speakers).beyond_level)
    if len(by_statement) > 1:
        correlations["other_words"] = _correlations_in_other_words(np.stack(by_statement), first, second)

    signs = _sign_patterns(len(speakers), draws, seed)
    neuron_shape = values.shape[2:]
    tests = []
    for pairs in correlations.values():
        r = pairs.sums.sum(axis=0) / pairs.n
        p = np.full(r.shape, np.nan)
        if len(speakers) >= statistics.MIN_SPEAKERS:
            p = _sign_flip_p(pairs, signs, first, second)
        test = {"r": r, "p": p, "q": statistics.fdr(p)}
        tests.append({name: array.reshape(neuron_shape) for name, array in test.items()})

    dims = ("course", "layer", "neuron")
    return xr.Dataset(
        {name: (dims, np.stack([test[name] for test in tests])) for name in ("r", "p", "q")},
        {"course": list(correlations), "layer": values["layer"].values, "neuron": values["neuron"].values},
        {"method": "consistency", "draws": len(signs), "seed": seed, "speakers": len(speakers)},
    )


@dataclass(frozen=True)
class _SpeakerCourses:
    """Courses of speakers [speaker, position, unit], centred and of length 1; 0 where a speaker has none.

    `whole` courses, and what is left of them by a regression on the course of the level (`beyond_level`).
    """

    whole: np.ndarray
    beyond_level: np.ndarray

    @classmethod
    def from_clips(cls, values, level, speakers):
        """Average values [clip, position, layer, neuron] and level [clip, position] over the clips of each speaker."""
        whole = _unit_courses(values, speakers)
        loudness = _unit_courses(level, speakers)
        explained = loudness * (whole * loudness).sum(axis=1, keepdims=True)
        return cls(whole, statistics.standardize(whole - explained, axis=1, min_norm=1e-9))


def _unit_courses(values, speakers):
    """Return the mean courses of speakers, centred and of length 1, [speaker, position, unit], of [clip, position, …].

    0 where a speaker has none.
    """
    means = statistics.by_speaker(values).reindex(speaker=speakers).values.astype(float)
    flat = means.reshape(*means.shape[:2], -1)
    return statistics.standardize(np.nan_to_num(flat), axis=1, min_norm=1e-9)


@dataclass(frozen=True)
class _PairCorrelations:
    """Correlations of courses of two speakers: their sum for each pair, [pair, unit], and how many there are in all."""

    sums: np.ndarray
    n: int


def _correlate(courses, first, second):
    """Correlate unit courses [speaker, position, unit] of the first and second speaker of each pair: [pair, unit]."""
    return np.einsum("ipu,ipu->iu", courses[first], courses[second])


def _clips_by_statement(courses):
    """Return the rows of the clips of each statement, in order of appearance; none where no statement is known."""
    if "statement" not in courses.coords:
        return []
    statements = courses["statement"].to_series()
    return [np.flatnonzero(statements == statement) for statement in statements.dropna().unique()]


def _correlations_in_other_words(courses, first, second):
    """Correlate the course of a speaker in a statement with another's in every other one, for each pair of speakers.

    `courses` are [statement, speaker, position, unit]. Sums over two different statements are those over any two, minus
    those over two times the same.
    """
    any_statements = _correlate(courses.sum(axis=0), first, second)
    same_statement = np.einsum("sipu,sipu->iu", courses[:, first], courses[:, second])

    present = courses.any(axis=(2, 3)).astype(int)  # [statement, speaker]
    n_statements = present.sum(axis=0)
    n_any = n_statements[first] * n_statements[second]
    n_same = (present[:, first] * present[:, second]).sum(axis=0)
    return _PairCorrelations(any_statements - same_statement, max((n_any - n_same).sum(), 1))


def _sign_patterns(n, draws, seed):
    """Return signs [pattern, n], the first without a flip: all up to 14 speakers, or `draws` random ones beside it."""
    if n <= 14:
        return np.array(list(product((1, -1), repeat=n)))[: 2 ** (n - 1)]  # to flip all changes nothing
    signs = np.random.default_rng(seed).choice([-1, 1], (draws + 1, n))
    signs[0] = 1  # the observed signs
    return signs


def _sign_flip_p(pairs, signs, first, second):
    """Return the one-sided p [unit] of the mean correlation of pairs, by the signs of speakers [pattern, speaker]."""
    observed = pairs.sums.sum(axis=0) / pairs.n
    as_great = np.zeros(observed.shape)
    for batch in np.array_split(signs, -(-len(signs) // 512)):
        pair_signs = batch[:, first] * batch[:, second]
        flipped = pair_signs @ pairs.sums / pairs.n
        as_great += (flipped >= observed - 1e-9).sum(axis=0)
    return as_great / len(signs)


def _pieces(waveform, start, stop, rate, piece=0.08, fade=0.005):
    """Cut the waveform [time] at two samples and into pieces (s) in between, that fade (s) at each joint.

    The first and the last part are what lies outside the two samples.
    """
    stop = max(start, stop)
    n_pieces = max(round((stop - start) / (piece * rate)), 2)
    parts = [waveform[:start], *np.array_split(waveform[start:stop], n_pieces), waveform[stop:]]
    cuts = np.cumsum([len(part) for part in parts[:-1]])

    gain = np.ones(len(waveform))
    if stop > start:
        length = round(fade * rate)
        ramp = 0.5 - 0.5 * np.cos(np.pi * (np.arange(length) + 0.5) / length)
        for cut in cuts:
            gain[cut - length : cut + length] *= np.concatenate([ramp[::-1], ramp])
    return np.split((gain * waveform).astype(waveform.dtype), cuts)
