"""Effects of a sweep over speakers, compared with random neurons: tables, and a report as text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pandas as pd
import xarray as xr

from .. import results, statistics
from ..activations import random_neurons
from .controls import SELECTED

MAX_SIZE_RATIO = 1.25  # greatest ratio, in either direction, of the sizes of two edits that a `verdict` compares
SIGNIFICANT = 0.05  # q below which an effect counts as significant
READOUTS = {  # default of `strongest_layers` and `report`: variable, its name, its unit
    "target_change": ("log-odds of the target", "nats"),
    "kl": ("divergence of the probabilities", "nats"),
    "changed": ("share of clips with another label", ""),
}


def selected_values(values: xr.DataArray) -> xr.DataArray:
    """Return the values of the selected neurons, of a result with the dim `neuron_set`."""
    _require_neuron_sets(values)
    return values.sel(neuron_set=SELECTED).drop_vars(["neuron_set", "kind"], errors="ignore")


def control_values(values: xr.DataArray, kind: str) -> xr.DataArray:
    """Return the values of all controls of a kind ("random", "direction", "target-blind"), along a dim of that name."""
    if kind not in ("random", "direction", "target-blind"):
        raise ValueError(f"unknown kind of control {kind!r}: the kinds are random, direction and target-blind")
    _require_neuron_sets(values)
    is_of_kind = values["kind"].values == kind
    of_kind = values.isel(neuron_set=np.flatnonzero(is_of_kind))
    return of_kind.drop_vars("kind").rename(neuron_set=kind)


def _require_neuron_sets(values) -> None:
    """Raise ValueError unless values are of neuron sets, the selected neurons among them, each of one kind."""
    if not isinstance(values, (xr.DataArray, xr.Dataset)) or "neuron_set" not in values.dims:
        raise ValueError("these values are not of neuron sets: pass a result of ablation.sweep, or a variable of it")
    if SELECTED not in values["neuron_set"].values:
        raise ValueError("the selected neurons are missing: pass a result with neuron_set='selected' in it")
    if "kind" not in values.coords or values["kind"].dims != ("neuron_set",):
        raise ValueError(
            "the coordinate kind [neuron_set] is missing, or neuron sets are of other kinds in other sweeps: join "
            "sweeps of the same controls only"
        )


def effect_over_speakers(
    result: xr.Dataset, variable: str = "target_change", *, against="random", **where
) -> xr.Dataset:
    """Compute an effect over speakers, and its difference from that of random neurons.

    Parameters
    ----------
    result : Dataset
        As returned by `sweep`.
    variable : str
        One of its variables, such as "target_change", "kl" or "changed".
    against : {"random", "direction", "target-blind"}
        Kind of the controls: random neurons; or, if the sweep had any, random directions or target-blind selections.
    **where
        Selection along further dims: label="angry", readout_layer=6, proxy="rms".

    Returns
    -------
    Dataset [layer, mode]
        ``speakers`` [speaker, ...], the mean of each speaker; ``mean``, ``low``, ``high`` and ``n`` over them.
        ``difference``, selected neurons minus mean of the random sets, with ``difference_low`` and ``difference_high``,
        ``p_speakers``, ``p_random``, ``q_random``,
        ``p`` and ``q`` as in `contrast`: NaN without random sets, and where fewer than 20 different ones exist
        (`n_random_sets`). ``random_mean``, the chance level, and ``random_low`` to ``random_high``, outside of which a
        value would have ``p_random`` below 0.05, each averaged over the same speakers: NaN under 20 sets, which are too
        few for that.
    """
    _require_variable(result, variable)
    values = result[variable].sel(where)
    selected = selected_values(values)
    controls = control_values(values, against).rename({against: "random"})

    of_speakers = statistics.by_speaker(selected)
    controls_over_speakers = statistics.by_speaker(controls).mean("speaker")
    if controls.sizes["random"]:
        chance_level = controls_over_speakers.mean("random")
        centre = controls.mean("random")
    else:
        chance_level = controls_over_speakers.sum("random") * np.nan
        centre = controls.sum("random") * np.nan

    enough = xr.DataArray(True)
    if against != "direction":
        enough = _n_distinct_sets(result, where) >= random_neurons.MIN_SETS
    band_dims = {"input_core_dims": [["random"]], "output_core_dims": [[], []]}
    low, high = xr.apply_ufunc(statistics.rank_band, controls_over_speakers.where(enough), **band_dims)

    null_distribution = (controls - centre).where(enough)
    difference = contrast(selected, centre, null_distribution=null_distribution).drop_vars("n")
    names = {"mean": "difference", "low": "difference_low", "high": "difference_high"}
    effect = statistics.over_speakers(of_speakers)
    effect = effect.assign(speakers=of_speakers, random_mean=chance_level, random_low=low, random_high=high)
    return effect.assign(difference.rename(names)).assign_attrs(result.attrs, variable=variable)


def _require_variable(result, variable):
    """Raise ValueError, with the variables that there are, unless one is measured in clips for each set of neurons."""
    variables = [name for name, values in result.items() if {"clip", "neuron_set"} <= set(values.dims)]
    if variable not in variables:
        raise ValueError(f"unknown variable {variable!r}: this result has {', '.join(map(str, variables))}")


def summary(result: xr.Dataset, variable: str = "target_change", *, against="random", **where) -> pd.DataFrame:
    """Tabulate an effect over speakers, beside that of random neurons, with a row for each layer, mode and further dim.

    The parameters are those of `effect_over_speakers`.

    Returns
    -------
    DataFrame
        ``mean``, ``low`` and ``high`` over ``n`` speakers; ``random_mean``, the chance level, and ``random_low`` to
        ``random_high``, the band in which random sets lie; ``p`` and ``q`` of the difference from random sets, and
        ``significant``, whether q is below 0.05 (False where there is no test).

    Examples
    --------
    >>> from xai_lib import ablation, corpora, models
    >>> test = corpora.balanced(corpora.load("sample"), 8)
    >>> selection = ablation.Selection({2: [7, 11], 4: [3]})
    >>> result = ablation.sweep(models.load("pocket"), test, selection, controls=None, target="angry")
    >>> ablation.summary(result)[["n", "significant"]]
                n  significant
    layer mode
    2     flip  8        False
    4     flip  8        False
    """
    effect = effect_over_speakers(result, variable, against=against, **where)
    columns = ["mean", "low", "high", "n", "random_mean", "random_low", "random_high", "p", "q"]
    table = effect[columns].reset_coords(drop=True)
    if not table.dims:
        return table.to_pandas().to_frame().T.assign(significant=bool(table["q"] < SIGNIFICANT))
    frame = table.to_dataframe()[columns]
    return frame.assign(significant=frame["q"] < SIGNIFICANT)


def contrast(values, others, *, null_distribution=None, n_sets=None) -> xr.Dataset:
    """Compare two results over the same clips as pairs, with the speaker as the unit.

    Parameters
    ----------
    null_distribution : DataArray, optional
        Null distribution of the difference, centred on 0: of the same dims and `random`, the draws. A test over
        speakers takes the sets of neurons as fixed, so that any two sets differ given enough speakers; a claim about
        how a set was selected requires that its difference stand out from those between random sets too.
    n_sets : int, optional
        Number of random sets that the draws come from, if the draws are not independent (`between_random_sets`).

    Returns
    -------
    Dataset
        ``mean``, ``low``, ``high``, ``n`` of the speakers' differences; ``p_speakers`` of the t test over speakers, NaN
        below 8. With `null_distribution`, ``p_random``, the rank among the draws, for any number of speakers, and
        ``q_random``, corrected over all dims but `mode` by the greatest of each draw (`statistics.rank_test`). ``p``,
        the larger of ``p_speakers`` and ``p_random``: both must be small. ``q``, corrected over the same dims: the
        larger of ``q_random`` and Benjamini–Hochberg's of ``p_speakers``. Modes are corrected for separately.
    """
    _require_same_clips(values, others)
    differences = statistics.by_speaker(values - others)
    out = statistics.over_speakers(differences)
    out["p_speakers"] = xr.apply_ufunc(
        statistics.t_test, differences, input_core_dims=[["speaker"]], kwargs={"axis": -1}
    )
    out["p"] = out["p_speakers"]
    out["q"] = false_discovery(out["p_speakers"])

    if null_distribution is not None:
        draws = statistics.by_speaker(null_distribution).mean("speaker").broadcast_like(out["mean"])
        family = [dim for dim in out["mean"].dims if dim != "mode"]
        out["p_random"], out["q_random"] = xr.apply_ufunc(
            partial(statistics.rank_test, draws=n_sets),
            out["mean"],
            draws,
            input_core_dims=[family, [*family, "random"]],
            output_core_dims=[family, family],
            vectorize=True,
        )
        out["p"] = np.maximum(out["p"], out["p_random"])
        out["q"] = np.maximum(out["q"], out["q_random"])
    return out.map(lambda variable: variable.transpose(*out["mean"].dims, ...))


def _require_same_clips(values, others) -> None:
    """Raise ValueError where both are results of clips, and the clips differ; or one is of several neuron sets."""
    for data in (values, others):
        if isinstance(data, (xr.DataArray, xr.Dataset)) and "neuron_set" in data.dims:
            raise ValueError("a contrast is of one neuron set: pass ablation.selected_values(values)")
    for data in (values, others):
        if not isinstance(data, xr.DataArray) or "clip" not in data.dims:
            return
    if set(values["clip"].values) != set(others["clip"].values):
        raise ValueError("the two results are of different clips and cannot be paired: pass results of the same clips")


def selected_neurons(result: xr.Dataset, **where) -> dict[int, list[int]]:
    """Return the selected neurons that a result records, {layer: neurons}; {} where it records none.

    Raises
    ------
    ValueError
        The result joins different selections, and `where` does not select one.
    """
    if "is_selected" not in result:
        return {}
    is_selected = select_where(result["is_selected"], where).fillna(0).astype(bool)  # NaN where joined by "outer"
    layer_dim = "edited_layer" if "edited_layer" in is_selected.coords else "layer"
    if layer_dim not in is_selected.coords:
        return {}
    for dim in sorted(set(is_selected.dims) - {"group", layer_dim, "neuron"}):
        first = is_selected.isel({dim: 0}, drop=True)
        if (is_selected != first).any():
            raise ValueError(f"this result joins selections along {dim}: select one value of it first")
        is_selected = first
    neurons = {}
    for layer in np.atleast_1d(is_selected[layer_dim].values):
        of_layer = is_selected if layer_dim not in is_selected.dims else is_selected.sel({layer_dim: layer})
        in_any_group = of_layer.any("group") if "group" in of_layer.dims else of_layer
        if in_any_group.any():
            neurons[int(layer)] = np.flatnonzero(in_any_group).tolist()
    return neurons


def false_discovery(p: xr.DataArray) -> xr.DataArray:
    """Compute Benjamini and Hochberg's q over all dims but `mode`."""
    family = [dim for dim in p.dims if dim != "mode"]
    dims = {"input_core_dims": [family], "output_core_dims": [family], "vectorize": True}
    return xr.apply_ufunc(statistics.fdr, p, **dims).transpose(*p.dims)


