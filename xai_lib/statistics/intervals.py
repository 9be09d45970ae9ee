"""Means over speakers with confidence intervals."""

import numpy as np
import xarray as xr
from scipy import stats

from .effect_sizes import _moments
from .hypothesis_tests import MIN_SPEAKERS


def interval(values, confidence=0.95, *, axis=0):
    """Return mean, low and high of the t interval over the units (speakers) along `axis`; NaN units are ignored.

    The bounds are NaN where there are fewer than 8 units.
    """
    mean, square, n = _moments(np.asarray(values, float), axis)
    freedom = np.where(n >= MIN_SPEAKERS, n - 1, np.nan)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(square / freedom / n)
    return tuple(estimate[()] for estimate in (mean, mean - half, mean + half))


def welch(a, b, confidence=0.95, *, axis=0):
    """Return the difference of the means of two groups along `axis`, its low and high, and p, by Welch's t test.

    The units are speakers. NaN units are ignored; interval and p are NaN where a group has fewer than 8. This is not a
    permutation test: 8 against 8 units have 12,870 permutations, too few for a p that is significant after correction
    over thousands of neurons, and a permutation test assumes equal variances.

    References
    ----------
    scipy.stats.ttest_ind, equal_var=False, which it equals.
    """
    (mean_a, square_a, n_a), (mean_b, square_b, n_b) = (_moments(np.asarray(group, float), axis) for group in (a, b))
    f_a, f_b = (np.where((n_a >= MIN_SPEAKERS) & (n_b >= MIN_SPEAKERS), n - 1.0, np.nan) for n in (n_a, n_b))
    v_a, v_b, difference = square_a / f_a / n_a, square_b / f_b / n_b, mean_a - mean_b
    with np.errstate(divide="ignore", invalid="ignore"):  # groups that do not vary
        freedom = (v_a + v_b) ** 2 / (v_a**2 / f_a + v_b**2 / f_b)
        p = 2 * stats.t.sf(np.abs(difference) / np.sqrt(v_a + v_b), freedom)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(v_a + v_b)
    return tuple(estimate[()] for estimate in (difference, difference - half, difference + half, p))


def by_speaker(data: xr.DataArray) -> xr.DataArray:
    """Average the clips of each speaker: dim `clip` becomes dim `speaker`. NaN clips are ignored.

    Raises ValueError if `data` has no coordinate `speaker` on `clip`, or if a clip lacks its speaker.
    """
    if "speaker" not in data.coords or data["speaker"].dims != ("clip",):
        raise ValueError("the result has no coordinate 'speaker' on `clip`: add a `speaker` column to the clips")
    names = data["speaker"].to_series()
    if names.isna().any() or (names.astype(str) == "").any():
        raise ValueError("speaker is missing for some clips: give each one, or leave those clips out")
    return data.groupby("speaker").mean("clip", skipna=True)


def over_speakers(data: xr.DataArray) -> xr.Dataset:
    """Return the mean over speakers with its 95 % t interval, the clips of each speaker averaged first.

    `data` has the dim `clip` and the coordinate `speaker` on it, or the dim `speaker`; the result has `mean`, `low`,
    `high` (NaN where `n` is under 8) and `n` (speakers that have a value) on its other dims.
    """
    units = data if "speaker" in data.dims else by_speaker(data)
    options = {"input_core_dims": [["speaker"]], "output_core_dims": [[]] * 3, "kwargs": {"axis": -1}}
    parts = dict(zip(("mean", "low", "high"), xr.apply_ufunc(interval, units, **options)))
    return xr.Dataset({**parts, "n": np.isfinite(units).sum("speaker")}, attrs={"confidence": 0.95})
