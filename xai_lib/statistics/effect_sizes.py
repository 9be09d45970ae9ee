"""Effect sizes (Cohen's d, AUROC, eta squared) and unweighted average recall."""

import numpy as np
from scipy import stats
from sklearn.metrics import recall_score


def cohens_d(a, b=None, *, axis=0):
    """Return the difference of two groups over their pooled SD, or of one set of paired differences over its SD.

    NaN are ignored; the result is NaN where a group has fewer than two values or nothing varies.

    References
    ----------
    Cohen (1988), Statistical power analysis for the behavioral sciences: d, and for pairs d_z.
    """
    mean, square, n = _moments(np.asarray(a, float), axis)
    freedom = n - 1
    if b is not None:
        mean_b, square_b, n_b = _moments(np.asarray(b, float), axis)
        mean, square = np.where((n > 1) & (n_b > 1), mean - mean_b, np.nan), square + square_b
        freedom = n + n_b - 2
    sd = np.sqrt(square / np.where(freedom > 0, freedom, np.nan))
    return (mean / np.where(sd > 0, sd, np.nan))[()]


def auroc(a, b, *, axis=0):
    """Return the probability that a value of `a` exceeds one of `b` along `axis`; ties count half, 0.5 is chance.

    References
    ----------
    sklearn.metrics.roc_auc_score, which it equals, for many columns at once; NaN propagate.
    """
    m, n = np.shape(a)[axis], np.shape(b)[axis]
    ranks = np.moveaxis(stats.rankdata(np.concatenate([a, b], axis), axis=axis), axis, 0)
    return ((ranks[:m].sum(axis=0) - m * (m + 1) / 2) / (m * n))[()]


def _moments(values, axis):
    """Return mean, sum of squared deviations from it, and count of the finite values along `axis`."""
    values = np.where(np.isfinite(values), values, np.nan)
    n = np.isfinite(values).sum(axis=axis)
    mean = np.nansum(values, axis=axis) / np.where(n > 0, n, np.nan)
    return mean, np.nansum((values - np.expand_dims(mean, axis)) ** 2, axis=axis), n


def eta_squared(values, groups):
    """Return the share of variance of `values` [n] or [n, column] explained by group means, 0 to 1; NaN are ignored."""
    values, groups = np.asarray(values, float), np.asarray(groups)
    mean, total, _ = _moments(values, 0)
    deviations, finite = np.where(np.isfinite(values), values - mean, 0), np.isfinite(values)
    member = (np.unique(groups)[:, None] == groups).astype(float)
    between = ((member @ deviations) ** 2 / np.maximum(member @ finite, 1)).sum(axis=0)
    return (between / np.where(total > 0, total, np.nan))[()]


def uar(truth, predicted) -> float:
    """Return the unweighted average recall: the recall of each class in `truth`, averaged over those classes."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0))
