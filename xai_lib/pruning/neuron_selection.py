"""Selection of neurons to prune for a class: scores of all neurons, and the neurons of the greatest scores."""

import re
from functools import partial

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import hooks, results, statistics, targets
from ..activations import random_neurons
from ..corpora import as_clips
from ..models.sites import Site
from .weights import prune


def support(model, clips, sites, *, sample_rate=None) -> xr.DataArray:
    """Compute gradient × activation of each neuron for the log odds of the clip's true label: [clip, unit].

    It is summed over all frames. All sites of a clip come from one backward. The coordinate `right` is whether the clip
    is classified correctly.
    """
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    sites, skipped, rows, right, hidden_states = [model.check(site) for site in sites], {}, {}, [], {}

    def record(site, hidden):  # no gradient is needed below the first site that a forward reaches
        hidden_states[site] = hidden if hidden.requires_grad else hidden.detach().requires_grad_().clone()
        return hidden_states[site]

    for index, waveform in model.stream(clips, skipped):
        with torch.enable_grad(), hooks.edit(model, {site: partial(record, site) for site in sites}):
            true_class = (model.target(clips.loc[index, "label"]),)
            logits = model.logits(model.tensor(waveform))
            value = targets.value(model, logits, true_class, "log_odds").sum()
            gradients = torch.autograd.grad(value, [hidden_states[site] for site in sites])
        right.append(int(logits.argmax()) == true_class[0])
        scores = [(gradient * hidden_states[site].detach()).sum(dim=(0, 1)) for gradient, site in zip(gradients, sites)]
        rows[index] = torch.cat(scores).cpu().numpy()
    neurons = [(site.part, site.layer, neuron) for site in sites for neuron in range(hidden_states[site].shape[-1])]
    units = pd.MultiIndex.from_tuples(neurons, names=["part", "layer", "neuron"])
    coords = {**results.coordinates(clips, rows, right=right), **xr.Coordinates.from_pandas_multiindex(units, "unit")}
    attrs = results.attributes(model, skipped, method="support", selection_speakers=results.speaker_ids_json(clips))
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "unit"), attrs=attrs)


def contrast(scores, label, *, weight=1.0) -> xr.DataArray:
    """Compute the mean score over a label's clips minus `weight` times that over others, within speakers: [layer,
    neuron].

    Only speakers who have both count; where none has (few clips), or speakers are not known, it is over all clips.
    `scores` are [clip, layer, neuron], for instance `signed` of `attribution.grad_x_activation` of training clips,
    which finds the neurons that support the class in its own clips and not elsewhere; or [clip, unit], as returned by
    `support`. The greater the weight, the more other classes are spared.
    """
    has_label = (scores["label"] == label).values
    if not has_label.any() or has_label.all():
        raise ValueError(
            f"a contrast needs clips of {label!r} and of others: {int(has_label.sum())} of {len(has_label)} are of it"
        )
    of_label, others = (scores.isel(clip=np.flatnonzero(selected)) for selected in (has_label, ~has_label))
    difference, speakers = (
        of_label.mean("clip") - weight * others.mean("clip"),
        scores.attrs.get("selection_speakers", "[]"),
    )
    if results.speakers_known(scores):
        within = statistics.by_speaker(of_label) - weight * statistics.by_speaker(others)
        difference, speakers = (
            within.mean("speaker") if within.sizes["speaker"] else difference,
            results.speaker_ids_json(scores),
        )
    return difference.assign_attrs(selection_speakers=speakers)


def top(scores, concept, *, n=3) -> xr.DataArray:
    """Score neurons that have a concept among their `n` best by how well it fits, others NaN: for `neurons_of`.

    `scores` […, concept] are those of `dissection.identify`, DB or TAB.
    """
    rank = (scores > scores.sel(concept=concept)).sum("concept")
    return scores.sel(concept=concept, drop=True).where(rank < n)


