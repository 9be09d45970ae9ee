"""How well each neuron separates the clips of one label from the others."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from ..corpora.filenames import ordered
from .concept_matching import _speakers
from .describing import _flat


def selectivity(activations, by="label") -> xr.Dataset:
    """How well each neuron tells each label from the rest, within speakers.

    Parameters
    ----------
    by : str
        Or any other coordinate of the clips, such as "sex". One that is the same in all clips of each speaker is told
        between speakers, the clips of each averaged.

    Returns
    -------
    Dataset over […, concept], the labels
        `mean`, the AUROC (0.5 is chance) averaged over speakers, with its interval `low` and `high`; `n` speakers; `p`,
        the greater of that of the rank-sum test stratified by speaker, which takes clips as independent, and that of a t
        test over speakers, which does not; NaN where fewer than eight speakers have clips of the label and others; `q`,
        that over all neurons and labels at a false discovery rate. Where speakers are not known it is that of the
        rank-sum test. Between speakers it is one AUROC, without interval, and p, from eight up, that of the rank-sum
        test. Sentences are taken as fixed, as in `identify`.

    References
    ----------
    van Elteren (1960), On the combination of independent two sample tests of Wilcoxon.
    """
    if by not in activations.coords:
        raise ValueError(f"nothing is known of the {by!r} of these clips")
    told, groups = activations[by].values, _speakers(activations)
    names = ordered(pd.Series(told).dropna())
    if len(names) < 2:
        raise ValueError(f"selectivity by {by} needs clips of two labels or more")
    values, shape = _flat(activations)
    between = len(groups) > 1 and all(len(pd.unique(told[rows])) == 1 for rows in groups)
    if between:
        values, told = np.stack([values[rows].mean(0) for rows in groups]), told[[rows[0] for rows in groups]]
        groups = [np.arange(len(groups))]
    said = (told[:, None] == np.array(names, object)).astype(float)
    auroc, variance = [], []
    for rows in groups:
        m, n = said[rows].sum(0), (1 - said[rows]).sum(0)
        pairs = np.where(m * n > 0, m * n, np.nan)
        auroc.append((stats.rankdata(values[rows], axis=0).T @ said[rows] - m * (m + 1) / 2) / pairs)
        variance.append((m + n + 1) / (12 * pairs))
    mean, low, high = statistics.interval(auroc)
    strata = np.isfinite(variance).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # speakers who all agree have no error: p is the other test's
        p = 2 * stats.norm.sf(np.abs(mean - 0.5) * strata / np.sqrt(np.nansum(variance, axis=0)))
        error = (high - mean) / stats.t.ppf(0.975, strata - 1)
        p = np.fmax(p, 2 * stats.t.sf(np.abs(mean - 0.5) / error, strata - 1))
    if results.speakers_known(activations) and not between:
        p = np.where(strata < statistics.FEWEST, np.nan, p)
    if between:
        strata, p = strata * len(said), np.where(len(said) < statistics.FEWEST, np.nan, p)
    parts = {"mean": mean, "low": low, "high": high, "p": p, "q": statistics.fdr(p)}
    out = xr.Dataset({key: shape(value, "concept", names) for key, value in parts.items()}, attrs={"by": by})
    return out.assign(n=("concept", strata))
