"""Rows of clips in one netCDF file: written as they come, by runs that may be killed, and read when they are used."""

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
LETTERS = 256  # bytes of the reason why a clip was skipped


def written(file, model, clips, coords, dims, attrs, rows) -> xr.Dataset:
    """Write what `rows(clips, skipped)` gives of each clip, go on where another run was stopped, and open the file.

    `rows` yields lists of (index, activation [unit], magnitude [unit], logits), of clips in their order; `coords` are of
    the units' `dims`. The file is called as told and ".part" until all rows are in it. HDF5 sets room aside, and rows
    are written there past it, so nothing grows and nothing but numbers changes. After each list comes `reached`, twice
    the number of clips that are behind plus which of two `sums` of magnitudes is theirs: the file is whole at any time.

    Raises
    ------
    ValueError
        The file does not end in .nc or its folder is not there; it holds anything else, or another run writes to it meanwhile; the model is edited.
    """
    model.require_unedited()
    file = Path(file).expanduser()
    if file.suffix != ".nc" or not file.parent.is_dir():
        raise ValueError(f"{file} must end in .nc, and its folder must exist")
    part, made = file.with_name(f"{file.name}.part"), _made(model, clips, coords, attrs)
    for path in (file, part):
        _require(path, made)
    if file.exists():
        return opened(file)
    reached, slot, skipped, groups = 0, 0, {}, ()
    if part.exists():
        with h5py.File(part) as known:
            reached, slot = divmod(int(known["reached"][()]), 2)
    if reached < len(clips) or not reached:
        groups = rows(clips.iloc[reached:], skipped)
        try:
            groups = chain([next(groups)], groups)  # what cannot be run at all leaves no file
        except audio.NoClips:
            if not reached:
                raise
            groups = ()
    if not part.exists():
        attrs = {**attrs, "model": model.name, "made": json.dumps(made)}
        _allocate(part, xr.Dataset(None, {**coords, **results.coordinates(clips, clips.index)}, attrs), dims, model)
    with h5py.File(part) as known:
        places = {name: known[name].id.get_offset() for name in VARIABLES if name in known}
        total = known["sums"][slot].ravel()
    row_of = {index: row for row, index in enumerate(clips.index)}
    with open(part, "r+b", buffering=0) as out:

        def write(name, row, values):
            if name in places:
                out.seek(places[name] + row * values.nbytes)
                out.write(values.tobytes())

        def reach(row):
            while skipped:
                index, reason = skipped.popitem()
                write("activation", row_of[index], np.full(len(total), np.nan, np.float32))
                write("reason", row_of[index], np.array(reason.encode()[:LETTERS], f"S{LETTERS}"))
            write("reached", 0, np.array(2 * row + slot))

        def alone():
            out.seek(places["reached"])
            there = part.exists() and os.path.samestat(os.fstat(out.fileno()), os.stat(part))
            if not there or int.from_bytes(out.read(8), sys.byteorder) != 2 * reached + slot:
                raise ValueError(f"another run writes {part} as well: wait for it, or give another file")

        for group in groups:
            alone()
            for index, values, size, logits in group:
                write("activation", row_of[index], values)
                write("logit", row_of[index], logits)
                total = total + size
            slot = 1 - slot
            write("sums", slot, total)
            reach(reached := row_of[index] + 1)
        alone()
        reach(len(clips))
    os.replace(part, file)
    return opened(file)


def opened(file) -> xr.Dataset:
    """The Dataset in a file of `activations`, read when it is used; of one that ends in ".part", what there is of it."""
    found = xr.open_dataset(file, engine="h5netcdf")
    reached, slot = divmod(int(found["reached"]), 2)
    reasons = {row: reason.decode(errors="ignore") for row, reason in enumerate(found["reason"].values) if reason}
    done, names = [row for row in range(reached) if row not in reasons], found["clip"].values
    skipped = json.dumps({str(names[row]): reasons[row] for row in reasons if row < reached})
    magnitude = found["sums"][slot].load() / max(len(done), 1)
    found = found.drop_vars(["reached", "reason", "sums"]).assign(magnitude=magnitude)
    for name, x in found.coords.items():
        if x.dims == ("clip",) and name != "clip" and x.dtype.kind in "OUT":  # netCDF has no word that is not there
            words = x.values.astype(object)
            found[name] = "clip", np.where(words == "", np.nan, words)
    found.attrs = {name: x for name, x in found.attrs.items() if name != "made"} | {"skipped": skipped}
    return indexed(found if len(done) == len(names) else found.isel(clip=done))


def units(model, sites) -> tuple[tuple, dict]:
    """Dims and coordinates of the neurons of sites: layer and neuron, or unit where parts or widths are several."""
    widths = [model.n_neurons(site) for site in sites]
    if len({site.part for site in sites}) == len(set(widths)) == 1:
        return ("layer", "neuron"), {"layer": [site.layer for site in sites], "neuron": np.arange(widths[0])}
    every = zip(*((site.part, site.layer, n) for site, width in zip(sites, widths) for n in range(width)))
    return ("unit",), {name: ("unit", np.array(x)) for name, x in zip(("part", "layer", "neuron"), every)}


def indexed(found) -> xr.Dataset:
    """With an index of (part, layer, neuron), where there are units: netCDF has none, and no layers of two kinds."""
    if "unit" not in found.dims:
        return found
    if found["layer"].dtype.kind in "OUT":
        pairs = zip(found["layer"].values, found["part"].values)
        layers = [layer if part == "module" else int(layer) for layer, part in pairs]
        found = found.assign_coords(layer=("unit", np.array(layers, object)))
    return found.set_index(unit=["part", "layer", "neuron"])


def _allocate(part, skeleton, dims, model):
    """A file of nothing but coordinates and room, which appears once it is whole."""
    new = part.with_name(f"{part.name}.new")
    skeleton.to_netcdf(new, engine="h5netcdf")
    shapes = {"reached": (), "sums": ("slot", *dims), "activation": ("clip", *dims), "reason": ("clip", "letter")}
    if model.labels:
        shapes["logit"] = ("clip", "target")
    with h5netcdf.File(new, "a") as file:
        file.dimensions["slot"], file.dimensions["letter"] = 2, LETTERS
        for name, dtype in VARIABLES.items():
            if name in shapes:
                variable = file.create_variable(name, shapes[name], dtype)
                variable[(0,) * len(shapes[name]) or ...] = b"" if dtype == "S1" else 0  # or no room is set aside
    os.replace(new, part)


def _made(model, clips, coords, attrs) -> dict:
    """What decides the content of a file."""
    options = [{name: np.asarray(x[-1] if isinstance(x, tuple) else x).tolist() for name, x in coords.items()}, attrs]
    about = {"weights or settings": caching.state(model), "clips": caching.content(clips), "options": options}
    return {name: joblib.hash(x) for name, x in about.items()} | {"code": caching.CODE}


def _require(path, made):
    """ValueError where a file is there that was made of anything else."""
    if not path.exists():
        return
    try:
        with h5py.File(path) as file:
            found = json.loads(file.attrs["made"])
    except (OSError, KeyError) as error:
        raise ValueError(f"{path} is there and holds no activations: give another file") from error
    other = [name for name, x in made.items() if found.get(name) != x]
    if other:
        raise ValueError(f"{path} holds activations of other {', '.join(other)}: delete it, or give another file")
