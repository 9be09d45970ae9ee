"""Contrasts of each neuron between two kinds of clips: an emotion and all others, women and men, strong and normal.

How well a neuron separates the clips is computed over clips; whether the difference is significant, over speakers.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import results, statistics
from ..activations import activations
from ..corpora import as_clips
from ..corpora.filenames import ordered
from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model

CELL = ("label", "intensity", "statement")  # coordinates in which compared clips agree: the last is dropped first


def activation_contrast(
    model: Model,
    clips,
    *,
    target: str | Sequence[str],
    layers: str | int | Sequence[int] = "all",
    part: str = "hidden_state",
    frames: str = "speech",
    sample_rate: int | None = None,
) -> xr.Dataset:
    """Compare each neuron's activation between the clips labelled with an emotion and all others.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str or pair
        A label of the clips, which the model need not know, against all others; or two, such as ("angry", "calm").
    layers, part, frames
        As in `activations.activations`: each clip counts with its mean over those frames.

    Returns
    -------
    Dataset
        As returned by `compare`.

    Raises
    ------
    ValueError
        No clip, or every clip, has this label; an unknown layer, part or frames; no usable clip.
    """
    require_model(model)
    clips = as_clips(clips, sample_rate)
    a, b = target if isinstance(target, (tuple, list)) else (target, None)
    if "label" not in clips:
        raise ValueError("the clips have no column 'label', which activation_contrast needs: add it")
    _sides(clips["label"], "label", a, b)  # fail before the pass over the clips
    result = activations(model, clips, model.sites(part, layers), frames=frames)
    return compare(result, "label", a, b).assign_attrs(method="activation_contrast")


def compare(result: xr.Dataset, column: str, a, b=None) -> xr.Dataset:
    """Compare each neuron between the clips where `column` is `a` and those where it is `b`, or any other value.

    Compared clips agree in what else is known of them: emotion, intensity, statement. The comparison is made within
    each speaker (for emotion, intensity) if 8 speakers have clips of both kinds, or half of the speakers of the rarer
    kind. Otherwise (for sex) it is made between the speakers, in cells that both groups have, without the few speakers
    who have clips of both kinds: each speaker counts with an effect, fitted to the mean of every speaker in every cell
    as speaker + cell. So no speaker differs by having more clips, or other cells, than others: where all have all
    cells, the effects are the speakers' means. Speakers whom no cells connect to most others are left out. If so many
    speakers do not agree in all three, as few of the three as possible are dropped, the statement before the intensity,
    and that before the emotion: `cell` in the attrs names those that remain.

    Parameters
    ----------
    result : Dataset
        As returned by `activations.activations`.
    column : str
        A coordinate on `clip`: "label", "sex", "intensity", ...

    Returns
    -------
    Dataset [layer, neuron]
        ``difference``, a − b, mean over cells and then speakers; ``low`` and ``high``, its 95 % interval over speakers;
        ``p``, by sign flips within speakers, or by Welch's t between them (the interval wider, and p greater, where
        their effects share the errors of cells that only few of them connect); ``q``, the same at a false discovery
        rate over all layers and neurons. NaN under 8 speakers, between speakers under 8 of each kind. By sign flips p
        is 2 / 2^n or more: with 8 speakers no q is below 0.05 unless a sixth of all neurons differ.

        Over the same clips, regardless of speaker, each counted once: ``auroc`` (chance level 0.5), and ``cohens_d``,
        over the pooled SD, NaN where nothing varies. Clips without a counterpart do not count, but a cell of which one
        kind has more clips weighs more there. For `attribution.top_neurons`: ``signed``, d again, with 0 for NaN, and
        ``absolute``.

        attrs: `column`, `a`, `b`, `paired` (0 or 1), `cell` (the coordinates in which clips agree), `cells`,
        `speakers_a`, `speakers_b`, `clips_a`, `clips_b` (all of those compared), `speakers_left_out` (number without a
        clip there), `selection_speakers` (those whose clips these are, as JSON).

    Raises
    ------
    ValueError
        An unknown column or value, no clips to compare with, or a speaker of two sexes.
    """
    values = result["activation"].transpose("clip", "layer", "neuron")
    clips = _clips_of_both_kinds(values, column, a, b)
    if column == "sex" and results.speakers_known(values):
        _require_one_sex(clips)

    paired = _is_paired(clips)
    matched = _match_clips(clips, values, column, paired)
    data = values.values.astype(float)
    if paired:
        over_speakers = _compare_within_speakers(matched.clips, data)
    else:
        over_speakers = _compare_between_speakers(matched.clips, data)

    # The separation of the clips, regardless of speaker.
    matched_a = matched.clips[matched.clips["is_a"]]
    matched_b = matched.clips[~matched.clips["is_a"]]
    data_a = data[matched_a.index]
    data_b = data[matched_b.index]
    auroc = np.stack([statistics.auroc(data_a[:, layer], data_b[:, layer]) for layer in range(data.shape[1])])
    cohens_d = statistics.cohens_d(data_a, data_b)
    signed = np.nan_to_num(cohens_d)

    variables = {
        **over_speakers,
        "q": statistics.fdr(over_speakers["p"]),
        "auroc": auroc,
        "cohens_d": cohens_d,
        "signed": signed,
        "absolute": np.abs(signed),
    }
    attrs = {
        "column": column,
        "a": str(a),
        "b": "the rest" if b is None else str(b),
        "paired": int(paired),
        "cell": _cell_name(matched.cell_columns),
        "cells": matched.clips.groupby(matched.compared_within).ngroups,
        "clips_a": len(matched_a),
        "clips_b": len(matched_b),
        "speakers_a": matched_a["speaker"].nunique(),
        "speakers_b": matched_b["speaker"].nunique(),
        "speakers_left_out": clips["speaker"].nunique() - matched.clips["speaker"].nunique(),
        "selection_speakers": results.speaker_ids_json(values),
    }
    return xr.Dataset(
        {name: (("layer", "neuron"), array) for name, array in variables.items()},
        {"layer": values["layer"].values, "neuron": values["neuron"].values},
        {**result.attrs, **attrs},
    )


def distribution(result: xr.Dataset, layer: int, neuron: int, column: str) -> pd.DataFrame:
    """Compute the mean of one neuron by speaker (rows) and value of a column, counted as in `compare`.

    For `plots.neuron_groups`. Only clips count whose cell (emotion, intensity, statement) has all the values: so not
    the neutral ones where normal and strong are compared. If there is no such cell, clips agree in fewer of the three.
    A speaker who lacks some of the cells gets the mean over all of them that the others predict, by speaker + cell.
    """
    values = result["activation"].sel(layer=layer, neuron=neuron)
    clips = pd.DataFrame({"value": _column(values, column), "mean": values.values, "speaker": _speakers(values)})
    clips = clips[_known(clips["value"])]
    shared, cell_columns = _clips_of_shared_cells(clips, values, column)

    groups = shared.groupby(["speaker", "value"])
    means = _effects(groups.ngroup(), shared["cell"]) @ shared["mean"]
    table = pd.Series(means, groups.size().index).unstack()
    table = table[ordered(table.columns)].rename_axis(columns=column)
    table.attrs = {
        "layer": int(layer),
        "neuron": int(neuron),
        "part": result.attrs["part"],
        "cell": _cell_name(cell_columns),
    }
    return table


def _column(values, column):
    """Return this coordinate of the clips as a Series; raise ValueError if there is none."""
    known = [name for name in values.coords if values[name].dims == ("clip",) and name not in ("clip", "speaker")]
    if column not in known:
        raise ValueError(f"clips cannot be compared by {column!r}: known are {', '.join(known) or 'none'}")
    return pd.Series(values[column].values)


def _speakers(values):
    """Return the speaker of each clip; where not all are known, all are "unknown"."""
    if results.speakers_known(values):
        return values["speaker"].values
    return np.full(values.sizes["clip"], "unknown", dtype=object)


def _known(column):
    """Return which values of a column are known: neither missing nor empty."""
    return column.notna() & (column.astype(str) != "")


def _sides(column, name, a, b):
    """Return two bool arrays, the clips of either kind; without `b`, the second are all others of known value."""
    known = _known(column).to_numpy()
    available = ordered(column[known])
    for value in (a, b):
        if value is not None and value not in available:
            raise ValueError(f"no clip has {name} {value!r}: there are {', '.join(map(str, available)) or 'none'}")

    clips_a = (column == a).to_numpy()
    others = known if b is None else (column == b).to_numpy()
    clips_b = others & ~clips_a
    if not clips_b.any():
        raise ValueError(f"all clips to compare have {name} {a!r}: give clips of another {name} too")
    return clips_a, clips_b


def _clips_of_both_kinds(values, column, a, b):
    """Return the clips of either kind, by position: `is_a`, `speaker`, and whether that speaker `has_both` kinds."""
    clips_a, clips_b = _sides(_column(values, column), column, a, b)
    clips = pd.DataFrame({"is_a": clips_a, "speaker": _speakers(values)})
    clips = clips[clips_a | clips_b]
    n_kinds = clips.groupby("speaker")["is_a"].transform("nunique")
    return clips.assign(has_both=n_kinds == 2)


def _require_one_sex(clips):
    """Raise ValueError if a speaker has clips of both sexes."""
    contradictory = clips[clips["has_both"]]
    if len(contradictory):
        speaker = contradictory["speaker"].min()
        raise ValueError(f"the clips of speaker {speaker} have two sexes: correct the column, or leave them out")


def _is_paired(clips):
    """Return whether enough speakers have clips of both kinds to compare the kinds within speakers."""
    n_both = clips.loc[clips["has_both"], "speaker"].nunique()
    n_rarer_kind = clips.groupby("is_a")["speaker"].nunique().min()
    return _are_enough(n_both, n_rarer_kind)


def _are_enough(n, n_available):
    """Return whether `n` of the available speakers can be compared without the others."""
    return n >= statistics.MIN_SPEAKERS or 2 * n >= n_available


@dataclass(frozen=True)
class _MatchedClips:
    """Clips that have a counterpart of the other kind.

    Attributes
    ----------
    clips : DataFrame
        A row for each clip, by position: `is_a`, `speaker`, `cell`.
    cell_columns : tuple of str
        Coordinates in which the clips of a cell agree.
    compared_within : list of str
        Columns of `clips` in which counterparts agree: the cell and, where kinds are paired, the speaker.
    """

    clips: pd.DataFrame
    cell_columns: tuple[str, ...]
    compared_within: list[str]


def _match_clips(clips, values, column, paired) -> _MatchedClips:
    """Match clips of the two kinds in as many coordinates as leave enough speakers.

    Where the kinds are paired, only speakers who have clips of both are eligible, otherwise only those of one.
    """
    eligible = clips[clips["has_both"] == paired]
    compared_within = ["speaker", "cell"] if paired else ["cell"]
    for cell_columns, cells in _cells(values, column):
        matched = eligible.assign(cell=cells[eligible.index])
        n_kinds = matched.groupby(compared_within)["is_a"].transform("nunique")
        matched = matched[n_kinds == 2]
        if not paired:
            matched = _largest_component(matched)
        if not cell_columns or _have_enough_speakers(matched, eligible):
            return _MatchedClips(matched, cell_columns, compared_within)


def _cells(values, column) -> Iterator[tuple[tuple[str, ...], pd.Series]]:
    """Yield the coordinates of CELL, without the column, in which clips agree, and the cell number of each clip.

    The coordinates go from all of them to none: the last is one cell of all clips.
    """
    known = [name for name in CELL if name != column and name in values.coords]
    for size in range(len(known), 0, -1):
        for names in combinations(known, size):
            table = pd.DataFrame({name: values[name].values for name in names})
            yield names, table.groupby(list(names), dropna=False).ngroup()
    yield (), pd.Series(0, range(len(values)))


def _cell_name(cell_columns):
    """Return the names of the coordinates in which clips agree, for attrs."""
    return ", ".join(cell_columns) or "nothing else"


def _have_enough_speakers(matched, eligible):
    """Return whether of either kind enough of the eligible speakers are matched."""
    if matched.empty:
        return False
    n_matched = matched.groupby("is_a")["speaker"].nunique()
    n_eligible = eligible.groupby("is_a")["speaker"].nunique()
    return all(_are_enough(n_matched[is_a], n_eligible[is_a]) for is_a in (True, False))


def _largest_component(matched):
    """Keep the largest set of clips whose speakers are connected by cells: only their effects can be separated."""
    if matched.empty:
        return matched
    component = _components(matched["speaker"], matched["cell"])
    return matched[component == component.mode()[0]]


def _clips_of_shared_cells(clips, values, column):
    """Return the clips, with their `cell`, of cells that have all values of the column; and the cell's coordinates."""
    for cell_columns, cells in _cells(values, column):
        clips = clips.assign(cell=cells[clips.index])
        n_values = clips.groupby("cell")["value"].transform("nunique")
        shared = clips[n_values == clips["value"].nunique()]
        if not cell_columns or len(shared):
            return shared, cell_columns


