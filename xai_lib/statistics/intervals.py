"""Means over speakers with confidence intervals."""

from __future__ import annotations

import numpy as np
import xarray as xr
from numpy.typing import ArrayLike
from scipy import stats

from .effect_sizes import _moments
from .hypothesis_tests import MIN_SPEAKERS


def interval(values: ArrayLike, confidence: float = 0.95, *, axis: int = 0) -> tuple:
    """Return mean, low and high of the t interval over the units (speakers) along `axis`; NaN units are ignored.

    The bounds are NaN where there are fewer than 8 units.
    """
    mean, squares, n = _moments(np.asarray(values, float), axis)
    freedom = np.where(n >= MIN_SPEAKERS, n - 1, np.nan)
    standard_error = np.sqrt(squares / freedom / n)
    half_width = stats.t.ppf((1 + confidence) / 2, freedom) * standard_error
    return mean[()], (mean - half_width)[()], (mean + half_width)[()]


def welch(a: ArrayLike, b: ArrayLike, confidence: float = 0.95, *, axis: int = 0) -> tuple:
    """Return the difference of the means of two groups along `axis`, its low and high, and p, by Welch's t test.

    The units are speakers. NaN units are ignored; interval and p are NaN where a group has fewer than 8. This is not a
    permutation test: 8 against 8 units have 12,870 permutations, too few for a p that is significant after correction
    over thousands of neurons, and a permutation test assumes equal variances.

    References
    ----------
    scipy.stats.ttest_ind, equal_var=False, which it equals.
    """
    mean_a, squares_a, n_a = _moments(np.asarray(a, float), axis)
    mean_b, squares_b, n_b = _moments(np.asarray(b, float), axis)
    enough = (n_a >= MIN_SPEAKERS) & (n_b >= MIN_SPEAKERS)
    freedom_a = np.where(enough, n_a - 1.0, np.nan)
    freedom_b = np.where(enough, n_b - 1.0, np.nan)

    # Variances of the two means, not of the units.
    variance_a = squares_a / freedom_a / n_a
    variance_b = squares_b / freedom_b / n_b
    standard_error = np.sqrt(variance_a + variance_b)
    difference = mean_a - mean_b

    with np.errstate(divide="ignore", invalid="ignore"):  # groups that do not vary
        freedom = (variance_a + variance_b) ** 2 / (variance_a**2 / freedom_a + variance_b**2 / freedom_b)
        p = 2 * stats.t.sf(np.abs(difference) / standard_error, freedom)
    half_width = stats.t.ppf((1 + confidence) / 2, freedom) * standard_error
    return difference[()], (difference - half_width)[()], (difference + half_width)[()], p[()]


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

    Examples
    --------
    >>> import numpy as np
    >>> import xarray as xr
    >>> from xai_lib import statistics
    >>> speakers = [f"s{number}" for number in range(8) for clip in range(2)]  # two clips each
    >>> values = xr.DataArray(np.arange(16.0), {"speaker": ("clip", speakers)}, ("clip",))
    >>> statistics.over_speakers(values).to_pandas().round(2)
    mean     7.5
    low      3.4
    high    11.6
    n        8.0
    dtype: float64
    """
    units = data if "speaker" in data.dims else by_speaker(data)
    mean, low, high = xr.apply_ufunc(
        interval, units, input_core_dims=[["speaker"]], output_core_dims=[[], [], []], kwargs={"axis": -1}
    )
    n = np.isfinite(units).sum("speaker")
    return xr.Dataset({"mean": mean, "low": low, "high": high, "n": n}, attrs={"confidence": 0.95})
