"""What a sweep of edits comes to: effects over speakers, beside the null, in tables and in words."""

import json
from functools import partial

import numpy as np
import xarray as xr

from .. import results, statistics
from ..activations import random_neurons

ALIKE = 1.25  # sizes of two edits may differ by this factor, either way, in a `verdict`
READOUTS = {  # of `report`: variable, what it is called, what it is measured in
    "delta": ("log-odds of the target", "nats"),
    "kl": ("divergence of the probabilities", "nats"),
    "changed": ("share of clips with another label", ""),
}


def summary(result, variable="delta", *, against="null", **where) -> xr.Dataset:
    """Effect over speakers, and against the random neurons.

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
        chosen minus mean of the random sets, with its interval, ``p_null``, ``q_null``, ``p`` and ``q`` as in
        `contrast`: NaN without random sets, and where fewer than 20 different ones exist (`null_sets`). ``null_mean``,
        and ``null_low`` to ``null_high``, outside of which a value would have ``p_null`` below 0.05, each averaged over
        the same speakers: NaN under 20 sets, which are too few for that.
    """
    chosen, null = result[variable].sel(where), result[f"{against}_{variable}"].sel(where).rename({against: "null"})
    units = statistics.by_speaker(chosen)
    draws = statistics.by_speaker(null).mean("speaker")
    mean, centre = (x.mean("null") if x.sizes["null"] else x.sum("null") * np.nan for x in (draws, null))
    enough = xr.DataArray(True) if against == "direction" else _different_sets(result, where) >= random_neurons.FEWEST
    ends = {"input_core_dims": [["null"]], "output_core_dims": [[], []]}
    low, high = xr.apply_ufunc(statistics.rank_band, draws.where(enough), **ends)
    out = statistics.over_speakers(units).assign(speakers=units, null_mean=mean, null_low=low, null_high=high)
    against = contrast(chosen, centre, null=(null - centre).where(enough)).drop_vars("n")
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return out.assign(against.rename(names)).assign_attrs(result.attrs, variable=variable)


def contrast(values, others, *, null=None, sets=None) -> xr.Dataset:
    """Paired comparison of two results over the same clips, with the speaker as the unit.

    Parameters
    ----------
    null : DataArray, optional
        Differences, around 0, that chance would make: of the same dims and `null`, the draws. A test over speakers
        takes the sets of neurons as given, so that any two sets differ once there are speakers enough; to claim
        something of how a set was chosen, its difference must stand out from those between random sets too.
    sets : int, optional
        Of how many random sets the draws are, where they are not independent (`between_random_sets`).

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p_speakers`` of the t test over speakers, NaN
        below 8. With `null`, ``p_null``, the rank among the draws, for any number of speakers, and ``q_null``, corrected
        over all there is by the greatest of each draw (`statistics.rank_test`). ``p``, the larger of ``p_speakers`` and
        ``p_null``: both must be small. ``q``, the same corrected over all there is: the larger of ``q_null`` and
        Benjamini–Hochberg's of ``p_speakers``. Modes are corrected for separately.
    """
    clips = [
        set(one["clip"].values) for one in (values, others) if isinstance(one, xr.DataArray) and "clip" in one.dims
    ]
    if len(clips) > 1 and clips[0] != clips[1]:
        raise ValueError("these are of different clips, and cannot be paired: take results of the same ones")
    units = statistics.by_speaker(values - others)
    out = statistics.over_speakers(units)
    last = {"kwargs": {"axis": -1}}
    out["p_speakers"] = xr.apply_ufunc(statistics.t_test, units, input_core_dims=[["speaker"]], **last)
    family = [dim for dim in out["mean"].dims if dim != "mode"]
    out["p"], out["q"] = out["p_speakers"], _false_discovery(out["p_speakers"])
    if null is not None:
        draws = statistics.by_speaker(null).mean("speaker").broadcast_like(out["mean"])
        dims = {"input_core_dims": [family, [*family, "null"]], "output_core_dims": [family, family], "vectorize": True}
        ranks = partial(statistics.rank_test, draws=sets)
        out["p_null"], out["q_null"] = xr.apply_ufunc(ranks, out["mean"], draws, **dims)
        out["p"], out["q"] = np.maximum(out["p"], out["p_null"]), np.maximum(out["q"], out["q_null"])
    return out.map(lambda x: x.transpose(*out["mean"].dims, ...))


