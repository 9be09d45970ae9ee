"""Figures of probes, selectivity and time courses draw the results."""

from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import xarray as xr
from handmade import courses, manners, noise, probed

from xai_lib import plots, workbook
from xai_lib.probing import linear_probes, time_courses, variance_explained


def test_plots_draw_results_that_can_be_saved(tmp_path):
    """The figures of probes and selectivity draw the results, and these can be saved to NetCDF and opened."""
    train, test = probed([noise, manners]), probed([noise, manners], first=8, seed=1)
    found, varied = linear_probes.layer_probes(train, test), variance_explained.selectivity(train, draws=19)
    figure = plots.layer_probes(found)
    means = [box.lines[0].get_ydata() for box in figure.axes[0].containers]
    assert np.allclose(means[0], found["accuracy"].sel(task="manner").mean("speaker"))
    assert np.allclose(means[1], found["control"].sel(task="manner").mean("speaker"))
    bars = np.array(figure.axes[1].containers[0].lines[2][0].get_segments())[:, :, 1]  # of the selectivity of manners
    over = linear_probes.over_speakers_and_controls(found.sel(task="manner"))
    assert np.allclose(bars, np.stack([over["low"], over["high"]], axis=1))
    plots.layer_probes(found.isel(speaker=slice(3)))
    figure = plots.selectivity_scatter(varied, pd.DataFrame({"layer": [1], "neuron": [3]}))
    assert figure.axes[0].collections[0].get_offsets().shape == (2 * 24, 2)
    ring = varied["excess"].sel(layer=1, neuron=3).values
    assert np.allclose(figure.axes[0].lines[0].get_xydata()[0], ring)
    plt.close("all")
    for result in (train, found, varied):
        workbook.netcdf_safe(result).to_netcdf(tmp_path / "saved.nc", engine="h5netcdf")
        with xr.open_dataset(tmp_path / "saved.nc", engine="h5netcdf") as again:
            assert again.sizes == result.sizes


def test_plots_draw_courses_over_speakers():
    """The figure draws the centred mean over speakers, with a band, or a line for each if they are few."""
    values = np.random.default_rng(0).standard_normal((9, 5, 4))
    data = courses(values, values[:, :, 0])
    table = pd.DataFrame({"layer": [4, 4, 4, 4], "neuron": [0, 1, 2, 3]})
    figure = plots.courses(data, table, time_courses.consistency(data))
    line = figure.axes[1].lines[-1].get_ydata()
    centred = values[:, :, 1] - values[:, :, 1].mean(axis=1, keepdims=True)
    assert np.allclose(line, centred.mean(axis=0)) and len(figure.axes[1].collections) == 1
    few = plots.courses(data.isel(clip=slice(3)), table)
    assert len(few.axes[1].lines) == 5 and not few.axes[1].collections
    plt.close("all")
