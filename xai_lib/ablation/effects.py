"""Effects of a sweep over speakers, compared with random neurons: tables and a report as text."""

import json
from functools import partial

import numpy as np
import xarray as xr

from .. import results, statistics
from ..activations import random_neurons

MAX_SIZE_RATIO = 1.25  # greatest ratio, in either direction, of the sizes of two edits that a `verdict` compares
READOUTS = {  # default of `report`: variable, its name, its unit
    "target_change": ("log-odds of the target", "nats"),
    "kl": ("divergence of the probabilities", "nats"),
    "changed": ("share of clips with another label", ""),
}


def summary(result, variable="target_change", *, against="random", **where) -> xr.Dataset:
    """Compute an effect over speakers, and its difference from that of random neurons.

    Parameters
    ----------
    result : Dataset
        As returned by `sweep`.
    variable : str
        One of its variables, such as "target_change", "kl" or "changed".
    against : {"random", "direction"}
        Random neurons, or random directions if the sweep had any.
    **where
        Selection along further dims: label="angry", readout_layer=6, proxy="rms".

    Returns
    -------
    Dataset [layer, mode]
        ``speakers`` [speaker, ...], the mean of each speaker; ``mean``, ``low``, ``high`` and ``n`` over them.
        ``difference``, selected neurons minus mean of the random sets, with ``difference_low`` and ``difference_high``,
        ``p_speakers``, ``p_random``, ``q_random``,
        ``p`` and ``q`` as in `contrast`: NaN without random sets, and where fewer than 20 different ones exist
        (`random_sets`). ``random_mean``, the chance level, and ``random_low`` to ``random_high``, outside of which a
        value would have ``p_random`` below 0.05, each averaged over the same speakers: NaN under 20 sets, which are too
        few for that.
    """
    selected, random = (
        result[variable].sel(where),
        result[f"{against}_{variable}"].sel(where).rename({against: "random"}),
    )
    units = statistics.by_speaker(selected)
    draws = statistics.by_speaker(random).mean("speaker")
    mean, centre = (
        values.mean("random") if values.sizes["random"] else values.sum("random") * np.nan for values in (draws, random)
    )
    enough = (
        xr.DataArray(True) if against == "direction" else _n_distinct_sets(result, where) >= random_neurons.MIN_SETS
    )
    band_dims = {"input_core_dims": [["random"]], "output_core_dims": [[], []]}
    low, high = xr.apply_ufunc(statistics.rank_band, draws.where(enough), **band_dims)
    out = statistics.over_speakers(units).assign(speakers=units, random_mean=mean, random_low=low, random_high=high)
    difference = contrast(selected, centre, random=(random - centre).where(enough)).drop_vars("n")
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    return out.assign(difference.rename(names)).assign_attrs(result.attrs, variable=variable)