def _n_distinct_sets(result, where):
    """Return how many different random sets exist; infinitely many if the result does not record it."""
    return select_where(result.get("n_random_sets", xr.DataArray(np.inf)), where)


def select_where(values: xr.DataArray, where: Mapping) -> xr.DataArray:
    """Select by those entries of `where` whose dims `values` has."""
    return values.sel({dim: label for dim, label in where.items() if dim in values.dims})


def recognition(result: xr.Dataset) -> xr.Dataset:
    """Compute the recall of each emotion, and their mean, the UAR, clean and edited.

    Returns
    -------
    Dataset
        ``recall`` [emotion, ...] and ``uar`` [...] with the dims of the sweep but `clip`;
        ``clean_recall`` and ``clean_uar``. Over the clips whose true label the model knows.

    Raises
    ------
    ValueError
        The model knows the label of no clip.
    """
    if "correct" not in result or result["correct"].isnull().all():
        raise ValueError("no clip has a label that the model knows: recall is not defined")
    recognized = xr.Dataset()
    for prefix in ("", "clean_"):
        known = result[f"{prefix}correct"].dropna("clip", how="all")
        recall = known.groupby("emotion").mean()
        recognized[f"{prefix}recall"] = recall
        recognized[f"{prefix}uar"] = recall.mean("emotion")
    return recognized


