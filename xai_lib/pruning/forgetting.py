"""Forgetting: effects of pruning on a class and on all others, from results of `pruning.compare`.

Speakers are the units; where a corpus has none, the recordings that clips were cut from.
"""

from __future__ import annotations

import numpy as np
import pandas as pd
import xarray as xr
from scipy.special import log_softmax, logsumexp
from sklearn.metrics import f1_score

from .. import statistics
from ..activations import random_neurons
from ..corpora.filenames import ordered

MEASURES = ("logit", "probability", "accuracy")


def outcomes(compared: xr.Dataset) -> xr.DataArray:
    """Return measures of each clip's true class, [measure, clip, dose, neuron_set]; NaN where the model does not know
    it.

    `measure` is the logit, the probability, and the accuracy: whether the class is predicted, 0 or 1.
    """
    is_known = (compared["label"] == compared["target"]).any("target")
    measures = {
        "logit": _of_true_class(compared, compared["logit"]),
        "probability": np.exp(_of_true_class(compared, _log_probabilities(compared))),
        "accuracy": correct(compared).where(is_known),
    }
    return xr.concat([measures[name] for name in MEASURES], pd.Index(MEASURES, dtype=object, name="measure"))


def correct(compared: xr.Dataset) -> xr.DataArray:
    """Return whether each clip's true label is predicted, 0 or 1: [clip, dose, neuron_set]."""
    return (_predicted(compared) == compared["label"]).astype(float)


def by_class(compared: xr.Dataset, measure: str = "logit") -> xr.DataArray:
    """Average `outcomes` over each speaker's clips of each label: [label, speaker, dose, neuron_set]."""
    values = outcomes(compared).sel(measure=measure, drop=True)
    return _by_label_and_speaker(values).rename(measure)


def recalls(compared: xr.Dataset) -> xr.DataArray:
    """Compute each speaker's recall of each label: [label, speaker, dose, neuron_set]; NaN without clips of it."""
    return _by_label_and_speaker(correct(compared)).rename("recall")


def _by_label_and_speaker(values) -> xr.DataArray:
    """Average values [clip, …] over each speaker's clips of each label, [label, speaker, …]; NaN without such clips."""
    labels = ordered(values["label"].values)
    rows = []
    for label in labels:
        clips = np.flatnonzero(values["label"].values == label)
        rows.append(statistics.by_speaker(values.isel(clip=clips)))
    return xr.concat(rows, pd.Index(labels, dtype=object, name="label"), join="outer")


def summary(compared: xr.Dataset, label: str) -> xr.Dataset:
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
    require_label(compared["label"].values, label)
    has_label = compared["label"].values == label
    measures = outcomes(compared)
    divergence = _divergence(compared)

    label_clips = np.flatnonzero(has_label)
    other_clips = np.flatnonzero(~has_label)
    forgotten = _over_speakers(measures.isel(clip=label_clips), divergence.isel(clip=label_clips))
    if len(other_clips):
        kept = _over_speakers(measures.isel(clip=other_clips), divergence.isel(clip=other_clips))
    else:
        kept = xr.full_like(forgotten, np.nan).assign(n=0)

    result = xr.concat([forgotten, kept], pd.Index(["forgotten", "kept"], dtype=object, name="group"))
    result["selectivity"] = selectivity(forgotten["change"], kept["change"])
    result["macro_f1"] = xr.apply_ufunc(
        _macro_f1, _predicted(compared), compared["label"], input_core_dims=[["clip"], ["clip"]], vectorize=True
    )
    return result.assign_attrs(forgotten=label)


def require_label(labels: np.ndarray, label: str) -> None:
    """Raise ValueError, with the labels that there are, if no clip of `labels` [clip] has a label."""
    if not (labels == label).any():
        known = ", ".join(map(str, ordered(labels)))
        raise ValueError(
            f"none of the {len(labels)} clips has the label {label!r}: add clips of it, or give one of the labels that "
            f"there are, {known}"
        )


def _over_speakers(measures, divergence) -> xr.Dataset:
    """Average `outcomes` and divergence [clip, dose, neuron_set] of a group of clips: the variables of `summary`."""
    units = statistics.by_speaker(measures)
    value = statistics.over_speakers(units)
    change = statistics.over_speakers(_change(units))
    return xr.Dataset(
        {
            "value": value["mean"],
            "value_low": value["low"],
            "value_high": value["high"],
            "change": change["mean"],
            "change_low": change["low"],
            "change_high": change["high"],
            "kl": statistics.by_speaker(divergence).mean("speaker"),
            "n": units.sizes["speaker"],
        }
    )


def _divergence(compared) -> xr.DataArray:
    """Compute the KL divergence of the probabilities from the unpruned model's (nats), [clip, dose, neuron_set]."""
    logp = _log_probabilities(compared)
    clean = logp.isel(dose=0)
    return (np.exp(clean) * (clean - logp)).sum("target").transpose("clip", "dose", "neuron_set")


