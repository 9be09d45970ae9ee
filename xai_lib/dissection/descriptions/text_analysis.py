"""Text analysis: sentences, asserted (not negated) words, parts of speech, and the removal of shared sentences."""

import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd

_HYPHENS = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2019": "'"})
_TOKEN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[.;:!?…。！？؟।\n]")
_CLAUSE_STARTS = {"but", "yet", "however", "although", "though", "while", "whereas"}  # a negation ends before these
_FOCUS_ADVERBS = {"only", "just", "merely", "simply"}  # "not only loud" is loud
_NEGATIONS = {"not", "no", "never", "nor", "neither", "none", "without", "hardly", "cannot"}
TAGS = {"adjectives": "JJ", "nouns": "NN", "verbs": "VB", "prepositions": "IN"}  # prefixes of Penn Treebank tags


def sentences(text) -> list:
    """Split a text at the ends of sentences and lines; drop bullets, list numbers and parts without a letter."""
    parts = re.split(r"(?<=[.!?…])\s+|(?<=[。！？؟।])|\n+", text if isinstance(text, str) else "")
    parts = [re.sub(r"^\s*(?:[-*•]+|\d+[.)])\s+", "", part).strip() for part in parts]
    return [part for part in parts if any(map(str.isalpha, part))]


def calibrate(high, low, *, encoder, threshold=0.9):
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
    by_side = {"high": sentences(high), "low": sentences(low)}
    distinct, removed = {side: list(dict.fromkeys(texts)) for side, texts in by_side.items()}, []
    if all(distinct.values()):
        vectors = np.asarray(encoder(distinct["high"] + distinct["low"]), float)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        of_high, of_low = np.split(vectors, [len(distinct["high"])])
        for side, other, vectors_a, vectors_b in (("high", "low", of_high, of_low), ("low", "high", of_low, of_high)):
            for start in range(0, len(vectors_a), 512):  # in chunks, since a long text has many pairs
                cosine = vectors_a[start : start + 512] @ vectors_b.T
                for row in np.flatnonzero(cosine.max(1) > threshold):
                    nearest = cosine[row].argmax()
                    removed.append((side, distinct[side][start + row], distinct[other][nearest], cosine[row, nearest]))
    excluded = {(side, text) for side, text, *_ in removed}
    remaining = (" ".join(text for text in texts if (side, text) not in excluded) for side, texts in by_side.items())
    return *remaining, pd.DataFrame(removed, columns=["side", "sentence", "partner", "cosine"])


def asserted_words(text, known=()) -> set:
    """Return the words of a text, in lower case, that occur at least once without negation.

    A word is negated if "not", "no", "without" or the like is one of the four words before it in its clause. Hyphenated
    words count as one; the hyphens of words in `known` may be spaces in the text.
    """
    text = text.lower().translate(_HYPHENS)
    for word in known:
        text = text.replace(word.replace("-", " "), word)
    asserted, tokens, clause_start = set(), _TOKEN.findall(text), 0
    for index, token in enumerate(tokens):
        if not token[0].isalpha() or token in _CLAUSE_STARTS:
            clause_start = index + 1
        elif not (token in _NEGATIONS or token.endswith("n't")):
            first = max(clause_start, index - 4)
            pairs = zip(tokens[first:index], tokens[first + 1 : index + 1])
            if not any((a in _NEGATIONS or a.endswith("n't")) and b not in _FOCUS_ADVERBS for a, b in pairs):
                asserted.add(token)
    return asserted


def confirmed_words(words, yes_no) -> list:
    """Return the words for which `yes_no` returns True; warn of those for which it returns neither True nor False."""
    answers = {word: yes_no(word) for word in words}
    unclear = [word for word, answer in answers.items() if answer not in (True, False)]
    if unclear:
        warnings.warn(f"no clear answer (True or False); words not counted: {', '.join(unclear)[:1000]}", stacklevel=3)
    return [word for word, answer in answers.items() if answer in (True,)]


def parts_of_speech(texts, tagger=None, *, kinds=(*TAGS, "length")) -> pd.DataFrame:
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

    def count(text):
        if not isinstance(text, str):
            return dict.fromkeys(kinds, np.nan)
        tags = Counter(tag[:2] for _, tag in tagger(text)) if tagger else {}
        length = sum(token[0].isalpha() for token in _TOKEN.findall(text.translate(_HYPHENS)))
        return {kind: length if kind == "length" else tags[TAGS[kind]] for kind in kinds}

    return pd.DataFrame([count(text) for text in texts], texts.index, columns=list(kinds))
