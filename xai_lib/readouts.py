"""What is measured downstream of an edit: the decision, and how far later layers moved."""

import numpy as np
import torch
import xarray as xr

FELT = 0.1  # a frame counts as moved from this relative change up
LATER = {"spread", "felt", "proxy_value", "proxy_sd"}  # read at later blocks
PROXIES = {"proxy_value", "proxy_sd"}
_CLEAN = {"logits", "probability", "proxy_value"}  # known of the clean clip too


def table(logits, value, seen, *, sd, shape) -> xr.Dataset:
    """Every read-out by name, from logits [clip, 1 + edit, label], the target's log-odds and what `reader` saw.

    `sd` [later, proxy] is that of proxies between training clips, or None; `shape` the dims that edits are made of.
    """
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    best = logits.argmax(-1)
    found = {
        "delta": ((), value - value[:, :1]),
        "kl": ((), (np.exp(log_p[:, :1]) * (log_p[:, :1] - log_p)).sum(-1)),
        "changed": ((), (best != best[:, :1]).astype(float)),
        "logits": (("label",), logits),
        "probability": (("label",), np.exp(log_p)),
        "spread": (("later",), seen[..., 0]),
        "felt": (("later",), seen[..., 1]),
    }
    if sd is not None:
        proxies, dims = seen[..., 2:], ("later", "proxy")
        found["proxy_value"] = dims, proxies
        found["proxy_sd"] = dims, (proxies - proxies[:, :1]) / np.where(sd > 0, sd, np.nan)
    clean = {f"clean_{name}": (("clip", *dims), x[:, 0]) for name, (dims, x) in found.items() if name in _CLEAN}
    edited = {
        name: (("clip", *shape, *dims), x[:, 1:].reshape(len(x), *shape.values(), *x.shape[2:]))
        for name, (dims, x) in found.items()
    }
    return xr.Dataset(clean | edited)


def reader(inner):
    """For `execution.cascade_read`, which shows the clean row first: how far from it others are, `inner`'s values."""
    clean = []

    def read(hidden):
        if not clean:
            clean.append(hidden)
        away, size = (hidden - clean[0]).norm(dim=-1), clean[0].norm(dim=-1)
        spread = away.norm(dim=-1) / size.norm(dim=-1)
        moved = torch.stack([spread, (away > FELT * size).float().mean(dim=-1)], dim=-1)
        return moved if inner is None else torch.cat([moved, inner(hidden)], dim=-1)

    return read
