"""Whether an effect exceeds every control: random neurons, a rival selection, target-blind selections."""

from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from .. import statistics
from .effects import ALIKE, _counts, _false_discovery, _picked, contrast, summary


def verdict(result, rivals, *, variable="delta", **where) -> xr.Dataset:
    """Whether the selected neurons do more than all they are compared with, each shown.

    Parameters
    ----------
    result : Dataset
        Of `sweep`, with random sets and the target-blind selections, which it has where it was given moments.
    rivals : dict of Dataset
        By name, at least one sweep of the same clips, target, layers, `nulls`, `size_classes` and `seed`, with as many
        neurons that were selected for something else.

    Returns
    -------
    Dataset [control, layer, mode]
        A ``control`` each for "random" neurons, the rivals, and the target-blind ("most active", "writes most"):
        ``effect``, what it does; ``difference``, selected minus control, with ``low`` and ``high`` over speakers. ``p``
        and ``q`` of "random" are those of `summary`. The others are asked only in layers where that q is below 0.05, and
        are NaN elsewhere: ``p`` is the larger of that over speakers and the rank of the difference among those between
        random sets (of a rival, the two that one substitution makes of both selections, which share as many neurons as
        these do; of a target-blind selection, any two); ``q``, at a false discovery rate over these layers. Under 8
        speakers p and q are of the random sets alone, and said of these speakers only.

        ``ratio`` [control, layer], the size of the selected neurons' edit to that of the control (root mean square
        activation). [layer, mode]: ``selected``, what the selected neurons do; and ``beyond``, the verdict: every q is
        below 0.05, every difference has the sign of ``selected``, and the size differs from that of random neurons by no
        more than a quarter (`ALIKE`).

    Raises
    ------
    ValueError
        There are no random sets, no target-blind selections or no rival; a rival has other random sets, another target
        or other numbers of neurons; or the result is one of `averaged`, whose random sets are sorted.

    Notes
    -----
    A choice by what neurons do to any target, whichever way, knows nothing of this target, and yet does more than random
    neurons of like size. "writes most" and a rival selected by the same procedure are there for it: without both, such
    choices are often called beyond all. "writes most" is left out where what
    neurons write is not known (`activations.moments`): then let the rival be of the same procedure.
    """
    needed = {f"null_{variable}", f"blind_{variable}", "magnitude", "null_magnitude"}
    if not needed <= set(result) or not result.sizes["null"]:
        raise ValueError("a verdict needs random sets and blind selections: give sweep nulls=40 or more, and moments=")
    if not rivals or isinstance(rivals, xr.Dataset):
        raise ValueError("a verdict needs rivals: {name: a sweep of neurons that were selected for something else}")
    whole = summary(result, variable, **where)
    selected = result[variable].sel(where)
    tested = "" if whole["n"].max() >= statistics.FEWEST else "_null"  # p and q over speakers too, or of sets alone

    names = {"null_mean": "effect", "difference_low": "low", "difference_high": "high"}
    names |= {f"p{tested}": "p", f"q{tested}": "q"}
    compared = {"random": whole[["difference", *names]].rename(names)}
    asked = compared["random"]["q"] < 0.05
    for control in _controls(result, rivals, variable, where):
        found = contrast(selected, control.effect, null=control.chance, sets=control.sets)
        p = found[f"p{tested}"].where(asked)
        effect = statistics.by_speaker(control.effect).mean("speaker")
        compared[control.name] = xr.Dataset(
            {"difference": found["mean"], "effect": effect, "low": found["low"], "high": found["high"], "p": p}
        ).assign(q=_false_discovery(p))
    controls = pd.Index(list(compared), name="control")
    out = xr.concat(compared.values(), controls, coords="minimal", compat="override")

    sizes = {"random": _picked(result["null_magnitude"], where).mean("null")}
    sizes |= {name: _picked(rival["magnitude"], where) for name, rival in rivals.items()}
    blind = _picked(result["blind_magnitude"], where)
    sizes |= {str(name): blind.sel(blind=name, drop=True) for name in blind["blind"].values}
    size = xr.concat([sizes[name] for name in controls], controls, coords="minimal", compat="override")
    out["ratio"] = _picked(result["magnitude"], where) / size
    out["selected"] = whole["mean"]

    over_random = out["ratio"].sel(control="random", drop=True)
    alike = (over_random <= ALIKE) & (over_random >= 1 / ALIKE)
    more = (np.sign(out["difference"]) == np.sign(out["selected"])).all("control")
    out["beyond"] = (out["q"] < 0.05).all("control") & more & alike
    return out.assign_attrs(result.attrs, variable=variable)


class _Control(NamedTuple):
    """What selected neurons are compared with in a `verdict`."""

    name: str
    effect: xr.DataArray  # [clip, layer, mode], what it does
    chance: xr.DataArray  # the same and `null`: differences of two random selections
    sets: int  # how many random sets those differences are of


def _controls(result, rivals, variable, where) -> list[_Control]:
    """The rivals and the target-blind selections."""
    null, found = result[f"null_{variable}"].sel(where), []
    sets = null.sizes["null"]
    if any("random_sets_sorted" in one.attrs for one in (result, *rivals.values())):
        raise ValueError("the random sets of averaged layers are sorted: no verdict on averages")
    for name, rival in rivals.items():
        theirs = rival[f"null_{variable}"].sel(where)
        alike = all(rival.attrs.get(key) == result.attrs.get(key) for key in ("seed", "size_classes", "part", "frames"))
        if theirs.sizes["null"] != sets or not alike:
            raise ValueError(f"{name} has other random sets: sweep it with the same nulls, size_classes and seed")
        aims, their_aims = (
            set(np.ravel(one["target"])) if "target" in one.coords else set() for one in (result, rival)
        )
        if aims and their_aims and aims != their_aims:
            raise ValueError(f"{name} was swept for the target {_listed(their_aims)}, and not for {_listed(aims)}")
        counts, their_counts = (_counts(one, where) for one in (result, rival))
        if counts and their_counts and counts != their_counts:
            raise ValueError(f"{name} has other numbers of neurons in its layers: select as many")
        found.append(_Control(name, rival[variable].sel(where), null - theirs, sets))
    blind = result[f"blind_{variable}"].sel(where)
    apart = statistics.between_random_sets(null, shared=_picked(result["null_overlap"], where))
    for name in blind["blind"].values:
        found.append(_Control(str(name), blind.sel(blind=name, drop=True), apart, sets))
    return found


def _listed(words):
    return ", ".join(sorted(map(str, words)))
