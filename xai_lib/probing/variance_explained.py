"""Share of each neuron's variance that phonetics and emotion explain."""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from tqdm.auto import tqdm

from .. import results, statistics
from .linear_probes import TASKS, _metadata


def selectivity(data: xr.Dataset, *, draws: int = 400, seed: int = 0) -> xr.Dataset:
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
    tasks = ("manner", "emotion") if dim == "sound" else ("statement", "emotion")
    table = _metadata(data, dim)
    values = data[f"{dim}_mean"].transpose(dim, "layer", "neuron").values.astype(float)

    known = results.speakers_known(data)
    by_task = {}
    for task in tasks:
        column = TASKS[task].class_column
        if column in table and table[column].nunique() >= 2:
            has_class = table[column].notna().to_numpy()
            by_task[task] = _task_selectivity(task, values[has_class], table[has_class], known, draws, seed)
    if not by_task:
        raise ValueError("no task has two classes: the clips need different labels, statements or phonemes")

    task_names = pd.Index(list(by_task), dtype=object, name="task")
    result = xr.concat(by_task.values(), task_names, join="outer")
    result = result.assign_coords(layer=data["layer"].values, neuron=data["neuron"].values)
    result = result.transpose("task", "layer", "neuron", "speaker")
    q = result["p"].copy(data=statistics.fdr(result["p"]))
    return result.assign(q=q).assign_attrs(over=dim, draws=draws, seed=seed)


def _task_selectivity(task, values, examples, speakers_known, draws, seed):
    """Compute `selectivity` of one task, without q.

    `values` [example, layer, neuron] belong to the rows of the table `examples`, all of which have a class.
    """
    layer_shape = values.shape[1:]
    speakers = examples["speaker"].to_numpy()
    classes = examples[TASKS[task].class_column]
    deviations = pd.DataFrame(values.reshape(len(values), -1))
    deviations = deviations - deviations.groupby(speakers).transform("mean")

    # A unit has one label: it is a phoneme in all clips of a speaker, or a clip.
    type_columns = list(TASKS[task].type_columns)
    unit_columns = ["speaker", *type_columns] if task == "manner" else ["speaker", "clip"]
    unit_numbers = examples.groupby(unit_columns, sort=False).ngroup().to_numpy()
    units = examples[~pd.Index(unit_numbers).duplicated()]  # in the order of their numbers
    labels = units[TASKS[task].class_column].to_numpy(object)
    if task == "manner":
        types = units.groupby(type_columns).ngroup().to_numpy()
        shuffles = _shuffled_by_type(labels, types, draws, seed)
    else:
        shuffles = _shuffled_within(labels, units["speaker"], draws, seed)

    variance = _WithinSpeakerVariance(deviations, speakers, unit_numbers)
    explained = variance.explained(labels)
    eta_squared = variance.share(explained)
    typical = _median_over_neurons(variance.share_by_speaker(explained), layer_shape)

    null_distribution = []
    typical_chance = np.zeros(typical.shape)
    for shuffled_labels in tqdm(shuffles, f"shuffles of {task}", draws, leave=False, delay=2):
        explained = variance.explained(shuffled_labels)
        null_distribution.append(variance.share(explained))
        typical_chance += _median_over_neurons(variance.share_by_speaker(explained), layer_shape) / draws

    null_distribution = np.array(null_distribution)
    as_great = (null_distribution >= eta_squared - 1e-9).sum(axis=0)
    p = np.where(np.isnan(eta_squared), np.nan, (1 + as_great) / (1 + draws))
    if speakers_known:
        class_means = _class_means(deviations, examples["speaker"], classes)
        p = np.maximum(p, statistics.repeated_measures_test(class_means))

    by_neuron = {
        "eta_squared": eta_squared,
        "excess": eta_squared - null_distribution.mean(axis=0),
        "shuffled": np.quantile(null_distribution, 0.95, axis=0),
        "p": p,
    }
    dataset = xr.Dataset(coords={"speaker": variance.speakers.to_numpy(object)})
    for name, array in by_neuron.items():
        dataset[name] = ("layer", "neuron"), array.reshape(layer_shape)
    dataset["typical"] = ("speaker", "layer"), typical - typical_chance
    return dataset


