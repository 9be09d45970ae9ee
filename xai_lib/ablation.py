"""Turn neurons over, or silence them, in one layer after another, and see what later layers and the
decision make of it.

The edit runs through the rest of the network, and everything is read where it can change. Beside the
chosen neurons go matched random ones, the null.
"""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import torch
import xarray as xr

from . import attribution, audio, edits, execution, hooks, readouts, statistics, targets
from . import proxies as proxies_


@torch.no_grad()
def moments(model, clips, *, part="block") -> xr.Dataset:
    """`mean`, `std` and mean `magnitude` |activation| of every neuron, [layer, neuron], over all frames of
    training clips.

    Sums in float64 are all that is kept. Modes "mean" and "noise" and the matched null need them.
    """
    sites, skipped, n, sums = model.sites((part,)), {}, 0, 0
    for _, waveform in audio.stream(clips, model.sample_rate, shortest=model.span, skipped=skipped):
        with hooks.capture(model, sites) as seen:
            execution.prefix(model, model.tensor(waveform), model.n_layers)
        hidden = torch.stack([seen[site][0] for site in sites]).double()
        n += hidden.shape[1]
        sums = sums + torch.stack([hidden.sum(1), hidden.square().sum(1), hidden.abs().sum(1)]).cpu()
    mean, square, magnitude = (sums / n).numpy()
    dims = ("layer", "neuron")
    return xr.Dataset(
        {"mean": (dims, mean), "std": (dims, np.sqrt(np.maximum(square - mean**2, 0))),
         "magnitude": (dims, magnitude)},
        {"layer": [site.layer for site in sites], "neuron": np.arange(mean.shape[1])},
        targets.attributes(model, skipped, method="moments", part=part, frames=n),
    )  # fmt: skip


def matched(magnitude, neurons, n, *, nearest=5, seed=0) -> list[np.ndarray]:
    """Draw `n` random sets of other neurons of the same layer, matched one by one in mean |activation|.

    Parameters
    ----------
    magnitude : array [all neurons of the layer]
        From `moments`.
    neurons : sequence of int
        The chosen ones: none of them is drawn.
    nearest : int
        Each chosen neuron, in random order, is replaced by one of so many nearest in log magnitude that
        are still free.

    Raises
    ------
    ValueError
        More neurons are chosen than are left to draw from.
    """
    size, neurons = np.log(np.maximum(np.asarray(magnitude, float), 1e-12)), np.asarray(neurons, int)
    others = np.setdiff1d(np.arange(len(size)), neurons)
    if n and len(others) < len(neurons):
        raise ValueError(
            f"{len(neurons)} of {len(size)} neurons are chosen, {len(others)} are left for a null: choose "
            "at most half of a layer, or nulls=0"
        )
    rng, sets = np.random.default_rng(seed), []
    for _ in range(n):
        free, drawn = others.copy(), []
        for neuron in rng.permutation(neurons):
            near = np.argsort(np.abs(size[free] - size[neuron]), kind="stable")[:nearest]
            place = rng.choice(near)
            drawn.append(free[place])
            free = np.delete(free, place)
        sets.append(np.sort(np.array(drawn, int)))
    return sets


