"""Which neurons drive the model towards a class, and what part of the input drives each neuron.

Every method answers for all neurons of all layers at once, with `signed` and `absolute` scores that are ranked and
compared here. The methods have files of their own.
"""

from itertools import combinations_with_replacement

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

from .. import edits, results


def mean_score(scores, *, by="absolute") -> xr.DataArray:
    """Mean over speakers of each one's mean score [layer, neuron]; over clips where speakers are not known.

    Scores that are not of clips (`activation_contrast`) are what they are.
    """
    if by not in ("absolute", "signed"):
        raise ValueError(f'unknown by={by!r}: "absolute" or "signed"')
    if by not in scores or "frame" in scores[by].dims:
        raise ValueError("these are no scores of neurons: they need `signed` and `absolute`, summed over frames")
    values = scores[by] if "clip" not in scores[by].dims else results.average(scores[by])
    return values.transpose("layer", "neuron")


def top_neurons(scores, k, *, by="absolute", layer=None) -> pd.DataFrame:
    """The `k` neurons with the greatest mean score, clips averaged within speakers first; of one `layer`, if told.

    `by` is "absolute", or "signed": the strongest push towards the target. To report effects later, choose on training
    clips only.

    Returns
    -------
    DataFrame, best first: `layer`, `part`, `neuron`, `score`, `signed`.
    """
    if k < 1:
        raise ValueError(f"k must be 1 or more, not {k}")
    if layer is not None and layer not in scores["layer"]:
        raise ValueError(f"layer {layer} is not in these scores: they have {scores['layer'].values.tolist()}")
    scores = scores if layer is None else scores.sel(layer=[layer])
    both = xr.Dataset({"score": mean_score(scores, by=by), "signed": mean_score(scores, by="signed")})
    table = both.to_dataframe().reset_index().sort_values("score", ascending=False, kind="stable").head(k)
    table.insert(1, "part", scores.attrs["part"])
    return table.reset_index(drop=True)


def chosen(model, neurons, ks, layers, part) -> dict[tuple, np.ndarray]:
    """{(layer, k): neurons}, lowest first: the `ks` best of scores, or those of {layer: neurons}, checked (ValueError)."""
    if isinstance(neurons, xr.Dataset):
        if neurons.attrs["part"] != part:
            raise ValueError(f"the scores are of {neurons.attrs['part']}, and the edit is of {part}")
        ranked = {at: top_neurons(neurons, max(ks), layer=at)["neuron"] for at in neurons["layer"].values}
        found = {(int(at), k): np.sort(some[:k].to_numpy()) for at, some in ranked.items() for k in ks}
    else:
        if len(ks) > 1:
            raise ValueError("several k are of scores: neurons that are listed are taken as they are")
        found = {
            (model.check((at, part)).layer, ks[0]): np.unique(edits.whole(some, "neurons"))
            for at, some in sorted(neurons.items())
        }
    every = sorted({at for at, _ in found})
    wanted = every if isinstance(layers, str) and layers == "all" else sorted(set(np.atleast_1d(layers).tolist()))
    lacking = [at for at in wanted if at not in every or not len(found[at, ks[0]])]
    if lacking or not wanted:
        raise ValueError(f"no neurons are given for {f'layer {lacking[0]}' if lacking else 'any layer'}")
    found = {key: own for key, own in found.items() if key[0] in wanted}
    for (at, _), own in found.items():
        model.check((at, part), own)
    return found


def agreement(scores, reference, *, by="absolute") -> xr.DataArray:
    """How far each clip's ranking of the neurons follows the mean ranking of a reference: [clip, layer].

    It is Spearman's rank correlation over neurons; for intervals, `statistics.over_speakers`. That a ranking holds for
    other speakers does not make it one of its target: neurons with large activations come first for every target. The
    null is the agreement of the same clips' scores for the other targets.
    """
    tables = scores[by].transpose("clip", "layer", "neuron"), mean_score(reference, by=by)
    ranks, other = (table.copy(data=rankdata(table.values, axis=-1)) for table in tables)
    return xr.corr(ranks, other, "neuron").rename("rank_correlation").drop_vars(["target", "value"], errors="ignore")


def methods(scores, k, *, by="absolute") -> xr.Dataset:
    """How far methods agree on the neurons: [ranking, other], of results {name: scores} of the same layers.

    `rank_correlation` is Spearman's over the neurons of a layer, averaged over layers: across layers it would mostly
    compare how large they are. `overlap` is the share of the `k` top neurons of all layers that both name.
    """
    means = {name: mean_score(one, by=by) for name, one in scores.items()}
    kinds = {name: (one.attrs["part"], means[name]["layer"].values.tolist()) for name, one in scores.items()}
    (first, kind), *others = kinds.items()
    for name, other in others:
        if other != kind:
            raise ValueError(
                f"{first} is of {kind[0]} of layers {kind[1]}, and {name} of {other[0]} of layers {other[1]}"
            )
    if not 1 <= k <= means[first].size:
        raise ValueError(f"k must be 1 to {means[first].size}, the number of neurons, not {k}")
    top = {name: set(np.argsort(-one.values, axis=None, kind="stable")[:k]) for name, one in means.items()}
    ranks = {name: one.copy(data=rankdata(one.values, axis=-1)) for name, one in means.items()}
    rho, shared = (pd.DataFrame(1.0, list(means), list(means)) for _ in range(2))
    for a, b in combinations_with_replacement(means, 2):
        rho.loc[a, b] = rho.loc[b, a] = float(xr.corr(ranks[a], ranks[b], "neuron").mean())
        shared.loc[a, b] = shared.loc[b, a] = len(top[a] & top[b]) / k
    data = {"rank_correlation": rho, "overlap": shared}
    names = {"ranking": list(means), "other": list(means)}
    return xr.Dataset({name: (("ranking", "other"), one) for name, one in data.items()}, names, {"k": k, "by": by})