class _WithinSpeakerVariance:
    """The variance of examples within speakers, and the part of it that labels of their units explain.

    Attributes
    ----------
    speakers : Index [speaker]
    unit_speakers : array [unit, speaker]
        1 for the unit's speaker, else 0.
    unit_sums, unit_sizes : array [unit, neuron], [unit]
        Sums over the examples of a unit, and how many they are.
    squares : array [speaker, neuron]
        Sums of squares over the examples of a speaker, of which shares are taken; NaN where nothing varies.
    """

    def __init__(self, deviations, speakers, unit_numbers):
        """Sum up `deviations`, a table [example, neuron] centred within speakers, by unit and by speaker."""
        by_unit = deviations.groupby(unit_numbers)
        self.unit_sums = by_unit.sum().to_numpy()
        self.unit_sizes = by_unit.size().to_numpy()
        unit_speakers = pd.get_dummies(pd.Series(speakers).groupby(unit_numbers).first())
        self.speakers = unit_speakers.columns
        self.unit_speakers = unit_speakers.to_numpy(float)

        squares = (deviations**2).groupby(speakers).sum().loc[self.speakers].to_numpy()
        total = squares.sum(axis=0)
        self.squares = np.where(squares > 1e-12, squares, np.nan)
        self.total = np.where(total > 1e-12, total, np.nan)  # NaN for a silent neuron

    def explained(self, labels):
        """Compute the sum of squares that the labels [unit] explain, by speaker: [speaker, neuron].

        The effects of the labels are those of a least-squares fit over all speakers, beside each speaker's mean.
        """
        indicators = pd.get_dummies(labels).to_numpy(float)  # [unit, label]
        counts = (self.unit_speakers * self.unit_sizes[:, None]).T @ indicators  # [speaker, label]
        shares = counts / counts.sum(axis=1, keepdims=True)
        gram = np.diag(counts.sum(axis=0)) - counts.T @ shares
        effects = np.linalg.pinv(gram, hermitian=True) @ (indicators.T @ self.unit_sums)  # [label, neuron]
        return self.unit_speakers.T @ (self.unit_sums * (indicators @ effects))

    def share(self, explained):
        """Return the share [neuron] of the variance within all speakers of what is explained, [speaker, neuron]."""
        return explained.sum(axis=0) / self.total

    def share_by_speaker(self, explained):
        """Return the share [speaker, neuron] of each speaker's variance of what is explained, [speaker, neuron]."""
        return explained / self.squares


def _shuffled_within(labels, groups, draws, seed):
    """Yield labels [unit], shuffled within each group, `draws` times.

    Not by `statistics.restricted_permutations`, whose random numbers are others: results would change.
    """
    labels = np.asarray(labels, object)
    group_numbers = pd.factorize(groups)[0]
    by_group = np.argsort(group_numbers, kind="stable")
    rng = np.random.default_rng(seed)
    for _ in range(draws):
        shuffled_by_group = np.lexsort((rng.random(len(labels)), group_numbers))
        shuffled = np.empty_like(labels)
        shuffled[by_group] = labels[shuffled_by_group]
        yield shuffled


def _shuffled_by_type(labels, types, draws, seed):
    """Yield labels [unit], shuffled among the types, all units of a type alike, `draws` times."""
    _, first_units = np.unique(types, return_index=True)
    one_group = np.zeros(len(first_units), int)
    for type_labels in _shuffled_within(labels[first_units], one_group, draws, seed):
        yield type_labels[types]


def _class_means(values, speakers, classes):
    """Compute the means of values (a table [example, neuron]) of each speaker and class, [speaker, class, neuron].

    NaN where a speaker has no example of the class.
    """
    means = values.groupby([speakers.to_numpy(), classes.to_numpy()]).mean()
    speaker_classes = pd.MultiIndex.from_product(means.index.levels)
    return means.reindex(speaker_classes).to_numpy().reshape(*speaker_classes.levshape, -1)


def _median_over_neurons(shares, layer_shape):
    """Return the share of the median neuron, [speaker, layer], of shares [speaker, layer × neuron].

    NaN where a speaker's neurons do not vary at all.
    """
    n_layers, n_neurons = layer_shape
    medians = pd.DataFrame(shares.reshape(-1, n_neurons)).median(axis=1)
    return medians.to_numpy().reshape(-1, n_layers)
