"""What a model loses when neurons are pruned: per clip, per class, and for each neuron alone."""

import json
import warnings

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, targets
from ..activations import random_neurons
from ..audio.reading import content_hash, sources
from ..corpora import as_clips, identity
from .forgetting import correct, summary
from .neuron_selection import blind, controls, neurons_of, reach, with_units
from .weights import _linear


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
    logits, coords = np.stack(list(rows.values())), results.coordinates(with_units(clips), rows)
    for name, (_, doses, draws) in asked.items():
        who = ["chosen", *(f"random {i + 1}" for i in range(draws))]
        who += random_neurons.BLIND if magnitude is not None and draws else ()
        n = len(doses) * len(who)
        own = np.concatenate([np.repeat(logits[:, :1], len(who), axis=1), logits[:, at : at + n]], axis=1)
        shared = [0.0, *(random_neurons.overlap([_pairs(plan) for plan in some[1 : 1 + draws]]) for some in sets[name])]
        found[name] = xr.Dataset(
            {
                "logit": (("clip", "dose", "who", "target"), own.reshape(len(own), 1 + len(doses), len(who), -1)),
                "shared": ("dose", shared),
            },
            {**coords, "dose": [0, *doses], "who": who, "target": model.labels},
            results.attributes(model, skipped, method="prune", draws=draws, seed=seed),
        )
        at += n
    return found


def _pairs(plan):
    """(Site, neuron) of each neuron."""
    return [(site, int(neuron)) for site, found in plan.items() for neuron in found]
