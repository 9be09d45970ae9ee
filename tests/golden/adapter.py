"""Today's names, and what they were called when the golden arrays were made: a line for each that is renamed.

A key is today's name, wherever it occurs; or "section/name", for one section of `record.SECTIONS` only. What is not
listed has its old name still.
"""

import json

import xarray as xr

from . import store

ITEMS: dict[str, str] = {
    "sweep/fraction_recovered": "restored",
    "activation_stats": "moments",
    "describe_test_speakers": "of_whom",
    "training_status": "heard_before",
    "restricted_permutations": "deals",
    "output_norm": "reach",
    "zero_ablation": "zeroed",
}  # results of a section
VARIABLES: dict[str, str] = {
    "random_changed": "null_changed",
    "random_correct": "null_correct",
    "random_decoded": "null_decoded",
    "random_decoded_change": "null_decoded_change",
    "random_kl": "null_kl",
    "random_log_odds": "null_log_odds",
    "random_logits": "null_logits",
    "random_magnitude": "null_magnitude",
    "random_probability": "null_probability",
    "random_proxy_change": "null_proxy_change",
    "random_proxy_sd": "null_proxy_sd",
    "random_proxy_value": "null_proxy_value",
    "random_similarity": "null_similarity",
    "random_uar": "null_uar",
    "random_overlap": "null_overlap",
    "random_sets": "null_sets",
    "random_distance": "null_distance",
    "random_edit": "null_edit",
    "random_floor": "null_floor",
    "random_gain": "null_gain",
    "random_reached": "null_reached",
    "random_residual": "null_residual",
    "random_mean": "null_mean",
    "random_high": "null_high",
    "random_low": "null_low",
    "target_change": "delta",
    "random_target_change": "null_delta",
    "blind_target_change": "blind_delta",
    "direction_target_change": "direction_delta",
    "relative_change": "spread",
    "random_relative_change": "null_spread",
    "blind_relative_change": "blind_spread",
    "direction_relative_change": "direction_spread",
    "frames_changed": "felt",
    "random_frames_changed": "null_felt",
    "blind_frames_changed": "blind_felt",
    "direction_frames_changed": "direction_felt",
    "direct_effect": "decoded_carried",
    "random_direct_effect": "null_decoded_carried",
    "blind_direct_effect": "blind_decoded_carried",
    "indirect_effect": "decoded_computed",
    "random_indirect_effect": "null_decoded_computed",
    "blind_indirect_effect": "blind_decoded_computed",
    "fraction_recovered": "restored",
    "random_fraction_recovered": "null_restored",
    "chance_p": "null_p",
    "chance_slope": "null_slope",
    "chance_neurons": "null_neurons",
    "chance_low": "null_low",
    "chance_high": "null_high",
    "claim/chance": "null",
    "describe/chance": "null",
    "identify/chance": "null",
    "nothing/chance": "null",
    "speakers/chance": "null",
    "assigned": "said",
    "p_random": "p_null",
    "q_random": "q_null",
    "head/selected": "chosen",
}  # of Datasets; names of DataArrays; columns of tables
DIMENSIONS: dict[str, str] = {
    "ast/random": "null",
    "effect/random": "null",
    "invert/random": "null",
    "sets/random": "null",
    "sweep/random": "null",
    "readout_layer": "later",
    "neuron_set": "who",
    "selected": "chosen",
    "control_task": "deal",
}  # with the coordinates of that name
COORDINATES: dict[str, str] = {}  # of another name than a dimension
ATTRIBUTES: dict[str, str] = {"selection_speakers": "chosen_on", "min_z": "least", "n_frames": "frames"}
# Attributes that results did not have when the arrays were made.
ADDED = {
    "contrast/selection_speakers",
    "differing/selection_speakers",
    "ast/selection_speakers",
    "probing/tasks_left_out",
    "differing/tasks_left_out",
}
# Whole texts, in arrays and attributes, such as {"selected": "chosen"}.
TEXTS: dict[str, str] = {
    "selected": "chosen",
    "tests/selection_test": "chosen_test",
    "tests/prediction_sd": "null_spread",
    "effect/target_change": "delta",
    "describe/chance_z": "null_z",
    "activation_stats": "moments",
    "tests/selection_test_of_all_signs": "chosen_test_of_all_signs",
    "tests/prediction_test": "null_test",
    "hidden_state": "block",
    "in training": "heard",
    "not in training": "not heard",
    "clips/speakers  8, of whom the encoder was trained on 0": "speakers  8, of whom the encoder has heard 0",
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
    attributes = {
        _old(ATTRIBUTES, section, name): _old_text(section, value)
        for name, value in item.attrs.items()
        if f"{section}/{name}" not in ADDED
    }
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
