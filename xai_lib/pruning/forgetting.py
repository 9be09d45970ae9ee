"""What a model forgets and what it keeps without some neurons, of results of `pruning.compare`.

Speakers are the units; where a corpus has none, the recordings that clips were cut from.
"""

from functools import partial

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import f1_score

from .. import statistics
from ..activations import random_neurons
from ..corpora.filenames import ordered

MEASURES = ("logit", "probability", "accuracy")


def outcomes(compared) -> xr.DataArray:
    """What each clip's own class gets, [measure, clip, dose, who]; NaN where the model does not know that class.

    `measure` is its logit, its probability, and its accuracy: whether the clip is given it, 0 or 1.
    """
    known = (compared["label"] == compared["target"]).any("target")
    logp = compared["logit"].copy(data=log_softmax(compared["logit"].transpose(..., "target").values, axis=-1))
    parts = [_own(compared, compared["logit"]), np.exp(_own(compared, logp)), correct(compared).where(known)]
    return xr.concat(parts, pd.Index(MEASURES, name="measure"))


def correct(compared):
    """Whether each clip is given its own label, 0 or 1: [clip, dose, who]."""
    names = compared["target"].values[compared["logit"].argmax("target").values]
    right = names == compared["label"].values[:, None, None]
    return compared["logit"].isel(target=0, drop=True).copy(data=right.astype(float))


def by_class(compared, measure="logit") -> xr.DataArray:
    """`outcomes` of each speaker's clips of each label: [label, speaker, dose, who]; NaN where there are none."""
    found, labels = outcomes(compared).sel(measure=measure, drop=True), ordered(compared["label"].values)
    rows = [statistics.by_speaker(found[found["label"].values == label]) for label in labels]
    return xr.concat(rows, pd.Index(labels, name="label"), join="outer").rename(measure)


def recalls(compared) -> xr.DataArray:
    """Share of each speaker's clips of each label that are given it: [label, speaker, dose, who]; NaN without such."""
    right, labels = correct(compared), ordered(compared["label"].values)
    rows = [statistics.by_speaker(right[right["label"].values == label]) for label in labels]
    return xr.concat(rows, pd.Index(labels, name="label"), join="outer").rename("recall")


def summary(compared, label) -> xr.Dataset:
    """How a label's clips and all others fare, in logits, probability and accuracy, with 95 % intervals over speakers.

    Returns
    -------
    Dataset
        Over [measure, group, dose, who], measures as of `outcomes`, group "forgotten" and "kept": `value` and `change`
        from the model as it is, means over speakers, each with `_low` and `_high`, NaN under 8; `n` [group] speakers.
        `selectivity` [measure, dose, who]: (change of the kept − change of the forgotten) / |change of the forgotten|,
        1 where only the class falls, 0 where all fall alike; NaN where the forgotten did not change. `kl` [group, dose,
        who], how far the probabilities are from those of the model as it is (nats). `macro_f1` [dose, who].
        Where all clips are of the label, what is kept is NaN.
    """
    found, own = outcomes(compared), compared["label"].values == label
    if not own.any():
        raise ValueError(f"clips of {label!r} are needed, and none of the {len(own)} is one")
    logp = compared["logit"].copy(data=log_softmax(compared["logit"].values, axis=-1))
    clean = logp.isel(dose=0)
    kl, groups = (np.exp(clean) * (clean - logp)).sum("target").transpose("clip", "dose", "who"), []
    for rows in [own] if own.all() else [own, ~own]:
        units = statistics.by_speaker(found[:, rows])
        over = {
            "value": statistics.over_speakers(units),
            "change": statistics.over_speakers(units - units.isel(dose=0)),
        }
        ends = {"mean": "", "low": "_low", "high": "_high"}
        parts = {key + end: table[name] for key, table in over.items() for name, end in ends.items()}
        parts["kl"] = statistics.by_speaker(kl[rows]).mean("speaker")
        groups.append(xr.Dataset({**parts, "n": units.sizes["speaker"]}))
    if own.all():  # of the others nothing is known
        groups.append(xr.full_like(groups[0], np.nan).assign(n=0))
    out = xr.concat(groups, pd.Index(["forgotten", "kept"], name="group"))
    forgotten, kept = (out["change"].sel(group=group, drop=True) for group in ("forgotten", "kept"))
    out["selectivity"] = selectivity(forgotten, kept)
    names = compared["target"].values[compared["logit"].argmax("target").values]
    score = partial(f1_score, compared["label"].values, average="macro", zero_division=0.0)
    out["macro_f1"] = (("dose", "who"), np.apply_along_axis(score, 0, names))
    return out.assign_attrs(forgotten=label)


