"""Figures of all neurons draw the distribution of descriptions, and shares of selective neurons."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from drawn import words

from xai_lib import plots


def test_description_check_boxes_are_quartiles(rng):
    """Each layer has a box for each kind of description, from the first to the third quartile of the neurons."""
    coords = {"layer": [1, 2], "neuron": range(40)}
    rho = xr.DataArray(rng.uniform(-0.5, 0.9, (2, 40)), coords, ("layer", "neuron"))
    rho[0, :10] = np.nan
    draws = xr.concat([0.1 * rho, 0.2 * rho], "draw")
    result = xr.Dataset({"rho": rho, "other": 0.5 * rho, "shuffled": draws})
    (axes,) = plots.description_check(result).axes
    boxes = [box.get_path().vertices[:, 1] for box in axes.patches if len(box.get_path().vertices) > 3]
    kinds = (rho, 0.5 * rho, draws)
    wanted = [np.nanquantile(kind.sel(layer=layer), [0.25, 0.75]) for kind in kinds for layer in (1, 2)]
    found = [(box[np.isfinite(box)].min(), box[np.isfinite(box)].max()) for box in boxes]
    for ends in wanted:
        assert any(np.allclose(ends, box) for box in found)
    assert "ρ defined: 88%" in words(axes.figure)


def test_description_check_says_where_no_description_has_words():
    """Where no ρ is defined the figure says why, and it is drawn where only one kind of description has none."""
    coords = {"layer": [1, 2], "neuron": range(5)}
    rho = xr.DataArray(np.linspace(-0.5, 0.9, 10).reshape(2, 5), coords, ("layer", "neuron"))
    nothing = rho.where(False)
    empty = plots.description_check(xr.Dataset({"rho": nothing, "other": nothing, "shuffled": nothing}))
    empty.canvas.draw()
    assert "no description has words that distinguish clips" in words(empty)
    for lacking in ({"rho": nothing}, {"shuffled": nothing}, {"rho": rho.where(rho["layer"] == 2)}):
        figure = plots.description_check(xr.Dataset({"rho": rho, "other": rho, "shuffled": rho, **lacking}))
        figure.canvas.draw()
        assert [text.get_text() for text in figure.axes[0].get_xticklabels()] == ["1", "2"]


def test_selective_neurons_counts_best_label_once():
    """A significant neuron counts for its best label alone: upward if more active for it, downward if less."""
    auroc = np.full((1, 4, 2), 0.5)
    auroc[0, 0] = 0.9, 0.8  # best: sad
    auroc[0, 1] = 0.1, 0.6  # best: sad, less active
    auroc[0, 2] = 0.5, 0.7  # best: angry
    auroc[0, 3] = 0.9, 0.9  # not significant
    q = np.array([[[0.01, 0.01], [0.01, 0.9], [0.9, 0.01], [0.9, 0.9]]])
    dims = ("layer", "neuron", "concept")
    selective = xr.Dataset({"mean": (dims, auroc), "q": (dims, q)}, {"layer": [3], "concept": ["sad", "angry"]})
    (axes,) = plots.selective_neurons(selective).axes
    heights = [bar.get_height() for bar in axes.patches]
    assert heights == pytest.approx([25, 25, -25, 0])
    assert [text.get_text() for text in axes.get_legend().get_texts()] == ["sad", "angry"]
    assert [text.get_text() for text in axes.get_xticklabels()] == ["3"]
