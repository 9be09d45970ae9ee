"""How much of each neuron's variance phonetics and emotion explain."""

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import results, statistics
from .linear_probes import TASKS, _about, _typical


def selectivity(read, *, draws=400, seed=0) -> xr.Dataset:
    """Share of each neuron's variance within speakers that goes with phonetics, and that which goes with emotion.

    Both are shares of the same variance: that over the sounds of all clips (of `read`), each speaker's mean taken off.
    Where no phonemes are timed it is that over clips, and the statement stands for phonetics. Any labels explain some,
    and more of them more: so compare what is beyond chance, `excess`. Chance is `draws` shuffles: manners dealt out
    among the phonemes, the same way in all clips, since a neuron may know phonemes and nothing of manners; statements
    and emotions among the clips of a speaker.

    Returns
    -------
    Dataset
        [task, layer, neuron]: `eta_squared`, 0 to 1; `excess`, that less its mean over shuffles; `shuffled`, their 95th
        percentile; `p`, see below, and `q`, at a false discovery rate over all of them. `typical` [task, layer, speaker]
        is the share of the median neuron, less its mean over shuffles, in the variance of one speaker, of the effects
        that the labels have over all speakers; for intervals.

    Notes
    -----
    p is the greater of two. Over labels: the share of shuffles, the real one among them, whose share of variance is as
    great; that takes clips of a speaker to be independent, and a speaker's own way with an emotion for the emotion's.
    Over speakers: whether the means of the classes differ, beyond what speakers differ in them
    (`statistics.repeated_measures_test`, over speakers who have all classes); p is NaN where those are fewer than eight.
    Where speakers are not known the first stands alone. Sentences and phonemes are those of the corpus.

    Raises
    ------
    ValueError
        Neither phonetics nor emotion have two classes.
    """
    dim = "sound" if "sound_mean" in read else "clip"
    about, values = _about(read, dim), read[f"{dim}_mean"].transpose(dim, "layer", "neuron").values.astype(float)
    parts = {}
    for task in ("manner" if dim == "sound" else "statement", "emotion"):
        column, kind = TASKS[task]
        use = about[column].notna().to_numpy() if column in about else np.zeros(len(about), bool)
        if not use.any() or about[column][use].nunique() < 2:
            continue
        some, y = about[use], pd.DataFrame(values[use].reshape(use.sum(), -1))
        y = y - y.groupby(some["speaker"].to_numpy()).transform("mean")
        # What has a label of its own: a phoneme, of all a speaker's clips, or a clip.
        unit = some.groupby(["speaker", *(kind if task == "manner" else ["clip"])], sort=False).ngroup().to_numpy()
        sums, own = y.groupby(unit), some[~pd.Index(unit).duplicated()]  # units are numbered as they appear
        speakers = pd.get_dummies(own["speaker"])
        of = sums.sum().to_numpy(), sums.size().to_numpy(), speakers.to_numpy(float)
        total = (y**2).groupby(some["speaker"].to_numpy()).sum().loc[speakers.columns].to_numpy()  # [speaker, neuron]
        whole = np.where(total.sum(axis=0) > 1e-12, total.sum(axis=0), np.nan)  # NaN of a silent neuron
        total, names = np.where(total > 1e-12, total, np.nan), own[column].to_numpy(object)
        if task == "manner":
            types = own.groupby([*kind]).ngroup().to_numpy()
            _, first = np.unique(types, return_index=True)
            dealt = (given[types] for given in _shuffled(names[first], 0 * first, draws, seed))
        else:
            dealt = _shuffled(names, own["speaker"], draws, seed)
        real, null, shape, chance = _explained(names, *of), [], (len(total), *values.shape[1:]), 0
        for one in tqdm(dealt, f"shuffles of {task}", draws, leave=False, delay=2):
            found = _explained(one, *of)
            null.append(found.sum(axis=0) / whole)
            chance = chance + _typical(found / total, shape) / draws
        eta, null = real.sum(axis=0) / whole, np.array(null)
        p = (1 + (null >= eta - 1e-9).sum(axis=0)) / np.where(np.isnan(eta), np.nan, 1 + draws)
        if results.speakers_known(read):
            p = np.maximum(p, statistics.repeated_measures_test(_class_means(y, some["speaker"], some[column])))
        found = {"eta_squared": eta, "excess": eta - null.mean(axis=0), "shuffled": np.quantile(null, 0.95, axis=0)}
        found = {name: (("layer", "neuron"), x.reshape(values.shape[1:])) for name, x in {**found, "p": p}.items()}
        found["typical"] = ("speaker", "layer"), _typical(real / total, shape) - chance
        parts[task] = xr.Dataset(found, {"speaker": speakers.columns.to_numpy(object)})
    if not parts:
        raise ValueError("there is nothing to tell apart: the clips need labels, statements or phonemes")
    out = xr.concat(parts.values(), pd.Index([*parts], dtype=object, name="task"), join="outer")
    out = out.assign_coords(layer=read["layer"].values, neuron=read["neuron"].values)
    out = out.transpose("task", "layer", "neuron", "speaker")
    return out.assign(q=(out["p"].dims, statistics.fdr(out["p"]))).assign_attrs(over=dim, draws=draws, seed=seed)


def _shuffled(labels, groups, draws, seed):
    """Labels [unit], dealt out at random within each group, `draws` times."""
    labels, groups, rng = np.asarray(labels, object), pd.factorize(groups)[0], np.random.default_rng(seed)
    home = np.argsort(groups, kind="stable")
    for _ in range(draws):
        mixed = np.empty_like(labels)
        mixed[home] = labels[np.lexsort((rng.random(len(labels)), groups))]
        yield mixed


def _class_means(values, speakers, classes):
    """Mean of values (a table [example, neuron]) of each speaker and class, [speaker, class, neuron]; NaN of none."""
    means = values.groupby([speakers.to_numpy(), classes.to_numpy()]).mean()
    every = pd.MultiIndex.from_product(means.index.levels)
    return means.reindex(every).to_numpy().reshape(*every.levshape, -1)


def _explained(labels, sums, sizes, speakers):
    """Sum of squares within speakers that the labels [unit] explain, and each speaker's part of it: [speaker, neuron].

    `sums` [unit, neuron] are of the unit's examples, less their speaker's mean; `sizes` [unit], how many there are;
    `speakers` [unit, speaker], 0 or 1.
    """
    codes = pd.get_dummies(labels).to_numpy(float)
    counts = (speakers * sizes[:, None]).T @ codes  # [speaker, label]
    gram = np.diag(counts.sum(axis=0)) - counts.T @ (counts / counts.sum(axis=1, keepdims=True))
    effects = np.linalg.pinv(gram, hermitian=True) @ (codes.T @ sums)
    return speakers.T @ (sums * (codes @ effects))
