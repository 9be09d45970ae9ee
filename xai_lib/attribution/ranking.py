"""Rankings of neurons by attribution scores, and comparisons of the rankings."""

from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

from .. import edits, results


def mean_score(scores, *, by="absolute") -> xr.DataArray:
    """Compute the mean over speakers of each one's mean score [layer, neuron]; over clips if speakers are unknown.

    Scores without a dim `clip` (`activation_contrast`) are returned as they are.
    """
    if by not in ("absolute", "signed"):
        raise ValueError(f'unknown by={by!r}: use "absolute" or "signed"')
    if by not in scores or "frame" in scores[by].dims:
        raise ValueError("expected scores of neurons: a Dataset with `signed` and `absolute`, summed over frames")
    values = scores[by] if "clip" not in scores[by].dims else results.average(scores[by])
    return values.transpose("layer", "neuron")


def top_neurons(scores, k, *, by="absolute", layer=None) -> pd.DataFrame:
    """Return the `k` neurons of greatest mean score, clips averaged within speakers first; of one `layer`, if given.

    `by` is "absolute", or "signed": the strongest push towards the target. If effects are to be reported later, select
    neurons on training clips only.

    Returns
    -------
    DataFrame, best first: `layer`, `part`, `neuron`, `score`, `signed`.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if layer is not None and layer not in scores["layer"]:
        raise ValueError(f"layer {layer} is not in these scores: they have {scores['layer'].values.tolist()}")
    scores = scores if layer is None else scores.sel(layer=[layer])
    columns = xr.Dataset({"score": mean_score(scores, by=by), "signed": mean_score(scores, by="signed")})
    table = columns.to_dataframe().reset_index().sort_values("score", ascending=False, kind="stable").head(k)
    table.insert(1, "part", scores.attrs["part"])
    return table.reset_index(drop=True)


def select_neurons(model, neurons, ks, layers, part) -> dict[tuple, np.ndarray]:
    """Return {(layer, k): neurons}, in ascending order: the `ks` best by scores, or those of {layer: neurons}.

    Raises ValueError if they do not fit the model or the part, or if a layer has none.
    """
    if isinstance(neurons, xr.Dataset):
        if neurons.attrs["part"] != part:
            raise ValueError(
                f"the scores are of {neurons.attrs['part']}, and the edit is of {part}: use scores of the same part"
            )
        ranked = {layer: top_neurons(neurons, max(ks), layer=layer)["neuron"] for layer in neurons["layer"].values}
        selection = {(int(layer), k): np.sort(ranking[:k].to_numpy()) for layer, ranking in ranked.items() for k in ks}
    else:
        if len(ks) > 1:
            raise ValueError("several k need scores of neurons: listed neurons are all used, as one k")
        selection = {
            (model.check((layer, part)).layer, ks[0]): np.unique(edits.as_integers(indices, "neurons"))
            for layer, indices in sorted(neurons.items())
        }
    available = sorted({layer for layer, _ in selection})
    all_layers = isinstance(layers, str) and layers == "all"
    requested = available if all_layers else sorted(set(np.atleast_1d(layers).tolist()))
    missing = [layer for layer in requested if layer not in available or not len(selection[layer, ks[0]])]
    if missing or not requested:
        raise ValueError(f"no neurons are given for {f'layer {missing[0]}' if missing else 'any layer'}")
    selection = {key: indices for key, indices in selection.items() if key[0] in requested}
    for (layer, _), indices in selection.items():
        model.check((layer, part), indices)
    return selection


def agreement(scores, reference, *, by="absolute") -> xr.DataArray:
    """Compute how closely each clip's ranking of the neurons follows that by the mean scores of a reference: [clip,
    layer].

    It is Spearman's rank correlation over neurons; for intervals, `statistics.over_speakers`. A ranking that replicates
    for other speakers need not be specific to its target: neurons with large activations rank first for every target.
    The chance level is the agreement of the same clips' scores for the other targets.
    """
    tables = scores[by].transpose("clip", "layer", "neuron"), mean_score(reference, by=by)
    ranks, reference_ranks = (table.copy(data=rankdata(table.values, axis=-1)) for table in tables)
    correlation = xr.corr(ranks, reference_ranks, "neuron").rename("rank_correlation")
    return correlation.drop_vars(["target", "value"], errors="ignore")


def compare_methods(scores, k, *, by="absolute") -> xr.Dataset:
    """Compute how well methods agree on the neurons: [ranking, other], for {name: scores} of the same layers.

    `rank_correlation` is Spearman's over the neurons of a layer, averaged over layers: across layers it would mostly
    compare how large they are. `overlap` is the share of the `k` top neurons of all layers that both name.
    """
    means = {name: mean_score(result, by=by) for name, result in scores.items()}
    kinds = {name: (result.attrs["part"], means[name]["layer"].values.tolist()) for name, result in scores.items()}
    (first, kind), *others = kinds.items()
    for name, other in others:
        if other != kind:
            raise ValueError(
                f"{first} is of {kind[0]} of layers {kind[1]}, and {name} of {other[0]} of layers {other[1]}: "
                "compare scores of the same part and layers"
            )
    if not 1 <= k <= means[first].size:
        raise ValueError(f"k must be 1 to {means[first].size}, the number of neurons, not {k}")
    top = {name: set(np.argsort(-mean.values, axis=None, kind="stable")[:k]) for name, mean in means.items()}
    ranks = {name: mean.copy(data=rankdata(mean.values, axis=-1)) for name, mean in means.items()}
    rho, overlap = (pd.DataFrame(1.0, list(means), list(means)) for _ in range(2))
    for a, b in combinations_with_replacement(means, 2):
        rho.loc[a, b] = rho.loc[b, a] = float(xr.corr(ranks[a], ranks[b], "neuron").mean())
        overlap.loc[a, b] = overlap.loc[b, a] = len(top[a] & top[b]) / k
    data = {"rank_correlation": rho, "overlap": overlap}
    names = {"ranking": list(means), "other": list(means)}
    return xr.Dataset({name: (("ranking", "other"), table) for name, table in data.items()}, names, {"k": k, "by": by})
