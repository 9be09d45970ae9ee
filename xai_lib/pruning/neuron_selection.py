"""Which neurons to take out for a class: scores of every neuron, and neurons of a score."""

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
    """What each neuron adds to the log odds of its clip's own label: gradient × activation over all frames, [clip, unit].

    All sites of a clip come from one backward. The coordinate `right` tells whether the clip is given its label.
    """
    clips = as_clips(clips, sample_rate)
    model.require_trained()
    sites, skipped, rows, right, seen = [model.check(site) for site in sites], {}, {}, [], {}

    def watch(site, hidden):  # no gradient is needed below the first site that a forward comes to
        seen[site] = hidden if hidden.requires_grad else hidden.detach().requires_grad_().clone()
        return seen[site]

    for index, waveform in model.stream(clips, skipped):
        with torch.enable_grad(), hooks.edit(model, {site: partial(watch, site) for site in sites}):
            own = (model.target(clips.loc[index, "label"]),)
            logits = model.logits(model.tensor(waveform))
            value = targets.value(model, logits, own, "log_odds").sum()
            slopes = torch.autograd.grad(value, [seen[site] for site in sites])
        right.append(int(logits.argmax()) == own[0])
        found = [(slope * seen[site].detach()).sum(dim=(0, 1)) for slope, site in zip(slopes, sites)]
        rows[index] = torch.cat(found).cpu().numpy()
    places = [(site.part, site.layer, neuron) for site in sites for neuron in range(seen[site].shape[-1])]
    units = pd.MultiIndex.from_tuples(places, names=["part", "layer", "neuron"])
    coords = {**results.coordinates(clips, rows, right=right), **xr.Coordinates.from_pandas_multiindex(units, "unit")}
    attrs = results.attributes(model, skipped, method="support", chosen_on=results.heard(clips))
    return xr.DataArray(np.stack(list(rows.values())), coords, ("clip", "unit"), attrs=attrs)


def contrast(scores, label, *, weight=1.0) -> xr.DataArray:
    """Mean over the clips of a label less `weight` times that over the others, within speakers who have both: [layer, neuron].

    Where no speaker has both (few clips), or speakers are not known, it is over all clips. `scores` are [clip, layer,
    neuron], for instance `signed` of `attribution.grad_x_activation` of training clips: which neurons carry the class
    in its own clips and not elsewhere; or [clip, unit], of `support`. The greater the weight, the more others are spared.
    """
    own = (scores["label"] == label).values
    if not own.any() or own.all():
        raise ValueError(f"a contrast needs clips of {label!r} and clips of others: {int(own.sum())} of {len(own)}")
    mine, others = (scores.isel(clip=np.flatnonzero(chosen)) for chosen in (own, ~own))
    found, heard = mine.mean("clip") - weight * others.mean("clip"), scores.attrs.get("chosen_on", "[]")
    if results.speakers_known(scores):
        within = statistics.by_speaker(mine) - weight * statistics.by_speaker(others)
        found, heard = within.mean("speaker") if within.sizes["speaker"] else found, results.heard(scores)
    return found.assign_attrs(chosen_on=heard)


def top(scores, concept, *, n=3) -> xr.DataArray:
    """Neurons that have a concept among their `n` best, by how well it fits: a score for `neurons_of`, else NaN.

    `scores` […, concept] are those of `dissection.identify`, DB or TAB.
    """
    place = (scores > scores.sel(concept=concept)).sum("concept")
    return scores.sel(concept=concept, drop=True).where(place < n)


def mentions(texts, name) -> xr.DataArray:
    """How often a neuron's description says a word of a class's name (OCP): a score for `neurons_of`, else NaN.

    `texts` [layer, neuron] or [unit] are strings, or None. Words are compared whole, with their endings (-s, -ing, -ed)
    taken off: "rain" is no part of "train", and "waves" are said by "a wave". Words of one or two letters do not count.
    """
    wanted = set(_stems(name))
    if not wanted:
        raise ValueError(f"{name!r} has no word of three letters or more to look for")
    said = [sum(stem in wanted for stem in _stems(text)) if isinstance(text, str) else 0 for text in texts.values.flat]
    found = texts.copy(data=np.reshape(said, texts.shape).astype(float))
    return found.where(found > 0)


def neurons_of(scores, k, *, part="ffn_hidden", seed=0) -> dict:
    """The k neurons of the greatest scores, as {Site: neurons}; ties are broken at random.

    Parameters
    ----------
    scores : DataArray [layer, neuron] of a `part`, or [unit]
        Of the concept to forget: `contrast`, `greedy`, `top`, `mentions`, a concept's `score` of `dissection.identify`,
        its `mean` of `dissection.selectivity`; from training speakers, if effects are to be reported on others. NaN are
        never taken: ValueError where fewer than k are left.
    """
    if "unit" not in scores.dims:
        scores = scores.drop_vars([name for name in scores.coords if name not in scores.dims])
        scores = scores.expand_dims(part=[part]).stack(unit=("part", "layer", "neuron"))
    values = scores.values
    if not 0 <= k <= np.isfinite(values).sum():
        raise ValueError(f"{k} neurons are asked for, and {np.isfinite(values).sum()} have a score")
    order = np.lexsort(
        (np.random.default_rng(seed).permutation(len(values)), np.where(np.isnan(values), np.inf, -values))
    )
    units = scores["unit"].to_index().reorder_levels(["part", "layer", "neuron"])
    return plan(units[order[:k]])


