"""Rank of selected neurons among random sets: p, and p of a family by the greatest effect of each set over layers."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats


def rank_test(effect: ArrayLike, random_effects: ArrayLike, *, draws: int | None = None) -> tuple:
    """Test whether `effect` is exchangeable with `random_effects`: return two-sided p, of each entry and of the family.

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
        `family_p` is corrected for all entries (family-wise error rate); results hold it as q.

    References
    ----------
    Westfall and Young (1993), Resampling-based multiple testing: the single-step greatest statistic.
    """
    effect = np.asarray(effect, float)
    random_effects = np.asarray(random_effects, float)
    n_drawn = random_effects.shape[-1]
    if draws is None:
        draws = n_drawn
    if not draws or not effect.size:
        return np.full(effect.shape, np.nan), np.full(effect.shape, np.nan)

    values = np.concatenate([effect[..., None], random_effects], axis=-1)
    untested = ~np.isfinite(values).all(axis=-1)
    values = np.where(untested[..., None], 0, values)
    deviations = _standardized_deviations(values)
    observed = deviations[..., :1] - 1e-9  # ties that rounding broke
    random_deviations = deviations[..., 1:]
    most_extreme = random_deviations.reshape(-1, n_drawn).max(axis=0)  # of each draw

    p = _rank_p(observed, random_deviations, draws)
    family_p = _rank_p(observed, most_extreme, draws)
    return np.where(untested, np.nan, p)[()], np.where(untested, np.nan, family_p)[()]


def _standardized_deviations(values):
    """Return how far each value is from the mean along the last axis, in standard deviations; 0 if none varies."""
    deviations = np.abs(values - values.mean(axis=-1, keepdims=True))
    sd = values.std(axis=-1, keepdims=True)
    varies = sd > 1e-12 * np.abs(values).max(axis=-1, keepdims=True)
    return np.where(varies, deviations / np.where(varies, sd, 1), 0)


def _rank_p(observed, null_distribution, draws):
    """Return the p of each entry of `observed` [..., 1] among `draws` draws, given as [..., draw]."""
    as_extreme = draws * (null_distribution >= observed).mean(axis=-1)
    return (1 + as_extreme) / (1 + draws)


def rank_band(random_effects: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """Return the ends, along the last axis, of the band in which `rank_test` is not significant (p ≥ 0.05), nearly.

    The band is symmetric about the mean of the draws; NaN with fewer than 20 draws, which are too few for p < 0.05.
    """
    random_effects = np.asarray(random_effects, float)
    n_drawn = random_effects.shape[-1]
    beyond = int(np.ceil(round(0.05 * (1 + n_drawn), 9))) - 2  # draws that may lie farther away
    if beyond < 0:
        entry_shape = random_effects.shape[:-1]
        return np.full(entry_shape, np.nan), np.full(entry_shape, np.nan)

    mean = random_effects.mean(axis=-1)
    deviations = np.sort(np.abs(random_effects - mean[..., None]), axis=-1)
    half_width = deviations[..., n_drawn - 1 - beyond]
    return mean - half_width, mean + half_width


def prediction_sd(null_distribution: ArrayLike, *, axis: int = 0) -> np.ndarray | float:
    """Return the SD of one more draw of a normal null distribution about the mean of the draws.

    The draws lie along `axis`; NaN where there are fewer than two.
    """
    n = np.shape(null_distribution)[axis]
    if n < 2:
        entry_shape = np.delete(np.shape(null_distribution), axis)
        return np.full(entry_shape, np.nan)[()]
    return np.std(null_distribution, axis=axis, ddof=1) * np.sqrt(1 + 1 / n)


def prediction_test(value: ArrayLike, null_distribution: ArrayLike, *, axis: int = 0) -> np.ndarray | float:
    """Return the two-sided p that one more draw of a normal null distribution lies as far from its mean as `value`.

    For values that are means of many, such as a share of a layer's neurons, and so are nearly normal; effects of a few
    neurons are not: use `rank_test`. t = (value − mean) / SD, with n − 1 degrees of freedom and the SD of
    `prediction_sd`. The draws lie along `axis`; p is NaN where there are fewer than 3, or NaN among them.
    """
    null_distribution = np.moveaxis(np.asarray(null_distribution, float), axis, 0)
    n = len(null_distribution)
    if n < 3:
        return np.full(np.shape(value), np.nan)[()]

    deviation = np.abs(value - null_distribution.mean(axis=0))
    sd = prediction_sd(null_distribution)
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that do not vary
        t = np.where(deviation == 0, 0, deviation / sd)
    return 2 * stats.t.sf(t, n - 1)


def between_random_sets(values: xr.DataArray, *, shared: float = 0.0) -> xr.DataArray:
    """Return all differences of two random sets, along the dim `random`: the null distribution of such a difference.

    They are divided by √(1 − shared), `shared` being the share of neurons that two random sets have in common: so they
    vary as differences of sets without common neurons.
    """
    first, second = np.triu_indices(values.sizes["random"], 1)
    values = values.drop_vars("random", errors="ignore")
    differences = (values.isel(random=first) - values.isel(random=second)) / np.sqrt(1 - shared)
    return xr.concat([differences, -differences], "random")
