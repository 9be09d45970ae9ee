"""How well each concept fits each neuron: the similarity functions of CLIP-Dissect and Audio Network Dissection.

Each is a function of `fits` [clip, concept], how well each clip fits each concept, and `values` [clip, neuron], an array
or a DataArray [clip, …] that may lie in a file, of which it reads a block of neurons at a time: [neuron, concept]. All
clips and all neurons count at once, since the two of mutual information weigh a concept against how well it fits the
other neurons. Where fewer clips are at hand than the published numbers ask for, the strongest eighth is read.

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
    """Cosine of activations and fits, both centred over clips: their correlation.

    Without the centring, a neuron that is always negative would be given the concept that fits least, and all that are
    always positive the one that fits most clips, whatever they do.
    """
    return _scores("cosine", fits, values)


def cosine_cubed(fits, values) -> np.ndarray:
    """As `cosine`, of the cubes of what was centred, so that the clips far from the mean count most."""
    return _scores("cosine_cubed", fits, values)


def rank_reorder(fits, values, *, top=None, p=3, scale=0.5) -> np.ndarray:
    """How badly the fits put a neuron's strongest clips (5 %, but ten at least) in order, negative.

    These clips are given, by the rank of their fits, the activations of the clips at these ranks. The mean of
    |own − given|^p is divided by what it would be in a random order, and by the mean fit (below 0: 0) to the power
    `scale`. Clips that fit equally well share the errors of their ranks, so a concept that fits all alike has that of
    chance, 1; the source's order of them is an accident of sorting.
    """
    return _scores("rank_reorder", fits, values, top=top, p=p, scale=scale)


def wpmi(fits, values, *, top=None, a=2, lam=0.6) -> np.ndarray:
    """Weighted pointwise mutual information: `soft_wpmi` in which the 28 strongest clips are exemplars for certain."""
    return _scores("wpmi", fits, values, top=top, a=a, lam=lam)


def soft_wpmi(fits, values, *, top=None, a=10, lam=1, first=0.998, last=0.97) -> np.ndarray:
    """Soft weighted pointwise mutual information, log p(exemplars | concept) − lam log p(exemplars).

    The former is the sum over the 100 strongest clips, rank k, of log(1 + p_k (s − 1)), where s is the softmax over
    concepts of `a` times the fits and p_k, how surely the clip is an exemplar, falls from `first` to `last`; the latter
    is its mean over neurons, as a probability. ValueError where the strongest clips of all neurons are the same, as of
    one neuron alone: all that it is weighed against is itself, and all scores would be 0.
    """
    return _scores("soft_wpmi", fits, values, top=top, a=a, lam=lam, first=first, last=last)


def reader(similarity, values, **options):
    """Read the activations once, to score many fits.

    Returns
    -------
    raw : function
        From `fits` [clip, concept] to [neuron, concept].
    usual : function
        From these to what is to be taken off; the score is raw − usual(raw). 0 but for mutual information, where it is
        what neurons have in common, [concept].
    """
    if similarity not in FUNCTIONS:
        raise ValueError(f"unknown similarity {similarity!r}: known are {', '.join(FUNCTIONS)}")
    return FUNCTIONS[similarity](values, **options)


def blocks(values, size=2**24):
    """Yield the neurons of `values` [clip, …], in order, as arrays [clip, some] of about `size` values at most."""
    values = getattr(values, "variable", values)  # of a DataArray: that of one in a file reads what is asked for only
    *outer, width = values.shape[1:]
    step = max(size // len(values), 1)
    for at in np.ndindex(*outer):
        for start in range(0, width, step):
            block = np.asarray(values[(slice(None), *at, slice(start, start + step))])
            if not np.isfinite(block).all():
                raise ValueError("some activations are NaN or infinite: leave out those clips or neurons")
            yield block.astype(np.result_type(block.dtype, np.float32), copy=False)


def _scores(similarity, fits, values, **options):
    raw, usual = reader(similarity, values, **options)
    found = raw(fits)
    return found - usual(found)


def _nothing(found):
    return 0


def _cosine(values, cubed=False):
    kept = [unit(block, cubed) for block in blocks(values)]

    def raw(fits):
        own = unit(np.asarray(fits, float), cubed)
        return np.concatenate([part.T @ own.astype(part.dtype) for part in kept])

    return raw, _nothing


def unit(x, cubed=False):
    """Columns centred, perhaps cubed, of norm 1; 0 where they do not vary but for rounding."""
    size, x = np.linalg.norm(x, axis=0), x - x.mean(axis=0)
    x[:, np.linalg.norm(x, axis=0) <= 8 * np.finfo(x.dtype).eps * size] = 0
    x = statistics.unit(x, least=0)
    if cubed:
        x = x * x * x
        norm = np.linalg.norm(x, axis=0)
        x /= np.where(norm > 0, norm, 1)
    return x


def _strongest(values, top):
    """Each neuron's strongest clips and their activations, strongest first, [neuron, top] both.

    Clips of equal activation, such as a ReLU's 0, fall as drawn: in the corpus' order, the first label's would win.
    """
    # By the place of the clips, always of seed 0.
    drawn, order, strong = np.random.default_rng(0).permutation(len(values)), [], []
    for block in blocks(values):
        found = torch.topk(torch.from_numpy(np.take(block.T, drawn, axis=1)), min(top, len(drawn)))
        order.append(drawn[found.indices.numpy()].astype(np.int32))
        strong.append(found.values.numpy())
    return np.concatenate(order), np.concatenate(strong)


def _pmi(values, top=None, *, most, a, lam, first=1.0, last=1.0):
    order, _ = _strongest(values, top or min(most, max(len(values) // 8, 1)))
    if (order == order[0]).all():
        raise ValueError(
            "wpmi and soft_wpmi weigh how well a concept fits a neuron against how well it fits the others: give several "
            "neurons whose strongest clips differ, or use cosine"
        )
    n, top = len(values), order.shape[1]
    member = first - (first - last) * np.arange(top)[:, None, None] / top
    bags = torch.from_numpy(order + n * np.arange(top, dtype=np.int32))  # a row of the table by rank and clip

    def raw(fits):
        share = softmax(a * np.asarray(fits, float), axis=1)
        table = np.log(np.maximum(1 + member * (share - 1), 1e-7)).reshape(top * n, -1)
        return embedding_bag(bags, torch.from_numpy(table), mode="sum").numpy()

    def usual(found):
        return lam * (logsumexp(found, axis=0) - np.log(len(found)))

    return raw, usual


def _rank_reorder(values, top=None, *, p=3, scale=0.5):
    order, strong = _strongest(values, top or max(round(len(values) / 20), min(len(values), 10)))
    top, strong = order.shape[1], strong.astype(float) - strong[:, -1:]
    strong /= np.where(strong[:, :1] > 0, strong[:, :1], 1)

    def raw(fits):
        fits = np.asarray(fits, float)
        ranks = top * rankdata(fits, "dense", axis=0).T.astype(np.int32)
        some = max(2**20 // (top * max(len(ranks), top)), 1)  # what is worked on at once fits the cache
        parts = [_errors(ranks[:, order[i : i + some]], strong[i : i + some], p) for i in range(0, len(order), some)]
        mean = embedding_bag(torch.from_numpy(order), torch.from_numpy(np.maximum(fits, 0)), mode="mean").numpy()
        return -np.concatenate(parts) / np.maximum(mean, 1e-6) ** scale

    return raw, _nothing


def _errors(ranks, strong, p):
    """Mean |own − given|^p over that in a random order, [neuron, concept]; 1 where all activations are equal.

    `ranks` [concept, neuron, top] are those of the fits, in steps of `top`; `strong` [neuron, top] falls.
    """
    _, n, top = ranks.shape
    error = np.abs(strong[:, :, None] - strong[:, None, ::-1])
    error = error**p if p != 3 else error * error * error  # a power is slow
    sums = np.concatenate([np.zeros((n, top, 1)), error.cumsum(axis=2)], axis=2)  # of clip r, given the j weakest
    fit, clip = np.divmod(np.sort(ranks + np.arange(top, dtype=np.int32)), top)
    place, new = np.arange(top, dtype=np.int32), np.ones(ranks.shape, bool)
    new[..., 1:] = fit[..., 1:] != fit[..., :-1]
    start = np.maximum.accumulate(np.where(new, place, 0), axis=-1)
    last = np.concatenate([new[..., 1:], np.ones_like(new[..., :1])], axis=-1)
    stop = np.minimum.accumulate(np.where(last, place + 1, top)[..., ::-1], axis=-1)[..., ::-1]
    row = (np.arange(n)[:, None] * top + clip) * (top + 1)
    given = (sums.take(row + stop) - sums.take(row + start)) / (stop - start)
    chance = error.mean(axis=(1, 2))
    return np.where(chance > 0, given.mean(axis=-1) / np.where(chance > 0, chance, 1), 1).T


FUNCTIONS = {
    "cosine": _cosine,
    "cosine_cubed": partial(_cosine, cubed=True),
    "rank_reorder": _rank_reorder,
    "wpmi": partial(_pmi, most=28, a=2, lam=0.6),
    "soft_wpmi": partial(_pmi, most=100, a=10, lam=1, first=0.998, last=0.97),
}
