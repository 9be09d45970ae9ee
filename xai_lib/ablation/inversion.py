"""Upstream inversion (experimental): the input that makes a layer return an edited output.

Reported are also its distance from the true input and how nearly it gets there.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from .. import execution, results, targets
from ..activations import donors
from ..checks import require_whole_number
from ..corpora import as_clips
from . import arguments
from .conditions import ConditionGrid, Edit
from .controls import SELECTED, NeuronSet, RandomControls
from .selection import Selection

if TYPE_CHECKING:
    from ..models import Model

REACHED = 0.01  # an edit counts as reached if at most this share of it remains
_TOLERANCE = 1e-3  # share of the edit at which the search stops
_HISTORY = 6  # past steps that the search combines
_MEASURES = ("edit", "distance", "gain", "residual", "floor")  # of each edit, as in the result of `upstream`


def upstream(
    model: Model,
    clips: Any,
    selection: Selection,
    *,
    controls: RandomControls | None,
    edit: Edit = Edit(("flip", "zero")),
    steps: int = 40,
    seed: int = 0,
    batch: int = 16,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Find the input x′ that makes a layer return its edited output y′; x and y are the true input and output.

    The search goes through the layer itself, starting from x, for all edits of a clip and layer at once. No head is
    used, so that it may be untrained.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of other speakers than those on whom the neurons were selected.
    selection : Selection
        Neurons of hidden states, of layers from 1 up: no layer comes before layer 0.
    controls : RandomControls or None
        What the selected neurons are compared with, the same for all clips. Each set takes as long as the selected
        neurons do, and no more memory: `batch` edits of one clip are held at once.
    edit : Edit
        Modes and frames, as for `sweep`; "resample" and "patch" are not inverted.
    steps : int
        Maximum number of steps of the search, each one forward of the layer; if it does not converge, as many steps of
        a descent follow.
    batch : int
        Edits that share a forward; halved when memory does not suffice.

    Returns
    -------
    Dataset
        [clip, layer, mode, neuron_set], with the coordinate ``kind`` of the neuron sets, as in `sweep`:

        ``edit``, ‖y′ − y‖ / ‖y‖; ``distance``, ‖x′ − x‖ / ‖x‖, which grows with the size of the edit, and with the
        ratio of y to x; ``gain``, ‖x′ − x‖ / ‖y′ − y‖, in absolute terms: at 1 the input must move exactly as far as
        the output, at 2 twice as far (NaN of no edit); ``residual``, ‖layer(x′) − y′‖ / ‖y′ − y‖, the share of the edit
        for which no input was found; ``reached``, 1 if that is at most 1 % and 0 if not (NaN where no edit was run):
        where it is 0, `distance` and `gain` are those of the nearest output found, and not informative; ``floor``, the
        share that no input can produce: base models end a layer in a layer norm, which fixes the mean and the variance
        of every frame (except for inputs that hardly vary, of variance near the norm's eps); 0 in large ones. A
        residual above the floor may be a failure of the search.

        `ablation.summary(result, "gain")` compares with the random sets. Of the sets: ``rms``, ``random_overlap`` and
        ``n_random_sets``, as in `sweep`. ``is_selected`` [layer, neuron]: the selected neurons.

    Raises
    ------
    ValueError
        Layer 0, a group of layers or another part; unknown layers, neurons, modes or frames; activation statistics are
        needed and missing; no clip could be used.

    References
    ----------
    Behrmann et al. (2019), Invertible residual networks: x′ = x′ + y′ − layer(x′). Walker and Ni (2011), Anderson
    acceleration for fixed-point iterations. The descent is torch.optim.LBFGS.
    """
    arguments.require_types(model, clips, selection, controls, edit)
    require_whole_number("steps", steps)
    clips = as_clips(clips, sample_rate)
    _require_invertible(model, selection)
    edit.check(model, "hidden_state", clips)
    neuron_sets = {layer: [NeuronSet(SELECTED, SELECTED, selection.neurons_of(layer))] for layer in selection.neurons}
    arguments.warn_on_speaker_leakage(clips, selection, controls, edit)
    if controls is not None:
        controls.check(model, "hidden_state", edit.modes)
        for layer, sets_of_layer in neuron_sets.items():
            sets_of_layer += controls.neuron_sets(model, selection, layer, seed)
    control_modes = edit.modes if controls is None or controls.modes is None else controls.modes
    grids = {layer: ConditionGrid({layer: sets}, edit.modes, control_modes) for layer, sets in neuron_sets.items()}

    rows: dict = {}
    skipped: dict = {}
    for index, waveform, speech, *_ in donors.usable(model, clips, edit.frames, skipped, None, ()):
        with torch.no_grad():
            states = execution.states(model, model.tensor(waveform), max(selection.neurons))
        noise_seed = targets.key(seed, index, targets.SEED_NOISE)

        measures = []  # of each layer, [mode, neuron_set, measure]
        for layer, grid in grids.items():
            edit_functions = []
            for condition in grid.conditions:
                neurons = condition.neuron_set.neurons[layer]
                edit_functions.append(edit.function(neurons, condition.mode, layer, speech=speech, seed=noise_seed))
            run = partial(_run, model, states[layer - 1], states[layer].hidden, edit_functions, steps)
            measured = torch.cat(list(execution.in_batches(run, len(edit_functions), batch)))
            measures.append(grid.arrange(measured.cpu().numpy())[0])
        rows[index] = np.stack(measures)

    first_sets = neuron_sets[next(iter(neuron_sets))]
    values = xr.DataArray(
        np.stack(list(rows.values())),
        {
            **results.coordinates(clips, rows),
            "layer": list(selection.neurons),
            "mode": list(edit.modes),
            "neuron_set": [neuron_set.name for neuron_set in first_sets],
            "kind": ("neuron_set", [neuron_set.kind for neuron_set in first_sets]),
            "measure": list(_MEASURES),
        },
        ("clip", "layer", "mode", "neuron_set", "measure"),
    )
    result = values.to_dataset("measure")
    reached = result["residual"] <= REACHED
    result["reached"] = reached.astype(float).where(result["residual"].notnull())
    result["is_selected"] = selection.mask(model)
    if controls is not None:
        result = result.assign(controls.matching(selection, neuron_sets).data_vars)
    attributes = {
        "part": "hidden_state",
        "steps": steps,
        "seed": seed,
        "tolerance": REACHED,
        "frames": edit.frames_as_text(),
    }
    return result.assign_attrs(results.attributes(model, skipped, method="upstream_inversion", **attributes))


