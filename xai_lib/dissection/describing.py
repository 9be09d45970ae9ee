"""What each neuron responds to, said in words, and whether the words hold for speakers they were not written from.

After Audio Network Dissection: exemplars (the clips that drive a neuron most and least), a description from their
captions, and, of `naming`, the concept of a given list that fits best. Every score has a shuffled control beside it, in
which captions are dealt out as in `naming`: among the clips of each speaker, so that knowing the voice earns nothing.
"""

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from . import descriptions
from .concept_matching import _correlations, _deals, _groups, _shape, _speakers, _tested_speakers


def describe(activations, captions, *, k=None, draws=20, seed=0) -> xr.Dataset:
    """Which words tell the captions of each neuron's high exemplars from those of its low ones.

    Parameters
    ----------
    activations : DataArray [clip, …]
    captions : Series by clip
        Clips without one (NaN) are left out.
    k : int, optional
        Exemplars at each end; a quarter of the clips unless told.

    Returns
    -------
    Dataset
        `z` […, word], see `descriptions.terms`; `null` [draw, …, word], the same with captions dealt out at random among
        the clips of each speaker, or by whole recordings: a neuron that knows voices only is described in both. `p` […,
        word], two-sided, see below; `q`, that at a false discovery rate over all neurons and words.

    Notes
    -----
    z chooses words and is no test: it takes clips as independent, so |z| ≥ 1.96 may come in well over 5 % of neurons
    that know nothing, where a speaker's clips of one emotion are alike in neuron and caption; and `null`, in which
    captions are dealt out clip by clip, has fewer such words than these neurons do. p is that of z, or, where greater,
    that of the correlation of activation and word in the direction of z: a t test over speakers of the correlations
    within each, NaN with fewer than eight; where recordings are dealt out as wholes or speakers are not known, that
    between the means of recordings or between clips, from eight up. As in `identify`, emotions and sentences are taken
    as fixed.
    """
    activations, captions = _captioned(activations, captions)
    values, shape = _flat(activations)
    words = descriptions.counts(captions)
    k = min(k or max(len(values) // 4, 1), len(values) // 2)
    if k < 1:
        raise ValueError("a description needs two clips or more")
    order = np.argsort(values, axis=0, kind="stable")
    high, low = np.zeros((2, values.shape[1], len(values)))  # [unit, clip]: which clips are exemplars, 0 or 1
    np.put_along_axis(high, order[-k:].T, 1, axis=1)
    np.put_along_axis(low, order[:k].T, 1, axis=1)

    def z(counts):
        return shape(descriptions.terms(high @ counts, low @ counts, counts.sum(0)), "word", words["word"].values)

    null = [z(words.values[rows]) for rows in _deals(activations, draws, seed)]
    real = z(words.values)
    above, below = _word_p(activations, values, words.values)
    against = np.where(real.values.reshape(above.shape) > 0, above, below)
    p = np.maximum(2 * stats.norm.sf(np.abs(real)), np.minimum(2 * against, 1).reshape(real.shape))
    parts = {"z": real, "null": xr.concat(null, "draw"), "p": real.copy(data=p)}
    parts["q"] = real.copy(data=statistics.fdr(p))
    return xr.Dataset(parts, attrs={"k": k, "seed": seed})


def predictivity(activations, described, captions, *, least=1.96, draws=400, seed=0) -> xr.Dataset:
    """Whether descriptions foretell the activations of other clips: give clips of speakers not described from.

    A clip's caption is scored by the words that the description says (+1 each) and denies (−1 each), those of |z| from
    `least` up; the score is compared with the neuron's activation.

    Returns
    -------
    Dataset
        `rho` […], Spearman's correlation over the clips of a speaker, averaged over speakers, NaN where the description
        says nothing; `p`, one-sided, see below; `q`, that at a false discovery rate over all neurons; two controls:
        `shuffled` [draw, …], rho of descriptions written from shuffled captions, and `other` […], of another neuron's of
        the layer.

    Notes
    -----
    p is the greater of two: with the captions of these clips shuffled (`statistics.permutation_p`), which takes the
    clips of a speaker to be alike only in who speaks; and of a t test over speakers of their rho, which does not, and is
    NaN, as p is then, where the description tells clips of fewer than eight speakers apart. Recordings that are dealt out as
    wholes are the units of the first, and it stands alone; so it does where speakers are not known.

    As in `identify`, emotions and sentences are taken as fixed: p is about other speakers who say the same.
    """
    activations, captions = _captioned(activations, captions)
    values, shape = _flat(activations)
    words = descriptions.counts(captions)
    words = words.reindex(word=described["word"].values, fill_value=0).values

    groups = _groups(activations)
    ranks = _ranks(values, groups)

    def say(z):
        return _ranks(words @ (np.sign(z) * (np.abs(z) >= least)).reshape(-1, words.shape[1]).T, groups)

    def rho(said):
        varied = sum((np.abs(said[rows]).any(0) & np.abs(ranks[rows]).any(0)).astype(float) for rows in groups)
        return (said * ranks).sum(0) / np.where(varied > 0, varied, np.nan)

    def by_speaker(said):  # [speaker, unit]
        each = np.array([(said[rows] * ranks[rows]).sum(0) for rows in groups])
        varied = np.array([said[rows].any(0) & ranks[rows].any(0) for rows in groups])
        return np.where(varied, each, np.nan)

    z = described["z"].values.reshape(values.shape[1], -1)
    own = say(z)
    real = rho(own)
    p = statistics.permutation_p(real, (rho(own[rows])[None] for rows in _deals(activations, draws, seed)))
    if _tested_speakers(activations) is not None:
        p = np.maximum(p, statistics.t_test_above(by_speaker(own)))
    swapped = z[_neighbours(_places(activations.isel(clip=0, drop=True)), seed)]
    parts = {"rho": real, "p": p, "q": statistics.fdr(p), "other": rho(say(swapped))}
    null = xr.concat([shape(rho(say(z))) for z in described["null"].values], "draw")
    return xr.Dataset(
        {**{name: shape(value) for name, value in parts.items()}, "shuffled": null},
        attrs={"least": least, "draws": draws, "seed": seed},
    )


def _word_p(activations, values, words):
    """One-sided p that a word goes with more activation, and with less, [unit, word] both; see `describe`."""
    speakers = _tested_speakers(activations)
    if speakers is not None:
        count, total, square = np.zeros((3, values.shape[1], words.shape[1]))
        for rows in speakers:
            (each,) = _correlations(values, words, [rows])
            known = np.isfinite(each)
            count += known
            total += np.where(known, each, 0)
            square += np.where(known, each, 0) ** 2
        n = np.where(count >= statistics.FEWEST, count, np.nan)
        with np.errstate(divide="ignore", invalid="ignore"):  # speakers who all agree
            error = np.sqrt(np.maximum(square - total**2 / n, 0) / (n - 1) / n)
            t = np.where(total == 0, 0 * n, total / n / error)
        return stats.t.sf(t, n - 1), stats.t.cdf(t, n - 1)
    if results.speakers_known(activations):
        recordings = _speakers(activations)
        values, words = (np.stack([x[rows].mean(0) for rows in recordings]) for x in (values, words))
    (r,) = _correlations(values, words, [np.arange(len(values))])
    freedom = len(values) - 2 if len(values) >= statistics.FEWEST else np.nan
    with np.errstate(divide="ignore", invalid="ignore"):  # a word that says it all
        t = r * np.sqrt(freedom / np.maximum(1 - r**2, 0))
    return stats.t.sf(t, freedom), stats.t.cdf(t, freedom)


def _captioned(activations, captions):
    """Activations of the clips that have a caption, and these."""
    n = activations.sizes["clip"]
    captions = captions.reindex(activations["clip"].to_numpy()).dropna()
    if len(captions) < n / 2:
        if captions.empty:
            raise ValueError("not one of these clips has a caption: is the index of the captions that of the clips?")
        warnings.warn(f"{n - len(captions)} of {n} clips have no caption and are left out", stacklevel=3)
    return activations.sel(clip=captions.index), captions


def _flat(data):
    """Values as [clip, unit], and a function that gives [unit, …] the units' own dims back."""
    data = results.activity(data).transpose("clip", ...)
    return data.values.reshape(data.sizes["clip"], -1).astype(float), _shape(data)


def _ranks(x, groups) -> np.ndarray:
    """Ranks of each column within each group, centred, of norm 1, so that products are Spearman's; 0 if all alike."""
    out = np.zeros(x.shape)
    for rows in groups:
        out[rows] = statistics.unit(stats.rankdata(x[rows], axis=0))
    return out


def _places(template):
    """Number of the layer (and part) that each unit is of."""
    known = [
        template[name].broadcast_like(template).transpose(*template.dims).values.ravel()
        for name in ("part", "layer")
        if name in template.coords
    ]
    return (
        pd.DataFrame(known).T.groupby(list(range(len(known)))).ngroup().to_numpy()
        if known
        else np.zeros(template.size, int)
    )


def _neighbours(places, seed):
    """For each unit another of its layer: the next in a random ring."""
    order = np.random.default_rng(seed).permutation(len(places))
    order, after = order[np.argsort(places[order], kind="stable")], np.empty(len(places), int)
    for ring in np.split(order, np.flatnonzero(np.diff(places[order])) + 1):
        after[ring] = np.roll(ring, 1)
    return after