def selectivity(forgotten, kept):
    """(change of the kept − change of the forgotten) / |change of the forgotten|; NaN where that is 0."""
    return _share(kept - forgotten, forgotten)


def _share(difference, forgotten):
    size = abs(forgotten)
    return difference / (size + np.where(size > 1e-9, 0, np.nan))


def frontier(compared) -> xr.Dataset:
    """What is forgotten against what is kept, as the dose grows.

    Parameters
    ----------
    compared : dict
        {class: {strategy: result of `pruning.compare`}}, at the same doses for all classes of a strategy.

    Returns
    -------
    Dataset
        `value` and `change` [class, strategy, measure, group, dose, random]: with the chosen neurons pruned
        (`random` False) and the mean over the random sets (True). NaN at doses that a strategy did not have.
    """

    def one(result, label):
        found = summary(result, label)[["value", "change"]]
        sides = [found.sel(who="chosen", drop=True), random_sets(found).mean("who")]
        return xr.concat(sides, pd.Index([False, True], name="random"))

    rows = [
        xr.concat([one(result, label) for result in by.values()], pd.Index(list(by), name="strategy"), join="outer")
        for label, by in compared.items()
    ]
    return xr.concat(rows, pd.Index(list(compared), name="class"), join="outer")


def table(compared, *, dose=-1) -> pd.DataFrame:
    """What forgetting comes to, averaged over classes: a row for each measure and strategy.

    Parameters
    ----------
    compared : dict
        {class: {strategy: result of `pruning.compare`}}.
    dose : int
        Which of the doses of each result, by its place.

    Returns
    -------
    DataFrame by (measure, strategy)
        `classes`; `neurons`, the mean dose; means over classes with their 95 % t intervals (`_low`, `_high`, NaN under
        8 classes) of `forgotten` and `kept`, the changes of the classes' own clips and of all others, and `difference`,
        kept less forgotten; `random`, that difference for the random sets (mean), and `beyond`, how much greater it is
        for the chosen; `selectivity`, of the two mean changes as published, its interval by the jackknife over classes,
        and `mean_selectivity`, the mean of each class's own. The strategy "random" is that of the sets drawn as random
        for the first strategy, "most active" and "writes most" what a choice blind to the class takes in its place.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML, table 4; there, in logits alone.
    """
    found = {}
    for label, by in compared.items():
        for place, (strategy, result) in enumerate(by.items()):
            last = summary(result, label)["change"].isel(dose=dose)
            chosen, random = last.sel(who="chosen"), random_sets(last).mean("who")
            sides = [(strategy, chosen)]
            if place == 0 and random_sets(last).sizes["who"]:
                sides += [("random", random)]
                sides += [(name, last.sel(who=name)) for name in random_neurons.BLIND if name in last["who"].values]
            for name, change in sides:
                for measure in MEASURES:
                    values = [x.sel(measure=measure) for x in (change, random)]
                    pairs = [float(x.sel(group=group)) for x in values for group in ("forgotten", "kept")]
                    found.setdefault((measure, name), []).append([int(last["dose"]), *pairs])
    rows = {
        key: _averaged(np.array(values)) for key, values in sorted(found.items(), key=lambda x: MEASURES.index(x[0][0]))
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["measure", "strategy"])


def _averaged(values) -> dict:
    """A row of `table`, of [class, (dose, forgotten, kept, forgotten and kept of random sets)]."""
    dose, forgotten, kept, random_forgotten, random_kept = values.T
    difference, random = kept - forgotten, random_kept - random_forgotten
    row = {"classes": len(values), "neurons": dose.mean()}
    means = {"forgotten": forgotten, "kept": kept, "difference": difference, "beyond": difference - random}
    for name, each in means.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), statistics.interval(each)))

    def ratio(rows):
        return _share(difference[rows].mean(), forgotten[rows].mean())

    every, n = np.arange(len(values)), len(values)
    whole, each = ratio(every), _share(difference, forgotten)
    pseudo = [n * whole - (n - 1) * ratio(every != i) for i in every] if n > 1 else [np.nan]
    middle, low, high = statistics.interval(pseudo)
    row |= {"selectivity": whole, "selectivity_low": whole + low - middle, "selectivity_high": whole + high - middle}
    return {**row, "mean_selectivity": each.mean(), "random": random.mean()}


