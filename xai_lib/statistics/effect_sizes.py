"""Effect sizes (Cohen's d, AUROC, eta squared) and unweighted average recall.

`[()]` makes a number of an array without dims, and leaves others as they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats
from sklearn.metrics import recall_score


def cohens_d(a: ArrayLike, b: ArrayLike | None = None, *, axis: int = 0) -> np.ndarray | float:
    """Return the difference of two groups over their pooled SD, or of one set of paired differences over its SD.

    NaN are ignored; the result is NaN where a group has fewer than two values or nothing varies.

    References
    ----------
    Cohen (1988), Statistical power analysis for the behavioral sciences: d, and for pairs d_z.
    """
    mean_a, squares_a, n_a = _moments(np.asarray(a, float), axis)
    if b is None:
        difference = mean_a
        squares = squares_a
        freedom = n_a - 1
    else:
        mean_b, squares_b, n_b = _moments(np.asarray(b, float), axis)
        difference = np.where((n_a > 1) & (n_b > 1), mean_a - mean_b, np.nan)
        squares = squares_a + squares_b
        freedom = n_a + n_b - 2

    sd = np.sqrt(squares / np.where(freedom > 0, freedom, np.nan))
    return (difference / np.where(sd > 0, sd, np.nan))[()]


def auroc(a: ArrayLike, b: ArrayLike, *, axis: int = 0) -> np.ndarray | float:
    """Return the probability that a value of `a` exceeds one of `b` along `axis`; ties count half, 0.5 is chance.

    References
    ----------
    sklearn.metrics.roc_auc_score, which it equals, for many columns at once; NaN propagate.
    """
    n_a = np.shape(a)[axis]
    n_b = np.shape(b)[axis]
    ranks = stats.rankdata(np.concatenate([a, b], axis), axis=axis)
    ranks_a = np.moveaxis(ranks, axis, 0)[:n_a]

    # The Mann–Whitney U statistic: in how many of the pairs the value of `a` is the greater one.
    greater = ranks_a.sum(axis=0) - n_a * (n_a + 1) / 2
    return (greater / (n_a * n_b))[()]


def _moments(values, axis):
    """Return mean, sum of squared deviations from it, and count of the finite values along `axis`."""
    finite = np.isfinite(values)
    values = np.where(finite, values, np.nan)
    n = finite.sum(axis=axis)
    mean = np.nansum(values, axis=axis) / np.where(n > 0, n, np.nan)
    deviations = values - np.expand_dims(mean, axis)
    return mean, np.nansum(deviations**2, axis=axis), n


def eta_squared(values: ArrayLike, groups: ArrayLike) -> np.ndarray | float:
    """Return the share of variance of `values` [n] or [n, column] explained by group means, 0 to 1; NaN are ignored."""
    values = np.asarray(values, float)
    groups = np.asarray(groups)
    mean, total, _ = _moments(values, 0)
    finite = np.isfinite(values)
    deviations = np.where(finite, values - mean, 0)

    membership = (np.unique(groups)[:, None] == groups).astype(float)  # [group, n], 0 or 1
    sums = membership @ deviations
    counts = membership @ finite
    between = (sums**2 / np.maximum(counts, 1)).sum(axis=0)
    return (between / np.where(total > 0, total, np.nan))[()]


def uar(truth: ArrayLike, predicted: ArrayLike) -> float:
    """Return the unweighted average recall: the recall of each class in `truth`, averaged over those classes."""
    truth = np.asarray(truth)
    predicted = np.asarray(predicted)
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0))
