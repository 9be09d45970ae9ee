"""Readouts downstream of an edit: the prediction, the relative change of later layers, and values decoded there."""

from functools import partial

import numpy as np
import torch
import xarray as xr

from ..models.sites import Site

FRAME_CHANGE_THRESHOLD = 0.1  # least relative change with which a frame counts as changed
CHANGE_READOUTS = ("relative_change", "frames_changed")  # read at later blocks, and at an edited one
_CLEAN = {"logits", "probability", "correct", "proxy_value", "decoded"}  # returned for the clean clip too


def table(logits, target_change, site_values, columns, *, true_labels, sd, shape) -> xr.Dataset:
    """Compute all readouts by name.

    Parameters
    ----------
    logits : array [clip, 1 + edit, label]
        Those of the clean clip come first.
    target_change : array [clip, edit]
        Change of the target's log-odds.
    site_values : array [clip, 1 + edit, readout_layer, column]
        Values read by `readout_functions`: `CHANGE_READOUTS`, then `columns`, {variable: (dim, names)}.
    true_labels : array [clip]
        Index of each clip's true label, −1 where the model does not know it.
    sd : array [readout_layer, proxy] or None
        Standard deviations of proxies between training clips.
    shape : dict
        Dims of the edits, and their sizes.
    """
    with np.errstate(invalid="ignore"):  # NaN of edits that were not run
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    best, p = logits.argmax(-1), np.exp(log_p)
    with np.errstate(divide="ignore"):  # a probability of 1
        odds = log_p - np.log1p(-np.minimum(p, 1))
    was_run = np.isfinite(logits).all(-1)
    correct = np.where((true_labels[:, None] >= 0) & was_run, best == true_labels[:, None], np.nan)
    readouts = {
        "kl": ((), (p[:, :1] * (log_p[:, :1] - log_p)).sum(-1)),
        "changed": ((), np.where(was_run, best != best[:, :1], np.nan)),
        "correct": ((), correct),
        "logits": (("label",), logits),
        "log_odds": (("label",), odds - odds[:, :1]),
        "probability": (("label",), p),
        **{name: (("readout_layer",), site_values[..., i]) for i, name in enumerate(CHANGE_READOUTS)},
    }
    start = len(CHANGE_READOUTS)
    for name, (dim, names) in columns.items():
        values, start = site_values[..., start : start + len(names)], start + len(names)
        readouts[name] = (("readout_layer", dim), values) if dim else (("readout_layer",), values[..., 0])
    if sd is not None:
        proxies, dims = readouts["proxy_value"][1], ("readout_layer", "proxy")
        change, clean = proxies - proxies[:, :1], np.abs(proxies[:, :1])
        readouts["proxy_sd"] = dims, change / np.where(sd > 0, sd, np.nan)
        readouts["proxy_change"] = dims, change / np.where(clean > 0, clean, np.nan)
    if "decoded" in readouts:
        dims, values = readouts["decoded"]
        readouts["decoded_change"] = dims, values - values[:, :1]
    if "direct_effect" in readouts:
        readouts["indirect_effect"] = dims, readouts["decoded_change"][1] - readouts["direct_effect"][1]
    clean = {
        f"clean_{name}": (("clip", *dims), values[:, 0]) for name, (dims, values) in readouts.items() if name in _CLEAN
    }
    edited = {name: (dims, values[:, 1:]) for name, (dims, values) in readouts.items()} | {
        "target_change": ((), target_change)
    }
    edited = {
        name: (
            ("clip", *shape, *dims),
            values.reshape(len(values), *shape.values(), *values.shape[2:]).astype(np.float32),
        )
        for name, (dims, values) in edited.items()
    }
    return xr.Dataset(clean | edited)


def readout_functions(sites, readings, clean=None) -> dict:
    """Return functions for `execution.cascade_read`, which passes the clean row first at each site.

    {site: function} from rows [row, frame, neuron] to their change relative to the clean one, and to the values of the
    functions of `readings`, each {site: function to [row, column]}. `clean` is filled with the clean rows, by site.
    """
    clean = {} if clean is None else clean

    def read(site, hidden):
        clean_row = clean.setdefault(site, hidden)
        change, size = (hidden - clean_row).norm(dim=-1), clean_row.norm(dim=-1)
        relative_change = change.norm(dim=-1) / size.norm(dim=-1)
        moved = torch.stack([relative_change, (change > FRAME_CHANGE_THRESHOLD * size).float().mean(dim=-1)], dim=-1)
        return torch.cat([moved, *(functions[site](hidden) for functions in readings)], dim=-1)

    return {site: partial(read, site) for site in sites}


def with_change_readout(plans, ends, clean, read, stored) -> list:
    """Return the plans, {Site: edit} each, that also store `read` of the stream's change in `stored`, by plan number.

    That is the difference from the row of `clean` in the output of the last layer that a plan edits, of `ends`.
    """

    def edit_and_read(i, site, edit, hidden):
        hidden = hidden if edit is None else edit(hidden)
        stored[i] = read(hidden - clean[site])
        return hidden

    sites = map(Site, ends)
    return [
        plan | {site: partial(edit_and_read, i, site, plan.get(site))}
        for i, (plan, site) in enumerate(zip(plans, sites))
    ]


def stack_values(site_values, stored):
    """Stack the values of `readout_functions` at all sites, [1 + edit, readout_layer, column].

    Those of `with_change_readout`, if any, come last.
    """
    site_values = torch.stack(list(site_values.values()), dim=1)
    if not stored:
        return site_values
    stored = torch.stack([stored[i] for i in range(len(stored))])
    return torch.cat([site_values, torch.cat([0 * stored[:1], stored])], dim=-1)


def fill_missing(found, is_run):
    """Fill in NaN for the edits that were not run, in the logits, changes and readouts of a clip.

    `found` is [logits [1 + edit, label], target_change [edit], site_values [1 + edit, readout_layer, column]], the
    clean clip's first, of those edits for which `is_run` [edit] is true.
    """
    with_clean = np.append(True, is_run)
    filled = []
    for values, has_values in zip(found, (with_clean, is_run, with_clean)):
        whole = np.full((len(has_values), *values.shape[1:]), np.nan)
        whole[has_values] = values
        filled.append(whole)
    return filled


def mask_unreached(readings, places, part):
    """Set readouts to NaN at layers that the edit cannot affect, or where its effect cannot be read."""
    first, last = (
        xr.DataArray([end(layers) for layers in places.values()], {"layer": list(places)}) for end in (min, max)
    )
    for name, values in readings.items():
        if "readout_layer" in values.dims and "layer" in values.dims:
            readable = (
                readings["readout_layer"] >= first
                if name in CHANGE_READOUTS
                else readings["readout_layer"] - last >= (part == "hidden_state")
            )
            readings[name] = values.where(readable)
    return readings


def split_controls(readings, n_random, directions, blind):
    """Move the random sets, the directions and the target-blind selections, all along `random`, to separate variables.

    Along `random` the selected neurons come first, then `n_random` random sets, `directions`, and the names of `blind`.
    """
    names = [name for name in readings if "random" in readings[name].dims]
    result, start = readings.isel(random=0), 1
    for dim, count in {"random": n_random, "direction": directions, "blind": len(blind)}.items():
        controls = readings[names].isel(random=slice(start, start + count))
        controls = controls.rename({"random": dim} | {name: f"{dim}_{name}" for name in names})
        start += count
        if dim == "random" or count:
            result = result.assign(controls.data_vars)
    return result.assign_coords(blind=list(blind)) if blind else result
