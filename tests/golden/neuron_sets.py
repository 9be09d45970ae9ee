"""Results of sweeps as they were: a prefix on variables where there is the dim `neuron_set` today."""

import json

import pandas as pd
import xarray as xr

from xai_lib.ablation import effects

PREFIXES = {"random": "random", "direction": "direction", "target-blind": "blind"}  # {kind: prefix, and dim}
NAMES = {"rms": "magnitude", "n_random_sets": "random_sets"}


def neurons_of(result: xr.Dataset) -> dict:
    """Return the neurons that a result records, {layer: neurons}, the layers as text; {} where it records none."""
    neurons = effects.selected_neurons(result)
    return {str(layer): indices for layer, indices in neurons.items()}


def with_neurons(effect: xr.Dataset, result: xr.Dataset) -> xr.Dataset:
    """Return the effect of a result with the attribute that held the result's neurons."""
    return effect.assign_attrs(neurons=json.dumps(neurons_of(result)))


def by_prefix(result: xr.Dataset) -> xr.Dataset:
    """Return a result with the variables of each kind of control under a prefix, along a dim of their own."""
    if "is_selected" in result:
        result = with_neurons(result, result).drop_vars(["is_selected", "edited_layer", "neuron"], errors="ignore")
    result = result.rename({new: old for new, old in NAMES.items() if new in result})
    if "reached" in result:
        assert result["reached"].notnull().all()
        result["reached"] = result["reached"].astype(bool)
    kinds = result["kind"].values
    names = [name for name in result.data_vars if "neuron_set" in result[name].dims]
    split = result.drop_vars([*names, "neuron_set", "kind"])
    for name in names:
        split[name] = result[name].sel(neuron_set="selected", drop=True).drop_vars("kind", errors="ignore")
        for kind, prefix in PREFIXES.items():
            if kind not in kinds and kind != "random":
                continue
            of_kind = result[name].isel(neuron_set=kinds == kind).rename(neuron_set=prefix).drop_vars("kind")
            split[f"{prefix}_{name}"] = of_kind if kind == "target-blind" else of_kind.drop_vars(prefix)
    return split.assign_attrs(result.attrs)


def joined(results: dict, ks) -> xr.Dataset:
    """Return sweeps {selection: one for each k} as one, with the dims `selected` and `k` and all neurons recorded."""
    by_selection, neurons = [], {}
    for name, sweeps in results.items():
        by_selection.append(
            xr.concat([by_prefix(sweep) for sweep in sweeps], pd.Index(ks, name="k"), combine_attrs="override")
        )
        neurons[name] = {str(k): neurons_of(sweep) for k, sweep in zip(ks, sweeps)}
    whole = xr.concat(by_selection, pd.Index(results, name="selected"), combine_attrs="override")
    first = [dim for dim in ("clip", "selected", "layer", "mode", "k") if dim in whole.dims]
    whole = whole.map(lambda values: values.transpose(*[dim for dim in first if dim in values.dims], ...))
    clean = [name for name in whole if name.startswith("clean_")]
    first_sweep = next(iter(results.values()))[0]
    for sweeps in results.values():
        for sweep in sweeps:
            xr.testing.assert_equal(sweep[clean].reset_coords(drop=True), first_sweep[clean].reset_coords(drop=True))
            assert sweep.attrs == first_sweep.attrs
    whole[clean] = whole[clean].isel(selected=0, k=0, drop=True)
    if "target" in whole.coords:
        whole = whole.assign_coords(target=whole["target"].transpose("clip", "selected"))
    return whole.assign_attrs(neurons=json.dumps(neurons))
