"""Choose the neurons of a class, take them out of a model, and measure what it forgets and what it keeps."""

import hashlib
import json
import warnings
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import torch
import xarray as xr
from transformers.activations import ACT2FN

from . import edits, execution, identity, nulls, targets
from .choosing import blind, contrast, controls, mentions, neurons_of, reach, support, top, with_units
from .corpora import as_clips
from .forgetting import correct, effects, frontier, random_sets, recalls, selectivity, summary, table
from .reading import content_hash, sources

__all__ = ["blind", "compare", "contrast", "controls", "effects", "evaluate", "fingerprint", "frontier", "greedy", "importance",
           "mentions", "neurons_of", "prune", "random_sets", "reach", "recalls", "save", "selectivity", "summary", "support", "table",
           "top"]  # fmt: skip


@contextmanager
def prune(model, neurons):
    """Take neurons out of the weights while inside the `with`; exactly undone on leaving it.

    Parameters
    ----------
    neurons : dict
        {Site: neurons}, as of `neurons_of`: sites of `attention`, `ffn_hidden` and `ffn_out`, or paths of
        `torch.nn.Linear`. Row and bias of each neuron in the linear map that makes it are set to zero, which is the
        same as holding it at zero (`edits.edit`, mode "zero").

    Raises
    ------
    ValueError
        Not a site of which a linear map makes the neurons; the classifier's own, whose classes would be gone by decree;
        an activation function that is not 0 at 0; a neuron that is not there.
    """
    saved = []
    try:
        with torch.no_grad():
            for site, chosen in neurons.items():
                linear = _linear(model, site, chosen)
                rows = torch.as_tensor(np.asarray(chosen, int), device=linear.weight.device)
                for values in filter(lambda values: values is not None, (linear.weight, linear.bias)):
                    saved.append((values, values.detach().clone()))
                    values[rows] = 0
        yield model
    finally:
        with torch.no_grad():
            for values, before in reversed(saved):
                values.copy_(before)


def save(model, neurons, folder) -> Path:
    """Write the pruned model as a checkpoint that `models.load` opens; the model itself stays as it was.

    What was pruned is in its configuration as `xai_pruned`, a list of {layer, part, neurons}.
    """
    folder, config = Path(folder), getattr(model.network, "config", None)
    if config is None or model.head is not None:
        raise ValueError("only a Hugging Face model with its own head can be written as a checkpoint")
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} holds a model already: name another folder")
    before = getattr(config, "xai_pruned", None)
    sites = {model.check(site): np.unique(np.asarray(chosen, int)).tolist() for site, chosen in neurons.items()}
    with prune(model, sites):
        try:
            config.xai_pruned = [*(before or []), *({**site._asdict(), "neurons": n} for site, n in sites.items())]
            model.network.save_pretrained(folder)
        finally:
            config.xai_pruned = before
            if before is None:
                del config.xai_pruned
    (folder / "preprocessor_config.json").write_text(json.dumps(model.preprocessor, indent=2))
    return folder


