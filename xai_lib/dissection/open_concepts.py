"""Open-vocabulary concepts: adjectives that describe each neuron, how many in which layers, and whether they are true.

Adjectives come from the words that distinguish a neuron's high clips from its low ones (`dissection.describe`) or from
a text about it. Counts are compared with those of descriptions computed from shuffled captions, and each adjective that
names a measured quantity is checked: does the activation of a "loud" neuron follow the level of clips that were not
used for its description?
"""

import warnings

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import statistics
from . import descriptions
from .description_tests import _like, check, predictivity_auroc
from .descriptions import text_analysis
from .descriptions.text_analysis import calibrate, parts_of_speech

__all__ = ["adjectives", "by_layer", "calibrate", "check", "distribution", "parts_of_speech", "predictivity_auroc"]


def adjectives(words, lexicon=None, *, min_z=1.96, yes_no=None, tagger=None) -> xr.DataArray:
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
        names = text_analysis.confirmed_words(words["word"].values.tolist(), yes_no) if yes_no else lexicon_words
        return (words.reindex(word=names, fill_value=0) >= min_z).rename(word="adjective").transpose(..., "adjective")
    texts = words if isinstance(words, xr.DataArray) else xr.DataArray(words, dims=["unit"])
    strings = [text if isinstance(text, str) else "" for text in texts.values.flat]
    missing = sum(not isinstance(text, str) for text in texts.values.flat)
    if missing:
        warnings.warn(f"{missing} of {texts.size} neurons have no text: they get no adjectives", stacklevel=2)
    words_by_text = [text_analysis.asserted_words(text, lexicon_words) for text in strings]
    if tagger:
        tagged = [{word.lower() for word, tag in tagger(text) if tag.startswith("JJ")} for text in strings]
        words_by_text = [text_words & adjective_words for text_words, adjective_words in zip(words_by_text, tagged)]
    names = text_analysis.confirmed_words(sorted(set().union(*words_by_text)), yes_no) if yes_no else lexicon_words
    values = np.array([[name in text_words for name in names] for text_words in words_by_text], bool)
    return _like(texts, values, adjective=names)


def distribution(adjectives, chance=None) -> pd.DataFrame:
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
        counts = chance.sum([dim for dim in chance.dims if dim not in ("draw", "adjective")]).transpose(
            "draw", "adjective"
        )
        counts = counts.sel(adjective=adjectives["adjective"]).values
        mean, low, high = _prediction_band(counts)
        q = statistics.fdr(statistics.prediction_test(table["neurons"].to_numpy(), counts))
        table = table.assign(chance=mean, chance_low=np.maximum(low, 0), chance_high=high, q=q)
    return table.sort_values("neurons", ascending=False, kind="stable")


def by_layer(adjectives, chance=None, *, left_out=None) -> xr.Dataset:
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
    variables = {"mean": _layer_means(adjectives.sum("adjective"))}
    variables |= dict(zip(("slope", "low", "high", "p", "intercept"), _linear_trend(variables["mean"])))
    if chance is not None:
        variables["chance"] = _layer_means(chance.sum("adjective"))
        variables["chance_slope"] = _linear_trend(variables["chance"])[0]
        draws = variables["chance_slope"].transpose("draw", ...)
        variables["chance_p"] = variables["slope"].copy(
            data=statistics.prediction_test(variables["slope"].values, draws.values)
        )
    if left_out is not None:
        slopes = _linear_trend(_layer_means(left_out.sum("adjective")))[0].transpose("speaker", ...)
        n = left_out.sizes["speaker"]
        pseudovalues = n * variables["slope"] - (n - 1) * slopes
        _, low, high = statistics.interval(pseudovalues.transpose("speaker", ...))
        half_width = (high - low) / 2
        variables |= {"speakers_low": variables["slope"] - half_width, "speakers_high": variables["slope"] + half_width}
    return xr.Dataset(variables)


def _layer_means(values):
    """Average over the neurons of each layer, of each part where there are several."""
    return (values.unstack("unit") if "unit" in values.dims else values).mean("neuron")


def _linear_trend(means):
    """Return slope over layers, low, high, p and intercept of least squares, with n − 2 degrees of freedom."""
    finite = means.notnull()
    n, layers = finite.sum("layer"), means["layer"].where(finite)
    layers, deviations = layers - layers.mean("layer"), means - means.mean("layer")
    slope = ((layers * deviations).sum("layer") / (layers**2).sum("layer")).where(n > 2)
    freedom = (n - 2).where(n > 2)
    error = np.sqrt(((deviations - slope * layers) ** 2).sum("layer") / freedom / (layers**2).sum("layer"))
    half_width = error * xr.apply_ufunc(stats.t.ppf, 0.975, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = xr.apply_ufunc(lambda t, df: 2 * stats.t.sf(t, df), np.abs(slope) / error, freedom)
    intercept = means.mean("layer") - slope * means["layer"].where(finite).mean("layer")
    return slope, slope - half_width, slope + half_width, p, intercept


def _prediction_band(draws):
    """Return the mean over the draws of a null distribution, and low and high of 95 % of further draws."""
    half_width = stats.t.ppf(0.975, max(len(draws) - 1, 1)) * statistics.prediction_sd(draws)
    return draws.mean(0), draws.mean(0) - half_width, draws.mean(0) + half_width
