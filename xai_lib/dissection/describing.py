"""Descriptions of what each neuron responds to, in words, and how well they predict activations of other speakers.

After Audio Network Dissection: exemplars (the clips that activate a neuron most and least), a description from their
captions, and, from `concept_matching`, the concept of a given list that fits best. Every score has a shuffled control,
in which captions are permuted as in `concept_matching`: among the clips of each speaker, so that speaker identity alone
gains nothing.
"""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from ..checks import require_whole_number
from . import descriptions, units


def describe(
    activations: xr.DataArray, captions: pd.Series, *, k: int | None = None, draws: int = 20, seed: int = 0
) -> xr.Dataset:
    """Compute which words distinguish the captions of each neuron's high exemplars from those of its low ones.

    Parameters
    ----------
    activations : DataArray [clip, …]
    captions : Series by clip
        Clips without a caption (NaN) are left out.
    k : int, optional
        Exemplars at each end, 1 or more; default: a quarter of the clips.

    Returns
    -------
    Dataset
        `z` […, word], see `descriptions.terms`; `chance` [draw, …, word], the same with captions shuffled among the
        clips of each speaker, or permuted by whole recordings: a neuron that responds only to voices is described in
        both. `p` […, word], two-sided, see below; `q`, that at a false discovery rate over all neurons and words.

    Notes
    -----
    z selects words and is no test: it treats clips as independent, so |z| ≥ 1.96 may occur in well over 5 % of neurons
    that are unrelated to the captions, where a speaker's clips of one emotion are alike in both activation and caption;
    and `chance`, in which captions are shuffled clip by clip, has fewer such words than these neurons do. p is that of
    z, or, where greater, that of the correlation of activation and word in the direction of z: a t test over speakers
    of the correlations within each, NaN with fewer than eight; where whole recordings are permuted or speakers are not
    known, that between the means of recordings or between clips, from eight up. As in `identify`, emotions and
    sentences are treated as fixed.

    Examples
    --------
    >>> import numpy as np
    >>> import pandas as pd
    >>> import xarray as xr
    >>> from xai_lib import dissection
    >>> captions = pd.Series(["a loud voice", "a quiet voice"] * 10)
    >>> loudness = np.tile([1.0, 0.0], 10) + 0.01 * np.arange(20)
    >>> activations = xr.DataArray(loudness[:, None], {"clip": range(20), "neuron": [7]}, ("clip", "neuron"))
    >>> described = dissection.describe(activations, captions)
    >>> described["z"].sel(neuron=7).to_series().sort_values().index[[0, -1]].tolist()
    ['quiet', 'loud']
    """
    if k is not None:
        require_whole_number("k", k)
    require_whole_number("draws", draws)
    activations, captions = _captioned(activations, captions)
    values = units.flatten(activations)
    template = units.selection_template(activations)
    words = descriptions.counts(captions)
    counts = words.values

    k = min(k or max(len(values) // 4, 1), len(values) // 2)
    if k < 1:
        raise ValueError("a description needs at least two clips with captions")
    high, low = _exemplar_masks(values, k)

    def z_of_words(counts):
        z = descriptions.terms(high @ counts, low @ counts, counts.sum(0))
        return units.unit_array(template, z, word=words["word"].values)

    z = z_of_words(counts)
    null_distribution = [z_of_words(counts[rows]) for rows in units.restricted_permutations(activations, draws, seed)]

    p_above, p_below = _word_p(activations, values, counts)
    one_sided = np.where(z.values.reshape(p_above.shape) > 0, p_above, p_below)
    p_of_correlation = np.minimum(2 * one_sided, 1).reshape(z.shape)
    p_of_z = 2 * stats.norm.sf(np.abs(z))
    p = np.maximum(p_of_z, p_of_correlation)

    variables = {
        "z": z,
        "chance": xr.concat(null_distribution, "draw"),
        "p": z.copy(data=p),
        "q": z.copy(data=statistics.fdr(p)),
    }
    return xr.Dataset(variables, attrs={"k": k, "seed": seed})


def predictivity(
    activations: xr.DataArray,
    described: xr.Dataset,
    captions: pd.Series,
    *,
    min_z: float = 1.96,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Compute how well descriptions predict activations of clips whose speakers were not used for the descriptions.

    A clip's caption is scored by the words that the description asserts (+1 each) and denies (−1 each), those with |z|
    ≥ `min_z`; the score is compared with the neuron's activation.

    Returns
    -------
    Dataset
        `rho` […], Spearman's correlation over the clips of a speaker, averaged over speakers, NaN where the description
        has no words; `p`, one-sided, see below; `q`, that at a false discovery rate over all neurons; two controls:
        `shuffled` [draw, …], rho of descriptions computed from shuffled captions, and `other` […], of another neuron's
        description of the same layer.

    Raises
    ------
    ValueError
        The descriptions are of other neurons, or none of the clips has a caption.

    Notes
    -----
    p is the greater of two: with the captions of these clips shuffled (`statistics.permutation_p`), which assumes the
    clips of a speaker to be alike only in their speaker; and of a t test over speakers of their rho, which does not,
    and is NaN, as p is then, where the description distinguishes clips of fewer than eight speakers. Recordings that
    are permuted as wholes are the units of the first, and it stands alone; so it does where speakers are not known.

    As in `identify`, emotions and sentences are treated as fixed: p refers to other speakers who say the same.
    """
    activations, captions = _captioned(activations, captions)
    values = units.flatten(activations)
    template = units.selection_template(activations)
    words = count_words(captions, described["word"].values)
    groups = units.comparison_groups(activations)
    ranks = units.rank_within(values, groups)

    def predicted_ranks(z):
        return units.rank_within(score_captions(words, z, min_z), groups)

    def rho_of_descriptions(z):
        return _mean_rho(predicted_ranks(z), ranks, groups)

    z = units.flatten_like(template, described["z"], "word")
    predicted = predicted_ranks(z)
    rho = _mean_rho(predicted, ranks, groups)

    row_orders = units.restricted_permutations(activations, draws, seed)
    rho_without_effect = (_mean_rho(predicted[rows], ranks, groups)[None] for rows in row_orders)
    p = statistics.permutation_p(rho, rho_without_effect)
    if units.tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(_rho_by_speaker(predicted, ranks, groups)))

    other_neurons = units.neighbours(units.layer_ids(units.unit_template(activations)), seed)
    variables = {"rho": rho, "p": p, "q": statistics.fdr(p), "other": rho_of_descriptions(z[other_neurons])}
    variables = {name: units.unit_array(template, result) for name, result in variables.items()}

    null_distribution = []
    for shuffled_z in described["chance"]:
        rho_of_draw = rho_of_descriptions(units.flatten_like(template, shuffled_z, "word"))
        null_distribution.append(units.unit_array(template, rho_of_draw))
    variables["shuffled"] = xr.concat(null_distribution, "draw")
    return xr.Dataset(variables, attrs={"min_z": min_z, "draws": draws, "seed": seed})


def count_words(captions: pd.Series, words: np.ndarray) -> np.ndarray:
    """Return which of the words each caption contains, 0 or 1, [clip, word]."""
    return descriptions.counts(captions).reindex(word=words, fill_value=0).values


def score_captions(words: np.ndarray, z: np.ndarray, min_z: float) -> np.ndarray:
    """Return how many words of a caption each description asserts, minus how many it denies, [clip, unit].

    `words` [clip, word] are those of the captions, `z` [unit, word] those of the descriptions, where |z| ≥ `min_z`.
    """
    signs = np.sign(z) * (np.abs(z) >= min_z)
    return words @ signs.T


def _exemplar_masks(values, k):
    """Return which clips are high exemplars of each unit, and which are low ones, 0 or 1, [unit, clip] both."""
    order = np.argsort(values, axis=0, kind="stable").T
    high = np.zeros(order.shape)
    low = np.zeros(order.shape)
    np.put_along_axis(high, order[:, -k:], 1, axis=1)
    np.put_along_axis(low, order[:, :k], 1, axis=1)
    return high, low


def _mean_rho(predicted, ranks, groups):
    """Return Spearman's rho [unit] of ranks [clip, unit] within groups, averaged over groups in which both vary."""
    n_varied = np.zeros(ranks.shape[1])
    for rows in groups:
        n_varied += predicted[rows].any(0) & ranks[rows].any(0)
    return (predicted * ranks).sum(0) / np.where(n_varied > 0, n_varied, np.nan)


def _rho_by_speaker(predicted, ranks, groups):
    """Return Spearman's rho [speaker, unit] of ranks [clip, unit] within groups; NaN where either does not vary."""
    rho = np.full((len(groups), ranks.shape[1]), np.nan)
    for index, rows in enumerate(groups):
        varied = predicted[rows].any(0) & ranks[rows].any(0)
        rho[index] = np.where(varied, (predicted[rows] * ranks[rows]).sum(0), np.nan)
    return rho


def _word_p(activations, values, words):
    """Return one-sided p that a word goes with more activation, and with less, [unit, word] both; see `describe`."""
    speakers = units.tested_speakers(activations)
    if speakers is not None:
        t, freedom = _t_over_speakers(values, words, speakers)
    elif results.speakers_known(activations):
        recordings = units.speaker_rows(activations)
        recording_values = np.stack([values[rows].mean(0) for rows in recordings])
        recording_words = np.stack([words[rows].mean(0) for rows in recordings])
        t, freedom = _t_of_correlation(recording_values, recording_words)
    else:
        t, freedom = _t_of_correlation(values, words)
    return stats.t.sf(t, freedom), stats.t.cdf(t, freedom)


def _t_over_speakers(values, words, speakers):
    """Return t [unit, word] of the correlations within speakers, and its degrees of freedom."""
    count = np.zeros((values.shape[1], words.shape[1]))
    total = np.zeros_like(count)
    total_square = np.zeros_like(count)
    for rows in speakers:
        (correlations,) = units.correlate_within(values, words, [rows])
        finite = np.isfinite(correlations)
        correlations = np.where(finite, correlations, 0)
        count += finite
        total += correlations
        total_square += correlations**2

    n = np.where(count >= statistics.MIN_SPEAKERS, count, np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):  # the error is 0 where all speakers agree
        error = np.sqrt(np.maximum(total_square - total**2 / n, 0) / (n - 1) / n)
        t = np.where(total == 0, 0 * n, total / n / error)
    return t, n - 1


def _t_of_correlation(values, words):
    """Return t [unit, word] of the correlation over rows, recordings or clips, and its degrees of freedom."""
    (r,) = units.correlate_within(values, words, [np.arange(len(values))])
    freedom = len(values) - 2 if len(values) >= statistics.MIN_SPEAKERS else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # |r| is 1 where a word determines the activation
        t = r * np.sqrt(freedom / np.maximum(1 - r**2, 0))
    return t, freedom


def _captioned(activations, captions):
    """Return the activations of the clips that have a caption, and these captions."""
    n = activations.sizes["clip"]
    captions = captions.reindex(activations["clip"].to_numpy()).dropna()
    if captions.empty:
        raise ValueError("none of the clips has a caption: captions and clips must have the same index")
    if len(captions) < n / 2:
        warnings.warn(f"{n - len(captions)} of {n} clips have no caption and are left out", stacklevel=3)
    return activations.sel(clip=captions.index), captions