def fingerprint(model) -> str:
    """Hash of all weights: the same before a `prune` and after it."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def greedy(model, clips, label, k, sites, *, step=10, weight=4.0, recall=None, sample_rate=None) -> xr.DataArray:
    """Choose neurons of a label `step` at a time, looking anew at the pruned model each time: a score [unit].

    Each time by `contrast` of `support`: what helps the label in its own clips, less `weight` times what helps others
    in theirs. The first chosen scores k, the last 1, others NaN, so that `neurons_of` takes the first n for any dose n
    up to k. When no more than the share `recall` of the label's own clips are still given it, no more are chosen. Other
    neurons answer for those that are gone, which one look at the whole model cannot know.
    """
    clips = as_clips(clips, sample_rate)
    score, taken = None, {}
    for left in range(k, 0, -step):
        with prune(model, taken):
            found = support(model, clips, sites)
        if recall is not None and found["right"][found["label"].values == label].mean() <= recall:
            break
        found = contrast(found, label, weight=weight)
        score = xr.full_like(found, np.nan) if score is None else score
        order = np.argsort(np.where(np.isnan(score), -found, np.inf), kind="stable")
        score[order[: min(step, left)]] = np.arange(left, max(left - step, 0), -1)
        taken = neurons_of(score, k - max(left - step, 0))
    if score is None:
        raise ValueError(f"without any pruning no more than {recall:.0%} of the clips of {label!r} are given it")
    return score


def compare(
    model,
    clips,
    scores,
    magnitude=None,
    *,
    doses,
    part="ffn_hidden",
    draws=40,
    chosen_on=None,
    batch=None,
    seed=0,
    sample_rate=None,
) -> xr.Dataset | dict:
    """Logits of each clip with more and more neurons pruned: the chosen, and random ones of like size.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Labelled, of speakers on whom nothing was chosen.
    scores : DataArray [layer, neuron] or [unit], or dict of them
        See `neurons_of`. Several ways to choose share the forwards of the model as it is.
    magnitude : DataArray, optional
        Of the same neurons, see `reach`, by which the random ones are of like size; without it they are any of the same
        layer and part, see `controls`.
    doses : sequence of int, or {name of a score: sequence}
        Numbers of neurons.
    draws : int, or {name of a score: int}
        Random sets; 0 for none. The smallest p is 1 / (1 + draws): 40 make 0.024, under 20 none is below 0.05.
    chosen_on : DataFrame, optional
        The clips that scores are of: ValueError if they share a path, speaker or source recording with `clips`. Scores
        tell their speakers themselves as long as xarray keeps `attrs["chosen_on"]`; by it they are checked in any case.

    Returns
    -------
    Dataset, or {name of a score: Dataset}
        `logit` [clip, dose, who, target], `who` being "chosen", "random 1" … and, with `magnitude` and random sets, what
        a choice blind to the class takes out, "most active" and "writes most" (`blind`); dose 0 is the model as it is.
        `shared` [dose]: the share of neurons that two random sets have in common.
    """
    clips = as_clips(clips, sample_rate)
    several, asked = scores if isinstance(scores, dict) else {None: scores}, {}
    for name, score in several.items():
        own, many = (each[name] if isinstance(each, dict) else each for each in (doses, draws))
        asked[name] = [neurons_of(score, dose, part=part, seed=seed) for dose in own], own, many
        _apart(clips, chosen_on, json.loads(score.attrs.get("chosen_on", "[]")))
    found = _logits(model, clips, asked, magnitude, batch, seed)
    return found if isinstance(scores, dict) else found[None]


def evaluate(
    model, clips, neurons, label, magnitude=None, *, draws=40, chosen_on=None, batch=None, seed=0, sample_rate=None
) -> xr.Dataset:
    """What a model without some `neurons`, {Site: neurons}, forgets of a label and keeps of the others: `summary`.

    The rest as in `compare`. Clips of which no label is known, such as a waveform, are taken to be of `label`. A dict does
    not tell on which clips it was chosen: without `chosen_on`, a warning.
    """
    clips = as_clips(clips, sample_rate)
    if "label" not in clips or clips["label"].isna().all():
        clips = clips.assign(label=label)
    if chosen_on is None:
        warnings.warn("that the neurons were chosen on other clips was not checked: give chosen_on=", stacklevel=2)
    _apart(clips, chosen_on, [])
    asked = [neurons], [sum(map(len, neurons.values()))], draws
    return summary(_logits(model, clips, {None: asked}, magnitude, batch, seed)[None], label)


def importance(
    model, clips, scores, *, shares, part="ffn_hidden", seeds=3, chosen_on=None, batch=None, seed=0, sample_rate=None
) -> xr.Dataset:
    """Accuracy against the share of neurons pruned, by several rankings, each beside random neurons of the same layers.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    scores : dict of DataArray
        What neurons are ranked by: an attribution, a count of words, 1 for those described by an adjective. NaN and 0 are
        never pruned.
    shares : sequence of float
        Of all neurons that are ranked.
    seeds : int
        Draws of the random neurons, and of the order of neurons that rank alike.
    chosen_on : DataFrame, optional
        As in `compare`.

    Returns
    -------
    Dataset
        `right` [ranking, clip, share, draw, who], whether a clip is given its label, `who` being "chosen" and "random";
        NaN where fewer neurons are ranked than a share asks for. `neurons` [ranking, share].

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML, figure 4.
    """
    clips = as_clips(clips, sample_rate)
    scores = {name: score.where(score != 0) for name, score in scores.items()}
    places = {name: [round(share * score.size) for share in shares] for name, score in scores.items()}
    doses = {
        name: sorted({dose for dose in places[name] if 0 < dose <= np.isfinite(score.values).sum()})
        for name, score in scores.items()
    }
    options = {"doses": doses, "part": part, "draws": 1, "chosen_on": chosen_on, "batch": batch}
    draws = range(seed, seed + seeds)
    compared, found = [compare(model, clips, scores, **options, seed=draw) for draw in draws], []
    for name, own in places.items():
        two = [correct(one[name]).isel(who=[0, 1]).assign_coords(who=["chosen", "random"]) for one in compared]
        right = xr.concat(two, "draw")
        wanted = xr.DataArray([dose if dose in [0, *doses[name]] else -1 for dose in own], dims="share")
        right = right.reindex(dose=[-1, 0, *doses[name]]).sel(dose=wanted).drop_vars("dose")
        found.append(xr.Dataset({"right": right, "neurons": ("share", own)}, {"share": list(shares)}))
    return xr.concat(found, pd.Index(list(scores), name="ranking"))


def _linear(model, site, chosen):
    """The linear map whose rows make the site's neurons, checked for what `prune` promises."""
    site = model.check(site, chosen)
    network = model.network
    linear = network.get_submodule(site.layer) if site.part == "module" else model.family.linear(site)
    name = site.layer if site.part == "module" else f"{site.part} of layer {site.layer}"
    if not isinstance(linear, torch.nn.Linear) or torch.nn.utils.parametrize.is_parametrized(linear):
        raise ValueError(f"no single linear map makes the neurons of {name}, so they cannot be pruned: edit them")
    if model.family.is_open:
        raise ValueError("the attention heads are open: leave the `with` that edits or captures them before pruning")
    if _classifies(model, linear):
        raise ValueError(f"{name} is the classifier: its rows are the classes themselves and are never pruned")
    if site.part == "ffn_hidden" and model.family.module(site) is not linear:
        activation = ACT2FN[network.config.hidden_act]
        at_zero = float(activation(torch.zeros(1)))
        if at_zero != 0:
            raise ValueError(f"{network.config.hidden_act} of 0 is {at_zero:g}: rows of zeros do not silence a neuron")
    return linear


