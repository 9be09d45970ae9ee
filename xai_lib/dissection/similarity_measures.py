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

from functools import partial

import numpy as np
import torch
from scipy.special import logsumexp, softmax
from scipy.stats import rankdata
from torch.nn.functional import embedding_bag

from .. import statistics


def cosine(fits, values) -> np.ndarray:
    """Compute the cosine of activations and fits, both centred over clips: their correlation.

    Without the centring, a neuron that is always negative would be assigned the concept that fits least, and all that
    are always positive the one that fits most clips, regardless of how they vary.
    """
    return _scores("cosine", fits, values)


def cosine_cubed(fits, values) -> np.ndarray:
    """Compute `cosine` of the cubes of the centred values, so that the clips far from the mean count most."""
    return _scores("cosine_cubed", fits, values)


def rank_reorder(fits, values, *, top=None, p=3, scale=0.5) -> np.ndarray:
    """Compute the negative error with which the fits order a neuron's strongest clips (5 %, but at least ten).

    These clips are assigned, by the rank of their fits, the activations of the clips at these ranks. The mean of
    |activation − assigned|^p is divided by its expectation in a random order, and by the mean fit (0 if negative) to
    the power `scale`. Clips that fit equally well share the errors of their ranks, so that a concept that fits all
    clips equally has the error of chance, 1; the published code orders such clips as its sorting happens to leave them.
    """
    return _scores("rank_reorder", fits, values, top=top, p=p, scale=scale)


def wpmi(fits, values, *, top=None, a=2, lam=0.6) -> np.ndarray:
    """Compute weighted pointwise mutual information: `soft_wpmi` with the 28 strongest clips as certain exemplars."""
    return _scores("wpmi", fits, values, top=top, a=a, lam=lam)


def soft_wpmi(fits, values, *, top=None, a=10, lam=1, first=0.998, last=0.97) -> np.ndarray:
    """Compute soft weighted pointwise mutual information, log p(exemplars | concept) − lam log p(exemplars).

    The former is the sum over the 100 strongest clips, rank k, of log(1 + p_k (s − 1)), where s is the softmax over
    concepts of `a` times the fits and p_k, how surely the clip is an exemplar, falls from `first` to `last`; the latter
    is its mean over neurons, as a probability. Raises ValueError where the strongest clips of all neurons are the same,
    as with a single neuron: it would only be compared with itself, and all scores would be 0.
    """
    return _scores("soft_wpmi", fits, values, top=top, a=a, lam=lam, first=first, last=last)


def scorer(similarity, values, **options):
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


