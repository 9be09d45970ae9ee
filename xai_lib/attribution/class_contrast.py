"""Contrasts of each neuron between two kinds of clips: an emotion and all others, women and men, strong and normal.

How well a neuron separates the clips is computed over clips; whether the difference is significant, over speakers.
"""

from itertools import combinations

import numpy as np
import pandas as pd
import xarray as xr
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from .. import results, statistics
from ..activations import activations
from ..corpora import as_clips
from ..corpora.filenames import ordered

CELL = ("label", "intensity", "statement")  # coordinates in which compared clips agree: the last is dropped first


def activation_contrast(
    model, clips, *, target, layers="all", part="hidden_state", frames="speech", sample_rate=None
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
    clips = as_clips(clips, sample_rate)
    a, b = target if isinstance(target, (tuple, list)) else (target, None)
    if "label" not in clips:
        raise ValueError("the clips have no column 'label', which activation_contrast needs: add it")
    _sides(clips["label"], "label", a, b)  # fail before the pass over the clips
    result = activations(model, clips, model.sites(part, layers), frames=frames)
    return compare(result, "label", a, b).assign_attrs(method="activation_contrast")


def compare(result, column, a, b=None) -> xr.Dataset:
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
    clips_a, clips_b = _sides(_column(values, column), column, a, b)
    speakers_known = results.speakers_known(values)
    table = pd.DataFrame({"first": clips_a, "speaker": values["speaker"].values if speakers_known else "unknown"})
    table = table[clips_a | clips_b]
    has_a = table.groupby("speaker")["first"].agg(["any", "all"])  # of each speaker: any clip, or all, of kind a
    has_both = has_a["any"] & ~has_a["all"]
    if column == "sex" and speakers_known and has_both.any():
        raise ValueError(
            f"the clips of speaker {has_both.idxmax()} have two sexes: correct the column, or leave them out"
        )
    paired = _enough(has_both.sum(), min(has_a["any"].sum(), (~has_a["all"]).sum()))
    table = table[table["speaker"].map(has_both) == paired]
    for cell_columns, cells in _cells(values, column):  # the last is one cell of all clips
        matched = table.assign(cell=cells)
        matched = matched[matched.groupby(["speaker", "cell"] if paired else "cell")["first"].transform("nunique") == 2]
        if not paired and len(matched):  # effects of speakers are identifiable where cells connect the speakers
            component = _components(matched["speaker"], matched["cell"])
            matched = matched[component == component.mode()[0]]
        n_speakers, n_available = (rows.groupby("first")["speaker"].nunique() for rows in (matched, table))
        if len(n_speakers) and all(map(_enough, n_speakers, n_available)):
            break
    table, clips_a, clips_b = matched, matched.index[matched["first"]], matched.index[~matched["first"]]
    speakers, speaker_codes = np.unique(table["speaker"], return_inverse=True)
    weights = np.zeros((len(speakers), len(values)))  # of clips in each speaker's effect: one matrix product gives all
    if paired:  # the difference, averaged over the cells of each speaker
        size = table.groupby(["speaker", "cell", "first"])["cell"].transform("size")
        share = 1 / size / table.groupby("speaker")["cell"].transform("nunique")
        weights[speaker_codes, table.index] = np.where(table["first"], share, -share)
    else:
        weights[:, table.index] = _effects(table["speaker"], table["cell"])
    data = values.values.astype(float)
    effects = np.tensordot(weights, data - data[0], 1)  # a constant neuron differs by exactly 0, without rounding
    if paired:
        (difference, low, high), p = statistics.interval(effects), statistics.sign_flip_test(effects)
    else:
        is_a = np.isin(speakers, table["speaker"][table["first"]])
        widening = _widening(weights[is_a], weights[~is_a])
        widened = (
            group.mean(axis=0) + widening * (group - group.mean(axis=0)) for group in (effects[is_a], effects[~is_a])
        )
        difference, low, high, p = statistics.welch(*widened)
    auroc = np.stack([statistics.auroc(layer[clips_a], layer[clips_b]) for layer in data.swapaxes(0, 1)])
    d = statistics.cohens_d(data[clips_a], data[clips_b])
    variables = {"difference": difference, "low": low, "high": high, "p": p, "q": statistics.fdr(p), "auroc": auroc}
    variables |= {"cohens_d": d, "signed": np.nan_to_num(d), "absolute": np.abs(np.nan_to_num(d))}
    attrs = {"column": column, "a": str(a), "b": "the rest" if b is None else str(b), "paired": int(paired)}
    n_cells = len(table.groupby(["speaker", "cell"] if paired else "cell"))
    cell = ", ".join(cell_columns) or "nothing else"
    attrs |= {"cell": cell, "cells": n_cells, "clips_a": len(clips_a), "clips_b": len(clips_b)}
    attrs |= {"speakers_a": int(n_speakers[True]), "speakers_b": int(n_speakers[False])}
    attrs |= {"speakers_left_out": len(has_a) - len(speakers)}
    attrs |= {"selection_speakers": results.speaker_ids_json(values)}
    return xr.Dataset(
        {name: (("layer", "neuron"), array) for name, array in variables.items()},
        {"layer": values["layer"].values, "neuron": values["neuron"].values},
        {**result.attrs, **attrs},
    )


def distribution(result, layer, neuron, column) -> pd.DataFrame:
    """Compute the mean of one neuron by speaker (rows) and value of a column, counted as in `compare`.

    For `plots.neuron_groups`. Only clips count whose cell (emotion, intensity, statement) has all the values: so not
    the neutral ones where normal and strong are compared. If there is no such cell, clips agree in fewer of the three.
    A speaker who lacks some of the cells gets the mean over all of them that the others predict, by speaker + cell.
    """
    values = result["activation"].sel(layer=layer, neuron=neuron)
    table = pd.DataFrame({"value": _column(values, column), "mean": values.values})
    table["speaker"] = values["speaker"].values if results.speakers_known(values) else "unknown"
    table = table[_known(table["value"])]
    for cell_columns, cells in _cells(values, column):
        table["cell"] = cells
        shared = table.groupby("cell")["value"].transform("nunique") == table["value"].nunique()
        if shared.any():
            break
    table = table[shared]
    groups = table.groupby(["speaker", "value"])
    means = pd.Series(_effects(groups.ngroup(), table["cell"]) @ table["mean"], groups.size().index).unstack()
    means = means[ordered(means.columns)].rename_axis(columns=column)
    cell = ", ".join(cell_columns) or "nothing else"
    means.attrs = {"layer": int(layer), "neuron": int(neuron), "part": result.attrs["part"], "cell": cell}
    return means


def _column(values, column):
    """Return this coordinate of the clips as a Series; raise ValueError if there is none."""
    known = [name for name in values.coords if values[name].dims == ("clip",) and name not in ("clip", "speaker")]
    if column not in known:
        raise ValueError(f"clips cannot be compared by {column!r}: known are {', '.join(known) or 'none'}")
    return pd.Series(values[column].values)


def _known(column):
    return column.notna() & (column.astype(str) != "")


def _sides(column, name, a, b):
    """Return two bool arrays, the clips of either kind; without `b`, the second are all others of known value."""
    known, available = _known(column).to_numpy(), ordered(column[_known(column)])
    missing = [value for value in (a, b) if value not in available and value is not None]
    if missing:
        raise ValueError(f"no clip has {name} {missing[0]!r}: there are {', '.join(map(str, available)) or 'none'}")
    clips_a = (column == a).to_numpy()
    clips_b = known & ~clips_a if b is None else (column == b).to_numpy() & ~clips_a
    if not clips_b.any():
        raise ValueError(f"all clips to compare have {name} {a!r}: give clips of another {name} too")
    return clips_a, clips_b


def _enough(n, total):
    """Return whether `n` of `total` speakers can be compared without the others."""
    return n >= statistics.MIN_SPEAKERS or 2 * n >= total


def _cells(values, column):
    """Yield the coordinates of CELL, without the column, in which clips agree, and the cell number of each clip.

    The coordinates go from all of them to none.
    """
    known = [name for name in CELL if name != column and name in values.coords]
    for size in range(len(known), -1, -1):
        for names in combinations(known, size):
            table = pd.DataFrame({name: values[name].values for name in names}, index=range(len(values)))
            yield names, table.groupby(list(names), dropna=False).ngroup() if names else 0


def _components(units, cells):
    """Return the connected component of units and cells, a number, to which each clip belongs."""
    (speaker_codes, unit_names), (cell_codes, cells) = pd.factorize(units), pd.factorize(cells)
    n = len(unit_names) + len(cells)
    edges = coo_array((np.ones(len(speaker_codes)), (speaker_codes, len(unit_names) + cell_codes)), shape=(n, n))
    return pd.Series(connected_components(edges, directed=False)[1][speaker_codes], units.index)


def _effects(units, cells):
    """Return weights [unit, clip] of the means of units (in their order), as if each had the same clips in all cells.

    These are least-squares effects, unit + cell, on the mean of each unit in each cell, at the mean of the cells that
    it is connected to.
    """
    table = pd.DataFrame({"unit": units, "cell": cells, "component": _components(units, cells)})
    pairs = table.groupby(["unit", "cell"])
    membership, pair_table = pd.get_dummies(pairs.ngroup()).to_numpy(float), pairs["component"].first().reset_index()
    unit, cell = (pd.get_dummies(pair_table[name]).to_numpy(float) for name in ("unit", "cell"))
    connected = np.equal.outer(*(table.groupby(name)["component"].first().to_numpy() for name in ("unit", "cell")))
    fit = np.linalg.pinv(np.hstack([unit, cell]), rcond=1e-9)
    effects = fit[: unit.shape[1]] + connected / connected.sum(axis=1, keepdims=True) @ fit[unit.shape[1] :]
    return effects @ (membership / membership.sum(axis=0)).T


def _widening(*groups):
    """Return the ratio of the SD of the difference of two groups of units to that of unrelated units.

    The groups are the units' weights [unit, clip]. For independent errors of clips, units that share those of fitted
    cells differ more in mean. 1 where units share nothing, and under 8 units.
    """
    if min(map(len, groups)) < statistics.MIN_SPEAKERS:
        return 1  # there is no interval
    variance = np.square(groups[0].mean(axis=0) - groups[1].mean(axis=0)).sum()
    return np.sqrt(max(variance / sum(group.var(axis=0, ddof=1).sum() / len(group) for group in groups), 1))
