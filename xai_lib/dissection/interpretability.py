"""Uninterpretable neurons: those whose strongest clips have no kind of caption sentence in common."""

import json
import warnings

import numpy as np
import xarray as xr

from .. import statistics
from .concept_matching import _restricted_permutations
from .description_tests import _flatten, _like
from .descriptions import text_analysis
from .open_concepts import _layer_means, _prediction_band


def uninterpretable(
    captions, activations, *, encoder, k=5, tau=(3, 4, 5), clusters=11, draws=100, seed=0
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
    from sklearn.cluster import KMeans

    ks, taus, cluster_counts = ([value] if np.ndim(value) == 0 else list(value) for value in (k, tau, clusters))
    clips = activations["clip"].values
    sentences_by_clip = {clip: list(dict.fromkeys(text_analysis.sentences(captions.get(clip)))) for clip in clips}
    skipped = {str(clip): "it has no caption" for clip, sentences in sentences_by_clip.items() if not sentences}
    if skipped:
        warnings.warn(
            f"{len(skipped)} clips have no caption and are left out: {', '.join(skipped)[:500]}", stacklevel=2
        )
    rng = np.random.default_rng(seed)
    # The random order breaks ties of activations.
    captioned = rng.permutation(np.flatnonzero([bool(sentences_by_clip[clip]) for clip in clips]))
    if len(captioned) < max(ks):
        raise ValueError(
            f"{len(captioned)} clips have a caption, and k is {max(ks)}: choose a smaller k, or caption more clips"
        )
    distinct = sorted(set().union(*sentences_by_clip.values()))
    if len(distinct) < max(cluster_counts):
        raise ValueError(
            f"{len(distinct)} distinct sentences are too few for {max(cluster_counts)} clusters: choose fewer clusters"
        )
    column_by_sentence = {text: column for column, text in enumerate(distinct)}
    member = np.zeros((len(captioned), len(distinct)))  # which sentences each clip has
    for row, clip in enumerate(clips[captioned]):
        member[row, [column_by_sentence[text] for text in sentences_by_clip[clip]]] = 1
    vectors = np.asarray(encoder(distinct), float)

    values, template = _flatten(activations)
    values = values[captioned]
    order, constant = np.argsort(-values, axis=0, kind="stable"), np.ptp(values, axis=0) == 0
    # The 1 keeps these draws apart from that of the order above.
    row_orders = [
        np.arange(len(captioned)),
        *_restricted_permutations(activations["clip"][captioned], draws, [seed, 1]),
    ]
    support, layer_shares = [], []
    for n in cluster_counts:
        cluster = KMeans(n, n_init=10, random_state=seed).fit_predict(vectors, sample_weight=member.sum(0))
        holds = (member @ (cluster[:, None] == np.arange(n)) > 0).astype(np.int16)  # [clip, cluster]
        for size in ks:
            best = [np.where(constant, np.nan, holds[rows][order[:size]].sum(0).max(-1)) for rows in row_orders]
            support.append(best[0])
            layer_shares.append(
                [_layer_means(_like(template, _below_tau(draw, taus, size), tau=taus)) for draw in best]
            )
    shape, axes = (len(cluster_counts), len(ks)), {"clusters": cluster_counts, "k": ks}
    first = layer_shares[0][0]
    layer_shares = np.reshape(layer_shares, (*shape, len(row_orders), *first.shape))
    shares = xr.DataArray(layer_shares, first.coords.assign(axes), ("clusters", "k", "draw", *first.dims))
    share, null_distribution = shares.isel(draw=0), shares.isel(draw=slice(1, None))
    null_distribution = null_distribution.transpose("draw", ...)
    mean, low, high = _prediction_band(null_distribution.values)
    parts = {"difference": share - mean, "low": share - high, "high": share - low}
    parts["p"] = share.copy(data=statistics.prediction_test(share.values, null_distribution.values))
    values = np.reshape(support, (*shape, *template.shape))
    support = xr.DataArray(values, template.coords.assign(axes), (*axes, *template.dims))
    support = support.unstack("unit") if "unit" in support.dims else support
    attrs = {"skipped": json.dumps(skipped), "sentences": len(distinct), "clips": len(captioned), "seed": seed}
    return xr.Dataset({"share": share, "chance": null_distribution, **parts, "support": support}, attrs=attrs)


def _below_tau(best, taus, size):
    """Return 1 where a neuron is not interpretable, else 0, [unit, tau]; NaN for constant neurons and tau over size."""
    undefined = np.isnan(best)[:, None] | (np.array(taus) > size)
    return np.where(undefined, np.nan, best[:, None] < np.array(taus))
