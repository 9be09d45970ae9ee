"""Peak memory stays where it is when there are four times the steps, draws, segments or neurons."""

from __future__ import annotations

from functools import partial

import pytest

from xai_lib import attribution

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
}


@pytest.mark.parametrize("path", ["ours", "four times as many"])
@pytest.mark.parametrize("method", METHODS)
def test_bench_memory(measure, counted, model, noise, method, path):
    function, few, many = METHODS[method]
    row, options = f"memory: {method}, 0.2 s", few if path == "ours" else many
    measure(lambda: function(model, noise(0.2), **options), row=row, path=path, rounds=1)
    peaks = [peak for _, peak, _ in counted[row].values()]
    assert max(peaks) <= 1.1 * peaks[0]