def sweep(model, clips, *, neurons, k=20, modes=("flip",), layers="all", part="block", frames="all", window=0,
          nulls=50, target="predicted", moments=None, proxies=None, scale=1.0, seed=0,
          batch=None) -> xr.Dataset:  # fmt: skip
    """Edit chosen neurons, one layer at a time, and as many matched random ones, and read what follows.

    Parameters
    ----------
    clips : DataFrame
        Of other speakers than those on whom the neurons were chosen.
    neurons : dict, DataFrame, Dataset or DataArray
        {layer: neurons}; a table with columns `layer` and `neuron`; or scores, of which the `k` greatest
        of each layer are taken: of `attribution.grad_x_activation`, or [layer, neuron] (by absolute value).
    modes : sequence of str
        Of `edits.MODES`.
    layers : "all" or sequence of int
        Those of `neurons`.
    part, frames, window, scale
        As in `edits.edit`; `scale` is that of the noise.
    nulls : int
        Random sets per layer, matched in mean |activation| (`matched`), the same for all clips.
    target : str, int or pair
        A class, a contrast of two, or "predicted".
    moments : Dataset, optional
        Of `moments` on training clips, for the same part: needed for nulls and for the modes "mean" and
        "noise".
    proxies : Dataset, optional
        Of `proxies.fit` on training clips; without it no proxies are read.
    batch : int, optional
        Edited copies that share a forward.

    Returns
    -------
    Dataset
        [clip, layer, mode, ...], and for the random sets the same with the prefix `null_` and the dim
        `null`:

        ``delta``, log-odds of the target, edited minus clean (nats); ``logits``, ``log_odds``,
        ``probability`` [..., label]; ``kl``, divergence of the edited from the clean probabilities (nats);
        ``changed``, whether another label wins; ``spread`` [..., later], ‖h′ − h‖ / ‖h‖ of the block
        `later`, for a block edit that of the edited layer too, which is the size of the edit; ``felt``,
        the share of its frames in which that exceeds 10 %; ``proxy_change`` and ``proxy_sd`` [..., later,
        proxy], relative to the clean value and in standard deviations between training clips. All three
        hold NaN below the edit, proxies also at the edited block.

        The clip's own label is in the coordinate ``emotion``. Of the clean clip: ``clean_logits``,
        ``clean_log_odds``, ``clean_probability``, ``clean_proxy``. Of the sets: ``magnitude`` and
        ``null_magnitude`` [layer, (null)]: how well they are matched. attrs["neurons"]: the chosen ones,
        as JSON.

    Raises
    ------
    UntrainedHead
        The head's weights are random.
    ValueError
        Unknown layers, neurons, modes, frames or target; `moments` are needed and missing; no clip could
        be used.

    References
    ----------
    Execution: `execution.cascade_read`, equal to one hooked forward per edit.
    """
    targets.check(model, target)
    chosen = _chosen(model, neurons, k, layers, part)
    if moments is None and (nulls or {"mean", "noise"} & set(modes)):
        raise ValueError(
            "nulls, mean and noise need moments=ablation.moments(model, training clips); or set nulls=0"
        )
    here = part, model.family.width(part)
    if moments is not None and (moments.attrs["part"], moments.sizes["neuron"]) != here:
        raise ValueError(f"the moments are of another model, or of {moments.attrs['part']} instead of {part}")
    at = {layer: {} if moments is None else moments.sel(layer=layer) for layer in chosen}
    sets = {
        layer: [own, *(matched(at[layer]["magnitude"], own, nulls, seed=[seed, layer]) if nulls else [])]
        for layer, own in chosen.items()
    }
    reading = {} if proxies is None else proxies_.readers(model, proxies)
    rows, names, skipped = {}, [], {}
    for index, waveform in audio.stream(clips, model.sample_rate, shortest=model.span, skipped=skipped):
        speech = audio.speech_mask(waveform, model.sample_rate, hop=model.hop, span=model.span)
        if frames == "speech" and not speech.any():
            skipped[index] = "no speech was found: use frames='all'"
            continue
        options = {"frames": frames, "window": window, "speech": speech, "scale": scale, "seed": seed}
        plan = [
            (hooks.Site(layer, part), edits.edit(numbers, mode, **options, **_training(at[layer])))
            for layer, lists in sets.items() for mode in modes for numbers in lists
        ]  # fmt: skip
        readers = {site: readouts.reader(reading.get(site)) for site in model.sites()}
        logits, seen = execution.cascade_read(model, waveform, plan, readers, batch=batch)
        classes = targets.resolve(model, target, logits[:1])
        names.append(targets.name(model, classes))
        by_layer = torch.stack([seen[site] for site in readers], dim=1)
        rows[index] = [x.double().cpu().numpy()
                       for x in (logits, targets.value(logits, classes, "log_odds"), by_layer)]  # fmt: skip
    if not rows:
        raise ValueError(f"not one clip could be used: {next(iter(skipped.values()))}")
    logits, value, seen = (np.stack(values) for values in zip(*rows.values()))
    # Where a block may be read: from the edit on, and whether the edit has run through anything by then.
    steps = np.arange(model.n_layers + 1) - np.array(list(sets))[:, None]
    steps = np.where(steps < 0, np.nan, steps + (part != "block"))[:, None, None]
    clean, edited = readouts.decisions(logits, value)
    moved_clean, moved = readouts.movements(seen, None if proxies is None else proxies["sd"].values)
    shape = (len(rows), len(sets), len(modes), 1 + nulls)
    data = {f"clean_{name}": (("clip", *dims), x) for name, (dims, x) in (clean | moved_clean).items()}
    for name, (dims, x) in (edited | moved).items():
        x = x.reshape(*shape, *x.shape[2:])
        if name in moved:
            allowed = steps > 0 if "proxy" in dims else steps >= 0
            x = np.where(allowed[..., None] if "proxy" in dims else allowed, x, np.nan)
        data[name] = ("clip", "layer", "mode", "null", *dims), x
    if moments is not None:
        sizes = [[at[layer]["magnitude"].values[numbers].sum() / max(len(numbers), 1) for numbers in lists]
                 for layer, lists in sets.items()]  # fmt: skip
        data["magnitude"] = ("layer", "null"), np.array(sizes)
    about = targets.coordinates(clips, rows, target=names)
    about["emotion"] = about.pop("label", ("clip", [None] * len(rows)))  # `label` is a dim: the model's
    every = xr.Dataset(data, {**about, "layer": list(sets), "mode": list(modes), "label": model.labels,
                              "later": range(model.n_layers + 1)})  # fmt: skip
    every = every if proxies is None else every.assign_coords(proxy=proxies["proxy"])
    drawn = [name for name in every if "null" in every[name].dims]
    null = every[drawn].isel(null=slice(1, None)).rename({name: f"null_{name}" for name in drawn})
    result = xr.merge([every.drop_vars(drawn), every[drawn].isel(null=0), null])
    listed = json.dumps({str(layer): numbers.tolist() for layer, numbers in chosen.items()})
    frames = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    return result.assign_attrs(targets.attributes(model, skipped, method="ablation", part=part, frames=frames,
                                                  window=window, seed=seed, neurons=listed))  # fmt: skip


