"""Which concept of a closed list each neuron responds to, beside what comes out when nothing can.

After Audio Network Dissection: DB by the captions of the clips, TAB by their sound, ICL by a language model that reads a
description of the neuron. The controls deal captions, or sounds, out among the clips of each speaker, so that knowing
the voice earns nothing; where each speaker, or source of sounds, has clips of one label only, among speakers as wholes,
those with as many clips (`statistics.deals`). Clips without a coordinate `speaker` are taken as independent.
"""

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.special import softmax

from .. import corpora, results, statistics
from . import descriptions, similarity_measures
from .descriptions import encoders, language_models
from .descriptions.vocabulary import each

BEST = 5  # names told of each neuron
PRIOR = 100  # draws, at most, of what a neuron is weighed against for its p


def concept_fit(concepts, *, captions=None, clips=None, encoder=None) -> xr.DataArray:
    """How well each clip fits each concept, [clip, concept], by its caption (DB) or its sound (TAB).

    Parameters
    ----------
    concepts : Series of str
        Descriptions by name, such as `descriptions.concepts("esc50")`.
    captions : Series of str by clip, optional
        Clips without a caption (NaN) are left out. By TF-IDF the fit is the cosine with the description, 0 to 1; by an
        `encoder` of texts, as published, the softmax over concepts of 100 times their cosine, as the cosines of such
        encoders hardly differ.
    clips : DataFrame, optional
        With an `encoder` of sounds and texts, an `encoders.AcousticSpace` of these clips unless told: the cosine.
    """
    if (captions is None) == (clips is None):
        raise ValueError("give captions= (DB) or clips= (TAB), one of the two")
    if captions is None and encoder is None:
        if not {"path", "audio"} & set(clips):
            raise ValueError(
                "clips has no column path: with a table of features, give encoder=descriptions.AcousticSpace(table)"
            )
        clips = corpora.features_table(clips, skipped={})
        encoder = encoders.AcousticSpace(clips)
    if captions is None:
        return descriptions.match_sound(clips, concepts, encoder)
    fit = descriptions.match(captions.dropna(), concepts, encoder)
    return fit if encoder is None else fit.copy(data=softmax(100 * fit.values, axis=1))