def patching_effect(result: xr.Dataset) -> xr.Dataset:
    """Compute the patching effect: the fraction recovered of the logit difference between the clip and its donor.

    The logit difference is that of the donor's and the clip's labels. The fraction is 0 if the decision stays with the
    clip's true label, 1 if the patched neurons carry all that distinguishes the donor from it. It is a ratio of sums
    over speakers, since a clip whose donor hardly differs is uninformative; the value of a speaker is the overall
    fraction, R, plus the speaker's deviation from it, (moved − R · whole) / mean whole, so that intervals are those of
    a ratio (the delta method).

    Returns
    -------
    Dataset
        ``fraction_recovered`` [clip, ..., neuron_set] for `summary`, with a `clip` for each speaker.

    Raises
    ------
    ValueError
        The sweep had no donors, or the model does not know their labels.
    """
    if "donor_logits" not in result:
        raise ValueError("nothing was patched: run sweep with Edit(modes=('patch',), donors=donors.minimal_pairs(…))")

    def logit_of(logits, coordinate):
        lacking = set(result[coordinate].values) - set(result["label"].values)
        if lacking:
            raise ValueError(f"the model does not know the label {lacking.pop()!r}")
        labels_of_clips = result[coordinate].drop_vars([*result[coordinate].coords])
        return logits.sel(label=labels_of_clips, drop=True)

    def logit_difference(logits):
        return logit_of(logits, "donor_label") - logit_of(logits, "emotion")

    clean = logit_difference(result["clean_logits"])
    whole = statistics.by_speaker(logit_difference(result["donor_logits"]) - clean)
    moved = statistics.by_speaker(logit_difference(result["logits"]) - clean)
    overall = moved.sum("speaker") / whole.sum("speaker")
    fraction = overall + (moved - overall * whole) / whole.mean("speaker")

    speakers = whole["speaker"].values
    recovered = xr.Dataset({"fraction_recovered": fraction.rename(speaker="clip")})
    for name in ("random_overlap", "n_random_sets"):
        if name in result:
            recovered[name] = result[name]
    recovered = recovered.assign_coords(clip=np.arange(len(speakers)), speaker=("clip", speakers))
    return recovered.assign_attrs(result.attrs)


