"""What is measured downstream of an edit: the decision, how far later layers moved, and what is decoded from them."""

from functools import partial

import numpy as np
import torch
import xarray as xr

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
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    best, p = logits.argmax(-1), np.exp(log_p)
    with np.errstate(divide="ignore"):  # certainty
        odds = log_p - np.log1p(-np.minimum(p, 1))
    right = np.where(own[:, None] < 0, np.nan, best == own[:, None])
    found = {
        "kl": ((), (p[:, :1] * (log_p[:, :1] - log_p)).sum(-1)),
        "changed": ((), (best != best[:, :1]).astype(float)),
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


def readers(sites, every, carried=None) -> dict:
    """For `execution.cascade_read`, which shows the clean row first at each site, and then batches from below upwards.

    {site: function}, which gives of rows [row, frame, neuron] how far they are from the clean one, what the functions of
    `every`, each {site: function to [row, column]}, say of them, and, with `carried`, such functions too, what these
    would say if no later layer had answered to the edit: of the clean row plus the change where the edit was made.
    """
    clean, batch = {}, {"layer": np.inf}

    def read(site, hidden):
        known = site in clean
        own = clean.setdefault(site, hidden)
        away, size = (hidden - own).norm(dim=-1), own.norm(dim=-1)
        spread = away.norm(dim=-1) / size.norm(dim=-1)
        moved = torch.stack([spread, (away > FELT * size).float().mean(dim=-1)], dim=-1)
        parts = [moved, *(one[site](hidden) for one in every)]
        if carried is not None:
            change = _change(batch, site, hidden - own) if known else 0 * hidden
            parts.append(carried[site](own + change) - carried[site](own))
        return torch.cat(parts, dim=-1)

    return {site: partial(read, site) for site in sites}


def _change(batch, site, away):
    """What the edit of each row did where it was made: of rows seen before in this batch, that, and of new ones this."""
    if site.layer <= batch["layer"]:
        batch["change"] = away[:0]
    batch["layer"], batch["change"] = site.layer, torch.cat([batch["change"], away[len(batch["change"]) :]])
    return batch["change"]