def contrast(values, others, *, random=None, sets=None) -> xr.Dataset:
    """Compare two results over the same clips as pairs, with the speaker as the unit.

    Parameters
    ----------
    random : DataArray, optional
        Null distribution of the difference, centred on 0: of the same dims and `random`, the draws. A test over
        speakers takes the sets of neurons as fixed, so that any two sets differ given enough speakers; a claim about
        how a set was selected requires that its difference stand out from those between random sets too.
    sets : int, optional
        Number of random sets that the draws come from, if the draws are not independent (`between_random_sets`).

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p_speakers`` of the t test over speakers, NaN
        below 8. With `random`, ``p_random``, the rank among the draws, for any number of speakers, and ``q_random``,
        corrected over all dims but `mode` by the greatest of each draw (`statistics.rank_test`). ``p``, the larger of
        ``p_speakers`` and ``p_random``: both must be small. ``q``, corrected over the same dims: the larger of
        ``q_random`` and Benjamini–Hochberg's of ``p_speakers``. Modes are corrected for separately.
    """
    clips = [
        set(data["clip"].values) for data in (values, others) if isinstance(data, xr.DataArray) and "clip" in data.dims
    ]
    if len(clips) > 1 and clips[0] != clips[1]:
        raise ValueError("the two results are of different clips and cannot be paired: pass results of the same clips")
    units = statistics.by_speaker(values - others)
    out = statistics.over_speakers(units)
    last_axis = {"kwargs": {"axis": -1}}
    out["p_speakers"] = xr.apply_ufunc(statistics.t_test, units, input_core_dims=[["speaker"]], **last_axis)
    family = [dim for dim in out["mean"].dims if dim != "mode"]
    out["p"], out["q"] = out["p_speakers"], _false_discovery(out["p_speakers"])
    if random is not None:
        draws = statistics.by_speaker(random).mean("speaker").broadcast_like(out["mean"])
        dims = {
            "input_core_dims": [family, [*family, "random"]],
            "output_core_dims": [family, family],
            "vectorize": True,
        }
        rank_test = partial(statistics.rank_test, draws=sets)
        out["p_random"], out["q_random"] = xr.apply_ufunc(rank_test, out["mean"], draws, **dims)
        out["p"], out["q"] = np.maximum(out["p"], out["p_random"]), np.maximum(out["q"], out["q_random"])
    return out.map(lambda variable: variable.transpose(*out["mean"].dims, ...))


def _selected_neurons(result, where) -> dict:
    """Return the selected neurons, {layer: neurons}, of the selection and number that `where` or the result picks."""
    listed = json.loads(result.attrs.get("neurons", "{}"))
    for dim in ("selected", "k"):
        only = result[dim].item() if dim in result.coords and result[dim].ndim == 0 else None
        pick = where.get(dim, only)
        if dim in result.dims and pick is None:
            raise ValueError(f"the result has several values along {dim}: pick one, {dim}=…")
        listed = listed.get(str(pick), listed)
    return {int(layer): neurons for layer, neurons in listed.items() if str(layer).isdigit()}


def _neuron_counts(result, where) -> dict:
    """Return the number of selected neurons of each layer; {} if the result does not record them."""
    return {layer: len(neurons) for layer, neurons in _selected_neurons(result, where).items()}


def _false_discovery(p):
    """Compute Benjamini and Hochberg's q over all dims but `mode`."""
    family = [dim for dim in p.dims if dim != "mode"]
    dims = {"input_core_dims": [family], "output_core_dims": [family], "vectorize": True}
    return xr.apply_ufunc(statistics.fdr, p, **dims).transpose(*p.dims)


def _n_distinct_sets(result, where):
    """Return how many different random sets exist; infinitely many if the result does not record it."""
    return _select(result.get("random_sets", xr.DataArray(np.inf)), where)


def _select(values, where):
    """Select by those entries of `where` whose dims `values` has."""
    return values.sel({dim: pick for dim, pick in where.items() if dim in values.dims})


def recognition(result) -> xr.Dataset:
    """Compute the recall of each emotion, and their mean, the UAR, clean and edited.

    Returns
    -------
    Dataset
        ``uar`` and ``recall`` [..., emotion] with the dims of the sweep but `clip`; ``clean_uar``, ``clean_recall``;
        and ``random_uar``. Over the clips whose true label the model knows.

    Raises
    ------
    ValueError
        The model knows the label of no clip.
    """
    if "correct" not in result or result["correct"].isnull().all():
        raise ValueError("no clip has a label that the model knows: recall is not defined")
    recognized = {}
    for prefix in ("", "clean_", "random_"):
        if f"{prefix}correct" in result:
            known = result[f"{prefix}correct"].dropna("clip", how="all")
            recall = known.groupby("emotion").mean()
            recognized |= {f"{prefix}recall": recall, f"{prefix}uar": recall.mean("emotion")}
    recognized.pop("random_recall", None)
    return xr.Dataset(recognized)


