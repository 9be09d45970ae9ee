"""Share of each neuron's variance that phonetics and emotion explain."""

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import results, statistics
from .linear_probes import TASKS, _metadata, _typical


def selectivity(data, *, draws=400, seed=0) -> xr.Dataset:
    """Compute the shares of each neuron's variance within speakers that phonetics and emotion explain.

    Both are shares of the same variance: that over the sounds of all clips (of `data`), minus each speaker's mean.
    Where no phonemes are timed it is that over clips, and the statement replaces phonetics. Any labels explain some,
    and more of them more: so compare what exceeds the chance level, `excess`. The null distribution is of `draws`
    shuffles: of manners among the phonemes, the same way in all clips, since a neuron may know phonemes and nothing of
    manners; of statements and emotions among the clips of a speaker.

    Returns
    -------
    Dataset
        [task, layer, neuron]: `eta_squared`, 0 to 1; `excess`, that minus the chance level, its mean over shuffles;
        `shuffled`, their 95th percentile; `p`, see below, and `q`, at a false discovery rate over all of them.
        `typical` [task, layer, speaker], for intervals: for each speaker, the share of variance that the labels'
        overall effects explain in the median neuron, minus its mean over shuffles.

    Notes
    -----
    p is the greater of two. Over labels: the share of shuffles, the real one among them, whose share of variance is as
    great; that assumes clips of a speaker to be independent, and mistakes how one speaker expresses an emotion for the
    emotion. Over speakers: whether the means of the classes differ, beyond what speakers differ in them
    (`statistics.repeated_measures_test`, over speakers who have all classes); p is NaN where these are fewer than
    eight. Where speakers are not known the first stands alone. The result holds for the statements and phonemes of the
    corpus.

    Raises
    ------
    ValueError
        Neither phonetics nor emotion have two classes.
    """
    dim = "sound" if "sound_mean" in data else "clip"
    table, values = _metadata(data, dim), data[f"{dim}_mean"].transpose(dim, "layer", "neuron").values.astype(float)
    datasets = {}
    for task in ("manner" if dim == "sound" else "statement", "emotion"):
        column, kind = TASKS[task]
        has_class = table[column].notna().to_numpy() if column in table else np.zeros(len(table), bool)
        if not has_class.any() or table[column][has_class].nunique() < 2:
            continue
        examples, y = table[has_class], pd.DataFrame(values[has_class].reshape(has_class.sum(), -1))
        y = y - y.groupby(examples["speaker"].to_numpy()).transform("mean")
        # Units have one label each: a phoneme in all clips of a speaker, or a clip.
        unit = examples.groupby(["speaker", *(kind if task == "manner" else ["clip"])], sort=False).ngroup().to_numpy()
        sums, units = y.groupby(unit), examples[~pd.Index(unit).duplicated()]  # units are numbered as they appear
        speakers = pd.get_dummies(units["speaker"])
        unit_data = sums.sum().to_numpy(), sums.size().to_numpy(), speakers.to_numpy(float)
        # [speaker, neuron]
        total = (y**2).groupby(examples["speaker"].to_numpy()).sum().loc[speakers.columns].to_numpy()
        whole = np.where(total.sum(axis=0) > 1e-12, total.sum(axis=0), np.nan)  # NaN for a silent neuron
        total, labels = np.where(total > 1e-12, total, np.nan), units[column].to_numpy(object)
        if task == "manner":
            types = units.groupby([*kind]).ngroup().to_numpy()
            _, first = np.unique(types, return_index=True)
            shuffled = (type_labels[types] for type_labels in _shuffled(labels[first], 0 * first, draws, seed))
        else:
            shuffled = _shuffled(labels, units["speaker"], draws, seed)
        real, null_distribution = _explained(labels, *unit_data), []
        shape, chance_level = (len(total), *values.shape[1:]), 0
        for draw in tqdm(shuffled, f"shuffles of {task}", draws, leave=False, delay=2):
            explained = _explained(draw, *unit_data)
            null_distribution.append(explained.sum(axis=0) / whole)
            chance_level = chance_level + _typical(explained / total, shape) / draws
        eta, null_distribution = real.sum(axis=0) / whole, np.array(null_distribution)
        p = (1 + (null_distribution >= eta - 1e-9).sum(axis=0)) / np.where(np.isnan(eta), np.nan, 1 + draws)
        if results.speakers_known(data):
            class_means = _class_means(y, examples["speaker"], examples[column])
            p = np.maximum(p, statistics.repeated_measures_test(class_means))
        variables = {"eta_squared": eta, "excess": eta - null_distribution.mean(axis=0)}
        variables |= {"shuffled": np.quantile(null_distribution, 0.95, axis=0), "p": p}
        variables = {name: (("layer", "neuron"), array.reshape(values.shape[1:])) for name, array in variables.items()}
        variables["typical"] = ("speaker", "layer"), _typical(real / total, shape) - chance_level
        datasets[task] = xr.Dataset(variables, {"speaker": speakers.columns.to_numpy(object)})
    if not datasets:
        raise ValueError("no task has two classes: the clips need different labels, statements or phonemes")
    result = xr.concat(datasets.values(), pd.Index([*datasets], dtype=object, name="task"), join="outer")
    result = result.assign_coords(layer=data["layer"].values, neuron=data["neuron"].values)
    result = result.transpose("task", "layer", "neuron", "speaker")
    q = result["p"].dims, statistics.fdr(result["p"])
    return result.assign(q=q).assign_attrs(over=dim, draws=draws, seed=seed)


def _shuffled(labels, groups, draws, seed):
    """Yield labels [unit], shuffled within each group, `draws` times."""
    labels, groups, rng = np.asarray(labels, object), pd.factorize(groups)[0], np.random.default_rng(seed)
    order = np.argsort(groups, kind="stable")
    for _ in range(draws):
        shuffled = np.empty_like(labels)
        shuffled[order] = labels[np.lexsort((rng.random(len(labels)), groups))]
        yield shuffled


def _class_means(values, speakers, classes):
    """Compute the means of values (a table [example, neuron]) of each speaker and class, [speaker, class, neuron].

    NaN where a speaker has no example of the class.
    """
    means = values.groupby([speakers.to_numpy(), classes.to_numpy()]).mean()
    speaker_classes = pd.MultiIndex.from_product(means.index.levels)
    return means.reindex(speaker_classes).to_numpy().reshape(*speaker_classes.levshape, -1)


def _explained(labels, sums, sizes, speakers):
    """Compute the sum of squares within speakers that the labels [unit] explain, by speaker: [speaker, neuron].

    `sums` [unit, neuron] are of the unit's examples, minus their speaker's mean; `sizes` [unit], how many there are;
    `speakers` [unit, speaker], 0 or 1.
    """
    codes = pd.get_dummies(labels).to_numpy(float)
    counts = (speakers * sizes[:, None]).T @ codes  # [speaker, label]
    gram = np.diag(counts.sum(axis=0)) - counts.T @ (counts / counts.sum(axis=1, keepdims=True))
    effects = np.linalg.pinv(gram, hermitian=True) @ (codes.T @ sums)
    return speakers.T @ (sums * (codes @ effects))