def identify(
    activations,
    fit=None,
    *,
    method="DB",
    similarity="cosine",
    concepts=None,
    captions=None,
    clips=None,
    encoder=None,
    summaries=None,
    llm=None,
    top=None,
    draws=400,
    seed=0,
) -> xr.Dataset:
    """How well each concept of a list fits each neuron.

    Parameters
    ----------
    activations : DataArray [clip, …]
        All neurons that are to be compared, in memory or in a file: mutual information weighs a concept against how
        well it fits the others.
    fit : DataArray [clip, concept], optional
        How well each clip fits each concept, where it is made already.
    method : {"DB", "TAB", "ICL"}
        Otherwise it is made by `concept_fit` of `concepts` and the `captions` (DB), or of `concepts` and the `clips`
        (TAB), by an `encoder`. ICL needs no fit: the language model `llm` chooses from `concepts` by the `summaries`,
        a description of each neuron, [layer, neuron] or in their order.
    similarity : {"cosine", "cosine_cubed", "rank_reorder", "wpmi", "soft_wpmi"}
        See `similarities`; which is best is chosen on other clips: `choose`. The first two read all clips, the others
        the strongest `top`, the published number unless told.
    draws : int
        Each costs about what the scores themselves do, and 1 / (1 + draws) is the smallest p: that of 2,000 clips ×
        55,000 neurons × 50 concepts takes a second or two, by rank reorder twenty. The test over speakers takes ten
        seconds more, once. 0: no controls, p is NaN.

    Returns
    -------
    Dataset
        `score` […, concept] (ICL: 1 / rank of what was chosen, else 0); `name` and `best` […], the concept that fits best
        and its score; `top` […, rank], the five that fit best. Controls: `null` […], the best score with captions or
        sounds shuffled, averaged over draws; `shuffled` [within, …, concept], the share of draws in which a concept is
        the best, or within the best five; `p` […], see below; `q`, that at a false discovery rate over all neurons.

    Notes
    -----
    p is the greater of two. Over clips: the share of draws, the real one among them, whose best score is as good. That
    takes clips of a speaker to be alike only in who speaks, and is too small where a speaker's clips of one emotion are
    alike in neuron and caption both. So, over speakers: the correlation of the activation with the fit of the concept
    that is named, within each speaker, is tested to be above 0 on average, with the concept chosen anew in every draw
    (`statistics.chosen_test`, whichever the similarity: by rank reorder and mutual information, whose best concept need
    not be the one that correlates most, p is rather too large). p is NaN where fewer than eight speakers tell. Where
    recordings are dealt out as wholes they are the units of the first already, and it stands alone; as it does where
    speakers are not known, and clips are taken to be independent.

    p is about other speakers with the same emotions and the same sentences: where a few sentences are said by all, a
    neuron and a concept that both follow the sentence go together in every speaker, and no test over speakers tells
    that from anything else. Likewise of a drift that all speakers share.

    For p of mutual information, the real fit and each shuffled one are weighed against what the neuron's own clips fit
    when shuffled, the mean of further draws, and not against other neurons: one of many alike would be held to its
    copies, the shuffled not.

    An answer of ICL that is no concept is none, "", and its p is NaN. What is shuffled there are the descriptions among
    the neurons: p is the share of neurons of that name.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; Oikarinen and Weng (2023), CLIP-Dissect, ICLR.
    """
    activations = results.activity(activations).transpose("clip", ...)
    if method == "ICL":
        return _asked(activations, summaries, concepts, llm)
    if method not in ("DB", "TAB"):
        raise ValueError(f"unknown method {method!r}: known are DB, TAB, ICL")
    if fit is None:
        given = {"captions": captions} if method == "DB" else {"clips": clips}
        if concepts is None or any(x is None for x in given.values()):
            raise ValueError(f"{method} needs concepts= and {next(iter(given))}=, or a fit that is made already")
        fit = concept_fit(concepts, **given, encoder=encoder)
    known = np.flatnonzero(activations.indexes["clip"].isin(fit["clip"].values))
    if len(known) < 2:
        raise ValueError("fewer than two clips have both activations and a caption or sound")
    activations = activations if len(known) == activations.sizes["clip"] else activations.isel(clip=known)
    fit = fit.sel(clip=activations["clip"].to_numpy()).transpose("clip", "concept")
    options = {"top": top} if top and not similarity.startswith("cosine") else {}
    raw, usual = similarity_measures.reader(similarity, activations, **options)
    found = raw(fit.values)
    scores, prior = found - usual(found), 0
    if np.ndim(usual(found)):
        further = min(draws, PRIOR)
        # The 1 keeps these draws apart from those of p.
        prior = sum(raw(fit.values[rows]) for rows in _deals(activations, further, [seed, 1])) / max(further, 1)
    real = (found - prior).max(-1)
    margin = 1e-6 * np.maximum(np.abs(real), 1)  # ties that rounding broke
    as_good, null, chosen = 0, 0, np.zeros((2, *scores.shape), np.float32)
    for rows in _deals(activations, draws, seed):
        found = raw(fit.values[rows])
        as_good = as_good + ((found - prior).max(-1) >= real - margin)
        found = found - usual(found)
        null, leading = null + found.max(-1), _leading(found)
        for share, places in zip(chosen, (leading[:, :1], leading)):
            share[np.arange(len(leading))[:, None], places] += 1
    many = draws or np.nan
    attrs = {"method": method, "similarity": similarity, "draws": draws, "seed": seed}
    p, null = (np.broadcast_to(x, real.shape) for x in ((1 + as_good) / (1 + many), null / many))
    leading = _leading(scores)
    if draws:
        p = _over_speakers(p, activations, fit.values, leading[:, 0], draws, seed)
    return _result(activations, fit["concept"].values, scores, leading, p, null, chosen / many, attrs)


