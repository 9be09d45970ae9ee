"""Sets of neurons edited in each of 12 layers of a model of the size of wavlm-base-plus, three seconds of sound."""

from __future__ import annotations

import itertools

import numpy as np
import pytest


@pytest.fixture(scope="module")
def plan(model):
    from xai_lib import edits, hooks

    return [(hooks.Site(layer), edits.edit(range(50), "flip")) for layer in range(1, model.n_layers + 1)]


@pytest.fixture(scope="module")
def wave():
    return (0.1 * np.random.default_rng(0).standard_normal(48_000)).astype(np.float32)


def hooked(model, wave, plan):
    """One forward with one hook for each edit: logits [edit, label]. The clean clip is not even run."""
    import torch

    from xai_lib import hooks

    x, rows = model.tensor(wave), []
    with torch.no_grad():
        for site, function in plan:
            with hooks.edit(model, {site: function}):
                rows.append(model.logits(x))
    return torch.cat(rows)


@pytest.mark.parametrize("path", ["ours", "12 hooked forwards"])
def test_cascade_takes_fewer_flops_than_hooks(measure, model, wave, plan, path):
    """A cascade of 12 edits takes at least 2.5 times fewer FLOPs than 12 hooked forwards; both are timed."""
    from xai_lib import execution

    run = execution.cascade if path == "ours" else hooked
    asked = {"times faster": 2.2, "fewer FLOPs": 2.5}
    found = measure(lambda: run(model, wave, plan), row="ablation sweep, 12 layers, 3 s", path=path, asked=asked)
    assert found.shape == (12 + (path == "ours"), 8)


def test_cascade_equals_hooked_forwards(model, wave, plan):
    """A cascade of 12 edits equals 12 hooked forwards, and every edit changes the logits."""
    from xai_lib import execution

    ours, other = execution.cascade(model, wave, plan), hooked(model, wave, plan)
    assert abs(ours[1:] - other).max() <= 1e-4 * abs(other).max()
    assert abs(ours[1:] - ours[0]).amax(1).min() > 1e-5 * abs(other).max()  # every edit is felt


@pytest.fixture(scope="module")
def shapes(model):
    """The same model without numbers: its FLOPs can be counted in no time."""
    import copy

    from xai_lib import models

    told = {"name": "base", "trained": "not trained: a benchmark", "preprocessor": {}, "device": "meta"}
    empty = models.Model(copy.deepcopy(model.network), labels=model.labels, **told)
    empty.tensor = lambda waveform: waveform
    return empty


@pytest.mark.parametrize("path", ["ours", "780 hooked forwards"])
def test_cascade_takes_fewer_flops_in_full_sweep(measure, shapes, path):
    """A cascade of 780 edits takes at least 3.2 times fewer FLOPs than as many hooked forwards."""
    import torch

    from xai_lib import edits, execution, hooks

    x, known = torch.zeros(1, 48_000, device="meta"), dict.fromkeys(("means", "stds"), np.zeros(768))
    known["values"] = torch.zeros(149, 768, device="meta")
    modes = ("flip", "zero", "mean", "noise", "resample")
    plan = [
        (hooks.Site(layer), edits.edit(range(k), mode, **known))
        for layer in range(1, 13)
        for mode, k in [*itertools.product(modes, (5, 20, 50)), *50 * [("flip", 20)]]
    ]
    few = plan[::65]  # one a layer, all of the same cost
    run = {"ours": lambda: execution.cascade(shapes, x, plan), "780 hooked forwards": lambda: hooked(shapes, x, few)}
    times = 1 if path == "ours" else len(plan) / len(few)
    row = "ablation sweep, 12 layers × (5 modes × 3 k + 50 null draws), 3 s"
    measure(run[path], row=row, path=path, times=times, timed=False, asked={"fewer FLOPs": 3.2})
    assert len(plan) == 780 and len(few) == 12


@pytest.mark.parametrize("path", ["ours", "52 hooked forwards, timed on 13"])
def test_bench_sweep(measure, model, noise, path):
    """A sweep with null draws and proxies equals hooked forwards of the chosen neurons; both are timed."""
    import torch
    import xarray as xr

    from xai_lib import ablation, audio, edits, hooks, targets
    from xai_lib.probing import activation_proxies

    clips, dims, shape = noise(0.5), ("layer", "neuron"), (model.n_layers + 1, model.n_neurons(0))
    neurons, rng = {layer: np.arange(layer, layer + 5) for layer in range(shape[0])}, np.random.default_rng(0)
    ones, axis = (dims, np.ones(shape)), (dims, rng.standard_normal(shape))  # as if fitted on training clips
    activation_stats = xr.Dataset({"mean": ones, "std": ones, "magnitude": ones}, {"layer": range(shape[0])})
    activation_stats = activation_stats.assign_attrs(part="hidden_state", model=model.name)
    fitted = {"component": axis, "centre": (dims, np.zeros(shape)), "sd": (("layer", "proxy"), np.ones((shape[0], 3)))}
    fitted = xr.Dataset(fitted, {"proxy": list(activation_proxies.PROXIES)})

    def ours():
        found = ablation.sweep(
            model,
            clips,
            ablation.Selection(neurons),
            controls=ablation.RandomControls(activation_stats, n=3),
            readouts=[ablation.Proxies(fitted)],
            target=3,
        )
        found = found.sel(neuron_set="selected").isel(clip=0, mode=0)
        return found["target_change"].values, found["relative_change"].values, found["proxy_value"].values

    @torch.no_grad()
    def hooked():
        x, sites, readout_functions = (
            model.tensor(audio.read(clips["path"][0])),
            model.sites(),
            activation_proxies.readout_functions(model, fitted),
        )
        logits, hidden = [], []
        for plan in [{}, *({hooks.Site(layer): edits.edit(own, "flip")} for layer, own in neurons.items())]:
            with hooks.edit(model, plan), hooks.capture(model, sites) as seen:
                logits.append(model.logits(x))
            hidden.append(torch.stack([seen[site][0] for site in sites]))
        odds, hidden = targets.value(model, torch.cat(logits).double(), (3,), "log_odds"), torch.stack(hidden)
        spread = (hidden[1:] - hidden[0]).norm(dim=(-2, -1)) / hidden[0].norm(dim=(-2, -1))
        read = torch.stack([readout_functions[site](hidden[1:, place]) for place, site in enumerate(sites)], dim=1)
        return (odds[1:] - odds[0]).numpy(), spread.numpy(), read.numpy()

    def same(found):
        target_change, spread, read = found
        readout_layer, at = np.meshgrid(range(shape[0]), range(shape[0]))
        parts = (
            target_change,
            spread[readout_layer >= at],
            *read[readout_layer > at, :2].T,
        )  # no centroid: all norms here are the same
        return np.concatenate([part / np.abs(part).max() for part in parts])

    run, times = (ours, 1) if path == "ours" else (hooked, 53 / 14)
    row = "ablation.sweep, 13 layers × (5 neurons + 3 null draws), with proxies, 0.5 s"
    measure(run, row=row, path=path, rounds=1, times=times, same=same)