def average_over_layers(result: xr.Dataset, groups: Mapping[str, Sequence[int]]) -> xr.Dataset:
    """Average over the layers of each group, {name: layers}, each layer edited by itself: dim `group` for `layer`.

    The random sets differ from layer to layer, so that their mean would vary less than that of the selected neurons,
    many of which are selected in several layers. They are therefore sorted within each layer first, by their mean over
    clips: the smallest of all layers are averaged together, and so on, which is the widest possible null distribution.
    """
    random_positions = np.flatnonzero(result["kind"].values == "random")
    core_dims = ["clip", "neuron_set"]
    sorted_result = result.drop_vars(["is_selected", "neuron"], errors="ignore")
    for name, values in result.data_vars.items():
        if set(core_dims) <= set(values.dims):
            in_order = xr.apply_ufunc(
                _sort_sets,
                values,
                input_core_dims=[core_dims],
                output_core_dims=[core_dims],
                kwargs={"positions": random_positions},
            )
            sorted_result[name] = in_order.transpose(*values.dims)

    means = [sorted_result.sel(layer=list(layers)).mean("layer", keep_attrs=True) for layers in groups.values()]
    grouped = xr.concat(means, "group", combine_attrs="override").assign_coords(group=list(groups))
    return grouped.assign_attrs(random_sets_sorted="in each layer")