def summary(result, variable="delta", **where) -> xr.Dataset:
    """Effect over speakers, and against the matched random neurons.

    Parameters
    ----------
    result : Dataset
        Of `sweep`.
    variable : str
        One of its variables, such as "delta", "kl" or "changed".
    **where
        Picks from further dims: label="angry", later=6, proxy="rms".

    Returns
    -------
    Dataset [layer, mode]
        ``speakers`` [speaker, ...], each one's mean; ``mean``, ``low``, ``high`` and ``n`` over them.
        ``null_mean``, and ``null_low`` to ``null_high``, 2.5 to 97.5 % of the draws' own means over
        speakers; ``beyond``, whether the mean lies outside. ``difference``, chosen minus mean of the null,
        with its interval and test as in `contrast`. NaN without nulls.
    """
    chosen = result[variable].sel(where)
    units = statistics.by_speaker(chosen)
    null = result[f"null_{variable}"].sel(where)
    out = statistics.over_speakers(units).assign(speakers=units)
    if not null.sizes["null"]:
        null = null.pad(null=(0, 1))
    draws = statistics.by_speaker(null).mean("speaker")
    band = draws.quantile([0.025, 0.975], "null", skipna=False).drop_vars("quantile")
    out = out.assign(null_mean=draws.mean("null"), null_low=band[0], null_high=band[1])
    out["beyond"] = (out["mean"] < out["null_low"]) | (out["mean"] > out["null_high"])
    against = contrast(chosen, null.mean("null"))
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return out.merge(against[[*names, "p", "q"]].rename(names)).assign_attrs(result.attrs, variable=variable)


def contrast(values, others) -> xr.Dataset:
    """Paired comparison of two results over the same clips, with the speaker as the unit.

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p`` of the sign-flip test over
        speakers, NaN below 8; ``q``, Benjamini–Hochberg over layers, separately for each mode.
    """
    units = statistics.by_speaker(values - others)
    out = statistics.over_speakers(units)
    p = xr.apply_ufunc(statistics.sign_flip_test, units, input_core_dims=[["speaker"]], vectorize=True)
    out["p"] = p.where(out["n"] >= statistics.FEWEST)
    out["q"] = xr.apply_ufunc(statistics.fdr, out["p"], input_core_dims=[["layer"]],
                              output_core_dims=[["layer"]], vectorize=True)  # fmt: skip
    return out


def _chosen(model, neurons, k, layers, part) -> dict[int, np.ndarray]:
    """{layer: neurons}, checked, lowest first."""
    if isinstance(neurons, xr.Dataset):
        if neurons.attrs.get("part", part) != part:
            raise ValueError(f"the scores are of {neurons.attrs['part']}, and the edit is of {part}")
        found = {layer: attribution.top_neurons(neurons, k, layer=layer)["neuron"]
                 for layer in neurons["layer"].values}  # fmt: skip
    elif isinstance(neurons, xr.DataArray):
        found = {layer: np.argsort(-np.abs(neurons.sel(layer=layer).values), kind="stable")[:k]
                 for layer in neurons["layer"].values}  # fmt: skip
    elif isinstance(neurons, pd.DataFrame):
        if "part" in neurons and set(neurons["part"]) - {part}:
            parts = ", ".join(sorted(set(neurons["part"])))
            raise ValueError(f"the table has neurons of {parts}, and the edit is of {part}")
        found = dict(neurons.groupby("layer")["neuron"])
    else:
        found = neurons
    found = {int(layer): np.unique(np.asarray(list_, int)) for layer, list_ in sorted(found.items())}
    every = isinstance(layers, str) and layers == "all"
    wanted = list(found) if every else sorted(set(np.atleast_1d(layers).tolist()))
    lacking = [layer for layer in wanted if layer not in found]
    if lacking or not wanted:
        raise ValueError(f"no neurons are given for {f'layer {lacking[0]}' if lacking else 'any layer'}")
    for layer in wanted:
        model.check((layer, part), found[layer])
    return {layer: found[layer] for layer in wanted}


def _training(at):
    """What `edits.edit` takes of a layer's moments, where there are any."""
    return {"means": at["mean"].values, "stds": at["std"].values} if len(at) else {}
