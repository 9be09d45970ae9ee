"""The acoustic lexicon, lists of concepts, prompts, word counts of texts, and words that distinguish two sets."""

from __future__ import annotations

import html
import json
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

CONCEPTS = Path(__file__).resolve().parents[3] / "data" / "concepts"
PROMPTS = CONCEPTS.with_name("prompts")
WORD = r"[^\W\d_]+(?:-[^\W\d_]+)*"  # letters of any alphabet; a hyphenated word is one: low-pitched
STOP = [
    *("a", "an", "and", "very", "rather", "ordinary", "the", "that", "so", "or", "but", "of", "not"),
    *("voice", "voices", "sound", "sounds"),
]


class BadAnswer(ValueError):
    """Error: a model or a server returned no usable answer; the message holds the reason and the request."""


def lexicon() -> pd.DataFrame:
    """Return the acoustic words: index `feature` (a column of `corpora.features_table`), `name`, `unit`, `low`, `high`.

    `missing` is the word for a sound in which the feature cannot be measured, "" if there is none.
    """
    return pd.read_csv(CONCEPTS / "acoustics.csv", index_col="feature", keep_default_na=False)


def concepts(name: str = "emotions") -> pd.Series:
    """Return a bundled list of concepts, description by name; a FileNotFoundError names the available lists."""
    path = CONCEPTS / f"{name}.csv"
    if not path.is_file() or name == "acoustics":
        available = ", ".join(sorted(p.stem for p in CONCEPTS.glob("*.csv") if p.stem != "acoustics"))
        raise FileNotFoundError(f"unknown list of concepts {name!r}: available are {available}")
    return pd.read_csv(path, index_col="name")["description"]


def bundled_descriptions(model: str) -> pd.DataFrame:
    """Return the bundled descriptions of the neurons of "pocket-wavlm" or "pocket-ast": a row by (part, layer, neuron).

    The columns are documented in data/README.md; `attrs` hold the clips that they were derived from and tested on, and
    the hash of the weights.
    """
    name = "pocket-wavlm" if model == "pocket" else model
    file = CONCEPTS.with_name("descriptions") / f"{name}.csv"
    if not file.is_file():
        available = ", ".join(sorted(path.stem for path in file.parent.glob("*.csv")))
        raise FileNotFoundError(f"no bundled descriptions of the neurons of {model!r}: available are {available}")
    table = pd.read_csv(
        file,
        index_col=["part", "layer", "neuron"],
        keep_default_na=False,
        na_values=dict.fromkeys(["rho", "rho_q", "auroc", "concept_p", "concept_q"], ""),
    )
    table.attrs = json.loads(file.with_suffix(".json").read_text(encoding="utf-8"))
    return table


def prompt(name: str, **values) -> list[str]:
    """Return the system and user part of a prompt of data/prompts/, with `values` in place of {their names}."""
    parts = (PROMPTS / f"{name}.txt").read_text(encoding="utf-8").split("\n---\n")
    return [part.strip().format(**values) for part in parts]


def escape_html(text, max_length: int = 300) -> str:
    """Escape an untrusted text for HTML and truncate it to `max_length` characters, with the number of those left out.

    Control characters, including those that change the direction of writing, become spaces.
    """
    text = str(text)
    printable = "".join(c if c.isprintable() else " " for c in text[:max_length])
    escaped = html.escape(printable)
    if len(text) > max_length:
        escaped += f" … ({len(text) - max_length:,} more characters)"
    return escaped


def each(function: Callable, items: Iterable[tuple], what: str = "items") -> pd.Series:
    """Apply `function` to each of `items` (pairs of key and item); BadAnswer gives NaN, and a warning names those."""
    values = {}
    errors = {}
    for key, item in items:
        try:
            values[key] = function(item)
        except BadAnswer as error:
            values[key] = np.nan
            errors[key] = str(error)
    if errors:
        names = ", ".join(str(key) for key in list(errors)[:10])
        if len(errors) > 10:
            names += ", …"
        first = next(iter(errors.values()))[:500]
        warnings.warn(f"{len(errors)} of {len(values)} {what} got no answer ({names}): {first}", stacklevel=3)
    return pd.Series(values, dtype=object)