def count_mentions(texts, name) -> xr.DataArray:
    """Count the words of a class's name in each neuron's description (OCP), 0 as NaN: a score for `neurons_of`.

    `texts` [layer, neuron] or [unit] are strings, or None. Whole words are compared, without their endings (-s, -ing,
    -ed): "train" does not contain "rain", and "a wave" matches "waves". Words of one or two letters do not count.

    Raises
    ------
    ValueError
        The name has no word of three letters or more.
    """
    stems = set(_stems(name))
    if not stems:
        raise ValueError(f"{name!r} has no word of three letters or more to look for")
    counts = [sum(stem in stems for stem in _stems(text)) if isinstance(text, str) else 0 for text in texts.values.flat]
    score = texts.copy(data=np.reshape(counts, texts.shape).astype(float))
    return score.where(score > 0)


def neurons_of(scores, k, *, part="ffn_hidden", seed=0) -> dict:
    """Return the k neurons of the greatest scores, as {Site: neurons}; ties are broken at random.

    Parameters
    ----------
    scores : DataArray [layer, neuron] of a `part`, or [unit]
        Of the concept to forget, as returned by `contrast`, `greedy`, `top`, `count_mentions`, a concept's `score` of
        `dissection.identify`, its `mean` of `dissection.selectivity`; from training speakers, if effects are to be
        reported on others. Neurons with NaN are never selected: ValueError if fewer than k have a score.
    """
    if "unit" not in scores.dims:
        scores = scores.drop_vars([name for name in scores.coords if name not in scores.dims])
        scores = scores.expand_dims(part=[part]).stack(unit=("part", "layer", "neuron"))
    values = scores.values
    if not 0 <= k <= np.isfinite(values).sum():
        raise ValueError(f"k must be 0 to {np.isfinite(values).sum()}, the number of neurons with a score, not {k}")
    order = np.lexsort(
        (np.random.default_rng(seed).permutation(len(values)), np.where(np.isnan(values), np.inf, -values))
    )
    units = scores["unit"].to_index().reorder_levels(["part", "layer", "neuron"])
    return plan(units[order[:k]])


def output_norm(model, magnitude) -> xr.DataArray:
    """Compute the output norm of each neuron: mean |activation|, of `ffn_hidden` × norm of its outgoing weights.

    It measures how much a neuron writes into the residual stream. The `magnitude` is that of `activations`:
    [layer, neuron] of `ffn_hidden`, or [unit].
    """
    if "unit" not in magnitude.dims:
        weights = [model.architecture.linear(Site(int(layer), "ffn_out")).weight for layer in magnitude["layer"]]
        norms = np.stack([weight.detach().norm(dim=0).cpu().numpy() for weight in weights])
        return magnitude * magnitude.transpose("layer", "neuron").copy(data=norms)
    sizes = magnitude.copy()
    for (part, layer), rows in (
        magnitude["unit"].to_index().to_frame(index=False).groupby(["part", "layer"]).groups.items()
    ):
        if part == "ffn_hidden":
            norm = model.architecture.linear(Site(layer, "ffn_out")).weight.detach().norm(dim=0).cpu().numpy()
            sizes[{"unit": rows}] = sizes[{"unit": rows}] * norm[magnitude["neuron"].values[rows]]
    return sizes


def controls(neurons, size, draws, *, seed=0, classes=None) -> list[dict]:
    """Draw random neurons in place of the selected ones: as many in each site, of like size, [{Site: neurons}, …].

    `size` is as returned by `output_norm`; substitutes are drawn by `random_neurons.draw_substitutions`. It may be a
    Model instead: then they are any neurons of each site. The selected neurons may be among them. `classes` is the
    number of size classes, as in `random_neurons.size_classes`.
    """
    sets = {}
    for index, (site, selected) in enumerate(neurons.items()):
        if isinstance(size, xr.DataArray):
            numbers = random_neurons.size_classes(_of_site(size, site), classes)
            # Seeded by the layer, or, for modules, by the index among the sites.
            key = [seed, site.layer if isinstance(site.layer, (int, np.integer)) else index]
            sets[site] = [
                np.sort(stand_in[selected]) for stand_in in random_neurons.draw_substitutions(numbers, draws, seed=key)
            ]
        else:
            # Seeded by the index among the sites.
            rng, width = np.random.default_rng([seed, index]), size.n_neurons(site)
            sets[site] = [rng.choice(width, len(selected), replace=False) for _ in range(draws)]
    return [{site: sets_of_site[draw] for site, sets_of_site in sets.items()} for draw in range(draws)]


