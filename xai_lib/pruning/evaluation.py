"""Effects of pruning on held-out clips: logits per clip, forgetting of a class, accuracy by ranking."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from numbers import Number
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import xarray as xr

from .. import edits, execution, results, targets
from ..activations import random_neurons
from ..audio.reading import content_hash, sources
from ..corpora import as_clips, identity
from ..models import require_model
from .forgetting import correct, require_label, summary
from .neuron_selection import controls, fill_speakers, neurons_of, output_norm, target_blind
from .weights import _linear, require_neurons_by_site

if TYPE_CHECKING:
    from ..models import Model


@dataclass(frozen=True)
class _Request:
    """Prunings to compare: the selected neurons at each dose, and the number of random sets beside them."""

    selected: dict[int, dict]  # {dose: {Site: neurons}}
    n_random: int


@dataclass(frozen=True)
class _Dose:
    """Sets of neurons pruned at one dose, and the share of neurons that two random ones have in common."""

    neuron_sets: dict[str, dict]  # {name of the set: {Site: neurons}}
    shared: float


def compare(
    model: Model,
    clips: Any,
    scores: xr.DataArray | dict,
    magnitude: xr.DataArray | None = None,
    *,
    doses: Sequence[int] | dict,
    part: str = "ffn_hidden",
    draws: int | dict = 40,
    selection_clips: Any = None,
    batch: int | None = None,
    seed: int = 0,
    sample_rate: int | None = None,
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    scores_by_name = scores if isinstance(scores, dict) else {None: scores}

    requests = {}
    for name, score in scores_by_name.items():
        doses_of_score = doses[name] if isinstance(doses, dict) else doses
        _require_doses(doses_of_score)
        n_random = draws[name] if isinstance(draws, dict) else draws
        selected = {dose: neurons_of(score, dose, part=part, seed=seed) for dose in doses_of_score}
        requests[name] = _Request(selected, n_random)

        selection_units = json.loads(score.attrs.get("selection_speakers", "[]"))
        _check_disjoint(clips, selection_clips, selection_units)

    compared = _compare(model, clips, requests, magnitude, batch, seed)
    return compared if isinstance(scores, dict) else compared[None]


def evaluate(
    model: Model,
    clips: Any,
    neurons: dict,
    label: str,
    magnitude: xr.DataArray | None = None,
    *,
    draws: int = 40,
    selection_clips: Any = None,
    batch: int | None = None,
    seed: int = 0,
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compute what a model without `neurons`, {Site: neurons}, forgets of a label and keeps of the others: `summary`.

    Other parameters as in `compare`. If no clip has a label, as for a waveform, all are taken to be of `label`. A dict
    does not record the clips on which it was selected: without `selection_clips`, a warning.

    Examples
    --------
    >>> from xai_lib import corpora, hooks, models, pruning
    >>> clips = corpora.split(corpora.load("sample"))
    >>> train = clips.query("split == 'train'")
    >>> test = corpora.balanced(clips.query("split == 'test'"), 16)
    >>> neurons = {hooks.Site(2, "ffn_hidden"): [0, 1]}
    >>> result = pruning.evaluate(models.load("pocket"), test, neurons, "angry", draws=0, selection_clips=train)
    >>> dict(result.sizes)
    {'group': 2, 'measure': 3, 'dose': 2, 'neuron_set': 1}
    """
    require_model(model)
    require_neurons_by_site(neurons)
    clips = as_clips(clips, sample_rate)
    if "label" not in clips or clips["label"].isna().all():
        clips = clips.assign(label=label)
    require_label(clips["label"].to_numpy(), label)
    if selection_clips is None:
        warnings.warn(
            "it was not checked that the neurons were selected on other clips: pass selection_clips=", stacklevel=2
        )
    _check_disjoint(clips, selection_clips, [])

    neurons = {model.check(site): selected for site, selected in neurons.items()}
    dose = sum(map(len, neurons.values()))
    requests = {"evaluated": _Request({dose: neurons}, draws)}
    compared = _compare(model, clips, requests, magnitude, batch, seed)
    return summary(compared["evaluated"], label)


