"""What is measured downstream of an edit: the decision, and how far later layers moved."""

from __future__ import annotations

import numpy as np
import torch

FELT = 0.1  # a frame counts as moved from this relative change up


def decisions(logits, value):
    """The decision, clean and edited, from logits [clip, 1 + edit, label] and the target's log-odds."""
    log_p = logits - np.logaddexp.reduce(logits, axis=-1, keepdims=True)
    others = [np.logaddexp.reduce(np.delete(logits, c, axis=-1), axis=-1) for c in range(logits.shape[-1])]
    every = {"logits": logits, "log_odds": logits - np.stack(others, axis=-1), "probability": np.exp(log_p)}
    kl = (np.exp(log_p[:, :1]) * (log_p[:, :1] - log_p[:, 1:])).sum(-1)
    edited = {
        "delta": ((), value[:, 1:] - value[:, :1]),
        "kl": ((), np.maximum(kl, 0)),  # rounding
        "changed": ((), (logits[:, 1:].argmax(-1) != logits[:, :1].argmax(-1)).astype(float)),
    }
    labelled = {name: (("label",), x[:, 1:]) for name, x in every.items()}
    return {name: (("label",), x[:, 0]) for name, x in every.items()}, edited | labelled


def movements(seen, sd):
    """Read-outs of later layers from readings [clip, 1 + edit, later, 2 + proxy]: clean, edited."""
    edited = {name: (("later",), seen[:, 1:, :, i]) for i, name in enumerate(("spread", "felt"))}
    if sd is None:
        return {}, edited
    before, change = seen[:, :1, :, 2:], seen[:, 1:, :, 2:] - seen[:, :1, :, 2:]
    some = np.broadcast_to(np.abs(before), change.shape)
    relative = np.divide(change, some, out=np.full(change.shape, np.nan), where=some > 0)
    dims = ("later", "proxy")
    edited |= {"proxy_change": (dims, relative), "proxy_sd": (dims, change / np.where(sd > 0, sd, np.nan))}
    return {"proxy": (dims, before[:, 0])}, edited


def reader(inner):
    """For `execution.cascade_read`, which shows the clean row first: how far from it others are, and `inner`'s values."""
    clean = []

    def read(hidden):
        if not clean:
            clean.append(hidden)
        away, size = (hidden - clean[0]).norm(dim=-1), clean[0].norm(dim=-1)
        spread = away.norm(dim=-1) / size.norm(dim=-1)
        moved = torch.stack([spread, (away > FELT * size).float().mean(dim=-1)], dim=-1)
        return moved if inner is None else torch.cat([moved, inner(hidden)], dim=-1)

    return read
