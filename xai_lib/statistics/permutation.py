"""Permutation tests: sign flips of speakers, shuffling within speakers."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .hypothesis_tests import MIN_SPEAKERS, t_test_above


def sign_flip_test(values: ArrayLike, *, axis: int = 0, permutations: int = 9999, seed: int = 0) -> np.ndarray | float:
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
    entry_shape = values.shape[1:]
    values = values.reshape(len(values), math.prod(entry_shape))

    finite = np.isfinite(values)
    counts = finite.sum(axis=0)
    scaled = np.where(finite, values, 0)
    scaled = scaled / np.maximum(np.abs(scaled).max(axis=0, initial=0), 1e-300)
    # NaN units last, so that the first n rows of an entry with n finite units are those.
    finite_first = np.argsort(~finite, axis=0, kind="stable")
    scaled = np.take_along_axis(scaled, finite_first, axis=0)

    p = np.full(len(counts), np.nan)
    for n in np.unique(counts[counts >= MIN_SPEAKERS]).tolist():  # numpy would overflow at 2**63
        exact = n <= 14 or 2**n <= permutations
        signs = _all_signs(n) if exact else _random_signs(n, permutations, seed)
        same_count = np.flatnonzero(counts == n)
        n_blocks = -(-len(same_count) * len(signs) // 2**22)  # 32 MiB of sums at a time
        for entries in np.array_split(same_count, n_blocks):
            p[entries] = _sign_flip_p(scaled[:n, entries], signs, exact)
    return p.reshape(entry_shape)[()]


def _all_signs(n):
    """Return all patterns of 1 and −1 [2^n, n], the one of no flips first."""
    negative = np.arange(2**n)[:, None] >> np.arange(n) & 1
    return 1.0 - 2 * negative


def _random_signs(n, draws, seed):
    """Draw patterns of 1 and −1 [draw, n], by the same draws as scipy.stats.permutation_test."""
    pairs = np.tile([0, 1], (draws, n, 1))
    negative = np.random.default_rng(seed).permuted(pairs, axis=-1)[..., 0]
    return 1.0 - 2 * negative


def _sign_flip_p(values, signs, exact):
    """Return the two-sided p [entry] of values [unit, entry] among their sums under `signs` [draw, unit].

    Drawn signs do not contain the observed ones for sure: these count as one more draw unless `exact`.
    """
    observed = values.sum(axis=0)
    sums = signs @ values
    less = (sums <= observed + 1e-12).sum(axis=0)  # or equal, up to rounding
    greater = (sums >= observed - 1e-12).sum(axis=0)
    beyond = np.minimum(less, greater)
    if exact:
        return np.minimum(2 * beyond / len(signs), 1)
    return np.minimum(2 * (beyond + 1) / (len(signs) + 1), 1)


def selection_test(values: ArrayLike, selected: ArrayLike, *, draws: int = 400, seed: int = 0) -> np.ndarray:
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
    values = np.asarray(values)
    selected = np.asarray(selected)
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
        signs = _all_signs(n)
    else:
        signs = 1 - 2 * np.random.default_rng(seed).integers(0, 2, (draws, n))
    flipped = (signs < 0).any(axis=1)
    return signs[flipped]


def restricted_permutations(
    groups: Sequence[np.ndarray], draws: int, seed: int | Sequence[int], *, whole_speakers: bool = False
) -> Iterator[np.ndarray]:
    """Yield row orders that shuffle rows within speakers (restricted permutation), so that speaker effects are kept.

    `groups` holds the row indices of each speaker. By default the rows of each speaker are shuffled. With
    `whole_speakers`, for values that do not vary within a speaker (then usually a recording that clips were cut from),
    speakers are exchanged as wholes with those that have as many clips: exchanged with others, their clips would be
    split up, and split-up recordings are less alike than the observed ones. The rows of a speaker that can be exchanged
    with no other stay in place, which makes p too large; a warning says so where these are half of all rows or more.
    """
    n_rows = sum(len(rows) for rows in groups)
    if whole_speakers:
        strata = _equally_large(groups)
        fixed = sum(rows.size for rows in strata if len(rows) == 1)
        if len(groups) > 1 and 2 * fixed >= n_rows:
            warnings.warn(
                f"{fixed} of {n_rows} clips are of recordings whose number of clips no other recording has: they are "
                "not shuffled, and p is too large; use the same number of clips of each recording",
                stacklevel=3,
            )
    else:
        strata = [rows[None] for rows in groups]

    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order = np.arange(n_rows)
        for rows in strata:
            exchanged = rows[rng.permutation(len(rows))]
            order[rows] = rng.permuted(exchanged, axis=1)
        yield order


def _equally_large(groups):
    """Return the rows of groups of one size as an array [group, row], for each size."""
    sizes = np.array([len(rows) for rows in groups])
    strata = []
    for size in np.unique(sizes):
        members = [groups[index] for index in np.flatnonzero(sizes == size)]
        strata.append(np.stack(members))
    return strata


def permutation_p(observed: ArrayLike, draws_without_effect: Iterable[np.ndarray]) -> np.ndarray:
    """Return the one-sided p of a permutation test in which greater is better; NaN where `observed` is NaN.

    `draws_without_effect` yields arrays [draw, …], any number of them. Where no draw is as great as `observed`, p
    continues as the tail of a Student distribution with the mean and standard deviation of the draws: 400 draws cannot
    go below 0.0025, which is not significant after correction over thousands of neurons, however true a few effects
    are.
    """
    observed = np.asarray(observed, float)
    n_draws = 0
    as_great = np.zeros(observed.shape)
    total = np.zeros(observed.shape)
    squares = np.zeros(observed.shape)
    for batch in draws_without_effect:
        n_draws += len(batch)
        as_great += (batch >= observed - 1e-9).sum(axis=0)
        total += batch.sum(axis=0)
        squares += (batch**2).sum(axis=0)

    mean = total / max(n_draws, 1)
    freedom = max(n_draws - 1, 1)
    variance = np.maximum(squares - n_draws * mean**2, 0) / freedom
    sd = np.sqrt(variance * (1 + 1 / max(n_draws, 1)))  # of one more draw about the mean of the draws
    tail = stats.t.sf((observed - mean) / np.where(sd > 0, sd, np.nan), freedom)

    smallest = 1 / (1 + n_draws)
    p = np.where(as_great == 0, np.fmin(tail, smallest), (1 + as_great) / (1 + n_draws))
    return np.where(np.isnan(observed), np.nan, p)
