"""A figure of one panel can be drawn into given axes, where it shows what a new figure shows."""

from __future__ import annotations

import inspect

import handmade
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import xarray as xr

from xai_lib import ablation, plots, pruning


def effects(*dims, **coords):
    """Effects over speakers of a planted sweep."""
    return ablation.effect_over_speakers(handmade.planted_sweep(np.random.default_rng(0), dims, **coords))


def sweep_of_classes():
    """Probabilities of two classes, clean and after edits of three layers, for four clips."""
    rng = np.random.default_rng(0)
    dims = ("clip", "layer", "mode", "neuron_set", "label")
    coords = {"layer": [1, 2, 3], "mode": ["flip"], "label": ["sad", "angry"], **handmade.neuron_sets()}
    variables = {
        "probability": (dims, rng.random((4, 3, 1, 1, 2))),
        "clean_probability": (("clip", "label"), rng.random((4, 2))),
    }
    return xr.Dataset(variables, coords)


def adjective_table():
    """Counts of two adjectives, beside those from shuffled captions."""
    columns = {"neurons": [9, 3], "chance": [2.0, 3], "chance_low": [1.0, 2], "chance_high": [3.0, 4], "q": [0.01, 0.6]}
    return pd.DataFrame(columns, index=["loud", "slow"])


def adjectives_of_layers():
    """Mean numbers of adjectives of four layers, with the line through them."""
    line = {"slope": 0.1, "intercept": 1.0, "low": 0.05, "high": 0.15, "p": 0.01}
    return xr.Dataset({"mean": ("layer", [1.1, 1.2, 1.3, 1.4]), **line}, {"layer": [1, 2, 3, 4]})


def predictivity():
    """Correlations of descriptions with ten neurons of two layers."""
    rho = xr.DataArray(np.linspace(-1, 1, 20).reshape(2, 10), {"layer": [1, 2]}, ("layer", "neuron"))
    return xr.Dataset({"rho": rho, "other": 0.5 * rho, "shuffled": 0.1 * rho.expand_dims(draw=2)})


def selectivity():
    """Two neurons that distinguish sad from angry clips."""
    dims = ("layer", "neuron", "concept")
    variables = {"mean": (dims, [[[0.9, 0.1], [0.2, 0.8]]]), "q": (dims, np.full((1, 2, 2), 0.01))}
    return xr.Dataset(variables, {"layer": [1], "concept": ["sad", "angry"]})


def drop():
    """Drops of the target for nine speakers."""
    values = np.random.default_rng(0).standard_normal((9, 2))
    coords = {"mode": ["top", "random"], "speaker": ("clip", [f"s{i}" for i in range(9)])}
    attrs = {"share": 0.2, "scale": "log_odds", "frames": "speech"}
    return xr.DataArray(values, coords, ("clip", "mode"), attrs=attrs)


def course():
    """Probabilities of two classes in three windows of a recording."""
    probability = (("clip", "window", "target"), [[[0.9, 0.1], [0.4, 0.6], [0.2, 0.8]]])
    coords = {"clip": [0], "target": ["sad", "angry"], "time": (("clip", "window"), [[1.0, 2, 3]])}
    return xr.Dataset({"probability": probability}, coords, {"model": "made up", "window": 2.0, "step": 1.0})


def readouts():
    """Effects on two readouts of four layers."""
    return {"log-odds (nats)": effects("layer", layer=range(4)), "F0 (Hz)": effects("layer", layer=range(4))}


def scores():
    """Attributions of eight neurons of two layers."""
    return xr.DataArray(np.linspace(-1, 1, 16).reshape(2, 8), {"layer": [1, 2]}, ("layer", "neuron"))


FIGURES = {
    "adjectives": lambda ax: plots.adjectives(adjective_table(), ax=ax),
    "adjectives_by_layer": lambda ax: plots.adjectives_by_layer(adjectives_of_layers(), ax=ax),
    "class_changes": lambda ax: plots.class_changes(handmade.compared(), 5, forgotten="calm", ax=ax),
    "class_recalls": lambda ax: plots.class_recalls(pruning.recalls(handmade.compared()), 5, forgotten="calm", ax=ax),
    "deletion_pairs": lambda ax: plots.deletion_pairs(drop(), ax=ax),
    "description_check": lambda ax: plots.description_check(predictivity(), ax=ax),
    "dose_response": lambda ax: plots.dose_response(effects("k", k=[1, 3, 10]), ax=ax),
    "effect_map": lambda ax: plots.effect_map(effects("layer", "label", layer=[1, 2], label=["sad", "angry"]), ax=ax),
    "emotion_tracking": lambda ax: plots.emotion_tracking(sweep_of_classes(), ax=ax),
    "layer_curves": lambda ax: plots.layer_curves(effects("layer", layer=range(4)), ax=ax),
    "layer_neuron_map": lambda ax: plots.layer_neuron_map(scores(), ax=ax),
    "over_time": lambda ax: plots.over_time(course(), ax=ax),
    "readout_map": lambda ax: plots.readout_map(readouts(), ax=ax),
    "selective_neurons": lambda ax: plots.selective_neurons(selectivity(), ax=ax),
}


def shown(axes):
    """What is drawn in a panel: its title, labels, texts, and the numbers of lines, bars, points and tiles."""
    numbers = [line.get_xydata() for line in axes.lines]
    numbers += [patch.get_path().vertices for patch in axes.patches]
    for collection in axes.collections:
        numbers.append(collection.get_offsets())
        numbers += [path.vertices for path in collection.get_paths()]
    texts = [axes.get_title(), axes.get_xlabel(), axes.get_ylabel(), *(text.get_text() for text in axes.texts)]
    return texts, numbers


def test_figures_here_are_all_of_one_panel():
    """The figures that take `ax` are those tested here."""
    functions = {name: found for name, found in vars(plots).items() if inspect.isfunction(found)}
    assert {name for name, found in functions.items() if "ax" in inspect.signature(found).parameters} == set(FIGURES)


@pytest.mark.parametrize("name", FIGURES)
def test_figure_is_drawn_into_given_axes(name):
    """Given axes are drawn into, their figure is returned, and neither other axes nor another figure are touched."""
    figure, (left, right) = plt.subplots(1, 2, layout="constrained")
    returned = FIGURES[name](right)
    figure.canvas.draw()
    assert returned is figure and plt.get_fignums() == [figure.number]
    assert right.has_data() and not left.has_data() and not left.get_title()
    assert not figure.legends and not figure.get_suptitle() and not figure.get_supxlabel()


@pytest.mark.parametrize("name", FIGURES)
def test_given_axes_show_what_new_figure_shows(name):
    """The panel of a new figure and given axes show the same numbers and words, and only one of them has a figure."""
    new = FIGURES[name](None)
    (alone,) = [axes for axes in new.axes if axes.get_label() != "<colorbar>"]
    _, given = plt.subplots()
    FIGURES[name](given)
    (words, numbers), (given_words, given_numbers) = shown(alone), shown(given)
    assert given_words == words
    assert len(given_numbers) == len(numbers) > 0
    for one, other in zip(given_numbers, numbers):
        np.testing.assert_allclose(np.asarray(one, float), np.asarray(other, float))


def test_axes_of_subfigure_return_whole_figure():
    """Axes of a part of a figure are drawn into, and the whole figure is returned."""
    figure = plt.figure(layout="constrained")
    upper, lower = figure.subfigures(2)
    axes = lower.subplots()
    assert plots.layer_curves(effects("layer", layer=range(4)), ax=axes) is figure
    assert plots.effect_map(effects("layer", "label", layer=[1], label=["sad"]), ax=upper.subplots()) is figure