def as_texts(texts: pd.Series | Mapping) -> pd.Series:
    """Convert texts to a Series; raise ValueError if one of them is missing."""
    if not isinstance(texts, pd.Series):
        texts = pd.Series(texts, dtype=object)  # a dict gives its keys as index
    missing = [key for key, text in texts.items() if not isinstance(text, str)]
    if missing:
        names = ", ".join(str(key) for key in missing[:10])
        raise ValueError(f"{len(missing)} of {len(texts)} texts are missing (clips {names}): drop them with .dropna()")
    return texts


def counts(texts: pd.Series) -> xr.DataArray:
    """Return which words each text contains, 0 or 1: [clip, word]; stop words such as "very" are left out."""
    from sklearn.feature_extraction.text import CountVectorizer

    texts = as_texts(texts)
    vectorizer = CountVectorizer(token_pattern=WORD, stop_words=STOP, binary=True)
    try:
        occurs = vectorizer.fit_transform(texts).toarray()
    except ValueError:  # sklearn's "empty vocabulary": no text contains a word that counts
        return xr.DataArray(np.zeros((len(texts), 0)), dims=("clip", "word"), coords={"clip": texts.index, "word": []})
    coords = {"clip": texts.index.to_numpy(), "word": vectorizer.get_feature_names_out().astype(str)}
    return xr.DataArray(occurs.astype(float), dims=("clip", "word"), coords=coords)


def terms(high: np.ndarray, low: np.ndarray, background: np.ndarray) -> np.ndarray:
    """Compute the z of the weighted log-odds ratio of each word between two sets of texts, [..., word].

    Parameters
    ----------
    high, low : array [..., word]
        Counts of each word in the two sets; z is positive where `high` uses it more.
    background : array [word]
        Counts in all texts: the informative Dirichlet prior is proportional to these, and sums to the number of words.

    References
    ----------
    Monroe, Colaresi and Quinn (2008), Fightin' words, Political Analysis 16(4); the variance is used in full, since
    their approximation assumes rare words, and a lexicon of a dozen words has none.
    """
    background = np.asarray(background, float)
    prior = background.size * background / max(background.sum(), 1e-12)
    with np.errstate(divide="ignore", invalid="ignore"):  # a word that no text uses, or the only word, gets z = 0
        odds_high, variance_high = _log_odds(np.asarray(high, float) + prior)
        odds_low, variance_low = _log_odds(np.asarray(low, float) + prior)
        z = (odds_high - odds_low) / np.sqrt(variance_high + variance_low)
    return np.where(np.isfinite(z), z, 0.0)


def _log_odds(counts):
    """Return the log odds of each word against all others, and its variance, from counts with the prior [..., word]."""
    complement = counts.sum(axis=-1, keepdims=True) - counts
    return np.log(counts) - np.log(complement), 1 / counts + 1 / complement


def sentence(z: xr.DataArray, *, min_z: float = 1.96, max_words: int = 3) -> str:
    """Return terms [word] as a short sentence with their z: "loud (+3.1), fast (+2.2); not slow (−2.4)".

    Words with |z| below `min_z` are left out, and at most `max_words` words of either sign are listed.
    """
    by_size = z.isel(word=np.argsort(-np.abs(z.values), kind="stable")).to_series()
    asserted = [f"{word} (+{value:.1f})" for word, value in by_size[by_size >= min_z].items()]
    denied = [f"{word} (−{-value:.1f})" for word, value in by_size[by_size <= -min_z].items()]
    parts = []
    if asserted:
        parts.append(", ".join(asserted[:max_words]))
    if denied:
        parts.append("not " + ", ".join(denied[:max_words]))
    if not parts:
        return f"no word tells its high clips from its low ones (no |z| from {min_z:g} up)"
    return "; ".join(parts)
