"""A neuron set flipped in each of 12 layers of a model of the size of wavlm-base-plus, three seconds of sound."""

from __future__ import annotations

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
def test_bench_cascade(measure, model, wave, plan, path):
    from xai_lib import execution

    run = execution.cascade if path == "ours" else hooked
    found = measure(lambda: run(model, wave, plan), row="ablation sweep, 12 layers, 3 s", path=path)
    assert found.shape == (12 + (path == "ours"), 8)


def test_bench_paths_agree(model, wave, plan):
    from xai_lib import execution

    ours, other = execution.cascade(model, wave, plan), hooked(model, wave, plan)
    assert abs(ours[1:] - other).max() <= 1e-4 * abs(other).max()
    assert abs(ours[1:] - ours[0]).amax(1).min() > 1e-5 * abs(other).max()  # every edit is felt
