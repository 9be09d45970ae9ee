"""Descriptions of what each neuron responds to, in words, and how well they predict activations of other speakers.

After Audio Network Dissection: exemplars (the clips that activate a neuron most and least), a description from their
captions, and, from `concept_matching`, the concept of a given list that fits best. Every score has a shuffled control,
in which captions are permuted as in `concept_matching`: among the clips of each speaker, so that speaker identity alone
gains nothing.
"""

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from . import descriptions
from .concept_matching import (
    _comparison_groups,
    _correlations,
    _restricted_permutations,
    _speaker_rows,
    _tested_speakers,
    _unit_reshaper,
)


def describe(activations, captions, *, k=None, draws=20, seed=0) -> xr.Dataset:
    """Compute which words distinguish the captions of each neuron's high exemplars from those of its low ones.

    Parameters
    ----------
    activations : DataArray [clip, …]
    captions : Series by clip
        Clips without a caption (NaN) are left out.
    k : int, optional
        Exemplars at each end; default: a quarter of the clips.

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
    """
    activations, captions = _captioned(activations, captions)
    values, reshape = _flatten(activations)
    words = descriptions.counts(captions)
    k = min(k or max(len(values) // 4, 1), len(values) // 2)
    if k < 1:
        raise ValueError("a description needs at least two clips with captions")
    order = np.argsort(values, axis=0, kind="stable")
    high, low = np.zeros((2, values.shape[1], len(values)))  # [unit, clip]: which clips are exemplars, 0 or 1
    np.put_along_axis(high, order[-k:].T, 1, axis=1)
    np.put_along_axis(low, order[:k].T, 1, axis=1)

    def z_scores(counts):
        return reshape(descriptions.terms(high @ counts, low @ counts, counts.sum(0)), "word", words["word"].values)

    null_distribution = [z_scores(words.values[rows]) for rows in _restricted_permutations(activations, draws, seed)]
    observed = z_scores(words.values)
    above, below = _word_p(activations, values, words.values)
    one_sided = np.where(observed.values.reshape(above.shape) > 0, above, below)
    p = np.maximum(2 * stats.norm.sf(np.abs(observed)), np.minimum(2 * one_sided, 1).reshape(observed.shape))
    parts = {"z": observed, "chance": xr.concat(null_distribution, "draw"), "p": observed.copy(data=p)}
    parts["q"] = observed.copy(data=statistics.fdr(p))
    return xr.Dataset(parts, attrs={"k": k, "seed": seed})


def predictivity(activations, described, captions, *, min_z=1.96, draws=400, seed=0) -> xr.Dataset:
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

    Notes
    -----
    p is the greater of two: with the captions of these clips shuffled (`statistics.permutation_p`), which assumes the
    clips of a speaker to be alike only in their speaker; and of a t test over speakers of their rho, which does not,
    and is NaN, as p is then, where the description distinguishes clips of fewer than eight speakers. Recordings that
    are permuted as wholes are the units of the first, and it stands alone; so it does where speakers are not known.

    As in `identify`, emotions and sentences are treated as fixed: p refers to other speakers who say the same.
    """
    activations, captions = _captioned(activations, captions)
    values, reshape = _flatten(activations)
    words = descriptions.counts(captions)
    words = words.reindex(word=described["word"].values, fill_value=0).values

    groups = _comparison_groups(activations)
    ranks = _ranks(values, groups)

    def predicted_ranks(z):
        return _ranks(words @ (np.sign(z) * (np.abs(z) >= min_z)).reshape(-1, words.shape[1]).T, groups)

    def rho(predicted):
        varied = sum((np.abs(predicted[rows]).any(0) & np.abs(ranks[rows]).any(0)).astype(float) for rows in groups)
        return (predicted * ranks).sum(0) / np.where(varied > 0, varied, np.nan)

    def rho_by_speaker(predicted):  # [speaker, unit]
        correlations = np.array([(predicted[rows] * ranks[rows]).sum(0) for rows in groups])
        varied = np.array([predicted[rows].any(0) & ranks[rows].any(0) for rows in groups])
        return np.where(varied, correlations, np.nan)

    z = described["z"].values.reshape(values.shape[1], -1)
    predicted = predicted_ranks(z)
    observed = rho(predicted)
    row_orders = _restricted_permutations(activations, draws, seed)
    p = statistics.permutation_p(observed, (rho(predicted[rows])[None] for rows in row_orders))
    if _tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(rho_by_speaker(predicted)))
    swapped = z[_neighbours(_layer_ids(activations.isel(clip=0, drop=True)), seed)]
    parts = {"rho": observed, "p": p, "q": statistics.fdr(p), "other": rho(predicted_ranks(swapped))}
    null_distribution = xr.concat([reshape(rho(predicted_ranks(z))) for z in described["chance"].values], "draw")
    return xr.Dataset(
        {**{name: reshape(value) for name, value in parts.items()}, "shuffled": null_distribution},
        attrs={"min_z": min_z, "draws": draws, "seed": seed},
    )


def _word_p(activations, values, words):
    """Return one-sided p that a word goes with more activation, and with less, [unit, word] both; see `describe`."""
    speakers = _tested_speakers(activations)
    if speakers is not None:
        count, total, square = np.zeros((3, values.shape[1], words.shape[1]))
        for rows in speakers:
            (correlations,) = _correlations(values, words, [rows])
            finite = np.isfinite(correlations)
            count += finite
            total += np.where(finite, correlations, 0)
            square += np.where(finite, correlations, 0) ** 2
        n = np.where(count >= statistics.MIN_SPEAKERS, count, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):  # the error is 0 where all speakers agree
            error = np.sqrt(np.maximum(square - total**2 / n, 0) / (n - 1) / n)
            t = np.where(total == 0, 0 * n, total / n / error)
        return stats.t.sf(t, n - 1), stats.t.cdf(t, n - 1)
    if results.speakers_known(activations):
        recordings = _speaker_rows(activations)
        values, words = (np.stack([array[rows].mean(0) for rows in recordings]) for array in (values, words))
    (r,) = _correlations(values, words, [np.arange(len(values))])
    freedom = len(values) - 2 if len(values) >= statistics.MIN_SPEAKERS else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # |r| is 1 where a word determines the activation
        t = r * np.sqrt(freedom / np.maximum(1 - r**2, 0))
    return stats.t.sf(t, freedom), stats.t.cdf(t, freedom)


def _captioned(activations, captions):
    """Return the activations of the clips that have a caption, and these captions."""
    n = activations.sizes["clip"]
    captions = captions.reindex(activations["clip"].to_numpy()).dropna()
    if len(captions) < n / 2:
        if captions.empty:
            raise ValueError("none of the clips has a caption: captions and clips must have the same index")
        warnings.warn(f"{n - len(captions)} of {n} clips have no caption and are left out", stacklevel=3)
    return activations.sel(clip=captions.index), captions


def _flatten(data):
    """Return values as [clip, unit], and a function that gives [unit, …] the dims of the units."""
    data = results.as_activation(data).transpose("clip", ...)
    return data.values.reshape(data.sizes["clip"], -1).astype(float), _unit_reshaper(data)


def _ranks(values, groups) -> np.ndarray:
    """Rank each column within each group, centred, of norm 1, so that products are Spearman's; 0 if all are equal."""
    out = np.zeros(values.shape)
    for rows in groups:
        out[rows] = statistics.standardize(stats.rankdata(values[rows], axis=0))
    return out


def _layer_ids(template):
    """Return the number of the layer (and part) of each unit."""
    coordinates = [
        template[name].broadcast_like(template).transpose(*template.dims).values.ravel()
        for name in ("part", "layer")
        if name in template.coords
    ]
    return (
        pd.DataFrame(coordinates).T.groupby(list(range(len(coordinates)))).ngroup().to_numpy()
        if coordinates
        else np.zeros(template.size, int)
    )


def _neighbours(layer_ids, seed):
    """Return for each unit another unit of its layer: the next in a random ring."""
    order = np.random.default_rng(seed).permutation(len(layer_ids))
    order, neighbours = order[np.argsort(layer_ids[order], kind="stable")], np.empty(len(layer_ids), int)
    for ring in np.split(order, np.flatnonzero(np.diff(layer_ids[order])) + 1):
        neighbours[ring] = np.roll(ring, 1)
    return neighbours
