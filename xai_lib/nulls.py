"""What chosen neurons are compared with: random ones in their place, and random directions."""

import numpy as np
import xarray as xr

from . import edits


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


def sets(width, sizes, chosen, *, nulls, nearest, directions, seed) -> list:
    """The chosen neurons, {layer: neurons} of one layer or a group, `nulls` random sets and `directions` in their place.

    Each is a list with the neurons, or directions, of each layer. `sizes` [layer, neuron], by which random ones are
    matched, are needed for them.

    A random set has one neuron, or direction, in the place of each neuron that is chosen, the same in all layers: in the
    residual stream two flips of one neuron undo each other, and so must they in the null.
    """
    distinct, key = np.unique(np.concatenate(list(chosen.values()))), [seed, *chosen]
    null = []
    if nulls:
        mean = sum(sizes.sel(layer=layer).values for layer in chosen) / len(chosen)
        for drawn in edits.matched(mean, distinct, nulls, nearest=nearest, seed=key):
            null.append([np.sort(drawn[np.searchsorted(distinct, own)]) for own in chosen.values()])
    turned = edits.directions(width, len(distinct), directions, seed=key)
    turned = [[basis[:, np.searchsorted(distinct, own)] for own in chosen.values()] for basis in turned]
    return [list(chosen.values()), *null, *turned]


def size(sizes, members, sets):
    """Root mean square activation of sets, [set]; NaN of directions."""
    rows = [sizes.sel(layer=at).values for at in members]
    return [np.mean([x[own].mean() if own.ndim == 1 else np.nan for x, own in zip(rows, some)]) for some in sets]


def overlap(sets):
    """Mean overlap of random sets over the layers of a place."""
    return np.mean([edits.overlap(own) for own in zip(*sets)]) if sets else 0.0