def _change(values) -> xr.DataArray:
    """Return the change of values [dose, …] from those of the unpruned model, which comes first."""
    return values - values.isel(dose=0)


def _macro_f1(predicted, labels) -> float:
    """Compute the macro F1 of predictions [clip]."""
    return f1_score(labels, predicted, average="macro", zero_division=0.0)


def selectivity(forgotten: xr.DataArray, kept: xr.DataArray) -> xr.DataArray:
    """Compute (change of the kept − change of the forgotten) / |change of the forgotten|; NaN where that is 0."""
    return _relative_to(forgotten, kept - forgotten)


def _relative_to(forgotten, difference):
    """Divide a difference by |forgotten|, array or number; NaN where that is 0."""
    size = abs(forgotten)
    return difference / (size + np.where(size > 1e-9, 0, np.nan))


def frontier(compared: dict) -> xr.Dataset:
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
    by_class = []
    for label, by_strategy in compared.items():
        strategies = [_selected_and_random(result, label) for result in by_strategy.values()]
        by_class.append(xr.concat(strategies, pd.Index(list(by_strategy), dtype=object, name="strategy"), join="outer"))
    return xr.concat(by_class, pd.Index(list(compared), dtype=object, name="class"), join="outer")


def _selected_and_random(result, label) -> xr.Dataset:
    """Return `summary`'s value and change of the selected neurons and of the random sets' mean, along `random`."""
    effects = summary(result, label)[["value", "change"]]
    selected = effects.sel(neuron_set="selected", drop=True)
    random = random_sets(effects).mean("neuron_set")
    return xr.concat([selected, random], pd.Index([False, True], name="random"))


def table(compared: dict, *, dose: int = -1) -> pd.DataFrame:
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
    records = []  # of each class, measure and strategy
    for label, by_strategy in compared.items():
        first = next(iter(by_strategy))
        for strategy, result in by_strategy.items():
            change = summary(result, label)["change"].isel(dose=dose)
            random_change = random_sets(change)
            mean_random_change = random_change.mean("neuron_set")

            changes = [(strategy, change.sel(neuron_set="selected"))]
            if strategy == first and random_change.sizes["neuron_set"]:
                changes.append(("random", mean_random_change))
                for name in _target_blind_names(change):
                    changes.append((name, change.sel(neuron_set=name)))
            for name, change_of_set in changes:
                records += _records(name, change_of_set, mean_random_change)

    class_changes = pd.DataFrame(records)
    rows = {}
    for measure in MEASURES:
        of_measure = class_changes[class_changes["measure"] == measure]
        for strategy, of_strategy in of_measure.groupby("strategy", sort=False):
            rows[measure, strategy] = _average_over_classes(of_strategy)
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(["measure", "strategy"])


def _records(strategy, change, random_change) -> list[dict]:
    """Return a record of each measure, from changes [group, measure] of one class at one dose."""
    records = []
    for measure in MEASURES:
        selected = change.sel(measure=measure)
        random = random_change.sel(measure=measure)
        record = {
            "measure": measure,
            "strategy": strategy,
            "dose": int(change["dose"]),
            "forgotten": float(selected.sel(group="forgotten")),
            "kept": float(selected.sel(group="kept")),
            "random_forgotten": float(random.sel(group="forgotten")),
            "random_kept": float(random.sel(group="kept")),
        }
        records.append(record)
    return records


def _average_over_classes(class_changes) -> dict:
    """Compute a row of `table` from the records of one measure and strategy, a DataFrame with a row per class."""
    forgotten = class_changes["forgotten"].to_numpy()
    kept = class_changes["kept"].to_numpy()
    difference = kept - forgotten
    random_difference = (class_changes["random_kept"] - class_changes["random_forgotten"]).to_numpy()

    row = {"classes": len(class_changes), "neurons": class_changes["dose"].mean()}
    averaged = {
        "forgotten": forgotten,
        "kept": kept,
        "difference": difference,
        "beyond": difference - random_difference,
    }
    for name, values in averaged.items():
        mean, low, high = statistics.interval(values)
        row |= {name: mean, f"{name}_low": low, f"{name}_high": high}

    overall = _relative_to(forgotten.mean(), difference.mean())
    mean, low, high = statistics.interval(_pseudovalues(forgotten, difference))
    row |= {"selectivity": overall, "selectivity_low": overall + low - mean, "selectivity_high": overall + high - mean}
    row["mean_selectivity"] = _relative_to(forgotten, difference).mean()
    row["random"] = random_difference.mean()
    return row


def _pseudovalues(forgotten, difference) -> np.ndarray:
    """Compute the jackknife pseudovalues [class] of the selectivity of the means; NaN of a single class."""
    n = len(forgotten)
    if n == 1:
        return np.array([np.nan])
    overall = _relative_to(forgotten.mean(), difference.mean())
    pseudovalues = []
    for left_out in range(n):
        others = np.arange(n) != left_out
        without = _relative_to(forgotten[others].mean(), difference[others].mean())
        pseudovalues.append(n * overall - (n - 1) * without)
    return np.array(pseudovalues)


