"""The acoustic lexicon, lists of concepts, prompts; which words texts use, and which tell two sets of texts apart."""

import html
import json
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

CONCEPTS = Path(__file__).resolve().parents[3] / "data" / "concepts"
PROMPTS = CONCEPTS.with_name("prompts")
WORD = r"[^\W\d_]+(?:-[^\W\d_]+)*"  # letters of any alphabet; hyphens hold a word together: low-pitched
STOP = [
    *("a", "an", "and", "very", "rather", "ordinary", "the", "that", "so", "or", "but", "of", "not"),
    *("voice", "voices", "sound", "sounds"),
]


class BadAnswer(ValueError):
    """A model or a server gave no answer that could be used; the message says why and what had been asked."""


def lexicon() -> pd.DataFrame:
    """The acoustic words: index `feature` (a column of `corpora.features_table`), `name`, `unit`, `low`, `high`.

    `missing` is the word for a sound in which the feature cannot be measured, "" where there is none.
    """
    return pd.read_csv(CONCEPTS / "acoustics.csv", index_col="feature", keep_default_na=False)


def concepts(name="emotions") -> pd.Series:
    """A bundled list of concepts: description by name. A FileNotFoundError names the lists there are."""
    path = CONCEPTS / f"{name}.csv"
    if not path.is_file() or name == "acoustics":
        known = ", ".join(sorted(p.stem for p in CONCEPTS.glob("*.csv") if p.stem != "acoustics"))
        raise FileNotFoundError(f"no list of concepts is called {name!r}: there are {known}")
    return pd.read_csv(path, index_col="name")["description"]


def shipped(model) -> pd.DataFrame:
    """What is bundled about the neurons of "pocket-wavlm" or "pocket-ast": a row by (part, layer, neuron).

    data/README.md says what the columns are; `attrs`, what they were written from and tested on, and of which weights.
    """
    file = CONCEPTS.with_name("descriptions") / f"{'pocket-wavlm' if model == 'pocket' else model}.csv"
    if not file.is_file():
        known = ", ".join(sorted(path.stem for path in file.parent.glob("*.csv")))
        raise FileNotFoundError(f"the neurons of {model!r} are not described here: those of {known} are")
    table = pd.read_csv(
        file,
        index_col=["part", "layer", "neuron"],
        keep_default_na=False,
        na_values=dict.fromkeys(["rho", "rho_q", "auroc", "concept_p", "concept_q"], ""),
    )
    table.attrs = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return table


def prompt(name, **values) -> list[str]:
    """System and user part of a prompt of data/prompts/, with `values` in place of {their names}."""
    parts = (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").split("\n---\n")
    return [part.strip().format(**values) for part in parts]


def shown(text, most=300) -> str:
    """A text from elsewhere as HTML that shows it and does nothing; past `most` characters it says how many are left out.

    Control characters, those that turn the direction of writing among them, become spaces.
    """
    text = str(text)
    cut = "".join(c if c.isprintable() else " " for c in text[:most])
    return html.escape(cut) + (f" … ({len(text) - most:,} more characters)" if len(text) > most else "")


def each(function, items, what="items") -> pd.Series:
    """`function` of each of `items` (pairs of key and item), NaN where it raised BadAnswer; a warning names those."""
    found, bad = {}, {}
    for key, item in items:
        try:
            found[key] = function(item)
        except BadAnswer as error:
            found[key], bad[key] = np.nan, str(error)
    if bad:
        names = ", ".join(map(str, list(bad)[:10])) + (", …" if len(bad) > 10 else "")
        first = next(iter(bad.values()))[:500]
        warnings.warn(f"{len(bad)} of {len(found)} {what} got no answer ({names}): {first}", stacklevel=3)
    return pd.Series(found, dtype=object)


def told(texts) -> pd.Series:
    """Texts as a Series, refused where one of them is missing."""
    texts = texts if isinstance(texts, pd.Series) else pd.Series(texts, dtype=object)  # of a dict, by its keys
    lost = [key for key, text in texts.items() if not isinstance(text, str)]
    if lost:
        names = ", ".join(map(str, lost[:10]))
        raise ValueError(f"{len(lost)} of {len(texts)} texts are missing (clips {names}): leave them out, .dropna()")
    return texts


def counts(texts) -> xr.DataArray:
    """Which words each text holds, 0 or 1: [clip, word]; words that say how much ("very") are left out."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = told(texts)
    vectorizer = CountVectorizer(token_pattern=WORD, stop_words=STOP, binary=True)
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
