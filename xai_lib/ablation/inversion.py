"""Upstream inversion (experimental): the input that makes a layer return an edited output.

Reported are also its distance from the true input and how nearly it gets there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr

from .. import attribution, edits, execution, results, targets
from ..activations import check_activation_stats, donors, random_neurons
from ..corpora import as_clips

if TYPE_CHECKING:
    from ..models import Model

REACHED = 0.01  # an edit counts as reached if at most this share of it remains
_TOLERANCE = 1e-3  # share of the edit at which the search stops
_HISTORY = 6  # past steps that the search combines
_MEASURES = ("edit", "distance", "gain", "residual", "floor")  # of each edit, as in the result of `upstream`


def upstream(
    model: Model,
    clips: Any,
    *,
    neurons: dict | xr.Dataset,
    k: int = 20,
    modes: Sequence[str] = ("flip", "zero"),
    layers: str | int | Sequence[int] = "all",
    frames: str | Sequence[int] = "all",
    n_random: int = 20,
    activation_stats: xr.Dataset | None = None,
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
    neurons : dict or Dataset
        {layer: neurons} of blocks, or scores of an attribution, of which the `k` greatest of each layer are taken.
    modes, frames
        As in `edits.edit`.
    layers : "all", int or sequence of int
        Of those in `neurons`, from 1 up: no layer comes before layer 0, which "all" leaves out.
    n_random : int
        Random sets per layer, of about the same size (`random_neurons.matched_sets`), the same for all clips.
        Each takes as long as the selected neurons do, and no more memory: `batch` edits of one clip are held at once.
    activation_stats : Dataset, optional
        Activation statistics of training clips, as returned by `activations.activation_stats`: needed for random sets
        and for the modes "mean" and "noise".
    steps : int
        Maximum number of steps of the search, each one forward of the layer; if it does not converge, as many steps of
        a descent follow.
    batch : int
        Edits that share a forward; halved when memory does not suffice.

    Returns
    -------
    Dataset
        [clip, layer, mode], and for the random sets the same with the prefix `random_` and the dim `random`:

        ``edit``, ‖y′ − y‖ / ‖y‖; ``distance``, ‖x′ − x‖ / ‖x‖, which grows with the size of the edit, and with the
        ratio of y to x; ``gain``, ‖x′ − x‖ / ‖y′ − y‖, in absolute terms: at 1 the input must move exactly as far as
        the output, at 2 twice as far (NaN of no edit); ``residual``, ‖layer(x′) − y′‖ / ‖y′ − y‖, the share of the edit
        for which no input was found; ``reached``, whether that is at most 1 %: where it is not, `distance` and `gain`
        are those of the nearest output found, and not informative; ``floor``, the share that no input can produce: base
        models end a layer in a layer norm, which fixes the mean and the variance of every frame (except for inputs that
        hardly vary, of variance near the norm's eps); 0 in large ones. A residual above the floor may be a failure of
        the search.

        `ablation.summary(result, "gain")` compares with the random sets, which share ``random_overlap`` [layer] of
        their neurons. attrs["neurons"]: the selected neurons, as JSON.

    Raises
    ------
    ValueError
        Layer 0, unknown layers, neurons, modes or frames; scores of another part; `activation_stats` are needed and
        missing; no clip could be used.

    References
    ----------
    Behrmann et al. (2019), Invertible residual networks: x′ = x′ + y′ − layer(x′). Walker and Ni (2011), Anderson
    acceleration for fixed-point iterations. The descent is torch.optim.LBFGS.
    """
    clips = as_clips(clips, sample_rate)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    selections = _selected_neurons(model, neurons, k, layers)
    needs_stats = n_random > 0 or "mean" in modes or "noise" in modes
    purpose = "an inversion with mean, noise or random sets (n_random=0 for none)" if needs_stats else None
    check_activation_stats(activation_stats, model, "hidden_state", purpose)
    arguments = edits.statistics_arguments(model.sites(layers=list(selections)), activation_stats)
    sizes = random_neurons.rms(activation_stats)
    random_sets = _random_sets(model, selections, sizes, n_random, seed)

    rows = {}
    skipped = {}
    for index, waveform, speech, *_ in donors.usable(model, clips, frames, skipped, None, ()):
        with torch.no_grad():
            states = execution.states(model, model.tensor(waveform), max(selections))
        options = {"frames": frames, "speech": speech, "seed": targets.key(seed, index, targets.SEED_NOISE)}

        measures = []  # of each layer
        for layer, selected in selections.items():
            plan = []
            for mode in modes:
                for members in [selected, *random_sets[layer]]:
                    plan.append(edits.edit(members, mode, **options, **arguments[layer, "hidden_state"]))
            run = partial(_run, model, states[layer - 1], states[layer].hidden, plan, steps)
            measures_of_edits = torch.cat(list(execution.in_batches(run, len(plan), batch)))
            measures.append(measures_of_edits.unflatten(0, (len(modes), 1 + n_random)))
        rows[index] = torch.stack(measures).cpu().numpy()

    values = xr.DataArray(
        np.stack(list(rows.values())),
        {
            **results.coordinates(clips, rows),
            "layer": list(selections),
            "mode": list(modes),
            "neuron_set": ["selected", *(f"random {number}" for number in range(1, n_random + 1))],
            "measure": list(_MEASURES),
        },
        ("clip", "layer", "mode", "neuron_set", "measure"),
    )
    result = _selected_and_random(values)
    overlap = [random_neurons.overlap(random_sets[layer]) for layer in selections]
    result["random_overlap"] = "layer", overlap
    if sizes is not None:
        counts = [random_neurons.count_random_sets(sizes, {layer: selections[layer]}) for layer in selections]
        result["random_sets"] = "layer", counts

    attrs = {"method": "upstream_inversion", "part": "hidden_state", "steps": steps, "seed": seed, "tolerance": REACHED}
    attrs["frames"] = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    attrs["neurons"] = json.dumps({str(layer): selected.tolist() for layer, selected in selections.items()})
    return result.assign_attrs(results.attributes(model, skipped, **attrs))


