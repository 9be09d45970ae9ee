"""Common parts of all results: coordinates of clips, layers and neurons; attributes; averages over speakers."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from . import statistics


def coordinates(clips: pd.DataFrame, index: Iterable, **more) -> dict:
    """Return coordinates of the dim `clip`: the index, the corpus's metadata of each clip, and `more` by name."""
    rows = clips.loc[list(index)]
    speaker_column = "speaker" if "speaker" in rows else "recording"
    coords = {"clip": rows.index.to_numpy()}
    for column in ("label", speaker_column, "sex", "intensity", "statement"):
        if column in rows:
            coords[column] = ("clip", rows[column].astype(object).to_numpy())

    for name, values in more.items():
        coords[name] = ("clip", values)
    return coords


def speaker_ids_json(data: pd.DataFrame | xr.DataArray) -> str:
    """Return whose clips a table, or a result [clip, …], holds, as JSON.

    These are speakers, or recordings where speakers are not known.
    """
    columns = data.coords if isinstance(data, xr.DataArray) else data
    if "speaker" in columns:
        names = columns["speaker"]
    elif "recording" in columns:
        names = columns["recording"]
    else:
        names = []
    different = {str(name) for name in np.asarray(names)}
    return json.dumps(sorted(different))


def recorded_speakers(data: xr.Dataset) -> set[str]:
    """Return the speakers on whose clips a result rests: those of its clips, and those that its attributes record."""
    names = set()
    if "speaker" in data.coords:
        names |= {str(name) for name in data["speaker"].values.ravel()}
    for attribute in ("speakers", "selection_speakers"):
        names |= set(json.loads(data.attrs.get(attribute, "[]")))
    return names


def axes(sites: Sequence, values: np.ndarray) -> dict:
    """Return coordinates of the dims `layer` and `neuron` of an array [..., neuron]; a layer for each Site."""
    return {"layer": [site.layer for site in sites], "neuron": np.arange(values.shape[-1])}


def speakers_known(data: xr.DataArray | xr.Dataset) -> bool:
    """Return whether every clip of a result has its speaker."""
    return "speaker" in data.coords and not pd.isna(data["speaker"].values).any()


def as_activation(data: xr.DataArray | xr.Dataset) -> xr.DataArray:
    """Return the `activation` of what `activations.activations` returns, or `data` where it is that array already."""
    if not isinstance(data, xr.Dataset):
        return data
    if "activation" not in data:
        raise ValueError(f"activations are needed, and this result holds {', '.join(map(str, data))}")
    return data["activation"]


def units(data: xr.DataArray) -> xr.DataArray:
    """Average the clips of each speaker, dim `speaker`; where not all speakers are known, keep `clip`."""
    return statistics.by_speaker(data) if speakers_known(data) else data


def average(data: xr.DataArray) -> xr.DataArray:
    """Average over speakers, the clips of each first; over clips where not all speakers are known."""
    values = units(data)
    unit_dim = "speaker" if "speaker" in values.dims else "clip"
    return values.mean(unit_dim)


def attributes(model, skipped: dict, **options) -> dict:
    """Return how a result was made, flat and fit for netCDF; `skipped` is {index of a clip: reason}."""
    reasons = {str(index): reason for index, reason in skipped.items()}
    return {"model": model.name, **options, "skipped": json.dumps(reasons)}


def padded(rows: Collection[np.ndarray]) -> np.ndarray:
    """Join arrays of unequal length, [frame] or [draw, frame] or [segment, layer, neuron], with NaN beyond each."""
    shapes = [row.shape for row in rows]
    longest = [max(sizes) for sizes in zip(*shapes)]
    joined = np.full((len(shapes), *longest), np.nan, dtype=np.float32)
    for target, row in zip(joined, rows):
        extent = tuple(slice(size) for size in row.shape)
        target[extent] = row
    return joined