def patching_effect(result) -> xr.Dataset:
    """Compute the patching effect: the fraction recovered of the logit difference between the clip and its donor.

    The logit difference is that of the donor's and the clip's labels. The fraction is 0 if the decision stays with the
    clip's true label, 1 if the patched neurons carry all that distinguishes the donor from it. It is a ratio of sums
    over speakers, since a clip whose donor hardly differs is uninformative; the value of a speaker is the overall
    fraction, R, plus the speaker's deviation from it, (moved − R · whole) / mean whole, so that intervals are those of
    a ratio (the delta method).

    Returns
    -------
    Dataset
        ``fraction_recovered`` and ``random_fraction_recovered`` for `summary`, with a `clip` for each speaker.

    Raises
    ------
    ValueError
        The sweep had no donors, or the model does not know their labels.
    """
    if "donor_logits" not in result:
        raise ValueError("nothing was patched: run sweep with modes=('patch',) and donors=donors.minimal_pairs(…)")

    def logit_of(logits, name):
        lacking = set(result[name].values) - set(result["label"].values)
        if lacking:
            raise ValueError(f"the model does not know the label {lacking.pop()!r}")
        return logits.sel(label=result[name].drop_vars([*result[name].coords]), drop=True)

    def logit_difference(logits):
        return logit_of(logits, "donor_label") - logit_of(logits, "emotion")

    clean, fractions = logit_difference(result["clean_logits"]), {}
    whole = statistics.by_speaker(logit_difference(result["donor_logits"]) - clean)
    for prefix in ("", "random_"):
        moved = statistics.by_speaker(logit_difference(result[f"{prefix}logits"]) - clean)
        overall = moved.sum("speaker") / whole.sum("speaker")
        fractions[f"{prefix}fraction_recovered"] = (overall + (moved - overall * whole) / whole.mean("speaker")).rename(
            speaker="clip"
        )
    names = whole["speaker"].values
    fractions |= {name: result[name] for name in ("random_overlap", "random_sets") if name in result}
    by_speaker = xr.Dataset(fractions).assign_coords(clip=np.arange(len(names)), speaker=("clip", names))
    return by_speaker.assign_attrs(result.attrs)


def average_over_layers(result, groups) -> xr.Dataset:
    """Average over the layers of each group, {name: layers}, each layer edited by itself: dim `group` for `layer`.

    The random sets differ from layer to layer, so that their mean would vary less than that of the selected neurons,
    many of which are selected in several layers. They are therefore sorted within each layer first, by their mean over
    clips: the smallest of all layers are averaged together, and so on, which is the widest possible null distribution.
    """
    ordered = {}
    for name, values in result.data_vars.items():
        if name.startswith("random_") and {"clip", "random"} <= set(values.dims):
            order = values.mean("clip").fillna(np.inf).argsort(values.mean("clip").dims.index("random"))
            ordered[name] = values.isel(random=order).drop_vars("random", errors="ignore")
    result = result.assign(ordered)
    means = [result.sel(layer=list(layers)).mean("layer", keep_attrs=True) for layers in groups.values()]
    grouped = xr.concat(means, "group", combine_attrs="override").assign_coords(group=list(groups))
    return grouped.assign_attrs(random_sets_sorted="in each layer")


def distance(result, variable="relative_change") -> xr.DataArray:
    """Average an effect over equal distances from the edited layer to the readout layer: [distance, ...]."""
    layers_apart = result["readout_layer"] - result["layer"]
    distances = range(int(layers_apart.max()) + 1)
    means = [result[variable].where(layers_apart == n).mean(["layer", "readout_layer"]) for n in distances]
    return xr.concat(means, "distance").assign_coords(distance=list(distances))


