"""Open-vocabulary concepts: adjectives that describe each neuron, how many in which layers, and whether they are true.

Adjectives come from the words that distinguish a neuron's high clips from its low ones (`dissection.describe`) or from
a text about it. Counts are compared with those of descriptions computed from shuffled captions, and each adjective that
names a measured quantity is checked: does the activation of a "loud" neuron follow the level of clips that were not
used for its description?
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import statistics
from . import descriptions, units
from .description_tests import check, predictivity_auroc
from .descriptions import text_analysis
from .descriptions.text_analysis import calibrate, parts_of_speech

__all__ = ["adjectives", "by_layer", "calibrate", "check", "distribution", "parts_of_speech", "predictivity_auroc"]


def adjectives(
    words: xr.DataArray | pd.Series,
    lexicon: pd.DataFrame | None = None,
    *,
    min_z: float = 1.96,
    yes_no: Callable | None = None,
    tagger: Callable | None = None,
) -> xr.DataArray:
    """Return which adjectives describe each neuron: bool [..., adjective].

    Parameters
    ----------
    words : DataArray [..., word], DataArray [...] or Series of str
        z of words, as returned by `dissection.describe` (or its `chance`): words with z ≥ `min_z` count. Or a text per
        neuron: a word counts where `text_analysis.asserted_words` finds it without negation.
    lexicon : DataFrame, optional
        Its words in the columns `low` and `high` count; default: `descriptions.lexicon()`.
    yes_no : callable, optional
        Replaces the lexicon: whether a word describes sound; True, False, or None where that is not clear. It is called
        once for each distinct word; words without a clear answer are named in a warning and do not count.
    tagger : callable, optional
        Returns pairs (word, Penn tag) of a text, as `parts_of_speech` needs: only adjectives of texts count then.
    """
    lexicon = descriptions.lexicon() if lexicon is None else lexicon
    lexicon_words = list(dict.fromkeys(lexicon[["low", "high"]].to_numpy().ravel()))
    if isinstance(words, xr.DataArray) and "word" in words.dims:
        return _adjectives_of_scores(words, lexicon_words, min_z, yes_no)
    texts = words if isinstance(words, xr.DataArray) else xr.DataArray(words, dims=["unit"])
    return _adjectives_of_texts(texts, lexicon_words, yes_no, tagger)


def distribution(adjectives: xr.DataArray, chance: xr.DataArray | None = None) -> pd.DataFrame:
    """Return the number of neurons that each adjective describes, in descending order.

    `chance` [draw, ..., adjective], adjectives of descriptions from shuffled captions, adds the columns `chance`, the
    mean over draws (chance level), `chance_low` and `chance_high`, between which 95 % of further draws would lie, and
    `q`, the p of `statistics.prediction_test` at a false discovery rate over the adjectives. Each draw permutes the
    captions for all neurons alike, so that neurons that share exemplars are not treated as independent; and within
    speakers (`dissection.describe`), so that an adjective that nearly all clips of a speaker have in common exceeds the
    chance level only where it reflects more than speaker identity. The test refers to these clips: where a speaker's
    clips of one emotion are alike in both activation and caption, words are assigned more often than with captions
    permuted clip by clip, although nothing relates the two, and q is too small.
    """
    dims = [dim for dim in adjectives.dims if dim != "adjective"]
    table = pd.DataFrame({"neurons": adjectives.sum(dims).to_series(), "share": adjectives.mean(dims).to_series()})
    if chance is not None:
        counts = chance.sel(adjective=adjectives["adjective"]).sum(dims).transpose("draw", "adjective").values
        mean, low, high = units.prediction_band(counts)
        q = statistics.fdr(statistics.prediction_test(table["neurons"].to_numpy(), counts))
        table = table.assign(chance=mean, chance_low=np.maximum(low, 0), chance_high=high, q=q)
    return table.sort_values("neurons", ascending=False, kind="stable")


def by_layer(
    adjectives: xr.DataArray, chance: xr.DataArray | None = None, *, left_out: xr.DataArray | None = None
) -> xr.Dataset:
    """Return the mean number of adjectives per neuron in each layer (of each part) and its linear trend over layers.

    Parameters
    ----------
    adjectives : DataArray [..., adjective]
    chance : DataArray [draw, ..., adjective], optional
        Adjectives of descriptions from shuffled captions.
    left_out : DataArray [speaker, ..., adjective], optional
        Adjectives of descriptions computed without the clips of one speaker each.

    Returns
    -------
    Dataset
        `mean` [part, layer]; of the regression line through these means `slope`, adjectives per layer, its 95 % t
        interval `low` and `high`, `p` and `intercept` [part]. NaN under three layers. With `chance`: `chance` [draw,
        part, layer], `chance_slope` [draw, part], and `chance_p`, the p of `statistics.prediction_test`. With
        `left_out`: `speakers_low` and `speakers_high`, the jackknife interval of the slope, from eight speakers up.

    Notes
    -----
    Neurons of a layer are not independent, so layers are the units of the regression: its interval distinguishes a
    trend over the layers of this model from scatter between neighbouring layers, with the clips fixed. `chance_p` is
    the probability of such a slope with captions permuted at random, clip by clip, and the jackknife shows how far the
    slope depends on the speakers. Nothing here generalises to other models, nor to the same model trained again.
    """
    mean = units.layer_means(adjectives.sum("adjective"))
    trend = _fit_trend(mean)
    variables = {
        "mean": mean,
        "slope": trend.slope,
        "low": trend.low,
        "high": trend.high,
        "p": trend.p,
        "intercept": trend.intercept,
    }
    if chance is not None:
        chance_mean = units.layer_means(chance.sum("adjective"))
        chance_slope = _fit_trend(chance_mean).slope
        draws = chance_slope.transpose("draw", ...).values
        variables["chance"] = chance_mean
        variables["chance_slope"] = chance_slope
        variables["chance_p"] = trend.slope.copy(data=statistics.prediction_test(trend.slope.values, draws))
    if left_out is not None:
        slopes = _fit_trend(units.layer_means(left_out.sum("adjective"))).slope
        half_width = _jackknife_half_width(trend.slope, slopes)
        variables["speakers_low"] = trend.slope - half_width
        variables["speakers_high"] = trend.slope + half_width
    return xr.Dataset(variables)


def _adjectives_of_scores(z, lexicon_words, min_z, yes_no):
    """Return which words of the lexicon, or confirmed words, have z of at least `min_z`, [..., adjective]."""
    names = lexicon_words
    if yes_no:
        names = text_analysis.confirmed_words(z["word"].values.tolist(), yes_no)
    z = z.reindex(word=names, fill_value=0).rename(word="adjective")
    return (z >= min_z).transpose(..., "adjective")


def _adjectives_of_texts(texts, lexicon_words, yes_no, tagger):
    """Return which words of the lexicon, or confirmed words, each text asserts, [..., adjective]."""
    n_missing = sum(not isinstance(text, str) for text in texts.values.flat)
    if n_missing:
        warnings.warn(f"{n_missing} of {texts.size} neurons have no text: they get no adjectives", stacklevel=3)

    words_by_text = []
    for text in texts.values.flat:
        text_words = set()
        if isinstance(text, str):
            text_words = text_analysis.asserted_words(text, lexicon_words)
        if tagger and text_words:
            text_words = text_words & _tagged_adjectives(text, tagger)
        words_by_text.append(text_words)

    names = lexicon_words
    if yes_no:
        names = text_analysis.confirmed_words(sorted(set().union(*words_by_text)), yes_no)
    is_asserted = np.zeros((len(words_by_text), len(names)), bool)
    for row, text_words in enumerate(words_by_text):
        is_asserted[row] = [name in text_words for name in names]
    return units.unit_array(texts.drop_attrs(deep=False), is_asserted, adjective=names)


def _tagged_adjectives(text, tagger):
    """Return the words of a text, in lower case, that the tagger takes for adjectives."""
    return {word.lower() for word, tag in tagger(text) if tag.startswith("JJ")}


@dataclass(frozen=True)
class _Trend:
    """A least-squares line over layers: slope with its 95 % interval and p, and intercept, each [...]."""

    slope: xr.DataArray
    low: xr.DataArray
    high: xr.DataArray
    p: xr.DataArray
    intercept: xr.DataArray


def _fit_trend(means) -> _Trend:
    """Fit a line over the layers to means [..., layer], with n − 2 degrees of freedom; NaN under three layers."""
    layers = means["layer"].where(means.notnull())
    n = means.notnull().sum("layer")
    freedom = (n - 2).where(n > 2)
    centred_layers = layers - layers.mean("layer")
    centred_means = means - means.mean("layer")
    square_of_layers = (centred_layers**2).sum("layer")

    slope = ((centred_layers * centred_means).sum("layer") / square_of_layers).where(n > 2)
    residuals = centred_means - slope * centred_layers
    error = np.sqrt((residuals**2).sum("layer") / freedom / square_of_layers)
    half_width = error * xr.apply_ufunc(stats.t.ppf, 0.975, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = 2 * xr.apply_ufunc(stats.t.sf, np.abs(slope) / error, freedom)
    return _Trend(
        slope=slope,
        low=slope - half_width,
        high=slope + half_width,
        p=p,
        intercept=means.mean("layer") - slope * layers.mean("layer"),
    )


def _jackknife_half_width(slope, slopes):
    """Return half the width of the jackknife interval of a slope, from the slopes [speaker, ...] without a speaker."""
    slopes = slopes.transpose("speaker", ...)
    n = slopes.sizes["speaker"]
    pseudovalues = n * slope - (n - 1) * slopes
    _, low, high = statistics.interval(pseudovalues.transpose("speaker", ...))
    return (high - low) / 2
