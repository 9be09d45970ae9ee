"""Selection of neurons to prune for a class: scores of all neurons, and the neurons of the greatest scores."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import snowballstemmer
import torch
import xarray as xr

from .. import hooks, results, statistics, targets
from ..activations import random_neurons
from ..checks import require_whole_number
from ..corpora import as_clips
from ..corpora.filenames import ordered
from ..models import require_model
from ..models.sites import Site
from .weights import prune

if TYPE_CHECKING:
    from ..models import Model

_STEMMER = snowballstemmer.stemmer("english")


def support(model: Model, clips: Any, sites: Sequence[Site], *, sample_rate: int | None = None) -> xr.DataArray:
    """Compute gradient × activation of each neuron for the log odds of the clip's true label: [clip, unit].

    It is summed over all frames. All sites of a clip come from one backward. The coordinate `right` is whether the clip
    is classified correctly.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    sites = [model.check(site) for site in sites]

    skipped = {}
    rows = {}
    right = []
    for index, waveform in model.stream(clips, skipped):
        rows[index], is_right = _support_of_clip(model, waveform, sites, clips.loc[index, "label"])
        right.append(is_right)

    neurons = [(site.part, site.layer, neuron) for site in sites for neuron in range(model.n_neurons(site))]
    units = pd.MultiIndex.from_tuples(neurons, names=["part", "layer", "neuron"])
    coords = results.coordinates(clips, rows, right=right)
    coords |= xr.Coordinates.from_pandas_multiindex(units, "unit")
    attrs = results.attributes(model, skipped, method="support", selection_speakers=results.speaker_ids_json(clips))
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "unit"), attrs=attrs)


def _support_of_clip(model, waveform, sites, label) -> tuple[np.ndarray, bool]:
    """Compute the support [unit] of a clip's label by the neurons of all sites, and whether the label is predicted."""
    hidden_states = {}

    def record(site, hidden):
        if not hidden.requires_grad:  # the first site that the forward reaches: no gradient is needed below it
            hidden = hidden.detach().requires_grad_().clone()
        hidden_states[site] = hidden
        return hidden

    true_class = model.target(label)
    with torch.enable_grad(), hooks.edit(model, {site: partial(record, site) for site in sites}):
        logits = model.logits(model.tensor(waveform))
        value = targets.value(model, logits, (true_class,), "log_odds").sum()
        gradients = torch.autograd.grad(value, [hidden_states[site] for site in sites])

    scores = []
    for site, gradient in zip(sites, gradients):
        scores.append((gradient * hidden_states[site].detach()).sum(dim=(0, 1)))  # over the only clip, and frames
    return torch.cat(scores).cpu().numpy(), int(logits.argmax()) == true_class


def contrast(scores: xr.DataArray, label: str, *, weight: float = 1.0) -> xr.DataArray:
    """Compute the mean score over a label's clips minus `weight` times that over others, within speakers: [layer,
    neuron].

    Only speakers who have both count; where none has (few clips), or speakers are not known, it is over all clips.
    `scores` are [clip, layer, neuron], for instance `signed` of `attribution.grad_x_activation` of training clips,
    which finds the neurons that support the class in its own clips and not elsewhere; or [clip, unit], as returned by
    `support`. The greater the weight, the more other classes are spared.
    """
    has_label = (scores["label"] == label).values
    if not has_label.any() or has_label.all():
        labels = ", ".join(map(str, ordered(scores["label"].values)))
        raise ValueError(
            f"a contrast needs clips of {label!r} and of others: {int(has_label.sum())} of {len(has_label)} are of it, "
            f"and their labels are {labels}"
        )
    of_label = scores.isel(clip=np.flatnonzero(has_label))
    others = scores.isel(clip=np.flatnonzero(~has_label))

    difference = of_label.mean("clip") - weight * others.mean("clip")
    speakers = scores.attrs.get("selection_speakers", "[]")
    if results.speakers_known(scores):
        speakers = results.speaker_ids_json(scores)
        within = statistics.by_speaker(of_label) - weight * statistics.by_speaker(others)  # of those who have both
        if within.sizes["speaker"]:
            difference = within.mean("speaker")
    return difference.assign_attrs(selection_speakers=speakers)


def top(scores: xr.DataArray, concept: str, *, n: int = 3) -> xr.DataArray:
    """Score neurons that have a concept among their `n` best by how well it fits, others NaN: for `neurons_of`.

    `scores` […, concept] are those of `dissection.identify`, DB or TAB.
    """
    rank = (scores > scores.sel(concept=concept)).sum("concept")
    return scores.sel(concept=concept, drop=True).where(rank < n)


