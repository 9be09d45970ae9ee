"""How many neurons cannot be put into words: those whose strongest clips have no kind of sentence in common."""

import json
import warnings

import numpy as np
import xarray as xr

from .. import statistics
from .adjectives import _band, _by_place
from .concept_matching import _deals
from .description_tests import _flat, _like
from .descriptions import text_analysis


def uninterpretable(
    captions, activations, *, encoder, k=5, tau=(3, 4, 5), clusters=11, draws=100, seed=0
) -> xr.Dataset:
    """Share of neurons in each layer whose strongest clips share no cluster of caption sentences, beside random clips.

    The sentences of all captions are clustered (k-means). A neuron is interpretable if some cluster holds a sentence of
    `tau` or more of the `k` clips that drive it most.

    Parameters
    ----------
    captions : Series of str by clip
        A clip without one is left out, and named in a warning and `attrs["skipped"]`.
    activations : DataArray [clip, …]
    encoder : callable
        Unit vectors [text, dim] of a list of texts.
    k, tau, clusters : int or sequence of int
        How the answer depends on these choices is part of it.

    Returns
    -------
    Dataset
        `share` [clusters, k, tau, layer] (and part); NaN where tau exceeds k. `null` [draw, …], the same with captions
        dealt out as in `naming`, among the clips of each speaker: each neuron has k random clips of the speakers that it
        has, and neurons that share clips still do.
        `difference` of the share from the null's mean, `low` and `high`, between which it lies in 95 % of further draws
        of the null, and `p` of `statistics.null_test`: they tell the share from chance with these clips and captions,
        and know nothing of other clips or speakers. They take clips of a speaker to be alike only in who speaks; where
        those of one emotion are alike in neuron and caption both, more neurons are interpretable than with captions
        dealt out clip by clip, though nothing relates the two, and p is too small. `support` [clusters, k, layer,
        neuron] (and part), how many of its k clips each neuron's best cluster holds, NaN for one that never changes,
        which counts in no share.

    Raises
    ------
    ValueError
        There are fewer clips with a caption than `k`, or fewer different sentences than `clusters`.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; the null and the seeds are ours.
    """
    from sklearn.cluster import KMeans

    ks, taus, counts = ([x] if np.ndim(x) == 0 else list(x) for x in (k, tau, clusters))
    clips = activations["clip"].values
    said = {clip: list(dict.fromkeys(text_analysis.sentences(captions.get(clip)))) for clip in clips}
    skipped = {str(clip): "it has no caption" for clip, own in said.items() if not own}
    if skipped:
        warnings.warn(
            f"{len(skipped)} clips have no caption and are left out: {', '.join(skipped)[:500]}", stacklevel=2
        )
    rng = np.random.default_rng(seed)
    kept = rng.permutation(np.flatnonzero([bool(said[clip]) for clip in clips]))  # ties are broken at random
    if len(kept) < max(ks):
        raise ValueError(f"{len(kept)} clips have a caption, and k is {max(ks)}: choose fewer, or caption more")
    distinct = sorted(set().union(*said.values()))
    if len(distinct) < max(counts):
        raise ValueError(f"{len(distinct)} different sentences make no {max(counts)} clusters: choose fewer")
    place = {text: at for at, text in enumerate(distinct)}
    member = np.zeros((len(kept), len(distinct)))  # which sentences each clip has
    for row, clip in enumerate(clips[kept]):
        member[row, [place[text] for text in said[clip]]] = 1
    vectors = np.asarray(encoder(distinct), float)

    values, template = _flat(activations)
    values = values[kept]
    order, dead = np.argsort(-values, axis=0, kind="stable"), np.ptp(values, axis=0) == 0
    # The 1 keeps these draws apart from that of the order above.
    dealt = [np.arange(len(kept)), *_deals(activations["clip"][kept], draws, [seed, 1])]
    support, missed = [], []
    for n in counts:
        found = KMeans(n, n_init=10, random_state=seed).fit_predict(vectors, sample_weight=member.sum(0))
        holds = (member @ (found[:, None] == np.arange(n)) > 0).astype(np.int16)  # [clip, cluster]
        for size in ks:
            best = [np.where(dead, np.nan, holds[rows][order[:size]].sum(0).max(-1)) for rows in dealt]
            support.append(best[0])
            missed.append([_by_place(_like(template, _missed(one, taus, size), tau=taus)) for one in best])
    shape, axes = (len(counts), len(ks)), {"clusters": counts, "k": ks}
    first = missed[0][0]
    missed = np.reshape(missed, (*shape, len(dealt), *first.shape))
    shares = xr.DataArray(missed, first.coords.assign(axes), ("clusters", "k", "draw", *first.dims))
    share, null = shares.isel(draw=0), shares.isel(draw=slice(1, None))
    null = null.transpose("draw", ...)
    mean, low, high = _band(null.values)
    parts = {"difference": share - mean, "low": share - high, "high": share - low}
    parts["p"] = share.copy(data=statistics.null_test(share.values, null.values))
    values = np.reshape(support, (*shape, *template.shape))
    support = xr.DataArray(values, template.coords.assign(axes), (*axes, *template.dims))
    support = support.unstack("unit") if "unit" in support.dims else support
    about = {"skipped": json.dumps(skipped), "sentences": len(distinct), "clips": len(kept), "seed": seed}
    return xr.Dataset({"share": share, "null": null, **parts, "support": support}, attrs=about)


def _missed(best, taus, size):
    """1 where a neuron is not interpretable, [unit, tau]."""
    nothing = np.isnan(best)[:, None] | (np.array(taus) > size)
    return np.where(nothing, np.nan, best[:, None] < np.array(taus))
