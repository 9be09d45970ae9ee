"""Intervals, tests and effect sizes with the speaker as the unit: thin over scipy.stats.

Clips of one speaker are not independent, so they are averaged within the speaker first. Below eight speakers
no interval and no p is given (NaN): show one point per speaker instead.
"""

import math
import warnings

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


def welch(a, b, confidence=0.95, *, axis=0):
    """Difference of the means of two groups of units (speakers) along `axis`, its low and high, and p, by Welch's t.

    NaN units are left out; interval and p are NaN where a group has fewer than 8. Not a permutation test: 8 against 8
    units have 12,870 permutations, too few for a p that outlasts a false discovery rate over thousands of neurons, and
    it takes equal variances for granted.

    References
    ----------
    scipy.stats.ttest_ind, equal_var=False, which it equals.
    """
    (mean_a, square_a, n_a), (mean_b, square_b, n_b) = (_moments(np.asarray(x, float), axis) for x in (a, b))
    f_a, f_b = (np.where((n_a >= FEWEST) & (n_b >= FEWEST), n - 1.0, np.nan) for n in (n_a, n_b))
    v_a, v_b, difference = square_a / f_a / n_a, square_b / f_b / n_b, mean_a - mean_b
    with np.errstate(divide="ignore", invalid="ignore"):  # groups that do not vary
        freedom = (v_a + v_b) ** 2 / (v_a**2 / f_a + v_b**2 / f_b)
        p = 2 * stats.t.sf(np.abs(difference) / np.sqrt(v_a + v_b), freedom)
    half = stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(v_a + v_b)
    return tuple(x[()] for x in (difference, difference - half, difference + half, p))


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
    over = {"input_core_dims": [["speaker"]], "output_core_dims": [[]] * 3, "kwargs": {"axis": -1}}
    parts = dict(zip(("mean", "low", "high"), xr.apply_ufunc(interval, units, **over)))
    return xr.Dataset({**parts, "n": np.isfinite(units).sum("speaker")}, attrs={"confidence": 0.95})


