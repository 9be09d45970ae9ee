"""Today's names, and what they were called when the golden arrays were made: a line for each that is renamed.

A key is today's name, wherever it occurs; or "section/name", for one section of `record.SECTIONS` only. What is not
listed has its old name still.
"""

import json

import xarray as xr

from . import store

ITEMS: dict[str, str] = {}  # results of a section
VARIABLES: dict[str, str] = {}  # of Datasets; names of DataArrays; columns of tables
DIMENSIONS: dict[str, str] = {}  # with the coordinates of that name
COORDINATES: dict[str, str] = {}  # of another name than a dimension
ATTRIBUTES: dict[str, str] = {}
# Whole texts, in arrays and attributes, such as {"selected": "chosen"}.
TEXTS: dict[str, str] = {
    "clips/speakers  8, of whom the encoder was trained on 0": "speakers  8, of whom the encoder has heard 0"
}


def old_names(section, items) -> dict[str, xr.Dataset]:
    """The items of a section, {name: Dataset}, by the names that they had."""
    return {_old(ITEMS, section, name): _renamed(section, item) for name, item in items.items()}


def _renamed(section, item):
    """One item with the old names of all that it holds."""
    names = {name: _old(VARIABLES, section, name) for name in item.data_vars}
    names |= {name: _old(COORDINATES, section, name) for name in item.coords if name not in item.dims}
    names |= {name: _old(DIMENSIONS, section, name) for name in item.dims}
    item = item.rename({new: old for new, old in names.items() if new != old})
    for name, variable in item.variables.items():
        if variable.dtype.kind in "OU":
            texts = variable.copy(data=_old_texts(section, variable.values))
            item = item.assign_coords({name: texts}) if name in item.coords else item.assign({name: texts})
    attributes = {_old(ATTRIBUTES, section, name): _old_text(section, value) for name, value in item.attrs.items()}
    return item.drop_attrs().assign_attrs(attributes)


def _old_texts(section, values):
    """An array of texts, each as it was."""
    old = values.astype(object)
    for place, text in enumerate(values.flat):
        old.flat[place] = _old(TEXTS, section, text)
    return old


def _old_text(section, value):
    """The value of an attribute as it was, that of JSON inside too."""
    said = store.parsed(value)
    return json.dumps(_old_json(section, said)) if isinstance(said, (dict, list)) else _old_json(section, said)


def _old_json(section, value):
    if isinstance(value, dict):
        return {_old(TEXTS, section, name): _old_json(section, inner) for name, inner in value.items()}
    if isinstance(value, list):
        return [_old_json(section, inner) for inner in value]
    return _old(TEXTS, section, value) if isinstance(value, str) else value


def _old(table, section, name):
    """What `name` was called in a section."""
    return table.get(f"{section}/{name}", table.get(name, name))
