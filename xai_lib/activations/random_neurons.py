"""What selected neurons are compared with: random ones of like size, random directions, and the merely active.

A layer's neurons are divided into classes by their size. A random set puts, in the place of each selected neuron, one of
its class, and every neuron of the class may be drawn, the selected ones too. So if any neurons of these classes might as
well have been selected, the selected set is one of many equals, and its rank among them is an exact p
(`statistics.rank_test`). A choice by size itself takes the largest of each class, which are no equals of the rest: that
is what the target-blind selections are for.
"""

from collections import Counter

import numpy as np
import torch
import xarray as xr
from scipy import special

from .. import edits
from ..models.sites import Site

CLASS = 36  # neurons of a size class, at least
CLASSES = 12  # at most
FEWEST = 20  # different random sets, for a test: the rank among fewer cannot go below 0.05
BLIND = ("most active", "writes most")


def check(model, neurons, ks, layers, part) -> None:
    """ValueError where the model has no such layers, or none with so many neurons as are to be taken of scores."""
    model.check((model.n_layers, part))
    if isinstance(neurons, xr.Dataset) and max(ks) > model.family.width(part):
        raise ValueError(f"k is {max(ks)}, and there are {model.family.width(part)} neurons of {part} in a layer")
    for layer in () if isinstance(layers, str) and layers == "all" else np.atleast_1d(layers).tolist():
        model.check((layer, part))


def rms(moments):
    """Root mean square activation [layer, neuron], which is the size of a flip; None of None."""
    return None if moments is None else np.hypot(moments["mean"], moments["std"])


def size_classes(sizes, n=None) -> np.ndarray:
    """Divide the neurons of a layer into `n` classes by size, as even as can be: 0, the least active, to n − 1.

    Unless told, as many classes as leave 36 neurons in each, from 1 to 12: the more there are, the more alike are
    selected and random neurons, and the fewer random sets there are.
    """
    n = int(np.clip(len(sizes) // CLASS, 1, CLASSES)) if n is None else n
    classes = np.empty(len(sizes), int)
    for number, members in enumerate(np.array_split(np.argsort(sizes, kind="stable"), n)):
        classes[members] = number
    return classes


def substitutes(classes, n, *, seed=0) -> list[np.ndarray]:
    """Draw `n` times a neuron of the same class in the place of each: arrays [neuron], each a permutation.

    They do not depend on what is selected: several sets, put through the same substitution, go on sharing the neurons
    that they share.
    """
    rng, drawn = np.random.default_rng(seed), []
    members = [np.flatnonzero(classes == number) for number in np.unique(classes)]
    for _ in range(n):
        stand_in = np.empty(len(classes), int)
        for one in members:
            stand_in[one] = rng.permutation(one)
        drawn.append(stand_in)
    return drawn


def distinct(classes, neurons) -> float:
    """Count the different sets that have as many neurons of each class as `neurons` has."""
    size = np.bincount(classes)
    taken = np.bincount(np.asarray(classes)[neurons], minlength=len(size))
    return float(np.prod(special.comb(size, taken)))


def overlap(sets) -> float:
    """Mean share of neurons that two of several sets of one size have in common; 0 of fewer than two sets."""
    n = len(sets)
    if n < 2 or not len(sets[0]):
        return 0.0
    times = Counter(neuron for own in sets for neuron in own)  # in how many of the sets each neuron is
    in_common = sum(many * (many - 1) for many in times.values())  # over all ordered pairs of sets
    return in_common / (n * (n - 1) * len(sets[0]))


def blind(moments, k) -> dict:
    """The `k` neurons of each layer that a choice would name which knows nothing of the target.

    Returns
    -------
    dict
        {"most active": {layer: neurons}, "writes most": {layer: neurons}}: those of greatest root mean square
        activation, and of greatest `written` of `activations.moments`, what they add to the residual stream, greatest
        first. The second is left out where it is not known, or is the first.
    """
    ranked = {"most active": rms(moments)}
    if "written" in moments and moments["written"].notnull().all():
        ranked["writes most"] = moments["written"]
    found = {name: {int(row["layer"]): _most(row.values, k) for row in rows} for name, rows in ranked.items()}
    same = len(found) > 1 and all(np.array_equal(*pair) for pair in zip(*(rows.values() for rows in found.values())))
    return {"most active": found["most active"]} if same else found


def _most(sizes, k) -> np.ndarray:
    """Places of the `k` greatest, greatest first."""
    return np.argsort(-np.asarray(sizes), kind="stable")[:k]


def sets(width, sizes, chosen, *, nulls, directions, seed, classes=None) -> list:
    """The chosen neurons, {layer: neurons} of one layer or a group, `nulls` random sets and `directions` in their place.

    Each is a list with the neurons, or directions, of each layer. `sizes` [layer, neuron], of which the size classes
    are made, are needed for random ones.

    One neuron, or direction, stands in the place of each neuron that is chosen, the same in all layers: in the residual
    stream two flips of one neuron undo each other, and so must they in a random set.
    """
    key, own = [seed, *chosen], list(chosen.values())  # seeded by the layers, in their order
    random = []
    if nulls:
        drawn = substitutes(classes_of(sizes, chosen, classes), nulls, seed=key)
        random = [[np.sort(stand_in[neurons]) for neurons in own] for stand_in in drawn]
    distinct = np.unique(np.concatenate(own))
    turned = edits.directions(width, len(distinct), directions, seed=key)
    turned = [[basis[:, np.searchsorted(distinct, neurons)] for neurons in own] for basis in turned]
    return [own, *random, *turned]


def classes_of(sizes, layers, n=None) -> np.ndarray:
    """Size classes of the neurons of a layer, or of several together by their mean size."""
    return size_classes(sum(sizes.sel(layer=layer).values for layer in layers) / len(layers), n)


def distinct_sets(sizes, chosen, n=None) -> float:
    """Count the different random sets there are of {layer: neurons}, of one layer or a group."""
    return distinct(classes_of(sizes, chosen, n), np.unique(np.concatenate(list(chosen.values()))))


def size(sizes, members, sets):
    """Root mean square activation of sets, [set]; NaN of directions."""
    rows = [sizes.sel(layer=at).values for at in members]
    return [
        np.mean([np.sqrt(np.mean(x[own] ** 2)) if own.ndim == 1 else np.nan for x, own in zip(rows, some)])
        for some in sets
    ]


def mean_overlap(sets):
    """Mean overlap of random sets over the layers of a place."""
    return np.mean([overlap(own) for own in zip(*sets)]) if sets else 0.0


def outgoing(model, part, layers) -> np.ndarray | None:
    """Norm of what each neuron of a part writes into the stream when it is 1, [layer, neuron]; None where not known.

    1 for what is added to the stream as it is. A neuron of `ffn_hidden` or of a head writes by the column of the linear
    map that follows.
    """
    follows = {"ffn_hidden": "ffn_out", "heads": "attention"}
    if not model.family.residual:
        return None
    if part in ("attention", "ffn_out"):
        return np.ones((len(layers), model.family.width(part)))
    if part not in follows or follows[part] not in model.family.parts:
        return None
    maps = [model.family.linear(Site(int(layer), follows[part])) for layer in layers]
    if any(not isinstance(one, torch.nn.Linear) for one in maps):
        return None
    return np.stack([one.weight.detach().norm(dim=0).cpu().numpy() for one in maps])
