"""Activations in one netCDF file: written clip by clip, by runs that may be killed, and read lazily."""

import json
import os
import sys
from itertools import chain
from pathlib import Path

import h5netcdf
import h5py
import joblib
import numpy as np
import xarray as xr

from .. import audio, results
from . import caching

VARIABLES = {"reached": "i8", "sums": "f8", "activation": "f4", "logit": "f4", "reason": "S1"}
MAX_REASON_BYTES = 256  # bytes stored of the reason why a clip was skipped


def write_activations(file, model, clips, coords, dims, attrs, rows) -> xr.Dataset:
    """Write what `rows(clips, skipped)` yields for each clip, resume where another run was stopped, and open the file.

    `rows` yields lists of (index, activation [unit], magnitude [unit], logits), of clips in their order; `coords` are
    of the units' `dims`. Rows are written to "<file>.part", which is renamed to `file` when it is complete. HDF5
    preallocates the space, and rows are written there without HDF5, so the file does not grow and only numbers change.
    After each list `reached` is written, twice the number of clips that are done plus which of two `sums` of magnitudes
    is theirs: the file is consistent at any time.

    Raises
    ------
    ValueError
        The file does not end in .nc or its folder does not exist; it holds anything else, or another run writes to it
        meanwhile; the model is edited.
    """
    model.require_unedited()
    file = Path(file).expanduser()
    if file.suffix != ".nc" or not file.parent.is_dir():
        raise ValueError(f"{file} must end in .nc, and its folder must exist")
    part, provenance = file.with_name(f"{file.name}.part"), _provenance(model, clips, coords, attrs)
    for path in (file, part):
        _require_provenance(path, provenance)
    if file.exists():
        return open_activations(file)
    reached, slot, skipped, groups = 0, 0, {}, ()
    if part.exists():
        with h5py.File(part) as stored:
            reached, slot = divmod(int(stored["reached"][()]), 2)
    if reached < len(clips) or not reached:
        groups = rows(clips.iloc[reached:], skipped)
        try:
            groups = chain([next(groups)], groups)  # a run that fails at its first clips leaves no file
        except audio.NoClips:
            if not reached:
                raise
            groups = ()
    if not part.exists():
        attrs = {**attrs, "model": model.name, "made": json.dumps(provenance)}
        _allocate(part, xr.Dataset(None, {**coords, **results.coordinates(clips, clips.index)}, attrs), dims, model)
    with h5py.File(part) as stored:
        offsets = {name: stored[name].id.get_offset() for name in VARIABLES if name in stored}
        total = stored["sums"][slot].ravel()
    row_of = {index: row for row, index in enumerate(clips.index)}
    with open(part, "r+b", buffering=0) as out:

        def write(name, row, values):
            if name in offsets:
                out.seek(offsets[name] + row * values.nbytes)
                out.write(values.tobytes())

        def extend_to(row):
            while skipped:
                index, reason = skipped.popitem()
                write("activation", row_of[index], np.full(len(total), np.nan, np.float32))
                write("reason", row_of[index], np.array(reason.encode()[:MAX_REASON_BYTES], f"S{MAX_REASON_BYTES}"))
            write("reached", 0, np.array(2 * row + slot))

        def require_single_writer():
            out.seek(offsets["reached"])
            is_same_file = part.exists() and os.path.samestat(os.fstat(out.fileno()), os.stat(part))
            if not is_same_file or int.from_bytes(out.read(8), sys.byteorder) != 2 * reached + slot:
                raise ValueError(f"another run writes {part} as well: wait for it, or give another file")

        for group in groups:
            require_single_writer()
            for index, values, size, logits in group:
                write("activation", row_of[index], values)
                write("logit", row_of[index], logits)
                total = total + size
            slot = 1 - slot
            write("sums", slot, total)
            extend_to(reached := row_of[index] + 1)
        require_single_writer()
        extend_to(len(clips))
    os.replace(part, file)
    return open_activations(file)


