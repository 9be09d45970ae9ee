"""Similarity of neurons and concepts: the similarity functions of CLIP-Dissect and Audio Network Dissection.

Each is a function of `fits` [clip, concept], how well each clip fits each concept, and `values` [clip, neuron], an
array or a DataArray [clip, …] that may lie in a file, of which it reads a block of neurons at a time; it returns scores
[neuron, concept]. All clips and all neurons are needed at once, since the two measures of mutual information compare
how well a concept fits a neuron with how well it fits the others. Where there are too few clips for the published
numbers, the strongest eighth is read.

References
----------
Oikarinen and Weng (2023), CLIP-Dissect, ICLR, whose defaults these are; Wu, Lin and Weng (2024), AND: Audio Network
Dissection, ICML.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
import xarray as xr
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata
from torch.nn.functional import embedding_bag

from .. import statistics


def cosine(fits: np.ndarray, values: np.ndarray | xr.DataArray) -> np.ndarray:
    """Compute the cosine of activations and fits, both centred over clips: their correlation.

    Without the centring, a neuron that is always negative would be assigned the concept that fits least, and all that
    are always positive the one that fits most clips, regardless of how they vary.
    """
    return _scores("cosine", fits, values)


def cosine_cubed(fits: np.ndarray, values: np.ndarray | xr.DataArray) -> np.ndarray:
    """Compute `cosine` of the cubes of the centred values, so that the clips far from the mean count most."""
    return _scores("cosine_cubed", fits, values)


def rank_reorder(
    fits: np.ndarray, values: np.ndarray | xr.DataArray, *, top: int | None = None, p: float = 3, scale: float = 0.5
) -> np.ndarray:
    """Compute the negative error with which the fits order a neuron's strongest clips (5 %, but at least ten).

    These clips are assigned, by the rank of their fits, the activations of the clips at these ranks. The mean of
    |activation − assigned|^p is divided by its expectation in a random order, and by the mean fit (0 if negative) to
    the power `scale`. Clips that fit equally well share the errors of their ranks, so that a concept that fits all
    clips equally has the error of chance, 1; the published code orders such clips as its sorting happens to leave them.
    """
    return _scores("rank_reorder", fits, values, top=top, p=p, scale=scale)


def wpmi(
    fits: np.ndarray, values: np.ndarray | xr.DataArray, *, top: int | None = None, a: float = 2, lam: float = 0.6
) -> np.ndarray:
    """Compute weighted pointwise mutual information: `soft_wpmi` with the 28 strongest clips as certain exemplars."""
    return _scores("wpmi", fits, values, top=top, a=a, lam=lam)


def soft_wpmi(
    fits: np.ndarray,
    values: np.ndarray | xr.DataArray,
    *,
    top: int | None = None,
    a: float = 10,
    lam: float = 1,
    first: float = 0.998,
    last: float = 0.97,
) -> np.ndarray:
    """Compute soft weighted pointwise mutual information, log p(exemplars | concept) − lam log p(exemplars).

    The former is the sum over the 100 strongest clips, rank k, of log(1 + p_k (s − 1)), where s is the softmax over
    concepts of `a` times the fits and p_k, how surely the clip is an exemplar, falls from `first` to `last`; the latter
    is its mean over neurons, as a probability. Raises ValueError where the strongest clips of all neurons are the same,
    as with a single neuron: it would only be compared with itself, and all scores would be 0.
    """
    return _scores("soft_wpmi", fits, values, top=top, a=a, lam=lam, first=first, last=last)


def scorer(similarity: str, values: np.ndarray | xr.DataArray, **options) -> tuple[Callable, Callable]:
    """Read the activations once, and return functions that score many fits.

    Returns
    -------
    score : function
        From `fits` [clip, concept] to raw scores [neuron, concept].
    baseline : function
        From raw scores to the baseline to subtract: the final score is raw − baseline(raw). The baseline is 0 except
        for mutual information, where it is what neurons have in common, [concept].
    """
    if similarity not in FUNCTIONS:
        raise ValueError(f"unknown similarity {similarity!r}: known are {', '.join(FUNCTIONS)}")
    return FUNCTIONS[similarity](values, **options)


def blocks(values: np.ndarray | xr.DataArray, size: int = 2**24) -> Iterator[np.ndarray]:
    """Yield the neurons of `values` [clip, …], in order, as arrays [clip, neuron] of about `size` values at most."""
    values = getattr(values, "variable", values)  # the variable of a DataArray in a file reads only the indexed part
    *outer_shape, width = values.shape[1:]
    step = max(size // len(values), 1)
    for outer in np.ndindex(*outer_shape):
        for start in range(0, width, step):
            neurons = slice(start, start + step)
            block = np.asarray(values[(slice(None), *outer, neurons)])
            if not np.isfinite(block).all():
                raise ValueError("some activations are NaN or infinite: leave out those clips or neurons")
            yield block.astype(np.result_type(block.dtype, np.float32), copy=False)


def _scores(similarity, fits, values, **options):
    score, baseline = scorer(similarity, values, **options)
    raw = score(fits)
    return raw - baseline(raw)


def _no_baseline(raw):
    return 0


def _cosine(values, cubed=False):
    unit_blocks = [standardize(block, cubed) for block in blocks(values)]

    def score(fits):
        unit_fits = standardize(np.asarray(fits, float), cubed)
        return np.concatenate([block.T @ unit_fits.astype(block.dtype) for block in unit_blocks])

    return score, _no_baseline


def standardize(x: np.ndarray, cubed: bool = False) -> np.ndarray:
    """Centre the columns, cube them if `cubed`, and scale them to norm 1; 0 where they vary by rounding at most."""
    centred = x - x.mean(axis=0)
    rounding = 8 * np.finfo(centred.dtype).eps * np.linalg.norm(x, axis=0)
    centred[:, np.linalg.norm(centred, axis=0) <= rounding] = 0
    scaled = statistics.standardize(centred, min_norm=0)
    if not cubed:
        return scaled
    cubes = scaled * scaled * scaled
    norm = np.linalg.norm(cubes, axis=0)
    return cubes / np.where(norm > 0, norm, 1)


def _strongest(values, top):
    """Return each neuron's strongest clips and their activations, strongest first, [neuron, top] both.

    Clips of equal activation, such as a ReLU's 0, are in random order: in the order of the corpus, clips of the first
    label would be preferred.
    """
    # The permutation is of positions of the clips, always with seed 0.
    permutation = np.random.default_rng(0).permutation(len(values))
    n_clips = min(top, len(permutation))
    clips = []
    activations = []
    for block in blocks(values):
        permuted = np.take(block.T, permutation, axis=1)
        largest = torch.topk(torch.from_numpy(permuted), n_clips)
        clips.append(permutation[largest.indices.numpy()].astype(np.int32))
        activations.append(largest.values.numpy())
    return np.concatenate(clips), np.concatenate(activations)


def _pmi(values, top=None, *, n_exemplars, a, lam, first=1.0, last=1.0):
    clips, _ = _strongest(values, top or min(n_exemplars, max(len(values) // 8, 1)))  # [neuron, rank]
    if (clips == clips[0]).all():
        raise ValueError(
            "wpmi and soft_wpmi compare how well a concept fits a neuron with how well it fits the others: give "
            "several neurons whose strongest clips differ, or use cosine"
        )
    n_clips = len(values)
    n_ranks = clips.shape[1]
    ranks = np.arange(n_ranks, dtype=np.int32)
    p_exemplar = first - (first - last) * ranks / n_ranks
    rows = torch.from_numpy(clips + n_clips * ranks)  # of a table of all clips at rank 0, all at rank 1, …

    def score(fits):
        share = softmax(a * np.asarray(fits, float), axis=1)  # [clip, concept]
        likelihood = 1 + p_exemplar[:, None, None] * (share - 1)  # [rank, clip, concept]
        table = np.log(np.maximum(likelihood, 1e-7)).reshape(n_ranks * n_clips, -1)
        return embedding_bag(rows, torch.from_numpy(table), mode="sum").numpy()

    def baseline(raw):
        return lam * (logsumexp(raw, axis=0) - np.log(len(raw)))

    return score, baseline


def _rank_reorder(values, top=None, *, p=3, scale=0.5):
    clips, activations = _strongest(values, top or max(round(len(values) / 20), min(len(values), 10)))
    n_ranks = clips.shape[1]
    strong = activations.astype(float) - activations[:, -1:]  # from 0, the weakest, to 1
    strong /= np.where(strong[:, :1] > 0, strong[:, :1], 1)

    def score(fits):
        fits = np.asarray(fits, float)
        fit_ranks = rankdata(fits, "dense", axis=0).T.astype(np.int32)  # [concept, clip]
        step = max(2**20 // (n_ranks * max(len(fit_ranks), n_ranks)), 1)  # neurons at a time, to fit the cache
        errors = []
        for start in range(0, len(clips), step):
            neurons = slice(start, start + step)
            errors.append(_relative_errors(fit_ranks[:, clips[neurons]], strong[neurons], p))
        mean_fit = embedding_bag(torch.from_numpy(clips), torch.from_numpy(np.maximum(fits, 0)), mode="mean").numpy()
        return -np.concatenate(errors) / np.maximum(mean_fit, 1e-6) ** scale

    return score, _no_baseline


def _relative_errors(fit_ranks, strong, p):
    """Return mean |activation − assigned|^p over that in a random order, [neuron, concept]; 1 if all are equal.

    `fit_ranks` [concept, neuron, clip] are the ranks of the fits of each neuron's strongest clips, and `strong`
    [neuron, clip] their activations, which decrease. The clip that fits least is assigned the weakest of these, and so
    on; clips that fit equally well share the errors of their places.
    """
    error = np.abs(strong[:, :, None] - strong[:, None, ::-1])  # [neuron, clip, place], places from the weakest up
    error = error**p if p != 3 else error * error * error  # a power is slow
    n_neurons, n_clips, _ = error.shape
    error_up_to = np.concatenate([np.zeros((n_neurons, n_clips, 1)), error.cumsum(axis=2)], axis=2)

    sorted_ranks, clip = _sort_by_fit(fit_ranks)
    start, stop = _runs_of_ties(sorted_ranks)
    # Positions in `error_up_to`, flat since that is faster.
    row = (np.arange(n_neurons)[:, None] * n_clips + clip) * (n_clips + 1)
    error_of_ties = (error_up_to.take(row + stop) - error_up_to.take(row + start)) / (stop - start)
    mean_error = error_of_ties.mean(axis=-1)  # [concept, neuron]

    chance = error.mean(axis=(1, 2))
    return np.where(chance > 0, mean_error / np.where(chance > 0, chance, 1), 1).T


def _sort_by_fit(fit_ranks):
    """Return ranks [concept, neuron, clip] in ascending order, and the clips in that order, tied ones as they come."""
    n_clips = fit_ranks.shape[-1]
    keys = fit_ranks * n_clips + np.arange(n_clips, dtype=np.int32)  # sorting these is faster than a stable argsort
    return np.divmod(np.sort(keys), n_clips)


def _runs_of_ties(sorted_ranks):
    """Return where the run of equal ranks begins in which each place lies, and where it ends, [..., place] both."""
    n_places = sorted_ranks.shape[-1]
    place = np.arange(n_places, dtype=np.int32)
    is_first = np.ones(sorted_ranks.shape, bool)
    is_first[..., 1:] = sorted_ranks[..., 1:] != sorted_ranks[..., :-1]
    is_last = np.ones(sorted_ranks.shape, bool)
    is_last[..., :-1] = is_first[..., 1:]

    start = np.maximum.accumulate(np.where(is_first, place, 0), axis=-1)
    backwards = np.where(is_last, place + 1, n_places)[..., ::-1]
    stop = np.minimum.accumulate(backwards, axis=-1)[..., ::-1]
    return start, stop


FUNCTIONS = {
    "cosine": _cosine,
    "cosine_cubed": partial(_cosine, cubed=True),
    "rank_reorder": _rank_reorder,
    "wpmi": partial(_pmi, n_exemplars=28, a=2, lam=0.6),
    "soft_wpmi": partial(_pmi, n_exemplars=100, a=10, lam=1, first=0.998, last=0.97),
}