def _random_sets(model, selections, sizes, n_random, seed) -> dict[int, list[np.ndarray]]:
    """Draw the random sets in the place of the selected neurons of each layer, {layer: neurons of each set}."""
    width = model.n_neurons(0)
    random_sets = {}
    for layer, selected in selections.items():
        matched = random_neurons.matched_sets(
            width, sizes, {layer: selected}, n_random=n_random, directions=0, seed=seed
        )
        random_sets[layer] = [members for (members,) in matched[1:]]  # the selected neurons come first
    return random_sets


def _selected_and_random(values) -> xr.Dataset:
    """Arrange measures [clip, layer, mode, neuron_set, measure] as variables: selected, and with `random_` random."""
    measures = values.to_dataset("measure")
    measures["reached"] = measures["residual"] <= REACHED
    selected = measures.sel(neuron_set="selected", drop=True)
    random = measures.drop_sel(neuron_set="selected").drop_vars("neuron_set").rename(neuron_set="random")
    return selected.merge(random.rename({name: f"random_{name}" for name in random}))


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


def _selected_neurons(model, neurons, k, layers) -> dict[int, np.ndarray]:
    """Return {layer: neurons} from layer 1 up."""
    all_layers = isinstance(layers, str) and layers == "all"
    if not all_layers and 0 in np.atleast_1d(layers):
        raise ValueError(
            f"no layer comes before layer 0, so it cannot be inverted: choose from layers 1–{model.n_layers}"
        )
    random_neurons.check(model, neurons, [k], layers, "hidden_state")
    by_layer_and_k = attribution.select_neurons(model, neurons, [k], layers, "hidden_state")
    selected = {layer: members for (layer, _), members in by_layer_and_k.items() if layer}
    if not selected:
        raise ValueError("no neurons are given for any layer from 1 up")
    return selected


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
