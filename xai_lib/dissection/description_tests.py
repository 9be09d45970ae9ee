"""Tests of descriptions on speakers whose clips were not used for the descriptions."""

import json

import numpy as np
import xarray as xr
from scipy import stats

from .. import results, statistics
from . import descriptions
from .concept_matching import _restricted_permutations, _speaker_rows, _tested_speakers
from .describing import _comparison_groups, _layer_ids, _neighbours, _ranks


def check(activations, adjectives, features, lexicon=None, *, chance=None, draws=400, seed=0) -> xr.Dataset:
    """Test adjectives against measured quantities: does the activation of a "loud" neuron follow the level of clips?

    Parameters
    ----------
    activations : DataArray [clip, ...]
        Of speakers whose clips were not used for the descriptions.
    adjectives : DataArray of bool [..., adjective]
    features : DataFrame by clip
        Measured quantities, such as `corpora.features_table`. Only the order within speakers counts; clips in which a
        quantity could not be measured are left out of its tests.
    lexicon : DataFrame, optional
        Which quantity (index) the words `low` and `high` stand for; default: `descriptions.lexicon()`. Adjectives
        outside the lexicon cannot be checked, and are named in `attrs["unchecked"]`.
    chance : DataArray of bool [draw, ..., adjective], optional
        Adjectives of descriptions from shuffled captions.

    Returns
    -------
    Dataset
        Of each neuron and adjective, assigned or not: `rho`, Spearman's with the quantity ("quiet": with less of it)
        over the clips of a speaker, averaged over speakers; one-sided `p`, the greater of two, with the quantity
        permuted as in `concept_matching` and of a t test over speakers of their rho; `q`, at a false discovery rate
        over all; `assigned`, whether the adjective is assigned. p is NaN where fewer than eight speakers have a rho;
        where whole recordings are permuted, or speakers are not known, the first p stands alone. As in
        `dissection.predictivity`, emotions and sentences are treated as fixed.

        Of each adjective: `neurons` that it is assigned to; `passed`, the share of them with q < 0.05, beside that
        among neurons of the same layers that it is not assigned to (`other`) and among the `chance_neurons` that
        shuffled captions assign it to (`chance` [draw]); `mean` rho of its neurons, `low` and `high`, over `n`
        speakers; `mean_other`; and `gap`, how far the first exceeds the second, with `gap_low` and `gap_high`.
    """
    lexicon = descriptions.lexicon() if lexicon is None else lexicon
    meaning = {row[end]: (name, sign) for name, row in lexicon.iterrows() for end, sign in (("low", -1), ("high", 1))}
    names = [name for name in adjectives["adjective"].values.tolist() if name in meaning]
    lacking = sorted({meaning[name][0] for name in names} - set(features))
    if not names or lacking:
        reason = f"features lacks {', '.join(lacking)}" if lacking else "no adjective is a word of the lexicon"
        raise ValueError(f"no adjective can be checked: {reason}")
    values, template = _flatten(activations)
    assigned = _flatten_with(adjectives.sel(adjective=names), template, "adjective").astype(bool)
    table, layer_ids = features.reindex(activations["clip"].values), _layer_ids(template)
    groups, speakers = _comparison_groups(activations), _speaker_rows(activations)
    by_feature = {
        feature: _feature_correlations(values, table[feature].to_numpy(float), groups, speakers, draws, seed)
        for feature in dict.fromkeys(meaning[name][0] for name in names)
    }
    if _tested_speakers(activations) is not None:
        for _, p, speaker_rho in by_feature.values():
            for sign in p:
                p[sign] = np.maximum(p[sign], statistics.t_test_above(sign * speaker_rho))
    by_adjective = [(sign, *by_feature[feature]) for feature, sign in (meaning[name] for name in names)]
    rho = np.stack([sign * rho for sign, rho, _, _ in by_adjective], 1)
    p = np.stack([p[sign] for sign, _, p, _ in by_adjective], 1)
    q = statistics.fdr(p)
    passed = np.where(np.isnan(q), np.nan, q < 0.05)
    others = _other_neuron_weights(assigned, layer_ids)
    mean_rho = []  # of the neurons that the adjective is assigned to, and of others, [speaker, name]
    for weights in (assigned, others):
        rows = [
            _weighted_mean(sign * speaker_rho.T, weights[:, [index]])
            for index, (sign, _, _, speaker_rho) in enumerate(by_adjective)
        ]
        mean_rho.append(np.stack(rows, 1))
    parts = {
        "neurons": assigned.sum(0),
        "passed": _weighted_mean(passed, assigned),
        "other": _weighted_mean(passed, others),
    }
    parts |= dict(zip(("mean", "low", "high"), statistics.interval(mean_rho[0])))
    parts |= {"n": np.isfinite(mean_rho[0]).sum(0), "mean_other": statistics.interval(mean_rho[1])[0]}
    parts |= dict(zip(("gap", "gap_low", "gap_high"), statistics.interval(mean_rho[0] - mean_rho[1])))
    per_neuron = {"rho": rho, "p": p, "q": q, "assigned": assigned}
    result = xr.Dataset({key: _like(template, part, adjective=names) for key, part in per_neuron.items()})
    result = result.assign({key: ("adjective", part) for key, part in parts.items()})
    result = result.assign_coords(feature=("adjective", [meaning[name][0] for name in names]))
    if chance is not None:
        shuffled_assigned = [_flatten_with(draw, template, "adjective") for draw in chance.sel(adjective=names)]
        result["chance"] = ("draw", "adjective"), np.array([_weighted_mean(passed, draw) for draw in shuffled_assigned])
        result["chance_neurons"] = ("draw", "adjective"), np.array([draw.sum(0) for draw in shuffled_assigned])
    unchecked = [name for name in adjectives["adjective"].values.tolist() if name not in meaning]
    return result.assign_attrs(unchecked=json.dumps(unchecked), draws=draws, seed=seed)


