"""Run a part of the network: a prefix, a suffix, or the cascade that makes many edits in one growing batch.

All are exact against the plain forward. An edit at layer l leaves the layers below untouched, so they run once.
"""

from contextlib import ExitStack
from functools import partial

import numpy as np
import torch
from tqdm.auto import tqdm

from . import hooks
from .models.sites import Site, State

BATCH = 32


def prefix(model, x, layer) -> State:
    """Run raw waveforms [batch, time] up to the output of block `layer`; 0 is what enters the first."""
    layer = model.check(layer).layer
    state = model.family.embed(model.prepare(x))
    while state.layer < layer:
        state = model.family.step(state)
    return state


def states(model, x, layer) -> list[State]:
    """States of raw waveforms [batch, time] after each of the layers 0 to `layer`."""
    found = [prefix(model, x, 0)]
    while found[-1].layer < layer:
        found.append(model.family.step(found[-1]))
    return found


def suffix(model, state) -> torch.Tensor:
    """Resume after `state`, of `prefix` or `model.family.replace(state, hidden)`, and give logits [batch, label]."""
    while state.layer < model.n_layers:
        state = model.family.step(state)
    return model.classify(model.family.finish(state))


def cascade(model, waveform, edits, *, batch=None) -> torch.Tensor:
    """Logits of a clip [time], clean and under each edit: [1 + len(edits), label].

    Clean comes first; each row equals one hooked forward.

    Parameters
    ----------
    edits : sequence
        Each `(Site, function)`, or `{Site: function}` for edits made together. Functions take and return
        [batch, frame, neuron] and see one row at a time.
    batch : int, optional
        Edited copies that share a forward; halved, and the run goes on, when memory does not suffice.
    """
    return cascade_read(model, waveform, edits, {}, batch=batch)[0]


@torch.no_grad()
def cascade_read(model, waveform, edits, readers, *, batch=None):
    """As `cascade`, and what `readers`, {Site: function from [rows, frame, neuron] to [rows, …]}, see on the way.

    Returns
    -------
    logits : tensor [1 + len(edits), label]
    seen : dict
        {Site: tensor [1 + len(edits), …]}. Rows whose edit lies above the site equal the clean one; at the site itself
        they are seen edited.
    """
    plans = [_plan(model, edit) for edit in edits]
    readers = {model.check(site): reader for site, reader in readers.items()}
    if not _resumable(model, [*readers, *(site for plan in plans for site in plan)]):
        return _whole(model, model.tensor(waveform), [{}, *plans], readers, BATCH if batch is None else batch)
    order = sorted(range(len(plans)), key=lambda i: _join(plans[i]))
    clean, parts = _clean(model, model.tensor(waveform), readers)
    logits = [model.classify(model.family.finish(clean[-1]))]
    seen = {site: [reader(parts.get(site, clean[site.layer].hidden))] for site, reader in readers.items()}
    run = partial(_run, model, clean, [plans[i] for i in order], readers)
    for found, noticed in in_batches(run, len(plans), BATCH if batch is None else batch):
        logits.append(found)
        for site, values in seen.items():  # the rows that joined the batch by then, and the clean one for the others
            new = noticed.get(site, values[0][:0])
            values += [new, values[0].repeat_interleave(len(found) - len(new), dim=0)]
    back = [0, *(1 + np.argsort(order))]
    return torch.cat(logits)[back], {site: torch.cat(values)[back] for site, values in seen.items()}


def in_batches(function, n, batch):
    """Yield `function` of the rows 0 to n − 1, a range of `batch` at a time, and fewer when memory does not suffice."""
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, not {batch}")
    at = 0
    with tqdm(total=n, leave=False, delay=2) as bar:
        while at < n:
            rows = range(at, min(at + batch, n))
            try:
                found = function(rows)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                batch = (len(rows) + 1) // 2
                continue
            yield found
            at = rows.stop
            bar.update(len(rows))


