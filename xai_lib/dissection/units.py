"""Clips by speaker and neurons side by side: what the methods of this package share.

Units are the neurons of activations [clip, …], by layer and neuron or by part, layer and neuron, or the outputs of a
classifier. A method flattens them to [clip, unit], and gives its results the dims and coordinates of the units again.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
import xarray as xr
from scipy import stats

from .. import results, statistics
from .similarity_measures import standardize


def flatten(activations: xr.DataArray | xr.Dataset) -> np.ndarray:
    """Return activations [clip, …] as an array [clip, unit]."""
    activations = results.as_activation(activations).transpose("clip", ...)
    return activations.values.reshape(activations.sizes["clip"], -1).astype(float)


def flatten_like(template: xr.DataArray, data: xr.DataArray, last: str) -> np.ndarray:
    """Return data […, last] as an array [unit, last]; ValueError if its units are not those of the template."""
    _, data = xr.align(template, data, join="exact")
    return data.transpose(*template.dims, last).values.reshape(-1, data.sizes[last])


def unit_template(activations: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return one clip of activations [clip, …], as a template of the dims and coordinates of the units."""
    activations = results.as_activation(activations).transpose("clip", ...)
    return activations.isel(clip=0, drop=True).drop_attrs(deep=False)


def selection_template(activations: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return a template of the units for scores by which neurons may be selected.

    It has index coordinates only, and the attribute `selection_speakers`, the speakers whose clips the scores depend
    on, for `pruning.compare`.
    """
    speakers = results.speaker_ids_json(results.as_activation(activations))
    return unit_template(activations).reset_coords(drop=True).assign_attrs(selection_speakers=speakers)


def unit_array(template: xr.DataArray, values: np.ndarray, **labels: Sequence) -> xr.DataArray:
    """Return values [unit], or [unit, name] with the labels of a dim `name`, with the template's dims and coordinates.

    The attributes are those of the template.
    """
    sizes = [len(names) for names in labels.values()]
    values = np.asarray(values).reshape(*template.shape, *sizes)
    return xr.DataArray(values, template.coords.assign(labels), (*template.dims, *labels), attrs=template.attrs)


def layer_ids(template: xr.DataArray) -> np.ndarray:
    """Return the number of the layer (of the part) of each unit; 0 for all where layers are not known."""
    coordinates = {}
    for name in ("part", "layer"):
        if name in template.coords:
            coordinates[name] = template[name].broadcast_like(template).transpose(*template.dims).values.ravel()
    if not coordinates:
        return np.zeros(template.size, int)
    return pd.DataFrame(coordinates).groupby(list(coordinates)).ngroup().to_numpy()


def neighbours(layer_of_units: np.ndarray, seed: int) -> np.ndarray:
    """Return for each unit another unit of its layer: the next in a random ring."""
    order = np.random.default_rng(seed).permutation(len(layer_of_units))
    order = order[np.argsort(layer_of_units[order], kind="stable")]
    starts_of_layers = np.flatnonzero(np.diff(layer_of_units[order])) + 1
    next_units = np.empty(len(layer_of_units), int)
    for ring in np.split(order, starts_of_layers):
        next_units[ring] = np.roll(ring, 1)
    return next_units


def layer_means(values: xr.DataArray) -> xr.DataArray:
    """Average over the neurons of each layer, of each part where there are several."""
    return unstack(values).mean("neuron")


def unstack(values: xr.DataArray) -> xr.DataArray:
    """Return values with dims `part`, `layer` and `neuron` in place of `unit`, if they have that."""
    return values.unstack("unit") if "unit" in values.dims else values


def speaker_rows(data: xr.DataArray) -> list[np.ndarray]:
    """Return the rows of each speaker; all rows as one group, with a warning, where speakers are not known."""
    rows = np.arange(data.sizes["clip"])
    if not results.speakers_known(data):
        warnings.warn("speakers are not known: clips are treated as independent", stacklevel=4)
        return [rows]
    return list(pd.Series(rows).groupby(data["speaker"].values).apply(np.asarray))


def comparison_groups(data: xr.DataArray) -> list[np.ndarray]:
    """Return the rows within which clips are compared: those of each speaker, or all rows as one group.

    It is one group where no speaker has two clips that differ in label, as in collections of sounds, where each
    recording has one label.
    """
    speakers = speaker_rows(data)
    all_rows = np.arange(data.sizes["clip"])
    labels = data["label"].values if "label" in data.coords else all_rows
    if any(len(pd.unique(labels[rows])) > 1 for rows in speakers):
        return speakers
    return [all_rows]


def tested_speakers(data: xr.DataArray) -> list[np.ndarray] | None:
    """Return the rows of each speaker, or None where clips or whole recordings are the units of the test.

    That is where speakers are not known, and where no speaker has two clips that differ in label.
    """
    if not results.speakers_known(data):
        return None
    groups = comparison_groups(data)
    return groups if len(groups) == len(speaker_rows(data)) else None


def restricted_permutations(data: xr.DataArray, draws: int, seed: int | Sequence[int]) -> Iterable[np.ndarray]:
    """Return row orders that shuffle within `comparison_groups`; whole speakers where that is a single group."""
    if not draws:
        return []
    speakers = speaker_rows(data)
    whole_speakers = len(comparison_groups(data)) < len(speakers)
    return statistics.restricted_permutations(speakers, draws, seed, whole_speakers=whole_speakers)


def rank_within(values: np.ndarray, groups: Iterable[np.ndarray]) -> np.ndarray:
    """Rank each column within each group, centred, of norm 1, so that products are Spearman's; 0 if all are equal."""
    ranks = np.zeros(values.shape)
    for rows in groups:
        ranks[rows] = statistics.standardize(stats.rankdata(values[rows], axis=0))
    return ranks


def correlate_within(values: np.ndarray, fits: np.ndarray, groups: Sequence[np.ndarray]) -> np.ndarray:
    """Return the correlation of values [clip, unit] and fits [clip, concept] within groups, [group, unit, concept].

    NaN where either is the same in all clips of a group.
    """
    correlations = np.full((len(groups), values.shape[1], fits.shape[1]), np.nan, values.dtype)
    for index, rows in enumerate(groups):
        unit_values = standardize(values[rows]).astype(values.dtype)
        unit_fits = standardize(fits[rows]).astype(values.dtype)
        varies = unit_values.any(axis=0)[:, None] & unit_fits.any(axis=0)
        correlations[index] = np.where(varies, unit_values.T @ unit_fits, np.nan)
    return correlations


def prediction_band(draws: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the mean over the draws [draw, …] of a null distribution, and low and high of 95 % of further draws."""
    mean = draws.mean(0)
    half_width = stats.t.ppf(0.975, max(len(draws) - 1, 1)) * statistics.prediction_sd(draws)
    return mean, mean - half_width, mean + half_width
