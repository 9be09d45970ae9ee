"""Peak memory stays where it is when there are four times the steps, draws, segments, neurons or random sets."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import xarray as xr

from xai_lib import ablation, attribution
from xai_lib.probing import activation_proxies


def sweep(model, clips, *, n_random):
    """Two layers, with proxies read; what is fitted on training clips is made up, so that it costs nothing here."""
    dims, shape = ("layer", "neuron"), (model.n_layers + 1, model.n_neurons(0))
    activation_stats = xr.Dataset({"magnitude": (dims, np.ones(shape))}, {"layer": range(shape[0])})
    activation_stats = activation_stats.assign_attrs(part="hidden_state", model=model.name).assign(
        mean=activation_stats["magnitude"], std=0
    )
    axes = {name: (dims, np.ones(shape)) for name in ("component", "centre")}
    fitted = xr.Dataset(
        {**axes, "sd": (("layer", "proxy"), np.ones((shape[0], 3)))}, {"proxy": list(activation_proxies.PROXIES)}
    )
    return ablation.sweep(
        model,
        clips,
        ablation.Selection({10: range(5), 11: range(5)}),
        controls=ablation.RandomControls(activation_stats, n=n_random),
        readouts=[ablation.Proxies(fitted)],
        target=3,
        batch=128,  # greater than the front end
    )


METHODS = {
    "integrated gradients of layer 6, 16 steps": (
        partial(attribution.integrated_gradients, target=3, layers=[6]),
        {"steps": 16},
        {"steps": 64},
    ),
    "GradientSHAP of frames and all layers, 16 draws": (
        partial(attribution.gradient_shap, target=3, layers="all", batch=8),
        {"n": 16},
        {"n": 64},
    ),
    "10 segments, all layers": (
        partial(attribution.segment_response, frames="all", batch=8),
        {"seconds": 0.02},
        {"seconds": 0.005},
    ),
    "each neuron zeroed, layer 12": (
        partial(attribution.exhaustive_ablation, target=3, layers=[12]),
        {},
        {"part": "ffn_hidden"},
    ),
    "ablation sweep of layers 10 and 11 with proxies, 63 null draws": (sweep, {"n_random": 63}, {"n_random": 255}),
}


@pytest.mark.parametrize("path", ["ours", "four times as many"])
@pytest.mark.parametrize("method", METHODS)
def test_methods_keep_peak_memory_at_fourfold_size(measure, counted, model, noise, method, path):
    """Four times the steps, draws, segments, neurons or sets raise peak memory by at most a tenth."""
    function, few, many = METHODS[method]
    row, options = f"memory: {method}, 0.2 s", few if path == "ours" else many
    measure(
        lambda: function(model, noise(0.2), **options),
        row=row,
        path=path,
        rounds=1,
        asked={"peak, of that of a fourth": 1.1},
    )
    peaks = [peak for _, peak, _ in counted[row].values()]
    assert max(peaks) <= 1.1 * peaks[0]
