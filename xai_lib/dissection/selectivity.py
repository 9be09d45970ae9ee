"""Selectivity: how well each neuron separates the clips of one label from all other clips."""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from ..corpora.filenames import ordered
from .concept_matching import _speaker_rows
from .describing import _flatten


def selectivity(activations, by="label") -> xr.Dataset:
    """Compute how well each neuron separates each label from all others (AUROC), within speakers.

    Parameters
    ----------
    by : str
        The label, or any other coordinate of the clips, such as "sex". A coordinate that is constant within each
        speaker is compared between speakers, the clips of each averaged.

    Returns
    -------
    Dataset over […, concept], the labels
        `mean`, the AUROC (0.5 is chance) averaged over speakers, with its interval `low` and `high`; `n` speakers; `p`,
        the greater of that of the rank-sum test stratified by speaker, which treats clips as independent, and that of a
        t test over speakers, which does not; NaN where fewer than eight speakers have clips of the label and others;
        `q`, that over all neurons and labels at a false discovery rate. Where speakers are not known, p is that of the
        rank-sum test. Between speakers there is one AUROC, without interval, and p, from eight speakers up, is that of
        the rank-sum test. Sentences are treated as fixed, as in `identify`.

    References
    ----------
    van Elteren (1960), On the combination of independent two sample tests of Wilcoxon.
    """
    if by not in activations.coords:
        raise ValueError(f"activations have no coordinate {by!r}: add it, or choose another with by=")
    labels, groups = activations[by].values, _speaker_rows(activations)
    names = ordered(pd.Series(labels).dropna())
    if len(names) < 2:
        raise ValueError(f"selectivity by {by} needs clips of two labels or more")
    values, reshape = _flatten(activations)
    between = len(groups) > 1 and all(len(pd.unique(labels[rows])) == 1 for rows in groups)
    if between:
        values, labels = np.stack([values[rows].mean(0) for rows in groups]), labels[[rows[0] for rows in groups]]
        groups = [np.arange(len(groups))]
    membership = (labels[:, None] == np.array(names, object)).astype(float)
    auroc, variance = [], []
    for rows in groups:
        m, n = membership[rows].sum(0), (1 - membership[rows]).sum(0)
        pairs = np.where(m * n > 0, m * n, np.nan)
        auroc.append((stats.rankdata(values[rows], axis=0).T @ membership[rows] - m * (m + 1) / 2) / pairs)
        variance.append((m + n + 1) / (12 * pairs))
    mean, low, high = statistics.interval(auroc)
    strata = np.isfinite(variance).sum(0)
    # Where all speakers agree, the t test has no error and the p of the rank-sum test is used.
    with np.errstate(invalid="ignore", divide="ignore"):
        p = 2 * stats.norm.sf(np.abs(mean - 0.5) * strata / np.sqrt(np.nansum(variance, axis=0)))
        error = (high - mean) / stats.t.ppf(0.975, strata - 1)
        p = np.fmax(p, 2 * stats.t.sf(np.abs(mean - 0.5) / error, strata - 1))
    if results.speakers_known(activations) and not between:
        p = np.where(strata < statistics.MIN_SPEAKERS, np.nan, p)
    if between:
        strata, p = strata * len(membership), np.where(len(membership) < statistics.MIN_SPEAKERS, np.nan, p)
    parts = {"mean": mean, "low": low, "high": high, "p": p, "q": statistics.fdr(p)}
    out = xr.Dataset({key: reshape(value, "concept", names) for key, value in parts.items()}, attrs={"by": by})
    return out.assign(n=("concept", strata))
