"""Layer-by-layer ablation: negate or zero selected neurons and measure the effect on later layers and the prediction.

The edit propagates through the rest of the network, and everything is read where it can change. Controls are
random neurons of about the same size, and target-blind selections.
"""

import json
import warnings
from itertools import product

import numpy as np
import pandas as pd
import torch
import xarray as xr

from .. import attribution, edits, execution, hooks, results, targets
from ..activations import check_activation_stats, random_neurons
from ..activations import donors as donors_
from ..corpora import as_clips, identity
from ..probing import acoustic_decoders, activation_proxies, speaker_space
from . import readouts


def groups(model, names=("early", "middle", "late")) -> dict:
    """Return {name: layers}: the layers 0 to L, split as evenly as possible into one group for each name."""
    members = np.array_split(np.arange(model.n_layers + 1), len(names))
    return {f"{name} {layers[0]}–{layers[-1]}": layers.tolist() for name, layers in zip(names, members)}


def sweep(
    model,
    clips,
    *,
    neurons,
    k=20,
    modes=("flip",),
    layers="all",
    part="hidden_state",
    frames="all",
    window=0,
    n_peaks=5,
    n_random=40,
    random_modes="all",
    size_classes=None,
    directions=0,
    blind=True,
    target="predicted",
    activation_stats=None,
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
    """Edit selected neurons, one layer at a time, and random ones of the same size, and measure downstream effects.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`. Of other speakers than those on whom neurons were selected and decoders fitted; else a
        warning.
    neurons : Dataset or dict
        Scores of any method of `attribution`, of which the `k` greatest of each layer are taken; or {layer: neurons};
        or several of these by name, {"angry": scores, "sad": scores}, which adds the dim `selected`.
    k : int or sequence of int
        How many neurons are selected by scores; several numbers add the dim `k`.
    modes : sequence of str
        Of `edits.MODES`.
    layers : "all", sequence of int, or dict
        Of those in `neurons`. Groups by name, {"early": [0, 1, 2], ...} as returned by `groups`, are edited jointly,
        and the dim is `group`.
    part, frames, window, n_peaks, scale
        As in `edits.edit`; `scale` is that of the noise. For the frames of a time span, `model.frames_between(0.5,
        1.0)`; for attention heads the part "heads" and `model.head_neurons`.
    n_random : int
        Random sets per layer, the same for all clips and modes (`random_neurons.matched_sets`): each selected
        neuron is replaced by any neuron of about its size, by root mean square activation, which is the size of a flip.
        In a group a neuron that is selected in several layers has the same replacement in all. The smallest p is 1 / (1
        + n_random): 40 make 0.024, 100 make 0.01.
    random_modes : "all" or sequence of str
        The modes in which random sets, directions and target-blind selections are edited too; NaN in the others.
    size_classes : int, optional
        Number of size classes into which the neurons of a layer are divided, and from which random neurons are drawn
        (`random_neurons.size_classes`); 1 for any neuron of the layer.
    directions : int
        Number of sets of as many random directions (`edits.directions`), as a further control.
    blind : bool
        With activation statistics and random sets, also edit as many neurons of target-blind selections: the most
        active, and those that write most into the residual stream (`random_neurons.target_blind`).
    target : str, int, pair, or dict
        A class, a contrast of two, or "predicted"; for several `neurons`, a dict with the target of each by name.
    activation_stats : Dataset, optional
        Activation statistics of training clips, as returned by `activations.activation_stats`, for the same part:
        needed for random sets and for the modes "mean" and "noise".
    match : Dataset, optional
        Activation statistics by which random neurons are matched, of clips like those that are edited, such as the
        target's in training; default: `activation_stats`.
    donors : DataFrame, optional
        A donor for each clip, by index, for "resample" (`donors.random_donors`) and "patch" (`donors.minimal_pairs`).
    proxies, decoders : Dataset, optional
        As returned by `activation_proxies.fit` (hardly sensitive where blocks end in a layer norm) and
        `acoustic_decoders.fit` on training clips.
    speakers : Dataset or function, optional
        As returned by `speaker_space.fit` on training clips, or `speaker_space.xvector`.
    batch : int, optional
        Edited copies that share a forward (`execution.cascade_read`, equal to one hooked forward per edit).

    Returns
    -------
    Dataset
        [clip, (selected), layer, mode, (k), ...], for the random sets the same with the prefix `random_` and the dim
        `random`, for directions with the prefix `direction_`, for the target-blind selections with `blind_`:

        ``target_change``, change of the target's log-odds, edited minus clean (nats); ``log_odds`` [..., label], the
        same of every class; ``logits``, ``probability`` [..., label]; ``kl``, divergence of the edited from the clean
        probabilities (nats); ``changed``, whether the predicted label changes; ``correct``, whether the prediction is
        the clip's true label (NaN where the model does not know it).

        At later layers, [..., readout_layer]: ``relative_change``, ‖h′ − h‖ / ‖h‖, and at the edited layer too if
        `hidden_state` is edited, where it is the size of the edit; ``frames_changed``, the share of frames in which it
        exceeds 10 %; ``proxy_value``, ``proxy_change``, relative, and ``proxy_sd``, in standard deviations between
        training clips, [..., proxy]; ``decoded`` and ``decoded_change`` [..., feature], in the feature's unit, and,
        where the residual stream passes through the layers, the parts of that change: ``direct_effect``,
        decoded from the stream's change after the edited layer, the last of a group (there it includes what
        attention and feed-forward up to it made of the edits before them), and ``indirect_effect``, the rest,
        through the layers above; ``similarity``, cosine of the edited and the clean clip's speaker embedding.
        NaN below the edit, and, except for the first two, at the edited block.

        The clip's true label is in the coordinate ``emotion``. Of the clean clip: ``clean_logits``,
        ``clean_probability``, ``clean_correct``, ``clean_proxy_value``, ``clean_decoded``; of donors:
        ``donor_logits`` and the coordinate ``donor_label``. Of the sets: ``magnitude`` and ``random_magnitude``, root
        mean square activations, to check the matching; ``random_sets``, how many different random sets exist, and
        ``random_overlap``, the share of neurons that two of those drawn have in common. attrs["neurons"]: the selected
        neurons, as JSON.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; unknown layers, neurons, modes, frames or target; `activation_stats` or `donors` are needed and
        missing; no clip could be used.
    """
    named, ks, modes = _by_name(neurons), np.atleast_1d(k).tolist(), np.atleast_1d(modes).tolist()
    if not hasattr(model, "architecture") or hasattr(clips, "architecture"):
        raise ValueError("sweep takes a model, as returned by models.load, and clips, in this order")
    targets.require_one_label(model)
    clips = as_clips(clips, sample_rate)
    edits.check_frames(frames)
    if not ks or not all(isinstance(k, int) and k > 0 for k in ks) or min(n_random, directions) < 0:
        raise ValueError("k must be whole numbers from 1 up, n_random and directions from 0 up")
    if size_classes is not None and size_classes < 1:
        raise ValueError(f"size_classes must be a whole number from 1 up, not {size_classes}")
    random_modes = (
        modes if isinstance(random_modes, str) and random_modes == "all" else np.atleast_1d(random_modes).tolist()
    )
    if not set(random_modes) <= set(modes):
        raise ValueError(f"random_modes must be among the modes, {', '.join(modes)}, not {', '.join(random_modes)}")
    for name, values in {"k": ks, "modes": modes}.items():
        if len(set(values)) < len(values):
            raise ValueError(f"{name} contains duplicates: {', '.join(map(str, values))}")
    space = None if callable(speakers) else speakers
    fitted = [
        ("activation_stats", "std", activation_stats),
        ("activation_stats", "std", match),
        ("activation_proxies.fit", "component", proxies),
    ]
    for function, name, data in [
        *fitted,
        ("acoustic_decoders.fit", "weight", decoders),
        ("speaker_space.fit", "projection", space),
    ]:
        speaker_space.require_dataset(data, function)
        if data is not None and name not in data:
            raise ValueError(f"expected the Dataset returned by {function}(model, clips); this one has no {name!r}")
    if donors is not None and not (
        isinstance(donors, pd.DataFrame) and "label" in donors and {"path", "audio"} & {*donors}
    ):
        raise ValueError(
            "donors must be a DataFrame with the columns path and label, as returned by "
            "donors.random_donors(clips, pool)"
        )
    _warn_on_speaker_leakage(clips, [*named.values(), activation_stats, match, proxies, decoders, space])
    if isinstance(target, dict) and set(target) != set(named):
        raise ValueError(
            f"target has the names {', '.join(target)} and neurons {', '.join(named) or 'none'}: use the same"
        )
    aims = {name: target[name] if isinstance(target, dict) else target for name in named}
    for aim in aims.values():
        targets.check(model, aim)
    joint = isinstance(layers, dict)
    requested = sorted({layer for members in layers.values() for layer in members}) if joint else layers
    for selection in named.values():
        random_neurons.check(model, selection, ks, requested, part)
    selections = {
        name: attribution.select_neurons(model, selection, ks, requested, part) for name, selection in named.items()
    }
    edited_layers = sorted(set.intersection(*({layer for layer, _ in selected} for selected in selections.values())))
    layers_of = (
        {name: sorted(members) for name, members in layers.items()}
        if joint
        else {layer: [layer] for layer in edited_layers}
    )
    needing = n_random or {"mean", "noise"} & set(modes)
    check_activation_stats(
        activation_stats, model, part, needing and "a sweep with mean, noise or random sets (set n_random=0 for none)"
    )
    donors_.check(donors, clips, modes)
    sites = [hooks.Site(layer, part) for layer in edited_layers]
    known, width = edits.statistics_arguments(sites, activation_stats), model.architecture.width(part)
    control_options = {"n_random": n_random, "directions": directions, "seed": seed, "classes": size_classes}
    matching_stats = activation_stats if match is None else match
    check_activation_stats(matching_stats, model, part)
    sizes = random_neurons.rms(matching_stats)
    choices = [*product(named, layers_of, ks)]
    sets = [{layer: selections[name][layer, k] for layer in layers_of[group]} for name, group, k in choices]
    sets = {
        choice: random_neurons.matched_sets(width, sizes, selected, **control_options)
        for choice, selected in zip(choices, sets)
    }
    blind_ranking = random_neurons.target_blind(activation_stats, width) if blind and n_random else {}
    for (name, group, count), sets_of_choice in sets.items():
        for ranked in blind_ranking.values():
            sets_of_choice.append(
                [np.sort(ranked[layer][: len(selections[name][layer, count])]) for layer in layers_of[group]]
            )
    shape = {"selected": len(named), "layer": len(layers_of), "mode": len(modes), "k": len(ks)}
    shape["random"] = 1 + n_random + directions + len(blind_ranking)
    grid = [*product(named, layers_of, modes, ks, range(shape["random"]))]
    is_run = np.array([i == 0 or mode in random_modes for _, _, mode, _, i in grid])
    conditions = [condition for condition, run in zip(grid, is_run) if run]
    last_layers = [layers_of[group][-1] for _, group, *_ in conditions]
    columns = {} if proxies is None else {"proxy_value": ("proxy", proxies["proxy"].values)}
    columns |= {} if decoders is None else {"decoded": ("feature", decoders["feature"].values)}
    columns |= {} if speakers is None else {"similarity": (None, [0])}
    has_direct_effect = decoders is not None and model.architecture.norms(1) is None
    columns |= {"direct_effect": ("feature", decoders["feature"].values)} if has_direct_effect else {}
    proxy_readers = {} if proxies is None else activation_proxies.readout_functions(model, proxies)
    rows, names_and_donors, skipped = {}, [], {}
    for index, waveform, speech, values, donor in donors_.usable(model, clips, frames, skipped, donors, sites):
        options = {"frames": frames, "window": window, "n_peaks": n_peaks, "speech": speech, "scale": scale}
        key = targets.key(seed, index, targets.SEED_NOISE)
        # Noise is seeded by the layer and by i, the index among the selected neurons (0), random sets, directions and
        # target-blind selections.
        plan = [
            {
                (site := hooks.Site(layer, part)): edits.edit(
                    members, mode, **options, **known[site], values=values.get(site), seed=(*key, layer, i)
                )
                for layer, members in zip(layers_of[group], sets[name, group, k][i])
            }
            for name, group, mode, k, i in conditions
        ]
        decoder_readers = None if decoders is None else acoustic_decoders.readout_functions(model, decoders, waveform)
        all_readers = [functions for functions in (proxy_readers, decoder_readers) if functions]
        all_readers += (
            []
            if speakers is None
            else [_similarity_readers(model, speaker_space.readout_functions(model, speakers, waveform))]
        )
        readout_functions, direct_effects = readouts.readout_functions(model.sites(), all_readers, clean := {}), {}
        if has_direct_effect:
            plan = readouts.with_change_readout(
                plan, last_layers, clean, acoustic_decoders.direct_effect(decoder_readers, clean), direct_effects
            )
        logits, values_read = execution.cascade_read(model, waveform, plan, readout_functions, batch=batch)
        logits, edited_logits = logits.double(), logits[1:].double().chunk(len(named))
        classes = [targets.resolve(model, aim, logits[:1]) for aim in aims.values()]
        odds = [
            targets.value(model, torch.cat([logits[:1], edited]), target_class, "log_odds")
            for edited, target_class in zip(edited_logits, classes)
        ]
        measured = (
            logits,
            torch.cat([values[1:] - values[0] for values in odds]),
            readouts.stack_values(values_read, direct_effects),
        )
        rows[index] = readouts.fill_missing([values.cpu().double().numpy() for values in measured], is_run)
        names_and_donors.append(
            (
                [targets.name(model, target_class) for target_class in classes],
                None if donor is None else donor.cpu().numpy(),
            )
        )
    coords = results.coordinates(clips, rows)
    true_labels = coords.pop("label", ("clip", np.full(len(rows), None)))[1]  # the dim `label` is that of the model
    numbers = np.array([model.labels.index(name) if name in model.labels else -1 for name in true_labels])
    sd = None if proxies is None else proxies["sd"].values
    result = readouts.table(*map(np.stack, zip(*rows.values())), columns, true_labels=numbers, sd=sd, shape=shape)
    coords |= {
        "emotion": ("clip", true_labels),
        "target": (("clip", "selected"), [names for names, _ in names_and_donors]),
    }
    coords |= {dim: list(names) for dim, names in columns.values() if dim}
    result = result.assign_coords(**coords, selected=list(named), layer=list(layers_of), mode=list(modes), k=ks)
    coords = {} if decoders is None else {"unit": ("feature", decoders["unit"].values)}
    result = result.assign_coords(label=model.labels, readout_layer=range(model.n_layers + 1), **coords)
    if donors is not None:
        result["donor_logits"] = ("clip", "label"), [logits for _, logits in names_and_donors]
        result = result.assign_coords(donor_label=("clip", donors["label"][list(rows)].to_numpy(object)))
    result = readouts.mask_unreached(result, layers_of, part)
    if sizes is not None:
        size = [random_neurons.set_sizes(sizes, layers_of[choice[1]], sets[choice]) for choice in choices]
        shared = [random_neurons.mean_overlap(sets[choice][1 : 1 + n_random]) for choice in choices]
        distinct = [
            random_neurons.count_random_sets(sizes, dict(zip(layers_of[choice[1]], sets[choice][0])), size_classes)
            for choice in choices
        ]
        dims, counts = ("selected", "layer", "k"), (len(named), len(layers_of), len(ks))
        result["magnitude"] = (*dims, "random"), np.reshape(size, (*counts, -1))
        result["random_overlap"] = dims, np.reshape(shared, counts)
        result["random_sets"] = dims, np.reshape(distinct, counts)
    result = readouts.split_controls(result, n_random, directions, [*blind_ranking]).rename(
        {"layer": "group"} if joint else {}
    )
    result = result if named is neurons else result.isel(selected=0, drop=True)
    result = result if np.ndim(k) else result.isel(k=0, drop=True)
    frames = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    options = {"part": part, "frames": frames, "window": window, "seed": seed}
    options["size_classes"] = size_classes or "by width"
    options["neurons"] = json.dumps(_neurons_for_json(selections, ks, named is neurons, np.ndim(k)))
    return result.assign_attrs(results.attributes(model, skipped, method="ablation", **options))


def _by_name(neurons) -> dict:
    """Return {name: scores or {layer: neurons}}; a single one gets the name ""."""
    if not isinstance(neurons, (dict, xr.Dataset)):
        raise ValueError("neurons must be scores (a Dataset), {layer: neurons}, or several of these by name")
    several = (
        isinstance(neurons, dict)
        and neurons
        and all(isinstance(value, (dict, xr.Dataset)) for value in neurons.values())
    )
    return neurons if several else {"": neurons}


def _warn_on_speaker_leakage(clips, fitted):
    """Warn if clips are of speakers on whom neurons were selected, or something was fitted, as far as that is known."""
    fitted = [data for data in fitted if isinstance(data, xr.Dataset)]
    train_speakers = {
        str(name) for data in fitted if "speaker" in data.coords for name in data["speaker"].values.ravel()
    }
    for key in ("speakers", "selection_speakers"):
        train_speakers |= {name for data in fitted for name in json.loads(data.attrs.get(key, "[]"))}
    train_speakers = {identity.comparable_name(name) for name in train_speakers}
    speakers = clips["speaker"].dropna().unique() if "speaker" in clips else []
    shared_speakers = sorted(str(name) for name in speakers if identity.comparable_name(name) in train_speakers)
    if shared_speakers:
        reason = "effects are evaluated on speakers used to select neurons or to fit decoders or a speaker space"
        warnings.warn(
            f"speaker leakage: {reason} ({', '.join(shared_speakers)}); evaluate on other speakers", stacklevel=3
        )


def _similarity_readers(model, readout_functions):
    """Return {site: function to the cosine with the clean clip's position}; NaN where the space is not read."""
    similarities = {site: speaker_space.similarity(reader) for site, reader in readout_functions.items()}
    return {
        site: similarities.get(site, lambda hidden: hidden.new_full((len(hidden), 1), torch.nan))
        for site in model.sites()
    }


def _neurons_for_json(selections, ks, several, has_k_dim):
    """Return the selected neurons for JSON, [name][k][layer], without the levels name and k if they are single."""
    listed = {
        name: {k: {layer: members.tolist() for (layer, size), members in selected.items() if size == k} for k in ks}
        for name, selected in selections.items()
    }
    listed = listed if has_k_dim else {name: by_k[ks[0]] for name, by_k in listed.items()}
    return listed if several else listed[""]
