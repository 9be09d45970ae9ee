"""Concept matching: the concept of a closed list that each neuron responds to, compared with the chance level.

After Audio Network Dissection: DB uses the captions of the clips, TAB their sound, ICL a language model that reads a
description of the neuron. The controls shuffle captions, or sounds, among the clips of each speaker, so that speaker
identity alone gains nothing; where each speaker, or recording, has clips of one label only, whole speakers are permuted
among those with equally many clips (`statistics.restricted_permutations`). Clips without a coordinate `speaker` are
treated as independent.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats
from scipy.special import softmax

from .. import corpora, results, statistics
from . import descriptions, similarity_measures, units
from .descriptions import encoders, language_models
from .descriptions.vocabulary import each

N_BEST = 5  # concepts returned for each neuron
NO_CONCEPT = -1  # index of an answer that is not a concept
MAX_BASELINE_DRAWS = 100  # maximum number of draws for the baseline that a neuron is compared with for its p

DEFAULT_SCORING = {"similarity": "cosine", "top": None, "draws": 400, "seed": 0}  # of `identify`, for fits
NEEDS = {
    "DB": "DB needs concepts= and captions=, or fit= as returned by concept_fit",
    "TAB": "TAB needs concepts= and clips=, or fit= as returned by concept_fit",
    "ICL": "ICL needs summaries=, a description of each neuron, and concepts=",
}


def concept_fit(
    concepts: pd.Series,
    *,
    captions: pd.Series | None = None,
    clips: pd.DataFrame | None = None,
    encoder: Callable | None = None,
) -> xr.DataArray:
    """Compute how well each clip fits each concept, [clip, concept], by its caption (DB) or its sound (TAB).

    Parameters
    ----------
    concepts : Series of str
        Descriptions by name, such as `descriptions.concepts("esc50")`.
    captions : Series of str by clip, optional
        Clips without a caption (NaN) are left out. With TF-IDF the fit is the cosine with the description, 0 to 1; with
        an `encoder` of texts, as published, the softmax over concepts of 100 times their cosine, as the cosines of such
        encoders hardly differ.
    clips : DataFrame, optional
        With an `encoder` of sounds and texts (default: an `encoders.AcousticSpace` of these clips) the fit is the
        cosine.
    """
    if (captions is None) == (clips is None):
        raise ValueError("give captions= (DB) or clips= (TAB), one of the two")
    if captions is not None:
        return _fit_of_captions(captions, concepts, encoder)
    return _fit_of_sound(clips, concepts, encoder)


def identify(
    activations: xr.DataArray,
    fit: xr.DataArray | None = None,
    *,
    method: str = "DB",
    similarity: str = "cosine",
    concepts: pd.Series | None = None,
    captions: pd.Series | None = None,
    clips: pd.DataFrame | None = None,
    encoder: Callable | None = None,
    summaries: Sequence[str] | xr.DataArray | None = None,
    llm=None,
    top: int | None = None,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Compute how well each concept of a list fits each neuron.

    Parameters
    ----------
    activations : DataArray [clip, …]
        All neurons to be compared, in memory or in a file: mutual information compares how well a concept fits a neuron
        with how well it fits the others.
    fit : DataArray [clip, concept], optional
        How well each clip fits each concept, as returned by `concept_fit`.
    method : {"DB", "TAB", "ICL"}
        Without `fit`, it is computed by `concept_fit` from `concepts` and the `captions` (DB), or from `concepts` and
        the `clips` (TAB), with an `encoder`. ICL needs no fit: the language model `llm` selects from `concepts` by the
        `summaries`, a description of each neuron, [layer, neuron] or in their order. See `match_by_captions`,
        `match_by_sound` and `match_by_language_model`.
    similarity : {"cosine", "cosine_cubed", "rank_reorder", "wpmi", "soft_wpmi"}
        See `similarity_measures`; to select the best on other clips, see `choose`. The first two read all clips, the
        others the strongest `top` (default: the published number).
    draws : int
        Each costs about as much as the scores themselves, and 1 / (1 + draws) is the smallest p: that of 2,000 clips ×
        55,000 neurons × 50 concepts takes a second or two, by rank reorder twenty. The test over speakers takes ten
        seconds more, once. 0: no controls, p is NaN.

    Returns
    -------
    Dataset
        `score` […, concept] (ICL: 1 / rank of the answer, else 0); `name` and `best` […], the concept that fits best
        and its score; `top` […, rank], the five that fit best. Controls: `chance` […], the chance level: the best score
        with captions or sounds shuffled, averaged over draws; `shuffled` [within, …, concept], the share of draws in
        which a concept is the best, or within the best five; `p` […], see below; `q`, that at a false discovery rate
        over all neurons.

    Raises
    ------
    ValueError
        If an option is missing that the method needs, or one is given that it does not use.

    Notes
    -----
    p is the greater of two. Over clips: the share of draws, the observed one among them, whose best score is as good.
    That assumes clips of a speaker to be alike only in their speaker, and is too small where a speaker's clips of one
    emotion are alike in both activation and caption. So, over speakers: the correlation of the activation with the fit
    of the concept that is named, within each speaker, is tested to be above 0 on average, with the concept selected
    anew in every draw (`statistics.selection_test`, whichever the similarity: by rank reorder and mutual information,
    whose best concept need not be the one that correlates most, p is rather too large). p is NaN where the correlation
    is defined for fewer than eight speakers. Where whole recordings are permuted, these are already the units of the
    first p, and it stands alone; so it does where speakers are not known, and clips are treated as independent.

    p refers to other speakers with the same emotions and the same sentences: where a few sentences are spoken by all, a
    neuron and a concept that both follow the sentence are correlated in every speaker, and no test over speakers
    distinguishes that from anything else. The same holds for a drift that all speakers share.

    For p of mutual information, the observed fit and each shuffled one are compared with what the neuron's own clips
    fit when shuffled, the mean of further draws, and not with other neurons: one of many similar neurons would be
    compared with its copies, the shuffled ones not.

    An answer of ICL that is not a concept counts as none, "", and its p is NaN. With ICL the descriptions are shuffled
    among the neurons: p is the share of neurons of that name.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML; Oikarinen and Weng (2023), CLIP-Dissect, ICLR.
    """
    scoring = {"similarity": similarity, "top": top, "draws": draws, "seed": seed}
    if method == "DB":
        _refuse_options(method, clips=clips, summaries=summaries, llm=llm)
        return match_by_captions(activations, fit, concepts=concepts, captions=captions, encoder=encoder, **scoring)
    if method == "TAB":
        _refuse_options(method, captions=captions, summaries=summaries, llm=llm)
        return match_by_sound(activations, fit, concepts=concepts, clips=clips, encoder=encoder, **scoring)
    if method == "ICL":
        changed = {name: value for name, value in scoring.items() if value != DEFAULT_SCORING[name]}
        _refuse_options(method, fit=fit, captions=captions, clips=clips, encoder=encoder, **changed)
        return match_by_language_model(activations, summaries, concepts, llm)
    raise ValueError(f"unknown method {method!r}: known are {', '.join(NEEDS)}")


