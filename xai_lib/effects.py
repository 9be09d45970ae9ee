"""What a sweep of edits comes to: effects over speakers, beside the null, in tables and in words."""

import json
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from . import nulls, statistics, targets

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
    enough = xr.DataArray(True) if against == "direction" else _different_sets(result, where) >= nulls.FEWEST
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


def between_random_sets(null, *, shared=0.0) -> xr.DataArray:
    """All differences of two random sets, along the dim `null`: what chance would make of a difference of two selections.

    Divided by √(1 − shared), the share of neurons that two random sets have in common: as sets differ that have none.
    """
    first, second = np.triu_indices(null.sizes["null"], 1)
    null = null.drop_vars("null", errors="ignore")
    apart = (null.isel(null=first) - null.isel(null=second)) / np.sqrt(1 - shared)
    return xr.concat([apart, -apart], "null")


def verdict(result, rivals, *, variable="delta", **where) -> xr.Dataset:
    """Whether the selected neurons do more than all they are compared with, each shown.

    Parameters
    ----------
    result : Dataset
        Of `sweep`, with random sets and the target-blind selections, which it has where it was given moments.
    rivals : dict of Dataset
        By name, at least one sweep of the same clips, target, layers, `nulls`, `size_classes` and `seed`, with as many
        neurons that were selected for something else.

    Returns
    -------
    Dataset [control, layer, mode]
        A ``control`` each for "random" neurons, the rivals, and the target-blind ("most active", "writes most"):
        ``effect``, what it does; ``difference``, selected minus control, with ``low`` and ``high`` over speakers. ``p``
        and ``q`` of "random" are those of `summary`. The others are asked only in layers where that q is below 0.05, and
        are NaN elsewhere: ``p`` is the larger of that over speakers and the rank of the difference among those between
        random sets (of a rival, the two that one substitution makes of both selections, which share as many neurons as
        these do; of a target-blind selection, any two); ``q``, at a false discovery rate over these layers. Under 8
        speakers p and q are of the random sets alone, and said of these speakers only.

        ``ratio`` [control, layer], the size of the selected neurons' edit to that of the control (root mean square
        activation). [layer, mode]: ``selected``, what the selected neurons do; and ``beyond``, the verdict: every q is
        below 0.05, every difference has the sign of ``selected``, and the size differs from that of random neurons by no
        more than a quarter (`ALIKE`).

    Raises
    ------
    ValueError
        There are no random sets, no target-blind selections or no rival; a rival has other random sets, another target
        or other numbers of neurons; or the result is one of `averaged`, whose random sets are sorted.

    Notes
    -----
    A choice by what neurons do to any target, whichever way, knows nothing of this target, and yet does more than random
    neurons of like size. "writes most" and a rival selected by the same procedure are there for it: without both, such
    choices are often called beyond all. "writes most" is left out where what
    neurons write is not known (`activations.moments`): then let the rival be of the same procedure.
    """
    needed = {f"null_{variable}", f"blind_{variable}", "magnitude", "null_magnitude"}
    if not needed <= set(result) or not result.sizes["null"]:
        raise ValueError("a verdict needs random sets and blind selections: give sweep nulls=40 or more, and moments=")
    if not rivals or isinstance(rivals, xr.Dataset):
        raise ValueError("a verdict needs rivals: {name: a sweep of neurons that were selected for something else}")
    whole = summary(result, variable, **where)
    selected = result[variable].sel(where)
    tested = "" if whole["n"].max() >= statistics.FEWEST else "_null"  # p and q over speakers too, or of sets alone

    names = {"null_mean": "effect", "difference_low": "low", "difference_high": "high"}
    names |= {f"p{tested}": "p", f"q{tested}": "q"}
    compared = {"random": whole[["difference", *names]].rename(names)}
    asked = compared["random"]["q"] < 0.05
    for control in _controls(result, rivals, variable, where):
        found = contrast(selected, control.effect, null=control.chance, sets=control.sets)
        p = found[f"p{tested}"].where(asked)
        effect = statistics.by_speaker(control.effect).mean("speaker")
        compared[control.name] = xr.Dataset(
            {"difference": found["mean"], "effect": effect, "low": found["low"], "high": found["high"], "p": p}
        ).assign(q=_false_discovery(p))
    controls = pd.Index(list(compared), name="control")
    out = xr.concat(compared.values(), controls, coords="minimal", compat="override")

    sizes = {"random": _picked(result["null_magnitude"], where).mean("null")}
    sizes |= {name: _picked(rival["magnitude"], where) for name, rival in rivals.items()}
    blind = _picked(result["blind_magnitude"], where)
    sizes |= {str(name): blind.sel(blind=name, drop=True) for name in blind["blind"].values}
    size = xr.concat([sizes[name] for name in controls], controls, coords="minimal", compat="override")
    out["ratio"] = _picked(result["magnitude"], where) / size
    out["selected"] = whole["mean"]

    over_random = out["ratio"].sel(control="random", drop=True)
    alike = (over_random <= ALIKE) & (over_random >= 1 / ALIKE)
    more = (np.sign(out["difference"]) == np.sign(out["selected"])).all("control")
    out["beyond"] = (out["q"] < 0.05).all("control") & more & alike
    return out.assign_attrs(result.attrs, variable=variable)


class _Control(NamedTuple):
    """What selected neurons are compared with in a `verdict`."""

    name: str
    effect: xr.DataArray  # [clip, layer, mode], what it does
    chance: xr.DataArray  # the same and `null`: differences of two random selections
    sets: int  # how many random sets those differences are of


def _controls(result, rivals, variable, where) -> list[_Control]:
    """The rivals and the target-blind selections."""
    null, found = result[f"null_{variable}"].sel(where), []
    sets = null.sizes["null"]
    if any("random_sets_sorted" in one.attrs for one in (result, *rivals.values())):
        raise ValueError("the random sets of averaged layers are sorted: no verdict on averages")
    for name, rival in rivals.items():
        theirs = rival[f"null_{variable}"].sel(where)
        alike = all(rival.attrs.get(key) == result.attrs.get(key) for key in ("seed", "size_classes", "part", "frames"))
        if theirs.sizes["null"] != sets or not alike:
            raise ValueError(f"{name} has other random sets: sweep it with the same nulls, size_classes and seed")
        aims, their_aims = (
            set(np.ravel(one["target"])) if "target" in one.coords else set() for one in (result, rival)
        )
        if aims and their_aims and aims != their_aims:
            raise ValueError(f"{name} was swept for the target {_listed(their_aims)}, and not for {_listed(aims)}")
        counts, their_counts = (_counts(one, where) for one in (result, rival))
        if counts and their_counts and counts != their_counts:
            raise ValueError(f"{name} has other numbers of neurons in its layers: select as many")
        found.append(_Control(name, rival[variable].sel(where), null - theirs, sets))
    blind = result[f"blind_{variable}"].sel(where)
    apart = between_random_sets(null, shared=_picked(result["null_overlap"], where))
    for name in blind["blind"].values:
        found.append(_Control(str(name), blind.sel(blind=name, drop=True), apart, sets))
    return found


def _listed(words):
    return ", ".join(sorted(map(str, words)))


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
    few = result["layer"].values[(sets < nulls.FEWEST).values].tolist()
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
    size = targets.average(scores["absolute"]).sel(layer=layer)
    return [neuron for neuron in size.sortby(-size)["neuron"].values.tolist() if neuron in set(neurons)]
