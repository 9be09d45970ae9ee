"""Upstream inversion (experimental): the input that makes a layer return an edited output.

Reported are also its distance from the true input and how nearly it gets there.
"""

import json
from functools import partial

import numpy as np
import torch
import xarray as xr

from .. import attribution, edits, execution, results, targets
from ..activations import check_activation_stats, donors, random_neurons
from ..corpora import as_clips

REACHED = 0.01  # an edit counts as reached if at most this share of it remains
_TOLERANCE = 1e-3  # share of the edit at which the search stops
_HISTORY = 6  # past steps that the search combines


def upstream(
    model,
    clips,
    *,
    neurons,
    k=20,
    modes=("flip", "zero"),
    layers="all",
    frames="all",
    n_random=20,
    activation_stats=None,
    steps=40,
    seed=0,
    batch=16,
    sample_rate=None,
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
        Random sets per layer, of about the same size (`random_neurons.random_sets`), the same for all clips.
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

        `ablation.effect_over_speakers(result, "gain")` compares with the random sets, which share ``random_overlap``
        [layer] of their neurons. attrs["neurons"]: the selected neurons, as JSON.

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
    needing = n_random or {"mean", "noise"} & set(modes)
    check_activation_stats(
        activation_stats,
        model,
        "hidden_state",
        needing and "an inversion with mean, noise or random sets (n_random=0 for none)",
    )
    known, sizes = (
        edits.statistics_arguments(model.sites(layers=list(selections)), activation_stats),
        random_neurons.rms(activation_stats),
    )
    sets = {}
    for layer, selected in selections.items():
        random_sets = random_neurons.random_sets(sizes, {layer: selected}, n_random, seed=seed)
        sets[layer] = [selected, *(neurons[layer] for neurons in random_sets)]
    rows, skipped = {}, {}
    for index, waveform, speech, *_ in donors.usable(model, clips, frames, skipped, None, ()):
        measures, options = [], {"frames": frames, "speech": speech}
        with torch.no_grad():
            states = execution.states(model, model.tensor(waveform), max(sets))
        options["seed"] = targets.key(seed, index, targets.SEED_NOISE)
        for layer, lists in sets.items():
            plan = [
                edits.edit(members, mode, **options, **known[layer, "hidden_state"])
                for mode in modes
                for members in lists
            ]
            run = partial(_run, model, states[layer - 1], states[layer].hidden, plan, steps)
            measures.append(torch.cat([*execution.in_batches(run, len(plan), batch)]))
        rows[index] = torch.stack(measures).cpu().numpy()
    values = np.stack(list(rows.values())).reshape(len(rows), len(sets), len(modes), 1 + n_random, -1)
    dims, names = ("clip", "layer", "mode", "random"), ("edit", "distance", "gain", "residual", "floor")
    all_sets = xr.Dataset({name: (dims, values[..., column]) for column, name in enumerate(names)})
    all_sets["reached"] = all_sets["residual"] <= REACHED
    all_sets = all_sets.assign_coords(**results.coordinates(clips, rows), layer=list(sets), mode=list(modes))
    random_sets = all_sets.isel(random=slice(1, None)).rename({name: f"random_{name}" for name in all_sets})
    attrs = {"method": "upstream_inversion", "part": "hidden_state", "steps": steps, "seed": seed, "tolerance": REACHED}
    attrs["frames"] = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    attrs["neurons"] = json.dumps({str(layer): selected.tolist() for layer, selected in selections.items()})
    shared = ("layer", [random_neurons.overlap(lists[1:]) for lists in sets.values()])
    result = all_sets.isel(random=0).merge(random_sets).assign(random_overlap=shared)
    if sizes is not None:
        result["random_sets"] = (
            "layer",
            [random_neurons.count_random_sets(sizes, {layer: selected}) for layer, selected in selections.items()],
        )
    return result.assign_attrs(results.attributes(model, skipped, **attrs))


def nearest_normed(values, weight, bias) -> torch.Tensor:
    """Return the nearest to `values` [..., neuron] of all outputs of a layer norm of this `weight` and `bias`.

    Its output is weight · z + bias, with z of mean 0 and mean square 1 (its eps left aside), so that this is least
    squares on a sphere, z = (w u − a) / (w² + λ) with u = values − bias: a makes the mean 0, and λ, found by bisection
    above minus the least eigenvalue, the square 1 (Moré and Sorensen 1983, Computing a trust region step).
    """
    w, b, n = weight.cpu().double(), bias.cpu().double(), len(weight)
    pull, centre = w * (values.cpu().double() - b), torch.eye(n, dtype=torch.double) - 1 / n
    eigenvalues, directions = torch.linalg.eigh(centre @ torch.diag(w**2) @ centre)  # the first is of the mean, 0
    least_eigenvalue, direction = eigenvalues[1], directions[:, 1]

    def z(shift):
        inverse = 1 / (w**2 + shift)
        return (pull - (pull * inverse).sum(-1, keepdim=True) / inverse.sum(-1, keepdim=True)) * inverse

    high = pull.norm(dim=-1, keepdim=True) / n**0.5
    low = torch.full_like(high, -least_eigenvalue * (1 - 1e-9))
    for _ in range(60):
        middle = (low + high) / 2
        too_long = z(middle).norm(dim=-1, keepdim=True) > n**0.5
        low, high = torch.where(too_long, middle, low), torch.where(too_long, high, middle)
    nearest = z(high)
    # Positive if `pull` has no such component.
    lacking = (n - nearest.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()
    return (w * (nearest + lacking * direction) + b).to(values)


def _selected_neurons(model, neurons, k, layers) -> dict[int, np.ndarray]:
    """Return {layer: neurons} from layer 1 up."""
    all_layers = isinstance(layers, str) and layers == "all"
    if not all_layers and 0 in np.atleast_1d(layers):
        raise ValueError(
            f"no layer comes before layer 0, so it cannot be inverted: choose from layers 1–{model.n_layers}"
        )
    selected = attribution.select_neurons(model, neurons, [k], layers, "hidden_state")
    selected = {layer: members for (layer, _), members in selected.items() if layer}
    if not selected:
        raise ValueError("no neurons are given for any layer from 1 up")
    return selected


@torch.no_grad()
def _run(model, state, y, plan, steps, rows):
    """Compute edit, distance, gain, residual, floor [row, 5] of edits of the layer after `state`, of true output y."""
    x, edited = state.hidden, torch.cat([plan[row](y) for row in rows])
    step, size = partial(_step, model, state), _norm(edited - y)
    goal, scale = _target(model, state.layer + 1, edited)
    rounding = 1e-6 * _norm(y)
    inputs, outputs = _anderson(step, x, goal, scale, _TOLERANCE * size + rounding, steps)
    for row in (_norm(outputs - goal) > REACHED * size + rounding).nonzero()[:, :1]:
        inputs[row] = _descend(step, inputs[row], edited[row], size[row], steps)
        outputs[row] = step(inputs[row])
    shares = [torch.where(size > 0, _norm(near - edited) / size, 0) for near in (outputs, goal)]
    moved = _norm(inputs - x)
    gain = torch.where(size > 0, moved / size, torch.nan)
    return torch.stack([size / _norm(y), moved / _norm(x), gain, *shares], dim=-1)


def _step(model, state, hidden):
    """Compute the output of the layer after `state` from inputs [row, frame, neuron]."""
    return model.architecture.step(state.repeat_rows(len(hidden))._replace(hidden=hidden)).hidden


def _target(model, layer, edited):
    """Return the nearest possible output of the layer's last norm, and the factor from output to input residual."""
    norms = model.architecture.norms(layer)
    if norms is None:  # residual stream without a last norm: input and output differ by what the layer adds
        return edited, 1
    weight = norms[0].weight * norms[1].weight
    return nearest_normed(edited, norms[1].weight, norms[1].bias), weight / (weight**2 + 0.01 * weight.square().mean())


def _anderson(step, x, goal, scale, limit, steps):
    """Solve step(input) = goal by iterating x + scale · (goal − step(x)) with past steps combined: inputs, outputs."""
    inputs, outputs, errors = goal.clone(), goal.clone(), goal.new_full((len(goal),), torch.inf)
    rows, current, last = torch.arange(len(goal), device=goal.device), x.expand_as(goal), None
    moves = turns = x.new_zeros(len(goal), 0, x.numel())
    for _ in range(steps):
        output = step(current)
        residual = goal[rows] - output
        error = _norm(residual)
        better = error < errors[rows]
        for best, new in ((errors, error), (inputs, current), (outputs, output)):
            best[rows[better]] = new[better]
        flat, residual = current.flatten(1), (scale * residual).flatten(1)
        if last is not None:
            moves = torch.cat([moves, (flat - last[0])[:, None]], dim=1)[:, -_HISTORY:]
            turns = torch.cat([turns, (residual - last[1])[:, None]], dim=1)[:, -_HISTORY:]
        active = (error > limit[rows]) & (error < 1e5 * limit[rows])  # neither converged nor diverged
        if not active.any():
            break
        rows, flat, residual, moves, turns = (part[active] for part in (rows, flat, residual, moves, turns))
        last, inverse_norms = (flat, residual), 1 / turns.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        unit_turns = turns * inverse_norms
        gram = unit_turns @ unit_turns.mT + 1e-6 * torch.eye(unit_turns.shape[1], device=x.device)
        weights = torch.linalg.solve(gram, unit_turns @ residual[..., None]) * inverse_norms
        current = (flat + residual - (weights.mT @ (moves + turns))[:, 0]).view(-1, *x.shape[1:])
    return inputs, outputs


def _descend(step, start, edited, size, steps):
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


def _norm(values):
    """Compute the norm of each row, [row]."""
    return values.flatten(1).norm(dim=1)
