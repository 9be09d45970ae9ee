"""Partial forwards: a prefix, a suffix, or the cascade, which runs many edits in one growing batch.

All are exact against the plain forward. An edit at layer l leaves the layers below untouched, so they run once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, TypeVar

import torch
from tqdm.auto import tqdm

from . import hooks
from .models.sites import Site, State

if TYPE_CHECKING:
    import numpy as np

    from .models.model import Model, SiteLike

    Function = Callable[[torch.Tensor], torch.Tensor]
    Edit = tuple[SiteLike, Function] | Mapping[SiteLike, Function]

Result = TypeVar("Result")
BATCH = 32


def prefix(model: Model, x: torch.Tensor, layer: int) -> State:
    """Run raw waveforms [batch, time] up to the output of block `layer`; layer 0 is what enters the first block."""
    layer = model.check(layer).layer
    state = model.architecture.embed(model.prepare(x))
    while state.layer < layer:
        state = model.architecture.step(state)
    return state


def states(model: Model, x: torch.Tensor, layer: int) -> list[State]:
    """Return the states of raw waveforms [batch, time] after each of the layers 0 to `layer`."""
    layer_states = [prefix(model, x, 0)]
    while layer_states[-1].layer < layer:
        layer_states.append(model.architecture.step(layer_states[-1]))
    return layer_states


def suffix(model: Model, state: State) -> torch.Tensor:
    """Resume after `state` and return logits [batch, label].

    `state` is as returned by `prefix` or `model.architecture.replace(state, hidden)`.
    """
    while state.layer < model.n_layers:
        state = model.architecture.step(state)
    return model.classify(model.architecture.finish(state))


def cascade(
    model: Model, waveform: np.ndarray | torch.Tensor, edits: Sequence[Edit], *, batch: int | None = None
) -> torch.Tensor:
    """Compute the logits of a clip [time], clean and under each edit: [1 + len(edits), label].

    Clean comes first; each row equals one hooked forward.

    Parameters
    ----------
    edits : sequence
        Each `(Site, function)`, or `{Site: function}` for edits made together. Functions take and return
        [batch, frame, neuron] and get one row at a time.
    batch : int, optional
        Edited copies that share a forward, default: 32; halved, and the run continues, when memory does not suffice.

    Examples
    --------
    >>> import numpy as np
    >>> from xai_lib import edits, execution, hooks, models
    >>> model = models.load("pocket")
    >>> flips = [(hooks.Site(layer), edits.edit([7, 11], "flip")) for layer in (1, 2, 3)]
    >>> waveform = 0.1 * np.random.default_rng(0).standard_normal(16000)
    >>> logits = execution.cascade(model, waveform, flips)
    >>> logits.shape  # the clean clip, and three edits of it
    torch.Size([4, 8])
    """
    logits, _ = cascade_read(model, waveform, edits, {}, batch=batch)
    return logits


@torch.no_grad()
def cascade_read(
    model: Model,
    waveform: np.ndarray | torch.Tensor,
    edits: Sequence[Edit],
    readout_functions: Mapping[SiteLike, Function],
    *,
    batch: int | None = None,
) -> tuple[torch.Tensor, dict[Site, torch.Tensor]]:
    """Compute the logits of `cascade`, and what `readout_functions` return on the way.

    Parameters
    ----------
    readout_functions : dict
        {Site: function from [rows, frame, neuron] to [rows, …]}.

    Returns
    -------
    logits : tensor [1 + len(edits), label]
    readings : dict
        {Site: tensor [1 + len(edits), …]}. Rows whose edit lies above the site equal the clean one; at the site itself
        the edited values are read.
    """
    plans = [_plan(model, edit) for edit in edits]
    readout_functions = {model.check(site): function for site, function in readout_functions.items()}
    batch = BATCH if batch is None else batch
    waves = model.tensor(waveform)
    if _can_resume(model, plans, readout_functions):
        return _cascade(model, waves, plans, readout_functions, batch)
    return _hooked_forwards(model, waves, [{}, *plans], readout_functions, batch)


def _cascade(model, waves, plans, readout_functions, batch):
    """Compute `cascade_read` for a model that can resume: the layers below an edit run once, on the clean clip."""
    clean_states, parts = _clean_pass(model, waves, readout_functions)
    clean_readings = {}
    for site, function in readout_functions.items():
        hidden = clean_states[site.layer].hidden if site.part == "hidden_state" else parts[site]
        clean_readings[site] = function(hidden)

    # Sorted, so that edited copies join the batch one after another.
    order = sorted(range(len(plans)), key=lambda index: _join_layer(plans[index]))
    sorted_plans = [plans[index] for index in order]
    logits = [model.classify(model.architecture.finish(clean_states[-1]))]
    readings = {site: [clean] for site, clean in clean_readings.items()}

    def run(rows):
        return _run(model, clean_states, sorted_plans[rows.start : rows.stop], readout_functions)

    for edited_logits, edited_readings in in_batches(run, len(plans), batch):
        logits.append(edited_logits)
        for site, clean in clean_readings.items():
            edited = edited_readings.get(site, clean[:0])
            n_unaffected = len(edited_logits) - len(edited)  # copies that join the batch above the site
            readings[site] += [edited, clean.repeat_interleave(n_unaffected, dim=0)]

    input_order = [0] * (1 + len(plans))
    for row, index in enumerate(order):
        input_order[1 + index] = 1 + row
    return torch.cat(logits)[input_order], {site: torch.cat(rows)[input_order] for site, rows in readings.items()}


def in_batches(function: Callable[[range], Result], n: int, batch: int) -> Iterator[Result]:
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


def forward(model: Model, waves: torch.Tensor, batch: int) -> torch.Tensor:
    """Compute logits [row, label] of raw waveforms [row, time], `batch` at a time."""

    def logits_of(rows):
        return model.logits(waves[rows.start : rows.stop])

    return torch.cat([*in_batches(logits_of, len(waves), batch)])


def _plan(model, edit) -> dict:
    """Return {Site: function} of one edit, checked."""
    message = "an edit must be (Site, function) or {Site: function}"
    try:
        pairs = edit.items() if isinstance(edit, Mapping) else [tuple(edit)]
        plan = {model.check(site): function for site, function in pairs}
    except TypeError as error:
        raise ValueError(message) from error
    if not plan or not all(callable(function) for function in plan.values()):
        raise ValueError(f"{message}, with at least one function")
    return plan


def _can_resume(model, plans, readout_functions) -> bool:
    """Return whether a forward can resume from below each site that is edited or read."""
    sites = set(readout_functions).union(*plans)
    return model.architecture.resumable and all(site.part != "module" for site in sites)


def _hooked_forwards(model, waves, plans, readout_functions, batch):
    """Compute `cascade_read` by whole hooked forwards, where the model cannot resume."""

    def run(rows):
        batch_plans = plans[rows.start : rows.stop]
        edits = {site: _by_row(batch_plans, site) for site in set().union(*batch_plans)}
        with hooks.edit(model, edits), hooks.capture(model, list(readout_functions)) as captured:
            logits = model.logits(waves.repeat(len(batch_plans), 1))
            return logits, {site: function(captured[site]) for site, function in readout_functions.items()}

    logits = []
    readings = {site: [] for site in readout_functions}
    for batch_logits, batch_readings in in_batches(run, len(plans), batch):
        logits.append(batch_logits)
        for site, values in batch_readings.items():
            readings[site].append(values)
    return torch.cat(logits), {site: torch.cat(values) for site, values in readings.items()}


def _join_layer(plan: dict) -> int:
    """Return the layer after which an edited copy leaves the clean path.

    It is the edit's layer for `hidden_state`, and the one below for any other part.
    """
    return min(site.layer - (site.part != "hidden_state") for site in plan)


def _clean_pass(model, waves, readout_functions):
    """Return the states of the unedited clip after every layer, and the parts inside layers that are read."""
    inside = [site for site in readout_functions if site.part != "hidden_state"]
    with hooks.capture(model, inside) as parts:
        clean_states = states(model, waves, model.n_layers)
    return clean_states, parts


def _run(model, clean_states, plans, readout_functions):
    """Return logits and readings of plans, which are sorted by the layer after which they join the batch.

    Readings have a row for each copy that is in the batch at that site.
    """
    state = None  # of the copies that have joined
    readings = {}
    for layer in range(_join_layer(plans[0]), model.n_layers + 1):
        joined = [plan for plan in plans if _join_layer(plan) < layer]
        if joined:
            state, parts = _step(model, state, joined, readout_functions)
            for site, hidden in parts.items():
                readings[site] = readout_functions[site](hidden)

        n_new = sum(_join_layer(plan) == layer for plan in plans)
        if n_new:
            new_copies = clean_states[layer].repeat_rows(n_new)
            state = state.append_rows(new_copies) if joined else new_copies

        site = Site(layer)
        functions = [plan.get(site) for plan in plans if _join_layer(plan) <= layer]
        if any(functions):
            state = model.architecture.replace(state, _apply_by_row(functions, site, state.hidden))
        if site in readout_functions:
            readings[site] = readout_functions[site](state.hidden)
    return model.classify(model.architecture.finish(state)), readings


def _step(model, state, plans, readout_functions):
    """Run the next layer with the edits inside it; return the state, and the parts inside it that are read."""
    layer = state.layer + 1
    edited_sites = _inside(set().union(*plans), layer)
    with ExitStack() as stack:
        for site in edited_sites:
            stack.enter_context(hooks.edit(model, {site: _by_row(plans, site)}))
        parts = stack.enter_context(hooks.capture(model, _inside(readout_functions, layer)))
        return model.architecture.step(state), parts


def _inside(sites: Iterable[Site], layer: int) -> list[Site]:
    """Return the sites inside a layer, before its output."""
    return [site for site in sites if site.layer == layer and site.part != "hidden_state"]


def _by_row(plans, site) -> Function:
    """Return a function that edits a site by the plan of each row."""
    return partial(_apply_by_row, [plan.get(site) for plan in plans], site)


def _apply_by_row(functions, site, hidden):
    """Apply to each row its own function; None leaves the row as it is."""
    rows = []
    for function, row in zip(functions, hidden.split(1)):
        rows.append(row if function is None else hooks.apply(function, row, site))
    return torch.cat(rows)
