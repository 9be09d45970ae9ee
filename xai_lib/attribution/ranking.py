"""Rankings of neurons by attribution scores, and comparisons of the rankings."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

from .. import results
from ..checks import require_whole_number


def mean_score(scores: xr.Dataset, *, by: str = "absolute") -> xr.DataArray:
    """Compute the mean over speakers of each one's mean score [layer, neuron]; over clips if speakers are unknown.

    Scores without a dim `clip` (`activation_contrast`) are returned as they are.
    """
    if by not in ("absolute", "signed"):
        raise ValueError(f'unknown by={by!r}: use "absolute" or "signed"')
    if by not in scores or "frame" in scores[by].dims:
        raise ValueError("expected scores of neurons: a Dataset with `signed` and `absolute`, summed over frames")
    values = scores[by]
    if "clip" in values.dims:
        values = results.average(values)
    return values.transpose("layer", "neuron")


def top_neurons(scores: xr.Dataset, k: int, *, by: str = "absolute", layer: int | None = None) -> pd.DataFrame:
    """Return the `k` neurons of greatest mean score, clips averaged within speakers first; of one `layer`, if given.

    `by` is "absolute", or "signed": the strongest push towards the target. If effects are to be reported later, select
    neurons on training clips only.

    Returns
    -------
    DataFrame, best first: `layer`, `part`, `neuron`, `score`, `signed`.

    Examples
    --------
    >>> from xai_lib import attribution, corpora, models
    >>> clips = corpora.balanced(corpora.load("sample"), 8)
    >>> scores = attribution.grad_x_activation(models.load("pocket"), clips, target="angry")
    >>> attribution.top_neurons(scores, 3, layer=4)[["layer", "part", "neuron"]]
       layer          part  neuron
    0      4  hidden_state      48
    1      4  hidden_state      87
    2      4  hidden_state      42
    """
    require_whole_number("k", k)
    if layer is not None:
        if not isinstance(layer, str):  # the path of a module
            require_whole_number("layer", layer, least=0)
        if layer not in scores["layer"]:
            raise ValueError(f"layer {layer} is not in these scores: they have {scores['layer'].values.tolist()}")
        scores = scores.sel(layer=[layer])
    means = xr.Dataset({"score": mean_score(scores, by=by), "signed": mean_score(scores, by="signed")})
    table = means.to_dataframe().reset_index()
    table = table.sort_values("score", ascending=False, kind="stable").head(k)
    table.insert(1, "part", scores.attrs["part"])
    return table.reset_index(drop=True)


def agreement(scores: xr.Dataset, reference: xr.Dataset, *, by: str = "absolute") -> xr.DataArray:
    """Compute how closely each clip's ranking of the neurons follows that by the mean scores of a reference.

    It is Spearman's rank correlation over neurons, [clip, layer]; for intervals, `statistics.over_speakers`. A ranking
    that replicates for other speakers need not be specific to its target: neurons with large activations rank first for
    every target. The chance level is the agreement of the same clips' scores for the other targets.
    """
    ranks = _ranks(scores[by].transpose("clip", "layer", "neuron"))
    reference_ranks = _ranks(mean_score(reference, by=by))
    correlation = xr.corr(ranks, reference_ranks, "neuron").rename("rank_correlation")
    return correlation.drop_vars(["target", "value"], errors="ignore")


def compare_methods(scores: Mapping[str, xr.Dataset], k: int, *, by: str = "absolute") -> xr.Dataset:
    """Compute how well methods agree on the neurons: [ranking, other], for {name: scores} of the same layers.

    `rank_correlation` is Spearman's over the neurons of a layer, averaged over layers: across layers it would mostly
    compare how large they are. `overlap` is the share of the `k` top neurons of all layers that both name.
    """
    means = {name: mean_score(method_scores, by=by) for name, method_scores in scores.items()}
    _require_same_neurons(scores)
    names = list(means)
    n_neurons = means[names[0]].size
    require_whole_number("k", k)
    if k > n_neurons:
        raise ValueError(f"k must be 1 to {n_neurons}, the number of neurons, not {k}")

    ranks = {name: _ranks(mean) for name, mean in means.items()}
    top = {name: _top_positions(mean, k) for name, mean in means.items()}
    rank_correlation = pd.DataFrame(1.0, names, names)
    overlap = pd.DataFrame(1.0, names, names)
    for a, b in combinations_with_replacement(names, 2):
        correlation = float(xr.corr(ranks[a], ranks[b], "neuron").mean())
        share = len(top[a] & top[b]) / k
        for first, second in ((a, b), (b, a)):
            rank_correlation.loc[first, second] = correlation
            overlap.loc[first, second] = share

    dims = ("ranking", "other")
    return xr.Dataset(
        {"rank_correlation": (dims, rank_correlation), "overlap": (dims, overlap)},
        {"ranking": names, "other": names},
        {"k": k, "by": by},
    )


def _require_same_neurons(scores):
    """Raise ValueError unless all methods of {name: scores} score the same part and layers."""
    first, *others = scores
    part = scores[first].attrs["part"]
    layers = scores[first]["layer"].values.tolist()
    for name in others:
        other_part = scores[name].attrs["part"]
        other_layers = scores[name]["layer"].values.tolist()
        if other_part != part or other_layers != layers:
            raise ValueError(
                f"{first} is of {part} of layers {layers}, and {name} of {other_part} of layers {other_layers}: "
                "compare scores of the same part and layers"
            )


def _ranks(scores):
    """Return the ranks of the neurons, the last dim, in each layer."""
    return scores.copy(data=rankdata(scores.values, axis=-1))


def _top_positions(scores, k):
    """Return the set of the positions of the `k` best neurons in the flattened scores [layer, neuron]."""
    return set(np.argsort(-scores.values, axis=None, kind="stable")[:k])
