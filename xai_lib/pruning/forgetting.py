"""Forgetting: effects of pruning on a class and on all others, from results of `pruning.compare`.

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
    """Return measures of each clip's true class, [measure, clip, dose, neuron_set]; NaN where the model does not know
    it.

    `measure` is the logit, the probability, and the accuracy: whether the class is predicted, 0 or 1.
    """
    known = (compared["label"] == compared["target"]).any("target")
    logp = compared["logit"].copy(data=log_softmax(compared["logit"].transpose(..., "target").values, axis=-1))
    measures = [
        _of_true_class(compared, compared["logit"]),
        np.exp(_of_true_class(compared, logp)),
        correct(compared).where(known),
    ]
    return xr.concat(measures, pd.Index(MEASURES, name="measure"))


def correct(compared):
    """Return whether each clip's true label is predicted, 0 or 1: [clip, dose, neuron_set]."""
    predicted = compared["target"].values[compared["logit"].argmax("target").values]
    is_correct = predicted == compared["label"].values[:, None, None]
    return compared["logit"].isel(target=0, drop=True).copy(data=is_correct.astype(float))


def by_class(compared, measure="logit") -> xr.DataArray:
    """Average `outcomes` over each speaker's clips of each label: [label, speaker, dose, neuron_set]."""
    values, labels = outcomes(compared).sel(measure=measure, drop=True), ordered(compared["label"].values)
    rows = [statistics.by_speaker(values[values["label"].values == label]) for label in labels]
    return xr.concat(rows, pd.Index(labels, name="label"), join="outer").rename(measure)


def recalls(compared) -> xr.DataArray:
    """Compute each speaker's recall of each label: [label, speaker, dose, neuron_set]; NaN without clips of it."""
    is_correct, labels = correct(compared), ordered(compared["label"].values)
    rows = [statistics.by_speaker(is_correct[is_correct["label"].values == label]) for label in labels]
    return xr.concat(rows, pd.Index(labels, name="label"), join="outer").rename("recall")


def summary(compared, label) -> xr.Dataset:
    """Compute logits, probability and accuracy of a label's clips and of all others, with 95 % intervals over speakers.

    Returns
    -------
    Dataset
        Over [group, measure, dose, neuron_set], measures as returned by `outcomes`, group "forgotten" and "kept":
        `value` and `change` from the unpruned model, means over speakers, each with `_low` and `_high`, NaN under 8;
        `n` [group] speakers. `selectivity` [measure, dose, neuron_set]: (change of the kept − change of the forgotten)
        / |change of the forgotten|, 1 where only the class falls, 0 where all fall alike; NaN where the forgotten did
        not change. `kl` [group, dose, neuron_set], divergence of the probabilities from those of the unpruned model
        (nats). `macro_f1` [dose, neuron_set]. Where all clips are of the label, "kept" is NaN.

    Raises
    ------
    ValueError
        No clip is of the label.
    """
    measures, has_label = outcomes(compared), compared["label"].values == label
    if not has_label.any():
        raise ValueError(f"none of the {len(has_label)} clips has the label {label!r}: add clips of it")
    logp = compared["logit"].copy(data=log_softmax(compared["logit"].values, axis=-1))
    clean = logp.isel(dose=0)
    kl, groups = (np.exp(clean) * (clean - logp)).sum("target").transpose("clip", "dose", "neuron_set"), []
    for rows in [has_label] if has_label.all() else [has_label, ~has_label]:
        units = statistics.by_speaker(measures[:, rows])
        over = {
            "value": statistics.over_speakers(units),
            "change": statistics.over_speakers(units - units.isel(dose=0)),
        }
        ends = {"mean": "", "low": "_low", "high": "_high"}
        parts = {key + end: table[name] for key, table in over.items() for name, end in ends.items()}
        parts["kl"] = statistics.by_speaker(kl[rows]).mean("speaker")
        groups.append(xr.Dataset({**parts, "n": units.sizes["speaker"]}))
    if has_label.all():  # there are no other clips
        groups.append(xr.full_like(groups[0], np.nan).assign(n=0))
    out = xr.concat(groups, pd.Index(["forgotten", "kept"], name="group"))
    forgotten, kept = (out["change"].sel(group=group, drop=True) for group in ("forgotten", "kept"))
    out["selectivity"] = selectivity(forgotten, kept)
    predicted = compared["target"].values[compared["logit"].argmax("target").values]
    score = partial(f1_score, compared["label"].values, average="macro", zero_division=0.0)
    out["macro_f1"] = (("dose", "neuron_set"), np.apply_along_axis(score, 0, predicted))
    return out.assign_attrs(forgotten=label)


