"""Comparison of selected neurons with random sets of neurons."""

import numpy as np
import xarray as xr
from scipy import stats


def rank_test(found, drawn, *, draws=None):
    """Test whether `found` is exchangeable with `drawn`: return two-sided p of each entry, and of the family of all.

    No normality is assumed: where `found` and the draws are exchangeable, each rank is equally likely. Compared are the
    deviations from the mean of all of them, in their standard deviations; for the family, that of the most extreme
    entry of each draw, so that the probability that any entry without an effect has p < 0.05 is at most 5 %.

    Parameters
    ----------
    found : array [...]
    drawn : array [..., draw]
        Each draw has all entries: its own random set in each layer, say.
    draws : int, optional
        Effective number of draws, where they are not independent: n for all differences of n random sets, say. Default:
        the number of draws.

    Returns
    -------
    p, family_p : array [...]
        (1 + draws as extreme) / (1 + draws), never less than 1 / (1 + draws). NaN where `found` or a draw is.

    References
    ----------
    Westfall and Young (1993), Resampling-based multiple testing: the single-step greatest statistic.
    """
    found, drawn = np.asarray(found, float), np.asarray(drawn, float)
    n_drawn = drawn.shape[-1]
    draws = n_drawn if draws is None else draws
    if not draws or not found.size:
        return np.full(found.shape, np.nan), np.full(found.shape, np.nan)
    values = np.concatenate([found[..., None], drawn], axis=-1)
    untested = ~np.isfinite(values).all(axis=-1)
    values = np.where(untested[..., None], 0, values)
    deviations = np.abs(values - values.mean(axis=-1, keepdims=True))
    sd = values.std(axis=-1, keepdims=True)
    varies = sd > 1e-12 * np.abs(values).max(axis=-1, keepdims=True)
    deviations = np.where(varies, deviations / np.where(varies, sd, 1), 0)
    observed, null_distribution = deviations[..., :1] - 1e-9, deviations[..., 1:]
    greatest = null_distribution.reshape(-1, n_drawn).max(axis=0)
    p, family_p = (
        (1 + draws * (reference >= observed).mean(axis=-1)) / (1 + draws) for reference in (null_distribution, greatest)
    )
    return tuple(np.where(untested, np.nan, probability)[()] for probability in (p, family_p))


def rank_band(drawn):
    """Return the ends, along the last axis, of the band in which `rank_test` is not significant (p ≥ 0.05), nearly.

    The band is symmetric about the mean of the draws; NaN with fewer than 20 draws, which are too few for p < 0.05.
    """
    drawn = np.asarray(drawn, float)
    n_drawn = drawn.shape[-1]
    beyond = int(np.ceil(round(0.05 * (1 + n_drawn), 9))) - 2  # draws that may lie farther away
    if beyond < 0:
        return np.full(drawn.shape[:-1], np.nan), np.full(drawn.shape[:-1], np.nan)
    mean = drawn.mean(axis=-1)
    deviations = np.sort(np.abs(drawn - mean[..., None]), axis=-1)
    half = deviations[..., n_drawn - 1 - beyond]
    return mean - half, mean + half


def prediction_sd(random, *, axis=0):
    """Return the SD of one more draw of a normal null distribution about the mean of the draws in `random`."""
    n = np.shape(random)[axis]
    sd = (
        np.std(random, axis=axis, ddof=1)
        if n > 1
        else np.full(np.shape(np.take(random, 0, axis) if n else random), np.nan)
    )
    return sd * np.sqrt(1 + 1 / max(n, 1))


def test_against_null(value, random, *, axis=0):
    """Return the two-sided p that one more draw of a normal null distribution lies as far from its mean as `value`.

    For values that are means of many, such as a share of a layer's neurons, and so are nearly normal; effects of a few
    neurons are not: use `rank_test`. t = (value − mean) / SD, with n − 1 degrees of freedom and the SD of
    `prediction_sd`. `random` has the draws along `axis`; p is NaN where there are fewer than 3 draws, or NaN among them.
    """
    random = np.moveaxis(np.asarray(random, float), axis, 0)
    n = len(random)
    if n < 3:
        return np.full(np.shape(value), np.nan)[()]
    deviation, sd = np.abs(value - random.mean(axis=0)), prediction_sd(random)
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that do not vary
        t = np.where(deviation == 0, 0, deviation / sd)
    return 2 * stats.t.sf(t, n - 1)


def between_random_sets(random, *, shared=0.0) -> xr.DataArray:
    """Return all differences of two random sets, along the dim `random`: the null distribution of such a difference.

    They are divided by √(1 − shared), `shared` being the share of neurons that two random sets have in common: so they
    vary as differences of sets without common neurons.
    """
    first, second = np.triu_indices(random.sizes["random"], 1)
    random = random.drop_vars("random", errors="ignore")
    differences = (random.isel(random=first) - random.isel(random=second)) / np.sqrt(1 - shared)
    return xr.concat([differences, -differences], "random")
