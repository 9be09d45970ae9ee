"""What was measured of selected neurons, compared with random sets of neurons."""

import numpy as np
import xarray as xr
from scipy import stats


def rank_test(found, drawn, *, draws=None):
    """Test whether what was found is one more of what was drawn: two-sided p of each entry, and of the family of all.

    Nothing is taken to be normal: where what was found and the draws are equals, each rank is as likely as another. How
    far each lies from the mean of all of them, in their standard deviations, is compared; of the family, how far the
    farthest entry of each draw lies, so that the chance that any entry of no effect has p < 0.05 is at most 5 %.

    Parameters
    ----------
    found : array [...]
    drawn : array [..., draw]
        Each draw has all entries: its own random set in each layer, say.
    draws : int, optional
        As how many draws they count, where they are not independent: as n, say, all differences of n random sets.

    Returns
    -------
    p, family_p : array [...]
        (1 + draws as far away) / (1 + draws), never less than 1 / (1 + draws). NaN where what was found is, or a draw.

    References
    ----------
    Westfall and Young (1993), Resampling-based multiple testing: the single-step greatest statistic.
    """
    found, drawn = np.asarray(found, float), np.asarray(drawn, float)
    many = drawn.shape[-1]
    draws = many if draws is None else draws
    if not draws or not found.size:
        return np.full(found.shape, np.nan), np.full(found.shape, np.nan)
    every = np.concatenate([found[..., None], drawn], axis=-1)
    untested = ~np.isfinite(every).all(axis=-1)
    every = np.where(untested[..., None], 0, every)
    away = np.abs(every - every.mean(axis=-1, keepdims=True))
    spread = every.std(axis=-1, keepdims=True)
    varies = spread > 1e-12 * np.abs(every).max(axis=-1, keepdims=True)
    away = np.where(varies, away / np.where(varies, spread, 1), 0)
    own, others = away[..., :1] - 1e-9, away[..., 1:]
    greatest = others.reshape(-1, many).max(axis=0)
    p, family_p = ((1 + draws * (x >= own).mean(axis=-1)) / (1 + draws) for x in (others, greatest))
    return tuple(np.where(untested, np.nan, x)[()] for x in (p, family_p))


def rank_band(drawn):
    """Ends, along the last axis, between which a value is not told from draws by `rank_test` at p < 0.05, nearly.

    Symmetric about the mean of the draws. NaN under 20 draws, which are too few for p < 0.05.
    """
    drawn = np.asarray(drawn, float)
    many = drawn.shape[-1]
    beyond = int(np.ceil(round(0.05 * (1 + many), 9))) - 2  # draws that may lie farther away
    if beyond < 0:
        return np.full(drawn.shape[:-1], np.nan), np.full(drawn.shape[:-1], np.nan)
    mean = drawn.mean(axis=-1)
    away = np.sort(np.abs(drawn - mean[..., None]), axis=-1)
    half = away[..., many - 1 - beyond]
    return mean - half, mean + half


def null_spread(null, *, axis=0):
    """SD with which one more draw of a normal null distribution lies about the mean of those there are."""
    n = np.shape(null)[axis]
    sd = np.std(null, axis=axis, ddof=1) if n > 1 else np.full(np.shape(np.take(null, 0, axis) if n else null), np.nan)
    return sd * np.sqrt(1 + 1 / max(n, 1))


def null_test(value, null, *, axis=0):
    """Two-sided p that one more draw of a normal null distribution would lie as far from its mean as `value` does.

    For what is a mean of many, such as a share of a layer's neurons, and so is nearly normal; effects of a few neurons
    are not: `rank_test`. t = (value − mean) / SD, with n − 1 degrees of freedom and the SD of `null_spread`. `null` has
    the draws along `axis`; p is NaN where there are fewer than 3, or NaN among them.
    """
    null = np.moveaxis(np.asarray(null, float), axis, 0)
    n = len(null)
    if n < 3:
        return np.full(np.shape(value), np.nan)[()]
    away, sd = np.abs(value - null.mean(axis=0)), null_spread(null)
    with np.errstate(divide="ignore", invalid="ignore"):  # draws that do not vary
        t = np.where(away == 0, 0, away / sd)
    return 2 * stats.t.sf(t, n - 1)


def between_random_sets(null, *, shared=0.0) -> xr.DataArray:
    """All differences of two random sets, along the dim `null`: what chance would make of a difference of two selections.

    Divided by √(1 − shared), the share of neurons that two random sets have in common: as sets differ that have none.
    """
    first, second = np.triu_indices(null.sizes["null"], 1)
    null = null.drop_vars("null", errors="ignore")
    apart = (null.isel(null=first) - null.isel(null=second)) / np.sqrt(1 - shared)
    return xr.concat([apart, -apart], "null")
