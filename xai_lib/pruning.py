"""Take neurons out of a model, and measure what it forgets and what it keeps."""

from __future__ import annotations

import hashlib
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.special import logsumexp

from . import audio, edits, execution, statistics, targets
from .families import Site


@contextmanager
def prune(model, neurons):
    """Take neurons of `ffn_hidden` out of the weights while inside the `with`; exactly undone on leaving it.

    Parameters
    ----------
    neurons : dict
        {Site(layer, "ffn_hidden"): neurons}, as of `neurons_of`.

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
            weight = _outgoing(model, site, chosen)
            saved.append((weight, weight.detach().clone()))
            with torch.no_grad():
                weight[:, torch.as_tensor(np.asarray(chosen, int), device=weight.device)] = 0
        yield model
    finally:
        with torch.no_grad():
            for weight, before in reversed(saved):
                weight.copy_(before)


def fingerprint(model) -> str:
    """Hash of all weights: the same before a `prune` and after it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def contrast(scores, label) -> xr.DataArray:
    """Mean over the clips of a label less that over the others, within speakers who have both: [layer, neuron].

    Parameters
    ----------
    scores : DataArray [clip, layer, neuron]
        For instance `signed` of `attribution.grad_x_activation`, of training clips: which neurons carry the class
        in its own clips and not elsewhere.
    """
    own = (scores["label"] == label).values
    if not own.any() or own.all():
        raise ValueError(f"a contrast needs clips of {label!r} and clips of others: {int(own.sum())} of {len(own)}")
    mine, others = (scores.isel(clip=np.flatnonzero(chosen)) for chosen in (own, ~own))
    if "speaker" not in scores.coords or pd.isna(scores["speaker"].values).any():
        return mine.mean("clip") - others.mean("clip")
    return (statistics.by_speaker(mine) - statistics.by_speaker(others)).mean("speaker")


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


def controls(neurons, magnitude, draws, *, seed=0) -> list[dict]:
    """Random neurons in place of the chosen: as many in each layer, of like mean |activation|, none of the chosen.

    Parameters
    ----------
    magnitude : DataArray [layer, neuron]
        Of `dissection.activations`.
    """
    sets = {
        site: edits.matched(magnitude.sel(layer=site.layer), chosen, draws, seed=[seed, site.layer])
        for site, chosen in neurons.items()
    }
    return [{site: found[draw] for site, found in sets.items()} for draw in range(draws)]


def compare(model, clips, scores, magnitude, *, doses, draws=20, batch=None, seed=0) -> xr.Dataset:
    """Logits of each clip with more and more neurons pruned: the chosen, and matched random ones.

    Parameters
    ----------
    clips : DataFrame
        Labelled, of speakers on whom nothing was chosen.
    scores, magnitude : DataArray [layer, neuron]
        See `neurons_of` and `controls`.
    doses : sequence of int
        Numbers of neurons.

    Returns
    -------
    Dataset
        `logit` [clip, dose, who, target], `who` being "chosen", "random 1" …; dose 0 is the model as it is.
    """
    model.require_trained()
    plans = []
    for dose in doses:
        chosen = neurons_of(scores, dose)
        plans += [chosen, *controls(chosen, magnitude, draws, seed=seed)]
    plans = [{site: edits.edit(found, "zero") for site, found in plan.items()} for plan in plans]
    who = ["chosen", *(f"random {i + 1}" for i in range(draws))]
    skipped, rows = {}, {}
    for index, waveform in audio.stream(clips, model.sample_rate, shortest=model.span, skipped=skipped):
        logits = execution.cascade(model, waveform, plans, batch=batch).cpu().numpy()
        clean = np.repeat(logits[:1], len(who), axis=0)
        rows[index] = np.concatenate([clean, logits[1:]]).reshape(1 + len(doses), len(who), -1)
    return xr.Dataset(
        {"logit": (("clip", "dose", "who", "target"), np.stack(list(rows.values())))},
        {**targets.coordinates(clips, rows), "dose": [0, *doses], "who": who, "target": model.labels},
        targets.attributes(model, skipped, method="prune", draws=draws, seed=seed),
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
        `recall` of the clips of the group, and `log_odds`, the change of the log odds of the clip's own class (nats):
        means over speakers with intervals (`recall_low`, `recall_high` …); `n` speakers. `margin` [group, dose]: the
        log odds with the chosen neurons pruned less the mean with random ones, with its interval and `margin_p`, of a
        sign-flip test over speakers.
    """
    change = _own_log_odds(compared)
    change = change - change.isel(dose=0)
    margin = change.isel(who=0, drop=True) - change.isel(who=slice(1, None)).mean("who")
    parts = []
    for group, rows in (("forgotten", compared["label"] == label), ("kept", compared["label"] != label)):
        found, rows = {}, np.flatnonzero(rows.values)
        for name, data in {"recall": recalls(compared), "log_odds": change, "margin": margin}.items():
            over = statistics.over_speakers(data.isel(clip=rows))
            found |= {name: over["mean"], f"{name}_low": over["low"], f"{name}_high": over["high"]}
        units = statistics.by_speaker(margin.isel(clip=rows)).transpose("dose", "speaker")
        found["margin_p"] = ("dose", [statistics.sign_flip_test(values) for values in units.values])
        parts.append(xr.Dataset({**found, "n": units.sizes["speaker"]}).expand_dims(group=[group]))
    return xr.concat(parts, "group").assign_attrs(forgotten=label)


def _own_log_odds(compared):
    """Log odds of each clip's own class against all others, which adding to all logits does not change."""
    own = compared["label"] == compared["target"]
    logit = compared["logit"]
    others = logit.where(~own, -np.inf)
    rest = xr.apply_ufunc(logsumexp, others, input_core_dims=[["target"]], kwargs={"axis": -1})
    return logit.where(own, 0).sum("target") - rest


def _outgoing(model, site, chosen):
    """The weights [out, neuron] of the linear map that reads the site's neurons."""
    site = model.check(site, chosen)
    if site.part != "ffn_hidden":
        raise ValueError(f"only neurons of ffn_hidden can be taken out of the weights, not of {site.part}: edit them")
    width = model.n_neurons(site)
    linear = [
        m
        for m in model.family.module(Site(site.layer, "ffn_out")).modules()
        if isinstance(m, torch.nn.Linear) and m.in_features == width
    ]
    return linear[-1].weight