def selectivity(forgotten, kept):
    """Compute (change of the kept − change of the forgotten) / |change of the forgotten|; NaN where that is 0."""
    return _share(kept - forgotten, forgotten)


def _share(difference, forgotten):
    size = abs(forgotten)
    return difference / (size + np.where(size > 1e-9, 0, np.nan))


def frontier(compared) -> xr.Dataset:
    """Compute forgetting of the class and change of the others as the dose grows.

    Parameters
    ----------
    compared : dict
        {class: {strategy: result of `pruning.compare`}}, at the same doses for all classes of a strategy.

    Returns
    -------
    Dataset
        `value` and `change` [class, strategy, random, group, measure, dose]: with the selected neurons pruned
        (`random` False) and the mean over the random sets (True). NaN at doses that a strategy did not have.
    """

    def selected_and_random(result, label):
        effects = summary(result, label)[["value", "change"]]
        sides = [effects.sel(neuron_set="selected", drop=True), random_sets(effects).mean("neuron_set")]
        return xr.concat(sides, pd.Index([False, True], name="random"))

    rows = [
        xr.concat(
            [selected_and_random(result, label) for result in by_strategy.values()],
            pd.Index(list(by_strategy), name="strategy"),
            join="outer",
        )
        for label, by_strategy in compared.items()
    ]
    return xr.concat(rows, pd.Index(list(compared), name="class"), join="outer")


def table(compared, *, dose=-1) -> pd.DataFrame:
    """Average forgetting over classes: a row for each measure and strategy.

    Parameters
    ----------
    compared : dict
        {class: {strategy: result of `pruning.compare`}}.
    dose : int
        Which of the doses of each result, by its index; default: the last.

    Returns
    -------
    DataFrame by (measure, strategy)
        `classes`; `neurons`, the mean dose; means over classes with their 95 % t intervals (`_low`, `_high`, NaN under
        8 classes) of `forgotten` and `kept`, the changes of the classes' own clips and of all others, and `difference`,
        kept minus forgotten; `random`, that difference for the random sets (mean), and `beyond`, how much greater it is
        for the selected neurons; `selectivity`, of the two mean changes as published, its interval by the jackknife
        over classes, and `mean_selectivity`, the mean of the classes' selectivities. The strategy "random" is that of
        the random sets of the first strategy, "most active" and "writes most" its target-blind selections.

    References
    ----------
    Wu, Lin and Weng (2024), AND: Audio Network Dissection, ICML, table 4; there, in logits alone.
    """
    class_rows = {}
    for label, by_strategy in compared.items():
        for position, (strategy, result) in enumerate(by_strategy.items()):
            at_dose = summary(result, label)["change"].isel(dose=dose)
            selected, random = at_dose.sel(neuron_set="selected"), random_sets(at_dose).mean("neuron_set")
            sides = [(strategy, selected)]
            if position == 0 and random_sets(at_dose).sizes["neuron_set"]:
                sides += [("random", random)]
                sides += [
                    (name, at_dose.sel(neuron_set=name))
                    for name in random_neurons.TARGET_BLIND
                    if name in at_dose["neuron_set"].values
                ]
            for name, change in sides:
                for measure in MEASURES:
                    values = [changes.sel(measure=measure) for changes in (change, random)]
                    pairs = [float(changes.sel(group=group)) for changes in values for group in ("forgotten", "kept")]
                    class_rows.setdefault((measure, name), []).append([int(at_dose["dose"]), *pairs])
    rows = {
        key: _averaged(np.array(values))
        for key, values in sorted(class_rows.items(), key=lambda item: MEASURES.index(item[0][0]))
    }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["measure", "strategy"])


def _averaged(values) -> dict:
    """Compute a row of `table` from [class, (dose, forgotten, kept, forgotten and kept of random sets)]."""
    dose, forgotten, kept, random_forgotten, random_kept = values.T
    difference, random = kept - forgotten, random_kept - random_forgotten
    row = {"classes": len(values), "neurons": dose.mean()}
    means = {"forgotten": forgotten, "kept": kept, "difference": difference, "beyond": difference - random}
    for name, class_values in means.items():
        row |= dict(zip((name, f"{name}_low", f"{name}_high"), statistics.interval(class_values)))

    def ratio(rows):
        return _share(difference[rows].mean(), forgotten[rows].mean())

    classes, n = np.arange(len(values)), len(values)
    overall, ratios = ratio(classes), _share(difference, forgotten)
    pseudovalues = [n * overall - (n - 1) * ratio(classes != i) for i in classes] if n > 1 else [np.nan]
    mean, low, high = statistics.interval(pseudovalues)
    row |= {"selectivity": overall, "selectivity_low": overall + low - mean, "selectivity_high": overall + high - mean}
    return {**row, "mean_selectivity": ratios.mean(), "random": random.mean()}


