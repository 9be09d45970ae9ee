"""Verdict on an effect: whether it exceeds those of random neurons, rival selections and target-blind selections."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
import xarray as xr

from .. import statistics
from ..activations import random_neurons
from .effects import (
    MAX_SIZE_RATIO,
    SIGNIFICANT,
    contrast,
    control_values,
    effect_over_speakers,
    false_discovery,
    select_where,
    selected_neurons,
    selected_values,
)


def verdict(
    result: xr.Dataset, rivals: Mapping[str, xr.Dataset], *, variable: str = "target_change", **where
) -> xr.Dataset:
    """Test whether the effect of the selected neurons exceeds that of every control, and return each comparison.

    Parameters
    ----------
    result : Dataset
        As returned by `sweep`, with random sets and the target-blind selections (`RandomControls`).
    rivals : dict of Dataset
        By name, at least one sweep of the same clips, target, layers, controls and `seed`, with as many neurons that
        were selected for something else.

    Returns
    -------
    Dataset [control, layer, mode]
        A ``control`` each for "random" neurons, the rivals, and the target-blind ("most active", "writes most"):
        ``effect``, that of the control; ``difference``, selected minus control, with ``low`` and ``high`` over
        speakers. ``p`` and ``q`` of "random" are those of `summary`. The others are tested only in layers where that q
        is below 0.05, and are NaN elsewhere: ``p`` is the larger of that over speakers and the rank of the difference
        among those between random sets (for a rival, the two that one substitution makes of both selections, which
        share as many neurons as these do; for a target-blind selection, any two); ``q``, at a false discovery rate over
        these layers. Under 8 speakers p and q are of the random sets alone, and hold for these speakers only.

        ``ratio`` [control, layer], the size of the selected neurons' edit to that of the control (root mean square
        activation). [layer, mode]: ``selected``, the effect of the selected neurons; and ``beyond``, the verdict: every
        q is below 0.05, every difference has the sign of ``selected``, and the size differs from that of random neurons
        by no more than a quarter (`MAX_SIZE_RATIO`).

    Raises
    ------
    ValueError
        There are no random sets, no target-blind selections or no rival; a rival bears the name of another control, or
        has other random sets, another target or other numbers of neurons; or the result is one of
        `average_over_layers`, whose random sets are sorted.

    Notes
    -----
    Neurons selected by their effect on any target, in either direction, are not specific to this target, and yet their
    effect exceeds that of random neurons of like size. "writes most" and a rival selected by the same procedure control
    for that: without both, such selections often exceed all other controls. "writes most" is left out where the norm
    that neurons write is not known (`activations.activation_stats`): then select the rival by the same procedure.
    """
    _require_controls(result, rivals, variable)
    effect = effect_over_speakers(result, variable, **where)
    # p and q over speakers too, or, with too few of them, over random sets alone
    suffix = "" if effect["n"].max() >= statistics.MIN_SPEAKERS else "_random"
    names = {"random_mean": "effect", "difference_low": "low", "difference_high": "high"}
    names |= {f"p{suffix}": "p", f"q{suffix}": "q"}
    compared = {"random": effect[["difference", *names]].rename(names)}

    significant = compared["random"]["q"] < SIGNIFICANT
    selected = selected_values(result[variable].sel(where))
    for control in _controls(result, rivals, variable, where):
        comparison = contrast(
            selected, control.effect, null_distribution=control.null_distribution, n_sets=control.n_sets
        )
        p = comparison[f"p{suffix}"].where(significant)
        compared[control.name] = xr.Dataset(
            {
                "difference": comparison["mean"],
                "effect": statistics.by_speaker(control.effect).mean("speaker"),
                "low": comparison["low"],
                "high": comparison["high"],
                "p": p,
                "q": false_discovery(p),
            }
        )
    controls = pd.Index(list(compared), dtype=object, name="control")
    out = xr.concat(compared.values(), controls, coords="minimal", compat="override")
    out["ratio"] = _size_ratio(result, rivals, controls, where)
    out["selected"] = effect["mean"]

    over_random = out["ratio"].sel(control="random", drop=True)
    like_size = (over_random <= MAX_SIZE_RATIO) & (over_random >= 1 / MAX_SIZE_RATIO)
    same_sign = (np.sign(out["difference"]) == np.sign(out["selected"])).all("control")
    out["beyond"] = (out["q"] < SIGNIFICANT).all("control") & same_sign & like_size
    return out.assign_attrs(result.attrs, variable=variable)


def _require_controls(result, rivals, variable) -> None:
    """Raise ValueError where the variable, random sets, target-blind selections or rivals are missing or unfit."""
    kinds = set(result["kind"].values) if "kind" in result.coords else set()
    if variable not in result:
        raise ValueError(
            f"unknown variable {variable!r}: a verdict is of a variable of the sweep, such as target_change"
        )
    if "rms" not in result or not {"random", "target-blind"} <= kinds:
        raise ValueError(
            "a verdict needs random sets and target-blind selections: run sweep with "
            "controls=RandomControls(activation_stats, n=40) or more"
        )
    if not rivals or isinstance(rivals, xr.Dataset):
        raise ValueError("a verdict needs rivals: {name: sweep of neurons that were selected for something else}")
    for name in rivals:
        if name == "random" or name in random_neurons.TARGET_BLIND:
            raise ValueError(f"a rival must not be named {name!r}, which is the name of another control: rename it")
    if any("random_sets_sorted" in sweep.attrs for sweep in (result, *rivals.values())):
        raise ValueError("a verdict needs unsorted random sets, and those of averaged layers are sorted: pass sweeps")


@dataclass(frozen=True, eq=False)
class _Control:
    """A control that the selected neurons are compared with in a `verdict`."""

    name: str
    effect: xr.DataArray  # [clip, layer, mode], effect of the control
    null_distribution: xr.DataArray  # the same dims and `random`: differences of two random selections
    n_sets: int  # number of random sets that those differences are made of


def _controls(result, rivals, variable, where) -> list[_Control]:
    """Return the rivals and the target-blind selections as controls."""
    values = result[variable].sel(where)
    random = control_values(values, "random")
    n_sets = random.sizes["random"]
    controls = []
    for name, rival in rivals.items():
        _require_comparable(result, rival, name, where)
        rival_values = rival[variable].sel(where)
        difference = random - control_values(rival_values, "random")
        controls.append(_Control(name, selected_values(rival_values), difference, n_sets))

    blind = control_values(values, "target-blind")
    differences = statistics.between_random_sets(random, shared=select_where(result["random_overlap"], where))
    for name in blind["target-blind"].values:
        effect = blind.sel({"target-blind": name}, drop=True)
        controls.append(_Control(str(name), effect, differences, n_sets))
    return controls


def _require_comparable(result, rival, name, where) -> None:
    """Raise ValueError where a rival has other random sets, another target, or other numbers of neurons."""
    n_sets = int((result["kind"] == "random").sum())
    n_rival_sets = int((rival["kind"] == "random").sum())
    options = ("seed", "size_classes", "part", "frames")
    if n_rival_sets != n_sets or any(rival.attrs.get(key) != result.attrs.get(key) for key in options):
        raise ValueError(f"{name} has other random sets: sweep it with the same controls and seed")

    targets = _target_names(result)
    rival_targets = _target_names(rival)
    if targets and rival_targets and targets != rival_targets:
        raise ValueError(f"{name} was swept for the target {_joined(rival_targets)}, not for {_joined(targets)}")

    counts = {layer: len(neurons) for layer, neurons in selected_neurons(result, **where).items()}
    rival_counts = {layer: len(neurons) for layer, neurons in selected_neurons(rival, **where).items()}
    if counts and rival_counts and counts != rival_counts:
        raise ValueError(f"{name} has other numbers of neurons in its layers: select as many")


def _size_ratio(result, rivals, controls, where) -> xr.DataArray:
    """Return the size of the selected neurons' edit over that of each control, [control, layer]."""
    rms = select_where(result["rms"], where)
    blind = control_values(rms, "target-blind")
    sizes = {"random": control_values(rms, "random").mean("random")}
    for name, rival in rivals.items():
        sizes[name] = selected_values(select_where(rival["rms"], where))
    for name in blind["target-blind"].values:
        sizes[str(name)] = blind.sel({"target-blind": name}, drop=True)
    size = xr.concat([sizes[name] for name in controls], controls, coords="minimal", compat="override")
    return selected_values(rms) / size


def _target_names(sweep) -> set[str]:
    """Return the targets that a sweep records; none where it records none."""
    return set(np.ravel(sweep["target"])) if "target" in sweep.coords else set()


def _joined(names) -> str:
    """Return names as a list in text."""
    return ", ".join(sorted(map(str, names)))
