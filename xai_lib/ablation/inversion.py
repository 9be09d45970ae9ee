"""Upstream inversion: which input would make a layer give an edited output, and how far is it from the true one?"""

import json
from functools import partial

import numpy as np
import torch
import xarray as xr

from .. import attribution, edits, execution, results, targets
from ..activations import check_moments, donors
from ..activations import random_neurons as nulls_
from ..corpora import as_clips

REACHED = 0.01  # an edit of which a greater share is left over has not been reached
_SOLVED = 1e-3  # where the search stops
_MEMORY = 6  # steps that the search looks back on


def upstream(
    model,
    clips,
    *,
    neurons,
    k=20,
    modes=("flip", "zero"),
    layers="all",
    frames="all",
    nulls=20,
    moments=None,
    steps=40,
    seed=0,
    batch=16,
    sample_rate=None,
) -> xr.Dataset:
    """Find, for the edited output y′ of a layer, the input x′ that makes the layer give it; x and y are the true ones.

    It is sought through the layer itself, from x on, for all edits of a clip and layer side by side. No head is used,
    so that it may be untrained.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of other speakers than those on whom the neurons were chosen.
    neurons : dict or Dataset
        {layer: neurons} of blocks, or scores of an attribution, of which the `k` greatest of each layer are taken.
    modes, frames
        Of `edits.edit`.
    layers : "all", int or sequence of int
        Of those in `neurons`, from 1 up: no layer comes before layer 0, which "all" leaves out.
    nulls : int
        Random sets per layer, of about the same size (`nulls.sets`), the same for all clips. Each takes
        as long as the chosen neurons do, and no more memory: `batch` edits of one clip are held at once.
    moments : Dataset, optional
        Of `activations.moments` on training clips: needed for nulls and for the modes "mean" and "noise".
    steps : int
        Of the search at most, each one forward of the layer; where that has not got there, as many of a descent.
    batch : int
        Edits that share a forward; halved when memory does not suffice.

    Returns
    -------
    Dataset
        [clip, layer, mode], and for the random sets the same with the prefix `null_` and the dim `null`:

        ``edit``, ‖y′ − y‖ / ‖y‖; ``distance``, ‖x′ − x‖ / ‖x‖, which follows the size of the edit, and by how much y is
        greater than x; ``gain``, ‖x′ − x‖ / ‖y′ − y‖, in absolute terms: at 1 the input must move exactly as far as
        the output, at 2 twice as far (NaN of no edit); ``residual``, ‖layer(x′) − y′‖ / ‖y′ − y‖, the share of the edit
        for which no input was found; ``reached``, whether that is at most 1 %: where it is not, `distance` and `gain`
        are those of the nearest output found, and say little; ``floor``, the share that no input can make: base models
        end a layer in a layer norm, which fixes the mean and the variance of every frame (but for inputs that hardly
        vary, of variance near the norm's eps); 0 in large ones. A residual above the floor may be the search's own
        failure.

        `ablation.summary(result, "gain")` compares with the null, whose sets share ``null_overlap`` [layer] of their
        neurons. attrs["neurons"]: the chosen ones, as JSON.

    Raises
    ------
    ValueError
        Layer 0, unknown layers, neurons, modes or frames; scores of another part; `moments` are needed and missing;
        no clip could be used.

    References
    ----------
    Behrmann et al. (2019), Invertible residual networks: x′ = x′ + y′ − layer(x′). Walker and Ni (2011), Anderson
    acceleration for fixed-point iterations. The descent is torch.optim.LBFGS.
    """
    clips = as_clips(clips, sample_rate)
    if steps < 1:
        raise ValueError(f"steps must be 1 or more, not {steps}")
    chosen = _chosen(model, neurons, k, layers)
    needing = nulls or {"mean", "noise"} & set(modes)
    check_moments(moments, model, "block", needing and "an inversion with mean, noise or nulls (nulls=0 for none)")
    known, sizes = edits.given(model.sites(layers=list(chosen)), moments), nulls_.rms(moments)
    random = {"nulls": nulls, "directions": 0, "seed": seed}
    width = model.n_neurons(0)
    sets = {at: [own for (own,) in nulls_.sets(width, sizes, {at: own}, **random)] for at, own in chosen.items()}
    rows, skipped = {}, {}
    for index, waveform, speech, *_ in donors.usable(model, clips, frames, skipped, None, ()):
        found, options = [], {"frames": frames, "speech": speech}
        with torch.no_grad():
            states = execution.states(model, model.tensor(waveform), max(sets))
        options["seed"] = targets.key(seed, index, targets.SEED_NOISE)
        for layer, lists in sets.items():
            plan = [edits.edit(own, mode, **options, **known[layer, "block"]) for mode in modes for own in lists]
            run = partial(_run, model, states[layer - 1], states[layer].hidden, plan, steps)
            found.append(torch.cat([*execution.in_batches(run, len(plan), batch)]))
        rows[index] = torch.stack(found).cpu().numpy()
    values = np.stack(list(rows.values())).reshape(len(rows), len(sets), len(modes), 1 + nulls, -1)
    dims, names = ("clip", "layer", "mode", "null"), ("edit", "distance", "gain", "residual", "floor")
    every = xr.Dataset({name: (dims, values[..., place]) for place, name in enumerate(names)})
    every["reached"] = every["residual"] <= REACHED
    every = every.assign_coords(**results.coordinates(clips, rows), layer=list(sets), mode=list(modes))
    null = every.isel(null=slice(1, None)).rename({name: f"null_{name}" for name in every})
    made = {"method": "upstream_inversion", "part": "block", "steps": steps, "seed": seed, "tolerance": REACHED}
    made["frames"] = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    made["neurons"] = json.dumps({str(layer): own.tolist() for layer, own in chosen.items()})
    shared = ("layer", [nulls_.overlap(own[1:]) for own in sets.values()])
    found = every.isel(null=0).merge(null).assign(null_overlap=shared)
    if sizes is not None:
        found["null_sets"] = "layer", [nulls_.distinct_sets(sizes, {at: own}) for at, own in chosen.items()]
    return found.assign_attrs(results.attributes(model, skipped, **made))


