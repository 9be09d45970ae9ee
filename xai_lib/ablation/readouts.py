"""What is measured downstream of an edit: the decision, how far later layers moved, and what is decoded from them."""

from functools import partial

import numpy as np
import torch
import xarray as xr

from ..models.sites import Site

FELT = 0.1  # a frame counts as moved from this relative change up
MOVED = ("spread", "felt")  # read at later blocks, and at an edited one
_CLEAN = {"logits", "probability", "correct", "proxy_value", "decoded"}  # known of the clean clip too


def table(logits, delta, seen, columns, *, own, sd, shape) -> xr.Dataset:
    """Every read-out by name.

    Parameters
    ----------
    logits : array [clip, 1 + edit, label]
        The clean clip's come first.
    delta : array [clip, edit]
        Change of the target's log-odds.
    seen : array [clip, 1 + edit, later, column]
        What `readers` saw, whose `columns` are {variable: (dim, names)} of what was read besides `MOVED`.
    own : array [clip]
        Index of each clip's own label, −1 where the model does not know it.
    sd : array [later, proxy] or None
        Of proxies between training clips.
    shape : dict
        Dims that edits are made of, and their sizes.
    """
    with np.errstate(invalid="ignore"):  # edits that were not made
        log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    best, p = logits.argmax(-1), np.exp(log_p)
    with np.errstate(divide="ignore"):  # certainty
        odds = log_p - np.log1p(-np.minimum(p, 1))
    there = np.isfinite(logits).all(-1)
    right = np.where((own[:, None] >= 0) & there, best == own[:, None], np.nan)
    found = {
        "kl": ((), (p[:, :1] * (log_p[:, :1] - log_p)).sum(-1)),
        "changed": ((), np.where(there, best != best[:, :1], np.nan)),
        "correct": ((), right),
        "logits": (("label",), logits),
        "log_odds": (("label",), odds - odds[:, :1]),
        "probability": (("label",), p),
        **{name: (("later",), seen[..., i]) for i, name in enumerate(MOVED)},
    }
    at = len(MOVED)
    for name, (dim, names) in columns.items():
        part, at = seen[..., at : at + len(names)], at + len(names)
        found[name] = (("later", dim), part) if dim else (("later",), part[..., 0])
    if sd is not None:
        proxies, dims = found["proxy_value"][1], ("later", "proxy")
        change, clean = proxies - proxies[:, :1], np.abs(proxies[:, :1])
        found["proxy_sd"] = dims, change / np.where(sd > 0, sd, np.nan)
        found["proxy_change"] = dims, change / np.where(clean > 0, clean, np.nan)
    if "decoded" in found:
        dims, values = found["decoded"]
        found["decoded_change"] = dims, values - values[:, :1]
    if "decoded_carried" in found:
        found["decoded_computed"] = dims, found["decoded_change"][1] - found["decoded_carried"][1]
    clean = {f"clean_{name}": (("clip", *dims), x[:, 0]) for name, (dims, x) in found.items() if name in _CLEAN}
    edited = {name: (dims, x[:, 1:]) for name, (dims, x) in found.items()} | {"delta": ((), delta)}
    edited = {
        name: (("clip", *shape, *dims), x.reshape(len(x), *shape.values(), *x.shape[2:]).astype(np.float32))
        for name, (dims, x) in edited.items()
    }
    return xr.Dataset(clean | edited)


def readers(sites, every, clean=None) -> dict:
    """For `execution.cascade_read`, which shows the clean row first at each site.

    {site: function}, which gives of rows [row, frame, neuron] how far they are from the clean one, and what the functions
    of `every`, each {site: function to [row, column]}, say of them. `clean` is filled with the clean rows, by site.
    """
    clean = {} if clean is None else clean

    def read(site, hidden):
        own = clean.setdefault(site, hidden)
        away, size = (hidden - own).norm(dim=-1), own.norm(dim=-1)
        spread = away.norm(dim=-1) / size.norm(dim=-1)
        moved = torch.stack([spread, (away > FELT * size).float().mean(dim=-1)], dim=-1)
        return torch.cat([moved, *(one[site](hidden) for one in every)], dim=-1)

    return {site: partial(read, site) for site in sites}


def noted(plans, ends, clean, read, kept) -> list:
    """The plans, each {Site: edit}, that on their way keep by number what `read` says of the change of the stream.

    That is the change, against the row of `clean`, of what leaves the layer of `ends`, the last that a plan edits.
    """

    def look(i, site, edit, hidden):
        hidden = hidden if edit is None else edit(hidden)
        kept[i] = read(hidden - clean[site])
        return hidden

    sites = map(Site, ends)
    return [plan | {at: partial(look, i, at, plan.get(at))} for i, (plan, at) in enumerate(zip(plans, sites))]


def stacked(seen, kept):
    """What `readers` saw at all sites, [1 + edit, later, column], and what `noted` kept, if anything, as the last columns."""
    seen = torch.stack(list(seen.values()), dim=1)
    if not kept:
        return seen
    kept = torch.stack([kept[i] for i in range(len(kept))])
    return torch.cat([seen, torch.cat([0 * kept[:1], kept])], dim=-1)


def spaced(found, is_run):
    """Put NaN in the place of the edits that were not run, in the logits, changes and read-outs of a clip.

    `found` is [logits [1 + edit, label], delta [edit], seen [1 + edit, later, column]], the clean clip's first, of those
    edits for which `is_run` [edit] is true.
    """
    with_clean = np.append(True, is_run)
    spread_out = []
    for values, is_there in zip(found, (with_clean, is_run, with_clean)):
        whole = np.full((len(is_there), *values.shape[1:]), np.nan)
        whole[is_there] = values
        spread_out.append(whole)
    return spread_out


def masked(every, places, part):
    """Read-outs only where the edit can have reached, and could be seen."""
    first, last = (xr.DataArray([f(x) for x in places.values()], {"layer": list(places)}) for f in (min, max))
    for name, values in every.items():
        if "later" in values.dims and "layer" in values.dims:
            seen = every["later"] >= first if name in MOVED else every["later"] - last >= (part == "block")
            every[name] = values.where(seen)
    return every


def split(every, nulls, directions, blind):
    """Put the random sets, the directions and the target-blind selections, all along `null`, into variables of their own.

    Along `null` the chosen neurons come first, then `nulls` random sets, `directions`, and the names of `blind`.
    """
    drawn = [name for name in every if "null" in every[name].dims]
    found, start = every.isel(null=0), 1
    for dim, many in {"null": nulls, "direction": directions, "blind": len(blind)}.items():
        some = every[drawn].isel(null=slice(start, start + many))
        some = some.rename({"null": dim} | {name: f"{dim}_{name}" for name in drawn})
        start += many
        if dim == "null" or many:
            found = found.assign(some.data_vars)
    return found.assign_coords(blind=list(blind)) if blind else found