def _require_invertible(model, selection) -> None:
    """Raise ValueError where a selection is not of hidden states of single layers from 1 up."""
    if selection.part != "hidden_state" or selection.groups is not None:
        raise ValueError(
            "what is inverted is the hidden state of one layer: select neurons of hidden_state, without groups"
        )
    if 0 in selection.neurons:
        raise ValueError(
            f"no layer comes before layer 0, so it cannot be inverted: choose from layers 1–{model.n_layers}"
        )
    selection.check(model)


def nearest_normed(values: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """Return the nearest to `values` [..., neuron] of all outputs of a layer norm of this `weight` and `bias`.

    Its output is weight · z + bias, with z of mean 0 and mean square 1 (its eps left aside), so that this is least
    squares on a sphere, z = (w u − a) / (w² + λ) with u = values − bias: a makes the mean 0, and λ, found by bisection
    above minus the least eigenvalue, the square 1 (Moré and Sorensen 1983, Computing a trust region step).
    """
    n = len(weight)
    w = weight.cpu().double()
    b = bias.cpu().double()
    pull = w * (values.cpu().double() - b)

    def z(shift):
        """Compute z [..., neuron] of a λ."""
        inverse = 1 / (w**2 + shift)
        a = (pull * inverse).sum(-1, keepdim=True) / inverse.sum(-1, keepdim=True)
        return (pull - a) * inverse

    centre = torch.eye(n, dtype=torch.double) - 1 / n
    eigenvalues, directions = torch.linalg.eigh(centre @ torch.diag(w**2) @ centre)
    least_eigenvalue = eigenvalues[1]  # the first is that of the mean, 0
    direction = directions[:, 1]

    high = pull.norm(dim=-1, keepdim=True) / n**0.5
    low = torch.full_like(high, -least_eigenvalue * (1 - 1e-9))
    for _ in range(60):
        middle = (low + high) / 2
        is_too_long = z(middle).norm(dim=-1, keepdim=True) > n**0.5
        low = torch.where(is_too_long, middle, low)
        high = torch.where(is_too_long, high, middle)

    nearest = z(high)
    # What lacks to a mean square of 1 is positive if `pull` has no component along the direction.
    lacking = (n - nearest.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
    return (w * (nearest + lacking * direction) + b).to(values)


@torch.no_grad()
def _run(model, state, y, plan, steps, rows) -> torch.Tensor:
    """Compute the measures [row, measure] of some rows of the edits in `plan`.

    They edit the layer after `state`, whose true output is y. The measures are those of `_MEASURES`.
    """
    x = state.hidden
    edited = torch.cat([plan[row](y) for row in rows])
    size = _norm(edited - y)
    rounding = 1e-6 * _norm(y)
    goal, scale = _target(model, state.layer + 1, edited)
    step = partial(_step, model, state)

    inputs, outputs = _solve(step, x, goal, scale, _TOLERANCE * size + rounding, steps)
    is_off = _norm(outputs - goal) > REACHED * size + rounding
    for row in is_off.nonzero()[:, :1]:  # [1], so that what it selects keeps the dim of rows
        inputs[row] = _descend(step, inputs[row], edited[row], size[row], steps)
        outputs[row] = step(inputs[row])

    moved = _norm(inputs - x)
    measures = {
        "edit": size / _norm(y),
        "distance": moved / _norm(x),
        "gain": torch.where(size > 0, moved / size, torch.nan),
        "residual": torch.where(size > 0, _norm(outputs - edited) / size, 0),
        "floor": torch.where(size > 0, _norm(goal - edited) / size, 0),
    }
    return torch.stack([measures[name] for name in _MEASURES], dim=-1)


def _step(model, state, hidden) -> torch.Tensor:
    """Compute the output of the layer after `state` from inputs [row, frame, neuron]."""
    return model.architecture.step(state.repeat_rows(len(hidden))._replace(hidden=hidden)).hidden


def _target(model, layer, edited):
    """Return the nearest possible output of the layer's last norm, and the factor from output to input residual."""
    norms = model.architecture.norms(layer)
    if norms is None:  # residual stream without a last norm: input and output differ by what the layer adds
        return edited, 1
    weight = norms[0].weight * norms[1].weight
    scale = weight / (weight**2 + 0.01 * weight.square().mean())
    return nearest_normed(edited, norms[1].weight, norms[1].bias), scale


class _AndersonState:
    """A fixed-point search of several rows: positions and residuals [row, value], and their past changes."""

    def __init__(self, n_rows, n_values, like):
        """Begin without a position; tensors are of the type and on the device of `like`."""
        self.position = None
        self.residual = None
        self.moves = like.new_zeros(n_rows, 0, n_values)  # changes of the position [row, step, value]
        self.turns = like.new_zeros(n_rows, 0, n_values)  # of the residual

    def update(self, position, residual):
        """Take the next positions and the residuals there, and add the changes from those before to the history."""
        if self.position is not None:
            move = position - self.position
            turn = residual - self.residual
            self.moves = torch.cat([self.moves, move[:, None]], dim=1)[:, -_HISTORY:]
            self.turns = torch.cat([self.turns, turn[:, None]], dim=1)[:, -_HISTORY:]
        self.position = position
        self.residual = residual

    def keep(self, rows):
        """Drop all rows but these, bool [row]."""
        self.position = self.position[rows]
        self.residual = self.residual[rows]
        self.moves = self.moves[rows]
        self.turns = self.turns[rows]

    def next_position(self) -> torch.Tensor:
        """Combine past steps so that their residuals, taken as linear, cancel out: the next positions [row, value]."""
        inverse_norms = 1 / self.turns.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        unit_turns = self.turns * inverse_norms
        n_steps = unit_turns.shape[1]
        gram = unit_turns @ unit_turns.mT + 1e-6 * torch.eye(n_steps, device=unit_turns.device)
        weights = torch.linalg.solve(gram, unit_turns @ self.residual[..., None]) * inverse_norms
        correction = (weights.mT @ (self.moves + self.turns))[:, 0]
        return self.position + self.residual - correction


def _solve(step, x, goal, scale, limit, steps) -> tuple[torch.Tensor, torch.Tensor]:
    """Solve step(input) = goal [row, frame, neuron] by Anderson acceleration from x: best inputs, and their outputs.

    The iteration is x + scale · (goal − step(x)). A row is done when its error is at most `limit` [row].
    """
    best_inputs = goal.clone()
    best_outputs = goal.clone()
    least_errors = goal.new_full((len(goal),), torch.inf)

    rows = torch.arange(len(goal), device=goal.device)  # those that are searched on
    search = _AndersonState(len(goal), x.numel(), like=x)
    current = x.expand_as(goal)
    for _ in range(steps):
        output = step(current)
        difference = goal[rows] - output
        error = _norm(difference)

        is_better = error < least_errors[rows]
        better_rows = rows[is_better]
        least_errors[better_rows] = error[is_better]
        best_inputs[better_rows] = current[is_better]
        best_outputs[better_rows] = output[is_better]

        search.update(current.flatten(1), (scale * difference).flatten(1))
        is_active = (error > limit[rows]) & (error < 1e5 * limit[rows])  # neither converged nor diverged
        if not is_active.any():
            break
        rows = rows[is_active]
        search.keep(is_active)
        current = search.next_position().view(-1, *x.shape[1:])
    return best_inputs, best_outputs


def _descend(step, start, edited, size, steps) -> torch.Tensor:
    """Minimise the squared residual of one row by L-BFGS, where the equation was not solved."""
    current = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [current], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss():
        with torch.enable_grad():  # the clone: torch's counter of FLOPs fails where the input of a module is a leaf
            value = ((step(current.clone()) - edited) / size).square().sum()
            current.grad = torch.autograd.grad(value, current)[0]
        return value

    before = loss()
    search.step(loss)
    return current.detach() if loss() < before else start


def _norm(values) -> torch.Tensor:
    """Compute the norm of each row, [row]."""
    return values.flatten(1).norm(dim=1)