def blocks(values, size=2**24):
    """Yield the neurons of `values` [clip, …], in order, as arrays [clip, neuron] of about `size` values at most."""
    values = getattr(values, "variable", values)  # the variable of a DataArray in a file reads only the indexed part
    *outer, width = values.shape[1:]
    step = max(size // len(values), 1)
    for index in np.ndindex(*outer):
        for start in range(0, width, step):
            block = np.asarray(values[(slice(None), *index, slice(start, start + step))])
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


def standardize(x, cubed=False):
    """Centre the columns, cube them if `cubed`, and scale them to norm 1; 0 where they vary by rounding at most."""
    size, x = np.linalg.norm(x, axis=0), x - x.mean(axis=0)
    x[:, np.linalg.norm(x, axis=0) <= 8 * np.finfo(x.dtype).eps * size] = 0
    x = statistics.standardize(x, min_norm=0)
    if cubed:
        x = x * x * x
        norm = np.linalg.norm(x, axis=0)
        x /= np.where(norm > 0, norm, 1)
    return x


def _strongest(values, top):
    """Return each neuron's strongest clips and their activations, strongest first, [neuron, top] both.

    Clips of equal activation, such as a ReLU's 0, are in random order: in the order of the corpus, clips of the first
    label would be preferred.
    """
    # The permutation is of positions of the clips, always with seed 0.
    permutation, order, strong = np.random.default_rng(0).permutation(len(values)), [], []
    for block in blocks(values):
        largest = torch.topk(torch.from_numpy(np.take(block.T, permutation, axis=1)), min(top, len(permutation)))
        order.append(permutation[largest.indices.numpy()].astype(np.int32))
        strong.append(largest.values.numpy())
    return np.concatenate(order), np.concatenate(strong)


def _pmi(values, top=None, *, n_exemplars, a, lam, first=1.0, last=1.0):
    order, _ = _strongest(values, top or min(n_exemplars, max(len(values) // 8, 1)))
    if (order == order[0]).all():
        raise ValueError(
            "wpmi and soft_wpmi compare how well a concept fits a neuron with how well it fits the others: give "
            "several neurons whose strongest clips differ, or use cosine"
        )
    n, top = len(values), order.shape[1]
    member = first - (first - last) * np.arange(top)[:, None, None] / top
    bags = torch.from_numpy(order + n * np.arange(top, dtype=np.int32))  # rows of the table by rank and clip

    def score(fits):
        share = softmax(a * np.asarray(fits, float), axis=1)
        table = np.log(np.maximum(1 + member * (share - 1), 1e-7)).reshape(top * n, -1)
        return embedding_bag(bags, torch.from_numpy(table), mode="sum").numpy()

    def baseline(raw):
        return lam * (logsumexp(raw, axis=0) - np.log(len(raw)))

    return score, baseline


def _rank_reorder(values, top=None, *, p=3, scale=0.5):
    order, strong = _strongest(values, top or max(round(len(values) / 20), min(len(values), 10)))
    top, strong = order.shape[1], strong.astype(float) - strong[:, -1:]
    strong /= np.where(strong[:, :1] > 0, strong[:, :1], 1)

    def score(fits):
        fits = np.asarray(fits, float)
        ranks = top * rankdata(fits, "dense", axis=0).T.astype(np.int32)
        step = max(2**20 // (top * max(len(ranks), top)), 1)  # neurons at a time, so that the arrays fit the cache
        parts = [_errors(ranks[:, order[i : i + step]], strong[i : i + step], p) for i in range(0, len(order), step)]
        mean = embedding_bag(torch.from_numpy(order), torch.from_numpy(np.maximum(fits, 0)), mode="mean").numpy()
        return -np.concatenate(parts) / np.maximum(mean, 1e-6) ** scale

    return score, _no_baseline


def _errors(ranks, strong, p):
    """Return mean |activation − assigned|^p over that in a random order, [neuron, concept]; 1 if all are equal.

    `ranks` [concept, neuron, top] are the ranks of the fits, in steps of `top`; `strong` [neuron, top] decreases.
    """
    _, n, top = ranks.shape
    error = np.abs(strong[:, :, None] - strong[:, None, ::-1])
    error = error**p if p != 3 else error * error * error  # a power is slow
    sums = np.concatenate([np.zeros((n, top, 1)), error.cumsum(axis=2)], axis=2)  # of clip r, assigned the j weakest
    fit, clip = np.divmod(np.sort(ranks + np.arange(top, dtype=np.int32)), top)
    position, new = np.arange(top, dtype=np.int32), np.ones(ranks.shape, bool)
    new[..., 1:] = fit[..., 1:] != fit[..., :-1]
    start = np.maximum.accumulate(np.where(new, position, 0), axis=-1)
    last = np.concatenate([new[..., 1:], np.ones_like(new[..., :1])], axis=-1)
    stop = np.minimum.accumulate(np.where(last, position + 1, top)[..., ::-1], axis=-1)[..., ::-1]
    row = (np.arange(n)[:, None] * top + clip) * (top + 1)
    assigned = (sums.take(row + stop) - sums.take(row + start)) / (stop - start)
    chance = error.mean(axis=(1, 2))
    return np.where(chance > 0, assigned.mean(axis=-1) / np.where(chance > 0, chance, 1), 1).T


FUNCTIONS = {
    "cosine": _cosine,
    "cosine_cubed": partial(_cosine, cubed=True),
    "rank_reorder": _rank_reorder,
    "wpmi": partial(_pmi, n_exemplars=28, a=2, lam=0.6),
    "soft_wpmi": partial(_pmi, n_exemplars=100, a=10, lam=1, first=0.998, last=0.97),
}