def accuracy(named, truth=None, *, concepts=None, encoder=None) -> pd.DataFrame:
    """How many neurons are named rightly where the right name is known, as of the outputs of a classifier.

    Parameters
    ----------
    named : Dataset
        Of `identify`.
    truth : sequence of str, optional
        The right concept of each neuron; its own name (`target` of logits) unless told.
    concepts : Series of str, optional
        Descriptions by name, whose cosine is reported; names stand for themselves unless told.
    encoder : callable, optional
        Of these texts; TF-IDF unless told.

    Returns
    -------
    DataFrame by measure, `top1`, `top5`, and `cosine` of the name's text with that of the right one (of none: 0)
        `value` with its interval `low` and `high` (Wilson's; of the cosine Student's, over eight neurons or more), by
        `guessing` among all concepts alike, and as it is `shuffled`; `n` neurons.
    """
    score = named["score"]
    names = score["concept"].values.astype(str).tolist()
    if truth is None:
        truth = score[score.dims[0]].values
    truth = np.ravel(truth).astype(str).tolist()
    lost = sorted(set(truth) - set(names))
    if lost or len(truth) != score[..., 0].size:
        raise ValueError(f"truth must be one of the concepts for each neuron; not concepts are: {', '.join(lost[:10])}")
    right, n = np.array([names.index(name) for name in truth]), len(names)
    told = [[names.index(x) if x else -1 for x in row] for row in named["top"].values.reshape(len(truth), -1)]
    texts = names if concepts is None else [str(concepts[name]) for name in names]
    vectors = np.asarray((encoder or encoders.tfidf(texts))([text.replace("_", " ") for text in texts]))
    near = np.vstack([vectors @ vectors.T, np.zeros(n)])[:, right]  # none, the last row, is near nothing
    dealt = named["shuffled"].values.reshape(2, len(truth), n)
    rows = {}
    for at, within in enumerate((1, min(BEST, n))):
        hits = sum(want in row[:within] for want, row in zip(right, told))
        interval = stats.binomtest(hits, len(right)).proportion_ci(method="wilson")
        shuffled = dealt[at][np.arange(len(right)), right].mean()
        rows[f"top{(1, BEST)[at]}"] = (hits / len(right), *interval, within / n, shuffled)
    cosines = near[[row[0] for row in told], np.arange(len(right))]
    rows["cosine"] = (*statistics.interval(cosines), near[:n].mean(), (dealt[0].T * near[:n]).sum(0).mean())
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "guessing", "shuffled"])
    return table.assign(n=len(right)).rename_axis("measure")


def choose(activations, fit, truth=None, *, among=tuple(similarity_measures.FUNCTIONS)) -> pd.DataFrame:
    """Which similarity function names most neurons rightly, on clips on which nothing is reported afterwards.

    Returns
    -------
    DataFrame by similarity, best first
        `top1` and `top5` of `accuracy`: by the first, then the second, then the order in which they are told. The choice
        is `.index[0]`.
    """
    rows = {}
    for name in among:
        found = accuracy(identify(activations, fit, similarity=name, draws=0), truth)["value"]
        rows[name] = found[["top1", "top5"]]
    return pd.DataFrame(rows).T.sort_values(["top1", "top5"], ascending=False, kind="stable").rename_axis("similarity")


def _over_speakers(p, activations, fits, named, draws, seed):
    """The greater of `p` and that over speakers of the concepts named, [unit] both; `p` where speakers are no units."""
    speakers = _tested_speakers(activations)
    if speakers is None:
        return p
    found, start = [], 0
    for block in similarity_measures.blocks(activations, size=2**22):
        here = named[start : start + block.shape[1]]
        found.append(statistics.chosen_test(_correlations(block, fits, speakers), here, draws=draws, seed=seed))
        start += block.shape[1]
    return np.maximum(p, np.concatenate(found))


def _correlations(values, fits, groups):
    """Correlation of values [clip, unit] and fits [clip, concept] within each group, [group, unit, concept].

    NaN where either is the same in all clips of a group.
    """
    out = np.full((len(groups), values.shape[1], fits.shape[1]), np.nan, values.dtype)
    for place, rows in enumerate(groups):
        own, theirs = (similarity_measures.unit(x[rows]).astype(values.dtype) for x in (values, fits))
        varies = own.any(axis=0)[:, None] & theirs.any(axis=0)
        out[place] = np.where(varies, own.T @ theirs, np.nan)
    return out