def match_by_captions(
    activations: xr.DataArray,
    fit: xr.DataArray | None = None,
    *,
    concepts: pd.Series | None = None,
    captions: pd.Series | None = None,
    encoder: Callable | None = None,
    similarity: str = "cosine",
    top: int | None = None,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Compute how well each concept fits each neuron by the captions of the clips (DB); parameters as in `identify`."""
    if fit is None:
        if concepts is None or captions is None:
            raise ValueError(NEEDS["DB"])
        fit = concept_fit(concepts, captions=captions, encoder=encoder)
    return _match_by_fit(activations, fit, "DB", similarity, top, draws, seed)


def match_by_sound(
    activations: xr.DataArray,
    fit: xr.DataArray | None = None,
    *,
    concepts: pd.Series | None = None,
    clips: pd.DataFrame | None = None,
    encoder: Callable | None = None,
    similarity: str = "cosine",
    top: int | None = None,
    draws: int = 400,
    seed: int = 0,
) -> xr.Dataset:
    """Compute how well each concept fits each neuron by the sound of the clips (TAB); parameters as in `identify`."""
    if fit is None:
        if concepts is None or clips is None:
            raise ValueError(NEEDS["TAB"])
        fit = concept_fit(concepts, clips=clips, encoder=encoder)
    return _match_by_fit(activations, fit, "TAB", similarity, top, draws, seed)


def match_by_language_model(
    activations: xr.DataArray, summaries: Sequence[str] | xr.DataArray, concepts: pd.Series, llm
) -> xr.Dataset:
    """Compute which concepts a language model selects for each neuron by its summary (ICL), as `identify` does.

    Of the activations, only the dims and coordinates are used.
    """
    if summaries is None or concepts is None:
        raise ValueError(NEEDS["ICL"])
    if llm is None:
        raise ValueError("ICL needs a language model: give llm=descriptions.LLM(…) or llm=descriptions.Endpoint(…)")
    template = units.selection_template(activations)
    texts = _text_of_units(summaries, template)
    names = concepts.index.to_numpy().astype(str)

    best = _answers_of_language_model(llm, texts, concepts, names)
    scores = _reciprocal_ranks(best, len(names))

    # Descriptions are shuffled among neurons: each neuron gets a concept as often as there are neurons with it.
    share_first = (best[:, :1] == np.arange(len(names))).mean(0)
    share_within = (scores > 0).mean(0)
    is_named = best[:, 0] != NO_CONCEPT
    p = np.full(len(texts), np.nan)
    p[is_named] = share_first[best[is_named, 0]]
    controls = _Controls(
        p=p,
        chance=np.full(len(texts), np.nan),
        share_first=np.tile(share_first, (len(texts), 1)),
        share_within=np.tile(share_within, (len(texts), 1)),
    )
    attrs = {"method": "ICL", "similarity": "", "draws": 0, "seed": 0}
    return _assemble(template, names, scores, best, controls, attrs)


def accuracy(
    named: xr.Dataset,
    truth: Sequence[str] | None = None,
    *,
    concepts: pd.Series | None = None,
    encoder: Callable | None = None,
) -> pd.DataFrame:
    """Compute how many neurons are named correctly where the correct name is known, as for outputs of a classifier.

    Parameters
    ----------
    named : Dataset
        As returned by `identify`.
    truth : sequence of str, optional
        The correct concept of each neuron; default: its own name (`target` of logits).
    concepts : Series of str, optional
        Descriptions by name, whose cosine is reported; default: the names themselves.
    encoder : callable, optional
        Encoder of these texts; default: TF-IDF.

    Returns
    -------
    DataFrame by measure, `top1`, `top5`, and `cosine` of the name's text with that of the correct one (of none: 0)
        `value` with its interval `low` and `high` (Wilson's; of the cosine Student's, over eight neurons or more), its
        expectation when `guessing` uniformly among all concepts, and its value when `shuffled`; `n` neurons.
    """
    score = named["score"]
    names = score["concept"].values.astype(str).tolist()
    truth = score[score.dims[0]].values if truth is None else truth
    truth = np.ravel(truth).astype(str).tolist()
    unknown = sorted(set(truth) - set(names))
    if unknown or len(truth) != score[..., 0].size:
        raise ValueError(
            f"truth must hold one of the concepts for each neuron; unknown concepts: {', '.join(unknown[:10])}"
        )
    indices = np.arange(len(truth))
    true_concepts = np.array([names.index(name) for name in truth])
    top_concepts = _concept_indices(named["top"].values.reshape(len(truth), -1), names)

    rows = {}
    for within in (1, N_BEST):
        n_guesses = min(within, len(names))
        hits = int((top_concepts[:, :n_guesses] == true_concepts[:, None]).any(1).sum())
        low, high = stats.binomtest(hits, len(truth)).proportion_ci(method="wilson")
        shuffled_share = named["shuffled"].sel(within=within).values.reshape(len(truth), -1)
        rows[f"top{within}"] = {
            "value": hits / len(truth),
            "low": low,
            "high": high,
            "guessing": n_guesses / len(names),
            "shuffled": shuffled_share[indices, true_concepts].mean(),
        }

    texts = names if concepts is None else [str(concepts[name]) for name in names]
    cosine_to_truth = _text_cosines(texts, encoder)[:, true_concepts]  # [concept, unit]; the last row is of no concept
    value, low, high = statistics.interval(cosine_to_truth[top_concepts[:, 0], indices])
    shuffled_share = named["shuffled"].sel(within=1).values.reshape(len(truth), -1)
    cosine_of_concepts = cosine_to_truth[: len(names)]
    rows["cosine"] = {
        "value": value,
        "low": low,
        "high": high,
        "guessing": cosine_of_concepts.mean(),
        "shuffled": (shuffled_share.T * cosine_of_concepts).sum(0).mean(),
    }
    return pd.DataFrame.from_dict(rows, orient="index").assign(n=len(truth)).rename_axis("measure")


def choose(
    activations: xr.DataArray,
    fit: xr.DataArray,
    truth: Sequence[str] | None = None,
    *,
    among: Sequence[str] = tuple(similarity_measures.FUNCTIONS),
) -> pd.DataFrame:
    """Compare how many neurons each similarity function names correctly, on clips that no later result is reported on.

    Returns
    -------
    DataFrame by similarity, best first
        `top1` and `top5` of `accuracy`: sorted by the first, then the second, then the order of `among`. The similarity
        to use is `.index[0]`.
    """
    rows = {}
    for name in among:
        accuracies = accuracy(identify(activations, fit, similarity=name, draws=0), truth)["value"]
        rows[name] = accuracies[["top1", "top5"]]
    return pd.DataFrame(rows).T.sort_values(["top1", "top5"], ascending=False, kind="stable").rename_axis("similarity")


@dataclass(frozen=True)
class _Controls:
    """What chance does: p and the chance level [unit], and in how many draws a concept is the best, or within five."""

    p: np.ndarray
    chance: np.ndarray
    share_first: np.ndarray  # [unit, concept]
    share_within: np.ndarray  # [unit, concept]


def _refuse_options(method, **options):
    """Raise ValueError if an option is given that the method does not use."""
    unused = [f"{name}=" for name, value in options.items() if value is not None]
    if unused:
        raise ValueError(f"{NEEDS[method]}; it does not use {', '.join(unused)}")


def _fit_of_captions(captions, concepts, encoder):
    """Return the fit of captions to concepts [clip, concept]; with an encoder, the softmax of its cosines."""
    fit = descriptions.match(captions.dropna(), concepts, encoder)
    if encoder is None:
        return fit
    return fit.copy(data=softmax(100 * fit.values, axis=1))


def _fit_of_sound(clips, concepts, encoder):
    """Return the fit of the sound of clips to concepts [clip, concept]."""
    if encoder is None:
        if not {"path", "audio"} & set(clips):
            raise ValueError(
                "clips has no column path: with a table of features, give encoder=descriptions.AcousticSpace(table)"
            )
        clips = corpora.features_table(clips, skipped={})
        encoder = encoders.AcousticSpace(clips)
    return descriptions.match_sound(clips, concepts, encoder)


def _match_by_fit(activations, fit, method, similarity, top, draws, seed) -> xr.Dataset:
    """Score each concept for each neuron by the fit of clips to concepts, and compare with shuffled fits."""
    activations = results.as_activation(activations).transpose("clip", ...)
    activations, fit = _select_common_clips(activations, fit)
    options = {"top": top} if top and not similarity.startswith("cosine") else {}
    score, baseline = similarity_measures.scorer(similarity, activations, **options)

    raw = score(fit.values)
    scores = raw - baseline(raw)
    best = _best_concepts(scores)
    if draws:
        selected = best[:, 0]
        controls = _shuffle_fits(score, baseline, raw, activations, fit.values, selected, draws, seed)
    else:
        controls = _undefined_controls(scores.shape)

    attrs = {"method": method, "similarity": similarity, "draws": draws, "seed": seed}
    template = units.selection_template(activations)
    return _assemble(template, fit["concept"].values, scores, best, controls, attrs)


def _select_common_clips(activations, fit):
    """Return activations and fit of the clips that have both, in the order of the activations."""
    matched = np.flatnonzero(activations.indexes["clip"].isin(fit["clip"].values))
    if len(matched) < 2:
        raise ValueError("fewer than two clips have both activations and a caption or sound")
    if len(matched) < activations.sizes["clip"]:
        activations = activations.isel(clip=matched)
    return activations, fit.sel(clip=activations["clip"].to_numpy()).transpose("clip", "concept")


def _shuffle_fits(score, baseline, raw, activations, fits, selected, draws, seed) -> _Controls:
    """Score the fits [clip, concept] with clips shuffled, and compare with the observed raw scores [unit, concept]."""
    expected = 0  # p compares raw scores with what the neuron's own clips score when shuffled
    if np.ndim(baseline(raw)):
        expected = _mean_shuffled_score(score, activations, fits, min(draws, MAX_BASELINE_DRAWS), seed)
    observed = (raw - expected).max(-1)
    margin = 1e-6 * np.maximum(np.abs(observed), 1)  # ties broken by rounding

    rows = np.arange(len(raw))[:, None]
    n_as_good = np.zeros(len(raw), int)
    total = 0  # of the best scores
    n_first = np.zeros(raw.shape, np.float32)
    n_within = np.zeros(raw.shape, np.float32)
    for order in units.restricted_permutations(activations, draws, seed):
        shuffled_raw = score(fits[order])
        n_as_good += (shuffled_raw - expected).max(-1) >= observed - margin

        shuffled = shuffled_raw - baseline(shuffled_raw)
        total = total + shuffled.max(-1)
        best = _best_concepts(shuffled)
        n_first[rows, best[:, :1]] += 1
        n_within[rows, best] += 1

    p_over_clips = (1 + n_as_good) / (1 + draws)
    return _Controls(
        p=_add_test_over_speakers(p_over_clips, activations, fits, selected, draws, seed),
        chance=total / draws,
        share_first=n_first / draws,
        share_within=n_within / draws,
    )


def _undefined_controls(shape) -> _Controls:
    """Return NaN for the controls of scores of this shape, where nothing is shuffled."""
    n_units, _ = shape
    undefined = np.full(n_units, np.nan)
    undefined_share = np.full(shape, np.nan, np.float32)
    return _Controls(undefined, undefined, undefined_share, undefined_share)


def _mean_shuffled_score(score, activations, fits, draws, seed):
    """Return the mean raw score [unit, concept] of the fits with clips shuffled."""
    # The 1 keeps these draws apart from those of p.
    row_orders = units.restricted_permutations(activations, draws, [seed, 1])
    return sum(score(fits[order]) for order in row_orders) / draws


def _add_test_over_speakers(p, activations, fits, selected, draws, seed):
    """Return the greater of `p` and the p over speakers of the concepts selected, [unit]; `p` without such units."""
    speakers = units.tested_speakers(activations)
    if speakers is None:
        return p
    p_of_blocks = []
    remaining = selected
    for block in similarity_measures.blocks(activations, size=2**22):
        selected_in_block, remaining = np.split(remaining, [block.shape[1]])
        correlations = units.correlate_within(block, fits, speakers)
        p_of_blocks.append(statistics.selection_test(correlations, selected_in_block, draws=draws, seed=seed))
    return np.maximum(p, np.concatenate(p_of_blocks))


def _best_concepts(scores) -> np.ndarray:
    """Return the indices of the best concepts, best first, [unit, rank]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :N_BEST]


