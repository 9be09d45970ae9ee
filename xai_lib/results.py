"""What all results have in common: how they name their clips, layers and neurons; averages over speakers."""

import json

import numpy as np
import pandas as pd
import xarray as xr

from . import statistics


def coordinates(clips: pd.DataFrame, index, **more) -> dict:
    """Coordinates of the dim `clip`: the index, what the corpus knows of each clip, and `more` by name."""
    rows = clips.loc[list(index)]
    units = "speaker" if "speaker" in rows else "source"
    known = [column for column in ("label", units, "sex", "intensity", "statement") if column in rows]
    coords = {column: ("clip", rows[column].astype(object).to_numpy()) for column in known}
    return {"clip": rows.index.to_numpy(), **coords, **{key: ("clip", values) for key, values in more.items()}}


def heard(data) -> str:
    """Whose clips a table, or a result [clip, …], is of, as JSON: speakers, or recordings where those are not known."""
    known = data.coords if isinstance(data, xr.DataArray) else data
    names = next((known[name] for name in ("speaker", "source") if name in known), [])
    return json.dumps(sorted({str(name) for name in np.asarray(names)}))


def axes(sites, values) -> dict:
    """Coordinates of the dims `layer` and `neuron` of an array [..., neuron]."""
    return {"layer": [site.layer for site in sites], "neuron": np.arange(values.shape[-1])}


def speakers_known(data) -> bool:
    """Whether every clip of a result has its speaker."""
    return "speaker" in data.coords and not pd.isna(data["speaker"].values).any()


def activity(data) -> xr.DataArray:
    """The `activation` of what `activations.activations` gives, or the array that it is already."""
    if isinstance(data, xr.Dataset) and "activation" not in data:
        raise ValueError(f"activations are needed, and this result holds {', '.join(map(str, data))}")
    return data["activation"] if isinstance(data, xr.Dataset) else data


def units(data: xr.DataArray) -> xr.DataArray:
    """One value per speaker, dim `speaker`, the clips of each averaged; where not all are known, `clip` stays."""
    return statistics.by_speaker(data) if speakers_known(data) else data


def average(data: xr.DataArray) -> xr.DataArray:
    """Mean over speakers, the clips of each averaged first; over clips where not all speakers are known."""
    values = units(data)
    return values.mean("speaker" if "speaker" in values.dims else "clip")


def attributes(model, skipped, **options) -> dict:
    """How a result was made, flat and fit for netCDF."""
    return {"model": model.name, **options, "skipped": json.dumps({str(k): v for k, v in skipped.items()})}


def padded(rows) -> np.ndarray:
    """Arrays of unequal length, [frame] or [draw, frame] or [segment, layer, neuron], as one; NaN beyond each."""
    shape = [max(sizes) for sizes in zip(*(row.shape for row in rows))]
    out = np.full((len(rows), *shape), np.nan, dtype=np.float32)
    for place, row in enumerate(rows):
        out[(place, *map(slice, row.shape))] = row
    return out