def count_mentions(texts: xr.DataArray, name: str) -> xr.DataArray:
    """Count the words of a class's name in each neuron's description (OCP), 0 as NaN: a score for `neurons_of`.

    `texts` [layer, neuron] or [unit] are strings, or None. Whole words are compared by their English stems: "train"
    does not contain "rain", and "a wave" matches "waves". Words of one or two letters do not count.

    Raises
    ------
    ValueError
        The name has no word of three letters or more.
    """
    stems = set(_stems(name))
    if not stems:
        raise ValueError(f"{name!r} has no word of three letters or more to look for")
    counts = np.zeros(texts.shape)
    for position, text in np.ndenumerate(texts.values):
        if isinstance(text, str):
            counts[position] = sum(stem in stems for stem in _stems(text))
    score = texts.copy(data=counts)
    return score.where(score > 0)


def neurons_of(scores: xr.DataArray, k: int, *, part: str = "ffn_hidden", seed: int = 0) -> dict:
    """Return the k neurons of the greatest scores, as {Site: neurons}; ties are broken at random.

    Parameters
    ----------
    scores : DataArray [layer, neuron] of a `part`, or [unit]
        Of the concept to forget, as returned by `contrast`, `greedy`, `top`, `count_mentions`, a concept's `score` of
        `dissection.identify`, its `mean` of `dissection.selectivity`; from training speakers, if effects are to be
        reported on others. Neurons with NaN are never selected: ValueError if fewer than k have a score.
    """
    require_whole_number("k", k, least=0)
    _require_scores_of_neurons(scores)
    if "unit" not in scores.dims:
        scores = scores.drop_vars([name for name in scores.coords if name not in scores.dims])
        scores = scores.expand_dims(part=[part]).stack(unit=("part", "layer", "neuron"))
    values = scores.values
    n_scored = np.isfinite(values).sum()
    if k > n_scored:
        raise ValueError(f"k must be 0 to {n_scored}, the number of neurons with a score, not {k}")

    descending = np.where(np.isnan(values), np.inf, -values)
    among_ties = np.random.default_rng(seed).permutation(len(values))
    order = np.lexsort((among_ties, descending))  # by the last key first
    units = scores["unit"].to_index().reorder_levels(["part", "layer", "neuron"])
    return plan(units[order[:k]])


def _require_scores_of_neurons(scores):
    """Raise ValueError unless scores are an array [layer, neuron] or [unit]."""
    if not isinstance(scores, xr.DataArray):
        raise ValueError(
            f"scores must be a DataArray [layer, neuron] or [unit], not a {type(scores).__name__}: of a Dataset take "
            'one variable, such as scores["signed"]'
        )
    if "clip" in scores.dims:
        raise ValueError(
            f"scores must be [layer, neuron] or [unit], not [{', '.join(scores.dims)}]: reduce over clips with "
            "pruning.contrast(scores, label)"
        )
    if set(scores.dims) not in ({"layer", "neuron"}, {"unit"}):
        raise ValueError(
            f"scores must be [layer, neuron] or [unit], not [{', '.join(map(str, scores.dims))}]: select along other "
            "dims, as in scores.sel(concept=…)"
        )


def output_norm(model: Model, magnitude: xr.DataArray) -> xr.DataArray:
    """Compute the output norm of each neuron: mean |activation|, of `ffn_hidden` × norm of its outgoing weights.

    It measures how much a neuron writes into the residual stream. The `magnitude` is that of `activations`:
    [layer, neuron] of `ffn_hidden`, or [unit].
    """
    require_model(model)
    if "unit" not in magnitude.dims:
        norms = np.stack([_outgoing_norms(model, int(layer)) for layer in magnitude["layer"]])
        return magnitude * magnitude.transpose("layer", "neuron").copy(data=norms)

    sizes = magnitude.copy()
    units = magnitude["unit"].to_index().to_frame(index=False)
    for layer, rows in units[units["part"] == "ffn_hidden"].groupby("layer"):
        positions = {"unit": rows.index.to_numpy()}
        norms = _outgoing_norms(model, layer)
        sizes[positions] = sizes[positions] * norms[rows["neuron"]]
    return sizes


def _outgoing_norms(model, layer) -> np.ndarray:
    """Compute the norm of the outgoing weights of each neuron of `ffn_hidden` of a layer, [neuron]."""
    weight = model.architecture.linear(Site(layer, "ffn_out")).weight
    return weight.detach().norm(dim=0).cpu().numpy()


def controls(
    neurons: dict, size: xr.DataArray | Model, draws: int, *, seed: int = 0, classes: int | None = None
) -> list[dict]:
    """Draw random neurons in place of the selected ones: as many in each site, of like size, [{Site: neurons}, …].

    `size` is as returned by `output_norm`; substitutes are drawn by `random_neurons.draw_substitutions`. It may be a
    Model instead: then they are any neurons of each site. The selected neurons may be among them. `classes` is the
    number of size classes, as in `random_neurons.size_classes`.
    """
    sets_by_site = {}
    for index, (site, selected) in enumerate(neurons.items()):
        if isinstance(size, xr.DataArray):
            # Seeded by the layer, or, for modules, by the index among the sites.
            key = [seed, site.layer if isinstance(site.layer, (int, np.integer)) else index]
            size_classes = random_neurons.size_classes(_of_site(size, site), classes)
            substitutions = random_neurons.draw_substitutions(size_classes, draws, seed=key)
            sets_by_site[site] = [np.sort(substitution[selected]) for substitution in substitutions]
        else:
            rng = np.random.default_rng([seed, index])  # seeded by the index among the sites
            width = size.n_neurons(site)
            sets_by_site[site] = [rng.choice(width, len(selected), replace=False) for _ in range(draws)]

    plans = []
    for draw in range(draws):
        plans.append({site: sets[draw] for site, sets in sets_by_site.items()})
    return plans


