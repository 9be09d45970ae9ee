"""Neuron sets: the selected neurons, and the controls that are edited in their place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import xarray as xr

from ..activations import check_activation_stats, random_neurons
from ..checks import require_whole_number
from .selection import Selection

SELECTED = "selected"  # the name, and the kind, of the selected neurons along the dim `neuron_set`


@dataclass(frozen=True, eq=False)
class NeuronSet:
    """Neurons that are edited together: {layer: neurons}, or {layer: array [neuron, direction]}."""

    name: str  # "selected", "random 1", …, "direction 1", …, "most active", "writes most"
    kind: str  # "selected", "random", "direction" or "target-blind"
    neurons: dict[int, np.ndarray]


@dataclass(frozen=True, eq=False)
class RandomControls:
    """What the selected neurons are compared with: as many neurons that were not selected for the target.

    Attributes
    ----------
    activation_stats : Dataset, optional
        Activation statistics by which random neurons are matched in size, as returned by
        `activations.activation_stats`, of training clips like those that are edited, such as the target's.
        Needed for random sets.
    n : int
        Random sets per layer, the same for all clips and modes: each selected neuron is replaced by any neuron of
        about its size, by root mean square activation, which is the size of a flip (`random_neurons`). In a group of
        layers a neuron that is selected in several has the same replacement in all. The smallest p is 1 / (1 + n): 40
        sets make 0.024, 100 make 0.01.
    modes : sequence of str, optional
        Modes in which controls are edited; results are NaN in the others. Default: all modes.
    size_classes : int, optional
        Number of size classes into which the neurons of a layer are divided, and from which random neurons are drawn
        (`random_neurons.size_classes`); 1 for any neuron of the layer.
    n_directions : int
        Sets of as many random directions (`edits.directions`), as a further control.
    target_blind : bool
        With random sets, also edit as many neurons of target-blind selections: the most active, and those that write
        most into the residual stream (`random_neurons.target_blind`).
    target_blind_stats : Dataset, optional
        Activation statistics by which these are selected. Default: `activation_stats`.
    """

    activation_stats: xr.Dataset | None = None
    n: int = 40
    modes: Sequence[str] | None = None
    size_classes: int | None = None
    n_directions: int = 0
    target_blind: bool = True
    target_blind_stats: xr.Dataset | None = None

    def __post_init__(self) -> None:
        if isinstance(self.modes, str):
            object.__setattr__(self, "modes", (self.modes,))
        if self.modes is not None and not len(self.modes):
            raise ValueError("controls are edited in no mode: name one in modes, or leave modes out for all")
        require_whole_number("n", self.n, least=0)
        require_whole_number("n_directions", self.n_directions, least=0)
        if self.size_classes is not None:
            require_whole_number("size_classes", self.size_classes)
        if not self.n and self.target_blind_stats is not None:
            raise ValueError(
                "target-blind selections come with random sets: with target_blind_stats, n must be above 0"
            )

    def check(self, model, part: str, modes: Sequence[str]) -> None:
        """Raise ValueError where statistics are missing, or of another model or part, or a mode is not edited."""
        not_edited = sorted(set(self.modes or ()) - set(modes))
        if not_edited:
            raise ValueError(
                f"modes of controls must be among those of the edit, {', '.join(modes)}, not {', '.join(not_edited)}"
            )
        check_activation_stats(
            self.activation_stats, model, part, self.n and "RandomControls (or n=0 for no random sets)"
        )
        check_activation_stats(self.target_blind_stats, model, part)

    @cached_property
    def sizes(self) -> xr.DataArray | None:
        """Return the root mean square activations [layer, neuron] by which neurons are matched; None if not known."""
        return random_neurons.rms(self.activation_stats)

    def neuron_sets(self, model, selection: Selection, layer_group, seed: int) -> list[NeuronSet]:
        """Return the controls of one layer or group of a selection, in the order in which results hold them."""
        selected = selection.neurons_of(layer_group)
        width = model.architecture.width(selection.part)
        sets = []

        random_sets = random_neurons.random_sets(self.sizes, selected, self.n, seed=seed, classes=self.size_classes)
        for number, neurons in enumerate(random_sets, start=1):
            sets.append(NeuronSet(f"random {number}", "random", neurons))

        directions = random_neurons.direction_sets(width, selected, self.n_directions, seed=seed)
        for number, basis in enumerate(directions, start=1):
            sets.append(NeuronSet(f"direction {number}", "direction", basis))

        if self.target_blind and self.n:
            stats = self.activation_stats if self.target_blind_stats is None else self.target_blind_stats
            for name, ranked in random_neurons.target_blind(stats, width).items():
                neurons = {layer: np.sort(ranked[layer][: len(indices)]) for layer, indices in selected.items()}
                sets.append(NeuronSet(name, "target-blind", neurons))
        return sets

    def matching(self, selection: Selection, sets: dict[object, list[NeuronSet]]) -> xr.Dataset:
        """Compute how well the sets of each layer group match the selected neurons.

        Returns
        -------
        Dataset
            ``rms`` [layer, neuron_set], root mean square activations; ``random_overlap`` [layer], the share of neurons
            that two random sets have in common; ``n_random_sets`` [layer], how many different random sets exist.
            Without variables where sizes are not known.
        """
        if self.sizes is None:
            return xr.Dataset()
        rms = []
        overlap = []
        n_sets = []
        for layer_group, neuron_sets in sets.items():
            rms.append([random_neurons.rms_of(self.sizes, neuron_set.neurons) for neuron_set in neuron_sets])
            random_sets = [neuron_set.neurons for neuron_set in neuron_sets if neuron_set.kind == "random"]
            overlap.append(random_neurons.mean_overlap(random_sets))
            selected = selection.neurons_of(layer_group)
            n_sets.append(random_neurons.count_random_sets(self.sizes, selected, self.size_classes))
        dim = selection.dim
        return xr.Dataset(
            {"rms": ((dim, "neuron_set"), rms), "random_overlap": (dim, overlap), "n_random_sets": (dim, n_sets)}
        )