def nearest_normed(values, weight, bias) -> torch.Tensor:
    """Nearest to `values` [..., neuron] of all that a layer norm of this `weight` and `bias` can give.

    It gives weight · z + bias, with z of mean 0 and mean square 1 (its eps left aside), so that this is least squares
    on a sphere, z = (w u − a) / (w² + λ) with u = values − bias: a makes the mean 0, and λ, found by bisection above
    minus the least eigenvalue, the square 1 (Moré and Sorensen 1983, Computing a trust region step).
    """
    w, b, n = weight.cpu().double(), bias.cpu().double(), len(weight)
    pull, centre = w * (values.cpu().double() - b), torch.eye(n, dtype=torch.double) - 1 / n
    least, directions = torch.linalg.eigh(centre @ torch.diag(w**2) @ centre)  # the first one: the mean, 0
    least, direction = least[1], directions[:, 1]

    def z(shift):
        inverse = 1 / (w**2 + shift)
        return (pull - (pull * inverse).sum(-1, keepdim=True) / inverse.sum(-1, keepdim=True)) * inverse

    high = pull.norm(dim=-1, keepdim=True) / n**0.5
    low = torch.full_like(high, -least * (1 - 1e-9))
    for _ in range(60):
        middle = (low + high) / 2
        long = z(middle).norm(dim=-1, keepdim=True) > n**0.5
        low, high = torch.where(long, middle, low), torch.where(long, high, middle)
    found = z(high)
    lacking = (n - found.square().sum(-1, keepdim=True)).clamp(min=0).sqrt()  # where `pull` misses that direction
    return (w * (found + lacking * direction) + b).to(values)


def _chosen(model, neurons, k, layers) -> dict[int, np.ndarray]:
    """{layer: neurons} from layer 1 up."""
    every = isinstance(layers, str) and layers == "all"
    if not every and 0 in np.atleast_1d(layers):
        raise ValueError(f"no layer comes before layer 0, so it has none to invert: ask for 1–{model.n_layers}")
    nulls_.check(model, neurons, [k], layers, "block")
    found = attribution.chosen(model, neurons, [k], layers, "block")
    found = {layer: own for (layer, _), own in found.items() if layer}
    if not found:
        raise ValueError("no neurons are given for any layer from 1 up")
    return found