def _sort_sets(values: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """Sort the sets at some positions of the last axis, [..., clip, neuron_set], by their mean over clips; NaN last."""
    random = values[..., positions]
    valid = np.isfinite(random)
    total = np.where(valid, random, 0).sum(axis=-2)
    n_valid = valid.sum(axis=-2)
    means = np.where(n_valid > 0, total / np.maximum(n_valid, 1), np.inf)
    order = np.argsort(means, axis=-1)
    in_order = values.copy()
    in_order[..., positions] = np.take_along_axis(random, order[..., None, :], axis=-1)
    return in_order


def distance(result: xr.Dataset, variable: str = "relative_change") -> xr.DataArray:
    """Average an effect over equal distances from the edited layer to the readout layer: [distance, ...]."""
    layers_apart = result["readout_layer"] - result["layer"]
    distances = range(int(layers_apart.max()) + 1)
    means = [result[variable].where(layers_apart == n).mean(["layer", "readout_layer"]) for n in distances]
    return xr.concat(means, "distance").assign_coords(distance=list(distances))


@dataclass(frozen=True)
class _StrongestLayer:
    """The layer in which one readout differs most from random neurons, in one mode; or why there is none."""

    mode: str
    readout: str
    unit: str
    n_tested: int  # layers that could be tested
    reason: str = ""  # why no layer could be tested
    layer: int | None = None
    difference: float = np.nan
    low: float = np.nan
    high: float = np.nan
    q: float = np.nan


def strongest_layers(result: xr.Dataset, *, readouts: Mapping = READOUTS, **where) -> pd.DataFrame:
    """Find, for each mode and readout, the layer where the edit exceeds random neurons most.

    The interval is that of the layer with the greatest effect, on the same clips, and therefore slightly optimistic.

    Parameters
    ----------
    result : Dataset
        As returned by `ablation.sweep`, with the dims clip, layer, mode and neuron_set (others selected by `where`).
    readouts : dict
        {variable, or (variable, selection along its further dims): (name, unit)}.

    Returns
    -------
    DataFrame
        A row for each mode and readout: ``layer`` with the greatest significant ``difference`` from random neurons,
        its ``low``, ``high`` and ``q``, missing where none is significant; ``n_tested``, layers that could be tested,
        and ``reason``, why none could.
    """
    rows = []
    for readout, (name, unit) in readouts.items():
        variable, further_dims = readout if isinstance(readout, tuple) else (readout, {})
        effect = effect_over_speakers(result, variable, **where, **dict(further_dims))
        if set(effect["mean"].dims) != {"layer", "mode"}:
            raise ValueError(
                f"{variable} has further dims, {', '.join(set(effect['mean'].dims) - {'layer', 'mode'})}: "
                "select one value of each, as in readout_layer=6"
            )
        for mode in effect["mode"].values:
            by_layer = effect.sel(mode=mode)
            rows.append(_strongest_layer(by_layer, str(mode), name, unit, _reason_untested(result, effect, where)))
    return pd.DataFrame(rows)


def _strongest_layer(by_layer: xr.Dataset, mode: str, name: str, unit: str, reason: str) -> _StrongestLayer:
    """Return the layer of the greatest significant difference among those of one mode, [layer]."""
    n_tested = int(by_layer["q"].notnull().sum())
    significant = by_layer["q"] < SIGNIFICANT
    if not n_tested:
        return _StrongestLayer(mode, name, unit, n_tested, reason)
    if not significant.any():
        return _StrongestLayer(mode, name, unit, n_tested)
    greatest = by_layer.isel(layer=int(np.abs(by_layer["difference"]).where(significant).argmax("layer")))
    return _StrongestLayer(
        mode,
        name,
        unit,
        n_tested,
        layer=int(greatest["layer"]),
        difference=float(greatest["difference"]),
        low=float(greatest["difference_low"]),
        high=float(greatest["difference_high"]),
        q=float(greatest["q"]),
    )


def _reason_untested(result, effect, where) -> str:
    """Return why no layer could be tested."""
    n_speakers = int(effect["n"].max())
    if n_speakers < statistics.MIN_SPEAKERS:
        return f"no test, {_count(n_speakers, 'speaker')} of the {statistics.MIN_SPEAKERS} that are needed"
    if not (result["kind"] == "random").any():
        return "no test, there are no random sets"
    if (_n_distinct_sets(result, where) < random_neurons.MIN_SETS).all():
        return "no test, too few different random sets exist"
    return "no test, values are missing in some random sets"


def report(result: xr.Dataset, scores=None, *, readouts: Mapping = READOUTS, top: int = 5, **where) -> str:
    """Describe in text what `strongest_layers` finds.

    Readouts that could not be tested share one line for each mode and reason, and so do layers with too few random
    sets. With `scores`, by which the neurons were selected, the `top` of them are named.
    """
    if "layer" not in result.dims:
        raise ValueError("a report needs the dim 'layer': this sweep has groups of layers, or one layer only")
    table = strongest_layers(result, readouts=readouts, **where)
    neurons = {} if scores is None else selected_neurons(result, **where)
    if scores is not None and not neurons:
        raise ValueError("this result does not record its neurons, so that none can be named: leave scores out")
    lines = []
    for row in table[table["n_tested"] > 0].itertuples():
        if pd.isna(row.layer):
            lines.append(f"{row.mode}, {row.readout}: none beyond random neurons, in {_count(row.n_tested, 'layer')}")
            continue
        size = f"{_interval(row.difference, row.low, row.high)} {row.unit}".rstrip()
        q = f"q = {row.q:.3f}" if row.q >= 0.001 else "q < 0.001"
        line = f"{row.mode}, {row.readout}: most in layer {int(row.layer)}, {size} beyond random neurons ({q})"
        if scores is not None:
            first = _strongest(scores, int(row.layer), neurons[int(row.layer)])[:top]
            heading = "its first neurons" if len(first) > 1 else "its first neuron"
            line = f"{line}; {heading} by attribution: {', '.join(map(str, first))}"
        lines.append(line)

    for (mode, reason), rows in table[table["n_tested"] == 0].groupby(["mode", "reason"], sort=False):
        first, *others = rows["readout"]
        more = f" and {_count(len(others), 'more readout')}" if others else ""
        lines.append(f"{mode}, {first}{more}: {reason}")

    n_sets = _n_distinct_sets(result, where).broadcast_like(result["layer"])
    untested = result["layer"].values[(n_sets < random_neurons.MIN_SETS).values].tolist()
    if 0 < len(untested) < result.sizes["layer"]:
        noun = "layers" if len(untested) > 1 else "layer"
        lines.append(f"no test (too few different random sets exist) in {noun} {', '.join(map(str, untested))}")
    return "\n".join(lines)


def _count(n: int, noun: str) -> str:
    """Return a number and its noun, in the plural but for 1."""
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"


def _interval(mean: float, low: float, high: float) -> str:
    """Format as "+3500 [+2800, +4300]": two significant figures of the largest, the others to the same digit."""
    largest = max(abs(mean), abs(low), abs(high))
    digits = 1 - int(np.floor(np.log10(largest))) if largest > 0 else 0
    texts = [f"{round(value, digits) + 0.0:+.{max(digits, 0)}f}" for value in (mean, low, high)]
    return f"{texts[0]} [{texts[1]}, {texts[2]}]"


def _strongest(scores, layer: int, neurons: Sequence[int]) -> list[int]:
    """Return the selected neurons of a layer, strongest first."""
    size = results.average(scores["absolute"]).sel(layer=layer)
    ranked = size.sortby(-size)["neuron"].values.tolist()
    return [neuron for neuron in ranked if neuron in set(neurons)]