def effects(compared, label) -> xr.Dataset:
    """Compute the effects of pruning on the forgotten class and on the others, and test them against random sets.

    Returns
    -------
    Dataset [group, speaker, dose, neuron_set], group "forgotten" and "kept": the clips of the class, and all others
        `recall`; `log_odds`, the change of the log odds of the clip's true class (nats), and `moved`, its absolute
        value: means over a speaker's clips. Of "kept" clips these are log odds among the other classes only, since
        otherwise a loss of the forgotten class would count as their gain. `margin` [group, speaker, dose]: the log odds
        with the selected neurons pruned minus their mean with random ones. `across_p` [group, dose]: p of the rank of
        the selected neurons' log odds among those of the random sets (`statistics.rank_test`); `margin_p`: the greater
        of it and of p of a sign-flip test of `margin` over speakers, NaN under 8 of them. With target-blind selections,
        of which each is a `control`: `beyond_blind` [group, speaker, dose, control], the log odds with the selected
        neurons pruned minus those with the control's; and [group, control, dose] `blind_across_p`, p of the rank of
        their mean difference among those between random sets, and `blind_p`, the greater of it and of p of a sign-flip
        test over speakers.
    """
    groups, has_label = [], compared["label"] == label
    for group, rows in (("forgotten", has_label), ("kept", ~has_label)):
        part = compared.isel(clip=np.flatnonzero(rows.values))
        odds = _log_odds(part if group == "forgotten" else part.sel(target=part["target"] != label))
        change = odds - odds.isel(dose=0)
        measures = {"recall": correct(part), "log_odds": change, "moved": np.abs(change)}
        by_speaker = {name: statistics.by_speaker(data) for name, data in measures.items()}
        selected, random = by_speaker["log_odds"].isel(neuron_set=0, drop=True), random_sets(by_speaker["log_odds"])
        by_speaker["margin"] = selected - random.mean("neuron_set")
        sets = random.mean("speaker").transpose("dose", "neuron_set")
        p_sets = _rank_p_values(selected.mean("speaker"), sets)
        p_speakers = statistics.sign_flip_test(by_speaker["margin"].transpose("dose", "speaker").values, axis=1)
        tests = {"across_p": ("dose", p_sets), "margin_p": ("dose", np.maximum(p_sets, p_speakers))}
        names = [name for name in random_neurons.TARGET_BLIND if name in compared["neuron_set"].values]
        if names:
            differences = (selected - by_speaker["log_odds"].sel(neuron_set=names)).rename(neuron_set="control")
            by_speaker["beyond_blind"] = differences
            pairs = statistics.between_random_sets(
                sets.rename(neuron_set="random"), shared=compared["shared"]
            ).transpose("dose", "random")
            p_pairs = [
                _rank_p_values(difference, pairs, sets.sizes["neuron_set"])
                for difference in differences.mean("speaker").transpose("control", "dose")
            ]
            p_speakers = statistics.sign_flip_test(differences.transpose("control", "dose", "speaker").values, axis=2)
            tests["blind_across_p"] = ("control", "dose"), np.array(p_pairs)
            tests["blind_p"] = ("control", "dose"), np.maximum(p_pairs, p_speakers)
        groups.append(xr.Dataset({**by_speaker, **tests}).expand_dims(group=[group]))
    return xr.concat(groups, "group", join="outer").assign_attrs(forgotten=label)


def random_sets(compared):
    """Select the random sets from results along `neuron_set`, of which the first are the selected neurons'."""
    names = compared["neuron_set"].values[1:].tolist()
    return compared.isel(
        neuron_set=[index for index, name in enumerate(names, 1) if name not in random_neurons.TARGET_BLIND]
    )


def _rank_p_values(values, random, draws=None) -> np.ndarray:
    """Compute the two-sided p [dose] of the rank of `values` [dose] among `random` [dose, draw], dose by dose."""
    return np.array(
        [
            statistics.rank_test(value, null_distribution, draws=draws)[0]
            for value, null_distribution in zip(values.values, random.values)
        ]
    )


def _of_true_class(compared, values):
    """Select the `values` [clip, dose, neuron_set, target] of each clip's true class; NaN if unknown to the model."""
    return values.where(compared["label"] == compared["target"]).sum("target", min_count=1)


def _log_odds(compared):
    """Compute the log odds of each clip's true class against all others, which adding to all logits does not change."""
    others = compared["logit"].where(compared["label"] != compared["target"], -np.inf)
    pooled = xr.apply_ufunc(logsumexp, others, input_core_dims=[["target"]], kwargs={"axis": -1})
    return _of_true_class(compared, compared["logit"]) - pooled