def _text_of_units(summaries, template):
    """Return the summary of each unit, in the order of the template; ValueError if there are not as many."""
    if isinstance(summaries, xr.DataArray):
        summaries = summaries.transpose(*template.dims)
    texts = np.asarray(summaries, object).ravel()
    if len(texts) != template.size:
        raise ValueError(f"{len(texts)} descriptions for {template.size} neurons: give one for each, in their order")
    return texts


def _answers_of_language_model(llm, texts, concepts, names):
    """Return the indices of the concepts that a language model selects for each text, best first, [unit, rank].

    Where a text is missing, or the answer is not a concept, the index is `NO_CONCEPT`.
    """
    k = min(N_BEST, len(names))
    present = [text for text in texts if isinstance(text, str) and text.strip()]
    distinct_texts = {text: text for text in present}  # identical descriptions are queried once
    answers = each(lambda text: language_models.choose(llm, text, concepts, k), distinct_texts.items(), "descriptions")

    best = np.full((len(texts), k), NO_CONCEPT)
    for row, text in enumerate(texts):
        answer = answers[text] if text in distinct_texts else None
        if isinstance(answer, list):
            best[row] = _concept_indices(np.array(answer, object), names)
    return best


def _concept_indices(answers, names):
    """Return the index of the concept of each answer; `NO_CONCEPT` where it is not one of the names."""
    indices = np.full(answers.shape, NO_CONCEPT)
    for index, name in enumerate(names):
        indices[answers == name] = index
    return indices


