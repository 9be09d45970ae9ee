"""Intervals, tests and effect sizes with the speaker as the unit: thin over scipy.stats.

Clips of one speaker are not independent, so they are averaged within the speaker first. Below eight speakers
no interval and no p is given (NaN): show one point per speaker instead.
"""

import numpy as np
import xarray as xr
from scipy import stats
from sklearn.metrics import recall_score

FEWEST = 8  # speakers, for an interval or a test


def interval(values, confidence=0.95, *, axis=0):
    """Mean, low and high of the t interval over the units (speakers) along `axis`; NaN units are left out.

    The bounds are NaN where fewer than 8 units are there.
    """
    mean, square, n = _moments(np.asarray(values, float), axis)
    freedom = np.where(n >= FEWEST, n - 1, np.nan)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(square / freedom / n)
    return tuple(x[()] for x in (mean, mean - half, mean + half))


def by_speaker(data: xr.DataArray) -> xr.DataArray:
    """Average the clips of each speaker: dim `clip` becomes dim `speaker`. NaN clips are left out.

    ValueError where `data` has no coordinate `speaker` on `clip`, or some clip lacks one.
    """
    if "speaker" not in data.coords or data["speaker"].dims != ("clip",):
        raise ValueError("the result has no coordinate 'speaker' on `clip`: add a `speaker` column to the clips")
    names = data["speaker"].to_series()
    if names.isna().any() or (names.astype(str) == "").any():
        raise ValueError("speaker is missing for some clips: give each one, or leave those clips out")
    return data.groupby("speaker").mean("clip", skipna=True)


def over_speakers(data: xr.DataArray) -> xr.Dataset:
    """Mean over speakers with its 95 % t interval, the clips of each speaker averaged first.

    `data` has the dim `clip` and the coordinate `speaker` on it, or the dim `speaker`; the result has `mean`, `low`,
    `high` (NaN where `n` is under 8) and `n` (speakers that have a value) on its other dims.
    """
    units = data if "speaker" in data.dims else by_speaker(data)
    axis, rest = units.get_axis_num("speaker"), units.isel(speaker=0, drop=True)
    mean, low, high = interval(units.values, axis=axis)
    parts = {"mean": mean, "low": low, "high": high, "n": np.isfinite(units.values).sum(axis=axis)}
    return xr.Dataset({name: rest.copy(data=value) for name, value in parts.items()}, attrs={"confidence": 0.95})


def sign_flip_test(values, *, permutations=9999, seed=0) -> float:
    """Two-sided sign-flip test that the units' mean is 0; NaN units are left out, and p is NaN under 8 units.

    Exact over all sign patterns up to 14 units, so that p is 2 / 2^n or more; else `permutations` seeded draws and
    p = (b + 1) / (m + 1): never 0.

    References
    ----------
    scipy.stats.permutation_test, permutation type "samples".
    """
    values = np.asarray(values, float)
    values = values[np.isfinite(values)]
    if len(values) < FEWEST:
        return float("nan")
    if not values.any():
        return 1.0
    count = np.inf if len(values) <= 14 else permutations
    values = np.rint(values / np.abs(values).max() * 2**40)  # whole numbers: sums are exact, and so are ties
    options = {"permutation_type": "samples", "vectorized": True, "n_resamples": count, "batch": 2**14}
    return float(stats.permutation_test((values,), np.sum, rng=np.random.default_rng(seed), **options).pvalue)


def null_test(value, null, *, axis=0):
    """Two-sided p that one more draw of a null would lie as far from its mean as `value` does.

    The draws (say, the effects of random sets of neurons) vary among themselves, which a test over speakers against
    their mean does not see. t = (value − mean) / (SD √(1 + 1/n)), with n − 1 degrees of freedom. `null` has the
    draws along `axis`; p is NaN where there are fewer than 3, or NaN among them.
    """
    null = np.moveaxis(np.asarray(null, float), axis, 0)
    n = len(null)
    if n < 3:
        return np.full(np.shape(value), np.nan)[()]
    away, sd = np.abs(value - null.mean(axis=0)), null.std(axis=0, ddof=1)
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that do not vary
        t = np.where(away == 0, 0, away / (sd * np.sqrt(1 + 1 / n)))
    return 2 * stats.t.sf(t, n - 1)


def fdr(p) -> np.ndarray:
    """Benjamini–Hochberg adjusted p values (scipy's), over all entries; NaN stay NaN and do not count as tests."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
    if tested.any():
        adjusted[tested] = stats.false_discovery_control(p[tested])
    return adjusted


def cohens_d(a, b=None, *, axis=0):
    """Standardised difference of two groups, over their pooled SD, or of one set of paired differences.

    NaN are left out; NaN where a group has fewer than two values, or nothing varies.

    References
    ----------
    Cohen (1988), Statistical power analysis for the behavioral sciences: d, and for pairs d_z.
    """
    mean, square, n = _moments(np.asarray(a, float), axis)
    freedom = n - 1
    if b is not None:
        other, square_b, n_b = _moments(np.asarray(b, float), axis)
        mean, square = np.where((n > 1) & (n_b > 1), mean - other, np.nan), square + square_b
        freedom = n + n_b - 2
    sd = np.sqrt(square / np.where(freedom > 0, freedom, np.nan))
    return (mean / np.where(sd > 0, sd, np.nan))[()]


def _moments(x, axis):
    """Mean, sum of squares about it, and count of what is finite."""
    x = np.where(np.isfinite(x), x, np.nan)
    n = np.isfinite(x).sum(axis=axis)
    mean = np.nansum(x, axis=axis) / np.where(n > 0, n, np.nan)
    return mean, np.nansum((x - np.expand_dims(mean, axis)) ** 2, axis=axis), n


def eta_squared(values, groups) -> float:
    """Share of the variance of `values` [n] that the group means explain, 0 to 1; NaN values are left out."""
    values, groups = np.asarray(values, float), np.asarray(groups)
    groups, values = groups[np.isfinite(values)], values[np.isfinite(values)]
    total = np.sum((values - values.mean()) ** 2) if len(values) else 0.0
    if total == 0:
        return float("nan")
    between = sum((groups == g).sum() * (values[groups == g].mean() - values.mean()) ** 2 for g in np.unique(groups))
    return float(between / total)


def uar(truth, predicted) -> float:
    """Unweighted average recall: recall of each class in `truth`, averaged over those classes."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0))