def sign_flip_test(values, *, axis=0, permutations=9999, seed=0):
    """Two-sided sign-flip test that the mean over the units along `axis` is 0, for all other entries at once.

    NaN units are left out, as if they were not there; p is NaN under 8 units. Exact over all sign patterns up to 14
    units, so that p is 2 / 2^n or more; else `permutations` seeded draws, the same for all entries, and
    p = 2 (b + 1) / (m + 1): never 0.

    References
    ----------
    scipy.stats.permutation_test, permutation type "samples", which it equals, draws included; but sums that differ by
    rounding alone count as ties here.
    """
    values = np.moveaxis(np.asarray(values, float), axis, 0)
    n, *shape = values.shape
    values = values.reshape(n, math.prod(shape))
    there = np.isfinite(values)
    values = np.where(there, values, 0)
    values = values / np.maximum(np.abs(values).max(axis=0, initial=0), 1e-300)
    values = np.take_along_axis(values, np.argsort(~there, axis=0, kind="stable"), axis=0)  # NaN units last
    p, counts = np.full(values.shape[1], np.nan), there.sum(axis=0)
    for n in np.unique(counts[counts >= FEWEST]):
        every = n <= 14 or 2**n <= permutations
        if every:
            flips = np.arange(2**n)[:, None] >> np.arange(n) & 1
        else:
            pairs = np.tile([0, 1], (permutations, n, 1))
            flips = np.random.default_rng(seed).permuted(pairs, axis=-1)[..., 0]
        signs, same = 1.0 - 2 * flips, np.flatnonzero(counts == n)
        for some in np.array_split(same, -(-len(same) * len(signs) // 2**22)):  # 32 MiB of sums at a time
            sums, observed = signs @ values[:n, some], values[:n, some].sum(axis=0)
            beyond = np.minimum((sums <= observed + 1e-12).sum(axis=0), (sums >= observed - 1e-12).sum(axis=0))  # ties
            p[some] = np.minimum(2 * (beyond + (not every)) / (len(signs) + (not every)), 1)
    return p.reshape(shape)[()]


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


def chosen_test(values, chosen, *, draws=400, seed=0) -> np.ndarray:
    """One-sided p that the mean over units of one of several quantities, chosen for being great, is above 0.

    A t test of what was chosen on the same units finds something in noise. So the signs of whole units are flipped, all
    quantities of a unit alike, and the greatest sum over quantities is what a draw gives: p is the share of draws, the
    real one among them, that are as good. Where no draw is, p goes on below 1 / (1 + draws) as the p of `t_test_above`
    times the number of quantities (Bonferroni's bound, which holds by itself, and has less power).

    Parameters
    ----------
    values : array [unit, entry, quantity]
        Around 0, and symmetric, where there is nothing to find. NaN are left out.
    chosen : array of int [entry]
        Which quantity was chosen for each entry, by these values or others of the same clips.
    draws : int
        All 2^units patterns of signs where there are no more than that.

    Returns
    -------
    array [entry]
        NaN where the chosen quantity is known of fewer than 8 units.
    """
    values, chosen = np.asarray(values), np.asarray(chosen)
    own = np.take_along_axis(values, chosen[None, :, None], axis=2)[..., 0]
    values = np.where(np.isfinite(values), values, 0)
    signs = _sign_patterns(len(values), draws, seed).astype(values.dtype)

    real = np.nansum(own, axis=0)
    margin = 1e-5 * np.maximum(np.abs(real), 1)  # ties that rounding broke
    as_good = np.zeros(len(real))
    some = max(2**22 // max(values[0].size, 1), 1)  # draws at a time, 16 or 32 MiB of sums
    for start in range(0, len(signs), some):
        sums = np.tensordot(signs[start : start + some], values, axes=1)
        as_good += (sums.max(axis=-1) >= real - margin).sum(axis=0)

    least = 1 / (1 + len(signs))
    bound = t_test_above(own) * values.shape[2]
    p = np.where(as_good == 0, np.minimum(bound, least), least * (1 + as_good))
    return np.where(np.isfinite(own).sum(axis=0) >= FEWEST, p, np.nan)


def _sign_patterns(n, draws, seed):
    """Patterns of −1 and 1 [draw, n], all but that of no change: every one, or `draws` at random."""
    if 2**n <= draws:
        negative = np.arange(2**n)[:, None] >> np.arange(n) & 1
    else:
        negative = np.random.default_rng(seed).integers(0, 2, (draws, n))
    return 1 - 2 * negative[negative.any(axis=1)]


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


def deals(groups, draws, seed, *, whole=False):
    """Yield row orders that deal things out among clips, so that chance keeps what clips of one speaker share.

    `groups` holds the rows of each speaker. The rows of each are shuffled; `whole`, where clips of a speaker (then a
    recording that they were cut from) have nothing to shuffle, speakers are dealt out as wholes among those with as
    many clips. Dealt among unlike ones they would be torn, and what is torn is less alike than what was found. The rows
    of a speaker with whom no other can change places stay his, which makes p too large; a warning says so where that is
    half of them.
    """
    size = np.array([len(rows) for rows in groups])
    alike = [np.stack([groups[i] for i in np.flatnonzero(size == n)]) for n in np.unique(size)]
    strata = alike if whole else [rows[None] for rows in groups]
    still = sum(rows.size for rows in alike if len(rows) == 1)
    if whole and len(groups) > 1 and 2 * still >= size.sum():
        warnings.warn(
            f"{still} of {size.sum()} clips are of recordings that no other has as many clips of: they are not dealt out, "
            "and p is too large; take as many clips of each recording",
            stacklevel=3,
        )
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        order = np.arange(size.sum())
        for rows in strata:
            order[rows] = rng.permuted(rows[rng.permutation(len(rows))], axis=1)
        yield order


def permutation_p(found, drawn) -> np.ndarray:
    """One-sided p of a permutation test, the greater the better; NaN where what was found is.

    `drawn` are arrays [draw, …], as many as there be. Where no draw is as good as what was found, the tail of a Student
    distribution with their mean and spread goes on: 400 draws cannot go below 0.0025, which a false discovery rate over
    thousands of neurons would not let pass however true a few of them are.
    """
    found = np.asarray(found, float)
    as_good, total, square, draws = np.zeros((4, *found.shape))
    for some in drawn:
        draws, as_good = draws + len(some), as_good + (some >= found - 1e-9).sum(0)
        total, square = total + some.sum(0), square + (some**2).sum(0)
    mean, freedom = total / np.maximum(draws, 1), np.maximum(draws - 1, 1)
    spread = np.sqrt(np.maximum(square - draws * mean**2, 0) / freedom * (1 + 1 / np.maximum(draws, 1)))
    tail = stats.t.sf((found - mean) / np.where(spread > 0, spread, np.nan), freedom)
    p = np.where(as_good == 0, np.fmin(tail, 1 / (1 + draws)), (1 + as_good) / (1 + draws))
    return np.where(np.isnan(found), np.nan, p)


def fdr(p) -> np.ndarray:
    """Benjamini–Hochberg adjusted p values (scipy's), over all entries; NaN stay NaN and do not count as tests."""
    p = np.asarray(p, float)
    adjusted = np.full(p.shape, np.nan)
    tested = ~np.isnan(p)
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


def auroc(a, b, *, axis=0):
    """Probability that a value of `a` exceeds one of `b` along `axis`, ties half: 0.5 is chance.

    References
    ----------
    sklearn.metrics.roc_auc_score, which it equals, for many columns at once; NaN spread.
    """
    m, n = np.shape(a)[axis], np.shape(b)[axis]
    ranks = np.moveaxis(stats.rankdata(np.concatenate([a, b], axis), axis=axis), axis, 0)
    return ((ranks[:m].sum(axis=0) - m * (m + 1) / 2) / (m * n))[()]


def _moments(x, axis):
    """Mean, sum of squares about it, and count of what is finite."""
    x = np.where(np.isfinite(x), x, np.nan)
    n = np.isfinite(x).sum(axis=axis)
    mean = np.nansum(x, axis=axis) / np.where(n > 0, n, np.nan)
    return mean, np.nansum((x - np.expand_dims(mean, axis)) ** 2, axis=axis), n


def eta_squared(values, groups):
    """Share of the variance of `values` [n] or [n, column] that the group means explain, 0 to 1; NaN are left out."""
    values, groups = np.asarray(values, float), np.asarray(groups)
    mean, total, _ = _moments(values, 0)
    away, there = np.where(np.isfinite(values), values - mean, 0), np.isfinite(values)
    member = (np.unique(groups)[:, None] == groups).astype(float)
    between = ((member @ away) ** 2 / np.maximum(member @ there, 1)).sum(axis=0)
    return (between / np.where(total > 0, total, np.nan))[()]


def unit(x, *, axis=0, least=1e-12) -> np.ndarray:
    """`x` centred along `axis`, of norm 1: sums of products are correlations. 0 where the norm is `least` or less."""
    x = x - x.mean(axis=axis, keepdims=True)
    norm = np.linalg.norm(x, axis=axis, keepdims=True)
    return x / np.where(norm > least, norm, np.inf)


def uar(truth, predicted) -> float:
    """Unweighted average recall: recall of each class in `truth`, averaged over those classes."""
    truth, predicted = np.asarray(truth), np.asarray(predicted)
    return float(recall_score(truth, predicted, labels=np.unique(truth), average="macro", zero_division=0.0))
