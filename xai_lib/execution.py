"""Partial forwards: a prefix, a suffix, or the cascade, which runs many edits in one growing batch.

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
    """Run raw waveforms [batch, time] up to the output of block `layer`; layer 0 is what enters the first block."""
    layer = model.check(layer).layer
    state = model.architecture.embed(model.prepare(x))
    while state.layer < layer:
        state = model.architecture.step(state)
    return state


def states(model, x, layer) -> list[State]:
    """Return the states of raw waveforms [batch, time] after each of the layers 0 to `layer`."""
    layer_states = [prefix(model, x, 0)]
    while layer_states[-1].layer < layer:
        layer_states.append(model.architecture.step(layer_states[-1]))
    return layer_states


def suffix(model, state) -> torch.Tensor:
    """Resume after `state` and return logits [batch, label].

    `state` is as returned by `prefix` or `model.architecture.replace(state, hidden)`.
    """
    while state.layer < model.n_layers:
        state = model.architecture.step(state)
    return model.classify(model.architecture.finish(state))


def cascade(model, waveform, edits, *, batch=None) -> torch.Tensor:
    """Compute the logits of a clip [time], clean and under each edit: [1 + len(edits), label].

    Clean comes first; each row equals one hooked forward.

    Parameters
    ----------
    edits : sequence
        Each `(Site, function)`, or `{Site: function}` for edits made together. Functions take and return
        [batch, frame, neuron] and get one row at a time.
    batch : int, optional
        Edited copies that share a forward, default: 32; halved, and the run continues, when memory does not suffice.
    """
    return cascade_read(model, waveform, edits, {}, batch=batch)[0]


@torch.no_grad()
def cascade_read(model, waveform, edits, readout_functions, *, batch=None):
    """Compute the logits of `cascade`, and what `readout_functions` return on the way.

    Parameters
    ----------
    readout_functions : dict
        {Site: function from [rows, frame, neuron] to [rows, …]}.

    Returns
    -------
    logits : tensor [1 + len(edits), label]
    seen : dict
        {Site: tensor [1 + len(edits), …]}. Rows whose edit lies above the site equal the clean one; at the site itself
        the edited values are read.
    """
    plans = [_plan(model, edit) for edit in edits]
    readout_functions = {model.check(site): reader for site, reader in readout_functions.items()}
    if not _resumable(model, [*readout_functions, *(site for plan in plans for site in plan)]):
        return _hooked_forwards(
            model, model.tensor(waveform), [{}, *plans], readout_functions, BATCH if batch is None else batch
        )
    order = sorted(range(len(plans)), key=lambda i: _join_layer(plans[i]))
    clean, parts = _clean(model, model.tensor(waveform), readout_functions)
    logits = [model.classify(model.architecture.finish(clean[-1]))]
    seen = {site: [reader(parts.get(site, clean[site.layer].hidden))] for site, reader in readout_functions.items()}
    run = partial(_run, model, clean, [plans[i] for i in order], readout_functions)
    for edited_logits, readings in in_batches(run, len(plans), BATCH if batch is None else batch):
        logits.append(edited_logits)
        for site, values in seen.items():  # rows that had joined the batch, and the clean one for the others
            joined = readings.get(site, values[0][:0])
            values += [joined, values[0].repeat_interleave(len(edited_logits) - len(joined), dim=0)]
    input_order = [0, *(1 + np.argsort(order))]
    return torch.cat(logits)[input_order], {site: torch.cat(values)[input_order] for site, values in seen.items()}


def in_batches(function, n, batch):
    """Yield `function` of the rows 0 to n − 1, a range of `batch` at a time, and fewer when memory does not suffice."""
    if batch < 1:
        raise ValueError(f"batch must be 1 or more, not {batch}")
    start = 0
    with tqdm(total=n, leave=False, delay=2) as bar:
        while start < n:
            rows = range(start, min(start + batch, n))
            try:
                result = function(rows)
            except torch.OutOfMemoryError:
                if len(rows) == 1:
                    raise
                batch = (len(rows) + 1) // 2
                continue
            yield result
            start = rows.stop
            bar.update(len(rows))


def forward(model, waves, batch) -> torch.Tensor:
    """Compute logits [row, label] of raw waveforms [row, time], `batch` at a time."""
    return torch.cat([*in_batches(lambda rows: model.logits(waves[rows.start : rows.stop]), len(waves), batch)])


def _plan(model, edit) -> dict:
    """Return {Site: function} of one edit, checked."""
    try:
        pairs = edit.items() if isinstance(edit, dict) else [tuple(edit)]
        plan = {model.check(site): function for site, function in pairs}
    except TypeError as error:
        raise ValueError("an edit must be (Site, function) or {Site: function}") from error
    if not plan or not all(map(callable, plan.values())):
        raise ValueError("an edit must be (Site, function) or {Site: function}, with at least one function")
    return plan


def _resumable(model, sites) -> bool:
    """Return whether a forward can resume from below each of the sites."""
    return model.architecture.resumable and all(site.part != "module" for site in sites)


def _hooked_forwards(model, waves, plans, readout_functions, batch):
    """Compute `cascade_read` by whole hooked forwards, where the model cannot resume."""

    def run(rows):
        batch_plans = plans[rows.start : rows.stop]
        sites = {site for plan in batch_plans for site in plan}
        edits = {site: partial(_apply_by_row, [plan.get(site) for plan in batch_plans], site) for site in sites}
        with hooks.edit(model, edits), hooks.capture(model, list(readout_functions)) as seen:
            return model.logits(waves.repeat(len(batch_plans), 1)), {
                site: read(seen[site]) for site, read in readout_functions.items()
            }

    logits, seen = zip(*in_batches(run, len(plans), batch))
    return torch.cat(logits), {site: torch.cat([readings[site] for readings in seen]) for site in readout_functions}


def _join_layer(plan: dict) -> int:
    """Return the layer after which an edited copy leaves the clean path.

    It is the edit's layer for `hidden_state`, and the one below for any other part.
    """
    return min(site.layer - (site.part != "hidden_state") for site in plan)


def _clean(model, waves, readout_functions):
    """Return states of the unedited clip after every layer, and the parts that are read."""
    with hooks.capture(model, [site for site in readout_functions if site.part != "hidden_state"]) as parts:
        return states(model, waves, model.n_layers), dict(parts)


def _run(model, clean, plans, readout_functions, rows):
    """Return logits and readings of the plans in `rows`.

    The plans are sorted by the layer after which they join the batch; each joins after its own.
    """
    plans = plans[rows.start : rows.stop]
    architecture, n_joined, state, readings = model.architecture, 0, None, {}
    for layer in range(_join_layer(plans[0]), model.n_layers + 1):
        if state is not None:
            state, parts = _step(model, state, plans[:n_joined], readout_functions)
            readings |= {site: readout_functions[site](hidden) for site, hidden in parts.items()}
        n_new = sum(_join_layer(plan) == layer for plan in plans)
        if n_new:
            clean_copies = clean[layer].repeat_rows(n_new)
            state = clean_copies if state is None else State(layer, *map(_cat, state[1:], clean_copies[1:]))
            n_joined += n_new
        site = Site(layer)
        functions = [plan.get(site) for plan in plans[:n_joined]]
        if any(functions):
            state = architecture.replace(state, _apply_by_row(functions, site, state.hidden))
        if site in readout_functions:
            readings[site] = readout_functions[site](state.hidden)
    return model.classify(architecture.finish(state)), readings


def _step(model, state, plans, readout_functions):
    """Run the next layer with the edits inside it; return the state, and the parts inside it that are read."""
    layer = state.layer + 1
    with ExitStack() as stack:
        inside = {site for plan in plans for site in plan if site.layer == layer and site.part != "hidden_state"}
        for site in inside:
            functions = [plan.get(site) for plan in plans]
            stack.enter_context(hooks.edit(model, {site: partial(_apply_by_row, functions, site)}))
        read = [site for site in readout_functions if site.layer == layer and site.part != "hidden_state"]
        parts = stack.enter_context(hooks.capture(model, read))
        return model.architecture.step(state), parts


def _apply_by_row(functions, site, hidden):
    """Apply to each row its own function; None leaves the row as it is."""
    return torch.cat(
        [
            row if function is None else hooks.apply(function, row, site)
            for function, row in zip(functions, hidden.split(1))
        ]
    )


def _cat(first, second):
    """Concatenate two parts of states along the batch; None where the first is None."""
    return None if first is None else torch.cat([first, second])
