"""Tests by permutation: signs of speakers, labels within speakers."""

import math
import warnings

import numpy as np
from scipy import stats

from .hypothesis_tests import FEWEST, t_test_above


def sign_flip_test(values, *, axis=0, permutations=9999, seed=0):
    """Two-sided sign-flip test that the mean over the units along `axis` is 0, for all other entries at once.

    NaN units are left out, as if they were not there; p is NaN under 8 units. Exact over all sign patterns up to 14
    units, so that p is 2 / 2^n or more; else `permutations` seeded draws, the same for all entries, and
    p = 2 (b + 1) / (m + 1): never 0.

    References
    ----------
    scipy.stats.permutation_test, permutation type "samples", which it equals, draws included; but sums that differ by
    rounding alone count as ties here.
    """
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    n, *shape = values.shape
    values = values.reshape(n, math.prod(shape))
    there = np.isfinite(values)
    values = np.where(there, values, 0)
    values = values / np.maximum(np.abs(values).max(axis=0, initial=0), 1e-300)
    values = np.take_along_axis(values, np.argsort(~there, axis=0, kind="stable"), axis=0)  # NaN units last
    p, counts = np.full(values.shape[1], np.nan), there.sum(axis=0)
    for n in np.unique(counts[counts >= FEWEST]):
        every = n <= 14 or 2**n <= permutations
        if every:
            flips = np.arange(2**n)[:, None] >> np.arange(n) & 1
        else:
            pairs = np.tile([0, 1], (permutations, n, 1))
            flips = np.random.default_rng(seed).permuted(pairs, axis=-1)[..., 0]
        signs, same = 1.0 - 2 * flips, np.flatnonzero(counts == n)
        for some in np.array_split(same, -(-len(same) * len(signs) // 2**22)):  # 32 MiB of sums at a time
            sums, observed = signs @ values[:n, some], values[:n, some].sum(axis=0)
            beyond = np.minimum((sums <= observed + 1e-12).sum(axis=0), (sums >= observed - 1e-12).sum(axis=0))  # ties
            p[some] = np.minimum(2 * (beyond + (not every)) / (len(signs) + (not every)), 1)
    return p.reshape(shape)[()]


def chosen_test(values, chosen, *, draws=400, seed=0) -> np.ndarray:
    """One-sided p that the mean over units of one of several quantities, chosen for being great, is above 0.

    A t test of what was chosen on the same units finds something in noise. So the signs of whole units are flipped, all
    quantities of a unit alike, and the greatest sum over quantities is what a draw gives: p is the share of draws, the
    real one among them, that are as good. Where no draw is, p goes on below 1 / (1 + draws) as the p of `t_test_above`
    times the number of quantities (Bonferroni's bound, which holds by itself, and has less power).

    Parameters
    ----------
    values : array [unit, entry, quantity]
        Around 0, and symmetric, where there is nothing to find. NaN are left out.
    chosen : array of int [entry]
        Which quantity was chosen for each entry, by these values or others of the same clips.
    draws : int
        All 2^units patterns of signs where there are no more than that.

    Returns
    -------
    array [entry]
        NaN where the chosen quantity is known of fewer than 8 units.
    """
    values, chosen = np.asarray(values), np.asarray(chosen)
    own = np.take_along_axis(values, chosen[None, :, None], axis=2)[..., 0]
    values = np.where(np.isfinite(values), values, 0)
    signs = _sign_patterns(len(values), draws, seed).astype(values.dtype)

    real = np.nansum(own, axis=0)
    margin = 1e-5 * np.maximum(np.abs(real), 1)  # ties that rounding broke
    as_good = np.zeros(len(real))
    some = max(2**22 // max(values[0].size, 1), 1)  # draws at a time, 16 or 32 MiB of sums
    for start in range(0, len(signs), some):
        sums = np.tensordot(signs[start : start + some], values, axes=1)
        as_good += (sums.max(axis=-1) >= real - margin).sum(axis=0)

    least = 1 / (1 + len(signs))
    bound = t_test_above(own) * values.shape[2]
    p = np.where(as_good == 0, np.minimum(bound, least), least * (1 + as_good))
    return np.where(np.isfinite(own).sum(axis=0) >= FEWEST, p, np.nan)


def _sign_patterns(n, draws, seed):
    """Patterns of −1 and 1 [draw, n], all but that of no change: every one, or `draws` at random."""
    if 2**n <= draws:
        negative = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        negative = np.random.default_rng(seed).integers(0, 2, (draws, n))
    return 1 - 2 * negative[negative.any(axis=1)]


def deals(groups, draws, seed, *, whole=False):
    """Yield row orders that deal things out among clips, so that chance keeps what clips of one speaker share.

    `groups` holds the rows of each speaker. The rows of each are shuffled; `whole`, where clips of a speaker (then a
    recording that they were cut from) have nothing to shuffle, speakers are dealt out as wholes among those with as
    many clips. Dealt among unlike ones they would be torn, and what is torn is less alike than what was found. The rows
    of a speaker with whom no other can change places stay his, which makes p too large; a warning says so where that is
    half of them.
    """
    size = np.array([len(rows) for rows in groups])
    alike = [np.stack([groups[i] for i in np.flatnonzero(size == n)]) for n in np.unique(size)]
    strata = alike if whole else [rows[None] for rows in groups]
    still = sum(rows.size for rows in alike if len(rows) == 1)
    if whole and len(groups) > 1 and 2 * still >= size.sum():
        warnings.warn(
            f"{still} of {size.sum()} clips are of recordings that no other has as many clips of: they are not dealt out, "
            "and p is too large; take as many clips of each recording",
            stacklevel=3,
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order = np.arange(size.sum())
        for rows in strata:
            order[rows] = rng.permuted(rows[rng.permutation(len(rows))], axis=1)
        yield order


def permutation_p(found, drawn) -> np.ndarray:
    """One-sided p of a permutation test, the greater the better; NaN where what was found is.

    `drawn` are arrays [draw, …], as many as there be. Where no draw is as good as what was found, the tail of a Student
    distribution with their mean and spread goes on: 400 draws cannot go below 0.0025, which a false discovery rate over
    thousands of neurons would not let pass however true a few of them are.
    """
    found = np.asarray(found, float)
    as_good, total, square, draws = np.zeros((4, *found.shape))
    for some in drawn:
        draws, as_good = draws + len(some), as_good + (some >= found - 1e-9).sum(0)
        total, square = total + some.sum(0), square + (some**2).sum(0)
    mean, freedom = total / np.maximum(draws, 1), np.maximum(draws - 1, 1)
    spread = np.sqrt(np.maximum(square - draws * mean**2, 0) / freedom * (1 + 1 / np.maximum(draws, 1)))
    tail = stats.t.sf((found - mean) / np.where(spread > 0, spread, np.nan), freedom)
    p = np.where(as_good == 0, np.fmin(tail, 1 / (1 + draws)), (1 + as_good) / (1 + draws))
    return np.where(np.isnan(found), np.nan, p)