def reach(model, magnitude) -> xr.DataArray:
    """How much each neuron writes into the stream: mean |activation|, and of `ffn_hidden` × norm of its outgoing weights.

    The `magnitude` is that of `activations`: [layer, neuron] of `ffn_hidden`, or [unit].
    """
    if "unit" not in magnitude.dims:
        weights = [model.family.linear(Site(int(layer), "ffn_out")).weight for layer in magnitude["layer"]]
        norms = np.stack([weight.detach().norm(dim=0).cpu().numpy() for weight in weights])
        return magnitude * magnitude.transpose("layer", "neuron").copy(data=norms)
    sizes = magnitude.copy()
    for (part, layer), rows in (
        magnitude["unit"].to_index().to_frame(index=False).groupby(["part", "layer"]).groups.items()
    ):
        if part == "ffn_hidden":
            norm = model.family.linear(Site(layer, "ffn_out")).weight.detach().norm(dim=0).cpu().numpy()
            sizes[{"unit": rows}] = sizes[{"unit": rows}] * norm[magnitude["neuron"].values[rows]]
    return sizes


def controls(neurons, size, draws, *, seed=0, classes=None) -> list[dict]:
    """Random neurons in place of the chosen: as many in each site, of like size (`reach`), by `nulls.substitutes`.

    `size` may be a Model instead: then they are any neurons of each site. The chosen may be among them. `classes` is
    how many classes of size there are, `nulls.size_classes`.
    """
    sets = {}
    for place, (site, chosen) in enumerate(neurons.items()):
        if isinstance(size, xr.DataArray):
            numbers = random_neurons.size_classes(_at(size, site), classes)
            # Seeded by the layer, or, for modules, by the place among the sites.
            key = [seed, site.layer if isinstance(site.layer, (int, np.integer)) else place]
            sets[site] = [
                np.sort(stand_in[chosen]) for stand_in in random_neurons.substitutes(numbers, draws, seed=key)
            ]
        else:
            # Seeded by the place among the sites.
            rng, width = np.random.default_rng([seed, place]), size.n_neurons(site)
            sets[site] = [rng.choice(width, len(chosen), replace=False) for _ in range(draws)]
    return [{site: found[draw] for site, found in sets.items()} for draw in range(draws)]


def blind(neurons, magnitude, written) -> dict:
    """What a choice blind to the class takes out: as many in each site, {"most active": {Site: neurons}, "writes most": …}.

    Of the greatest `magnitude`, and of those that write most into the stream, `written` of `reach`.
    """
    ranked = {"most active": magnitude, "writes most": written}
    return {
        name: {
            site: np.sort(np.argsort(-_at(sizes, site), kind="stable")[: len(chosen)])
            for site, chosen in neurons.items()
        }
        for name, sizes in ranked.items()
    }


def _at(sizes, site) -> np.ndarray:
    """Those of `sizes` [layer, neuron] or [unit] that are of one site, [neuron]."""
    if "unit" in sizes.dims:
        return sizes.sel(part=site.part, layer=site.layer).sortby("neuron").values
    return sizes.sel(layer=site.layer).values


def plan(units):
    """{Site: neurons} of units (part, layer, neuron)."""
    found = {}
    for part, layer, neuron in units:
        found.setdefault(Site(layer, part), []).append(neuron)
    return {Site(*site): np.sort(np.array(found[site], int)) for site in sorted(found, key=_text)}


def _text(site) -> str:
    """Text by which sites are put in order, never changed: the place of a site seeds its random sets (`controls`)."""
    return f"Site(layer={site.layer!r}, part={site.part!r})"


def _stems(text):
    """Words of three letters or more, lower case, without the endings of plural and verb."""
    return [_stem(word) for word in re.findall(r"[^\W\d_]{3,}", text.lower())]


def _stem(word):
    for ending in ("ing", "ed", "es", "s"):
        stem = word.removesuffix(ending)
        if stem != word and len(stem) > 2 and re.search("[aeiouy]", stem) and not (ending == "s" and stem[-1] in "su"):
            word = stem
            break
    word = re.sub(r"([bdgklmnprtz])\1$", r"\1", word)  # dripping, drip
    return re.sub("(?<=..)(e|i|y)$", "", word) if len(word) > 2 else word


def with_units(clips):
    """Clips of no known speaker are told apart by the recording that they were cut from, else one by one."""
    return clips if "speaker" in clips else clips.assign(speaker=clips.get("source", clips.index).astype(str))


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
