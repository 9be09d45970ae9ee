"""Conditions: all edits of a sweep, each neuron set edited in each mode in each layer or group of layers."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from numbers import Real

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, hooks
from ..activations import check_activation_stats, donors
from ..checks import require_whole_number
from .controls import SELECTED, NeuronSet


@dataclass(frozen=True, eq=False)
class Edit:
    """What is done to neurons, and in which frames.

    Attributes
    ----------
    modes : sequence of str
        Of `edits.MODES`, each an edit of its own.
    frames, window, n_peaks
        As in `edits.edit`; for the frames of a time span, `model.frames_between(0.5, 1.0)`.
    scale : float
        Standard deviation of the noise, in standard deviations of each neuron.
    activation_stats : Dataset, optional
        Activation statistics of training clips, as returned by `activations.activation_stats`, for the modes "mean" and
        "noise".
    donors : DataFrame, optional
        A donor for each clip, by index, for "resample" (`donors.random_donors`) and "patch" (`donors.minimal_pairs`).
    """

    modes: Sequence[str] = ("flip",)
    frames: str | Sequence[int] = "all"
    window: int = 0
    n_peaks: int = 5
    scale: float = 1.0
    activation_stats: xr.Dataset | None = None
    donors: pd.DataFrame | None = None

    def __post_init__(self) -> None:
        if isinstance(self.modes, str):
            object.__setattr__(self, "modes", (self.modes,))
        if not len(self.modes):
            raise ValueError(f"an edit needs a mode: {', '.join(edits.MODES)}")
        for mode in self.modes:
            if mode not in edits.MODES:
                raise ValueError(f"unknown mode {mode!r}: the modes are {', '.join(edits.MODES)}")
        if len(set(self.modes)) < len(self.modes):
            raise ValueError(f"modes contains duplicates: {', '.join(self.modes)}")
        edits.check_frames(self.frames)
        require_whole_number("window", self.window, least=0)
        require_whole_number("n_peaks", self.n_peaks)
        if not isinstance(self.scale, Real) or not np.isfinite(self.scale):
            raise ValueError(f"scale must be a number of standard deviations, not {self.scale!r}")

    def check(self, model, part: str, clips: pd.DataFrame) -> None:
        """Raise ValueError where statistics or donors that a mode needs are missing, or of another model or part."""
        needing = {"mean", "noise"} & set(self.modes) and "an edit with mean or noise"
        check_activation_stats(self.activation_stats, model, part, needing)
        if self.donors is not None:
            is_table = isinstance(self.donors, pd.DataFrame)
            if not is_table or "label" not in self.donors or not {"path", "audio"} & set(self.donors):
                raise ValueError(
                    "donors must be a DataFrame with the columns path and label, as returned by "
                    "donors.random_donors(clips, pool)"
                )
        donors.check(self.donors, clips, self.modes)

    @cached_property
    def _statistics(self) -> dict[int, dict]:
        """Return {layer: means and stds of its neurons}, as `edits.edit` takes them."""
        if self.activation_stats is None:
            return {}
        sites = [hooks.Site(int(layer)) for layer in self.activation_stats["layer"].values]
        arguments = edits.statistics_arguments(sites, self.activation_stats)
        return {site.layer: arguments[site] for site in sites}

    def function(self, neurons, mode: str, layer: int, *, speech, seed, donor_values=None) -> edits.NeuronEdit:
        """Return the function that edits neurons of a layer in one mode, for one clip.

        `speech` [frame] says which frames hold speech, `donor_values` [frame, neuron] is what the donor has there, and
        `seed` seeds the noise.
        """
        return edits.edit(
            neurons,
            mode,
            frames=self.frames,
            window=self.window,
            n_peaks=self.n_peaks,
            scale=self.scale,
            speech=speech,
            values=donor_values,
            seed=seed,
            **self._statistics.get(layer, {}),
        )

    def frames_as_text(self) -> str:
        """Return the frame policy, or the frames as JSON, as results record it."""
        return self.frames if isinstance(self.frames, str) else json.dumps(np.asarray(self.frames).tolist())


@dataclass(frozen=True, eq=False)
class Condition:
    """One edited copy of each clip: a neuron set, edited in one mode in one layer or group of layers."""

    layer_group: int | str  # the layer, or the name of the group
    mode: str
    neuron_set: NeuronSet
    set_number: int  # of the neuron set, among those of the layer group: it seeds the noise

    @property
    def last_layer(self) -> int:
        """Return the highest layer that is edited."""
        return max(self.neuron_set.neurons)

    def plan(self, edit: Edit, part: str, *, speech, donor_values: dict, seed: tuple) -> dict:
        """Return {site: edit function} for one clip, for `execution.cascade_read`.

        `donor_values` is {site: what the donor has there}, `seed` the key of the clip's noise; for the rest see
        `Edit.function`.
        """
        plan = {}
        for layer, neurons in self.neuron_set.neurons.items():
            site = hooks.Site(layer, part)
            plan[site] = edit.function(
                neurons,
                self.mode,
                layer,
                speech=speech,
                seed=(*seed, layer, self.set_number),
                donor_values=donor_values.get(site),
            )
        return plan


class ConditionGrid:
    """The conditions of a sweep, and where each lies in a result [layer_group, mode, neuron_set].

    Attributes
    ----------
    conditions : list of Condition
        Those that are run: controls only in the modes asked for.
    """

    def __init__(self, neuron_sets: dict[object, list[NeuronSet]], modes: Sequence[str], control_modes: Sequence[str]):
        self.layer_groups = list(neuron_sets)
        self.modes = list(modes)
        self.neuron_sets = neuron_sets[self.layer_groups[0]]  # names and kinds are the same in every layer group
        self.conditions: list[Condition] = []
        self._positions: list[tuple[int, int, int]] = []
        for group_number, layer_group in enumerate(self.layer_groups):
            for mode_number, mode in enumerate(self.modes):
                for set_number, neuron_set in enumerate(neuron_sets[layer_group]):
                    if neuron_set.kind != SELECTED and mode not in control_modes:
                        continue
                    self.conditions.append(Condition(layer_group, mode, neuron_set, set_number))
                    self._positions.append((group_number, mode_number, set_number))

    def arrange(self, rows: np.ndarray) -> np.ndarray:
        """Arrange values [condition, ...] as [layer_group, mode, neuron_set, ...]; NaN where no condition was run."""
        shape = (len(self.layer_groups), len(self.modes), len(self.neuron_sets))
        arranged = np.full((*shape, *rows.shape[1:]), np.nan)
        for row, position in zip(rows, self._positions):
            arranged[position] = row
        return arranged
