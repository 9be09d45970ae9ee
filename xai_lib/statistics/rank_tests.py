"""Rank of selected neurons among random sets: p, and q by the greatest effect of each set over layers."""

import numpy as np
import xarray as xr
from scipy import stats


def rank_test(effect, random_effects, *, draws=None):
    """Test whether `effect` is exchangeable with `random_effects`: return two-sided p of each entry, and q of the
    family.

    No normality is assumed: where `effect` and the draws are exchangeable, each rank is equally likely. Compared are
    the deviations from the mean of all of them, in their standard deviations; for the family, that of the most extreme
    entry of each draw, so that the probability that any entry without an effect has p < 0.05 is at most 5 %.

    Parameters
    ----------
    effect : array [...]
    random_effects : array [..., draw]
        Each draw has all entries: its own random set in each layer, say.
    draws : int, optional
        Effective number of draws, where they are not independent: n for all differences of n random sets, say. Default:
        the number of draws.

    Returns
    -------
    p, family_p : array [...]
        (1 + draws as extreme) / (1 + draws), never less than 1 / (1 + draws). NaN where `effect` or a draw is.

    References
    ----------
    Westfall and Young (1993), Resampling-based multiple testing: the single-step greatest statistic.
    """
    effect, random_effects = np.asarray(effect, float), np.asarray(random_effects, float)
    n_drawn = random_effects.shape[-1]
    draws = n_drawn if draws is None else draws
    if not draws or not effect.size:
        return np.full(effect.shape, np.nan), np.full(effect.shape, np.nan)
    values = np.concatenate([effect[..., None], random_effects], axis=-1)
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


def rank_band(random_effects):
    """Return the ends, along the last axis, of the band in which `rank_test` is not significant (p ≥ 0.05), nearly.

    The band is symmetric about the mean of the draws; NaN with fewer than 20 draws, which are too few for p < 0.05.
    """
    random_effects = np.asarray(random_effects, float)
    n_drawn = random_effects.shape[-1]
    beyond = int(np.ceil(round(0.05 * (1 + n_drawn), 9))) - 2  # draws that may lie farther away
    if beyond < 0:
        return np.full(random_effects.shape[:-1], np.nan), np.full(random_effects.shape[:-1], np.nan)
    mean = random_effects.mean(axis=-1)
    deviations = np.sort(np.abs(random_effects - mean[..., None]), axis=-1)
    half = deviations[..., n_drawn - 1 - beyond]
    return mean - half, mean + half


def prediction_sd(null_distribution, *, axis=0):
    """Return the SD of one more draw of a normal null distribution about the mean of the draws."""
    n = np.shape(null_distribution)[axis]
    sd = (
        np.std(null_distribution, axis=axis, ddof=1)
        if n > 1
        else np.full(np.shape(np.take(null_distribution, 0, axis) if n else null_distribution), np.nan)
    )
    return sd * np.sqrt(1 + 1 / max(n, 1))


def prediction_test(value, null_distribution, *, axis=0):
    """Return the two-sided p that one more draw of a normal null distribution lies as far from its mean as `value`.

    For values that are means of many, such as a share of a layer's neurons, and so are nearly normal; effects of a few
    neurons are not: use `rank_test`. t = (value − mean) / SD, with n − 1 degrees of freedom and the SD of
    `prediction_sd`. The draws lie along `axis`; p is NaN where there are fewer than 3, or NaN among them.
    """
    null_distribution = np.moveaxis(np.asarray(null_distribution, float), axis, 0)
    n = len(null_distribution)
    if n < 3:
        return np.full(np.shape(value), np.nan)[()]
    deviation, sd = np.abs(value - null_distribution.mean(axis=0)), prediction_sd(null_distribution)
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that do not vary
        t = np.where(deviation == 0, 0, deviation / sd)
    return 2 * stats.t.sf(t, n - 1)


def between_random_sets(values, *, shared=0.0) -> xr.DataArray:
    """Return all differences of two random sets, along the dim `random`: the null distribution of such a difference.

    They are divided by √(1 − shared), `shared` being the share of neurons that two random sets have in common: so they
    vary as differences of sets without common neurons.
    """
    first, second = np.triu_indices(values.sizes["random"], 1)
    values = values.drop_vars("random", errors="ignore")
    differences = (values.isel(random=first) - values.isel(random=second)) / np.sqrt(1 - shared)
    return xr.concat([differences, -differences], "random")
