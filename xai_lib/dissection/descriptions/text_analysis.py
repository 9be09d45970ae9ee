"""Text analysis: sentences, asserted (not negated) words, parts of speech, and the removal of shared sentences."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from itertools import pairwise

import numpy as np
import pandas as pd

_HYPHENS = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2019": "'"})
_TOKEN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[.;:!?…。！？؟।\n]")
_CLAUSE_STARTS = {"but", "yet", "however", "although", "though", "while", "whereas"}  # a negation ends before these
_FOCUS_ADVERBS = {"only", "just", "merely", "simply"}  # "not only loud" is loud
_NEGATIONS = {"not", "no", "never", "nor", "neither", "none", "without", "hardly", "cannot"}
TAGS = {"adjectives": "JJ", "nouns": "NN", "verbs": "VB", "prepositions": "IN"}  # prefixes of Penn Treebank tags


def sentences(text: str | None) -> list[str]:
    """Split a text at the ends of sentences and lines; drop bullets, list numbers and parts without a letter."""
    if not isinstance(text, str):
        return []
    parts = re.split(r"(?<=[.!?…])\s+|(?<=[。！？؟।])|\n+", text)
    parts = [re.sub(r"^\s*(?:[-*•]+|\d+[.)])\s+", "", part).strip() for part in parts]
    return [part for part in parts if any(map(str.isalpha, part))]


def calibrate(
    high: str | None, low: str | None, *, encoder: Callable, threshold: float = 0.9
) -> tuple[str, str, pd.DataFrame]:
    """Remove from the summaries of a neuron's high and low clips the sentences that both share.

    A sentence is removed if its cosine with some sentence of the other summary is above `threshold`.

    Parameters
    ----------
    high, low : str
        Summaries; None counts as empty.
    encoder : callable
        Maps a list of texts to unit vectors [text, dim]; it is called once, with all texts.

    Returns
    -------
    high, low : str
        The remaining sentences.
    removed : DataFrame
        A row for each removed sentence: `side`, `sentence`, `partner` (the nearest sentence of the other side) and
        their `cosine`.
    """
    high_sentences = sentences(high)
    low_sentences = sentences(low)
    removed = _shared_sentences(
        list(dict.fromkeys(high_sentences)), list(dict.fromkeys(low_sentences)), encoder, threshold
    )
    removed_from_high = set(removed.loc[removed["side"] == "high", "sentence"])
    removed_from_low = set(removed.loc[removed["side"] == "low", "sentence"])
    remaining_high = " ".join(text for text in high_sentences if text not in removed_from_high)
    remaining_low = " ".join(text for text in low_sentences if text not in removed_from_low)
    return remaining_high, remaining_low, removed


def _shared_sentences(high, low, encoder, threshold) -> pd.DataFrame:
    """Return the sentences of either side whose cosine with one of the other is above the threshold, with that one."""
    rows = []
    if high and low:
        vectors = np.asarray(encoder(high + low), float)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        high_vectors, low_vectors = np.split(vectors, [len(high)])
        rows += _near_sentences("high", high, low, high_vectors, low_vectors, threshold)
        rows += _near_sentences("low", low, high, low_vectors, high_vectors, threshold)
    return pd.DataFrame(rows, columns=["side", "sentence", "partner", "cosine"])


def _near_sentences(side, texts, others, text_vectors, other_vectors, threshold) -> list[tuple]:
    """Return side, sentence, nearest other sentence and their cosine, of each text whose cosine is above threshold."""
    rows = []
    for start in range(0, len(texts), 512):  # in chunks, since a long text has many pairs
        cosine = text_vectors[start : start + 512] @ other_vectors.T
        for row in np.flatnonzero(cosine.max(1) > threshold):
            nearest = cosine[row].argmax()
            rows.append((side, texts[start + row], others[nearest], cosine[row, nearest]))
    return rows


def asserted_words(text: str, known: Iterable[str] = ()) -> set[str]:
    """Return the words of a text, in lower case, that occur at least once without negation.

    A word is negated if "not", "no", "without" or the like is one of the four words before it in its clause. Hyphenated
    words count as one; the hyphens of words in `known` may be spaces in the text.
    """
    text = text.lower().translate(_HYPHENS)
    for word in known:
        text = text.replace(word.replace("-", " "), word)
    tokens = _TOKEN.findall(text)
    asserted = set()
    clause_start = 0
    for index, token in enumerate(tokens):
        if not token[0].isalpha() or token in _CLAUSE_STARTS:
            clause_start = index + 1
        elif not _is_negation(token):
            first = max(clause_start, index - 4)
            if not _ends_negated(tokens[first : index + 1]):
                asserted.add(token)
    return asserted


def _is_negation(word) -> bool:
    """Return whether a word negates what follows it."""
    return word in _NEGATIONS or word.endswith("n't")


def _ends_negated(words) -> bool:
    """Return whether one of the words negates the last of them; "not only" negates nothing."""
    for word, next_word in pairwise(words):
        if _is_negation(word) and next_word not in _FOCUS_ADVERBS:
            return True
    return False


def confirmed_words(words: Iterable[str], yes_no: Callable) -> list[str]:
    """Return the words for which `yes_no` returns True; warn of those for which it returns neither True nor False."""
    confirmed = []
    unclear = []
    for word in dict.fromkeys(words):
        answer = yes_no(word)
        if answer not in (True, False):
            unclear.append(word)
        elif answer:
            confirmed.append(word)
    if unclear:
        warnings.warn(f"no clear answer (True or False); words not counted: {', '.join(unclear)[:1000]}", stacklevel=4)
    return confirmed


def parts_of_speech(
    texts: pd.Series, tagger: Callable | None = None, *, kinds: Iterable[str] = (*TAGS, "length")
) -> pd.DataFrame:
    """Count the words of each kind in each text (Series); NaN where there is no text.

    `kinds` are some of "adjectives", "nouns", "verbs", "prepositions" and "length" (all words). All but length need a
    `tagger`, as in `adjectives`; a participle counts as a verb. Raises ImportError if a tagger is needed and missing.
    """
    unknown = set(kinds) - {*TAGS, "length"}
    if unknown:
        raise ValueError(f"unknown kinds {sorted(unknown)}: known are {', '.join([*TAGS, 'length'])}")
    if tagger is None and set(kinds) & set(TAGS):
        raise ImportError(
            "parts of speech need a tagger: `pip install nltk`, nltk.download('averaged_perceptron_tagger_eng')"
            " and 'punkt_tab', and pass tagger=lambda text: nltk.pos_tag(nltk.word_tokenize(text)); or kinds=['length']"
        )

    rows = []
    for text in texts:
        if isinstance(text, str):
            rows.append(_count_kinds(text, tagger))
        else:
            rows.append(dict.fromkeys(kinds, np.nan))
    return pd.DataFrame(rows, texts.index, columns=list(kinds))


def _count_kinds(text, tagger) -> dict[str, int]:
    """Count the words of each kind in a text; without a tagger, all words only."""
    tokens = _TOKEN.findall(text.translate(_HYPHENS))
    counts = {"length": sum(token[0].isalpha() for token in tokens)}
    if tagger:
        n_by_tag = Counter(tag[:2] for _, tag in tagger(text))
        counts |= {kind: n_by_tag[tag] for kind, tag in TAGS.items()}
    return counts
