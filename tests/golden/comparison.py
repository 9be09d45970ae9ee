"""Whether what is found is what it was: choices the same, values nearly."""

import numpy as np

from . import store

RTOL, ATOL = 1e-5, 1e-6
KINDS = {"f": "numbers", "i": "whole numbers", "u": "whole numbers", "b": "truth values", "O": "texts", "U": "texts"}


def differences(section, golden, found) -> list[str]:
    """What differs, a sentence each: items, variables, dims, coordinates, attributes, choices and values."""
    said = _names(section, "result", golden, found)
    for name in sorted(set(golden) & set(found)):
        said += _of_items(f"{section}, {name}", golden[name], found[name])
    return said


def _of_items(where, golden, found):
    said = _names(where, "variable", golden.data_vars, found.data_vars)
    said += _names(where, "coordinate", golden.coords, found.coords)
    said += _names(where, "attribute", golden.attrs, found.attrs)
    for name in sorted(set(golden.variables) & set(found.variables)):
        said += _of_variables(f"{where}, {name}", golden.variables[name], found.variables[name])
    for name in sorted(set(golden.attrs) & set(found.attrs)):
        said += _of_attributes(f"{where}, attribute {name}", golden.attrs[name], found.attrs[name])
    return said


def _names(where, what, golden, found):
    lost, new = (sorted(set(some) - set(others)) for some, others in ((golden, found), (found, golden)))
    told = {"is missing": lost, "is new": new}
    return [f"{where}: the {what} {name} {word}" for word, names in told.items() for name in names]


def _of_variables(where, golden, found):
    if golden.dims != found.dims:
        return [f"{where}: the dims are {found.dims} and were {golden.dims}"]
    if golden.shape != found.shape:
        return [f"{where}: the sizes of {golden.dims} are {found.shape} and were {golden.shape}"]
    kinds = [KINDS[one.dtype.kind] for one in (golden, found)]
    if kinds[0] != kinds[1]:
        return [f"{where}: these are {kinds[1]} and were {kinds[0]}"]
    return _of_values(where, golden.values, found.values)


def _of_values(where, golden, found):
    """Where two arrays of one shape and kind differ, and by how much."""
    if golden.dtype.kind == "f":
        off = ~np.isclose(found, golden, rtol=RTOL, atol=ATOL, equal_nan=True)
    else:
        off = golden != found
    if not off.any():
        return []
    many = f"{off.sum()} of {off.size}"
    if golden.dtype.kind != "f":
        place = tuple(int(at) for at in np.argwhere(off)[0])
        return [f"{where}: {many} differ, first at {place}: {found[place]!r}, was {golden[place]!r}"]
    with np.errstate(invalid="ignore"):
        away = np.where(off, np.nan_to_num(np.abs(found - golden), nan=np.inf), -1)
    place = tuple(int(at) for at in np.unravel_index(away.argmax(), away.shape))
    return [
        f"{where}: {many} differ, by {away[place]:.3g} at most, at {place}: {found[place]!r}, was {golden[place]!r}"
    ]


def _of_attributes(where, golden, found):
    """Attributes; of JSON what it says."""
    golden, found = map(store.parsed, (golden, found))
    both_numbers = isinstance(golden, (float, np.floating)) and isinstance(found, (float, int, np.number))
    same = np.isclose(found, golden, rtol=RTOL, atol=ATOL, equal_nan=True) if both_numbers else golden == found
    return [] if same else [f"{where}: {found!r}, was {golden!r}"]
