"""Tests of descriptions on speakers whose clips were not used for the descriptions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import statistics
from . import descriptions, units
from .describing import count_words, score_captions


def check(
    activations: xr.DataArray,
    adjectives: xr.DataArray,
    features: pd.DataFrame,
    lexicon: pd.DataFrame | None = None,
    *,
    chance: xr.DataArray | None = None,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
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
    meanings = _word_meanings(descriptions.lexicon() if lexicon is None else lexicon)
    all_names = adjectives["adjective"].values.tolist()
    names = [name for name in all_names if name in meanings]
    unchecked = [name for name in all_names if name not in meanings]
    feature_names = [meanings[name].feature for name in names]
    _require_features(feature_names, features)

    values = units.flatten(activations)
    template = units.unit_template(activations)
    assigned = units.flatten_like(template, adjectives.sel(adjective=names), "adjective").astype(bool)
    other_weights = _other_neuron_weights(assigned, units.layer_ids(template))

    measured = features.reindex(activations["clip"].values)
    groups = units.comparison_groups(activations)
    speakers = units.speaker_rows(activations)
    over_speakers = units.tested_speakers(activations) is not None
    by_feature = {}
    for feature in dict.fromkeys(feature_names):
        quantity = measured[feature].to_numpy(float)
        by_feature[feature] = _test_feature(values, quantity, groups, speakers, draws, seed)

    tests = []
    for column, name in enumerate(names):
        feature_test = by_feature[meanings[name].feature]
        sign = meanings[name].sign
        weights = assigned[:, [column]]
        weights_of_others = other_weights[:, [column]]
        tests.append(_test_adjective(feature_test, sign, over_speakers, weights, weights_of_others))

    rho = np.stack([test.rho for test in tests], axis=1)  # [unit, adjective]
    p = np.stack([test.p for test in tests], axis=1)
    mean_rho = np.stack([test.mean_rho for test in tests], axis=1)  # [speaker, adjective]
    mean_rho_of_others = np.stack([test.mean_rho_of_others for test in tests], axis=1)
    q = statistics.fdr(p)
    passed = np.where(np.isnan(q), np.nan, q < 0.05)

    mean, low, high = statistics.interval(mean_rho)
    mean_other, _, _ = statistics.interval(mean_rho_of_others)
    gap, gap_low, gap_high = statistics.interval(mean_rho - mean_rho_of_others)
    by_neuron = {"rho": rho, "p": p, "q": q, "assigned": assigned}
    by_adjective = {
        "neurons": assigned.sum(0),
        "passed": _weighted_mean(passed, assigned),
        "other": _weighted_mean(passed, other_weights),
        "mean": mean,
        "low": low,
        "high": high,
        "n": np.isfinite(mean_rho).sum(0),
        "mean_other": mean_other,
        "gap": gap,
        "gap_low": gap_low,
        "gap_high": gap_high,
    }
    result = xr.Dataset({key: units.unit_array(template, part, adjective=names) for key, part in by_neuron.items()})
    result = result.assign({key: ("adjective", part) for key, part in by_adjective.items()})
    result = result.assign_coords(feature=("adjective", feature_names))

    if chance is not None:
        result = result.assign(_chance_variables(chance.sel(adjective=names), passed, template))
    return result.assign_attrs(unchecked=json.dumps(unchecked), draws=draws, seed=seed)


def predictivity_auroc(
    activations: xr.DataArray,
    described: xr.Dataset,
    captions: pd.Series,
    *,
    min_z: float = 1.96,
    top: float = 0.25,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
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

    Raises
    ------
    ValueError
        If a clip has no caption.
    """
    captions = _captions_of(activations["clip"].to_numpy(), captions)
    values = units.flatten(activations)
    template = units.unit_template(activations)
    words = count_words(captions, described["word"].values)
    groups = units.comparison_groups(activations)
    positive = _strongest_share(values, groups, top)

    def predicted_ranks(z):
        return _centred_ranks(score_captions(words, z, min_z), groups)

    def mean_auroc(predicted):
        mean, _, _ = statistics.interval(_auroc_by_speaker(predicted, positive, groups))
        return mean

    z = units.flatten_like(template, described["z"], "word")
    predicted = predicted_ranks(z)
    auroc = _auroc_by_speaker(predicted, positive, groups)
    mean, low, high = statistics.interval(auroc)

    row_orders = units.restricted_permutations(activations, draws, seed)
    means_without_effect = (mean_auroc(predicted[rows])[None] for rows in row_orders)
    p = statistics.permutation_p(mean, means_without_effect)
    if units.tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(auroc - 0.5))

    other_neurons = units.neighbours(units.layer_ids(template), seed)
    variables = {
        "auroc": mean,
        "low": low,
        "high": high,
        "n": np.isfinite(auroc).sum(0),
        "p": p,
        "q": statistics.fdr(p),
        "other": mean_auroc(predicted_ranks(z[other_neurons])),
    }
    variables = {name: units.unit_array(template, result) for name, result in variables.items()}

    null_distribution = []
    for draw in described["chance"]:
        shuffled_z = units.flatten_like(template, draw, "word")
        null_distribution.append(units.unit_array(template, mean_auroc(predicted_ranks(shuffled_z))))
    variables["shuffled"] = xr.concat(null_distribution, "draw")
    return xr.Dataset(variables, attrs={"min_z": min_z, "top": top, "draws": draws, "seed": seed})


