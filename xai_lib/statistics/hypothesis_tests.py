"""Intervals, tests and effect sizes with the speaker as the unit: thin over scipy.stats.

Clips of one speaker are not independent, so they are averaged within the speaker first. Below eight speakers
no interval and no p is given (NaN): show one point per speaker instead.
"""

import numpy as np
from scipy import stats

from .effect_sizes import _moments

FEWEST = 8  # speakers, for an interval or a test


def t_test(values, *, axis=0):
    """Two-sided p of Student's t test that the mean of the units along `axis` is 0; NaN are left out.

    NaN with fewer than 8. For many tests at once: a sign-flip test of 8 units cannot go below 2 / 2^8, which no
    correction over seven or more tests leaves under 0.05, however large a single effect is.
    """
    values = np.asarray(values, float)
    mean, square, n = _moments(values, axis)
    with np.errstate(divide="ignore", invalid="ignore"):
        t = np.where(mean == 0, 0, mean / np.sqrt(square / (n - 1) / n))
    return np.where(n >= FEWEST, 2 * stats.t.sf(np.abs(t), np.maximum(n - 1, 1)), np.nan)[()]


def t_test_above(values, *, axis=0):
    """One-sided p of Student's t test that the mean of the units along `axis` is above 0; NaN are left out.

    NaN with fewer than 8 units.
    """
    two_sided = t_test(values, axis=axis)
    mean, _, _ = _moments(np.asarray(values, float), axis)
    return np.where(mean > 0, two_sided / 2, 1 - two_sided / 2)[()]


def repeated_measures_test(values) -> np.ndarray:
    """p that conditions differ on average over units, each of which has a value in every condition.

    F is the variance of the conditions' means over that of the units' own differences between conditions, so effects
    that each unit (speaker) has for itself count as error. Its degrees of freedom are multiplied by epsilon, for
    conditions that vary unequally: Huynh and Feldt's, as Greenhouse and Geisser's, from which it is made, costs a third
    of the power with eight units and eight conditions. With one condition of 25 times the variance of the others the
    level is 0.07 in place of 0.05 then.

    Parameters
    ----------
    values : array [unit, condition, …]
        Units that lack a condition (NaN) are left out.

    Returns
    -------
    array […]
        NaN with fewer than 8 units.

    References
    ----------
    Huynh and Feldt (1976), Estimation of the Box correction for degrees of freedom, Journal of Educational Statistics 1;
    with two conditions it is the paired t test.
    """
    values = np.asarray(values, float)
    complete = np.isfinite(values).reshape(len(values), -1).all(axis=1)
    values = values[complete]
    n, conditions = values.shape[:2]
    if n < FEWEST:
        return np.full(values.shape[2:], np.nan)
    away = values - values.mean(axis=1, keepdims=True)
    mean = away.mean(axis=0)
    rest = away - mean
    covariance = np.einsum("uc...,ud...->cd...", rest, rest) / (n - 1)
    error = np.einsum("cc...->...", covariance)
    square = (covariance**2).sum(axis=(0, 1))
    between = n * (mean**2).sum(axis=0)
    with np.errstate(divide="ignore", invalid="ignore"):  # units that all agree
        freedom = np.where(square > 0, error**2 / square, conditions - 1)  # Greenhouse and Geisser's
        freedom = np.minimum((n * freedom - 2) / np.maximum(n - 1 - freedom, 1e-9), conditions - 1)
        p = stats.f.sf(between / error, freedom, freedom * (n - 1))
    return np.where(between > 0, p, 1.0)


def fdr(p) -> np.ndarray:
    """Benjamini–Hochberg adjusted p values (scipy's), over all entries; NaN stay NaN and do not count as tests."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def unit(x, *, axis=0, least=1e-12) -> np.ndarray:
    """`x` centred along `axis`, of norm 1: sums of products are correlations. 0 where the norm is `least` or less."""
    x = x - x.mean(axis=axis, keepdims=True)
    norm = np.linalg.norm(x, axis=axis, keepdims=True)
    return x / np.where(norm > least, norm, np.inf)
