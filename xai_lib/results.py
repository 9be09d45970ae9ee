"""Common parts of all results: coordinates of clips, layers and neurons; attributes; averages over speakers."""

import json

import numpy as np
import pandas as pd
import xarray as xr

from . import statistics


def coordinates(clips: pd.DataFrame, index, **more) -> dict:
    """Return coordinates of the dim `clip`: the index, the corpus's metadata of each clip, and `more` by name."""
    rows = clips.loc[list(index)]
    units = "speaker" if "speaker" in rows else "recording"
    columns = [column for column in ("label", units, "sex", "intensity", "statement") if column in rows]
    coords = {column: ("clip", rows[column].astype(object).to_numpy()) for column in columns}
    return {"clip": rows.index.to_numpy(), **coords, **{key: ("clip", values) for key, values in more.items()}}


def speaker_ids_json(data) -> str:
    """Return whose clips a table, or a result [clip, …], holds, as JSON.

    These are speakers, or recordings where speakers are not known.
    """
    fields = data.coords if isinstance(data, xr.DataArray) else data
    names = next((fields[name] for name in ("speaker", "recording") if name in fields), [])
    return json.dumps(sorted({str(name) for name in np.asarray(names)}))


def axes(sites, values) -> dict:
    """Return coordinates of the dims `layer` and `neuron` of an array [..., neuron]."""
    return {"layer": [site.layer for site in sites], "neuron": np.arange(values.shape[-1])}


def speakers_known(data) -> bool:
    """Return whether every clip of a result has its speaker."""
    return "speaker" in data.coords and not pd.isna(data["speaker"].values).any()


def as_activation(data) -> xr.DataArray:
    """Return the `activation` of what `activations.activations` returns, or `data` where it is that array already."""
    if isinstance(data, xr.Dataset) and "activation" not in data:
        raise ValueError(f"activations are needed, and this result holds {', '.join(map(str, data))}")
    return data["activation"] if isinstance(data, xr.Dataset) else data


def units(data: xr.DataArray) -> xr.DataArray:
    """Average the clips of each speaker, dim `speaker`; where not all speakers are known, keep `clip`."""
    return statistics.by_speaker(data) if speakers_known(data) else data


def average(data: xr.DataArray) -> xr.DataArray:
    """Average over speakers, the clips of each first; over clips where not all speakers are known."""
    values = units(data)
    return values.mean("speaker" if "speaker" in values.dims else "clip")


def attributes(model, skipped, **options) -> dict:
    """Return how a result was made, flat and fit for netCDF."""
    return {
        "model": model.name,
        **options,
        "skipped": json.dumps({str(index): reason for index, reason in skipped.items()}),
    }


def padded(rows) -> np.ndarray:
    """Join arrays of unequal length, [frame] or [draw, frame] or [segment, layer, neuron], with NaN beyond each."""
    shape = [max(sizes) for sizes in zip(*(row.shape for row in rows))]
    out = np.full((len(rows), *shape), np.nan, dtype=np.float32)
    for position, row in enumerate(rows):
        out[(position, *map(slice, row.shape))] = row
    return out
