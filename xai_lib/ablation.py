"""Turn neurons over, or silence them, in one layer after another: what do later layers and the decision make of it?

The edit runs through the rest of the network, and everything is read where it can change. Beside the
chosen neurons go matched random ones, the null.
"""

import json

import numpy as np
import torch
import xarray as xr
from scipy import stats

from . import attribution, edits, execution, hooks, readouts, statistics, targets
from . import proxies as proxies_
from .activations import check_moments, moments, usable

__all__ = ["contrast", "moments", "summary", "sweep"]


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
    nulls=50,
    target="predicted",
    moments=None,
    proxies=None,
    scale=1.0,
    seed=0,
    batch=None,
) -> xr.Dataset:
    """Edit chosen neurons, one layer at a time, and as many matched random ones, and read what follows.

    Parameters
    ----------
    clips : DataFrame
        Of other speakers than those on whom the neurons were chosen.
    neurons : dict or Dataset
        {layer: neurons}, or scores of `attribution.grad_x_activation`, of which the `k` greatest of each layer are
        taken.
    modes : sequence of str
        Of `edits.MODES`.
    layers : "all" or sequence of int
        Of those in `neurons`.
    part, frames, window, scale
        As in `edits.edit`; `scale` is that of the noise.
    nulls : int
        Random sets per layer, matched in mean |activation| (`edits.matched`), the same for all clips.
    target : str, int or pair
        A class, a contrast of two, or "predicted".
    moments : Dataset, optional
        Of `moments` on training clips, for the same part: needed for nulls and for the modes "mean" and "noise".
    proxies : Dataset, optional
        Of `proxies.fit` on training clips; without it no proxies are read.
    batch : int, optional
        Edited copies that share a forward (`execution.cascade_read`, equal to one hooked forward per edit).

    Returns
    -------
    Dataset
        [clip, layer, mode, ...], and for the random sets the same with the prefix `null_` and the dim `null`:

        ``delta``, log-odds of the target, edited minus clean (nats); ``logits``, ``probability`` [..., label]; ``kl``,
        divergence of the edited from the clean probabilities (nats); ``changed``, whether another label wins;
        ``spread`` [..., later], ‖h′ − h‖ / ‖h‖ of the block `later`, for a block edit that of the edited layer too,
        which is the size of the edit; ``felt``, the share of its frames in which that exceeds 10 %; ``proxy_value`` and
        ``proxy_sd`` [..., later, proxy], the value and its change in standard deviations between training clips. Later
        blocks hold NaN below the edit, proxies also at the edited block.

        The clip's own label is in the coordinate ``emotion``. Of the clean clip: ``clean_logits``,
        ``clean_probability``, ``clean_proxy_value``. Of the sets: ``magnitude`` and ``null_magnitude`` [layer, (null)],
        how well they are matched. attrs["neurons"]: the chosen ones, as JSON.

    Raises
    ------
    UntrainedHead, ValueError
        A random head; unknown layers, neurons, modes, frames or target; `moments` are needed and missing; no clip could
        be used.
    """
    targets.check(model, target)
    chosen = _chosen(model, neurons, k, layers, part)
    needing = nulls or {"mean", "noise"} & set(modes)
    check_moments(moments, model, part, needing and "a sweep with mean, noise or nulls (set nulls=0 for none)")
    known = {} if moments is None else {layer: moments.sel(layer=layer) for layer in chosen}
    training = {layer: {"means": at["mean"].values, "stds": at["std"].values} for layer, at in known.items()}
    sets = {layer: [own] for layer, own in chosen.items()}
    for layer in sets if nulls else ():
        sets[layer] += edits.matched(known[layer]["magnitude"], chosen[layer], nulls, seed=[seed, layer])
    reading = {} if proxies is None else proxies_.readers(model, proxies)
    rows, names, skipped = {}, [], {}
    spoken = isinstance(frames, str) and frames == "speech"
    for index, waveform, speech in usable(model, clips, "speech" if spoken else "all", skipped):
        options = {"frames": frames, "window": window, "speech": speech, "scale": scale, "seed": seed}
        plan = [
            (hooks.Site(layer, part), edits.edit(numbers, mode, **options, **training.get(layer, {})))
            for layer, lists in sets.items()
            for mode in modes
            for numbers in lists
        ]
        readers = {site: readouts.reader(reading.get(site)) for site in model.sites()}
        logits, seen = execution.cascade_read(model, waveform, plan, readers, batch=batch)
        classes = targets.resolve(model, target, logits[:1])
        names.append(targets.name(model, classes))
        found = logits, targets.value(logits, classes, "log_odds"), torch.stack(list(seen.values()), dim=1)
        rows[index] = [x.cpu().double().numpy() for x in found]
    about = targets.coordinates(clips, rows, target=names)
    about["emotion"] = about.pop("label", ("clip", [None] * len(rows)))  # `label` is a dim: the model's
    every = readouts.table(
        *map(np.stack, zip(*rows.values())),
        sd=None if proxies is None else proxies["sd"].values,
        shape={"layer": len(sets), "mode": len(modes), "null": 1 + nulls},
    )
    later = range(model.n_layers + 1)
    every = every.assign_coords(**about, layer=list(sets), mode=list(modes), label=model.labels, later=later)
    every = every if proxies is None else every.assign_coords(proxy=proxies["proxy"].values)
    below = every["later"] - every["layer"]
    for name in readouts.LATER & set(every):  # only what the edit can have reached, and proxies could show
        every[name] = every[name].where(below >= (name in readouts.PROXIES and part == "block"))
    if known:
        sizes = {layer: at["magnitude"].values for layer, at in known.items()}
        every["magnitude"] = ("layer", "null"), [[sizes[at][own].mean() for own in sets[at]] for at in sets]
    drawn = [name for name in every if "null" in every[name].dims]
    null = every[drawn].isel(null=slice(1, None)).rename({name: f"null_{name}" for name in drawn})
    listed = json.dumps({str(layer): numbers.tolist() for layer, numbers in chosen.items()})
    frames = frames if isinstance(frames, str) else json.dumps(np.asarray(frames).tolist())
    options = {"part": part, "frames": frames, "window": window, "seed": seed, "neurons": listed}
    made = targets.attributes(model, skipped, method="ablation", **options)
    return every.isel(null=0).merge(null).assign_attrs(made)


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
        ``speakers`` [speaker, ...], each one's mean; ``mean``, ``low``, ``high`` and ``n`` over them. ``difference``,
        chosen minus mean of the null, with its interval, ``p_null``, ``p`` and ``q`` as in `contrast`. ``null_mean``,
        and ``null_low`` to ``null_high``, where 95 % of further random sets would lie, each averaged over the same
        speakers: outside just where ``p_null`` is below 0.05. NaN without nulls.
    """
    chosen, null = result[variable].sel(where), result[f"null_{variable}"].sel(where)
    units = statistics.by_speaker(chosen)
    null = null if null.sizes["null"] else null.pad(null=(0, 1))
    draws, n = statistics.by_speaker(null).mean("speaker"), null.sizes["null"]
    mean, sd = draws.mean("null"), draws.std("null", ddof=int(n > 1))
    half = stats.t.ppf(0.975, n - 1) * np.sqrt(1 + 1 / n) * sd  # NaN of a single draw
    out = statistics.over_speakers(units)
    out = out.assign(speakers=units, null_mean=mean, null_low=mean - half, null_high=mean + half)
    against = contrast(chosen, null.mean("null"), null=null - null.mean("null")).drop_vars("n")
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return out.assign(against.rename(names)).assign_attrs(result.attrs, variable=variable)


def contrast(values, others, *, null=None) -> xr.Dataset:
    """Paired comparison of two results over the same clips, with the speaker as the unit.

    Parameters
    ----------
    null : DataArray, optional
        Differences, around 0, that chance would make: of the same dims and `null`, the draws. A test over speakers
        takes the sets of neurons as given, so that any two sets differ once there are speakers enough; to claim
        something of how a set was chosen, its difference must stand out from those between random sets too.

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p`` of the sign-flip test over speakers, NaN
        below 8. With `null`, ``p_null`` of `statistics.null_test`, which takes any number of speakers, and ``p`` is the
        larger of the two. ``q``, Benjamini–Hochberg over all there is, separately for each mode.
    """
    units = statistics.by_speaker(values - others)
    out = statistics.over_speakers(units)
    last = {"kwargs": {"axis": -1}}
    out["p"] = xr.apply_ufunc(statistics.sign_flip_test, units, input_core_dims=[["speaker"]], **last)
    if null is not None:
        draws = statistics.by_speaker(null).mean("speaker")
        p = xr.apply_ufunc(statistics.null_test, out["mean"], draws, input_core_dims=[[], ["null"]], **last)
        out["p_null"] = p.where(out["mean"].notnull())
        out["p"] = np.maximum(out["p"], out["p_null"])  # both must tell: NaN where one is
    dims = [dim for dim in out["p"].dims if dim != "mode"]
    q = xr.apply_ufunc(statistics.fdr, out["p"], input_core_dims=[dims], output_core_dims=[dims], vectorize=True)
    return out.assign(q=q.transpose(*out["p"].dims))


def _chosen(model, neurons, k, layers, part) -> dict[int, np.ndarray]:
    """{layer: neurons}, checked, lowest first."""
    if isinstance(neurons, xr.Dataset):
        if neurons.attrs["part"] != part:
            raise ValueError(f"the scores are of {neurons.attrs['part']}, and the edit is of {part}")
        neurons = {at: attribution.top_neurons(neurons, k, layer=at)["neuron"] for at in neurons["layer"].values}
    found = {int(layer): np.unique(np.asarray(some, int)) for layer, some in sorted(neurons.items())}
    wanted = list(found) if isinstance(layers, str) and layers == "all" else sorted(set(layers))
    lacking = [layer for layer in wanted if layer not in found or not len(found[layer])]
    if lacking or not wanted:
        raise ValueError(f"no neurons are given for {f'layer {lacking[0]}' if lacking else 'any layer'}")
    for layer in wanted:
        model.check((layer, part), found[layer])
    return {layer: found[layer] for layer in wanted}