def report(result, scores=None, *, readouts=READOUTS, top=5, **where) -> str:
    """Describe in text, for each readout, the layer where the edit exceeds random neurons most, or that there is none.

    The interval is that of the layer with the greatest effect, on the same clips, and therefore slightly optimistic.
    Readouts that could not be tested share one line for each mode and reason, and so do layers with too few random
    sets.

    Parameters
    ----------
    result : Dataset
        As returned by `ablation.sweep`, with the dims clip, layer, mode (others selected by `where`).
    scores : Dataset, optional
        Scores by which the neurons were selected: the `top` of them are named.
    readouts : dict
        {variable, or (variable, selection along its further dims): (name, unit)}.
    """
    if "layer" not in result.dims:
        raise ValueError("a report needs the dim 'layer': this sweep has groups of layers, or one layer only")
    lines, listed = [], _selected_neurons(result, where)
    untested: dict[tuple, list] = {}
    sets = _n_distinct_sets(result, where).broadcast_like(result["layer"])
    few = result["layer"].values[(sets < random_neurons.MIN_SETS).values].tolist()
    for key, (name, unit) in readouts.items():
        variable, picks = key if isinstance(key, tuple) else (key, {})
        effects = summary(result, variable, **where, **dict(picks))
        if set(effects["mean"].dims) != {"layer", "mode"}:
            raise ValueError(
                f"{variable} has further dims, {', '.join(set(effects['mean'].dims) - {'layer', 'mode'})}: "
                "select one value of each, as in readout_layer=6"
            )
        for mode in effects["mode"].values:
            by_layer = effects.sel(mode=mode)
            tested, significant = by_layer["q"].notnull(), by_layer["q"] < 0.05
            if not tested.any():
                reason = _reason_untested(result, effects, len(few) == tested.size)
                untested.setdefault((mode, reason), []).append(name)
            elif not significant.any():
                lines.append(f"{mode}, {name}: none beyond random neurons, in {_count(int(tested.sum()), 'layer')}")
            else:
                best = by_layer.isel(layer=int(np.abs(by_layer["difference"]).where(significant).argmax("layer")))
                layer = int(best["layer"])
                size = _interval(*(float(best[f"difference{end}"]) for end in ("", "_low", "_high")))
                size = f"{size} {unit}".rstrip()
                q = f"q = {best['q']:.3f}" if best["q"] >= 0.001 else "q < 0.001"
                lines.append(f"{mode}, {name}: most in layer {layer}, {size} beyond random neurons ({q})")
                if scores is not None:
                    first = _strongest(scores, layer, listed[layer])[:top]
                    heading = "its first neurons" if len(first) > 1 else "its first neuron"
                    lines[-1] += f"; {heading} by attribution: {', '.join(map(str, first))}"
    for (mode, reason), names in untested.items():
        others = f" and {_count(len(names) - 1, 'more readout')}" if len(names) > 1 else ""
        lines.append(f"{mode}, {names[0]}{others}: {reason}")
    if 0 < len(few) < result.sizes["layer"]:
        noun = "layers" if len(few) > 1 else "layer"
        lines.append(f"no test (too few different random sets exist) in {noun} {', '.join(map(str, few))}")
    return "\n".join(lines)


def _count(n, noun):
    return f"{n} {noun}{'s' * (n != 1)}"


def _reason_untested(result, effects, few):
    """Return why no layer could be tested; `few`: whether too few different random sets exist in all of them."""
    speakers, sets = int(effects["n"].max()), result.sizes.get("random", 0)
    if speakers < statistics.MIN_SPEAKERS:
        return f"no test, {_count(speakers, 'speaker')} of the {statistics.MIN_SPEAKERS} that are needed"
    if not sets:
        return "no test, there are no random sets"
    return "no test, too few different random sets exist" if few else "no test, values are missing in some random sets"


def _interval(mean, low, high):
    """Format as "+3500 [+2800, +4300]": two significant figures of the largest, the others to the same digit."""
    largest = max(map(abs, (mean, low, high)))
    digits = 1 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    mean, low, high = (f"{round(value, digits) + 0.0:+.{max(digits, 0)}f}" for value in (mean, low, high))
    return f"{mean} [{low}, {high}]"


def _strongest(scores, layer, neurons):
    """Return the selected neurons of a layer, strongest first."""
    size = results.average(scores["absolute"]).sel(layer=layer)
    return [neuron for neuron in size.sortby(-size)["neuron"].values.tolist() if neuron in set(neurons)]