def _compare_within_speakers(clips, data):
    """Return difference, low, high and p [layer, neuron] of the differences that speakers have within their cells.

    `clips` are the matched ones, and `data` [clip, layer, neuron] is of all.
    """
    speakers, speaker_codes = np.unique(clips["speaker"], return_inverse=True)
    n_alike = clips.groupby(["speaker", "cell", "is_a"])["cell"].transform("size")
    n_cells = clips.groupby("speaker")["cell"].transform("nunique")
    share = 1 / n_alike / n_cells  # of a clip in the mean over cells
    weights = np.zeros((len(speakers), len(data)))
    weights[speaker_codes, clips.index] = np.where(clips["is_a"], share, -share)

    differences = _weighted_sums(weights, data)
    mean, low, high = statistics.interval(differences)
    return {"difference": mean, "low": low, "high": high, "p": statistics.sign_flip_test(differences)}


def _compare_between_speakers(clips, data):
    """Return difference, low, high and p [layer, neuron] of the effects of speakers of one kind and of the other.

    `clips` are the matched ones, and `data` [clip, layer, neuron] is of all.
    """
    speakers = np.unique(clips["speaker"])
    weights = np.zeros((len(speakers), len(data)))
    weights[:, clips.index] = _effects(clips["speaker"], clips["cell"])

    effects = _weighted_sums(weights, data)
    is_a = np.isin(speakers, clips.loc[clips["is_a"], "speaker"])
    ratio = _sd_ratio(weights[is_a], weights[~is_a])
    effects_a = _widen(effects[is_a], ratio)
    effects_b = _widen(effects[~is_a], ratio)
    difference, low, high, p = statistics.welch(effects_a, effects_b)
    return {"difference": difference, "low": low, "high": high, "p": p}