def open_activations(file) -> xr.Dataset:
    """Open a file of `activations` as a Dataset that is read lazily; of one that ends in ".part", the rows so far."""
    dataset = xr.open_dataset(file, engine="h5netcdf")
    reached, slot = divmod(int(dataset["reached"]), 2)
    reasons = {row: reason.decode(errors="ignore") for row, reason in enumerate(dataset["reason"].values) if reason}
    done, clip_names = [row for row in range(reached) if row not in reasons], dataset["clip"].values
    skipped = json.dumps({str(clip_names[row]): reasons[row] for row in reasons if row < reached})
    magnitude = dataset["sums"][slot].load() / max(len(done), 1)
    dataset = dataset.drop_vars(["reached", "reason", "sums"]).assign(magnitude=magnitude)
    for name, coordinate in dataset.coords.items():
        # netCDF has no missing strings
        if coordinate.dims == ("clip",) and name != "clip" and coordinate.dtype.kind in "OUT":
            values = coordinate.values.astype(object)
            dataset[name] = "clip", np.where(values == "", np.nan, values)
    dataset.attrs = {name: value for name, value in dataset.attrs.items() if name != "made"} | {"skipped": skipped}
    return with_unit_index(dataset if len(done) == len(clip_names) else dataset.isel(clip=done))


def units(model, sites) -> tuple[tuple, dict]:
    """Return dims and coordinates of the neurons of sites: layer and neuron, or unit for several parts or widths."""
    widths = [model.n_neurons(site) for site in sites]
    if len({site.part for site in sites}) == len(set(widths)) == 1:
        return ("layer", "neuron"), {"layer": [site.layer for site in sites], "neuron": np.arange(widths[0])}
    unit_labels = zip(*((site.part, site.layer, n) for site, width in zip(sites, widths) for n in range(width)))
    return ("unit",), {
        name: ("unit", np.array(labels)) for name, labels in zip(("part", "layer", "neuron"), unit_labels)
    }


def with_unit_index(dataset) -> xr.Dataset:
    """Add an index of (part, layer, neuron) where there are units: netCDF has none, and no layers of two types."""
    if "unit" not in dataset.dims:
        return dataset
    if dataset["layer"].dtype.kind in "OUT":
        pairs = zip(dataset["layer"].values, dataset["part"].values)
        layers = [layer if part == "module" else int(layer) for layer, part in pairs]
        dataset = dataset.assign_coords(layer=("unit", np.array(layers, object)))
    return dataset.set_index(unit=["part", "layer", "neuron"])


def _allocate(part, skeleton, dims, model):
    """Create a file of nothing but coordinates and preallocated space, which appears once it is complete."""
    temporary = part.with_name(f"{part.name}.new")
    skeleton.to_netcdf(temporary, engine="h5netcdf")
    shapes = {"reached": (), "sums": ("slot", *dims), "activation": ("clip", *dims), "reason": ("clip", "letter")}
    if model.labels:
        shapes["logit"] = ("clip", "target")
    with h5netcdf.File(temporary, "a") as file:
        file.dimensions["slot"], file.dimensions["letter"] = 2, MAX_REASON_BYTES
        for name, dtype in VARIABLES.items():
            if name in shapes:
                variable = file.create_variable(name, shapes[name], dtype)
                # a written value makes HDF5 allocate the space
                variable[(0,) * len(shapes[name]) or ...] = b"" if dtype == "S1" else 0
    os.replace(temporary, part)


def _provenance(model, clips, coords, attrs) -> dict:
    """Return hashes of all that determines the content of a file."""
    options = [
        {
            name: np.asarray(values[-1] if isinstance(values, tuple) else values).tolist()
            for name, values in coords.items()
        },
        attrs,
    ]
    inputs = {
        "weights or settings": caching.model_state(model),
        "clips": caching.hashable_content(clips),
        "options": options,
    }
    return {name: joblib.hash(value) for name, value in inputs.items()} | {"code": caching.CODE}


def _require_provenance(path, provenance):
    """Raise ValueError where a file exists that was made of anything else."""
    if not path.exists():
        return
    try:
        with h5py.File(path) as file:
            stored = json.loads(file.attrs["made"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} exists and holds no activations: give another file") from error
    different = [name for name, value in provenance.items() if stored.get(name) != value]
    if different:
        raise ValueError(f"{path} holds activations of other {', '.join(different)}: delete it, or give another file")
