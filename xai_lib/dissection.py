"""What each neuron responds to, said in words, and whether the words hold for speakers they were not written from.

After Audio Network Dissection: exemplars (the clips that drive a neuron most and least), a description from their
captions, and the concept of a given list that fits best (DB). Every score has a shuffled control beside it; for p
values captions are dealt out among the clips of each speaker, so that knowing the voice earns nothing.
"""

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.special import logsumexp, softmax

from . import descriptions, statistics, targets
from .activations import activations, exemplars, snippets
from .names import ordered

__all__ = ["activations", "card", "describe", "exemplars", "identify", "predictivity", "selectivity", "snippets"]


def describe(activations, captions, *, k=None, draws=20, seed=0) -> xr.Dataset:
    """Which words tell the captions of each neuron's high exemplars from those of its low ones.

    Parameters
    ----------
    activations : DataArray [clip, …]
    captions : Series by clip
    k : int, optional
        Exemplars at each end; a quarter of the clips unless told.

    Returns
    -------
    Dataset
        `z` […, word], see `descriptions.terms`; `null` [draw, …, word], the same with captions dealt out at random.
    """
    values, shape = _flat(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    k = min(k or max(len(values) // 4, 1), len(values) // 2)
    if k < 1:
        raise ValueError("a description needs two clips or more")
    order = np.argsort(values, axis=0, kind="stable")
    high, low = np.zeros((2, values.shape[1], len(values)))  # [unit, clip]: which clips are exemplars, 0 or 1
    np.put_along_axis(high, order[-k:].T, 1, axis=1)
    np.put_along_axis(low, order[:k].T, 1, axis=1)

    def z(counts):
        return shape(descriptions.terms(high @ counts, low @ counts, counts.sum(0)), "word", words["word"].values)

    null = [z(words.values[rows]) for rows in _shuffles([np.arange(len(values))], draws, seed)]
    return xr.Dataset({"z": z(words.values), "null": xr.concat(null, "draw")}, attrs={"k": k, "seed": seed})


def predictivity(activations, described, captions, *, least=1.96, draws=400, seed=0) -> xr.Dataset:
    """Whether descriptions foretell the activations of other clips: give clips of speakers not described from.

    A clip's caption is scored by the words that the description says (+1 each) and denies (−1 each), those of |z| from
    `least` up; the score is compared with the neuron's activation.

    Returns
    -------
    Dataset
        `rho` […], Spearman's correlation over the clips of a speaker, averaged over speakers, NaN where the description
        says nothing; `p` and `q`, its one-sided p value with the captions of these clips shuffled, and that at a false
        discovery rate over all neurons; two controls: `shuffled` [draw, …], rho of descriptions written from shuffled
        captions, and `other` […], of another neuron's of the layer.
    """
    values, shape = _flat(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    words = words.reindex(word=described["word"].values, fill_value=0).values

    groups = _groups(activations)
    ranks = _ranks(values, groups)

    def say(z):
        return _ranks(words @ (np.sign(z) * (np.abs(z) >= least)).reshape(-1, words.shape[1]).T, groups)

    def rho(said):
        varied = sum((np.abs(said[rows]).any(0) & np.abs(ranks[rows]).any(0)).astype(float) for rows in groups)
        return (said * ranks).sum(0) / np.where(varied > 0, varied, np.nan)

    own, as_good = say(described["z"].values), 0
    real = rho(own)
    for rows in _shuffles(groups, draws, seed):
        as_good = as_good + (rho(own[rows]) >= real - 1e-9)
    p = np.where(np.isnan(real), np.nan, (1 + as_good) / (1 + draws))
    # Each gets its neighbour's in a random ring, never its own.
    ring = np.random.default_rng(seed).permutation(described.sizes["neuron"])
    swapped = described["z"].values[..., np.roll(ring, 1)[np.argsort(ring)], :]
    parts = {"rho": real, "p": p, "q": statistics.fdr(p), "other": rho(say(swapped))}
    null = xr.concat([shape(rho(say(z))) for z in described["null"].values], "draw")
    return xr.Dataset(
        {**{name: shape(value) for name, value in parts.items()}, "shuffled": null},
        attrs={"least": least, "draws": draws, "seed": seed},
    )


def identify(activations, fit, *, similarity="cosine", top=None, draws=400, seed=0) -> xr.Dataset:
    """How well each concept of a list fits each neuron (DB: by the captions of the clips).

    Parameters
    ----------
    activations : DataArray [clip, …]
        All neurons that are to be compared: soft WPMI weighs a concept against how well it fits the others.
    fit : DataArray [clip, concept]
        How well each clip's caption fits each concept, 0 to 1: `descriptions.match`.
    similarity : {"cosine", "soft_wpmi"}
        "cosine" reads all clips and is centred over them (a correlation); the source's is not, and neurons that are
        always negative would then all be given the same concept. "soft_wpmi" reads the strongest clips only.
    top : int, optional
        Clips that soft WPMI reads: the source's 100, at most one in eight.

    Returns
    -------
    Dataset
        `score` […, concept]; `name` and `best` […], the concept that fits best and its score; `p` […], the share of
        draws, the real one among them, whose best score is as good with captions shuffled; `q`, that at a false
        discovery rate over all neurons.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; Oikarinen and Weng (2023), CLIP-Dissect, ICLR.
    """
    if similarity not in ("cosine", "soft_wpmi"):
        raise ValueError(f"unknown similarity {similarity!r}: known are cosine, soft_wpmi")
    values, shape = _flat(activations)
    fit = fit.sel(clip=activations["clip"].to_numpy()).transpose("clip", "concept")
    names = fit["concept"].values
    top = min(top or min(100, max(len(values) // 8, 1)), len(values))
    order = np.argsort(-values, axis=0, kind="stable")[:top]

    def score(fits):
        return cosine(fits, values) if similarity == "cosine" else soft_wpmi(fits, order)

    scores = score(fit.values)
    best, as_good = scores.max(-1), 0
    for rows in _shuffles(_groups(activations), draws, seed):
        as_good = as_good + (score(fit.values[rows]).max(-1) >= best - 1e-9)
    p = (1 + as_good) / (1 + draws)
    parts = {"name": names[scores.argmax(-1)].astype(object), "best": best, "p": p, "q": statistics.fdr(p)}
    return xr.Dataset(
        {"score": shape(scores, "concept", names), **{key: shape(x) for key, x in parts.items()}},
        attrs={"similarity": similarity, "draws": draws, "seed": seed},
    )


def cosine(fits, values) -> np.ndarray:
    """Cosine of activations [clip, neuron] and fits [clip, concept], both centred over clips: [neuron, concept]."""
    return statistics.unit(values).T @ statistics.unit(fits)


def soft_wpmi(fits, order) -> np.ndarray:
    """Soft weighted pointwise mutual information, over all neurons jointly: [neuron, concept].

    The sum over the clips of rank k of log(1 + p_k (s - 1)), where s is the softmax over concepts of 10 times the
    `fits` [clip, concept] and p_k falls from 0.998 to 0.97; less the log of its exponential's mean over neurons.
    `order` [rank, neuron] are each neuron's strongest clips, strongest first.

    References
    ----------
    Oikarinen and Weng (2023), CLIP-Dissect, ICLR, and its code: a = 10, lambda = 1.
    """
    probability = softmax(10 * fits, axis=1)
    members = 0.998 - np.arange(len(order)) / len(order) * (0.998 - 0.97)
    log = sum(np.log(1 + p * (probability - 1))[clips] for p, clips in zip(members, order))
    return log - (logsumexp(log, axis=0) - np.log(len(log)))


def selectivity(activations) -> xr.Dataset:
    """How well each neuron tells each label from the rest, within speakers.

    Returns
    -------
    Dataset over […, concept], the labels
        `mean`, the AUROC (0.5 is chance) averaged over speakers, with its interval `low` and `high`; `n` speakers; `p`
        of the rank-sum test stratified by speaker, about these speakers; from eight speakers up the greater of that and
        of a t test over speakers, about speakers at large; `q`, that over all neurons and labels at a false discovery
        rate.

    References
    ----------
    van Elteren (1960), On the combination of independent two sample tests of Wilcoxon.
    """
    labels = pd.Series(activations["label"].values).dropna()
    if labels.nunique() < 2:
        raise ValueError("selectivity needs clips of two labels or more")
    values, shape = _flat(activations)
    names = ordered(labels)
    said = (activations["label"].values[:, None] == np.array(names, object)).astype(float)
    auroc, variance = [], []
    for rows in _groups(activations):
        m, n = said[rows].sum(0), (1 - said[rows]).sum(0)
        pairs = np.where(m * n > 0, m * n, np.nan)
        auroc.append((stats.rankdata(values[rows], axis=0).T @ said[rows] - m * (m + 1) / 2) / pairs)
        variance.append((m + n + 1) / (12 * pairs))
    mean, low, high = statistics.interval(auroc)
    strata = np.isfinite(variance).sum(0)
    with np.errstate(invalid="ignore", divide="ignore"):  # speakers who all agree have no error: p is the other test's
        p = 2 * stats.norm.sf(np.abs(mean - 0.5) * strata / np.sqrt(np.nansum(variance, axis=0)))
        error = (high - mean) / stats.t.ppf(0.975, strata - 1)
        p = np.fmax(p, 2 * stats.t.sf(np.abs(mean - 0.5) / error, strata - 1))
    parts = {"mean": mean, "low": low, "high": high, "p": p, "q": statistics.fdr(p)}
    out = xr.Dataset({key: shape(value, "concept", names) for key, value in parts.items()})
    return out.assign(n=("concept", strata))


def card(layer, neuron, *, test, described, named, selective, held) -> dict:
    """All that is known of one neuron, for `plots.neuron_card`.

    The Datasets are of `activations` of clips not described from, `describe`, `identify`, `selectivity` and
    `predictivity`.
    """
    here = {"layer": layer, "neuron": neuron}
    z, null = described["z"].sel(here), np.abs(described["null"].sel(here)).max("word")
    return {
        **here,
        "z": z,
        "null_z": float(null.quantile(0.95)),
        "sentence": descriptions.sentence(z, least=held.attrs["least"]),
        "named": named.sel(here),
        "selective": selective.sel(here),
        "rho": float(held["rho"].sel(here)),
        "test": test["activation"].sel(here),
    }


def _flat(data):
    """Values as [clip, unit], and a function that gives [unit, …] the units' own dims back."""
    data = data.transpose("clip", ...)
    dims, sizes = data.dims[1:], data.shape[1:]
    known = {name: data[name].values for name in dims if name in data.coords}

    def shape(values, extra=None, names=None):
        values = np.asarray(values).reshape(*sizes, *([-1] if extra else []))
        coords = {**known, extra: names} if extra else known
        return xr.DataArray(values, dims=(*dims, *([extra] if extra else [])), coords=coords)

    return data.values.reshape(data.sizes["clip"], -1).astype(float), shape


def _groups(data) -> list:
    """Rows of each speaker; all in one where speakers are not known."""
    if not targets.speakers_known(data):
        return [np.arange(data.sizes["clip"])]
    return list(pd.Series(np.arange(data.sizes["clip"])).groupby(data["speaker"].values).apply(np.asarray))


def _shuffles(groups, draws, seed):
    """Row orders that deal things out at random within each group of rows."""
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        rows = np.arange(sum(map(len, groups)))
        for group in groups:
            rows[group] = rng.permutation(group)
        yield rows


def _ranks(x, groups) -> np.ndarray:
    """Ranks of each column within each group, centred, of norm 1, so that products are Spearman's; 0 if all alike."""
    out = np.zeros(x.shape)
    for rows in groups:
        out[rows] = statistics.unit(stats.rankdata(x[rows], axis=0))
    return out