def _neurons(result, where) -> dict:
    """The selected neurons, {layer: neurons}, of the choice and number that `where` or the result picks."""
    listed = json.loads(result.attrs.get("neurons", "{}"))
    for dim in ("chosen", "k"):
        only = result[dim].item() if dim in result.coords and result[dim].ndim == 0 else None
        pick = where.get(dim, only)
        if dim in result.dims and pick is None:
            raise ValueError(f"there are several {dim}: pick one, {dim}=…")
        listed = listed.get(str(pick), listed)
    return {int(layer): neurons for layer, neurons in listed.items() if str(layer).isdigit()}


def _counts(result, where) -> dict:
    """How many neurons were selected of each layer; {} where the result does not tell."""
    return {layer: len(neurons) for layer, neurons in _neurons(result, where).items()}


def _false_discovery(p):
    """Benjamini and Hochberg's q over all dims but `mode`."""
    family = [dim for dim in p.dims if dim != "mode"]
    dims = {"input_core_dims": [family], "output_core_dims": [family], "vectorize": True}
    return xr.apply_ufunc(statistics.fdr, p, **dims).transpose(*p.dims)


def _different_sets(result, where):
    """How many different random sets there are; as many as one likes where the result does not tell."""
    return _picked(result.get("null_sets", xr.DataArray(np.inf)), where)


def _picked(values, where):
    """The values picked by as much of `where` as they have dims of."""
    return values.sel({dim: pick for dim, pick in where.items() if dim in values.dims})


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
    out |= {name: result[name] for name in ("null_overlap", "null_sets") if name in result}
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
    found = xr.concat(parts, "group", combine_attrs="override").assign_coords(group=list(groups))
    return found.assign_attrs(random_sets_sorted="in each layer")


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
    lines, listed = [], _neurons(result, where)
    untested: dict[tuple, list] = {}
    sets = _different_sets(result, where).broadcast_like(result["layer"])
    few = result["layer"].values[(sets < random_neurons.FEWEST).values].tolist()
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
                untested.setdefault((mode, _why_not(result, found, len(few) == tested.size)), []).append(name)
            elif not told.any():
                lines.append(f"{mode}, {name}: none beyond random neurons, in {_count(int(tested.sum()), 'layer')}")
            else:
                best = here.isel(layer=int(np.abs(here["difference"]).where(told).argmax("layer")))
                layer = int(best["layer"])
                size = _interval(*(float(best[f"difference{end}"]) for end in ("", "_low", "_high")))
                size = f"{size} {unit}".rstrip()
                q = f"q = {best['q']:.3f}" if best["q"] >= 0.001 else "q < 0.001"
                lines.append(f"{mode}, {name}: most in layer {layer}, {size} beyond random neurons ({q})")
                if scores is not None:
                    first = _strongest(scores, layer, listed[layer])[:top]
                    what = "its first neurons" if len(first) > 1 else "its first neuron"
                    lines[-1] += f"; {what} by attribution: {', '.join(map(str, first))}"
    for (mode, why), names in untested.items():
        rest = f" and {_count(len(names) - 1, 'more read-out')}" if len(names) > 1 else ""
        lines.append(f"{mode}, {names[0]}{rest}: {why}")
    if 0 < len(few) < result.sizes["layer"]:
        many = "layers" if len(few) > 1 else "layer"
        lines.append(f"no test (too few different random sets exist) in {many} {', '.join(map(str, few))}")
    return "\n".join(lines)


def _count(n, what):
    return f"{n} {what}{'s' * (n != 1)}"


def _why_not(result, found, few):
    """Why not one layer could be tested; `few`: whether too few different random sets exist in all of them."""
    speakers, sets = int(found["n"].max()), result.sizes.get("null", 0)
    if speakers < statistics.FEWEST:
        return f"no test, {_count(speakers, 'speaker')} of the {statistics.FEWEST} that it takes"
    if not sets:
        return "no test, there are no random sets"
    return "no test, too few different random sets exist" if few else "no test, it has no values in some random sets"


def _interval(mean, low, high):
    """ "+3500 [+2800, +4300]": two figures of the largest, and the others as far."""
    most = max(map(abs, (mean, low, high)))
    digits = 1 - int(np.floor(np.log10(most))) if most > 0 else 0
    mean, low, high = (f"{round(x, digits) + 0.0:+.{max(digits, 0)}f}" for x in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def _strongest(scores, layer, neurons):
    """The chosen neurons of a layer, strongest first."""
    size = results.average(scores["absolute"]).sel(layer=layer)
    return [neuron for neuron in size.sortby(-size)["neuron"].values.tolist() if neuron in set(neurons)]
