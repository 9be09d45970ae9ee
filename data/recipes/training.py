"""The training loop of the bundled models: repeatable, and able to go on where it was stopped.

It knows nothing of the task: what is trained, on what and for what come from `pocket_wavlm.py` and `pocket_ast.py`.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import os
import random
import time
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from torch import distributed, nn
from tqdm.auto import tqdm

WARM_UP = 0.15  # share of the steps in which the learning rate rises


@dataclass
class History:
    """What became of a training."""

    curve: list[dict[str, float]] = field(default_factory=list)  # numbers of each epoch
    epoch: int = 0  # the one whose weights are kept, counted from 1
    seconds: float = 0.0  # spent on whole epochs, over all resumptions


def fit(
    module: nn.Module,
    batches: Callable[[np.random.Generator], Iterable],
    loss: Callable[[nn.Module, object], tuple[torch.Tensor, dict[str, float]]],
    *,
    steps: int,
    epochs: int,
    learning_rate: float,
    weight_decay: float,
    average: float,
    checkpoint: Path,
    settings: dict,
    seed: int = 0,
    after: Callable[[nn.Module], dict[str, float]] | None = None,
    best: str | None = None,
) -> History:
    """Train `module` with AdamW and OneCycle, and leave in it the running average of its weights.

    Every epoch is seeded by (seed, epoch), so a training that was stopped and started again ends at the very weights
    of one that was not; seed before building `module`, too. Where `torch.distributed` is running, every process draws
    batches of its own, gradients are averaged, and the first process keeps the books.

    Parameters
    ----------
    module : Module
        On its device already. Several networks that are trained together go into one `torch.nn.ModuleDict`.
    batches : callable
        batches(rng) yields the batches of an epoch, drawn by the given generator, in whatever form `loss` takes.
    loss : callable
        loss(module, batch) is the scalar to descend and a dict of numbers, averaged over the epoch into the curve.
    steps : int
        Batches in an epoch; the schedule of the learning rate counts on them.
    average : float
        Share of the running average that a step keeps, at most; it starts low.
    checkpoint : path
        Written after each epoch, whole or not at all, and read at the start if it is there.
    settings : dict
        Whatever else decides the outcome, in JSON's types. A checkpoint made with others, or of a training that began
        with other weights, is refused.
    after : callable, optional
        after(averaged module) after each epoch: further numbers for the curve.
    best : str, optional
        Keep the epoch where this number is highest, the later of equals; without it, the last.

    Raises
    ------
    ValueError
        The checkpoint is of other settings, or other weights to begin with.
    FloatingPointError
        The loss is not finite.
    """
    own = {"epochs": epochs, "steps": steps, "learning_rate": learning_rate, "weight_decay": weight_decay}
    own["begins_with"] = _digest(module)
    settings = json.dumps({**settings, **own, "average": average, "seed": seed, "best": best}, sort_keys=True)
    slow = copy.deepcopy(module).requires_grad_(False).eval()
    optimiser = torch.optim.AdamW(module.parameters(), learning_rate, weight_decay=weight_decay)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, learning_rate, epochs * steps, pct_start=WARM_UP)
    stateful = {"module": module, "average": slow, "optimiser": optimiser, "schedule": schedule}
    rank = distributed.get_rank() if distributed.is_initialized() else 0
    history, kept = History(), None
    if checkpoint.exists():
        held = torch.load(checkpoint, map_location="cpu", weights_only=True)
        _same(held["settings"], settings, checkpoint)
        for name, thing in stateful.items():
            thing.load_state_dict(held[name])
        history, kept = History(**held["history"]), held["kept"]
    for epoch in range(len(history.curve), epochs):
        started, sums = time.perf_counter(), defaultdict(float)
        rng = _seed(seed, epoch, rank)
        module.train()
        bar = tqdm(batches(rng), f"epoch {epoch + 1}/{epochs}", steps, leave=False, disable=rank > 0)
        for _, batch in zip(range(steps), bar, strict=True):
            value, numbers = loss(module, batch)
            if not math.isfinite(value.item()):
                raise FloatingPointError(f"the loss is {value.item()} in epoch {epoch + 1}: try a lower learning rate")
            optimiser.zero_grad()
            value.backward()
            _share(module)
            nn.utils.clip_grad_norm_(module.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            _follow(slow, module, min(average, (1 + schedule.last_epoch) / (10 + schedule.last_epoch)))
            for name, number in {"loss": value.item(), **numbers}.items():
                sums[name] += number / steps
        if rank > 0:
            continue
        slow.eval()
        history.curve.append({**sums, **{name: float(x) for name, x in (after(slow) if after else {}).items()}})
        if best is None or history.curve[-1][best] >= max(row[best] for row in history.curve):
            history.epoch = epoch + 1
            kept = {name: tensor.detach().cpu().clone() for name, tensor in slow.state_dict().items()}
        history.seconds += time.perf_counter() - started
        states = {name: thing.state_dict() for name, thing in stateful.items()}
        _save({**states, "settings": settings, "history": vars(history), "kept": kept}, checkpoint)
        tqdm.write(f"epoch {epoch + 1}: " + ", ".join(f"{name} {x:.3f}" for name, x in history.curve[-1].items()))
    if rank == 0:
        module.load_state_dict(kept)
    if distributed.is_initialized():
        for tensor in module.state_dict().values():
            distributed.broadcast(tensor, 0)
    module.eval()
    return history


def _seed(seed: int, epoch: int, rank: int) -> np.random.Generator:
    """Seed torch, numpy and random (dropout and the masks of transformers draw from them) for one epoch."""
    entropy = [seed, epoch, rank] if rank else [seed, epoch]
    states = np.random.SeedSequence(entropy).generate_state(3)
    torch.manual_seed(int(states[0]))
    np.random.seed(int(states[1]))
    random.seed(int(states[2]))
    return np.random.default_rng(entropy)


def _share(module: nn.Module) -> None:
    """Average the gradients over the processes, in one message."""
    if not distributed.is_initialized():
        return
    gradients = [p.grad for p in module.parameters() if p.grad is not None]
    flat = torch.cat([gradient.flatten() for gradient in gradients])
    distributed.all_reduce(flat)
    flat /= distributed.get_world_size()
    for gradient, part in zip(gradients, flat.split([gradient.numel() for gradient in gradients])):
        gradient.copy_(part.view_as(gradient))


def _digest(module: nn.Module) -> str:
    """Hash of all weights."""
    digest = hashlib.sha256()
    for name, value in sorted(module.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]


@torch.no_grad()
def _follow(slow: nn.Module, fast: nn.Module, share: float) -> None:
    """Move the running average towards the weights; buffers are copied."""
    for mean, now in zip(slow.parameters(), fast.parameters()):
        mean.lerp_(now, 1 - share)
    for mean, now in zip(slow.buffers(), fast.buffers()):
        mean.copy_(now)


def _same(old: str, new: str, checkpoint: Path) -> None:
    """Refuse to go on with other settings."""
    old, new = json.loads(old), json.loads(new)
    other = [f"{k} {old.get(k)!r}, now {new.get(k)!r}" for k in sorted({*old, *new}) if old.get(k) != new.get(k)]
    if other:
        raise ValueError(f"{checkpoint} is of a training with other settings ({'; '.join(other)}): move it away")


def _save(state: dict, checkpoint: Path) -> None:
    """Write beside the checkpoint, then move into place, so that a kill leaves the old or the new one."""
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    part = checkpoint.with_name(checkpoint.name + ".part")
    torch.save(state, part)
    os.replace(part, checkpoint)
