"""Words for sounds: captions measured from the sound, terms that tell two sets of captions apart, concepts.

A caption uses the words of the lexicon ``data/concepts/acoustics.csv`` and nothing else, so the same sound is always
described alike, offline, and each word stands for a measured quantity.
"""

import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

from . import acoustics

CONCEPTS = Path(__file__).resolve().parent.parent / "data" / "concepts"
WORD = r"[a-z]+(?:-[a-z]+)*"  # hyphens hold a word together: low-pitched
NOTHING = "an ordinary voice"


def lexicon() -> pd.DataFrame:
    """The acoustic words: index `feature` (a column of `audio.features_table`), `name`, `unit`, `low`, `high`."""
    return pd.read_csv(CONCEPTS / "acoustics.csv", index_col="feature")


def concepts(name="emotions") -> pd.Series:
    """A bundled list of concepts: description by name. A FileNotFoundError names the lists there are."""
    path = CONCEPTS / f"{name}.csv"
    if not path.is_file() or name == "acoustics":
        known = ", ".join(sorted(p.stem for p in CONCEPTS.glob("*.csv") if p.stem != "acoustics"))
        raise FileNotFoundError(f"no list of concepts is called {name!r}: there are {known}")
    return pd.read_csv(path, index_col="name")["description"]


def ranks(table, reference, *, speakers=None) -> pd.DataFrame:
    """Where each measured value lies among those of the reference clips, 0 to 1; NaN where nothing could be measured.

    Parameters
    ----------
    table, reference : DataFrame
        Of `audio.features_table`. The reference are the training clips: a test clip is ranked among them.
    speakers : Series, optional
        Speaker of each clip of both tables. Given, values are first taken relative to their speaker's mean over the
        clips at hand ("loud" then means loud for this speaker); otherwise they are taken as they are.
    """
    names = list(lexicon().index)
    table, reference = table[names], reference[names]
    if speakers is not None:
        table, reference = (acoustics.centred(t, speakers.to_frame("speaker")) for t in (table, reference))
    out = pd.DataFrame(np.nan, index=table.index, columns=names)
    for name in names:
        known, values = np.sort(reference[name].dropna()), table[name].to_numpy()
        if len(known):
            place = (np.searchsorted(known, values) + np.searchsorted(known, values, side="right")) / 2
            out[name] = np.where(np.isnan(values), np.nan, place / len(known))
    return out


def captions(table, reference, *, speakers=None) -> pd.Series:
    """A caption per clip, from what was measured: "a very loud, high-pitched, fast voice".

    A feature is said when it lies in the lower or upper third of the reference clips, with "very" in the outer
    tenth; what lies between is left unsaid, and a clip without any is "an ordinary voice". Parameters as in `ranks`.
    """
    words, placed = lexicon(), ranks(table, reference, speakers=speakers)
    return pd.Series([_caption(row, words) for _, row in placed.iterrows()], table.index, dtype=object, name="caption")


def counts(texts) -> xr.DataArray:
    """Which words each text holds, 0 or 1: [clip, word]; words that say how much ("very") are left out."""
    from sklearn.feature_extraction.text import CountVectorizer

    vectorizer = CountVectorizer(token_pattern=WORD, stop_words=_STOP, binary=True)
    try:
        found = vectorizer.fit_transform(texts).toarray()
    except ValueError:  # sklearn's "empty vocabulary": no text says anything
        return xr.DataArray(np.zeros((len(texts), 0)), dims=("clip", "word"), coords={"clip": texts.index, "word": []})
    coords = {"clip": texts.index.to_numpy(), "word": vectorizer.get_feature_names_out().astype(str)}
    return xr.DataArray(found.astype(float), dims=("clip", "word"), coords=coords)


def terms(high, low, background):
    """How much more a word is used in one set of texts than in another: z of the weighted log-odds ratio, [..., word].

    Parameters
    ----------
    high, low : array [..., word]
        Counts of each word in the two sets; z is positive where `high` uses it more.
    background : array [word]
        Counts in all texts: the informative Dirichlet prior is in proportion to these, and sums to one a word.

    References
    ----------
    Monroe, Colaresi and Quinn (2008), Fightin' words, Political Analysis 16(4); the variance is taken whole, since
    their short form is for words that are rare, and a lexicon of a dozen words has none.
    """
    high, low, background = (np.asarray(x, float) for x in (high, low, background))
    alpha = background.size * background / max(background.sum(), 1e-12)

    def odds(y):
        own = y + alpha
        rest = own.sum(axis=-1, keepdims=True) - own
        return np.log(own) - np.log(rest), 1 / own + 1 / rest

    with np.errstate(divide="ignore", invalid="ignore"):  # a word that no text uses, or the only word, tells nothing
        (of_high, spread), (of_low, spread_low) = odds(high), odds(low)
        z = (of_high - of_low) / np.sqrt(spread + spread_low)
    return np.where(np.isfinite(z), z, 0.0)


def sentence(z, *, least=1.96, most=3) -> str:
    """Terms [word] as a short sentence with their z: "loud (+3.1), fast (+2.2); not slow (−2.4)".

    Words of smaller |z| than `least` are not said, and of either sign `most` at most.
    """
    words, z = z["word"].values, z.values
    order = np.argsort(-np.abs(z), kind="stable")
    more = [f"{words[i]} (+{z[i]:.1f})" for i in order if z[i] >= least][:most]
    less = [f"{words[i]} (−{-z[i]:.1f})" for i in order if z[i] <= -least][:most]
    if not more and not less:
        return f"no word tells its high clips from its low ones (no |z| from {least:g} up)"
    return "; ".join(filter(None, [", ".join(more), less and "not " + ", ".join(less)]))


def match(texts, concepts) -> xr.DataArray:
    """How well each text fits each concept's description: cosine of TF-IDF vectors, [clip, concept], 0 to 1.

    Words are weighted by how rare they are among `texts` (sklearn's smoothed IDF); words that none of `texts` uses do
    not count, and "very loud" counts as "loud" twice.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def strong(text):
        return re.sub(rf"\bvery ({WORD})", r"\1 \1", text.lower())

    vectorizer = TfidfVectorizer(token_pattern=WORD, stop_words=_STOP, preprocessor=strong)
    try:
        of_texts = vectorizer.fit_transform(texts)
    except ValueError as error:  # sklearn's "empty vocabulary"
        raise ValueError("not one of the texts says anything that could be matched: were they captioned?") from error
    values = (of_texts @ vectorizer.transform(concepts).T).toarray()
    coords = {"clip": texts.index.to_numpy(), "concept": concepts.index.to_numpy().astype(str)}
    return xr.DataArray(values, dims=("clip", "concept"), coords=coords)


_STOP = ["a", "an", "and", "very", "rather", "voice", "voices", "ordinary", "the", "that", "so", "or", "but", "of"]


def _caption(row, words) -> str:
    """One clip's caption from its ranks."""
    said = []
    for name, place in row.dropna().items():
        if place <= 1 / 3 or place >= 2 / 3:
            word = words.loc[name, "low" if place < 0.5 else "high"]
            said.append(f"very {word}" if place <= 0.1 or place >= 0.9 else word)
    if not said:
        return NOTHING
    return f"{'an' if re.match('[aeiou]', said[0]) else 'a'} {', '.join(said)} voice"