def _feature_correlations(values, feature, groups, speakers, draws, seed):
    """Return Spearman's rho [unit] of values [clip, unit] and a feature [clip], p by sign, and rho [speaker, unit]."""
    measured, whole_speakers = np.flatnonzero(np.isfinite(feature)), len(groups) < len(speakers)
    group_rows, speakers = (
        [np.searchsorted(measured, np.intersect1d(rows, measured)) for rows in grouping]
        for grouping in (groups, speakers)
    )
    full_groups, speakers = ([rows for rows in grouping if len(rows)] for grouping in (group_rows, speakers))
    value_ranks = _ranks(values[measured], full_groups)
    feature_ranks = _ranks(feature[measured, None], full_groups)[:, 0]
    speaker_rho = np.full((len(groups), values.shape[1]), np.nan)
    for index, rows in enumerate(group_rows):
        if len(rows) and feature_ranks[rows].any():
            speaker_rho[index] = np.where(value_ranks[rows].any(0), feature_ranks[rows] @ value_ranks[rows], np.nan)
    n = np.isfinite(speaker_rho).sum(0)
    rho = np.nansum(speaker_rho, 0) / np.where(n > 0, n, np.nan)
    shuffled = np.array(
        [
            feature_ranks[rows]
            for rows in statistics.restricted_permutations(speakers, draws, seed, whole_speakers=whole_speakers)
        ]
    )
    # 64 draws × all neurons at a time
    sums = (batch @ value_ranks for batch in np.array_split(shuffled, max(draws // 64, 1)))
    p = statistics.permutation_p(np.stack([rho * n, -rho * n]), (np.stack([batch, -batch], 1) for batch in sums))
    return rho, {1: p[0], -1: p[1]}, speaker_rho


def predictivity_auroc(activations, described, captions, *, min_z=1.96, top=0.25, draws=400, seed=0) -> xr.Dataset:
    """Compute how well descriptions predict which clips of speakers not used for them activate a neuron most (AUROC).

    Positive are, within each speaker, the share `top` of the clips, those that activate the neuron most, and ties; they
    are predicted by the score of `dissection.predictivity`: number of asserted minus number of denied words in the
    caption.

    Returns
    -------
    Dataset
        `auroc` […], the probability that a positive clip scores higher, ties half (0.5 is chance), averaged over
        speakers, `low` and `high`, its interval, and `n` speakers; NaN where no word of the description varies.
        One-sided `p`, the greater of two, with captions permuted as in `concept_matching` and of a t test over
        speakers, and NaN where fewer than eight have an AUROC (where whole recordings are permuted, or speakers are not
        known, the first alone); `q` at a false discovery rate over neurons; and two controls: `other` […], by another
        description of the layer, and `shuffled` [draw, …], by those from shuffled captions. As in
        `dissection.predictivity`, emotions and sentences are treated as fixed.
    """
    values, template = _flatten(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    words = words.reindex(word=described["word"].values, fill_value=0).values
    groups, positive = _comparison_groups(activations), np.zeros(values.shape, bool)
    for rows in groups:
        positive[rows] = values[rows] >= np.sort(values[rows], 0)[-max(round(top * len(rows)), 1)]
    pairs = np.array([positive[rows].sum(0) * (~positive[rows]).sum(0) for rows in groups], float)

    def predicted_ranks(z):
        scores = words @ (np.sign(z) * (np.abs(z) >= min_z)).T
        out = np.zeros(scores.shape)
        for rows in groups:  # centred on their mean, so that 0 is chance
            out[rows] = stats.rankdata(scores[rows], axis=0) - (len(rows) + 1) / 2
        return out

    def auroc_by_speaker(predicted):  # [speaker, unit]
        auroc = np.full(pairs.shape, np.nan)
        for index, rows in enumerate(groups):
            defined = (pairs[index] > 0) & predicted[rows].any(0)
            auroc[index, defined] = 0.5 + (predicted[rows] * positive[rows]).sum(0)[defined] / pairs[index, defined]
        return auroc

    z = _flatten_with(described["z"], template, "word")
    predicted = predicted_ranks(z)
    observed = auroc_by_speaker(predicted)
    mean, low, high = statistics.interval(observed)
    row_orders = _restricted_permutations(activations, draws, seed)
    drawn = (statistics.interval(auroc_by_speaker(predicted[rows]))[0][None] for rows in row_orders)
    p = statistics.permutation_p(mean, drawn)
    if _tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(observed - 0.5))
    other = statistics.interval(auroc_by_speaker(predicted_ranks(z[_neighbours(_layer_ids(template), seed)])))[0]
    parts = {"auroc": mean, "low": low, "high": high, "n": np.isfinite(observed).sum(0)}
    parts |= {"p": p, "q": statistics.fdr(p), "other": other}
    shuffled_z = (_flatten_with(draw, template, "word") for draw in described["chance"])
    null_distribution = [
        _like(template, statistics.interval(auroc_by_speaker(predicted_ranks(draw)))[0]) for draw in shuffled_z
    ]
    parts = {name: _like(template, value) for name, value in parts.items()}
    attrs = {"min_z": min_z, "top": top, "draws": draws, "seed": seed}
    return xr.Dataset({**parts, "shuffled": xr.concat(null_distribution, "draw")}, attrs=attrs)


def _flatten(data):
    """Return values [clip, unit], and one clip as a template of the units' dims and coordinates."""
    data = results.as_activation(data).transpose("clip", ...)
    return data.values.reshape(data.sizes["clip"], -1).astype(float), data.isel(clip=0, drop=True)


def _flatten_with(data, template, last):
    """Return values [unit, last] of data with the template's dims and one more; ValueError if its neurons differ."""
    data = xr.align(template, data, join="exact")[1].transpose(*template.dims, last)
    return data.values.reshape(-1, data.sizes[last])


def _like(template, values, **names):
    """Return values [unit] or [unit, name] with the template's dims and coordinates."""
    dims, coords = template.dims, template.coords
    for name, labels in names.items():
        dims, coords = (*dims, name), coords.assign({name: np.asarray(labels)})
    return xr.DataArray(np.asarray(values).reshape(*template.shape, *map(len, names.values())), coords, dims)


def _other_neuron_weights(assigned, layer_ids):
    """Return weights of the neurons [unit, name] without the adjective, with the sum in each layer of those with it."""
    member = (layer_ids[:, None] == np.unique(layer_ids)).astype(float)
    ratio = (member.T @ assigned) / np.maximum(member.T @ ~assigned, 1)
    return np.where(assigned, 0, member @ ratio)


def _weighted_mean(values, weights):
    """Average over units [unit, name] with weights; NaN values are left out, and the mean of none is NaN."""
    finite_weights = np.isfinite(values) * weights
    total = finite_weights.sum(0)
    return (np.where(np.isfinite(values), values, 0) * weights).sum(0) / np.where(total > 0, total, np.nan)