def _asked(activations, summaries, concepts, llm) -> xr.Dataset:
    """ICL: the concepts that a language model finds in the description of each neuron."""
    if summaries is None or concepts is None:
        raise ValueError("ICL needs summaries=, a description of each neuron, and concepts=")
    if llm is None:
        raise ValueError(
            "ICL needs a language model, llm=descriptions.LLM(…) or Endpoint(…): without one nothing is guessed"
        )
    if isinstance(summaries, xr.DataArray):
        summaries = summaries.transpose(*activations.dims[1:])
    texts, names = np.ravel(summaries), concepts.index.to_numpy().astype(str)
    if len(texts) != activations[0].size:
        raise ValueError(
            f"{len(texts)} descriptions for {activations[0].size} neurons: give one for each, in their order"
        )
    k, said = min(BEST, len(names)), [isinstance(text, str) and bool(text.strip()) for text in texts]
    asked = {text: text for text in texts[said]}  # alike descriptions are asked of once
    answers = each(lambda text: language_models.choose(llm, text, concepts, k), asked.items(), "descriptions")
    place = {name: at for at, name in enumerate(names)}
    none = [None] * k
    found = [answers[text] if ok and isinstance(answers[text], list) else none for text, ok in zip(texts, said)]
    leading = np.array([[place.get(name, -1) for name in row] for row in found])
    scores = np.zeros((len(texts), len(names) + 1))  # the last is none
    np.put_along_axis(scores, leading, 1 / (1 + np.arange(k)), 1)
    scores = scores[:, :-1]
    first = (leading[:, :1] == np.arange(len(names))).mean(0)
    chosen = np.stack([np.tile(share, (len(texts), 1)) for share in (first, (scores > 0).mean(0))])
    p = np.where(leading[:, 0] >= 0, np.append(first, np.nan)[leading[:, 0]], np.nan)
    attrs = {"method": "ICL", "similarity": "", "draws": 0, "seed": 0}
    return _result(activations, names, scores, leading, p, np.full(len(p), np.nan), chosen, attrs)


def _result(activations, names, scores, leading, p, null, chosen, attrs) -> xr.Dataset:
    """What `identify` returns; the `leading` concepts [unit, rank] by place, −1 for none."""
    shape, top = _shape(activations), np.append(names.astype(object), "")[leading]
    best = np.where(leading[:, 0] >= 0, scores[np.arange(len(scores)), leading[:, 0]], np.nan)
    parts = {"name": top[:, 0], "best": best, "null": null, "p": p, "q": statistics.fdr(p)}
    shuffled = xr.concat([shape(one, "concept", names) for one in chosen], pd.Index((1, BEST), name="within"))
    every = {"score": shape(scores, "concept", names), "top": shape(top, "rank", 1 + np.arange(top.shape[1]))}
    return xr.Dataset({**every, **{key: shape(x) for key, x in parts.items()}, "shuffled": shuffled}, attrs=attrs)


def _leading(scores) -> np.ndarray:
    """Places of the best concepts, best first, [unit, rank]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :BEST]


def _shape(data):
    """A function that gives values [unit] or [unit, extra] the dims and coordinates of the units of `data` back."""
    template = data.transpose("clip", ...).isel(clip=0, drop=True).reset_coords(drop=True)
    told = {"chosen_on": results.heard(data)}  # whose clips scores rest on, for `pruning.compare`

    def shape(values, extra=None, names=None):
        values = np.asarray(values).reshape(*template.shape, *([-1] if extra else []))
        coords = template.coords.assign({extra: names}) if extra else template.coords
        return xr.DataArray(values, coords, (*template.dims, *([extra] if extra else [])), attrs=told)

    return shape


def _speakers(data) -> list:
    """Rows of each speaker; all in one, with a warning, where speakers are not known."""
    if not results.speakers_known(data):
        warnings.warn("the speakers are not known: clips are taken to be independent of each other", stacklevel=4)
        return [np.arange(data.sizes["clip"])]
    return list(pd.Series(np.arange(data.sizes["clip"])).groupby(data["speaker"].values).apply(np.asarray))


def _groups(data) -> list:
    """Rows within which clips are compared: a speaker's, but all where no speaker has two clips that differ in label.

    So it is with recordings of sounds, each source of which makes one.
    """
    groups, every = _speakers(data), np.arange(data.sizes["clip"])
    labels = data["label"].values if "label" in data.coords else every
    return groups if any(len(pd.unique(labels[rows])) > 1 for rows in groups) else [every]


def _tested_speakers(data):
    """Rows of each speaker, where a test over speakers can be made; None where clips or whole recordings are the units.

    That is where speakers are not known, and where none has two clips that differ in label.
    """
    if not results.speakers_known(data):
        return None
    groups = _groups(data)
    return groups if len(groups) == len(_speakers(data)) else None


def _deals(data, draws, seed):
    """Row orders that deal things out within `_groups`; where those are all clips, by whole speakers."""
    if not draws:
        return []
    speakers = _speakers(data)
    return statistics.deals(speakers, draws, seed, whole=len(_groups(data)) < len(speakers))
