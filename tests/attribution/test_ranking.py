"""Neurons ranked by any method, and how far rankings agree."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import soundfile
import xarray as xr
from handmade import scores
from scipy.stats import spearmanr

from xai_lib import attribution, statistics
from xai_lib.plots import agreement_curves, style
from xai_lib.widgets import NeuronExplorer


def test_top_neurons_weights_speakers_equally():
    """Each speaker counts once, however many clips there are; where speakers are unknown, each clip counts."""
    # Three clips of a favour neuron 0; one each of b and c favour neuron 1.
    table = scores([[[9, 0]], [[9, 0]], [[9, 0]], [[0, 7]], [[0, -7]]], list("aaabc"))
    best = attribution.top_neurons(table, 1)
    assert best.loc[0].to_dict() == {
        "layer": 0,
        "part": "hidden_state",
        "neuron": 1,
        "score": pytest.approx(14 / 3),
        "signed": 0,
    }
    assert attribution.top_neurons(table, 1, by="signed").loc[0, "neuron"] == 0
    unknown = table.assign_coords(speaker=("clip", [None] * 5))
    assert attribution.top_neurons(unknown, 1).loc[0, "neuron"] == 0


def test_top_neurons_ranks_within_layer():
    """Neurons are ranked over all layers or within one; an absent layer and an unknown `by` are refused."""
    table = scores(np.arange(12).reshape(1, 3, 4), ["a"])
    assert attribution.top_neurons(table, 2)["neuron"].tolist() == [3, 2]
    assert attribution.top_neurons(table, 9, layer=1)[["layer", "neuron"]].values.tolist() == [
        [1, n] for n in (3, 2, 1, 0)
    ]
    with pytest.raises(ValueError, match=r"layer 5 is not in these scores: they have \[0, 1, 2\]"):
        attribution.top_neurons(table, 2, layer=5)
    with pytest.raises(ValueError, match="unknown by"):
        attribution.top_neurons(table, 2, by="size")


def test_agreement_concatenates_over_targets(tiny, clips):
    """Agreements of several targets can be concatenated, averaged over speakers and plotted, one in bold."""
    found = {name: attribution.grad_x_activation(tiny("base"), clips, target=name) for name in ("sad", "angry", "calm")}
    rho = xr.concat(
        [attribution.agreement(one, found["sad"]) for one in found.values()], pd.Index(found, name="target")
    )
    assert rho.dims == ("target", "clip", "layer") and rho["target"].values.tolist() == ["sad", "angry", "calm"]
    assert (rho.sel(target="sad").mean("clip") > rho.sel(target="angry").mean("clip")).any()
    curves = statistics.over_speakers(rho)
    figure = agreement_curves({"absolute": curves}, "angry")
    lines = {line.get_label(): line.get_ydata() for line in figure.axes[0].lines}
    assert np.allclose(lines["sad"], curves["mean"].sel(target="sad")) and np.allclose(lines["calm"], curves["mean"][2])
    bold = figure.axes[0].containers[0]
    assert bold.get_label() == "angry" and np.allclose(bold.lines[0].get_ydata(), curves["mean"][1])
    plt.close(figure)


def test_compare_methods_equals_hand_values():
    """Rank correlation and overlap equal hand-made values, and scores of different layers are refused."""
    rng = np.random.default_rng(0)
    one = rng.random((4, 2, 30))
    tables = {name: scores(values, list("aabb")) for name, values in {"a": one, "b": 3 * one, "c": 1 - one}.items()}
    found = attribution.compare_methods(tables, 10)
    assert float(found["rank_correlation"].sel(ranking="a", other="b")) == pytest.approx(1)
    assert float(found["rank_correlation"].sel(ranking="a", other="c")) == pytest.approx(-1)
    assert found["overlap"].sel(ranking="b", other="a") == 1 and found["overlap"].sel(ranking="a", other="c") == 0
    again = scores(rng.random((4, 2, 30)), list("aabb"))
    both = attribution.compare_methods({"a": tables["a"], "d": again}, 10)
    ranked = [attribution.mean_score(table).values for table in (tables["a"], again)]
    by_hand = np.mean([spearmanr(x, y).statistic for x, y in zip(*ranked)])
    assert both["rank_correlation"].values[0, 1] == pytest.approx(by_hand)
    top = [attribution.top_neurons(table, 10)[["layer", "neuron"]] for table in (tables["a"], again)]
    assert both["overlap"].values[1, 0] == pytest.approx(len(top[0].merge(top[1])) / 10)
    with pytest.raises(
        ValueError, match=r"a is of hidden_state of layers \[0, 1\], and e of hidden_state of layers \[0\]"
    ):
        attribution.compare_methods({"a": tables["a"], "e": again.isel(layer=[0])}, 10)


def test_top_neurons_accepts_scores_without_clips():
    """Scores without a clip dimension are ranked as they are."""
    contrast = xr.Dataset(
        {name: (("layer", "neuron"), np.array([[1.0, 5.0], [3.0, 2.0]])) for name in ("signed", "absolute")},
        {"layer": [0, 1], "neuron": [0, 1]},
        {"part": "hidden_state"},
    )
    best = attribution.top_neurons(contrast, 2)
    assert best[["layer", "neuron", "score"]].values.tolist() == [[0, 1, 5.0], [1, 0, 3.0]]


def test_attribution_methods_can_be_ranked(tiny, clips, tmp_path):
    """Scores of all six methods of `attribution` that score neurons can be ranked, and compared as by hand."""
    model, told = tiny("base"), {"target": "sad"}
    both = pd.concat([clips, clips], ignore_index=True).assign(label=["sad", "calm", "calm", "sad"])
    for place in (2, 3):
        both.loc[place, "path"] = str(tmp_path / f"{place}.wav")
        soundfile.write(both["path"][place], np.random.default_rng(place).uniform(-0.2, 0.2, 9000), 16000)
    found = {
        "gradient": attribution.gradient(model, clips, **told),
        "gradient × activation": attribution.grad_x_activation(model, clips, **told),
        "integrated gradients": attribution.integrated_gradients(model, clips, steps=2, **told),
        "ablation": attribution.exhaustive_ablation(model, clips, **told),
        "GradientSHAP": attribution.gradient_shap(model, clips, n=4, steps=2, layers="all", **told),
        "contrast": attribution.activation_contrast(model, both, frames="all", **told),
    }
    for name, table in found.items():
        assert len(attribution.top_neurons(table, 5)) == 5, name
    agreed = attribution.compare_methods(found, 5)
    assert agreed["overlap"].shape == (6, 6)
    one, other = (found[name]["absolute"].mean("clip").values for name in ("gradient", "ablation"))  # one a speaker
    rho = np.mean([spearmanr(a, b).statistic for a, b in zip(one, other)])
    assert agreed["rank_correlation"].sel(ranking="gradient", other="ablation").item() == pytest.approx(rho)


def test_neuron_explorer_shows_neuron_of_rank(tiny, clips):
    """The explorer shows the response and scores of the neuron at the chosen rank, even one without a bar."""
    found = attribution.grad_x_activation(tiny("base"), clips, target="sad")
    response = attribution.segment_response(tiny("base"), clips, frames="all", seconds=0.2)
    style.use()
    panel = NeuronExplorer(found, response)
    panel.controls["by"].value = "absolute"
    panel.controls["layer"].value, panel.controls["rank"].value, panel.controls["clip"].value = 1, 3, 1
    third = attribution.top_neurons(found, 3, layer=1)["neuron"].iloc[2]
    left, right = panel.figure.axes
    assert panel.error is None and left.get_title(loc="left") == f"Layer 1: neuron {third} is number 3 of 24"
    shown = right.patches[0].get_data().values
    assert np.allclose(shown, response.isel(clip=1).sel(layer=1, neuron=third).dropna("segment"))
    absolute = found["absolute"].sel(layer=1, neuron=third)  # the bar is the mean of its dots
    assert left.patches[2].get_height() == pytest.approx(float(absolute.mean()), rel=1e-5)
    assert np.allclose([dots.get_ydata()[2] for dots in left.lines], absolute)
    panel.controls["rank"].value = 24  # beyond those that have a bar of their own
    assert panel.error is None and "number 24 of 24" in panel.figure.axes[0].get_title(loc="left")


@pytest.mark.parametrize("k", [[5], 5.5, 0])
def test_rankings_refuse_k_that_is_no_number(k):
    """`top_neurons` and `compare_methods` refuse a `k` that is a list, a fraction or 0."""
    table = scores(np.arange(12).reshape(1, 3, 4), ["a"])
    with pytest.raises(ValueError, match="k must be a whole number from 1 up"):
        attribution.top_neurons(table, k)
    with pytest.raises(ValueError, match="k must be a whole number from 1 up"):
        attribution.compare_methods({"one": table, "other": table}, k)


def test_top_neurons_refuses_several_layers():
    """`top_neurons` refuses a list of layers."""
    table = scores(np.arange(12).reshape(1, 3, 4), ["a"])
    with pytest.raises(ValueError, match=r"layer must be a whole number from 0 up, not \[1\]"):
        attribution.top_neurons(table, 2, layer=[1])
