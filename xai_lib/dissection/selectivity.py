"""Selectivity: how well each neuron separates the clips of one label from all other clips."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from ..corpora.filenames import ordered
from . import units


def selectivity(activations: xr.DataArray, by: str = "label") -> xr.Dataset:
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
    labels = activations[by].values
    speakers = units.speaker_rows(activations)
    names = ordered(pd.Series(labels).dropna())
    if len(names) < 2:
        raise ValueError(f"selectivity by {by} needs clips of two labels or more")
    values = units.flatten(activations)

    between_speakers = len(speakers) > 1 and all(len(pd.unique(labels[rows])) == 1 for rows in speakers)
    if between_speakers:
        # Speakers take the place of clips, in one group.
        values = np.stack([values[rows].mean(0) for rows in speakers])
        labels = labels[[rows[0] for rows in speakers]]
        groups = [np.arange(len(speakers))]
    else:
        groups = speakers
    has_label = (labels[:, None] == np.array(names, object)).astype(float)  # [clip, label]

    auroc, variance = _auroc_by_group(values, has_label, groups)
    n_groups = np.isfinite(variance).sum(0)
    mean, low, high = statistics.interval(auroc)
    p = _p_of_auroc(mean, high, variance, n_groups)

    n_speakers = n_groups
    if between_speakers:
        n_speakers = n_groups * len(labels)
        if len(labels) < statistics.MIN_SPEAKERS:
            p = np.full(p.shape, np.nan)
    elif results.speakers_known(activations):
        p = np.where(n_groups < statistics.MIN_SPEAKERS, np.nan, p)

    template = units.selection_template(activations)
    variables = {"mean": mean, "low": low, "high": high, "p": p, "q": statistics.fdr(p)}
    variables = {name: units.unit_array(template, result, concept=names) for name, result in variables.items()}
    return xr.Dataset(variables, attrs={"by": by}).assign(n=("concept", n_speakers))


def _auroc_by_group(values, has_label, groups):
    """Return the AUROC of each label [group, unit, label], and its variance under the null hypothesis [group, label].

    NaN where all clips of a group have the label, or none has.
    """
    auroc = []
    variance = []
    for rows in groups:
        n_with = has_label[rows].sum(0)
        n_without = (1 - has_label[rows]).sum(0)
        n_pairs = np.where(n_with * n_without > 0, n_with * n_without, np.nan)
        rank_sums = stats.rankdata(values[rows], axis=0).T @ has_label[rows]
        auroc.append((rank_sums - n_with * (n_with + 1) / 2) / n_pairs)
        variance.append((n_with + n_without + 1) / (12 * n_pairs))
    return np.array(auroc), np.array(variance)


def _p_of_auroc(mean, high, variance, n_groups):
    """Return the greater p of the stratified rank-sum test and of a t test over groups, [unit, label]."""
    deviation = np.abs(mean - 0.5)
    # Where all speakers agree, the t test has no error and the p of the rank-sum test is used.
    with np.errstate(invalid="ignore", divide="ignore"):
        p_of_rank_sums = 2 * stats.norm.sf(deviation * n_groups / np.sqrt(np.nansum(variance, axis=0)))
        error = (high - mean) / stats.t.ppf(0.975, n_groups - 1)
        p_of_t_test = 2 * stats.t.sf(deviation / error, n_groups - 1)
    return np.fmax(p_of_rank_sums, p_of_t_test)