@dataclass(frozen=True)
class _Meaning:
    """What a word says of a clip: that it has more of a measured quantity (sign 1), or less (−1)."""

    feature: str
    sign: int


@dataclass(frozen=True)
class _FeatureTest:
    """Spearman's rho of a measured quantity with activation [unit], and its p by permutation, in either direction."""

    rho: np.ndarray
    p_above: np.ndarray
    p_below: np.ndarray
    speaker_rho: np.ndarray  # [speaker, unit]


@dataclass(frozen=True)
class _AdjectiveTest:
    """The test of one adjective: rho and p [unit], and the mean rho [speaker] of neurons with it, and of others."""

    rho: np.ndarray
    p: np.ndarray
    mean_rho: np.ndarray
    mean_rho_of_others: np.ndarray


def _word_meanings(lexicon) -> dict[str, _Meaning]:
    """Return the meaning of each word of the lexicon."""
    meanings = {}
    for feature, row in lexicon.iterrows():
        meanings[row["low"]] = _Meaning(feature, sign=-1)
        meanings[row["high"]] = _Meaning(feature, sign=1)
    return meanings


def _require_features(feature_names, features):
    """Raise ValueError if there is no feature to check by, or one of them is not a column of `features`."""
    lacking = sorted(set(feature_names) - set(features))
    if lacking:
        raise ValueError(f"no adjective can be checked: features lacks {', '.join(lacking)}")
    if not feature_names:
        raise ValueError("no adjective can be checked: no adjective is a word of the lexicon")


def _test_feature(values, quantity, groups, speakers, draws, seed) -> _FeatureTest:
    """Correlate values [clip, unit] with a quantity [clip] within groups, and with the quantity permuted."""
    measured = np.flatnonzero(np.isfinite(quantity))
    measured_groups = [_positions_among(measured, rows) for rows in groups]
    measured_speakers = [_positions_among(measured, rows) for rows in speakers]
    nonempty_groups = [rows for rows in measured_groups if len(rows)]
    value_ranks = units.rank_within(values[measured], nonempty_groups)
    quantity_ranks = units.rank_within(quantity[measured, None], nonempty_groups)[:, 0]

    speaker_rho = np.full((len(groups), values.shape[1]), np.nan)
    for index, rows in enumerate(measured_groups):
        if quantity_ranks[rows].any():
            products = quantity_ranks[rows] @ value_ranks[rows]
            speaker_rho[index] = np.where(value_ranks[rows].any(0), products, np.nan)
    n = np.isfinite(speaker_rho).sum(0)
    rho = np.nansum(speaker_rho, 0) / np.where(n > 0, n, np.nan)

    row_orders = statistics.restricted_permutations(
        [rows for rows in measured_speakers if len(rows)], draws, seed, whole_speakers=len(groups) < len(speakers)
    )
    shuffled_ranks = np.array([quantity_ranks[rows] for rows in row_orders])
    sums = rho * n
    p_above, p_below = statistics.permutation_p(np.stack([sums, -sums]), _signed_sums(shuffled_ranks, value_ranks))
    return _FeatureTest(rho, p_above, p_below, speaker_rho)


