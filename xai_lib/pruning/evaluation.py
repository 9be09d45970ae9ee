"""Effects of pruning on held-out clips: logits per clip, forgetting of a class, accuracy by ranking."""

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
from .neuron_selection import controls, fill_speakers, neurons_of, output_norm, target_blind
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
    selection_clips=None,
    batch=None,
    seed=0,
    sample_rate=None,
) -> xr.Dataset | dict:
    """Compute the logits of each clip with increasing numbers of selected, or random, neurons pruned.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Labelled, of speakers on whom nothing was selected.
    scores : DataArray [layer, neuron] or [unit], or dict of them
        See `neurons_of`. Several scores share the forwards of the unpruned model.
    magnitude : DataArray, optional
        Mean |activation| of the same neurons, by which the random ones are matched in size, see `output_norm`; without
        it they are any of the same layer and part, see `controls`.
    doses : sequence of int, or {name of a score: sequence}
        Numbers of neurons.
    draws : int, or {name of a score: int}
        Random sets; 0 for none. The smallest p is 1 / (1 + draws): 40 make 0.024, under 20 none is below 0.05.
    selection_clips : DataFrame, optional
        The clips that scores are of: ValueError if they share a path, speaker or recording with `clips`. Scores
        record their speakers themselves as long as xarray keeps `attrs["selection_speakers"]`, which is checked in any
        case.

    Returns
    -------
    Dataset, or {name of a score: Dataset}
        `logit` [clip, dose, neuron_set, target], `neuron_set` being "selected", "random 1" … and, with `magnitude` and
        random sets, the target-blind selections, "most active" and "writes most" (`target_blind`); dose 0 is the
        unpruned model. `shared` [dose]: the share of neurons that two random sets have in common.
    """
    clips = as_clips(clips, sample_rate)
    by_name, plans = scores if isinstance(scores, dict) else {None: scores}, {}
    for name, score in by_name.items():
        score_doses, n_draws = (option[name] if isinstance(option, dict) else option for option in (doses, draws))
        plans[name] = [neurons_of(score, dose, part=part, seed=seed) for dose in score_doses], score_doses, n_draws
        _check_disjoint(clips, selection_clips, json.loads(score.attrs.get("selection_speakers", "[]")))
    compared = _logits(model, clips, plans, magnitude, batch, seed)
    return compared if isinstance(scores, dict) else compared[None]


def evaluate(
    model,
    clips,
    neurons,
    label,
    magnitude=None,
    *,
    draws=40,
    selection_clips=None,
    batch=None,
    seed=0,
    sample_rate=None,
) -> xr.Dataset:
    """Compute what a model without `neurons`, {Site: neurons}, forgets of a label and keeps of the others: `summary`.

    Other parameters as in `compare`. If no clip has a label, as for a waveform, all are taken to be of `label`. A dict
    does not record the clips on which it was selected: without `selection_clips`, a warning.
    """
    clips = as_clips(clips, sample_rate)
    if "label" not in clips or clips["label"].isna().all():
        clips = clips.assign(label=label)
    if selection_clips is None:
        warnings.warn(
            "it was not checked that the neurons were selected on other clips: pass selection_clips=", stacklevel=2
        )
    _check_disjoint(clips, selection_clips, [])
    plans = [neurons], [sum(map(len, neurons.values()))], draws
    return summary(_logits(model, clips, {None: plans}, magnitude, batch, seed)[None], label)


def importance(
    model,
    clips,
    scores,
    *,
    shares,
    part="ffn_hidden",
    seeds=3,
    selection_clips=None,
    batch=None,
    seed=0,
    sample_rate=None,
) -> xr.Dataset:
    """Compute accuracy against the share of neurons pruned, by rankings and by random neurons of the same layers.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    scores : dict of DataArray
        By name, the values to rank neurons by: an attribution, a count of words, 1 for those described by an adjective.
        Neurons with NaN or 0 are never pruned.
    shares : sequence of float
        Shares of all neurons that are ranked.
    seeds : int
        Number of draws of the random neurons, and of the order of neurons of equal rank.
    selection_clips : DataFrame, optional
        As in `compare`.

    Returns
    -------
    Dataset
        `right` [ranking, draw, clip, share, neuron_set], whether a clip is classified correctly, `neuron_set` being
        "selected" and "random"; NaN where fewer neurons are ranked than a share requires. `neurons` [ranking, share].

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML, figure 4.
    """
    clips = as_clips(clips, sample_rate)
    scores = {name: score.where(score != 0) for name, score in scores.items()}
    counts = {name: [round(share * score.size) for share in shares] for name, score in scores.items()}
    doses = {
        name: sorted({dose for dose in counts[name] if 0 < dose <= np.isfinite(score.values).sum()})
        for name, score in scores.items()
    }
    options = {"doses": doses, "part": part, "draws": 1, "selection_clips": selection_clips, "batch": batch}
    draws = range(seed, seed + seeds)
    compared, curves = [compare(model, clips, scores, **options, seed=draw) for draw in draws], []
    for name, counts_of_ranking in counts.items():
        rows = [
            correct(by_name[name]).isel(neuron_set=[0, 1]).assign_coords(neuron_set=["selected", "random"])
            for by_name in compared
        ]
        right = xr.concat(rows, "draw")
        available = xr.DataArray(
            [dose if dose in [0, *doses[name]] else -1 for dose in counts_of_ranking], dims="share"
        )
        right = right.reindex(dose=[-1, 0, *doses[name]]).sel(dose=available).drop_vars("dose")
        curves.append(xr.Dataset({"right": right, "neurons": ("share", counts_of_ranking)}, {"share": list(shares)}))
    return xr.concat(curves, pd.Index(list(scores), name="ranking"))


