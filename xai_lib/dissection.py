"""What each neuron responds to, said in words, and whether the words hold on clips they were not written from.

After Audio Network Dissection: exemplars (the clips that drive a neuron most and least), a description from their
captions, and the concept of a given list that fits best (DB). Every score has a shuffled control beside it.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from . import descriptions, statistics
from .exemplars import activations, exemplars, snippets
from .names import EMOTIONS
from .similarity import SIMILARITIES

__all__ = ["card", "describe", "identify", "predictivity", "selectivity"]
__all__ += ["activations", "exemplars", "snippets"]  # of exemplars.py


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
        `z` […, word], see `descriptions.terms`; `null` [draw, …, word], the same with captions dealt out to clips
        at random.
    """
    values, shape = _flat(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    k = min(k or max(len(values) // 4, 1), len(values) // 2)
    if k < 1:
        raise ValueError("a description needs two clips or more")
    order = np.argsort(values, axis=0, kind="stable")
    high, low = (_members(o, len(values)) for o in (order[-k:], order[:k]))

    def z(counts):
        return descriptions.terms(high @ counts, low @ counts, counts.sum(0))

    rng = np.random.default_rng(seed)
    null = [z(words.values[rng.permutation(len(values))]) for _ in range(draws)]
    coords = {"word": words["word"].values}
    parts = {"z": shape(z(words.values), "word", coords), "null": _draws(null, shape, "word", coords)}
    return xr.Dataset(parts, attrs={"k": k, "draws": draws, "seed": seed})


def identify(activations, fit, *, similarity="soft_wpmi", top=None, draws=20, seed=0) -> xr.Dataset:
    """How well each concept of a list fits each neuron (DB: by the captions of the clips).

    Parameters
    ----------
    activations : DataArray [clip, …]
        All neurons that are to be compared: soft WPMI weighs a concept against how well it fits the others.
    fit : DataArray [clip, concept]
        How well each clip's caption fits each concept, 0 to 1: `descriptions.match`.
    similarity : {"cosine", "soft_wpmi"}
        "cosine" is centred over clips (a correlation); the source's is not, and neurons that are always negative
        would then all be given the same concept.
    top : int, optional
        Clips that soft WPMI reads: the source's 100, at most one in eight.

    Returns
    -------
    Dataset
        `score` […, concept]; `name` and `best` […], the concept that fits best and its score; `null` [draw, …],
        the best score with captions dealt out at random; `p` […], the share of draws as good (of the draws and the
        real one).

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; Oikarinen and Weng (2023), CLIP-Dissect, ICLR:
    soft WPMI with a = 10, lambda = 1, p from 0.998 to 0.97.
    """
    if similarity not in SIMILARITIES:
        raise ValueError(f"unknown similarity {similarity!r}: known are {', '.join(SIMILARITIES)}")
    values, shape = _flat(activations)
    fits = fit.sel(clip=activations["clip"].to_numpy())
    names = fits["concept"].values
    top = min(top or min(100, max(len(values) // 8, 1)), len(values))
    order = np.argsort(-values, axis=0, kind="stable")[:top]

    def score(fits):
        return SIMILARITIES[similarity](fits, values, order)

    rng = np.random.default_rng(seed)
    scores = score(fits.values)
    null = [score(fits.values[rng.permutation(len(values))]).max(-1) for _ in range(draws)]
    best = scores.max(-1)
    as_good = (np.array(null).reshape(draws, -1) >= best).sum(0)
    return xr.Dataset(
        {
            "score": shape(scores, "concept", {"concept": names}),
            "name": shape(names[scores.argmax(-1)].astype(object)),
            "best": shape(best),
            "null": _draws(null, shape),
            "p": shape((1 + as_good) / (1 + draws)),
        },
        attrs={"similarity": similarity, "top": top, "draws": draws, "seed": seed},
    )


def selectivity(activations) -> xr.Dataset:
    """How well each neuron tells each label from the rest, within speakers.

    Returns
    -------
    Dataset over […, concept], the labels
        `mean`, the AUROC (0.5 is chance) averaged over speakers, with its interval `low` and `high`; `n` speakers;
        `p` of the rank-sum test stratified by speaker; `q`, that over all neurons and labels at a false discovery
        rate.

    References
    ----------
    van Elteren (1960), On the combination of independent two sample tests of Wilcoxon.
    """
    labels = pd.Series(activations["label"].values).dropna()
    if labels.nunique() < 2:
        raise ValueError("selectivity needs clips of two labels or more")
    values, shape = _flat(activations)
    names = [name for name in EMOTIONS if name in set(labels)] + sorted(set(labels) - set(EMOTIONS))
    groups = _groups(activations)
    auroc = np.full((len(groups), values.shape[1], len(names)), np.nan)
    variance = np.full((len(groups), len(names)), np.nan)
    for i, rows in enumerate(groups):
        ranks, own = stats.rankdata(values[rows], axis=0), activations["label"].values[rows]
        for j, name in enumerate(names):
            m = int((own == name).sum())
            n = len(rows) - m
            if m and n:
                auroc[i, :, j] = (ranks[own == name].sum(0) - m * (m + 1) / 2) / (m * n)
                variance[i, j] = (m + n + 1) / (12 * m * n)
    mean, low, high = statistics.interval(auroc)
    strata = np.isfinite(variance).sum(0)
    z = (mean - 0.5) * strata / np.sqrt(np.nansum(variance, axis=0))
    p = 2 * stats.norm.sf(np.abs(z))
    parts = {"mean": mean, "low": low, "high": high, "p": p, "q": statistics.fdr(p)}
    out = xr.Dataset({key: shape(value, "concept", {"concept": names}) for key, value in parts.items()})
    return out.assign(n=("concept", strata))


def predictivity(activations, described, captions, *, least=1.96, seed=0) -> xr.Dataset:
    """Whether descriptions foretell the activations of other clips: give clips of people not described from.

    A clip's caption is scored by the words that the description says (+1 each) and denies (−1 each), those of
    |z| from `least` up; the score is compared with the neuron's activation.

    Returns
    -------
    Dataset
        `rho` […], Spearman's correlation over all clips, NaN where the description says nothing; `within`, `low` and
        `high` […], its mean over speakers, each taken alone, with the interval; two controls: `shuffled` [draw, …],
        rho of descriptions written from captions dealt out at random, and `other` […], of another neuron's of
        the layer.
    """
    values, shape = _flat(activations)
    words = descriptions.counts(captions.loc[activations["clip"].to_numpy()])
    words = words.reindex(word=described["word"].values, fill_value=0).values

    def say(z):
        return words @ (np.sign(z) * (np.abs(z) >= least)).reshape(-1, words.shape[1]).T

    own, by = say(described["z"].values), stats.rankdata(values, axis=0)
    rng = np.random.default_rng(seed)
    swapped = described["z"].values[..., rng.permutation(described.sizes["neuron"]), :]
    each = [_correlation(own[rows], values[rows]) for rows in _groups(activations)]
    mean, low, high = statistics.interval(np.array(each))
    null = [_correlation(say(draw), by) for draw in described["null"].values]
    parts = {"rho": _correlation(own, by), "other": _correlation(say(swapped), by)}
    parts |= {"within": mean, "low": low, "high": high}
    return xr.Dataset(
        {**{name: shape(value) for name, value in parts.items()}, "shuffled": _draws(null, shape)},
        attrs={"least": least, "seed": seed},
    )


def card(layer, neuron, *, train, test, captions, described, named, selective, held, k=3) -> dict:
    """All that is known of one neuron, for `plots.neuron_card` and the explorer.

    Parameters
    ----------
    train, test : Dataset
        Of `activations`.
    captions : Series
    described, named, selective, held : Dataset
        Of `describe`, `identify`, `selectivity` and `predictivity`.
    """
    here = {"layer": layer, "neuron": neuron}
    shown = exemplars(train["activation"], layer, neuron, k)
    return {
        **here,
        "sentence": descriptions.sentence(described["z"].sel(here), least=held.attrs["least"]),
        "z": described["z"].sel(here),
        "null_z": float(np.quantile(np.abs(described["null"].sel(here)).max("word"), 0.95)),
        "concept": str(named["name"].sel(here).item()),
        "score": named["score"].sel(here),
        "p": float(named["p"].sel(here)),
        "selective": selective.sel(here),
        "rho": float(held["rho"].sel(here)),
        "test": test["activation"].sel(here),
        "exemplars": shown.assign(caption=captions.reindex(shown.index).to_numpy()),
    }


def _flat(data):
    """Values as [clip, unit], and a function that gives [unit, …] the units' own dims back."""
    data = data.transpose("clip", ...)
    dims, sizes = data.dims[1:], data.shape[1:]
    known = {name: data[name].values for name in dims if name in data.coords}

    def shape(values, extra=None, coords=None):
        values = np.asarray(values).reshape(*sizes, *([-1] if extra else []))
        return xr.DataArray(values, dims=(*dims, *([extra] if extra else [])), coords={**known, **(coords or {})})

    return data.values.reshape(data.sizes["clip"], -1).astype(float), shape


def _draws(values, shape, *extra):
    """Shaped draws of a null, one after the other."""
    return xr.concat([shape(value, *extra) for value in values], "draw") if values else shape(np.nan)


def _members(order, n):
    """Which clips are among each unit's: [unit, clip], 0 or 1."""
    out = np.zeros((order.shape[1], n))
    out[np.arange(order.shape[1])[:, None], order.T] = 1
    return out


def _groups(data) -> list:
    """Rows of each speaker; all in one where speakers are not known."""
    if "speaker" not in data.coords or pd.isna(data["speaker"].values).any():
        return [np.arange(data.sizes["clip"])]
    return list(pd.Series(np.arange(data.sizes["clip"])).groupby(data["speaker"].values).apply(np.asarray))


def _correlation(a, b) -> np.ndarray:
    """Spearman's correlation of each column; NaN where one does not vary."""
    a, b = (stats.rankdata(x, axis=0) for x in (a, b))
    a, b = a - a.mean(0), b - b.mean(0)
    norm = np.sqrt((a**2).sum(0) * (b**2).sum(0))
    return np.divide((a * b).sum(0), norm, out=np.full(a.shape[1], np.nan), where=norm > 0)
