"""What a text says: its sentences, the words that it does not deny, kinds of words, what two texts do not share."""

import re
import warnings
from collections import Counter

import numpy as np
import pandas as pd

_HYPHENS = str.maketrans({"\u2010": "-", "\u2011": "-", "\u2019": "'"})
_TOKEN = re.compile(r"[^\W\d_]+(?:['-][^\W\d_]+)*|[.;:!?…。！？؟।\n]")
_ENDS = {"but", "yet", "however", "although", "though", "while", "whereas"}  # what follows these is not denied
_MERELY = {"only", "just", "merely", "simply"}  # "not only loud" is loud
_DENIES = {"not", "no", "never", "nor", "neither", "none", "without", "hardly", "cannot"}
TAGS = {"adjectives": "JJ", "nouns": "NN", "verbs": "VB", "prepositions": "IN"}  # Penn Treebank, by how they begin


def sentences(text) -> list:
    """A text cut where a sentence or a line ends; bullets, numbers of lists and what holds no letter are left out."""
    cut = re.split(r"(?<=[.!?…])\s+|(?<=[。！？؟।])|\n+", text if isinstance(text, str) else "")
    cut = [re.sub(r"^\s*(?:[-*•]+|\d+[.)])\s+", "", part).strip() for part in cut]
    return [part for part in cut if any(map(str.isalpha, part))]


def calibrate(high, low, *, encoder, threshold=0.9):
    """What the summaries of a neuron's high and low clips say that the other does not.

    Sentences of either that have one in the other whose cosine is above `threshold` are taken out of both.

    Parameters
    ----------
    high, low : str
        None says nothing.
    encoder : callable
        Unit vectors [text, dim] of a list of texts; it gets all of them at once.

    Returns
    -------
    high, low : str
        What is left.
    removed : DataFrame
        A row for each sentence taken out: `side`, `sentence`, `partner`, the nearest of the other, and their `cosine`.
    """
    sides = {"high": sentences(high), "low": sentences(low)}
    distinct, removed = {side: list(dict.fromkeys(said)) for side, said in sides.items()}, []
    if all(distinct.values()):
        vectors = np.asarray(encoder(distinct["high"] + distinct["low"]), float)
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
        a, b = np.split(vectors, [len(distinct["high"])])
        for side, other, own, theirs in (("high", "low", a, b), ("low", "high", b, a)):
            for start in range(0, len(own), 512):  # a long text has many pairs
                cosine = own[start : start + 512] @ theirs.T
                for row in np.flatnonzero(cosine.max(1) > threshold):
                    at = cosine[row].argmax()
                    removed.append((side, distinct[side][start + row], distinct[other][at], cosine[row, at]))
    gone = {(side, said) for side, said, *_ in removed}
    left = (" ".join(s for s in said if (side, s) not in gone) for side, said in sides.items())
    return *left, pd.DataFrame(removed, columns=["side", "sentence", "partner", "cosine"])


def said(text, known=()) -> set:
    """Words of a text, in small letters, that it does not deny each time it uses them.

    A word is denied where "not", "no", "without" or the like is one of the four words before it in its clause. Hyphens
    hold a word together; those of the words `known` may be spaces in the text.
    """
    text = text.lower().translate(_HYPHENS)
    for word in known:
        text = text.replace(word.replace("-", " "), word)
    found, tokens, clause = set(), _TOKEN.findall(text), 0
    for at, token in enumerate(tokens):
        if not token[0].isalpha() or token in _ENDS:
            clause = at + 1
        elif not (token in _DENIES or token.endswith("n't")):
            first = max(clause, at - 4)
            pairs = zip(tokens[first:at], tokens[first + 1 : at + 1])
            if not any((a in _DENIES or a.endswith("n't")) and b not in _MERELY for a, b in pairs):
                found.add(token)
    return found


def kept(words, yes_no) -> list:
    """Those of the words that `yes_no` says True of; ones that it says neither True nor False of go to a warning."""
    answers = {word: yes_no(word) for word in words}
    unclear = [word for word, answer in answers.items() if answer not in (True, False)]
    if unclear:
        warnings.warn(f"no clear answer, and so not counted: {', '.join(unclear)[:1000]}", stacklevel=3)
    return [word for word, answer in answers.items() if answer in (True,)]


def parts_of_speech(texts, tagger=None, *, kinds=(*TAGS, "length")) -> pd.DataFrame:
    """How many words of each kind each text (Series) has; NaN where there is no text.

    `kinds` are some of "adjectives", "nouns", "verbs", "prepositions" and "length", all words. For all but length a
    `tagger` is needed, as of `adjectives`; a participle counts as a verb. ImportError where there is none.
    """
    unknown = set(kinds) - {*TAGS, "length"}
    if unknown:
        raise ValueError(f"unknown kinds {sorted(unknown)}: known are {', '.join([*TAGS, 'length'])}")
    if tagger is None and set(kinds) & set(TAGS):
        raise ImportError(
            "no tagger of words comes with this: `pip install nltk`, nltk.download('averaged_perceptron_tagger_eng')"
            " and 'punkt_tab', and give tagger=lambda text: nltk.pos_tag(nltk.word_tokenize(text)); or kinds=['length']"
        )

    def count(text):
        if not isinstance(text, str):
            return dict.fromkeys(kinds, np.nan)
        tags = Counter(tag[:2] for _, tag in tagger(text)) if tagger else {}
        length = sum(token[0].isalpha() for token in _TOKEN.findall(text.translate(_HYPHENS)))
        return {kind: length if kind == "length" else tags[TAGS[kind]] for kind in kinds}

    return pd.DataFrame([count(text) for text in texts], texts.index, columns=list(kinds))