def _check_disjoint(clips, selection_clips, selection_units):
    """Raise ValueError if neurons were selected on these clips, or on others of their speakers or recordings."""
    unit = "speaker" if "speaker" in clips else "recording"
    used = {"path": set(), "speaker": set(), "recording": set()} | {unit: set(selection_units)}
    if selection_clips is not None:
        selection_clips = selection_clips if isinstance(selection_clips, pd.DataFrame) else as_clips(selection_clips)
        for name in used.keys() & set(selection_clips):
            used[name] |= set(selection_clips[name].dropna().astype(str))
    for name, values in used.items():
        normalize = identity.comparable_name if name == "speaker" else str
        values = set(map(normalize, values))
        evaluated = clips[name].dropna().unique() if name in clips else []
        shared = sorted(str(value) for value in evaluated if normalize(value) in values)
        if shared:
            examples = f"{len(shared)} of them, such as {shared[0]}"
            raise ValueError(f"neurons were selected on clips of the same {name} ({examples}): evaluate on others")
    copies = set() if selection_clips is None else set(_hashes(clips)) & set(_hashes(selection_clips))
    if copies:
        raise ValueError(
            f"neurons were selected on {len(copies)} of these sounds, under other names: evaluate on others"
        )


def _hashes(clips):
    """Yield a hash of each clip's sound; files that cannot be opened are left out here, and reported when read."""
    if not {"path", "audio"} & set(clips):  # the table names speakers only
        return
    for source in sources(clips):
        try:
            yield content_hash(source)
        except OSError:
            continue


def _logits(model, clips, plans_by_name, magnitude, batch, seed):
    """Compute the Datasets of `compare`; `plans_by_name` are {name: (plan for each dose, doses, draws)}."""
    model.require_trained()
    targets.require_one_label(model)
    size = model if magnitude is None else output_norm(model, magnitude)

    def control_plans(plan, draws):
        """Return random sets in place of the plan, and, where sizes are known, target-blind selections."""
        random = controls(plan, size, draws, seed=seed)
        known = magnitude is not None and draws
        return [*random, *target_blind(plan, magnitude, size).values()] if known else random

    sets = {
        name: [[plan, *control_plans(plan, draws)] for plan in plans]
        for name, (plans, _, draws) in plans_by_name.items()
    }
    for plan in (plan for plans, _, _ in plans_by_name.values() for plan in plans):
        for site, selected in plan.items():
            _linear(model, site, selected)  # raises ValueError for neurons that `prune` refuses
    all_plans = [plan for doses in sets.values() for plans in doses for plan in plans]
    all_edits = [{site: edits.edit(neurons, "zero") for site, neurons in plan.items()} for plan in all_plans]
    skipped, rows, compared, start = {}, {}, {}, 1
    for index, waveform in model.stream(clips, skipped):
        rows[index] = execution.cascade(model, waveform, all_edits, batch=batch).cpu().numpy()
    logits, coords = np.stack(list(rows.values())), results.coordinates(fill_speakers(clips), rows)
    for name, (_, doses, draws) in plans_by_name.items():
        neuron_set = ["selected", *(f"random {i + 1}" for i in range(draws))]
        neuron_set += random_neurons.TARGET_BLIND if magnitude is not None and draws else ()
        n = len(doses) * len(neuron_set)
        values = np.concatenate(
            [np.repeat(logits[:, :1], len(neuron_set), axis=1), logits[:, start : start + n]], axis=1
        )
        shared = [
            0.0,
            *(random_neurons.overlap([_pairs(plan) for plan in plans[1 : 1 + draws]]) for plans in sets[name]),
        ]
        compared[name] = xr.Dataset(
            {
                "logit": (
                    ("clip", "dose", "neuron_set", "target"),
                    values.reshape(len(values), 1 + len(doses), len(neuron_set), -1),
                ),
                "shared": ("dose", shared),
            },
            {**coords, "dose": [0, *doses], "neuron_set": neuron_set, "target": model.labels},
            results.attributes(model, skipped, method="prune", draws=draws, seed=seed),
        )
        start += n
    return compared


def _pairs(plan):
    """Return (Site, neuron) of each neuron of a plan."""
    return [(site, int(neuron)) for site, neurons in plan.items() for neuron in neurons]
