"""Uninterpretable neurons: those whose strongest clips have no kind of caption sentence in common."""

from __future__ import annotations

import json
import warnings
from collections.abc import Callable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from .. import statistics
from . import units
from .descriptions import text_analysis


def uninterpretable(
    captions: pd.Series,
    activations: xr.DataArray,
    *,
    encoder: Callable,
    k: int | Sequence[int] = 5,
    tau: int | Sequence[int] = (3, 4, 5),
    clusters: int | Sequence[int] = 11,
    draws: int = 100,
    seed: int = 0,
) -> xr.Dataset:
    """Compute the share of neurons in each layer whose strongest clips share no cluster of caption sentences.

    The sentences of all captions are clustered (k-means). A neuron is interpretable if some cluster holds a sentence of
    `tau` or more of the `k` clips that activate it most. The share is compared with that of random clips.

    Parameters
    ----------
    captions : Series of str by clip
        A clip without a caption is left out, and named in a warning and `attrs["skipped"]`.
    activations : DataArray [clip, …]
    encoder : callable
        Returns unit vectors [text, dim] of a list of texts.
    k, tau, clusters : int or sequence of int
        The result has one entry for each combination, to show how it depends on these settings.

    Returns
    -------
    Dataset
        `share` [clusters, k, tau, layer] (and part); NaN where tau exceeds k. `chance` [draw, …], the same with
        captions permuted as in `concept_matching`, among the clips of each speaker: each neuron gets k random clips of
        the speakers of its own clips, and neurons that share clips still do.
        `difference` of the share from the chance level (the mean of `chance`), `low` and `high`, between which it lies
        in 95 % of further draws, and `p` of `statistics.prediction_test`: they compare the share with chance for these
        clips and captions, and do not generalise to other clips or speakers. They assume clips of a speaker to be alike
        only in their speaker; where those of one emotion are alike in both activation and caption, more neurons are
        interpretable than with captions permuted clip by clip, although nothing relates the two, and p is too small.
        `support` [clusters, k, layer, neuron] (and part), how many of its k clips each neuron's best cluster holds, NaN
        for a neuron whose activation is constant, which counts in no share.

    Raises
    ------
    ValueError
        If there are fewer clips with a caption than `k`, or fewer distinct sentences than `clusters`.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; the null distribution and the seeds are additions.
    """
    ks = np.atleast_1d(k).tolist()
    taus = np.atleast_1d(tau).tolist()
    cluster_counts = np.atleast_1d(clusters).tolist()
    clips = activations["clip"].values
    sentences_by_clip = {clip: list(dict.fromkeys(text_analysis.sentences(captions.get(clip)))) for clip in clips}
    skipped = {str(clip): "it has no caption" for clip, sentences in sentences_by_clip.items() if not sentences}
    if skipped:
        names = ", ".join(skipped)[:500]
        warnings.warn(f"{len(skipped)} clips have no caption and are left out: {names}", stacklevel=2)

    # The random order breaks ties of activations.
    has_caption = [bool(sentences_by_clip[clip]) for clip in clips]
    captioned = np.random.default_rng(seed).permutation(np.flatnonzero(has_caption))
    if len(captioned) < max(ks):
        raise ValueError(
            f"{len(captioned)} clips have a caption, and k is {max(ks)}: choose a smaller k, or caption more clips"
        )
    distinct = sorted(set().union(*sentences_by_clip.values()))
    if len(distinct) < max(cluster_counts):
        raise ValueError(
            f"{len(distinct)} distinct sentences are too few for {max(cluster_counts)} clusters: choose fewer clusters"
        )
    has_sentence = _sentence_matrix([sentences_by_clip[clip] for clip in clips[captioned]], distinct)
    vectors = np.asarray(encoder(distinct), float)

    values = units.flatten(activations)[captioned]
    template = units.unit_template(activations)
    strongest = np.argsort(-values, axis=0, kind="stable")  # [clip, unit]
    is_constant = np.ptp(values, axis=0) == 0
    # The 1 keeps these draws apart from that of the order above.
    row_orders = list(units.restricted_permutations(activations["clip"][captioned], draws, [seed, 1]))

    by_clusters = []
    for n_clusters in cluster_counts:
        in_cluster = _cluster_clips(vectors, has_sentence, n_clusters, seed)
        by_k = []
        for size in ks:
            by_k.append(_compare_with_chance(in_cluster, strongest[:size], is_constant, taus, row_orders, template))
        by_clusters.append(xr.concat(by_k, pd.Index(ks, name="k")))
    result = xr.concat(by_clusters, pd.Index(cluster_counts, name="clusters"))

    share = result["share"]
    chance = result["chance"].transpose("draw", ...)
    mean, low, high = units.prediction_band(chance.values)
    variables = {
        "share": share,
        "chance": chance,
        "difference": share - mean,
        "low": share - high,
        "high": share - low,
        "p": share.copy(data=statistics.prediction_test(share.values, chance.values)),
        "support": result["support"],
    }
    attrs = {"skipped": json.dumps(skipped), "sentences": len(distinct), "clips": len(captioned), "seed": seed}
    return xr.Dataset(variables, attrs=attrs)


