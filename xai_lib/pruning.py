"""Take neurons out of a model, and measure what it forgets and what it keeps."""

import hashlib
from contextlib import contextmanager

import numpy as np
import pandas as pd
import torch
import xarray as xr
from scipy.special import logsumexp

from . import edits, execution, statistics, targets
from .families import Site
from .names import ordered


@contextmanager
def prune(model, neurons):
    """Take neurons of `ffn_hidden` out of the weights while inside the `with`; exactly undone on leaving it.

    It yields the same model: `model.network.save_pretrained(folder)` inside the `with` writes the pruned checkpoint.
    `neurons` are {Site(layer, "ffn_hidden"): neurons}, as of `neurons_of`; ValueError if the part is another, or the
    model lacks one.
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

    Where no speaker has both (few clips), or speakers are not known, it is over all clips. `scores` are [clip, layer,
    neuron], for instance `signed` of `attribution.grad_x_activation` of training clips: which neurons carry the class
    in its own clips and not elsewhere.
    """
    own = (scores["label"] == label).values
    if not own.any() or own.all():
        raise ValueError(f"a contrast needs clips of {label!r} and clips of others: {int(own.sum())} of {len(own)}")
    mine, others = (scores.isel(clip=np.flatnonzero(chosen)) for chosen in (own, ~own))
    if targets.speakers_known(scores):
        within = statistics.by_speaker(mine) - statistics.by_speaker(others)
        if within.sizes["speaker"]:
            return within.mean("speaker")
    return mine.mean("clip") - others.mean("clip")


def neurons_of(scores, k, *, part="ffn_hidden") -> dict:
    """The k neurons of the greatest scores [layer, neuron], as {Site: neurons}.

    The scores are of the concept to forget: `contrast`, or a concept's `score` of `dissection.identify`, or its `mean`
    of `dissection.selectivity`; from training speakers, if effects are to be reported on others.
    """
    ranked = scores.transpose("layer", "neuron")
    flat = np.argsort(-ranked.values, axis=None, kind="stable")[:k]
    layers, neurons = np.unravel_index(flat, ranked.shape)
    return {Site(int(ranked["layer"][i]), part): neurons[layers == i] for i in np.unique(layers)}


def reach(model, magnitude) -> xr.DataArray:
    """How much each neuron of `ffn_hidden` writes: mean |activation| × norm of its outgoing weights, [layer, neuron].

    The `magnitude` is that of `dissection.activations`.
    """
    weights = [_outgoing(model, Site(int(layer), "ffn_hidden")) for layer in magnitude["layer"]]
    norms = np.stack([weight.detach().norm(dim=0).cpu().numpy() for weight in weights])
    return magnitude * magnitude.transpose("layer", "neuron").copy(data=norms)


