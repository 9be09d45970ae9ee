"""Open concepts: the adjectives that describe each neuron, how many and where, and whether they are true of it.

Adjectives come from words that tell a neuron's high clips from its low ones (`dissection.describe`) or from a text
about it. Beside each count stand those of descriptions written from shuffled captions, and each adjective that names a
measured quantity is checked: does the activation of a "loud" neuron follow the level of clips not described from?
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


def adjectives(words, lexicon=None, *, least=1.96, yes_no=None, tagger=None) -> xr.DataArray:
    """Which adjectives describe each neuron: bool [..., adjective].

    Parameters
    ----------
    words : DataArray [..., word], DataArray [...] or Series of str
        z of words, of `dissection.describe` (its `null` too): those from `least` up are said, others are not. Or a text
        per neuron: a word is said where `wording.said` finds it undenied.
    lexicon : DataFrame, optional
        Whose words in `low` and `high` count; `descriptions.lexicon()` unless told.
    yes_no : callable, optional
        In place of the lexicon: whether a word describes sound; True, False, or None where that is not clear. It is
        asked each distinct word once; words without a clear answer are named in a warning and do not count.
    tagger : callable, optional
        Pairs (word, Penn tag) of a text, as `parts_of_speech` needs: of texts only adjectives are asked about then.
    """
    lexicon = descriptions.lexicon() if lexicon is None else lexicon
    known = list(dict.fromkeys(lexicon[["low", "high"]].to_numpy().ravel()))
    if isinstance(words, xr.DataArray) and "word" in words.dims:
        names = text_analysis.kept(words["word"].values.tolist(), yes_no) if yes_no else known
        return (words.reindex(word=names, fill_value=0) >= least).rename(word="adjective").transpose(..., "adjective")
    texts = words if isinstance(words, xr.DataArray) else xr.DataArray(words, dims=["unit"])
    plain = [text if isinstance(text, str) else "" for text in texts.values.flat]
    missing = sum(not isinstance(text, str) for text in texts.values.flat)
    if missing:
        warnings.warn(f"{missing} of {texts.size} neurons have no text: nothing is said of them", stacklevel=2)
    found = [text_analysis.said(text, known) for text in plain]
    if tagger:
        tagged = [{word.lower() for word, tag in tagger(text) if tag.startswith("JJ")} for text in plain]
        found = [own & tags for own, tags in zip(found, tagged)]
    names = text_analysis.kept(sorted(set().union(*found)), yes_no) if yes_no else known
    values = np.array([[name in own for name in names] for own in found], bool)
    return _like(texts, values, adjective=names)


def distribution(adjectives, null=None) -> pd.DataFrame:
    """How many neurons each adjective describes, most first.

    `null` [draw, ..., adjective], adjectives of descriptions from shuffled captions, adds `null`, the mean over draws,
    `null_low` and `null_high`, between which 95 % of further draws would lie, and `q`, of `statistics.null_test` at a
    false discovery rate over the adjectives. A draw deals out captions for all neurons alike, so that neurons that
    share exemplars do not pass for independent ones; and within speakers (`dissection.describe`), so that an adjective
    that nearly all clips of a speaker have in common beats its null only where it goes beyond who speaks. It is about
    these clips: where a speaker's clips of one emotion are alike in neuron and caption both, words are said more often
    than with captions dealt out clip by clip, though nothing relates the two, and q is too small.
    """
    dims = [dim for dim in adjectives.dims if dim != "adjective"]
    table = pd.DataFrame({"neurons": adjectives.sum(dims).to_series(), "share": adjectives.mean(dims).to_series()})
    if null is not None:
        counts = null.sum([dim for dim in null.dims if dim not in ("draw", "adjective")]).transpose("draw", "adjective")
        counts = counts.sel(adjective=adjectives["adjective"]).values
        mean, low, high = _band(counts)
        q = statistics.fdr(statistics.null_test(table["neurons"].to_numpy(), counts))
        table = table.assign(null=mean, null_low=np.maximum(low, 0), null_high=high, q=q)
    return table.sort_values("neurons", ascending=False, kind="stable")


def by_layer(adjectives, null=None, *, left_out=None) -> xr.Dataset:
    """Mean number of adjectives per neuron in each layer (of each part), and a line through the layers.

    Parameters
    ----------
    adjectives : DataArray [..., adjective]
    null : DataArray [draw, ..., adjective], optional
        Those of descriptions from shuffled captions.
    left_out : DataArray [speaker, ..., adjective], optional
        Those of descriptions written without the clips of one speaker each.

    Returns
    -------
    Dataset
        `mean` [part, layer]; of the line through these means `slope`, adjectives per layer, its 95 % t interval `low`
        and `high`, `p` and `intercept` [part]. NaN under three layers. With `null`: `null` [draw, part, layer],
        `null_slope` [draw, part], and `null_p` of `statistics.null_test`. With `left_out`: `speakers_low` and
        `speakers_high`, the interval of the slope by the jackknife, from eight speakers up.

    Notes
    -----
    Neurons of a layer are not independent, so layers are the units of the line: its interval tells a trend over the
    layers of this model from scatter between neighbouring ones, with the clips as they are. `null_p` says whether
    captions dealt out at random, clip by clip, would give such a slope, and the jackknife how far it depends on who
    speaks. Nothing here speaks of other models, nor of the same one trained again.
    """
    found = {"mean": _by_place(adjectives.sum("adjective"))}
    found |= dict(zip(("slope", "low", "high", "p", "intercept"), _line(found["mean"])))
    if null is not None:
        found["null"] = _by_place(null.sum("adjective"))
        found["null_slope"] = _line(found["null"])[0]
        draws = found["null_slope"].transpose("draw", ...)
        found["null_p"] = found["slope"].copy(data=statistics.null_test(found["slope"].values, draws.values))
    if left_out is not None:
        each, n = _line(_by_place(left_out.sum("adjective")))[0].transpose("speaker", ...), left_out.sizes["speaker"]
        pseudo = n * found["slope"] - (n - 1) * each
        _, low, high = statistics.interval(pseudo.transpose("speaker", ...))
        half = (high - low) / 2
        found |= {"speakers_low": found["slope"] - half, "speakers_high": found["slope"] + half}
    return xr.Dataset(found)


def _by_place(values):
    """Mean over the neurons of each layer, of each part where there are several."""
    return (values.unstack("unit") if "unit" in values.dims else values).mean("neuron")


def _line(means):
    """Slope over layers, low, high, p and intercept of least squares, with n − 2 degrees of freedom."""
    there = means.notnull()
    n, x = there.sum("layer"), means["layer"].where(there)
    x, y = x - x.mean("layer"), means - means.mean("layer")
    slope = ((x * y).sum("layer") / (x**2).sum("layer")).where(n > 2)
    freedom = (n - 2).where(n > 2)
    error = np.sqrt(((y - slope * x) ** 2).sum("layer") / freedom / (x**2).sum("layer"))
    half = error * xr.apply_ufunc(stats.t.ppf, 0.975, freedom)
    with np.errstate(divide="ignore", invalid="ignore"):
        p = xr.apply_ufunc(lambda t, f: 2 * stats.t.sf(t, f), np.abs(slope) / error, freedom)
    intercept = means.mean("layer") - slope * means["layer"].where(there).mean("layer")
    return slope, slope - half, slope + half, p, intercept


def _band(draws):
    """Mean over the draws of a null, and between which 95 % of further ones would lie."""
    half = stats.t.ppf(0.975, max(len(draws) - 1, 1)) * statistics.null_spread(draws)
    return draws.mean(0), draws.mean(0) - half, draws.mean(0) + half
