"""What chosen neurons are compared with: random ones in their place, and random directions."""

import numpy as np

from . import edits


def sets(width, sizes, chosen, *, nulls, nearest, directions, seed) -> list:
    """The chosen neurons, {layer: neurons} of one layer or a group, `nulls` random sets and `directions` in their place.

    Each is a list with the neurons, or directions, of each layer. `sizes` [layer, neuron], by which random ones are
    matched, are needed for them.

    A random set has one neuron in the place of each that is chosen, the same in all layers: in the residual stream two
    flips of one neuron undo each other, and so must they in the null.
    """
    distinct, key = np.unique(np.concatenate(list(chosen.values()))), [seed, *chosen]
    null = []
    if nulls:
        mean = sum(sizes.sel(layer=layer).values for layer in chosen) / len(chosen)
        for drawn in edits.matched(mean, distinct, nulls, nearest=nearest, seed=key):
            null.append([np.sort(drawn[np.searchsorted(distinct, own)]) for own in chosen.values()])
    turned = [edits.directions(width, len(own), directions, seed=[seed, at]) for at, own in chosen.items()]
    return [list(chosen.values()), *null, *map(list, zip(*turned))]


def size(sizes, members):
    """Function that gives the root mean square activation of sets, [set]; NaN of directions."""

    def mean(sets):
        rows = [sizes.sel(layer=at).values for at in members]
        return [np.mean([x[own].mean() if own.ndim == 1 else np.nan for x, own in zip(rows, some)]) for some in sets]

    return mean


def overlap(sets):
    """Mean overlap of random sets over the layers of a place."""
    return np.mean([edits.overlap(own) for own in zip(*sets)]) if sets else 0.0