def effects(compared, label) -> xr.Dataset:
    """What pruning does to the forgotten class and to the others.

    Returns
    -------
    Dataset [group, speaker, dose, who], group "forgotten" and "kept": the clips of the class, and all others
        `recall`; `log_odds`, the change of the log odds of the clip's own class (nats), and `moved`, its absolute
        value: means over a speaker's clips. Of "kept" clips these are odds among the other classes only, since
        otherwise a loss of the forgotten class would count as their gain. `margin` [group, speaker, dose]: the log
        odds with the chosen neurons pruned less their mean with random ones.
        `across_p` [group, dose]: the rank of the chosen set's log odds among those of the random sets
        (`statistics.rank_test`); `margin_p`: the greater of it and of a sign-flip test of `margin` over speakers, NaN
        under 8 of them. With the target-blind choices, [control]: `beyond_blind` [group, speaker, dose], the log odds
        with the chosen neurons pruned less those with theirs, and `blind_across_p` [group, dose], the rank of
        their mean difference among those between random sets, and `blind_p`, the greater of it and of a sign-flip test
        over speakers.
    """
    parts, own = [], compared["label"] == label
    for group, rows in (("forgotten", own), ("kept", ~own)):
        part = compared.isel(clip=np.flatnonzero(rows.values))
        odds = _log_odds(part if group == "forgotten" else part.sel(target=part["target"] != label))
        change = odds - odds.isel(dose=0)
        measures = {"recall": correct(part), "log_odds": change, "moved": np.abs(change)}
        found = {name: statistics.by_speaker(data) for name, data in measures.items()}
        chosen, random = found["log_odds"].isel(who=0, drop=True), random_sets(found["log_odds"])
        found["margin"] = chosen - random.mean("who")
        sets = random.mean("speaker").transpose("dose", "who")
        across = _ranks(chosen.mean("speaker"), sets)
        over = statistics.sign_flip_test(found["margin"].transpose("dose", "speaker").values, axis=1)
        tests = {"across_p": ("dose", across), "margin_p": ("dose", np.maximum(across, over))}
        names = [name for name in random_neurons.BLIND if name in compared["who"].values]
        if names:
            apart = (chosen - found["log_odds"].sel(who=names)).rename(who="control")
            found["beyond_blind"] = apart
            pairs = statistics.between_random_sets(sets.rename(who="null"), shared=compared["shared"]).transpose(
                "dose", "null"
            )
            ranks = [
                _ranks(one, pairs, sets.sizes["who"]) for one in apart.mean("speaker").transpose("control", "dose")
            ]
            over = statistics.sign_flip_test(apart.transpose("control", "dose", "speaker").values, axis=2)
            tests["blind_across_p"] = ("control", "dose"), np.array(ranks)
            tests["blind_p"] = ("control", "dose"), np.maximum(ranks, over)
        parts.append(xr.Dataset({**found, **tests}).expand_dims(group=[group]))
    return xr.concat(parts, "group", join="outer").assign_attrs(forgotten=label)


def random_sets(compared):
    """Of results along `who`, of which the first are the chosen neurons', those of the random sets."""
    names = compared["who"].values[1:].tolist()
    return compared.isel(who=[place for place, name in enumerate(names, 1) if name not in random_neurons.BLIND])


def _ranks(found, drawn, draws=None) -> np.ndarray:
    """Two-sided p [dose] of what was found among what was drawn [dose, draw], each dose by itself."""
    return np.array([statistics.rank_test(one, some, draws=draws)[0] for one, some in zip(found.values, drawn.values)])


def _own(compared, values):
    """Of `values` [clip, dose, who, target], those of each clip's own class; NaN where the model does not know it."""
    return values.where(compared["label"] == compared["target"]).sum("target", min_count=1)


def _log_odds(compared):
    """Log odds of each clip's own class against all others, which adding to all logits does not change."""
    others = compared["logit"].where(compared["label"] != compared["target"], -np.inf)
    rest = xr.apply_ufunc(logsumexp, others, input_core_dims=[["target"]], kwargs={"axis": -1})
    return _own(compared, compared["logit"]) - rest
