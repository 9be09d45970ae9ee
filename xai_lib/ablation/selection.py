"""Selections: the neurons that are edited, of each layer or of groups of layers that are edited together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pandas as pd
import xarray as xr

from .. import attribution, edits, results
from ..checks import require_whole_number
from ..models import require_model


@dataclass(frozen=True, eq=False)
class Selection:
    """Neurons to be edited, by layer: given by hand, or by their scores (`select`).

    Attributes
    ----------
    neurons : dict
        {layer: neurons}.
    part : str
        Part of the layer that the neurons are of; for attention heads "heads" and `model.head_neurons`.
    groups : dict, optional
        {name: layers} that are edited together, and then only these layers; without, each layer is edited by itself.
    speakers : tuple of str
        Those on whom the neurons were selected, as far as that is known: their clips are not evidence.
    """

    neurons: Mapping[int, Sequence[int]]
    part: str = "hidden_state"
    groups: Mapping[str, Sequence[int]] | None = None
    speakers: tuple[str, ...] = field(default=(), repr=False)

    def __post_init__(self) -> None:
        if not isinstance(self.neurons, Mapping) or isinstance(self.neurons, xr.Dataset):
            raise ValueError("a selection is {layer: neurons}; of scores, ablation.select(scores, k=20) makes one")
        if not self.neurons:
            raise ValueError("the selection has no layer: give {layer: neurons}")
        neurons = {}
        for layer in sorted(_as_layer(layer) for layer in self.neurons):
            indices = np.unique(edits.as_integers(self.neurons[layer], "neurons"))
            if not len(indices):
                raise ValueError(f"no neurons are given for layer {layer}")
            neurons[layer] = indices

        groups = None
        if self.groups is not None:
            groups = _checked_groups(self.groups, neurons)
            layers_of_groups = sorted(set().union(*groups.values()))
            neurons = {layer: neurons[layer] for layer in layers_of_groups}

        speakers = (self.speakers,) if isinstance(self.speakers, str) else tuple(self.speakers)
        # The class is frozen, so that a selection stays what a result was made of.
        object.__setattr__(self, "neurons", neurons)
        object.__setattr__(self, "groups", groups)
        object.__setattr__(self, "speakers", speakers)

    def together(self, groups: Mapping[str, Sequence[int]]) -> Selection:
        """Return the same neurons, edited in groups of layers: {name: layers}, as returned by `ablation.groups`."""
        return replace(self, groups=groups)

    @property
    def dim(self) -> str:
        """Return the dim of a result along which the edits lie: "layer", or "group"."""
        return "layer" if self.groups is None else "group"

    @property
    def layer_groups(self) -> dict:
        """Return {layer, or name of a group: layers that are edited together}; a layer alone is a group of one."""
        return {layer: [layer] for layer in self.neurons} if self.groups is None else dict(self.groups)

    def neurons_of(self, layer_group) -> dict[int, np.ndarray]:
        """Return {layer: neurons} of one of the layer groups, by its name."""
        return {layer: self.neurons[layer] for layer in self.layer_groups[layer_group]}

    def check(self, model) -> None:
        """Raise ValueError where the model lacks a layer, or a layer one of its neurons."""
        for layer, indices in self.neurons.items():
            model.check((layer, self.part), indices)

    def mask(self, model) -> xr.DataArray:
        """Return which neurons are edited, bool [layer, neuron], as results record it.

        Of groups, bool [group, edited_layer, neuron].
        """
        width = model.architecture.width(self.part)
        of_layers = np.zeros((len(self.neurons), width), dtype=bool)
        for row, neurons in enumerate(self.neurons.values()):
            of_layers[row, neurons] = True
        coordinates = {"layer": list(self.neurons), "neuron": np.arange(width)}
        mask = xr.DataArray(of_layers, coordinates, ("layer", "neuron"))
        if self.groups is None:
            return mask
        of_groups = [mask & mask["layer"].isin(layers) for layers in self.groups.values()]
        return xr.concat(of_groups, pd.Index(list(self.groups), name="group")).rename(layer="edited_layer")


def select(scores: xr.Dataset, k: int = 20, *, layers: Sequence[int] | None = None) -> Selection:
    """Select the `k` neurons of greatest mean `absolute` score in each layer.

    Parameters
    ----------
    scores : Dataset
        Scores of any method of `attribution`, of training clips. Clips are averaged within speakers first.
    layers : sequence of int, optional
        Default: all layers that have scores.

    Raises
    ------
    ValueError
        `k` exceeds the number of neurons in a layer, or a layer has no scores.

    Examples
    --------
    >>> from xai_lib import ablation, attribution, corpora, models
    >>> clips = corpora.balanced(corpora.load("sample"), 8)
    >>> scores = attribution.grad_x_activation(models.load("pocket"), clips, target="angry")
    >>> selection = ablation.select(scores, k=3, layers=[4])
    >>> selection.neurons
    {4: array([42, 48, 87])}
    """
    if not isinstance(scores, xr.Dataset):
        raise ValueError(
            "scores must be a Dataset of attribution; for neurons by hand, ablation.Selection({layer: neurons})"
        )
    require_whole_number("k", k)
    if k > scores.sizes["neuron"]:
        raise ValueError(f"k is {k}, and there are {scores.sizes['neuron']} neurons in a layer: give a smaller k")
    available = [int(layer) for layer in scores["layer"].values]
    requested = available if layers is None else sorted({_as_layer(layer) for layer in np.atleast_1d(layers).tolist()})
    _require_neurons(requested, available)

    neurons = {}
    for layer in requested:
        neurons[layer] = attribution.top_neurons(scores, k, layer=layer)["neuron"].to_numpy()
    return Selection(neurons, scores.attrs["part"], speakers=tuple(sorted(results.recorded_speakers(scores))))


def _as_layer(layer) -> int:
    """Return the number of a layer as an int; raise ValueError for anything else, such as 2.5."""
    if not isinstance(layer, (int, np.integer)) or isinstance(layer, bool):
        raise ValueError(f"layer must be an integer, not {layer!r}")
    return int(layer)


def _checked_groups(groups, neurons) -> dict[str, list[int]]:
    """Return {name: layers, sorted}; raise ValueError for groups without layers, or with layers without neurons."""
    if not isinstance(groups, Mapping):
        raise ValueError(f"groups must be {{name: layers}}, as returned by ablation.groups(model), not {groups!r}")
    if not groups:
        raise ValueError("no group is given: leave groups out to edit each layer by itself")
    checked = {}
    for name, members in groups.items():
        if not isinstance(members, Iterable):
            raise ValueError(f"the layers of the group {name!r} must be a list, not {members!r}")
        members = [_as_layer(layer) for layer in members]
        if not members:
            raise ValueError(f"no layer is given for the group {name!r}")
        checked[name] = sorted(set(members))
        _require_neurons(checked[name], neurons)
    return checked


def _require_neurons(requested, available) -> None:
    """Raise ValueError where no layer is requested, or one that has no neurons."""
    missing = [layer for layer in requested if layer not in available]
    if missing or not requested:
        raise ValueError(f"no neurons are given for {f'layer {missing[0]}' if missing else 'any layer'}")


def groups(model, names: Sequence[str] = ("early", "middle", "late")) -> dict[str, list[int]]:
    """Return {name: layers}: the layers 0 to L, split as evenly as possible into one group for each name."""
    require_model(model)
    parts = np.array_split(np.arange(model.n_layers + 1), len(names))
    return {f"{name} {layers[0]}–{layers[-1]}": layers.tolist() for name, layers in zip(names, parts)}
