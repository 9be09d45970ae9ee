"""Hypothesis tests with the speaker as the unit, by scipy.stats where it has them.

Clips of one speaker are not independent, so they are averaged within the speaker first. With fewer than eight speakers
intervals and p are NaN: show one point per speaker instead.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from .effect_sizes import _moments

MIN_SPEAKERS = 8  # minimum number of speakers for an interval or a test


def t_test(values: ArrayLike, *, axis: int = 0) -> np.ndarray | float:
    """Return the two-sided p of Student's t test that the mean of the units along `axis` is 0; NaN are ignored.

    p is NaN with fewer than 8 units. Meant for many tests at once: a sign-flip test of 8 units cannot go below 2 / 2^8,
    which no correction over seven or more tests leaves under 0.05, however large a single effect is.
    """
    mean, squares, n = _moments(np.asarray(values, float), axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        standard_error = np.sqrt(squares / (n - 1) / n)
        t = np.where(mean == 0, 0, mean / standard_error)

    p = 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1))
    return np.where(n >= MIN_SPEAKERS, p, np.nan)[()]


def t_test_above(values: ArrayLike, *, axis: int = 0) -> np.ndarray | float:
    """Return the one-sided p of Student's t test for a mean of the units along `axis` above 0; NaN are ignored.

    p is NaN with fewer than 8 units.
    """
    two_sided = t_test(values, axis=axis)
    mean, _, _ = _moments(np.asarray(values, float), axis)
    return np.where(mean > 0, two_sided / 2, 1 - two_sided / 2)[()]


def repeated_measures_test(values: ArrayLike) -> np.ndarray:
    """Return p of a test whether conditions differ on average over units that have a value in every condition.

    F is the variance of the conditions' means over that of the units' own differences between conditions, so effects
    that are particular to a unit (speaker) count as error. Its degrees of freedom are multiplied by epsilon, for
    conditions of unequal variance. Epsilon is Huynh and Feldt's: that of Greenhouse and Geisser, from which it is
    computed, costs a third of the power with eight units and eight conditions. With one condition of 25 times the
    variance of the others the level is then 0.07 instead of 0.05.

    Parameters
    ----------
    values : array [unit, condition, …]
        Units that lack a condition (NaN) are ignored.

    Returns
    -------
    array […]
        NaN with fewer than 8 units.

    References
    ----------
    Huynh and Feldt (1976), Estimation of the Box correction for degrees of freedom, Journal of Educational Statistics
    1; with two conditions it is the paired t test.
    """
    values = np.asarray(values, float)
    complete = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    values = values[complete]
    n, conditions = values.shape[:2]
    if n < MIN_SPEAKERS:
        return np.full(values.shape[2:], np.nan)

    deviations = values - values.mean(axis=1, keepdims=True)
    mean = deviations.mean(axis=0)
    residuals = deviations - mean
    covariance = np.einsum("uc...,ud...->cd...", residuals, residuals) / (n - 1)
    error = np.einsum("cc...->...", covariance)
    between = n * (mean**2).sum(axis=0)

    with np.errstate(divide="ignore", invalid="ignore"):  # units that all agree
        squares = (covariance**2).sum(axis=(0, 1))
        # Degrees of freedom: epsilon times those of independent conditions, by Greenhouse and Geisser, and from it
        # by Huynh and Feldt.
        greenhouse_geisser = np.where(squares > 0, error**2 / squares, conditions - 1)
        huynh_feldt = (n * greenhouse_geisser - 2) / np.maximum(n - 1 - greenhouse_geisser, 1e-9)
        freedom = np.minimum(huynh_feldt, conditions - 1)
        p = stats.f.sf(between / error, freedom, freedom * (n - 1))
    return np.where(between > 0, p, 1.0)


def fdr(p: ArrayLike) -> np.ndarray:
    """Return q: Benjamini–Hochberg adjusted p values (scipy's) over all entries; NaN stay NaN and are not counted."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def standardize(x: np.ndarray, *, axis: int = 0, min_norm: float = 1e-12) -> np.ndarray:
    """Return `x` centred along `axis` and scaled to norm 1, so that sums of products are correlations.

    The result is 0 where the norm is `min_norm` or less.
    """
    centred = x - x.mean(axis=axis, keepdims=True)
    norm = np.linalg.norm(centred, axis=axis, keepdims=True)
    return centred / np.where(norm > min_norm, norm, np.inf)
