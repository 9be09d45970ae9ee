"""Turn neurons over, or silence them, in one layer after another: what do later layers and the decision make of it?

The edit runs through the rest of the network, and everything is read where it can change. Beside the
chosen neurons go random ones of about their size, the null, and choices blind to the target.
"""

import json
import warnings
from itertools import product

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import attribution, edits, execution, hooks, results, targets
from ..activations import check_moments
from ..activations import donors as donors_
from ..activations import random_neurons as nulls_
from ..corpora import as_clips, identity
from ..probing import acoustic_decoders as decoders_
from ..probing import activation_proxies as proxies_
from ..probing import speaker_space as speakers_
from . import readouts


def groups(model, names=("early", "middle", "late")) -> dict:
    """{name: layers}: the layers 0 to L, as evenly as can be, in as many groups as there are names."""
    parts = np.array_split(np.arange(model.n_layers + 1), len(names))
    return {f"{name} {part[0]}–{part[-1]}": part.tolist() for name, part in zip(names, parts)}


def sweep(
    model,
    clips,
    *,
    neurons,
    k=20,
    modes=("flip",),
    layers="all",
    part="block",
    frames="all",
    window=0,
    n_peaks=5,
    nulls=40,
    null_modes="all",
    size_classes=None,
    directions=0,
    blind=True,
    target="predicted",
    moments=None,
    match=None,
    donors=None,
    proxies=None,
    decoders=None,
    speakers=None,
    scale=1.0,
    seed=0,
    batch=None,
    sample_rate=None,
) -> xr.Dataset:
    """Edit chosen neurons, one layer at a time, and random ones of their size, and read what follows.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of other speakers than those on whom neurons were chosen and decoders fitted; else it
        warns.
    neurons : Dataset or dict
        Scores of any method of `attribution`, of which the `k` greatest of each layer are taken; or {layer: neurons};
        or several of these by name, {"angry": scores, "sad": scores}, which adds the dim `chosen`.
    k : int or sequence of int
        How many of the scores; several add the dim `k`.
    modes : sequence of str
        Of `edits.MODES`.
    layers : "all", sequence of int, or dict
        Of those in `neurons`. Groups by name, {"early": [0, 1, 2], ...} as of `groups`, are edited jointly, and the dim
        is `group`.
    part, frames, window, n_peaks, scale
        As in `edits.edit`; `scale` is that of the noise. For frames between two moments, `model.between(0.5, 1.0)`; for
        attention heads the part "heads" and `model.head_neurons`.
    nulls : int
        Random sets per layer, the same for all clips and modes (`nulls.sets`): in the place of each selected neuron any
        neuron of about its size, by root mean square activation, which is the size of a flip. In a group a neuron that
        is selected in several layers has the same one in its place in all. The smallest p is 1 / (1 + nulls): 40 make
        0.024, 100 make 0.01.
    null_modes : "all" or sequence of str
        The modes in which random sets, directions and target-blind selections are edited too; NaN in the others.
    size_classes : int, optional
        In how many classes of size the neurons of a layer are put, of which random ones are drawn
        (`nulls.size_classes`); 1 for any neuron of the layer.
    directions : int
        So many sets of as many random directions (`edits.directions`) beside the neurons.
    blind : bool
        Beside them, where there are moments and random sets, as many neurons that a choice blind to the target names:
        the most active, and those that write most into the residual stream (`nulls.blind`).
    target : str, int, pair, or dict
        A class, a contrast of two, or "predicted"; of several `neurons`, each one's by name.
    moments : Dataset, optional
        Of `moments` on training clips, for the same part: needed for nulls and for the modes "mean" and "noise".
    match : Dataset, optional
        Of `moments` on clips like those that are edited, such as the target's in training, to match by; else `moments`.
    donors : DataFrame, optional
        A clip for each clip, for "resample" (`donors.drawn`) and "patch" (`donors.minimal_pairs`).
    proxies, decoders, speakers : Dataset, optional
        Of `proxies.fit` (next to blind where blocks end in a layer norm), `decoders.fit`, `speakers.fit` on training
        clips; what is not given is not read.
    batch : int, optional
        Edited copies that share a forward (`execution.cascade_read`, equal to one hooked forward per edit).

    Returns
    -------
    Dataset
        [clip, (chosen), layer, mode, (k), ...], for the random sets the same with the prefix `null_` and the dim
        `null`, for directions with the prefix `direction_`, for the target-blind selections with `blind_`:

        ``delta``, log-odds of the target, edited minus clean (nats); ``log_odds`` [..., label], the same of every
        class; ``logits``, ``probability`` [..., label]; ``kl``, divergence of the edited from the clean probabilities
        (nats); ``changed``, whether another label wins; ``correct``, whether the clip's own does (NaN where the model
        does not know it).

        At later blocks, [..., later]: ``spread``, ‖h′ − h‖ / ‖h‖, for a block edit that of the edited layer too, which
        is the size of the edit; ``felt``, the share of frames in which that exceeds 10 %; ``proxy_value``,
        ``proxy_change``, relative, and ``proxy_sd``, in standard deviations between training clips, [..., proxy];
        ``decoded`` and ``decoded_change`` [..., feature], in the feature's unit, and, where the residual stream passes
        through the layers, the parts of that change: ``decoded_carried``, what is read of the stream's change after the
        edited layer, the last of a group (there it holds what attention and feed-forward up to it made of the edits
        before them), and ``decoded_computed``, what the layers above made of it; ``similarity``, cosine of the edited
        and the clean clip's speaker embedding. NaN below the edit, and but for the first two at the edited block.

        The clip's own label is in the coordinate ``emotion``. Of the clean clip: ``clean_logits``,
        ``clean_probability``, ``clean_correct``, ``clean_proxy_value``, ``clean_decoded``; of donors:
        ``donor_logits`` and the coordinate ``donor_label``. Of the sets: ``magnitude`` and ``null_magnitude``, root
        mean square, how well they are matched; ``null_sets``, how many different random sets there are, and
        ``null_overlap``, the share of neurons that two of those drawn have in common. attrs["neurons"]: the chosen ones,
        as JSON.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; unknown layers, neurons, modes, frames or target; `moments` or `donors` are needed and missing;
        no clip could be used.
    """
    named, ks, modes = _named(neurons), np.atleast_1d(k).tolist(), np.atleast_1d(modes).tolist()
    if not hasattr(model, "family") or hasattr(clips, "family"):
        raise ValueError("sweep takes a model of models.load and a table (DataFrame) of clips, in this order")
    targets.require_one_label(model)
    clips = as_clips(clips, sample_rate)
    edits.check_frames(frames)
    if not ks or not all(isinstance(k, int) and k > 0 for k in ks) or min(nulls, directions) < 0:
        raise ValueError("k are whole numbers from 1 up, nulls and directions from 0 up")
    if size_classes is not None and size_classes < 1:
        raise ValueError(f"size_classes is a whole number from 1 up, not {size_classes}")
    null_modes = modes if isinstance(null_modes, str) and null_modes == "all" else np.atleast_1d(null_modes).tolist()
    if not set(null_modes) <= set(modes):
        raise ValueError(f"null_modes are {', '.join(null_modes)}, and the modes are {', '.join(modes)}")
    for name, some in {"k": ks, "modes": modes}.items():
        if len(set(some)) < len(some):
            raise ValueError(f"{name} holds one twice: {', '.join(map(str, some))}")
    space = None if callable(speakers) else speakers
    given = [("moments", "std", moments), ("moments", "std", match), ("proxies.fit", "component", proxies)]
    for by, name, one in [*given, ("decoders.fit", "weight", decoders), ("speakers.fit", "projection", space)]:
        speakers_.dataset(one, by)
        if one is not None and name not in one:
            raise ValueError(f"what {by}(model, clips) gives is needed, and this Dataset has no {name!r}")
    if donors is not None and not (
        isinstance(donors, pd.DataFrame) and "label" in donors and {"path", "audio"} & {*donors}
    ):
        raise ValueError("donors are a table (DataFrame) with path and label, as of donors.drawn(clips, pool)")
    _warn_of_heard(clips, [*named.values(), moments, match, proxies, decoders, space])
    if isinstance(target, dict) and set(target) != set(named):
        raise ValueError(f"target names {', '.join(target)}, and neurons {', '.join(named) or 'none'}: name the same")
    aims = {name: target[name] if isinstance(target, dict) else target for name in named}
    for aim in aims.values():
        targets.check(model, aim)
    joint = isinstance(layers, dict)
    wanted = sorted({layer for members in layers.values() for layer in members}) if joint else layers
    for one in named.values():
        nulls_.check(model, one, ks, wanted, part)
    chosen = {name: attribution.chosen(model, one, ks, wanted, part) for name, one in named.items()}
    there = sorted(set.intersection(*({layer for layer, _ in one} for one in chosen.values())))
    places = {name: sorted(members) for name, members in layers.items()} if joint else {at: [at] for at in there}
    needing = nulls or {"mean", "noise"} & set(modes)
    check_moments(moments, model, part, needing and "a sweep with mean, noise or nulls (set nulls=0 for none)")
    donors_.check(donors, clips, modes)
    sites = [hooks.Site(layer, part) for layer in there]
    known, width = edits.given(sites, moments), model.family.width(part)
    random = {"nulls": nulls, "directions": directions, "seed": seed, "classes": size_classes}
    sizes = moments if match is None else match
    check_moments(sizes, model, part)
    sizes = nulls_.rms(sizes)
    choices = [*product(named, places, ks)]
    sets = [{at: chosen[name][at, k] for at in places[place]} for name, place, k in choices]
    sets = {choice: nulls_.sets(width, sizes, own, **random) for choice, own in zip(choices, sets)}
    blind_ranking = nulls_.blind(moments, width) if blind and nulls else {}
    for (name, place, many), some in sets.items():
        for ranked in blind_ranking.values():
            some.append([np.sort(ranked[at][: len(chosen[name][at, many])]) for at in places[place]])
    shape = {"chosen": len(named), "layer": len(places), "mode": len(modes), "k": len(ks)}
    shape["null"] = 1 + nulls + directions + len(blind_ranking)
    grid = [*product(named, places, modes, ks, range(shape["null"]))]
    is_run = np.array([i == 0 or mode in null_modes for _, _, mode, _, i in grid])
    conditions = [condition for condition, run in zip(grid, is_run) if run]
    ends = [places[place][-1] for _, place, *_ in conditions]
    columns = {} if proxies is None else {"proxy_value": ("proxy", proxies["proxy"].values)}
    columns |= {} if decoders is None else {"decoded": ("feature", decoders["feature"].values)}
    columns |= {} if speakers is None else {"similarity": (None, [0])}
    carries = decoders is not None and model.family.norms(1) is None
    columns |= {"decoded_carried": ("feature", decoders["feature"].values)} if carries else {}
    fixed = {} if proxies is None else proxies_.readers(model, proxies)
    rows, about, skipped = {}, [], {}
    for index, waveform, speech, values, donor in donors_.usable(model, clips, frames, skipped, donors, sites):
        options = {"frames": frames, "window": window, "n_peaks": n_peaks, "speech": speech, "scale": scale}
        key = targets.key(seed, index, targets.SEED_NOISE)
        # Noise is seeded by the layer and by i, the place among the chosen (0), random sets, directions and blind ones.
        plan = [
            {
                (at := hooks.Site(layer, part)): edits.edit(
                    own, mode, **options, **known[at], values=values.get(at), seed=(*key, layer, i)
                )
                for layer, own in zip(places[place], sets[name, place, k][i])
            }
            for name, place, mode, k, i in conditions
        ]
        voice = None if decoders is None else decoders_.readers(model, decoders, waveform)
        every = [readers for readers in (fixed, voice) if readers]
        every += [] if speakers is None else [_similar(model, speakers_.readers(model, speakers, waveform))]
        readers, carried = readouts.readers(model.sites(), every, clean := {}), {}
        if carries:
            plan = readouts.noted(plan, ends, clean, decoders_.carried(voice, clean), carried)
        logits, seen = execution.cascade_read(model, waveform, plan, readers, batch=batch)
        logits, parts = logits.double(), logits[1:].double().chunk(len(named))
        classes = [targets.resolve(model, aim, logits[:1]) for aim in aims.values()]
        odds = [targets.value(model, torch.cat([logits[:1], x]), one, "log_odds") for x, one in zip(parts, classes)]
        found = logits, torch.cat([x[1:] - x[0] for x in odds]), readouts.stacked(seen, carried)
        rows[index] = readouts.spaced([x.cpu().double().numpy() for x in found], is_run)
        about.append(([targets.name(model, one) for one in classes], None if donor is None else donor.cpu().numpy()))
    coords = results.coordinates(clips, rows)
    own = coords.pop("label", ("clip", np.full(len(rows), None)))[1]  # `label` is a dim: the model's
    numbers = np.array([model.labels.index(name) if name in model.labels else -1 for name in own])
    sd = None if proxies is None else proxies["sd"].values
    every = readouts.table(*map(np.stack, zip(*rows.values())), columns, own=numbers, sd=sd, shape=shape)
    coords |= {"emotion": ("clip", own), "target": (("clip", "chosen"), [names for names, _ in about])}
    coords |= {dim: list(names) for dim, names in columns.values() if dim}
    every = every.assign_coords(**coords, chosen=list(named), layer=list(places), mode=list(modes), k=ks)
    coords = {} if decoders is None else {"unit": ("feature", decoders["unit"].values)}
    every = every.assign_coords(label=model.labels, later=range(model.n_layers + 1), **coords)
    if donors is not None:
        every["donor_logits"] = ("clip", "label"), [logits for _, logits in about]
        every = every.assign_coords(donor_label=("clip", donors["label"][list(rows)].to_numpy(object)))
    every = readouts.masked(every, places, part)
    if sizes is not None:
        size = [nulls_.size(sizes, places[choice[1]], sets[choice]) for choice in choices]
        shared = [nulls_.mean_overlap(sets[choice][1 : 1 + nulls]) for choice in choices]
        there = [nulls_.distinct_sets(sizes, dict(zip(places[choice[1]], sets[choice][0])), size_classes)
                 for choice in choices]  # fmt: skip
        dims, counts = ("chosen", "layer", "k"), (len(named), len(places), len(ks))
        every["magnitude"] = (*dims, "null"), np.reshape(size, (*counts, -1))
        every["null_overlap"] = dims, np.reshape(shared, counts)
        every["null_sets"] = dims, np.reshape(there, counts)
    every = readouts.split(every, nulls, directions, [*blind_ranking]).rename({"layer": "group"} if joint else {})
    every = every if named is neurons else every.isel(chosen=0, drop=True)
    every = every if np.ndim(k) else every.isel(k=0, drop=True)
    frames = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    options = {"part": part, "frames": frames, "window": window, "seed": seed}
    options["size_classes"] = size_classes or "by width"
    options["neurons"] = json.dumps(_listed(chosen, ks, named is neurons, np.ndim(k)))
    return every.assign_attrs(results.attributes(model, skipped, method="ablation", **options))


