"""Whether what is said of neurons is true of speakers whose clips had no part in saying it."""

import json

import numpy as np
import xarray as xr
from scipy import stats

from .. import results, statistics
from . import descriptions
from .concept_matching import _deals, _speakers, _tested_speakers
from .describing import _groups, _neighbours, _places, _ranks


def check(activations, adjectives, features, lexicon=None, *, null=None, draws=400, seed=0) -> xr.Dataset:
    """Whether adjectives are true: does the activation of a "loud" neuron follow the level of clips not described from?

    Parameters
    ----------
    activations : DataArray [clip, ...]
        Of speakers whose clips had no part in the descriptions.
    adjectives : DataArray of bool [..., adjective]
    features : DataFrame by clip
        What was measured, such as `corpora.features_table`. Only the order within speakers counts; clips in which a
        quantity could not be measured are left out of its tests.
    lexicon : DataFrame, optional
        Which quantity (index) the words `low` and `high` stand for. Adjectives that it does not hold cannot be checked,
        and are named in `attrs["unchecked"]`.
    null : DataArray of bool [draw, ..., adjective], optional
        Adjectives of descriptions from shuffled captions.

    Returns
    -------
    Dataset
        Of each neuron and adjective, said or not: `rho`, Spearman's with the quantity ("quiet": with less of it) over
        the clips of a speaker, averaged over speakers; one-sided `p`, the greater of two, with the quantity dealt out as
        in `naming` and of a t test over speakers of their rho; `q`, at a false discovery rate over all; `said`. p is NaN
        where fewer than eight speakers have a rho; where recordings are dealt out as wholes, or speakers are not known,
        the first p stands alone. As in `dissection.predictivity`, emotions and sentences are taken as fixed.

        Of each adjective: `neurons` that it is said of; `passed`, the share of them with q < 0.05, beside that among
        neurons of the same layers that it is not said of (`other`) and among the `null_neurons` that shuffled captions
        give it to (`null` [draw]); `mean` rho of its neurons, `low` and `high`, over `n` speakers; `mean_other`; and
        `gap`, how far the first exceeds the second, with `gap_low` and `gap_high`.
    """
    lexicon = descriptions.lexicon() if lexicon is None else lexicon
    meaning = {row[end]: (name, sign) for name, row in lexicon.iterrows() for end, sign in (("low", -1), ("high", 1))}
    names = [name for name in adjectives["adjective"].values.tolist() if name in meaning]
    lacking = sorted({meaning[name][0] for name in names} - set(features))
    if not names or lacking:
        reason = f"features lacks {', '.join(lacking)}" if lacking else "no adjective is a word of the lexicon"
        raise ValueError(f"nothing can be checked: {reason}")
    values, template = _flat(activations)
    said = _flat_last(adjectives.sel(adjective=names), template, "adjective").astype(bool)
    table, places = features.reindex(activations["clip"].values), _places(template)
    groups, people = _groups(activations), _speakers(activations)
    found = {
        feature: _follows(values, table[feature].to_numpy(float), groups, people, draws, seed)
        for feature in dict.fromkeys(meaning[name][0] for name in names)
    }
    if _tested_speakers(activations) is not None:
        for _, p, each in found.values():
            for sign in p:
                p[sign] = np.maximum(p[sign], statistics.t_test_above(sign * each))
    found = [(sign, *found[feature]) for feature, sign in (meaning[name] for name in names)]
    rho, p = np.stack([sign * rho for sign, rho, _, _ in found], 1), np.stack([p[sign] for sign, _, p, _ in found], 1)
    q = statistics.fdr(p)
    passed = np.where(np.isnan(q), np.nan, q < 0.05)
    others = _others(said, places)
    each = []  # mean rho of those that it is said of, and of others, [speaker, name]
    for weights in (said, others):
        rows = [_mean(sign * own.T, weights[:, [at]]) for at, (sign, _, _, own) in enumerate(found)]
        each.append(np.stack(rows, 1))
    parts = {"neurons": said.sum(0), "passed": _mean(passed, said), "other": _mean(passed, others)}
    parts |= dict(zip(("mean", "low", "high"), statistics.interval(each[0])))
    parts |= {"n": np.isfinite(each[0]).sum(0), "mean_other": statistics.interval(each[1])[0]}
    parts |= dict(zip(("gap", "gap_low", "gap_high"), statistics.interval(each[0] - each[1])))
    whole = {"rho": rho, "p": p, "q": q, "said": said}
    result = xr.Dataset({key: _like(template, x, adjective=names) for key, x in whole.items()})
    result = result.assign({key: ("adjective", x) for key, x in parts.items()})
    result = result.assign_coords(feature=("adjective", [meaning[name][0] for name in names]))
    if null is not None:
        drawn = [_flat_last(one, template, "adjective") for one in null.sel(adjective=names)]
        result["null"] = ("draw", "adjective"), np.array([_mean(passed, one) for one in drawn])
        result["null_neurons"] = ("draw", "adjective"), np.array([one.sum(0) for one in drawn])
    unchecked = [name for name in adjectives["adjective"].values.tolist() if name not in meaning]
    return result.assign_attrs(unchecked=json.dumps(unchecked), draws=draws, seed=seed)


