"""What a sweep of edits comes to: effects over speakers, beside the null, in tables and in words."""

import json

import numpy as np
import xarray as xr
from scipy import stats

from . import statistics, targets

ALIKE = 0.8  # share of neurons that random sets have in common from which up there is no null, `statistics.null_spread`
READOUTS = {  # of `report`: variable, what it is called, what it is measured in
    "delta": ("log-odds of the target", "nats"),
    "kl": ("divergence of the probabilities", "nats"),
    "changed": ("share of clips with another label", ""),
}


def summary(result, variable="delta", *, against="null", **where) -> xr.Dataset:
    """Effect over speakers, and against the matched random neurons.

    Parameters
    ----------
    result : Dataset
        Of `sweep`.
    variable : str
        One of its variables, such as "delta", "kl" or "changed".
    against : {"null", "direction"}
        Random neurons, or, where the sweep had any, random directions in their place.
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
    chosen, null = result[variable].sel(where), result[f"{against}_{variable}"].sel(where).rename({against: "null"})
    shared = result.get("null_overlap", 0.0) if against == "null" else 0.0
    if isinstance(shared, xr.DataArray):
        shared = shared.sel({dim: pick for dim, pick in where.items() if dim in shared.dims})
    units = statistics.by_speaker(chosen)
    null = null if null.sizes["null"] else null.pad(null=(0, 1))
    draws, n = statistics.by_speaker(null).mean("speaker"), null.sizes["null"]
    mean, axes = draws.mean("null"), {"input_core_dims": [["null"], []], "kwargs": {"axis": -1}}
    half = stats.t.ppf(0.975, n - 1) * xr.apply_ufunc(statistics.null_spread, draws, shared, **axes)
    out = statistics.over_speakers(units)
    out = out.assign(speakers=units, null_mean=mean, null_low=mean - half, null_high=mean + half)
    against = contrast(chosen, null.mean("null"), null=null - null.mean("null"), overlap=shared).drop_vars("n")
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return out.assign(against.rename(names)).assign_attrs(result.attrs, variable=variable)


def contrast(values, others, *, null=None, overlap=0.0) -> xr.Dataset:
    """Paired comparison of two results over the same clips, with the speaker as the unit.

    Parameters
    ----------
    null : DataArray, optional
        Differences, around 0, that chance would make: of the same dims and `null`, the draws. A test over speakers
        takes the sets of neurons as given, so that any two sets differ once there are speakers enough; to claim
        something of how a set was chosen, its difference must stand out from those between random sets too.
    overlap : float or DataArray
        Share of neurons that the sets of the null have in common, as in `statistics.null_spread`.

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p`` of the t test over speakers, NaN below 8.
        With `null`, ``p_null`` of `statistics.null_test`, which takes any number of speakers, and ``p`` is the larger
        of the two. ``q``, Benjamini–Hochberg over all there is, separately for each mode.
    """
    clips = [
        set(one["clip"].values) for one in (values, others) if isinstance(one, xr.DataArray) and "clip" in one.dims
    ]
    if len(clips) > 1 and clips[0] != clips[1]:
        raise ValueError("these are of different clips, and cannot be paired: take results of the same ones")
    units = statistics.by_speaker(values - others)
    out = statistics.over_speakers(units)
    last = {"kwargs": {"axis": -1}}
    out["p"] = xr.apply_ufunc(statistics.t_test, units, input_core_dims=[["speaker"]], **last)
    if null is not None:
        draws = statistics.by_speaker(null).mean("speaker")
        parts = out["mean"], draws, overlap
        p = xr.apply_ufunc(_null_test, *parts, input_core_dims=[[], ["null"], []])
        out["p_null"] = p.where(out["mean"].notnull())
        out["p"] = np.maximum(out["p"], out["p_null"])  # both must tell: NaN where one is
    dims = [dim for dim in out["p"].dims if dim != "mode"]
    q = xr.apply_ufunc(statistics.fdr, out["p"], input_core_dims=[dims], output_core_dims=[dims], vectorize=True)
    return out.assign(q=q.transpose(*out["p"].dims))


def _null_test(value, null, overlap):
    return statistics.null_test(value, null, overlap=overlap, axis=-1)


def recognition(result) -> xr.Dataset:
    """Recall of each emotion, and their mean, the UAR, clean and edited.

    Returns
    -------
    Dataset
        ``uar`` and ``recall`` [..., emotion] with the dims of the sweep but `clip`; ``clean_uar``, ``clean_recall``;
        and ``null_uar``. Over the clips whose own label the model knows; ValueError where there is none.
    """
    if "correct" not in result or result["correct"].isnull().all():
        raise ValueError("no clip has a label that the model knows: recall cannot be told")
    out = {}
    for prefix in ("", "clean_", "null_"):
        if f"{prefix}correct" in result:
            known = result[f"{prefix}correct"].dropna("clip", how="all")
            recall = known.groupby("emotion").mean()
            out |= {f"{prefix}recall": recall, f"{prefix}uar": recall.mean("emotion")}
    out.pop("null_recall", None)
    return xr.Dataset(out)


def restored(result) -> xr.Dataset:
    """Share of the way from the clip to its donor that a patch goes, in the difference of the two labels' logits.

    0 where the decision stays with the clip's own label, 1 where the patched neurons carry all that tells the donor from
    it. It is a ratio of sums over speakers, since a clip whose donor hardly differs says nothing; the value of a speaker
    is the share of all, R, plus what it is away from it, (moved − R · whole) / mean whole, so that intervals are those
    of a ratio (the delta method).

    Returns
    -------
    Dataset
        ``restored`` and ``null_restored`` for `summary`, with a `clip` for each speaker.

    Raises
    ------
    ValueError
        The sweep had no donors, or the model does not know their labels.
    """
    if "donor_logits" not in result:
        raise ValueError("nothing was patched: give sweep modes=('patch',) and donors=donors.minimal_pairs(…)")

    def side(logits, name):
        lacking = set(result[name].values) - set(result["label"].values)
        if lacking:
            raise ValueError(f"the model does not know the label {lacking.pop()!r}")
        return logits.sel(label=result[name].drop_vars([*result[name].coords]), drop=True)

    def apart(logits):
        return side(logits, "donor_label") - side(logits, "emotion")

    clean, out = apart(result["clean_logits"]), {}
    whole = statistics.by_speaker(apart(result["donor_logits"]) - clean)
    for prefix in ("", "null_"):
        moved = statistics.by_speaker(apart(result[f"{prefix}logits"]) - clean)
        share = moved.sum("speaker") / whole.sum("speaker")
        out[f"{prefix}restored"] = (share + (moved - share * whole) / whole.mean("speaker")).rename(speaker="clip")
    names = whole["speaker"].values
    out |= {name: result[name] for name in ["null_overlap"] if name in result}
    return xr.Dataset(out).assign_coords(clip=np.arange(len(names)), speaker=("clip", names)).assign_attrs(result.attrs)


def averaged(result, groups) -> xr.Dataset:
    """Mean over the layers of each group, {name: layers}, each edited by itself: the dim `group` instead of `layer`.

    The random sets of different layers are different ones, so that their mean would vary less than that of the chosen,
    many of whom are chosen in one layer after another. They are therefore put in order in each layer first, by their
    mean over clips: the least of all layers together, and so on, the widest that the null can be.
    """
    ordered = {}
    for name, values in result.data_vars.items():
        if name.startswith("null_") and {"clip", "null"} <= set(values.dims):
            order = values.mean("clip").fillna(np.inf).argsort(values.mean("clip").dims.index("null"))
            ordered[name] = values.isel(null=order).drop_vars("null", errors="ignore")
    result = result.assign(ordered)
    parts = [result.sel(layer=list(layers)).mean("layer", keep_attrs=True) for layers in groups.values()]
    return xr.concat(parts, "group", combine_attrs="override").assign_coords(group=list(groups))


def distance(result, variable="spread") -> xr.DataArray:
    """How an effect fades with the layers between the edit and where it is read: [..., distance] for [..., later]."""
    away = result["later"] - result["layer"]
    steps = range(int(away.max()) + 1)
    parts = [result[variable].where(away == n).mean(["layer", "later"]) for n in steps]
    return xr.concat(parts, "distance").assign_coords(distance=list(steps))


def report(result, scores=None, *, readouts=READOUTS, top=5, **where) -> str:
    """In words: for each read-out the layer where the edit does most beyond the null, or that there is none.

    The interval is that of the layer that came out first, on the same clips: a little too good for it. Read-outs that
    could not be tested are told in one line for each mode and reason, and layers without a null in one for all.

    Parameters
    ----------
    result : Dataset
        Of `ablation.sweep`, with the dims clip, layer, mode (others picked by `where`).
    scores : Dataset, optional
        By which the neurons were chosen: the `top` of them are named.
    readouts : dict
        {variable, or (variable, picks from its further dims): (name, unit)}.
    """
    if "layer" not in result.dims:
        raise ValueError("a report is of layers: this sweep has groups of them, or one only")
    lines, listed = [], json.loads(result.attrs["neurons"])
    for dim in ("chosen", "k"):  # of several choices the one that was picked
        pick = where.get(dim, result[dim].item() if dim in result.coords and result[dim].ndim == 0 else None)
        if dim in result.dims and pick is None:
            raise ValueError(f"there are several {dim}: pick one, report(…, {dim}=…)")
        listed = listed.get(str(pick), listed)
    listed = {int(layer): neurons for layer, neurons in listed.items()}
    untested: dict[tuple, list] = {}
    shared = result.get("null_overlap", xr.DataArray(0.0)).broadcast_like(result["layer"])
    shared = shared.sel({dim: pick for dim, pick in where.items() if dim in shared.dims})
    alike = result["layer"].values[(shared >= ALIKE).values].tolist()
    for key, (name, unit) in readouts.items():
        variable, picks = key if isinstance(key, tuple) else (key, {})
        found = summary(result, variable, **where, **dict(picks))
        if set(found["mean"].dims) != {"layer", "mode"}:
            raise ValueError(
                f"{variable} has further dims, {', '.join(set(found['mean'].dims) - {'layer', 'mode'})}: pick"
            )
        for mode in found["mode"].values:
            here = found.sel(mode=mode)
            tested, told = here["q"].notnull(), here["q"] < 0.05
            if not tested.any():
                untested.setdefault((mode, _why_not(result, found, len(alike) == tested.size)), []).append(name)
            elif not told.any():
                lines.append(f"{mode}, {name}: none beyond the null, in {_count(int(tested.sum()), 'layer')}")
            else:
                best = here.isel(layer=int(np.abs(here["difference"]).where(told).argmax("layer")))
                layer = int(best["layer"])
                size = _interval(*(float(best[f"difference{end}"]) for end in ("", "_low", "_high")))
                size = f"{size} {unit}".rstrip()
                q = f"q = {best['q']:.3f}" if best["q"] >= 0.001 else "q < 0.001"
                lines.append(f"{mode}, {name}: most in layer {layer}, {size} beyond the null ({q})")
                if scores is not None:
                    first = _strongest(scores, layer, listed[layer])[:top]
                    what = "its first neurons" if len(first) > 1 else "its first neuron"
                    lines[-1] += f"; {what} by attribution: {', '.join(map(str, first))}"
    for (mode, why), names in untested.items():
        rest = f" and {_count(len(names) - 1, 'more read-out')}" if len(names) > 1 else ""
        lines.append(f"{mode}, {names[0]}{rest}: {why}")
    if 0 < len(alike) < result.sizes["layer"]:
        many = "layers" if len(alike) > 1 else "layer"
        lines.append(f"no null (random sets share too much) in {many} {', '.join(map(str, alike))}")
    return "\n".join(lines)


def _count(n, what):
    return f"{n} {what}{'s' * (n != 1)}"


def _why_not(result, found, alike):
    """Why not one layer could be tested."""
    speakers, sets = int(found["n"].max()), result.sizes.get("null", 0)
    if speakers < statistics.FEWEST:
        return f"no test, {_count(speakers, 'speaker')} of the {statistics.FEWEST} that it takes"
    if sets < 3:
        return f"no test, {_count(sets, 'random set')} of the 3 that it takes"
    return "no test, random sets share too much" if alike else "no test, it has no values in some random sets"


def _interval(mean, low, high):
    """ "+3500 [+2800, +4300]": two figures of the largest, and the others as far."""
    most = max(map(abs, (mean, low, high)))
    digits = 1 - int(np.floor(np.log10(most))) if most > 0 else 0
    mean, low, high = (f"{round(x, digits) + 0.0:+.{max(digits, 0)}f}" for x in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def _strongest(scores, layer, neurons):
    """The chosen neurons of a layer, strongest first."""
    size = targets.average(scores["absolute"]).sel(layer=layer)
    return [neuron for neuron in size.sortby(-size)["neuron"].values.tolist() if neuron in set(neurons)]