@torch.no_grad()
def _run(model, state, y, plan, steps, rows):
    """Edit, distance, gain, residual, floor [row, 5] of some edits of the layer after `state`, whose true output is y."""
    x, edited = state.hidden, torch.cat([plan[row](y) for row in rows])
    step, size = partial(_step, model, state), _norm(edited - y)
    goal, scale = _target(model, state.layer + 1, edited)
    rounding = 1e-6 * _norm(y)
    found, made = _anderson(step, x, goal, scale, _SOLVED * size + rounding, steps)
    for row in (_norm(made - goal) > REACHED * size + rounding).nonzero()[:, :1]:
        found[row] = _descend(step, found[row], edited[row], size[row], steps)
        made[row] = step(found[row])
    shares = [torch.where(size > 0, _norm(near - edited) / size, 0) for near in (made, goal)]
    moved = _norm(found - x)
    gain = torch.where(size > 0, moved / size, torch.nan)
    return torch.stack([size / _norm(y), moved / _norm(x), gain, *shares], dim=-1)


def _step(model, state, hidden):
    """Output of the layer after `state`, of inputs [row, frame, neuron]."""
    return model.family.step(state.spread(len(hidden))._replace(hidden=hidden)).hidden


def _target(model, layer, edited):
    """The nearest that the layer's last norm can give, and what turns a lack of output into one of input."""
    norms = model.family.norms(layer)
    if norms is None:  # the residual stream passes: input and output differ by what is added
        return edited, 1
    weight = norms[0].weight * norms[1].weight
    return nearest_normed(edited, norms[1].weight, norms[1].bias), weight / (weight**2 + 0.01 * weight.square().mean())


def _anderson(step, x, goal, scale, limit, steps):
    """Inputs and outputs that solve step(input) = goal: x + scale · (goal − step(x)) again, past steps combined."""
    found, made, least = goal.clone(), goal.clone(), goal.new_full((len(goal),), torch.inf)
    rows, here, last = torch.arange(len(goal), device=goal.device), x.expand_as(goal), None
    moves = turns = x.new_zeros(len(goal), 0, x.numel())
    for _ in range(steps):
        output = step(here)
        left = goal[rows] - output
        error = _norm(left)
        better = error < least[rows]
        for best, now in ((least, error), (found, here), (made, output)):
            best[rows[better]] = now[better]
        flat, left = here.flatten(1), (scale * left).flatten(1)
        if last is not None:
            moves = torch.cat([moves, (flat - last[0])[:, None]], dim=1)[:, -_MEMORY:]
            turns = torch.cat([turns, (left - last[1])[:, None]], dim=1)[:, -_MEMORY:]
        on = (error > limit[rows]) & (error < 1e5 * limit[rows])  # not there yet, nor lost
        if not on.any():
            break
        rows, flat, left, moves, turns = (part[on] for part in (rows, flat, left, moves, turns))
        last, unit = (flat, left), 1 / turns.norm(dim=-1, keepdim=True).clamp(min=1e-30)
        along = turns * unit
        gram = along @ along.mT + 1e-6 * torch.eye(along.shape[1], device=x.device)
        weights = torch.linalg.solve(gram, along @ left[..., None]) * unit
        here = (flat + left - (weights.mT @ (moves + turns))[:, 0]).view(-1, *x.shape[1:])
    return found, made


def _descend(step, start, edited, size, steps):
    """Least squares by L-BFGS, of one row, where the equation was not solved."""
    here = start.clone().requires_grad_()
    search = torch.optim.LBFGS(
        [here], max_iter=steps, tolerance_grad=1e-12, tolerance_change=1e-12, line_search_fn="strong_wolfe"
    )

    def loss():
        with torch.enable_grad():  # the clone: torch's counter of FLOPs fails where the input of a module is a leaf
            value = ((step(here.clone()) - edited) / size).square().sum()
            here.grad = torch.autograd.grad(value, here)[0]
        return value

    before = loss()
    search.step(loss)
    return here.detach() if loss() < before else start


def _norm(values):
    """Norm of each row, [row]."""
    return values.flatten(1).norm(dim=1)
