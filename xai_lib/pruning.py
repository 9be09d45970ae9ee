"""Take neurons out of a model, and measure what it forgets and what it keeps."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import audio, execution, statistics, targets
from .families import Site


@contextmanager
def prune(model, neurons, *, means=None):
    """Take neurons of `ffn_hidden` out of the weights while inside the `with`; exactly undone on leaving it.

    Parameters
    ----------
    neurons : dict
        {Site(layer, "ffn_hidden"): neurons}.
    means : dict, optional
        {Site: array [neuron]}: hold the neurons at these values, which the next bias then carries; otherwise at 0.

    Yields
    ------
    Model
        The same one: `model.network.save_pretrained(folder)` inside the `with` writes the pruned checkpoint.

    Raises
    ------
    ValueError
        Another part, or a layer or neuron that the model does not have.
    """
    saved = []
    try:
        for site, chosen in neurons.items():
            site, linear = _outgoing(model, site, chosen)
            saved += [(p, p.detach().clone()) for p in (linear.weight, linear.bias) if p is not None]
            index = torch.as_tensor(np.asarray(chosen, int), device=linear.weight.device)
            with torch.no_grad():
                if means is not None:
                    held = torch.as_tensor(np.asarray(means[site], float)).to(linear.weight)[index]
                    linear.bias += linear.weight[:, index] @ held
                linear.weight[:, index] = 0
        yield model
    finally:
        with torch.no_grad():
            for parameter, before in reversed(saved):
                parameter.copy_(before)


def edits(neurons, *, means=None) -> dict:
    """The same as `prune`, as {Site: function} for `hooks.edit` and `execution.cascade`."""

    def hold(chosen, values):
        def function(hidden):
            hidden[..., chosen] = values.to(hidden) if torch.is_tensor(values) else values
            return hidden

        return function

    held = {site: 0.0 if means is None else torch.as_tensor(np.asarray(means[site])[np.asarray(chosen)])
            for site, chosen in neurons.items()}  # fmt: skip
    return {Site(*site): hold(list(map(int, chosen)), held[site]) for site, chosen in neurons.items()}


def fingerprint(model) -> str:
    """Hash of all weights: the same before a `prune` and after it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def contrast(scores, label) -> xr.DataArray:
    """Mean over the clips of a label less the mean over the others, by speaker first: [layer, neuron].

    Parameters
    ----------
    scores : DataArray [clip, layer, neuron]
        For instance `signed` of `attribution.grad_x_activation`, of training clips: which neurons carry the class
        in its own clips and not elsewhere.
    """
    own = (scores["label"] == label).values
    if not own.any() or own.all():
        raise ValueError(f"a contrast needs clips of {label!r} and clips of others: {int(own.sum())} of {len(own)}")
    named = "speaker" in scores.coords and not pd.isna(scores["speaker"].values).any()
    parts = (scores.isel(clip=np.flatnonzero(chosen)) for chosen in (own, ~own))
    mine, others = (statistics.by_speaker(x).mean("speaker") if named else x.mean("clip") for x in parts)
    return mine - others


def neurons_of(scores, k, *, part="ffn_hidden") -> dict:
    """The k neurons of the greatest scores, {Site: neurons}.

    Parameters
    ----------
    scores : DataArray [layer, neuron]
        Of the concept to forget: `contrast`, or a concept's `score` of `dissection.identify`, or its `mean` of
        `dissection.selectivity`; from training speakers, if effects are to be reported on others.
    """
    ranked = scores.transpose("layer", "neuron")
    flat = np.argsort(-ranked.values, axis=None, kind="stable")[:k]
    layers, neurons = np.unravel_index(flat, ranked.shape)
    return {Site(int(ranked["layer"][i]), part): neurons[layers == i] for i in np.unique(layers)}


def matched(neurons, magnitude, rng, *, near=20) -> dict:
    """Random neurons in place of the chosen: as many in each layer, of like mean |activation|, none of the chosen.

    Each is drawn among the `near` free neurons of its layer that are nearest in mean |activation|.
    """
    out = {}
    for site, chosen in neurons.items():
        size = magnitude.sel(layer=site.layer).values
        free = np.setdiff1d(np.arange(len(size)), chosen)
        if len(free) < len(chosen):
            raise ValueError(f"no control for {len(chosen)} of {len(size)} neurons of layer {site.layer}: prune fewer")
        picked = []
        for neuron in rng.permutation(chosen):
            closest = np.argsort(np.abs(size[free] - size[neuron]), kind="stable")[:near]
            place = rng.choice(closest)
            picked.append(free[place])
            free = np.delete(free, place)
        out[site] = np.array(picked)
    return out