def _weighted_sums(weights, data):
    """Return weighted sums [speaker, layer, neuron] of data [clip, layer, neuron], less that of the first clip."""
    differences = data - data[0]  # so that a constant neuron is exactly 0, without rounding
    return np.tensordot(weights, differences, 1)


def _components(units, cells):
    """Return the connected component of units and cells, a number, to which each clip belongs."""
    unit_codes, unit_names = pd.factorize(units)
    cell_codes, cell_names = pd.factorize(cells)
    n_nodes = len(unit_names) + len(cell_names)
    clip_edges = (unit_codes, len(unit_names) + cell_codes)  # each clip connects its unit and its cell
    graph = coo_array((np.ones(len(unit_codes)), clip_edges), shape=(n_nodes, n_nodes))
    _, component_of_node = connected_components(graph, directed=False)
    return pd.Series(component_of_node[unit_codes], units.index)


def _effects(units, cells):
    """Return weights [unit, clip] of the means of units (in their order), as if each had the same clips in all cells.

    These are least-squares effects, unit + cell, on the mean of each unit in each cell, at the mean of the cells that
    it is connected to.
    """
    table = pd.DataFrame({"unit": units, "cell": cells, "component": _components(units, cells)})
    pairs = table.groupby(["unit", "cell"])
    pair_of_clip = pd.get_dummies(pairs.ngroup()).to_numpy(float)  # [clip, pair]
    pair_means = (pair_of_clip / pair_of_clip.sum(axis=0)).T  # [pair, clip]

    pair_table = pairs.first().reset_index()
    unit_of_pair = pd.get_dummies(pair_table["unit"]).to_numpy(float)  # [pair, unit]
    cell_of_pair = pd.get_dummies(pair_table["cell"]).to_numpy(float)  # [pair, cell]
    solution = np.linalg.pinv(np.hstack([unit_of_pair, cell_of_pair]), rcond=1e-9)
    n_units = unit_of_pair.shape[1]
    unit_effects = solution[:n_units]  # [unit, pair]
    cell_effects = solution[n_units:]  # [cell, pair]

    component_of_unit = table.groupby("unit")["component"].first().to_numpy()
    component_of_cell = table.groupby("cell")["component"].first().to_numpy()
    connected = np.equal.outer(component_of_unit, component_of_cell)
    cell_shares = connected / connected.sum(axis=1, keepdims=True)  # [unit, cell]
    effects = unit_effects + cell_shares @ cell_effects
    return effects @ pair_means


def _sd_ratio(weights_a, weights_b):
    """Return the ratio of the SD of the difference of two groups of units to that of unrelated units.

    The groups are given by their units' weights [unit, clip]. For independent errors of clips, units that share those
    of fitted cells differ more in mean. 1 where units share nothing, and under 8 units.
    """
    if min(len(weights_a), len(weights_b)) < statistics.MIN_SPEAKERS:
        return 1  # there is no interval
    variance = np.square(weights_a.mean(axis=0) - weights_b.mean(axis=0)).sum()
    variance_a = weights_a.var(axis=0, ddof=1).sum() / len(weights_a)
    variance_b = weights_b.var(axis=0, ddof=1).sum() / len(weights_b)
    return np.sqrt(max(variance / (variance_a + variance_b), 1))


def _widen(effects, ratio):
    """Spread the effects of a group [unit, ...] about their mean, so that their SD grows by the ratio."""
    mean = effects.mean(axis=0)
    return mean + ratio * (effects - mean)