def _positions_among(measured, rows):
    """Return the positions, among the measured clips, of those of the rows that are measured."""
    return np.searchsorted(measured, np.intersect1d(rows, measured))


def _signed_sums(shuffled_ranks, value_ranks) -> Iterator[np.ndarray]:
    """Yield the sums of products of ranks and their negatives, [draw, sign, unit], 64 draws × all neurons at a time."""
    n_batches = max(len(shuffled_ranks) // 64, 1)
    for batch in np.array_split(shuffled_ranks, n_batches):
        sums = batch @ value_ranks
        yield np.stack([sums, -sums], axis=1)


def _test_adjective(feature_test, sign, over_speakers, assigned, other_weights) -> _AdjectiveTest:
    """Test more of a quantity (sign 1), or less (−1), and average rho over neurons by two weights [unit, 1]."""
    p = feature_test.p_above if sign > 0 else feature_test.p_below
    speaker_rho = sign * feature_test.speaker_rho
    if over_speakers:
        p = np.maximum(p, statistics.t_test_above(speaker_rho))
    return _AdjectiveTest(
        rho=sign * feature_test.rho,
        p=p,
        mean_rho=_weighted_mean(speaker_rho.T, assigned),
        mean_rho_of_others=_weighted_mean(speaker_rho.T, other_weights),
    )


def _chance_variables(chance, passed, template):
    """Return how many neurons shuffled captions assign each adjective to, and the share that passes, by draw."""
    shares = []
    neuron_counts = []
    for draw in chance:
        assigned = units.flatten_like(template, draw, "adjective")
        shares.append(_weighted_mean(passed, assigned))
        neuron_counts.append(assigned.sum(0))
    dims = ("draw", "adjective")
    return {"chance": (dims, np.array(shares)), "chance_neurons": (dims, np.array(neuron_counts))}


def _captions_of(clips, captions):
    """Return the captions of the clips; ValueError if one has none."""
    captions = captions.reindex(clips)
    missing = captions.index[captions.isna()].astype(str).tolist()
    if missing:
        raise ValueError(
            f"{len(missing)} of {len(clips)} clips have no caption ({', '.join(missing[:10])}): leave them out of the "
            "activations, or caption them"
        )
    return captions


def _strongest_share(values, groups, top):
    """Return which clips are, in each group, the share `top` that activates a unit most, and ties, [clip, unit]."""
    strongest = np.zeros(values.shape, bool)
    for rows in groups:
        n_strongest = max(round(top * len(rows)), 1)
        threshold = np.sort(values[rows], axis=0)[-n_strongest]
        strongest[rows] = values[rows] >= threshold
    return strongest


def _centred_ranks(scores, groups):
    """Rank scores [clip, unit] within groups, centred on the mean rank, so that 0 is chance."""
    ranks = np.zeros(scores.shape)
    for rows in groups:
        ranks[rows] = stats.rankdata(scores[rows], axis=0) - (len(rows) + 1) / 2
    return ranks


def _auroc_by_speaker(predicted, positive, groups):
    """Return the AUROC [speaker, unit] of centred ranks [clip, unit]; NaN where they do not vary."""
    auroc = np.full((len(groups), positive.shape[1]), np.nan)
    for index, rows in enumerate(groups):
        n_pairs = positive[rows].sum(0) * (~positive[rows]).sum(0)
        defined = (n_pairs > 0) & predicted[rows].any(0)
        rank_sums = (predicted[rows] * positive[rows]).sum(0)
        auroc[index, defined] = 0.5 + rank_sums[defined] / n_pairs[defined]
    return auroc


def _other_neuron_weights(assigned, layers):
    """Return weights of the neurons [unit, name] without the adjective, with the sum in each layer of those with it."""
    is_in_layer = (layers[:, None] == np.unique(layers)).astype(float)  # [unit, layer]
    n_with = is_in_layer.T @ assigned
    n_without = is_in_layer.T @ ~assigned
    ratio = n_with / np.maximum(n_without, 1)
    return np.where(assigned, 0, is_in_layer @ ratio)


def _weighted_mean(values, weights):
    """Average over units [unit, name] with weights; NaN values are left out, and the mean of none is NaN."""
    finite = np.isfinite(values)
    total_weight = (finite * weights).sum(0)
    total = (np.where(finite, values, 0) * weights).sum(0)
    return total / np.where(total_weight > 0, total_weight, np.nan)
