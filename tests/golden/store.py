"""Results as plain Datasets, and as netCDF: numbers, truth values and texts, nothing of the machine."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import xarray as xr

ARRAYS = Path(__file__).parent / "arrays"
LARGE = 1000  # values, from which on an array is compressed
_FOLDERS = re.compile(r"(?<![\w.])/(?:[^\s/\"',:]+/)+")


def path(section) -> Path:
    """Where the arrays of a section are."""
    return ARRAYS / f"{section}.nc"


def plain(result) -> xr.Dataset:
    """A result as a Dataset of numbers, truth values and texts: of tables, arrays, lists and single values too.

    What is missing in texts is "". Of paths, the file's name stays.
    """
    if isinstance(result, pd.Series):
        result = result.to_frame("values" if result.name is None else result.name)
    if isinstance(result, pd.DataFrame):
        result = _of_table(result)
    if isinstance(result, xr.DataArray):
        result = result.rename(None).to_dataset(name=result.name or "values").assign_attrs(result.attrs)
    if not isinstance(result, xr.Dataset):
        values = _values(np.asarray(result))
        result = xr.Dataset({"values": ([f"axis_{place}" for place in range(values.ndim)], values)})
    result = result.reset_index([name for name in result.dims if name in result.coords])
    result = result.map(lambda one: one.drop_attrs()) if result.data_vars else result
    parts = {name: (one.dims, _values(one.values)) for name, one in result.variables.items()}
    data, coords = ({name: parts[name] for name in names} for names in (result.data_vars, result.coords))
    attributes = {name: _attribute(value) for name, value in result.attrs.items() if value is not None}
    return xr.Dataset(data, _without_index(coords), attributes)


def write(items, file) -> None:
    """Items, {name: Dataset of `plain`}, as the groups of one netCDF file."""
    encoding = {}
    for name, item in items.items():
        large = [one for one, variable in item.variables.items() if variable.size >= LARGE]
        encoding[f"/{name}"] = {one: {"zlib": True, "complevel": 9, "shuffle": True} for one in large}
    tree = xr.DataTree.from_dict({f"/{name}": _coded(item) for name, item in items.items()})
    file.parent.mkdir(exist_ok=True)
    tree.to_netcdf(file, mode="w", engine="h5netcdf", encoding=encoding)


def read(file) -> dict[str, xr.Dataset]:
    """The items of a file."""
    with xr.open_datatree(file, engine="h5netcdf", create_default_indexes=False) as tree:
        return {name: _decoded(node.to_dataset().load()) for name, node in tree.children.items()}


def parsed(value):
    """What the text of an attribute says, where it is JSON; else the value as it is."""
    if isinstance(value, str) and value[:1] in ("{", "["):
        try:
            return json.loads(value)
        except ValueError:
            return value
    return value


def _of_table(table):
    """A table as a Dataset [row], its index beside the columns, as `row_name`."""
    index = table.index
    names = [f"row_name_{level}" for level in range(index.nlevels)] if index.nlevels > 1 else ["row_name"]
    coords = {name: ("row", index.get_level_values(level)) for level, name in enumerate(names)}
    return xr.Dataset({_column(name): ("row", table[name].to_numpy()) for name in table}, coords, table.attrs)


def _column(name):
    return " ".join(map(str, name)) if isinstance(name, tuple) else str(name)


def _without_index(coords):
    """Coordinates that are values only, whatever stands twice in them."""
    return xr.Coordinates(coords, indexes={})


def _values(values):
    """An array of int64, uint64, bool, float or, of anything else, texts."""
    if values.dtype.kind == "O":
        values = _of_objects(values)
    if values.dtype.kind in "iufb":
        return values.astype({"i": np.int64, "u": np.uint64, "f": np.float64, "b": bool}[values.dtype.kind])
    texts = np.empty(values.shape, object)
    for place, value in enumerate(values.flat):
        texts.flat[place] = "" if pd.isna(value) else _text(value)
    return texts


def _of_objects(values):
    """Objects as an array of the one kind that all of them are of; else as they are."""
    kinds = {bool: (bool, np.bool_), np.int64: (int, np.integer), float: (int, float, np.number)}
    for kind, types in kinds.items():
        if values.size and all(isinstance(value, types) for value in values.flat):
            return values.astype(kind)
    return values


def _text(value):
    """A text in which no folder of this machine is named."""
    return _FOLDERS.sub("", str(value))


def _attribute(value):
    """An attribute as a number or a text."""
    if isinstance(value, (bool, np.bool_)):
        return str(bool(value))
    if isinstance(value, (int, float, np.number)):
        return value
    return _text(value if isinstance(value, str) else json.dumps(value, default=str))


def _coded(item):
    """Texts as numbers, with the texts in an attribute; floats at half their size."""
    variables = {name: _coded_variable(one) for name, one in item.variables.items()}
    data, coords = ({name: variables[name] for name in names} for names in (item.data_vars, item.coords))
    return xr.Dataset(data, _without_index(coords), item.attrs)


def _coded_variable(one):
    if one.dtype.kind == "f":
        return one.astype(np.float32)
    if one.dtype.kind not in "OU":
        return one
    texts, codes = np.unique(one.values.astype(str), return_inverse=True)
    return xr.Variable(one.dims, codes.reshape(one.shape).astype(np.int32), {"texts": json.dumps(texts.tolist())})


def _decoded(item):
    variables = {name: _decoded_variable(one) for name, one in item.variables.items()}
    data, coords = ({name: variables[name] for name in names} for names in (item.data_vars, item.coords))
    return xr.Dataset(data, _without_index(coords), item.attrs)


def _decoded_variable(one):
    if "texts" not in one.attrs:
        kinds = {"i": np.int64, "u": np.uint64, "f": np.float64, "b": bool}
        return xr.Variable(one.dims, one.values.astype(kinds[one.dtype.kind]))
    texts = np.array(json.loads(one.attrs["texts"]), object)
    return xr.Variable(one.dims, texts[one.values.astype(int)])