def _reciprocal_ranks(best, n_concepts):
    """Return 1 / rank of the concepts in `best` [unit, rank], and 0 for all others, [unit, concept]."""
    scores = np.zeros((len(best), n_concepts))
    for column, concepts in enumerate(best.T):
        is_concept = concepts != NO_CONCEPT
        scores[is_concept, concepts[is_concept]] = 1 / (1 + column)
    return scores


def _text_cosines(texts, encoder):
    """Return the cosines of the texts of concepts [concept, concept], and a last row of 0 for no concept."""
    encoder = encoder or encoders.tfidf(texts)
    vectors = np.asarray(encoder([text.replace("_", " ") for text in texts]))
    return np.vstack([vectors @ vectors.T, np.zeros(len(texts))])


def _assemble(template, names, scores, best, controls, attrs) -> xr.Dataset:
    """Assemble the Dataset that `identify` returns, from arrays [unit], [unit, concept] and [unit, rank]."""
    # The last name is that of `NO_CONCEPT`.
    top = np.append(names.astype(object), "")[best]
    first = best[:, 0]
    best_scores = np.where(first == NO_CONCEPT, np.nan, scores[np.arange(len(scores)), first])

    share_first = units.unit_array(template, controls.share_first, concept=names)
    share_within = units.unit_array(template, controls.share_within, concept=names)
    variables = {
        "score": units.unit_array(template, scores, concept=names),
        "top": units.unit_array(template, top, rank=1 + np.arange(top.shape[1])),
        "name": units.unit_array(template, top[:, 0]),
        "best": units.unit_array(template, best_scores),
        "chance": units.unit_array(template, controls.chance),
        "p": units.unit_array(template, controls.p),
        "q": units.unit_array(template, statistics.fdr(controls.p)),
        "shuffled": xr.concat([share_first, share_within], pd.Index((1, N_BEST), name="within")),
    }
    return xr.Dataset(variables, attrs=attrs)