def target_blind(neurons, magnitude, written) -> dict:
    """Select as many neurons in each site regardless of the class: {"most active": {Site: neurons}, "writes most": …}.

    These are the neurons of the greatest `magnitude`, and of the greatest `written`, as returned by `output_norm`.
    """
    ranked = {"most active": magnitude, "writes most": written}
    return {
        name: {
            site: np.sort(np.argsort(-_of_site(sizes, site), kind="stable")[: len(selected)])
            for site, selected in neurons.items()
        }
        for name, sizes in ranked.items()
    }


def _of_site(sizes, site) -> np.ndarray:
    """Select the `sizes` [layer, neuron] or [unit] of one site, [neuron]."""
    if "unit" in sizes.dims:
        return sizes.sel(part=site.part, layer=site.layer).sortby("neuron").values
    return sizes.sel(layer=site.layer).values


def plan(units):
    """Group units (part, layer, neuron) as {Site: neurons}."""
    by_site = {}
    for part, layer, neuron in units:
        by_site.setdefault(Site(layer, part), []).append(neuron)
    return {Site(*site): np.sort(np.array(by_site[site], int)) for site in sorted(by_site, key=_sort_key)}


def _sort_key(site) -> str:
    """Return the text by which sites are sorted; do not change it, since the index of a site seeds `controls`."""
    part = "block" if site.part == "hidden_state" else site.part  # as it was called when the seeds were fixed
    return f"Site(layer={site.layer!r}, part={part!r})"


def _stems(text):
    """Return the words of three letters or more, in lower case, without the endings of plural and verb."""
    return [_stem(word) for word in re.findall(r"[^\W\d_]{3,}", text.lower())]


def _stem(word):
    for ending in ("ing", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and re.search("[aeiouy]", stem) and not (ending == "s" and stem[-1] in "su"):
            word = stem
            break
    word = re.sub(r"([bdgklmnprtz])\1$", r"\1", word)  # dripping, drip
    return re.sub("(?<=..)(e|i|y)$", "", word) if len(word) > 2 else word


def fill_speakers(clips):
    """Use as `speaker`, where it is not known, the recording that each clip was cut from, else the clip itself."""
    return clips if "speaker" in clips else clips.assign(speaker=clips.get("recording", clips.index).astype(str))


def greedy(model, clips, label, k, sites, *, step=10, weight=4.0, recall=None, sample_rate=None) -> xr.DataArray:
    """Select neurons of a label `step` at a time, rescoring the pruned model each time: a score [unit].

    Each step selects by `contrast` of `support`: support of the label in its own clips, minus `weight` times that of
    other labels in theirs. The first selected scores k, the last 1, others NaN, so that `neurons_of` selects the first
    n for any dose n up to k. The selection stops when no more than the share `recall` of the label's clips are still
    classified correctly. Other neurons compensate for pruned ones, which scores of the unpruned model cannot show.

    Raises
    ------
    ValueError
        The unpruned model classifies no more than the share `recall` of the label's clips correctly.
    """
    clips = as_clips(clips, sample_rate)
    score, selected = None, {}
    for remaining in range(k, 0, -step):
        with prune(model, selected):
            scores = support(model, clips, sites)
        if recall is not None and scores["right"][scores["label"].values == label].mean() <= recall:
            break
        scores = contrast(scores, label, weight=weight)
        score = xr.full_like(scores, np.nan) if score is None else score
        order = np.argsort(np.where(np.isnan(score), -scores, np.inf), kind="stable")
        score[order[: min(step, remaining)]] = np.arange(remaining, max(remaining - step, 0), -1)
        selected = neurons_of(score, k - max(remaining - step, 0))
    if score is None:
        raise ValueError(f"without any pruning, recall of {label!r} is at most {recall:.0%}: pass a lower recall=")
    return score