def _classifies(model, linear):
    """Whether each row of a linear map drives one logit and no other, but for what a softmax takes off all alike."""
    n = len(model.labels)
    if linear.out_features != n:
        return False
    x = model.noise(1)

    def logits(shift):
        hook = linear.register_forward_hook(lambda module, args, output: output + shift)
        try:
            return model.logits(x)[0]
        finally:
            hook.remove()

    with torch.enable_grad():
        found = logits(zeros := linear.weight.new_zeros(n))
        slope = torch.autograd.functional.jacobian(logits, zeros)
    if found.logsumexp(0).abs() < 1e-3:  # log probabilities
        slope = slope - (slope.sum(0) - slope.diag()) / max(n - 1, 1)
    off = slope - slope.diag().diag()
    return bool(off.abs().max() <= 1e-4 * slope.abs().max())


def _apart(clips, chosen_on, heard):
    """Refuse clips of which, or of whose speakers or recordings, neurons were chosen."""
    told = "speaker" if "speaker" in clips else "source"
    heard = {"path": set(), "speaker": set(), "source": set()} | {told: set(heard)}
    if chosen_on is not None:
        chosen_on = chosen_on if isinstance(chosen_on, pd.DataFrame) else as_clips(chosen_on)
        for name in heard.keys() & set(chosen_on):
            heard[name] |= set(chosen_on[name].dropna().astype(str))
    for name, known in heard.items():
        alike = identity.compared if name == "speaker" else str
        known = set(map(alike, known))
        theirs = clips[name].dropna().unique() if name in clips else []
        shared = sorted(str(one) for one in theirs if alike(one) in known)
        if shared:
            what = f"{len(shared)} of them, such as {shared[0]}"
            raise ValueError(f"neurons were chosen on clips of the same {name} ({what}): evaluate on others")
    copies = set() if chosen_on is None else set(_hashes(clips)) & set(_hashes(chosen_on))
    if copies:
        raise ValueError(f"neurons were chosen on {len(copies)} of these sounds, under other names: evaluate on others")


