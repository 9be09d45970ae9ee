"""Concept matching: the concept of a closed list that each neuron responds to, compared with the chance level.

After Audio Network Dissection: DB uses the captions of the clips, TAB their sound, ICL a language model that reads a
description of the neuron. The controls shuffle captions, or sounds, among the clips of each speaker, so that speaker
identity alone gains nothing; where each speaker, or recording, has clips of one label only, whole speakers are permuted
among those with equally many clips (`statistics.restricted_permutations`). Clips without a coordinate `speaker` are
treated as independent.
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

N_BEST = 5  # concepts returned for each neuron
MAX_BASELINE_DRAWS = 100  # maximum number of draws for the baseline that a neuron is compared with for its p


def concept_fit(concepts, *, captions=None, clips=None, encoder=None) -> xr.DataArray:
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
        `summaries`, a description of each neuron, [layer, neuron] or in their order.
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
    activations = results.as_activation(activations).transpose("clip", ...)
    if method == "ICL":
        return _identify_with_llm(activations, summaries, concepts, llm)
    if method not in ("DB", "TAB"):
        raise ValueError(f"unknown method {method!r}: known are DB, TAB, ICL")
    if fit is None:
        inputs = {"captions": captions} if method == "DB" else {"clips": clips}
        if concepts is None or any(table is None for table in inputs.values()):
            raise ValueError(f"{method} needs concepts= and {next(iter(inputs))}=, or fit= as returned by concept_fit")
        fit = concept_fit(concepts, **inputs, encoder=encoder)
    matched = np.flatnonzero(activations.indexes["clip"].isin(fit["clip"].values))
    if len(matched) < 2:
        raise ValueError("fewer than two clips have both activations and a caption or sound")
    activations = activations if len(matched) == activations.sizes["clip"] else activations.isel(clip=matched)
    fit = fit.sel(clip=activations["clip"].to_numpy()).transpose("clip", "concept")
    options = {"top": top} if top and not similarity.startswith("cosine") else {}
    score, baseline = similarity_measures.scorer(similarity, activations, **options)
    raw = score(fit.values)
    scores, neuron_baseline = raw - baseline(raw), 0
    if np.ndim(baseline(raw)):
        n_baseline = min(draws, MAX_BASELINE_DRAWS)
        # The 1 keeps these draws apart from those of p.
        row_orders = _restricted_permutations(activations, n_baseline, [seed, 1])
        neuron_baseline = sum(score(fit.values[rows]) for rows in row_orders) / max(n_baseline, 1)
    observed = (raw - neuron_baseline).max(-1)
    margin = 1e-6 * np.maximum(np.abs(observed), 1)  # ties broken by rounding
    as_good, chance_level, best_counts = 0, 0, np.zeros((2, *scores.shape), np.float32)
    for rows in _restricted_permutations(activations, draws, seed):
        shuffled = score(fit.values[rows])
        as_good = as_good + ((shuffled - neuron_baseline).max(-1) >= observed - margin)
        shuffled = shuffled - baseline(shuffled)
        chance_level, best = chance_level + shuffled.max(-1), _best_concepts(shuffled)
        for counts, indices in zip(best_counts, (best[:, :1], best)):
            counts[np.arange(len(best))[:, None], indices] += 1
    n_draws = draws or np.nan
    attrs = {"method": method, "similarity": similarity, "draws": draws, "seed": seed}
    p, chance_level = (
        np.broadcast_to(values, observed.shape) for values in ((1 + as_good) / (1 + n_draws), chance_level / n_draws)
    )
    best = _best_concepts(scores)
    if draws:
        p = _p_over_speakers(p, activations, fit.values, best[:, 0], draws, seed)
    return _result(activations, fit["concept"].values, scores, best, p, chance_level, best_counts / n_draws, attrs)


def accuracy(named, truth=None, *, concepts=None, encoder=None) -> pd.DataFrame:
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
    if truth is None:
        truth = score[score.dims[0]].values
    truth = np.ravel(truth).astype(str).tolist()
    unknown = sorted(set(truth) - set(names))
    if unknown or len(truth) != score[..., 0].size:
        raise ValueError(
            f"truth must hold one of the concepts for each neuron; unknown concepts: {', '.join(unknown[:10])}"
        )
    true_indices, n = np.array([names.index(name) for name in truth]), len(names)
    predicted = [
        [names.index(name) if name else -1 for name in row] for row in named["top"].values.reshape(len(truth), -1)
    ]
    texts = names if concepts is None else [str(concepts[name]) for name in names]
    vectors = np.asarray((encoder or encoders.tfidf(texts))([text.replace("_", " ") for text in texts]))
    # The last row stands for no concept, whose cosine is 0.
    cosine_to_truth = np.vstack([vectors @ vectors.T, np.zeros(n)])[:, true_indices]
    shuffled_shares = named["shuffled"].values.reshape(2, len(truth), n)
    rows = {}
    for index, within in enumerate((1, min(N_BEST, n))):
        hits = sum(true_index in row[:within] for true_index, row in zip(true_indices, predicted))
        interval = stats.binomtest(hits, len(true_indices)).proportion_ci(method="wilson")
        shuffled = shuffled_shares[index][np.arange(len(true_indices)), true_indices].mean()
        rows[f"top{(1, N_BEST)[index]}"] = (hits / len(true_indices), *interval, within / n, shuffled)
    cosines = cosine_to_truth[[row[0] for row in predicted], np.arange(len(true_indices))]
    shuffled_cosines = (shuffled_shares[0].T * cosine_to_truth[:n]).sum(0)
    rows["cosine"] = (*statistics.interval(cosines), cosine_to_truth[:n].mean(), shuffled_cosines.mean())
    table = pd.DataFrame.from_dict(rows, orient="index", columns=["value", "low", "high", "guessing", "shuffled"])
    return table.assign(n=len(true_indices)).rename_axis("measure")


def choose(activations, fit, truth=None, *, among=tuple(similarity_measures.FUNCTIONS)) -> pd.DataFrame:
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


def _p_over_speakers(p, activations, fits, named, draws, seed):
    """Return the greater of `p` and the p over speakers of the concepts named, [unit] both; `p` without such units."""
    speakers = _tested_speakers(activations)
    if speakers is None:
        return p
    block_p, start = [], 0
    for block in similarity_measures.blocks(activations, size=2**22):
        concepts = named[start : start + block.shape[1]]
        block_p.append(
            statistics.selection_test(_correlations(block, fits, speakers), concepts, draws=draws, seed=seed)
        )
        start += block.shape[1]
    return np.maximum(p, np.concatenate(block_p))


def _correlations(values, fits, groups):
    """Return the correlation of values [clip, unit] and fits [clip, concept] within groups, [group, unit, concept].

    NaN where either is the same in all clips of a group.
    """
    out = np.full((len(groups), values.shape[1], fits.shape[1]), np.nan, values.dtype)
    for index, rows in enumerate(groups):
        unit_values, unit_fits = (
            similarity_measures.standardize(array[rows]).astype(values.dtype) for array in (values, fits)
        )
        varies = unit_values.any(axis=0)[:, None] & unit_fits.any(axis=0)
        out[index] = np.where(varies, unit_values.T @ unit_fits, np.nan)
    return out


def _identify_with_llm(activations, summaries, concepts, llm) -> xr.Dataset:
    """Return the concepts that a language model assigns to the description of each neuron (ICL)."""
    if summaries is None or concepts is None:
        raise ValueError("ICL needs summaries=, a description of each neuron, and concepts=")
    if llm is None:
        raise ValueError("ICL needs a language model: give llm=descriptions.LLM(…) or llm=descriptions.Endpoint(…)")
    if isinstance(summaries, xr.DataArray):
        summaries = summaries.transpose(*activations.dims[1:])
    texts, names = np.ravel(summaries), concepts.index.to_numpy().astype(str)
    if len(texts) != activations[0].size:
        raise ValueError(
            f"{len(texts)} descriptions for {activations[0].size} neurons: give one for each, in their order"
        )
    k, has_text = min(N_BEST, len(names)), [isinstance(text, str) and bool(text.strip()) for text in texts]
    distinct_texts = {text: text for text in texts[has_text]}  # identical descriptions are queried once
    answers = each(lambda text: language_models.choose(llm, text, concepts, k), distinct_texts.items(), "descriptions")
    index_by_name = {name: index for index, name in enumerate(names)}
    no_answer = [None] * k
    assigned = [
        answers[text] if present and isinstance(answers[text], list) else no_answer
        for text, present in zip(texts, has_text)
    ]
    best = np.array([[index_by_name.get(name, -1) for name in row] for row in assigned])
    scores = np.zeros((len(texts), len(names) + 1))  # the last column stands for no concept
    np.put_along_axis(scores, best, 1 / (1 + np.arange(k)), 1)
    scores = scores[:, :-1]
    first_share = (best[:, :1] == np.arange(len(names))).mean(0)
    best_shares = np.stack([np.tile(share, (len(texts), 1)) for share in (first_share, (scores > 0).mean(0))])
    p = np.where(best[:, 0] >= 0, np.append(first_share, np.nan)[best[:, 0]], np.nan)
    attrs = {"method": "ICL", "similarity": "", "draws": 0, "seed": 0}
    return _result(activations, names, scores, best, p, np.full(len(p), np.nan), best_shares, attrs)


def _result(activations, names, scores, best, p, chance_level, best_shares, attrs) -> xr.Dataset:
    """Assemble the Dataset that `identify` returns; `best` holds indices of concepts [unit, rank], −1 for none."""
    reshape, top = _unit_reshaper(activations), np.append(names.astype(object), "")[best]
    best_scores = np.where(best[:, 0] >= 0, scores[np.arange(len(scores)), best[:, 0]], np.nan)
    parts = {"name": top[:, 0], "best": best_scores, "chance": chance_level, "p": p, "q": statistics.fdr(p)}
    shuffled = xr.concat(
        [reshape(shares, "concept", names) for shares in best_shares], pd.Index((1, N_BEST), name="within")
    )
    tables = {"score": reshape(scores, "concept", names), "top": reshape(top, "rank", 1 + np.arange(top.shape[1]))}
    return xr.Dataset(
        {**tables, **{key: reshape(part) for key, part in parts.items()}, "shuffled": shuffled}, attrs=attrs
    )


def _best_concepts(scores) -> np.ndarray:
    """Return the indices of the best concepts, best first, [unit, rank]."""
    return np.argsort(-scores, axis=1, kind="stable")[:, :N_BEST]


def _unit_reshaper(data):
    """Return a function that gives values [unit] or [unit, extra] the dims and coordinates of the units of `data`."""
    template = data.transpose("clip", ...).isel(clip=0, drop=True).reset_coords(drop=True)
    attrs = {
        "selection_speakers": results.speaker_ids_json(data)
    }  # the speakers whose clips scores depend on, for `pruning.compare`

    def reshape(values, extra=None, names=None):
        values = np.asarray(values).reshape(*template.shape, *([-1] if extra else []))
        coords = template.coords.assign({extra: names}) if extra else template.coords
        return xr.DataArray(values, coords, (*template.dims, *([extra] if extra else [])), attrs=attrs)

    return reshape


def _speaker_rows(data) -> list:
    """Return the rows of each speaker; all rows in one group, with a warning, where speakers are not known."""
    if not results.speakers_known(data):
        warnings.warn("speakers are not known: clips are treated as independent", stacklevel=4)
        return [np.arange(data.sizes["clip"])]
    return list(pd.Series(np.arange(data.sizes["clip"])).groupby(data["speaker"].values).apply(np.asarray))


def _comparison_groups(data) -> list:
    """Return the rows within which clips are compared: those of each speaker, or all rows as one group.

    It is one group where no speaker has two clips that differ in label, as in collections of sounds, where each
    recording has one label.
    """
    groups, all_rows = _speaker_rows(data), np.arange(data.sizes["clip"])
    labels = data["label"].values if "label" in data.coords else all_rows
    return groups if any(len(pd.unique(labels[rows])) > 1 for rows in groups) else [all_rows]


def _tested_speakers(data):
    """Return the rows of each speaker, or None where clips or whole recordings are the units of the test.

    That is where speakers are not known, and where no speaker has two clips that differ in label.
    """
    if not results.speakers_known(data):
        return None
    groups = _comparison_groups(data)
    return groups if len(groups) == len(_speaker_rows(data)) else None


def _restricted_permutations(data, draws, seed):
    """Return row orders that shuffle within `_comparison_groups`; whole speakers where that is a single group."""
    if not draws:
        return []
    speakers = _speaker_rows(data)
    return statistics.restricted_permutations(
        speakers, draws, seed, whole_speakers=len(_comparison_groups(data)) < len(speakers)
    )