def _named(neurons) -> dict:
    """{name: scores or {layer: neurons}}; one of them under the name ""."""
    if not isinstance(neurons, (dict, xr.Dataset)):
        raise ValueError("neurons are scores (a Dataset), {layer: neurons}, or several of these by name")
    several = isinstance(neurons, dict) and neurons and all(isinstance(x, (dict, xr.Dataset)) for x in neurons.values())
    return neurons if several else {"": neurons}


def _warn_of_heard(clips, fitted):
    """Warn where clips are of speakers on whom neurons were chosen, or something was fitted, as far as that is known."""
    fitted = [one for one in fitted if isinstance(one, xr.Dataset)]
    heard = {str(name) for one in fitted if "speaker" in one.coords for name in one["speaker"].values.ravel()}
    heard |= {name for one in fitted for name in json.loads(one.attrs.get("speakers", "[]"))}
    heard = {identity.compared(name) for name in heard}
    theirs = clips["speaker"].dropna().unique() if "speaker" in clips else []
    both = sorted(str(name) for name in theirs if identity.compared(name) in heard)
    if both:
        what = "neurons were chosen, or decoders or a space fitted, on them"
        warnings.warn(f"these are no effects on unseen speakers: {what} ({', '.join(both)})", stacklevel=3)


def _similar(model, readers):
    """Readers of the similarity with the clean clip's speaker; NaN at layers that have none (an x-vector has one)."""
    found = {site: speakers_.similarity(reader) for site, reader in readers.items()}
    return {
        site: found.get(site, lambda hidden: hidden.new_full((len(hidden), 1), torch.nan)) for site in model.sites()
    }


def _listed(chosen, ks, several, many):
    """The chosen neurons for JSON: [name][k][layer], without what there is but one of."""
    found = {
        name: {k: {layer: own.tolist() for (layer, size), own in one.items() if size == k} for k in ks}
        for name, one in chosen.items()
    }
    found = found if many else {name: one[ks[0]] for name, one in found.items()}
    return found if several else found[""]