def _sentence_matrix(sentences_by_clip, distinct):
    """Return which of the distinct sentences each clip has, 0 or 1, [clip, sentence]."""
    columns = {text: column for column, text in enumerate(distinct)}
    has_sentence = np.zeros((len(sentences_by_clip), len(distinct)))
    for row, sentences in enumerate(sentences_by_clip):
        has_sentence[row, [columns[text] for text in sentences]] = 1
    return has_sentence


def _cluster_clips(vectors, has_sentence, n_clusters, seed):
    """Cluster sentences by k-means, and return which clips have a sentence of each cluster, 0 or 1, [clip, cluster]."""
    from sklearn.cluster import KMeans

    k_means = KMeans(n_clusters, n_init=10, random_state=seed)
    cluster_of_sentence = k_means.fit_predict(vectors, sample_weight=has_sentence.sum(0))
    is_of_cluster = cluster_of_sentence[:, None] == np.arange(n_clusters)  # [sentence, cluster]
    return (has_sentence @ is_of_cluster > 0).astype(np.int16)


def _compare_with_chance(in_cluster, strongest, is_constant, taus, row_orders, template) -> xr.Dataset:
    """Return support and share by the strongest clips [clip, unit], and the share with captions in other orders."""
    size = len(strongest)
    support = _support(in_cluster, strongest, is_constant)
    null_distribution = []
    for order in row_orders:
        support_of_draw = _support(in_cluster[order], strongest, is_constant)
        null_distribution.append(_uninterpretable_share(template, support_of_draw, taus, size))
    variables = {
        "share": _uninterpretable_share(template, support, taus, size),
        "chance": xr.concat(null_distribution, "draw"),
        "support": units.unstack(units.unit_array(template, support)),
    }
    return xr.Dataset(variables)


def _support(in_cluster, strongest, is_constant):
    """Return how many of a unit's strongest clips [clip, unit] its best cluster holds, [unit]; NaN if it is constant.

    `in_cluster` [clip, cluster] says which clips have a sentence of each cluster.
    """
    n_in_cluster = in_cluster[strongest].sum(0)  # [unit, cluster]
    return np.where(is_constant, np.nan, n_in_cluster.max(-1))


def _uninterpretable_share(template, support, taus, size):
    """Return the share of neurons with less support than tau, by tau and layer; NaN for tau over `size`."""
    taus = np.array(taus)
    undefined = np.isnan(support)[:, None] | (taus > size)
    is_below = np.where(undefined, np.nan, support[:, None] < taus)
    return units.layer_means(units.unit_array(template, is_below, tau=taus))
