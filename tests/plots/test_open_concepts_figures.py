"""Figures of adjectives draw counts, lines and controls, and mark what does not exceed the chance level."""

from __future__ import annotations

import numpy as np
import pandas as pd
import voiced_neurons
import xarray as xr
from drawn import words
from scipy import stats
from voiced_neurons import LEXICON, said_of

from xai_lib import plots
from xai_lib.dissection import open_concepts


def test_plots_adjectives_marks_chance_level():
    """Bars show the count of each adjective, and n.s. marks the one that does not exceed the chance level."""
    table = pd.DataFrame(
        {
            "neurons": [90, 10, 9],
            "chance": [5, 9, 5.0],
            "chance_low": [1, 5, 1.0],
            "chance_high": [9, 13, 9.0],
            "q": [0.001, 0.8, 0.04],
        },
        index=["loud", "$dark", "slow"],
    )
    ax = plots.adjectives(table).axes[0]
    assert [bar.get_width() for bar in ax.patches] == [90, 10, 9]
    assert [(round(t.get_position()[1]), "n.s." in t.get_text()) for t in ax.texts] == [(1, True)]
    assert [t.get_text() for t in ax.get_yticklabels()] == ["loud", "$dark", "slow"] and ax.get_xlabel() == "neurons"
    assert len(plots.adjectives(table.drop(columns=["chance", "q"]), max_adjectives=2).axes[0].patches) == 2


def test_plots_adjectives_by_layer_draws_line_and_band():
    """The figure draws the regression line and its 95 % band, and names the shuffled captions, p and each part."""
    layers = np.arange(1, 7)
    rng = np.random.default_rng(0)
    said = rng.random((6, 40, 5)) < (0.2 + 0.1 * layers)[:, None, None]
    said = xr.DataArray(said, {"layer": layers, "adjective": list("abcde")}, ("layer", "neuron", "adjective"))
    chance = xr.concat([said & (rng.random(said.shape) < 0.1) for _ in range(9)], "draw")
    found = open_concepts.by_layer(said, chance)
    figure = plots.adjectives_by_layer(found)
    ax = figure.axes[0]
    line = stats.linregress(layers, found["mean"])
    fitted = next(
        x
        for x in ax.lines
        if len(x.get_xdata()) == 6 and np.allclose(x.get_ydata(), line.intercept + line.slope * layers)
    )
    points = np.asarray(found["mean"]) - fitted.get_ydata()
    error = np.sqrt((points**2).sum() / 4 * (1 / 6 + (layers - 3.5) ** 2 / 17.5)) * stats.t.ppf(0.975, 4)
    corners = ax.collections[1].get_paths()[0].vertices
    for x, y in zip(layers, fitted.get_ydata() + error):
        assert np.isclose(corners, [x, y]).all(1).any()
    assert "shuffled captions: 9 draws" in words(figure) and "p = " in words(figure) and ax.get_xlabel() == "layer"
    names = [("a", layer, neuron) for layer in range(1, 5) for neuron in range(3)]
    names += [("b", layer, neuron) for layer in range(2, 5) for neuron in range(3)]
    index = pd.MultiIndex.from_tuples(names, names=["part", "layer", "neuron"])
    coords = xr.Coordinates.from_pandas_multiindex(index, "unit")
    parts = xr.DataArray(rng.random((21, 3)) < 0.5, coords.assign(adjective=list("abc")), ("unit", "adjective"))
    assert {"a:", "b:"} <= set(words(plots.adjectives_by_layer(open_concepts.by_layer(parts))).split())


def test_plots_adjective_check_shows_controls():
    """The figure shows the share that passes for own, other and shuffled adjectives, and the number of speakers."""
    measured = voiced_neurons.measured()
    activations = voiced_neurons.following(measured)
    said = said_of(activations, loud=[(1, 0), (2, 5)], quiet=[(1, 1)])
    chance = xr.concat([said_of(activations, loud=[(1, 0)]), said_of(activations, loud=[(2, 5), (2, 6)])], "draw")
    found = open_concepts.check(activations, said, measured, LEXICON, chance=chance)
    figure = plots.adjective_check(found)
    left, right = figure.axes
    assert [t.get_text() for t in left.get_yticklabels()] == ["quiet (1)", "loud (2)"]
    shown = [line.get_xdata() for line in left.lines]
    assert any(len(x) == 2 and np.allclose(x, [100, 50]) for x in shown)
    assert any(len(x) == 2 and np.allclose(x, [np.nan, 100 / 3], equal_nan=True) for x in shown)  # all draws pooled
    assert "10 speakers" in right.get_title() and "%" in left.get_xlabel() and "shuffled captions" in words(figure)