def effects(compared: xr.Dataset, label: str) -> xr.Dataset:
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
    has_label = compared["label"].values == label
    forgotten = compared.isel(clip=np.flatnonzero(has_label))
    kept = compared.isel(clip=np.flatnonzero(~has_label))
    other_classes = kept.sel(target=kept["target"] != label)

    groups = [
        _effects_on_group(forgotten, _log_odds(forgotten)).expand_dims(group=["forgotten"]),
        _effects_on_group(kept, _log_odds(other_classes)).expand_dims(group=["kept"]),
    ]
    return xr.concat(groups, "group", join="outer").assign_attrs(forgotten=label)


def _effects_on_group(compared, log_odds) -> xr.Dataset:
    """Compute the variables of `effects` from the clips of one group, and their log odds [clip, dose, neuron_set]."""
    change = _change(log_odds)
    result = xr.Dataset(
        {
            "recall": statistics.by_speaker(correct(compared)),
            "log_odds": statistics.by_speaker(change),
            "moved": statistics.by_speaker(np.abs(change)),
        }
    )
    selected = result["log_odds"].sel(neuron_set="selected", drop=True)
    random = random_sets(result["log_odds"])
    result["margin"] = selected - random.mean("neuron_set")

    random_means = random.mean("speaker").transpose("dose", "neuron_set")
    p_across_sets, _ = statistics.rank_test(selected.mean("speaker").values, random_means.values)
    p_over_speakers = statistics.sign_flip_test(result["margin"].transpose("dose", "speaker").values, axis=1)
    result["across_p"] = "dose", p_across_sets
    result["margin_p"] = "dose", np.maximum(p_across_sets, p_over_speakers)

    names = _target_blind_names(compared)
    if names:
        target_blind = result["log_odds"].sel(neuron_set=names).rename(neuron_set="control")
        tests = _tests_against_target_blind(selected - target_blind, random_means, compared["shared"])
        result = result.merge(tests)
    return result


def _tests_against_target_blind(differences, random_means, shared) -> xr.Dataset:
    """Test the differences [speaker, dose, control] against those between random sets, of means [dose, neuron_set].

    `shared` [dose] is the share of neurons that two random sets have in common. Returned are the variables
    `beyond_blind`, `blind_across_p` and `blind_p` of `effects`.
    """
    n_random = random_means.sizes["neuron_set"]
    between = statistics.between_random_sets(random_means.rename(neuron_set="random"), shared=shared)
    between = between.transpose("dose", "random").values

    p_across_sets = []
    for mean_difference in differences.mean("speaker").transpose("control", "dose").values:
        p, _ = statistics.rank_test(mean_difference, between, draws=n_random)
        p_across_sets.append(p)
    p_over_speakers = statistics.sign_flip_test(differences.transpose("control", "dose", "speaker").values, axis=2)
    return xr.Dataset(
        {
            "beyond_blind": differences,
            "blind_across_p": (("control", "dose"), np.array(p_across_sets)),
            "blind_p": (("control", "dose"), np.maximum(p_across_sets, p_over_speakers)),
        }
    )


def random_sets(compared):
    """Select the random sets from a result, DataArray or Dataset, along `neuron_set`."""
    is_other = compared["neuron_set"].isin(["selected", *random_neurons.TARGET_BLIND])
    return compared.isel(neuron_set=np.flatnonzero(~is_other))


def _target_blind_names(compared) -> list[str]:
    """Return the names of the target-blind selections that a result has along `neuron_set`."""
    return [name for name in random_neurons.TARGET_BLIND if name in compared["neuron_set"].values]


def _predicted(compared) -> xr.DataArray:
    """Return the predicted class of each clip, [clip, dose, neuron_set]."""
    best = compared["logit"].argmax("target")
    return best.copy(data=compared["target"].values[best.values])


def _log_probabilities(compared) -> xr.DataArray:
    """Compute the log of the softmax of the logits, [clip, dose, neuron_set, target]."""
    dims = [["target"]]
    return xr.apply_ufunc(
        log_softmax, compared["logit"], input_core_dims=dims, output_core_dims=dims, kwargs={"axis": -1}
    )


def _of_true_class(compared, values) -> xr.DataArray:
    """Select the `values` [clip, dose, neuron_set, target] of each clip's true class; NaN if unknown to the model."""
    return values.where(compared["label"] == compared["target"]).sum("target", min_count=1)


def _log_odds(compared) -> xr.DataArray:
    """Compute the log odds of each clip's true class against all others, which adding to all logits does not change."""
    others = compared["logit"].where(compared["label"] != compared["target"], -np.inf)
    pooled = xr.apply_ufunc(logsumexp, others, input_core_dims=[["target"]], kwargs={"axis": -1})
    return _of_true_class(compared, compared["logit"]) - pooled