def _follows(values, feature, groups, people, draws, seed):
    """Spearman's rho [unit] of values [clip, unit] and a feature [clip], p by sign, and rho [speaker, unit]."""
    there, whole = np.flatnonzero(np.isfinite(feature)), len(groups) < len(people)
    inside, people = ([np.searchsorted(there, np.intersect1d(rows, there)) for rows in x] for x in (groups, people))
    full, people = ([rows for rows in some if len(rows)] for some in (inside, people))
    own, theirs = _ranks(values[there], full), _ranks(feature[there, None], full)[:, 0]
    each = np.full((len(groups), values.shape[1]), np.nan)
    for at, rows in enumerate(inside):
        if len(rows) and theirs[rows].any():
            each[at] = np.where(own[rows].any(0), theirs[rows] @ own[rows], np.nan)
    n = np.isfinite(each).sum(0)
    rho = np.nansum(each, 0) / np.where(n > 0, n, np.nan)
    shuffled = np.array([theirs[rows] for rows in statistics.deals(people, draws, seed, whole=whole)])
    drawn = (some @ own for some in np.array_split(shuffled, max(draws // 64, 1)))  # 64 draws × all neurons at a time
    p = statistics.permutation_p(np.stack([rho * n, -rho * n]), (np.stack([some, -some], 1) for some in drawn))
    return rho, {1: p[0], -1: p[1]}, each


def predictivity_auroc(activations, described, captions, *, least=1.96, top=0.25, draws=400, seed=0) -> xr.Dataset:
    """How well descriptions foretell which clips drive a neuron: give clips of speakers not described from.

    Positive are, within each speaker, the share `top` of the clips, those that drive the neuron most, and what ties
    with them; they are foretold by the score of `dissection.predictivity`: words said less words denied that the
    caption holds.

    Returns
    -------
    Dataset
        `auroc` […], the probability that a positive clip scores higher, ties half (0.5 is chance), averaged over
        speakers, `low` and `high`, its interval, and `n` speakers; NaN where the description says nothing that varies.
        One-sided `p`, the greater of two, with captions dealt out as in `naming` and of a t test over speakers, and NaN
        where fewer than eight have an AUROC (where recordings are dealt out as wholes, or speakers are not known, the
        first alone); `q` at a false discovery rate over neurons; and two controls: `other` […], by another description
        of the layer, and `shuffled` [draw, …], by those from shuffled captions. As in `dissection.predictivity`,
        emotions and sentences are taken as fixed.
    """
    values, template = _flat(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    words = words.reindex(word=described["word"].values, fill_value=0).values
    groups, positive = _groups(activations), np.zeros(values.shape, bool)
    for rows in groups:
        positive[rows] = values[rows] >= np.sort(values[rows], 0)[-max(round(top * len(rows)), 1)]
    pairs = np.array([positive[rows].sum(0) * (~positive[rows]).sum(0) for rows in groups], float)

    def ranks(z):
        scores = words @ (np.sign(z) * (np.abs(z) >= least)).T
        out = np.zeros(scores.shape)
        for rows in groups:  # about their mean, so that 0 is chance
            out[rows] = stats.rankdata(scores[rows], axis=0) - (len(rows) + 1) / 2
        return out

    def each(scores):  # [speaker, unit]
        found = np.full(pairs.shape, np.nan)
        for at, rows in enumerate(groups):
            told = (pairs[at] > 0) & scores[rows].any(0)
            found[at, told] = 0.5 + (scores[rows] * positive[rows]).sum(0)[told] / pairs[at, told]
        return found

    z = _flat_last(described["z"], template, "word")
    own = ranks(z)
    speakers = each(own)
    mean, low, high = statistics.interval(speakers)
    drawn = (statistics.interval(each(own[rows]))[0][None] for rows in _deals(activations, draws, seed))
    p = statistics.permutation_p(mean, drawn)
    if _tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(speakers - 0.5))
    other = statistics.interval(each(ranks(z[_neighbours(_places(template), seed)])))[0]
    parts = {"auroc": mean, "low": low, "high": high, "n": np.isfinite(speakers).sum(0)}
    parts |= {"p": p, "q": statistics.fdr(p), "other": other}
    null = (_flat_last(one, template, "word") for one in described["null"])
    null = [_like(template, statistics.interval(each(ranks(one)))[0]) for one in null]
    parts = {name: _like(template, value) for name, value in parts.items()}
    about = {"least": least, "top": top, "draws": draws, "seed": seed}
    return xr.Dataset({**parts, "shuffled": xr.concat(null, "draw")}, attrs=about)


def _flat(data):
    """Values [clip, unit], and one clip as a template of the units' dims and coordinates."""
    data = results.activity(data).transpose("clip", ...)
    return data.values.reshape(data.sizes["clip"], -1).astype(float), data.isel(clip=0, drop=True)


def _flat_last(data, template, last):
    """Values [unit, last] of data with the template's dims and one more; ValueError where its neurons are others."""
    data = xr.align(template, data, join="exact")[1].transpose(*template.dims, last)
    return data.values.reshape(-1, data.sizes[last])


def _like(template, values, **names):
    """Values [unit] or [unit, name] with the template's dims and coordinates."""
    dims, coords = template.dims, template.coords
    for name, labels in names.items():
        dims, coords = (*dims, name), coords.assign({name: np.asarray(labels)})
    return xr.DataArray(np.asarray(values).reshape(*template.shape, *map(len, names.values())), coords, dims)


def _others(said, places):
    """Weights of the neurons [unit, name] that it is not said of: in each layer as many in all as it is said of."""
    member = (places[:, None] == np.unique(places)).astype(float)
    ratio = (member.T @ said) / np.maximum(member.T @ ~said, 1)
    return np.where(said, 0, member @ ratio)


def _mean(values, weights):
    """Mean over units [unit, name] with weights; NaN are left out, and NaN is what none counts in."""
    there = np.isfinite(values) * weights
    total = there.sum(0)
    return (np.where(np.isfinite(values), values, 0) * weights).sum(0) / np.where(total > 0, total, np.nan)
