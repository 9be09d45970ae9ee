"""Which neurons tell one kind of clip from another: an emotion from the rest, women from men, strong from normal.

How well they tell the clips apart is counted over clips; whether it holds for people at large, over speakers.
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

CELL = ("label", "intensity", "statement")  # what clips agree in before they are compared: the last is given up first


def activation_contrast(
    model, clips, *, target, layers="all", part="block", frames="speech", sample_rate=None
) -> xr.Dataset:
    """How well each neuron tells the clips of an emotion from all others, by what is heard in them.

    Parameters
    ----------
    clips, sample_rate
        As in `corpora.as_clips`.
    target : str or pair
        A label of the clips, which the model need not know, against the rest; or two, such as ("angry", "calm").
    layers, part, frames
        As in `activations.activations`: a clip counts with its mean over those frames.

    Returns
    -------
    Dataset
        Of `compare`.

    Raises
    ------
    ValueError
        No clip, or each, has this label; an unknown layer, part or frames; not one usable clip.
    """
    clips = as_clips(clips, sample_rate)
    a, b = target if isinstance(target, (tuple, list)) else (target, None)
    if "label" not in clips:
        raise ValueError("the clips have no column 'label', which is needed here: add it")
    _sides(clips["label"], "label", a, b)  # before the pass over the clips
    found = activations(model, clips, model.sites(part, layers), frames=frames)
    return compare(found, "label", a, b).assign_attrs(method="activation_contrast")


def compare(result, column, a, b=None) -> xr.Dataset:
    """How each neuron differs between the clips where `column` is `a` and those where it is `b`, or anything else.

    Clips are compared that agree in what else is known of them: emotion, intensity, statement. This is done within each
    speaker (for emotion, intensity) where 8 speakers have clips of both kinds, or half of those of the rarer kind.
    Otherwise (for sex) it is done between the speakers, in cells that both groups have, without the few who have clips
    of both kinds: each speaker counts with an effect, fitted to the mean of every speaker in every cell as speaker +
    cell. So nobody differs by having more clips, or other cells, than others: where all have all cells, the effects are
    the speakers' means. Speakers that no cells join to most others are left out. Where so many speakers do not agree in
    all three, as few of them as possible are given up, the statement before the intensity, and that before the emotion:
    `cell` in the attrs says what is left.

    Parameters
    ----------
    result : Dataset
        Of `activations.activations`.
    column : str
        A coordinate on `clip`: "label", "sex", "intensity", ...

    Returns
    -------
    Dataset [layer, neuron]
        ``difference``, a − b, mean over cells and then speakers; ``low`` and ``high``, its 95 % interval over speakers;
        ``p``, by sign flips within speakers, or by Welch's t between them (the interval wider, and p greater, where their
        effects share the errors of cells that only few of them join); ``q``, that at a false discovery rate over
        all layers and neurons. NaN under 8 speakers, between speakers under 8 of each kind. By sign flips p is 2 / 2^n
        or more: with 8 speakers no q is below 0.05 unless a sixth of all neurons tell.

        Over the same clips, whoever speaks, each counted once: ``auroc``, 0.5 is chance, and ``cohens_d``, over the
        pooled SD, NaN where nothing varies. Clips without a counterpart do not count, but a cell of which one kind has
        more clips weighs more there. For `attribution.top_neurons`: ``signed``, d again, with 0 for NaN, and
        ``absolute``.

        attrs: `a`, `b`, `paired` (0 or 1), `cell` (what agrees), `cells`, `speakers_a`, `speakers_b`, `clips_a`,
        `clips_b` (all of what is compared), `speakers_left_out` (how many have no clip there).

    Raises
    ------
    ValueError
        An unknown column or value, no clips to compare with, or a speaker of two sexes.
    """
    values = result["activation"].transpose("clip", "layer", "neuron")
    first, second = _sides(_column(values, column), column, a, b)
    named = results.speakers_known(values)
    table = pd.DataFrame({"first": first, "speaker": values["speaker"].values if named else "unknown"})
    table = table[first | second]
    there = table.groupby("speaker")["first"].agg(["any", "all"])  # of kind a; of no other
    both = there["any"] & ~there["all"]
    if column == "sex" and named and both.any():
        raise ValueError(f"the clips of speaker {both.idxmax()} have two sexes: correct the column, or leave them out")
    paired = _enough(both.sum(), min(there["any"].sum(), (~there["all"]).sum()))
    table = table[table["speaker"].map(both) == paired]
    for names, cells in _cells(values, column):  # the last is one cell of all clips
        some = table.assign(cell=cells)
        some = some[some.groupby(["speaker", "cell"] if paired else "cell")["first"].transform("nunique") == 2]
        if not paired and len(some):  # effects of speakers can be told apart where cells join the speakers
            joined = _joined(some["speaker"], some["cell"])
            some = some[joined == joined.mode()[0]]
        n, most = (x.groupby("first")["speaker"].nunique() for x in (some, table))
        if len(n) and all(map(_enough, n, most)):
            break
    table, first, second = some, some.index[some["first"]], some.index[~some["first"]]
    speakers, who = np.unique(table["speaker"], return_inverse=True)
    weights = np.zeros((len(speakers), len(values)))  # what is compared, as one matrix product
    if paired:  # the mean over every speaker's cells of the difference
        size = table.groupby(["speaker", "cell", "first"])["cell"].transform("size")
        share = 1 / size / table.groupby("speaker")["cell"].transform("nunique")
        weights[who, table.index] = np.where(table["first"], share, -share)
    else:
        weights[:, table.index] = _effects(table["speaker"], table["cell"])
    data = values.values.astype(float)
    units = np.tensordot(weights, data - data[0], 1)  # what never varies differs by 0, and not by rounding
    if paired:
        (difference, low, high), p = statistics.interval(units), statistics.sign_flip_test(units)
    else:
        own = np.isin(speakers, table["speaker"][table["first"]])
        wider = _widening(weights[own], weights[~own])
        means = (part.mean(axis=0) + wider * (part - part.mean(axis=0)) for part in (units[own], units[~own]))
        difference, low, high, p = statistics.welch(*means)
    auroc = np.stack([statistics.auroc(x[first], x[second]) for x in data.swapaxes(0, 1)])
    d = statistics.cohens_d(data[first], data[second])
    parts = {"difference": difference, "low": low, "high": high, "p": p, "q": statistics.fdr(p), "auroc": auroc}
    parts |= {"cohens_d": d, "signed": np.nan_to_num(d), "absolute": np.abs(np.nan_to_num(d))}
    about = {"column": column, "a": str(a), "b": "the rest" if b is None else str(b), "paired": int(paired)}
    cells = len(table.groupby(["speaker", "cell"] if paired else "cell"))
    about |= {"cell": ", ".join(names) or "nothing else", "cells": cells, "clips_a": len(first), "clips_b": len(second)}
    about |= {"speakers_a": int(n[True]), "speakers_b": int(n[False]), "speakers_left_out": len(there) - len(speakers)}
    return xr.Dataset(
        {name: (("layer", "neuron"), part) for name, part in parts.items()},
        {"layer": values["layer"].values, "neuron": values["neuron"].values},
        {**result.attrs, **about},
    )


def distribution(result, layer, neuron, column) -> pd.DataFrame:
    """Mean of one neuron by speaker (rows) and value of a column, for `plots.neuron_groups`: as `compare` counts them.

    Only clips that could be of any value count, of those cells (emotion, intensity, statement) that have them all: so
    not the neutral ones where normal and strong are compared. Where there is no such cell, they agree in less. Who
    lacks some of the cells is put at what the others, by speaker + cell, let expect of all.
    """
    values = result["activation"].sel(layer=layer, neuron=neuron)
    table = pd.DataFrame({"value": _column(values, column), "mean": values.values})
    table["speaker"] = values["speaker"].values if results.speakers_known(values) else "unknown"
    table = table[_known(table["value"])]
    for names, cells in _cells(values, column):
        table["cell"] = cells
        shared = table.groupby("cell")["value"].transform("nunique") == table["value"].nunique()
        if shared.any():
            break
    table = table[shared]
    units = table.groupby(["speaker", "value"])
    means = pd.Series(_effects(units.ngroup(), table["cell"]) @ table["mean"], units.size().index).unstack()
    means = means[ordered(means.columns)].rename_axis(columns=column)
    agreed = ", ".join(names) or "nothing else"
    means.attrs = {"layer": int(layer), "neuron": int(neuron), "part": result.attrs["part"], "cell": agreed}
    return means


def _column(values, column):
    """What is known of each clip under this name."""
    known = [name for name in values.coords if values[name].dims == ("clip",) and name not in ("clip", "speaker")]
    if column not in known:
        raise ValueError(f"{column!r} of the clips is not known here: known are {', '.join(known) or 'none'}")
    return pd.Series(values[column].values)


def _known(column):
    return column.notna() & (column.astype(str) != "")


def _sides(column, name, a, b):
    """Which clips are of either kind, two bool arrays; without `b`, all others whose value is known."""
    known, there = _known(column).to_numpy(), ordered(column[_known(column)])
    lacking = [value for value in (a, b) if value not in there and value is not None]
    if lacking:
        raise ValueError(f"no clip has {name} {lacking[0]!r}: there are {', '.join(map(str, there)) or 'none'}")
    first = (column == a).to_numpy()
    second = known & ~first if b is None else (column == b).to_numpy() & ~first
    if not second.any():
        raise ValueError(f"all clips to compare have {name} {a!r}: give clips of another {name} too")
    return first, second


def _enough(n, of):
    """Whether `n` of so many speakers can be compared without the others."""
    return n >= statistics.FEWEST or 2 * n >= of


def _cells(values, column):
    """What of CELL but the column clips agree in, from all of it to nothing, and a number for each clip by that."""
    known = [name for name in CELL if name != column and name in values.coords]
    for size in range(len(known), -1, -1):
        for names in combinations(known, size):
            table = pd.DataFrame({name: values[name].values for name in names}, index=range(len(values)))
            yield names, table.groupby(list(names), dropna=False).ngroup() if names else 0


def _joined(units, cells):
    """For each clip, a number of the units and cells that are joined to its own, from one to the next."""
    (who, whose), (where, cells) = pd.factorize(units), pd.factorize(cells)
    n = len(whose) + len(cells)
    edges = coo_array((np.ones(len(who)), (who, len(whose) + where)), shape=(n, n))
    return pd.Series(connected_components(edges, directed=False)[1][who], units.index)


def _effects(units, cells):
    """Weights [unit, clip] of the means of units (in their order), were the clips of each in all cells alike.

    These are least-squares effects, unit + cell, on the mean of each unit in each cell, at the mean of the cells that
    it is joined to.
    """
    table = pd.DataFrame({"unit": units, "cell": cells, "joined": _joined(units, cells)})
    pairs = table.groupby(["unit", "cell"])
    own, parts = pd.get_dummies(pairs.ngroup()).to_numpy(float), pairs["joined"].first().reset_index()
    unit, cell = (pd.get_dummies(parts[name]).to_numpy(float) for name in ("unit", "cell"))
    reach = np.equal.outer(*(table.groupby(name)["joined"].first().to_numpy() for name in ("unit", "cell")))
    fit = np.linalg.pinv(np.hstack([unit, cell]), rcond=1e-9)
    effects = fit[: unit.shape[1]] + reach / reach.sum(axis=1, keepdims=True) @ fit[unit.shape[1] :]
    return effects @ (own / own.sum(axis=0)).T


def _widening(*groups):
    """How much wider than their spread the difference of two groups of units lies, by their weights [unit, clip].

    Were the errors of clips independent, units that share those of fitted cells would differ in mean by more. 1 where
    units share nothing.
    """
    if min(map(len, groups)) < statistics.FEWEST:
        return 1  # there is no interval
    there = np.square(groups[0].mean(axis=0) - groups[1].mean(axis=0)).sum()
    return np.sqrt(max(there / sum(x.var(axis=0, ddof=1).sum() / len(x) for x in groups), 1))