def _hashes(clips):
    """A hash of each clip's sound; a file that cannot be opened has none, and is named when it is read."""
    if not {"path", "audio"} & set(clips):  # a table that names speakers alone
        return
    for source in sources(clips):
        try:
            yield content_hash(source)
        except OSError:
            continue


def _logits(model, clips, asked, magnitude, batch, seed):
    """The Datasets of `compare`; `asked` are {name: (plan for each dose, doses, draws)}."""
    model.require_trained()
    targets.require_one_label(model)
    size = model if magnitude is None else reach(model, magnitude)

    def compared_with(plan, draws):
        """Random sets in the place of the plan, and, where sizes are known, what is blind to the class."""
        random = controls(plan, size, draws, seed=seed)
        known = magnitude is not None and draws
        return [*random, *blind(plan, magnitude, size).values()] if known else random

    sets = {name: [[plan, *compared_with(plan, draws)] for plan in plans] for name, (plans, _, draws) in asked.items()}
    for plan in (plan for plans, _, _ in asked.values() for plan in plans):
        for site, chosen in plan.items():
            _linear(model, site, chosen)  # what could not be pruned is not measured either
    every = [plan for doses in sets.values() for some in doses for plan in some]
    every = [{site: edits.edit(found, "zero") for site, found in plan.items()} for plan in every]
    skipped, rows, found, at = {}, {}, {}, 1
    for index, waveform in model.stream(clips, skipped):
        rows[index] = execution.cascade(model, waveform, every, batch=batch).cpu().numpy()
    logits, coords = np.stack(list(rows.values())), targets.coordinates(with_units(clips), rows)
    for name, (_, doses, draws) in asked.items():
        who = ["chosen", *(f"random {i + 1}" for i in range(draws))]
        who += nulls.BLIND if magnitude is not None and draws else ()
        n = len(doses) * len(who)
        own = np.concatenate([np.repeat(logits[:, :1], len(who), axis=1), logits[:, at : at + n]], axis=1)
        shared = [0.0, *(nulls.overlap([_pairs(plan) for plan in some[1 : 1 + draws]]) for some in sets[name])]
        found[name] = xr.Dataset(
            {
                "logit": (("clip", "dose", "who", "target"), own.reshape(len(own), 1 + len(doses), len(who), -1)),
                "shared": ("dose", shared),
            },
            {**coords, "dose": [0, *doses], "who": who, "target": model.labels},
            targets.attributes(model, skipped, method="prune", draws=draws, seed=seed),
        )
        at += n
    return found


def _pairs(plan):
    """(Site, neuron) of each neuron."""
    return [(site, int(neuron)) for site, found in plan.items() for neuron in found]
