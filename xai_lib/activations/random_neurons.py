"""Controls for selected neurons: random neurons of like size, random directions, and the most active neurons.

A layer's neurons are divided into classes by their size. A random set puts, in the place of each selected neuron, one
of its class, and every neuron of the class may be drawn, the selected ones too. So if any neurons of these classes
might as well have been selected, the selected set is exchangeable with the random sets, and its rank among them is an
exact p (`statistics.rank_test`). A selection by size itself takes the largest of each class, which are not exchangeable
with the others: the target-blind selections are the control for that.
"""

from collections import Counter

import numpy as np
import torch
import xarray as xr
from scipy import special

from .. import edits
from ..models.sites import Site

MIN_CLASS_SIZE = 36  # least number of neurons in a size class
MAX_CLASSES = 12  # largest number of size classes
MIN_SETS = 20  # least number of different random sets for a test: the rank among fewer cannot go below 0.05
TARGET_BLIND = ("most active", "writes most")


def rms(activation_stats):
    """Return the root mean square activation [layer, neuron], which is the size of a sign flip; None of None."""
    return None if activation_stats is None else np.hypot(activation_stats["mean"], activation_stats["std"])


def size_classes(sizes, n=None) -> np.ndarray:
    """Divide the neurons of a layer into `n` classes by size, as even as can be: 0, the least active, to n − 1.

    Default: as many classes as leave 36 neurons in each, from 1 to 12. With more classes, selected and random neurons
    are more alike, and there are fewer random sets.
    """
    n = int(np.clip(len(sizes) // MIN_CLASS_SIZE, 1, MAX_CLASSES)) if n is None else n
    classes = np.empty(len(sizes), int)
    for number, members in enumerate(np.array_split(np.argsort(sizes, kind="stable"), n)):
        classes[members] = number
    return classes


def draw_substitutions(classes, n, *, seed=0) -> list[np.ndarray]:
    """Draw `n` times, in the place of each neuron, one of its class: arrays [neuron], each a permutation.

    They do not depend on what is selected: several sets, put through the same substitution, go on sharing the neurons
    that they share.
    """
    rng, substitutions = np.random.default_rng(seed), []
    members = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    for _ in range(n):
        substitution = np.empty(len(classes), int)
        for group in members:
            substitution[group] = rng.permutation(group)
        substitutions.append(substitution)
    return substitutions


def count_sets(classes, neurons) -> float:
    """Count the different sets that have as many neurons of each class as `neurons` has."""
    class_size = np.bincount(classes)
    selected_size = np.bincount(np.asarray(classes)[neurons], minlength=len(class_size))
    return float(np.prod(special.comb(class_size, selected_size)))


def overlap(sets) -> float:
    """Return the mean share of neurons that two of several equally large sets have in common; 0 of fewer than two."""
    n = len(sets)
    if n < 2 or not len(sets[0]):
        return 0.0
    n_sets_of = Counter(neuron for neurons in sets for neuron in neurons)  # number of sets that each neuron is in
    in_common = sum(n_sets * (n_sets - 1) for n_sets in n_sets_of.values())  # over all ordered pairs of sets
    return in_common / (n * (n - 1) * len(sets[0]))


def target_blind(activation_stats, k) -> dict:
    """Select the `k` neurons of each layer that rank highest in measures which do not depend on the target.

    Returns
    -------
    dict
        {"most active": {layer: neurons}, "writes most": {layer: neurons}}: those of greatest root mean square
        activation, and of greatest `written`, as returned by `activations.activation_stats`, what they add to the
        residual stream, greatest first. The second is left out where it is not known, or is the first.
    """
    ranked = {"most active": rms(activation_stats)}
    if "written" in activation_stats and activation_stats["written"].notnull().all():
        ranked["writes most"] = activation_stats["written"]
    selections = {name: {int(row["layer"]): _largest(row.values, k) for row in rows} for name, rows in ranked.items()}
    identical = len(selections) > 1 and all(
        np.array_equal(*pair) for pair in zip(*(rows.values() for rows in selections.values()))
    )
    return {"most active": selections["most active"]} if identical else selections


def _largest(sizes, k) -> np.ndarray:
    """Return the indices of the `k` largest sizes, largest first."""
    return np.argsort(-np.asarray(sizes), kind="stable")[:k]


def random_sets(sizes: xr.DataArray, selected: dict, n: int, *, seed=0, classes=None) -> list[dict]:
    """Draw `n` random sets in the place of the selected neurons, {layer: neurons} of one layer or a group of layers.

    Each neuron is replaced by one of its size class (`sizes` [layer, neuron], `classes` of them), the same in all
    layers: in the residual stream two flips of one neuron undo each other, and so must they in a random set.
    """
    if n == 0:
        return []
    substitutions = draw_substitutions(classes_of(sizes, selected, classes), n, seed=[seed, *selected])
    sets = []
    for substitution in substitutions:
        sets.append({layer: np.sort(substitution[neurons]) for layer, neurons in selected.items()})
    return sets


def direction_sets(width: int, selected: dict, n: int, *, seed=0) -> list[dict]:
    """Draw `n` sets of random directions in the place of the selected neurons, {layer: neurons} of a layer or a group.

    One direction stands in the place of each neuron, the same in all layers. Each set is {layer: [neuron, direction]}.
    """
    unique_neurons = np.unique(np.concatenate(list(selected.values())))
    sets = []
    for basis in edits.directions(width, len(unique_neurons), n, seed=[seed, *selected]):
        columns = {layer: np.searchsorted(unique_neurons, neurons) for layer, neurons in selected.items()}
        sets.append({layer: basis[:, index] for layer, index in columns.items()})
    return sets


def classes_of(sizes, layers, n=None) -> np.ndarray:
    """Return size classes of the neurons of a layer, or of several layers together by their mean size."""
    return size_classes(sum(sizes.sel(layer=layer).values for layer in layers) / len(layers), n)


def count_random_sets(sizes, selected, n=None) -> float:
    """Count the different random sets of {layer: neurons}, of one layer or a group."""
    return count_sets(classes_of(sizes, selected, n), np.unique(np.concatenate(list(selected.values()))))


def rms_of(sizes, neuron_set) -> float:
    """Return the root mean square activation of the neurons of a set, averaged over its layers; NaN of directions."""
    values = []
    for layer, neurons in neuron_set.items():
        is_direction = neurons.ndim == 2
        values.append(np.nan if is_direction else np.sqrt(np.mean(sizes.sel(layer=layer).values[neurons] ** 2)))
    return float(np.mean(values))


def mean_overlap(sets: list[dict]) -> float:
    """Return the mean overlap of random sets, {layer: neurons} each, over their layers; 0 of none."""
    if not sets:
        return 0.0
    return float(np.mean([overlap([neuron_set[layer] for neuron_set in sets]) for layer in sets[0]]))


def outgoing(model, part, layers) -> np.ndarray | None:
    """Return the norm of what each neuron of a part adds to the residual stream when it is 1, [layer, neuron].

    None where that is not known; 1 for parts that are added to the stream as they are. A neuron of `ffn_hidden` or of a
    head writes by the column of the linear map that follows.
    """
    following_part = {"ffn_hidden": "ffn_out", "heads": "attention"}
    if not model.architecture.residual:
        return None
    if part in ("attention", "ffn_out"):
        return np.ones((len(layers), model.architecture.width(part)))
    if part not in following_part or following_part[part] not in model.architecture.parts:
        return None
    linear_maps = [model.architecture.linear(Site(int(layer), following_part[part])) for layer in layers]
    if any(not isinstance(linear_map, torch.nn.Linear) for linear_map in linear_maps):
        return None
    return np.stack([linear_map.weight.detach().norm(dim=0).cpu().numpy() for linear_map in linear_maps])
