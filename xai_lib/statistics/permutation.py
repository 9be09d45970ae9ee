"""Permutation tests: sign flips of speakers, shuffling within speakers."""

import math
import warnings

import numpy as np
from scipy import stats

from .hypothesis_tests import MIN_SPEAKERS, t_test_above


def sign_flip_test(values, *, axis=0, permutations=9999, seed=0):
    """Return the two-sided p of a sign-flip test that the mean over the units along `axis` is 0, for each other entry.

    NaN units are ignored; p is NaN with fewer than 8 units. The test is exact over all sign patterns up to 14 units, so
    that p is 2 / 2^n or more; with more units it uses `permutations` seeded draws, the same for all entries, and
    p = 2 (b + 1) / (m + 1), which is never 0.

    References
    ----------
    scipy.stats.permutation_test, permutation type "samples", which it equals, draws included; but sums that differ by
    rounding alone count as ties here.
    """
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    n, *shape = values.shape
    values = values.reshape(n, math.prod(shape))
    finite = np.isfinite(values)
    values = np.where(finite, values, 0)
    values = values / np.maximum(np.abs(values).max(axis=0, initial=0), 1e-300)
    values = np.take_along_axis(values, np.argsort(~finite, axis=0, kind="stable"), axis=0)  # NaN units last
    p, counts = np.full(values.shape[1], np.nan), finite.sum(axis=0)
    for n in np.unique(counts[counts >= MIN_SPEAKERS]):
        exact = n <= 14 or 2**n <= permutations
        if exact:
            flips = np.arange(2**n)[:, None] >> np.arange(n) & 1
        else:
            pairs = np.tile([0, 1], (permutations, n, 1))
            flips = np.random.default_rng(seed).permuted(pairs, axis=-1)[..., 0]
        signs, same_count = 1.0 - 2 * flips, np.flatnonzero(counts == n)
        n_blocks = -(-len(same_count) * len(signs) // 2**22)  # 32 MiB of sums at a time
        for entries in np.array_split(same_count, n_blocks):
            sums, observed = signs @ values[:n, entries], values[:n, entries].sum(axis=0)
            beyond = np.minimum((sums <= observed + 1e-12).sum(axis=0), (sums >= observed - 1e-12).sum(axis=0))  # ties
            p[entries] = np.minimum(2 * (beyond + (not exact)) / (len(signs) + (not exact)), 1)
    return p.reshape(shape)[()]


def selection_test(values, selected, *, draws=400, seed=0) -> np.ndarray:
    """Return the one-sided p that the mean over units of one quantity, selected for its size among several, is above 0.

    A t test on the same units that served for the selection finds effects in noise. So the signs of whole units are
    flipped, all quantities of a unit alike, and each draw takes the greatest sum over quantities: p is the share of
    draws, the observed one among them, that are as great. Where no draw is, p continues below 1 / (1 + draws) as the p
    of `t_test_above` times the number of quantities (Bonferroni's bound, which holds by itself and has less power).

    Parameters
    ----------
    values : array [unit, entry, quantity]
        Symmetric about 0 under the null hypothesis. NaN are ignored.
    selected : array of int [entry]
        Index of the quantity selected for each entry, by these values or others of the same clips.
    draws : int
        Number of sign patterns; all 2^units of them where there are no more than that.

    Returns
    -------
    array [entry]
        NaN where fewer than 8 units have a value of the selected quantity.
    """
    values, selected = np.asarray(values), np.asarray(selected)
    selected_values = np.take_along_axis(values, selected[None, :, None], axis=2)[..., 0]
    values = np.where(np.isfinite(values), values, 0)
    signs = _sign_patterns(len(values), draws, seed).astype(values.dtype)

    observed = np.nansum(selected_values, axis=0)
    margin = 1e-5 * np.maximum(np.abs(observed), 1)  # ties that rounding broke
    as_great = np.zeros(len(observed))
    block = max(2**22 // max(values[0].size, 1), 1)  # draws at a time, 16 or 32 MiB of sums
    for start in range(0, len(signs), block):
        sums = np.tensordot(signs[start : start + block], values, axes=1)
        as_great += (sums.max(axis=-1) >= observed - margin).sum(axis=0)

    smallest = 1 / (1 + len(signs))
    bound = t_test_above(selected_values) * values.shape[2]
    p = np.where(as_great == 0, np.minimum(bound, smallest), smallest * (1 + as_great))
    return np.where(np.isfinite(selected_values).sum(axis=0) >= MIN_SPEAKERS, p, np.nan)


def _sign_patterns(n, draws, seed):
    """Return patterns of −1 and 1 [draw, n] without the one of no flips: all of them, or `draws` random ones."""
    if 2**n <= draws:
        negative = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        negative = np.random.default_rng(seed).integers(0, 2, (draws, n))
    return 1 - 2 * negative[negative.any(axis=1)]


def restricted_permutations(groups, draws, seed, *, whole_speakers=False):
    """Yield row orders that shuffle rows within speakers (restricted permutation), so that speaker effects are kept.

    `groups` holds the row indices of each speaker. By default the rows of each speaker are shuffled. With
    `whole_speakers`, for values that do not vary within a speaker (then usually a recording that clips were cut from),
    speakers are exchanged as wholes with those that have as many clips: exchanged with others, their clips would be
    split up, and split-up recordings are less alike than the observed ones. The rows of a speaker that can be exchanged
    with no other stay in place, which makes p too large; a warning says so where these are half of all rows or more.
    """
    size = np.array([len(rows) for rows in groups])
    equal_sizes = [np.stack([groups[i] for i in np.flatnonzero(size == n)]) for n in np.unique(size)]
    strata = equal_sizes if whole_speakers else [rows[None] for rows in groups]
    fixed = sum(rows.size for rows in equal_sizes if len(rows) == 1)
    if whole_speakers and len(groups) > 1 and 2 * fixed >= size.sum():
        warnings.warn(
            f"{fixed} of {size.sum()} clips are of recordings whose number of clips no other recording has: they are "
            "not shuffled, and p is too large; use the same number of clips of each recording",
            stacklevel=3,
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order = np.arange(size.sum())
        for rows in strata:
            order[rows] = rng.permuted(rows[rng.permutation(len(rows))], axis=1)
        yield order


def permutation_p(observed, draws_without_effect) -> np.ndarray:
    """Return the one-sided p of a permutation test in which greater is better; NaN where `observed` is NaN.

    `draws_without_effect` yields arrays [draw, …], any number of them. Where no draw is as great as `observed`, p
    continues as the tail of a Student distribution with the mean and standard deviation of the draws: 400 draws cannot
    go below 0.0025, which is not significant after correction over thousands of neurons, however true a few effects
    are.
    """
    observed = np.asarray(observed, float)
    as_great, total, square, draws = np.zeros((4, *observed.shape))
    for batch in draws_without_effect:
        draws, as_great = draws + len(batch), as_great + (batch >= observed - 1e-9).sum(0)
        total, square = total + batch.sum(0), square + (batch**2).sum(0)
    mean, freedom = total / np.maximum(draws, 1), np.maximum(draws - 1, 1)
    sd = np.sqrt(np.maximum(square - draws * mean**2, 0) / freedom * (1 + 1 / np.maximum(draws, 1)))
    tail = stats.t.sf((observed - mean) / np.where(sd > 0, sd, np.nan), freedom)
    p = np.where(as_great == 0, np.fmin(tail, 1 / (1 + draws)), (1 + as_great) / (1 + draws))
    return np.where(np.isnan(observed), np.nan, p)