def target_blind(neurons: dict, magnitude: xr.DataArray, written: xr.DataArray) -> dict:
    """Select as many neurons in each site regardless of the class: {"most active": {Site: neurons}, "writes most": …}.

    These are the neurons of the greatest `magnitude`, and of the greatest `written`, as returned by `output_norm`.
    """
    return {"most active": _largest(neurons, magnitude), "writes most": _largest(neurons, written)}


def _largest(neurons, sizes) -> dict:
    """Select the neurons of the greatest `sizes`, {Site: neurons}, as many in each site as there are of `neurons`."""
    largest = {}
    for site, selected in neurons.items():
        order = np.argsort(-_of_site(sizes, site), kind="stable")
        largest[site] = np.sort(order[: len(selected)])
    return largest


def _of_site(sizes, site) -> np.ndarray:
    """Select the `sizes` [layer, neuron] or [unit] of one site, [neuron]."""
    if "unit" in sizes.dims:
        return sizes.sel(part=site.part, layer=site.layer).sortby("neuron").values
    return sizes.sel(layer=site.layer).values


def plan(units: Sequence[tuple]) -> dict:
    """Group units (part, layer, neuron) as {Site: neurons}."""
    by_site = {}
    for part, layer, neuron in units:
        by_site.setdefault(Site(layer, part), []).append(neuron)
    return {site: np.sort(np.array(by_site[site], int)) for site in sorted(by_site, key=_sort_key)}


def _sort_key(site) -> str:
    """Return the text by which sites are sorted; do not change it, since the index of a site seeds `controls`."""
    part = "block" if site.part == "hidden_state" else site.part  # as it was called when the seeds were fixed
    return f"Site(layer={site.layer!r}, part={part!r})"


def _stems(text) -> list[str]:
    """Return the stems of the words of three letters or more, by the English stemmer of Snowball (Porter 2)."""
    return [_stem(word) for word in re.findall(r"[^\W\d_]{3,}", text.lower())]


@lru_cache(maxsize=100_000)
def _stem(word) -> str:
    """Return the stem of a word in lower case."""
    return _STEMMER.stemWord(word)


def fill_speakers(clips: pd.DataFrame) -> pd.DataFrame:
    """Use as `speaker`, where it is not known, the recording that each clip was cut from, else the clip itself."""
    if "speaker" in clips:
        return clips
    return clips.assign(speaker=clips.get("recording", clips.index).astype(str))


def greedy(
    model: Model,
    clips: Any,
    label: str,
    k: int,
    sites: Sequence[Site],
    *,
    step: int = 10,
    weight: float = 4.0,
    recall: float | None = None,
    sample_rate: int | None = None,
) -> xr.DataArray:
    """Select neurons of a label `step` at a time, rescoring the pruned model each time: a score [unit].

    Each step selects by `contrast` of `support`: support of the label in its own clips, minus `weight` times that of
    other labels in theirs. The first selected scores k, the last 1, others NaN, so that `neurons_of` selects the first
    n for any dose n up to k. The selection stops when no more than the share `recall` of the label's clips are still
    classified correctly. Other neurons compensate for pruned ones, which scores of the unpruned model cannot show.

    Raises
    ------
    ValueError
        The unpruned model classifies no more than the share `recall` of the label's clips correctly; `k` or `step` is
        less than 1.
    """
    require_model(model)
    require_whole_number("k", k)
    require_whole_number("step", step)
    clips = as_clips(clips, sample_rate)
    score = None
    selected = {}
    for remaining in range(k, 0, -step):
        with prune(model, selected):
            supports = support(model, clips, sites)
        if recall is not None and supports["right"][supports["label"].values == label].mean() <= recall:
            break

        contrasts = contrast(supports, label, weight=weight)
        if score is None:
            score = xr.full_like(contrasts, np.nan)
        n_more = min(step, remaining)
        order = np.argsort(np.where(np.isnan(score), -contrasts, np.inf), kind="stable")
        score[order[:n_more]] = np.arange(remaining, remaining - n_more, -1)
        selected = neurons_of(score, k - remaining + n_more)
    if score is None:
        raise ValueError(f"without any pruning, recall of {label!r} is at most {recall:.0%}: pass a lower recall=")
    return score