def forward(model, waves, batch) -> torch.Tensor:
    """Logits [row, label] of raw waveforms [row, time], `batch` at a time."""
    return torch.cat([*in_batches(lambda rows: model.logits(waves[rows.start : rows.stop]), len(waves), batch)])


def _plan(model, edit) -> dict:
    """{Site: function} of one edit, checked."""
    try:
        pairs = edit.items() if isinstance(edit, dict) else [tuple(edit)]
        plan = {model.check(site): function for site, function in pairs}
    except TypeError as error:
        raise ValueError("an edit is (Site, function) or {Site: function}") from error
    if not plan or not all(map(callable, plan.values())):
        raise ValueError("an edit is (Site, function) or {Site: function}, with at least one function")
    return plan


def _resumable(model, sites) -> bool:
    """Whether a forward can go on from below each of the sites."""
    return model.family.resumable and all(site.part != "module" for site in sites)


def _whole(model, x, plans, readers, batch):
    """As `cascade_read`, of whole hooked forwards: where the model cannot resume."""

    def run(rows):
        some = plans[rows.start : rows.stop]
        sites = {site for plan in some for site in plan}
        edits = {site: partial(_by_row, [plan.get(site) for plan in some], site) for site in sites}
        with hooks.edit(model, edits), hooks.capture(model, list(readers)) as seen:
            return model.logits(x.repeat(len(some), 1)), {site: read(seen[site]) for site, read in readers.items()}

    logits, seen = zip(*in_batches(run, len(plans), batch))
    return torch.cat(logits), {site: torch.cat([found[site] for found in seen]) for site in readers}


def _join(plan: dict) -> int:
    """After which layer an edited copy leaves the clean path: its own for a block, the one before for a part."""
    return min(site.layer - (site.part != "block") for site in plan)


def _clean(model, x, readers):
    """States of the unedited clip after every layer, and the parts that are read."""
    with hooks.capture(model, [site for site in readers if site.part != "block"]) as parts:
        return states(model, x, model.n_layers), dict(parts)


def _run(model, clean, plans, readers, rows):
    """Logits and readings of some of the plans, which are sorted by where they join: each after its layer."""
    plans = plans[rows.start : rows.stop]
    family, joined, state, noticed = model.family, 0, None, {}
    for layer in range(_join(plans[0]), model.n_layers + 1):
        if state is not None:
            state, parts = _step(model, state, plans[:joined], readers)
            noticed |= {site: readers[site](hidden) for site, hidden in parts.items()}
        new = sum(_join(plan) == layer for plan in plans)
        if new:
            fresh = clean[layer].spread(new)
            state = fresh if state is None else State(layer, *map(_cat, state[1:], fresh[1:]))
            joined += new
        site = Site(layer)
        functions = [plan.get(site) for plan in plans[:joined]]
        if any(functions):
            state = family.replace(state, _by_row(functions, site, state.hidden))
        if site in readers:
            noticed[site] = readers[site](state.hidden)
    return model.classify(family.finish(state)), noticed


def _step(model, state, plans, readers):
    """Run the next layer, with the edits inside it; what is to be read inside it comes back too."""
    layer = state.layer + 1
    with ExitStack() as stack:
        inside = {site for plan in plans for site in plan if site.layer == layer and site.part != "block"}
        for site in inside:
            functions = [plan.get(site) for plan in plans]
            stack.enter_context(hooks.edit(model, {site: partial(_by_row, functions, site)}))
        read = [site for site in readers if site.layer == layer and site.part != "block"]
        parts = stack.enter_context(hooks.capture(model, read))
        return model.family.step(state), parts


def _by_row(functions, site, hidden):
    """Each row through its own function; None leaves it."""
    return torch.cat(
        [
            row if function is None else hooks.apply(function, row, site)
            for function, row in zip(functions, hidden.split(1))
        ]
    )


def _cat(first, second):
    return None if first is None else torch.cat([first, second])