def importance(
    model: Model,
    clips: Any,
    scores: dict[str, xr.DataArray],
    *,
    shares: Sequence[float],
    part: str = "ffn_hidden",
    seeds: int = 3,
    selection_clips: Any = None,
    batch: int | None = None,
    seed: int = 0,
    sample_rate: int | None = None,
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
    require_model(model)
    clips = as_clips(clips, sample_rate)
    rankings = {name: score.where(score != 0) for name, score in scores.items()}
    shares = list(shares)

    counts = {}  # neurons at each share
    doses = {}  # those of them that the ranking has
    for name, ranking in rankings.items():
        n_ranked = np.isfinite(ranking.values).sum()
        counts[name] = [round(share * ranking.size) for share in shares]
        doses[name] = sorted({count for count in counts[name] if 0 < count <= n_ranked})

    options = {"doses": doses, "part": part, "draws": 1, "selection_clips": selection_clips, "batch": batch}
    compared = [compare(model, clips, rankings, **options, seed=draw) for draw in range(seed, seed + seeds)]

    curves = []
    for name in rankings:
        draws = []
        for by_name in compared:
            right = correct(by_name[name]).sel(neuron_set=["selected", "random 1"])
            draws.append(right.assign_coords(neuron_set=["selected", "random"]))
        right = xr.concat(draws, "draw").reindex(dose=counts[name])  # NaN where fewer neurons are ranked
        right = right.drop_vars("dose").rename(dose="share")
        curves.append(xr.Dataset({"right": right, "neurons": ("share", counts[name])}, {"share": shares}))
    return xr.concat(curves, pd.Index(list(rankings), dtype=object, name="ranking"))


def _require_doses(doses):
    """Raise ValueError for a number in place of a list of them."""
    if isinstance(doses, Number):
        raise ValueError(f"doses must be a list of numbers of neurons, not {doses!r}: doses=[{doses!r}]")


def _check_disjoint(clips, selection_clips, selection_units):
    """Raise ValueError if neurons were selected on these clips, or on others of their speakers or recordings."""
    unit = "speaker" if "speaker" in clips else "recording"
    if selection_clips is not None and not isinstance(selection_clips, pd.DataFrame):
        selection_clips = as_clips(selection_clips)

    for column in ("path", "speaker", "recording"):
        selected = set(selection_units) if column == unit else set()
        if selection_clips is not None and column in selection_clips:
            selected |= set(selection_clips[column].dropna().astype(str))
        _check_column(clips, column, selected)

    if selection_clips is not None:
        copies = set(_hashes(clips)) & set(_hashes(selection_clips))
        if copies:
            raise ValueError(
                f"neurons were selected on {len(copies)} of these sounds, under other names: evaluate on others"
            )


def _check_column(clips, column, selected):
    """Raise ValueError if some of the clips have one of the `selected` values in a column; speakers in any spelling."""
    if column not in clips:
        return
    normalize = identity.comparable_name if column == "speaker" else str
    selected = {normalize(value) for value in selected}
    shared = sorted(str(value) for value in clips[column].dropna().unique() if normalize(value) in selected)
    if shared:
        examples = f"{len(shared)} of them, such as {shared[0]}"
        raise ValueError(f"neurons were selected on clips of the same {column} ({examples}): evaluate on others")


def _hashes(clips) -> Iterator[str]:
    """Yield a hash of each clip's sound; files that cannot be opened are left out here, and reported when read."""
    if not {"path", "audio"} & set(clips):  # the table names speakers only
        return
    for source in sources(clips):
        try:
            yield content_hash(source)
        except OSError:
            continue


def _compare(model, clips, requests, magnitude, batch, seed) -> dict:
    """Compute the Dataset of `compare` for each request, {name: _Request}, in forwards that they share."""
    model.require_trained()
    targets.require_one_label(model)
    for request in requests.values():
        for neurons in request.selected.values():
            _require_prunable(model, neurons)

    size = model if magnitude is None else output_norm(model, magnitude)
    plans = {}  # {name of a request: {dose: _Dose}}
    for name, request in requests.items():
        plans[name] = {}
        for dose, selected in request.selected.items():
            plans[name][dose] = _plan_dose(selected, magnitude, size, request.n_random, seed)

    edits_by_pruning = _zeroing_edits(plans)
    skipped = {}
    rows = {}
    for index, waveform in model.stream(clips, skipped):
        rows[index] = execution.cascade(model, waveform, list(edits_by_pruning.values()), batch=batch).cpu().numpy()
    logits = np.stack(list(rows.values()), axis=1)  # [clean and each pruning, clip, target]
    clean = logits[0]
    pruned = dict(zip(edits_by_pruning, logits[1:], strict=True))

    compared = {}
    for name, request in requests.items():
        neuron_sets = _names_of_sets(request.n_random, target_blind=magnitude is not None)
        values = [np.stack([clean] * len(neuron_sets), axis=1)]  # dose 0: the unpruned model in place of each set
        shared = [0.0]
        for dose, plan in plans[name].items():
            values.append(np.stack([pruned[name, dose, neuron_set] for neuron_set in neuron_sets], axis=1))
            shared.append(plan.shared)

        dims = ("clip", "dose", "neuron_set", "target")
        coords = results.coordinates(fill_speakers(clips), rows)
        coords |= {"dose": [0, *plans[name]], "neuron_set": neuron_sets, "target": model.labels}
        attrs = results.attributes(model, skipped, method="prune", draws=request.n_random, seed=seed)
        variables = {"logit": (dims, np.stack(values, axis=1)), "shared": ("dose", shared)}
        compared[name] = xr.Dataset(variables, coords, attrs)
    return compared


def _require_prunable(model, neurons):
    """Raise ValueError for neurons, {Site: neurons}, that `prune` refuses."""
    for site, selected in neurons.items():
        _linear(model, site, selected)


def _plan_dose(selected, magnitude, size, n_random, seed) -> _Dose:
    """Draw what is pruned at one dose: the selected neurons, random ones and, of known `magnitude`, target-blind ones.

    `size` is that of `controls`.
    """
    random = controls(selected, size, n_random, seed=seed)
    blind = target_blind(selected, magnitude, size) if magnitude is not None and n_random else {}
    names = _names_of_sets(n_random, target_blind=bool(blind))
    neuron_sets = dict(zip(names, [selected, *random, *blind.values()], strict=True))
    shared = random_neurons.overlap([_units(neurons) for neurons in random])
    return _Dose(neuron_sets, shared)


def _names_of_sets(n_random, *, target_blind) -> list[str]:
    """Return the names of the sets of neurons of a result, along `neuron_set`."""
    names = ["selected"]
    names += [f"random {number}" for number in range(1, n_random + 1)]
    if target_blind and n_random:
        names += random_neurons.TARGET_BLIND
    return names


def _zeroing_edits(plans) -> dict:
    """Return the edits that equal each pruning of the plans, {(name, dose, neuron_set): {Site: edit}}."""
    edits_by_pruning = {}
    for name, doses in plans.items():
        for dose, plan in doses.items():
            for neuron_set, neurons in plan.neuron_sets.items():
                zeroed = {site: edits.edit(selected, "zero") for site, selected in neurons.items()}
                edits_by_pruning[name, dose, neuron_set] = zeroed
    return edits_by_pruning


def _units(neurons) -> list[tuple]:
    """Return (Site, neuron) of each of the neurons, {Site: neurons}."""
    return [(site, int(neuron)) for site, members in neurons.items() for neuron in members]