def compare(model, clips, scores, magnitude, *, doses, draws=20, means=None, batch=None, seed=0) -> xr.Dataset:
    """Logits of each clip with more and more neurons pruned: the chosen, and matched random ones.

    Parameters
    ----------
    clips : DataFrame
        Of speakers on whom nothing was chosen.
    scores, magnitude : DataArray [layer, neuron]
        See `neurons_of`, and `magnitude` of `dissection.activations`.
    doses : sequence of int
        Numbers of neurons.

    Returns
    -------
    Dataset
        `logit` [clip, dose, who, target], `who` being "chosen", "random 1" …; dose 0 is the model as it is.
    """
    model.require_trained()
    rng = np.random.default_rng(seed)
    who = ["chosen", *(f"random {i + 1}" for i in range(draws))]
    plans = []
    for dose in doses:
        chosen = neurons_of(scores, dose)
        plans += [chosen, *(matched(chosen, magnitude, rng) for _ in range(draws))]
    plans, skipped, rows = [edits(plan, means=means) for plan in plans], {}, {}
    for index, waveform in audio.stream(clips, model.sample_rate, shortest=model.span, skipped=skipped):
        logits = execution.cascade(model, waveform, plans, batch=batch).cpu().numpy()
        clean = np.repeat(logits[:1], len(who), axis=0)
        rows[index] = np.concatenate([clean, logits[1:]]).reshape(1 + len(doses), len(who), -1)
    return xr.Dataset(
        {"logit": (("clip", "dose", "who", "target"), np.stack(list(rows.values())))},
        {**targets.coordinates(clips, rows), "dose": [0, *doses], "who": who, "target": model.labels},
        targets.attributes(model, skipped, draws=draws, seed=seed, mode="zero" if means is None else "mean"),
    )


def recalls(compared) -> xr.DataArray:
    """Whether each clip is given its own label, 0 or 1: [clip, dose, who]."""
    names = compared["target"].values[compared["logit"].argmax("target").values]
    right = names == compared["label"].values[:, None, None]
    return compared["logit"].isel(target=0, drop=True).copy(data=right.astype(float)).rename("recall")


def effects(compared, label) -> xr.Dataset:
    """What pruning does to the forgotten class and to the others.

    Returns
    -------
    Dataset [group, dose, who], group "forgotten" and "kept"
        `recall` of the clips of the group and `logit`, the change of the logit of the clip's own class, as means over
        speakers with intervals (`recall_low`, `recall_high` …); and `n` speakers.
    """
    index = [list(compared["target"].values).index(name) for name in compared["label"].values]
    own = np.take_along_axis(compared["logit"].values, np.array(index)[:, None, None, None], axis=-1)[..., 0]
    right = recalls(compared)
    measures = {"recall": right, "logit": right.copy(data=own - own[:, :1])}
    parts = []
    for group, rows in (("forgotten", compared["label"] == label), ("kept", compared["label"] != label)):
        found = {name: statistics.over_speakers(data.isel(clip=np.flatnonzero(rows.values)))
                 for name, data in measures.items()}  # fmt: skip
        flat = {f"{name}{end}": x[key] for name, x in found.items()
                for end, key in (("", "mean"), ("_low", "low"), ("_high", "high"))}  # fmt: skip
        parts.append(xr.Dataset(flat).assign(n=found["recall"]["n"]).expand_dims(group=[group]))
    return xr.concat(parts, "group").assign_attrs(forgotten=label)


def _outgoing(model, site, chosen):
    """The linear map that reads the site's neurons."""
    site = model.check(site, chosen)
    if site.part != "ffn_hidden":
        raise ValueError(f"only neurons of ffn_hidden can be taken out of the weights, not of {site.part}: use edits")
    width = model.n_neurons(site)
    linear = [m for m in model.family.module(Site(site.layer, "ffn_out")).modules()
              if isinstance(m, torch.nn.Linear) and m.in_features == width]  # fmt: skip
    return site, linear[-1]