def controls(neurons, size, draws, *, seed=0) -> list[dict]:
    """Random neurons in place of the chosen: as many in each layer, of like size (`reach`), none of the chosen."""
    sets = {
        site: edits.matched(size.sel(layer=site.layer), chosen, draws, nearest=15, seed=[seed, site.layer])
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
        See `neurons_of` and `reach`, by which the random neurons are matched.
    doses : sequence of int
        Numbers of neurons.

    Returns
    -------
    Dataset
        `logit` [clip, dose, who, target], `who` being "chosen", "random 1" …; dose 0 is the model as it is. `shared`
        [dose]: the share of neurons that two random sets have in common.
    """
    model.require_trained()
    plans, size, shared = [], reach(model, magnitude), [0.0]
    for dose in doses:
        chosen = neurons_of(scores, dose)
        random = controls(chosen, size, draws, seed=seed)
        plans += [chosen, *random]
        shared.append(edits.overlap([[(site, n) for site, own in plan.items() for n in own] for plan in random]))
    plans = [{site: edits.edit(found, "zero") for site, found in plan.items()} for plan in plans]
    who = ["chosen", *(f"random {i + 1}" for i in range(draws))]
    skipped, rows = {}, {}
    for index, waveform in model.stream(clips, skipped):
        logits = execution.cascade(model, waveform, plans, batch=batch).cpu().numpy()
        clean = np.repeat(logits[:1], len(who), axis=0)
        rows[index] = np.concatenate([clean, logits[1:]]).reshape(1 + len(doses), len(who), -1)
    return xr.Dataset(
        {"logit": (("clip", "dose", "who", "target"), np.stack(list(rows.values()))), "shared": ("dose", shared)},
        {**targets.coordinates(clips, rows), "dose": [0, *doses], "who": who, "target": model.labels},
        targets.attributes(model, skipped, method="prune", draws=draws, seed=seed),
    )


def recalls(compared) -> xr.DataArray:
    """Share of each speaker's clips of each label that are given it: [label, speaker, dose, who]; NaN without such."""
    right, labels = _right(compared), ordered(compared["label"].values)
    rows = [statistics.by_speaker(right[right["label"].values == label]) for label in labels]
    return xr.concat(rows, pd.Index(labels, name="label"), join="outer").rename("recall")


def effects(compared, label) -> xr.Dataset:
    """What pruning does to the forgotten class and to the others.

    Returns
    -------
    Dataset [group, speaker, dose, who], group "forgotten" and "kept": the clips of the class, and all others
        `recall`; `log_odds`, the change of the log odds of the clip's own class (nats), and `moved`, its absolute
        value: means over a speaker's clips. Of "kept" clips these are odds among the other classes only, since
        otherwise a loss of the forgotten class would count as their gain. `margin` [group, speaker, dose]: the log
        odds with the chosen neurons pruned less their mean with random ones.
        `across_p` [group, dose]: p that one more random set would do as the chosen does (`statistics.null_test`);
        `margin_p`: the greater of it and of a sign-flip test of `margin` over speakers, NaN under 8 of them.
    """
    parts, own = [], compared["label"] == label
    for group, rows in (("forgotten", own), ("kept", ~own)):
        part = compared.isel(clip=np.flatnonzero(rows.values))
        odds = _log_odds(part if group == "forgotten" else part.sel(target=part["target"] != label))
        change = odds - odds.isel(dose=0)
        measures = {"recall": _right(part), "log_odds": change, "moved": np.abs(change)}
        found = {name: statistics.by_speaker(data) for name, data in measures.items()}
        chosen, random = found["log_odds"].isel(who=0, drop=True), found["log_odds"].isel(who=slice(1, None))
        found["margin"] = chosen - random.mean("who")
        sets = random.mean("speaker").transpose("who", "dose").values
        across = statistics.null_test(chosen.mean("speaker").values, sets, overlap=compared["shared"].values)
        over = statistics.sign_flip_test(found["margin"].transpose("dose", "speaker").values, axis=1)
        tests = {"across_p": ("dose", across), "margin_p": ("dose", np.maximum(across, over))}
        parts.append(xr.Dataset({**found, **tests}).expand_dims(group=[group]))
    return xr.concat(parts, "group", join="outer").assign_attrs(forgotten=label)


def _right(compared):
    """Whether each clip is given its own label, 0 or 1: [clip, dose, who]."""
    names = compared["target"].values[compared["logit"].argmax("target").values]
    right = names == compared["label"].values[:, None, None]
    return compared["logit"].isel(target=0, drop=True).copy(data=right.astype(float))


def _log_odds(compared):
    """Log odds of each clip's own class against all others, which adding to all logits does not change."""
    own = compared["label"] == compared["target"]
    logit = compared["logit"]
    others = logit.where(~own, -np.inf)
    rest = xr.apply_ufunc(logsumexp, others, input_core_dims=[["target"]], kwargs={"axis": -1})
    return logit.where(own).sum("target", min_count=1) - rest  # NaN where the model does not know the label


def _outgoing(model, site, chosen=None):
    """The weights [out, neuron] of the linear map that reads the site's neurons."""
    site = model.check(site, chosen)
    if site.part != "ffn_hidden":
        raise ValueError(f"only neurons of ffn_hidden can be taken out of the weights, not of {site.part}: edit them")
    width = model.n_neurons(site)
    inside = model.family.module(Site(site.layer, "ffn_out")).modules()
    return [m for m in inside if isinstance(m, torch.nn.Linear) and m.in_features == width][-1].weight
