"""Verdict on an effect: whether it exceeds those of random neurons, rival selections and target-blind selections."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import statistics
from .effects import MAX_SIZE_RATIO, _false_discovery, _neuron_counts, _select, contrast, summary


def verdict(result, rivals, *, variable="target_change", **where) -> xr.Dataset:
    """Test whether the effect of the selected neurons exceeds that of every control, and return each comparison.

    Parameters
    ----------
    result : Dataset
        As returned by `sweep`, with random sets and the target-blind selections, which need activation_stats=.
    rivals : dict of Dataset
        By name, at least one sweep of the same clips, target, layers, `n_random`, `size_classes` and `seed`, with as
        many neurons that were selected for something else.

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
        There are no random sets, no target-blind selections or no rival; a rival has other random sets, another target
        or other numbers of neurons; or the result is one of `average_over_layers`, whose random sets are sorted.

    Notes
    -----
    Neurons selected by their effect on any target, in either direction, are not specific to this target, and yet their
    effect exceeds that of random neurons of like size. "writes most" and a rival selected by the same procedure control
    for that: without both, such selections often exceed all other controls. "writes most" is left out where the norm
    that neurons write is not known (`activations.activation_stats`): then select the rival by the same procedure.
    """
    needed = {f"random_{variable}", f"blind_{variable}", "magnitude", "random_magnitude"}
    if not needed <= set(result) or not result.sizes["random"]:
        raise ValueError(
            "a verdict needs random sets and target-blind selections: run sweep with n_random=40 or "
            "more, and activation_stats="
        )
    if not rivals or isinstance(rivals, xr.Dataset):
        raise ValueError("a verdict needs rivals: {name: sweep of neurons that were selected for something else}")
    effects = summary(result, variable, **where)
    selected = result[variable].sel(where)
    # p and q over speakers too, or, with too few of them, over random sets alone
    tested = "" if effects["n"].max() >= statistics.MIN_SPEAKERS else "_random"
    names = {"random_mean": "effect", "difference_low": "low", "difference_high": "high"}
    names |= {f"p{tested}": "p", f"q{tested}": "q"}
    compared = {"random": effects[["difference", *names]].rename(names)}
    significant = compared["random"]["q"] < 0.05
    for control in _controls(result, rivals, variable, where):
        comparison = contrast(selected, control.effect, random=control.null_distribution, sets=control.sets)
        p = comparison[f"p{tested}"].where(significant)
        effect = statistics.by_speaker(control.effect).mean("speaker")
        compared[control.name] = xr.Dataset(
            {
                "difference": comparison["mean"],
                "effect": effect,
                "low": comparison["low"],
                "high": comparison["high"],
                "p": p,
            }
        ).assign(q=_false_discovery(p))
    controls = pd.Index(list(compared), name="control")
    out = xr.concat(compared.values(), controls, coords="minimal", compat="override")

    sizes = {"random": _select(result["random_magnitude"], where).mean("random")}
    sizes |= {name: _select(rival["magnitude"], where) for name, rival in rivals.items()}
    blind = _select(result["blind_magnitude"], where)
    sizes |= {str(name): blind.sel(blind=name, drop=True) for name in blind["blind"].values}
    size = xr.concat([sizes[name] for name in controls], controls, coords="minimal", compat="override")
    out["ratio"] = _select(result["magnitude"], where) / size
    out["selected"] = effects["mean"]

    over_random = out["ratio"].sel(control="random", drop=True)
    like_size = (over_random <= MAX_SIZE_RATIO) & (over_random >= 1 / MAX_SIZE_RATIO)
    same_sign = (np.sign(out["difference"]) == np.sign(out["selected"])).all("control")
    out["beyond"] = (out["q"] < 0.05).all("control") & same_sign & like_size
    return out.assign_attrs(result.attrs, variable=variable)


class _Control(NamedTuple):
    """A control that the selected neurons are compared with in a `verdict`."""

    name: str
    effect: xr.DataArray  # [clip, layer, mode], effect of the control
    null_distribution: xr.DataArray  # the same dims and `random`: differences of two random selections
    sets: int  # number of random sets that those differences are made of


def _controls(result, rivals, variable, where) -> list[_Control]:
    """Return the rivals and the target-blind selections as controls."""
    random, controls = result[f"random_{variable}"].sel(where), []
    sets = random.sizes["random"]
    if any("random_sets_sorted" in sweep.attrs for sweep in (result, *rivals.values())):
        raise ValueError("a verdict needs unsorted random sets, and those of averaged layers are sorted: pass sweeps")
    for name, rival in rivals.items():
        random_of_rival = rival[f"random_{variable}"].sel(where)
        same_options = all(
            rival.attrs.get(key) == result.attrs.get(key) for key in ("seed", "size_classes", "part", "frames")
        )
        if random_of_rival.sizes["random"] != sets or not same_options:
            raise ValueError(f"{name} has other random sets: sweep it with the same n_random, size_classes and seed")
        target_names, rival_targets = (
            set(np.ravel(sweep["target"])) if "target" in sweep.coords else set() for sweep in (result, rival)
        )
        if target_names and rival_targets and target_names != rival_targets:
            raise ValueError(
                f"{name} was swept for the target {_joined(rival_targets)}, not for {_joined(target_names)}"
            )
        counts, rival_counts = (_neuron_counts(sweep, where) for sweep in (result, rival))
        if counts and rival_counts and counts != rival_counts:
            raise ValueError(f"{name} has other numbers of neurons in its layers: select as many")
        controls.append(_Control(name, rival[variable].sel(where), random - random_of_rival, sets))
    blind = result[f"blind_{variable}"].sel(where)
    differences = statistics.between_random_sets(random, shared=_select(result["random_overlap"], where))
    for name in blind["blind"].values:
        controls.append(_Control(str(name), blind.sel(blind=name, drop=True), differences, sets))
    return controls


def _joined(names):
    return ", ".join(sorted(map(str, names)))
