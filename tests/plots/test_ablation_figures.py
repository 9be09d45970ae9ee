"""Figures of a sweep show its numbers, with their units, and say what is not significant."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn import band, bars, has, hatched, overlapping, words
from handmade import planted_sweep, without
from matplotlib.colors import same_color

from xai_lib import ablation, attribution, plots
from xai_lib.plots import style

MODES = ["flip", "zero", "mean", "noise", "resample", "patch"]
LABELS = list(style.EMOTION_COLORS)
WORDS = "q ≥ 0.05"


@pytest.fixture
def sweep(rng):
    return planted_sweep(rng, ("layer", "mode"), layer=range(13), mode=MODES)


@pytest.fixture
def dose(rng):
    return planted_sweep(rng, ("selection", "k"), selection=["top", "bottom"], k=[1, 3, 10, 40])


def test_dose_response_draws_means_intervals_and_null_bands(dose, rng):
    """A dose-response figure draws the selections with intervals, and bands of random neurons and directions."""
    curves = ablation.effect_over_speakers(dose)
    turned = dose.isel(selection=[0, 0]).assign_coords(selection=["top", "bottom"])
    turned = turned.assign(target_change=turned["target_change"] + 9 * (turned["kind"] == "random"))
    kinds = ["direction" if kind == "random" else kind for kind in turned["kind"].values]
    turned = turned.assign_coords(kind=("neuron_set", kinds))
    directions = ablation.effect_over_speakers(turned, against="direction")
    figure = plots.dose_response(curves, directions)
    (axes,) = figure.axes
    assert axes.get_xscale() == "log" and [text.get_text() for text in axes.get_xticklabels()] == ["1", "3", "10", "40"]
    for name in ("top", "bottom"):
        one = curves.sel(selection=name)
        assert has(axes, one["mean"]) and has(axes, one["random_mean"])
        assert any(np.allclose(bars(axes)[i : i + 4].T, [one["low"], one["high"]]) for i in (0, 4))
    drawn = [band(found) for found in axes.collections if found.get_label()[0] != "_"]
    wanted = [directions.sel(selection="top"), curves.sel(selection="top"), curves.sel(selection="bottom")]
    for found, one in zip(drawn, wanted, strict=True):
        assert found == pytest.approx(np.array([one["random_low"], one["random_high"]]))
    assert has(axes, directions["random_mean"].sel(selection="top"))
    text = words(figure)
    assert "(nats)" in text and "log axis" in text and "9 speakers" in text and "random directions" in text
    assert "random directions" not in words(plots.dose_response(curves))
    for name in ("top", "bottom"):
        at = next(
            line.get_xdata() for line in axes.lines if np.allclose(line.get_ydata(), curves["mean"].sel(selection=name))
        )
        assert np.abs(np.log(at / curves["k"].values)).max() < 0.1  # beside each other, and hardly moved
    alone = plots.dose_response(curves.sel(selection="top"))
    assert has(alone.axes[0], curves["mean"].sel(selection="top")) and "size-matched random neurons" in words(alone)
    with pytest.raises(ValueError, match=r"has k, layer: pick with .sel"):
        plots.dose_response(curves.expand_dims(layer=[1], axis=-1))


@pytest.mark.heavy
def test_plots_draw_few_speakers_without_interval(dose, sweep):
    """With 3 speakers, curves show every speaker without an interval, and a map hatches every tile."""
    few = ablation.effect_over_speakers(dose.isel(clip=slice(3)))
    figure = plots.dose_response(few)
    (axes,) = figure.axes
    assert "3 speakers, and each" in words(figure) and not len(bars(axes))
    for speaker in few["speaker"].values:
        assert has(axes, few["speakers"].sel(speaker=speaker, selection="bottom"))
    few = ablation.effect_over_speakers(sweep.isel(clip=slice(3)))
    figure = plots.mode_comparison(few)
    for axes, mode in zip(figure.axes, MODES):
        assert not len(bars(axes)) and all(
            has(axes, one) for one in few["speakers"].sel(mode=mode).transpose("speaker", ...)
        )
    assert "3 speakers, and each" in words(figure)
    here = few.sel(layer=4)
    (axes,) = plots.mode_comparison(here).axes
    assert not len(bars(axes)) and all(has(axes, one) for one in here["speakers"].transpose("speaker", "mode"))
    figure = plots.effect_map(few)
    assert "3 speakers" in words(figure) and len(hatched(figure.axes[0])) == 13 * 6  # nothing was tested


@pytest.mark.heavy
def test_mode_comparison_draws_panel_per_mode(sweep):
    """Modes are compared in a panel each, with intervals, null bands and hollow points where q ≥ 0.05."""
    found = ablation.effect_over_speakers(sweep)
    found["q"][1, :], found["q"][2, :] = 0.06, 0.04  # the bound is between them
    figure = plots.mode_comparison(found, ylabel="divergence (nats)")
    assert [axes.get_title() for axes in figure.axes] == MODES and "divergence (nats)" in words(figure)
    assert WORDS in words(figure) and len({axes.get_ylim() for axes in figure.axes}) == 1
    for axes in figure.axes:
        one = found.sel(mode=axes.get_title())
        assert has(axes, one["mean"]) and bars(axes).T == pytest.approx(np.array([one["low"], one["high"]]))
        assert band(axes.collections[0]) == pytest.approx(np.array([one["random_low"], one["random_high"]]))
        (empty,) = [line for line in axes.lines if same_color(line.get_markerfacecolor(), "white")]
        told = (one["q"] < 0.05).values
        assert 0 < told.sum() < 13 and empty.get_xdata().tolist() == np.flatnonzero(~told).tolist()
        assert axes.get_xlabel() == "edited layer" and not overlapping(figure, axes)
    five = plots.mode_comparison(found.isel(mode=slice(5)))
    assert [axes.get_visible() for axes in five.axes] == [True] * 5 + [False]
    groups = ablation.average_over_layers(sweep, {"early 0–6": range(7), "late 7–12": range(7, 13)})
    first = plots.mode_comparison(ablation.effect_over_speakers(groups)).axes[0]
    assert [text.get_text() for text in first.get_xticklabels()] == ["early 0–6", "late 7–12"]


def test_mode_comparison_draws_points_for_one_layer(sweep):
    """Modes of one layer are points with intervals and null bands, hollow where q ≥ 0.05."""
    found = ablation.effect_over_speakers(sweep.sel(layer=4))
    figure = plots.mode_comparison(found)
    (axes,) = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == MODES and not overlapping(figure, axes)
    assert has(axes, found["mean"]) and bars(axes).T == pytest.approx(np.array([found["low"], found["high"]]))
    ends = np.array([[patch.get_y(), patch.get_y() + patch.get_height()] for patch in axes.patches])
    assert ends.T == pytest.approx(np.array([found["random_low"], found["random_high"]]))
    (empty,) = [line for line in axes.lines if same_color(line.get_markerfacecolor(), "white")]
    assert empty.get_xdata().tolist() == [0, 2, 4] == np.flatnonzero(found["q"] >= 0.05).tolist()
    assert "log-odds (nats)" in words(figure) and "95 % of sets" in words(figure) and WORDS in words(figure)
    alone = ablation.effect_over_speakers(without(sweep.sel(layer=4), "random"))
    axes = plots.mode_comparison(alone).axes[0]
    assert not axes.patches and has(axes, alone["mean"])


def test_layer_curves_show_band_of_single_layer(rng):
    """The null band of a layer without neighbours in the curve is drawn with a visible width."""
    single, gap = (planted_sweep(rng, ("layer",), layer=range(n)) for n in (1, 4))
    single, gap = ablation.effect_over_speakers(single), ablation.effect_over_speakers(gap)
    gap = gap.assign({side: gap[side].where(gap["layer"] != 1) for side in ("random_low", "random_high")})
    for curve, at in ((single, 0), (gap, 0)):
        bands = [one.get_paths() for one in plots.layer_curves(curve).axes[0].collections if one.get_paths()]
        box = [path.get_extents() for paths in bands for path in paths if path.get_extents().width > 0]
        over = [x for x in box if x.x0 < at < x.x1 or x.x0 == at < x.x1 - 0.1 or x.x1 == at > x.x0 + 0.1]
        assert (
            over
            and np.isclose(over[0].y0, curve["random_low"][at])
            and np.isclose(over[0].y1, curve["random_high"][at])
        )


def test_layer_curves_rescale_to_min_max(sweep):
    """Under min-max scaling, a curve, its interval and its null band share one range, and the axis says so."""
    found = ablation.effect_over_speakers(sweep)
    curves = {mode: found.sel(mode=mode) for mode in ("flip", "zero")}
    raw, scaled = plots.layer_curves(curves), plots.layer_curves(curves, scale="min-max")
    assert "(nats)" in raw.axes[0].get_ylabel() and "min–max" not in words(raw)
    label = scaled.axes[0].get_ylabel()
    assert "min–max: 0 = lowest mean, 1 = highest" in label and "nats" not in label and "log-odds" in label
    for at, (mode, curve) in enumerate(curves.items()):
        assert has(raw.axes[0], curve["mean"])
        least, span = curve["mean"].min(), curve["mean"].max() - curve["mean"].min()
        assert has(scaled.axes[0], (curve["mean"] - least) / span)
        ends = [(curve[end] - least) / span for end in ("low", "high")]
        assert bars(scaled.axes[0])[13 * at : 13 * at + 13].T == pytest.approx(np.array(ends))
        shade = [(curve[end] - least) / span for end in ("random_low", "random_high")]
        bands = [one for one in scaled.axes[0].collections if one.get_label().startswith(mode)]
        assert band(bands[0]) == pytest.approx(np.array(shade))
    flat = plots.layer_curves(curves["flip"].isel(layer=[0]), scale="min-max")
    assert has(flat.axes[0], [0.0])
    with pytest.raises(ValueError, match="unknown scale 'log': choose 'raw' or 'min-max'"):
        plots.layer_curves(curves, scale="log")


@pytest.fixture(scope="module")
def several(tiny, make_clips, tmp_path_factory):
    """Sweeps of a model by what they have several of."""
    noise = {"lengths": 4000, "level": 0.1, "seed": 0, "subtype": "PCM_16"}
    clips = make_clips(tmp_path_factory.mktemp("noise"), 3, **noise, label="sad", speaker="s{}")
    model = tiny()
    scores = attribution.grad_x_activation(model, clips, target="sad")
    options = {
        "controls": ablation.RandomControls(ablation.activation_stats(model, clips), n=3),
        "edit": ablation.Edit(("flip", "zero")),
    }

    def swept(selection):
        return ablation.sweep(model, clips, selection, **options)

    three = swept(ablation.select(scores, 3))
    by_k = [swept(ablation.select(scores, 2)), three]
    return {
        "group": swept(ablation.select(scores, 3).together(ablation.groups(model, ("lower", "upper")))),
        "k": xr.concat(by_k, pd.Index([2, 3], name="k"), combine_attrs="override"),
        "selection": xr.concat([three, three], pd.Index(["top", "too"], name="selection")),
    }


FIGURES = {
    "layer_curves": lambda sweep: plots.layer_curves(ablation.effect_over_speakers(sweep).sel(mode="flip")),
    "mode_comparison": lambda sweep: plots.mode_comparison(ablation.effect_over_speakers(sweep)),
    "effect_map": lambda sweep: plots.effect_map(ablation.effect_over_speakers(sweep)),
    "emotion_tracking": plots.emotion_tracking,
    "relative_change": plots.relative_change,
    "distance": plots.distance,
    "layer_effect": lambda sweep: plots.layer_effect(sweep, sweep["layer" if "layer" in sweep else "group"].values[1]),
}


@pytest.mark.parametrize("name", [name for name in FIGURES if name not in ("distance", "effect_map")])
def test_plots_name_layer_groups(several, name):
    """Figures of jointly edited layers show the names of the groups on an axis or in the title."""
    figure = FIGURES[name](several["group"])
    ticks = [text.get_text() for axis in (figure.axes[0].xaxis, figure.axes[0].yaxis) for text in axis.get_ticklabels()]
    if name == "layer_effect":
        assert figure.axes[0].get_title() == "Group upper 2–3, flip"
    else:
        assert {"lower 0–1", "upper 2–3"} <= set(ticks) and "edited layers" in words(figure)


def test_plots_draw_effects_of_groups(several):
    """Effects of groups are drawn in maps and curves; distances, and groups mixed with layers, are refused."""
    sweep = several["group"]
    effects = ablation.effect_over_speakers(sweep, "log_odds", mode="flip")
    ticks = [text.get_text() for text in plots.effect_map(effects).axes[0].get_yticklabels()]
    assert ticks == ["lower 0–1", "upper 2–3"]
    mean = ablation.effect_over_speakers(sweep, mode="zero")["mean"].values
    assert has(plots.layer_curves(ablation.effect_over_speakers(sweep, mode="zero")).axes[0], mean)
    curves = {
        "joint": ablation.effect_over_speakers(sweep, mode="zero"),
        "layers": ablation.effect_over_speakers(several["k"], k=2, mode="zero"),
    }
    with pytest.raises(ValueError, match="curves of layers and of groups cannot share an axis"):
        plots.layer_curves(curves)
    with pytest.raises(ValueError, match="this sweep edited groups: run the sweep without groups"):
        plots.distance(sweep)


@pytest.mark.parametrize("dim", ["k", "selection"])
@pytest.mark.parametrize("name", FIGURES)
def test_plots_refuse_several_selections(several, name, dim):
    """A figure refuses sweeps of several `k` or selections side by side, and is drawn once one of them is picked."""
    with pytest.raises(ValueError, match=r"pick (one with .sel\(|with .sel|from the others with .sel)"):
        FIGURES[name](several[dim])
    one = several[dim].sel({dim: several[dim][dim].values[0]})
    if name == "effect_map":
        figure = plots.effect_map(ablation.effect_over_speakers(one, mode="flip", variable="log_odds"))
    else:
        figure = FIGURES[name](one)
    assert words(figure)


def test_plots_name_missing_modes_layers_and_dims(several):
    """Figures refuse modes, layers and dims that the sweep lacks, and name what is needed."""
    sweep = several["k"].isel(k=0)
    for figure in (plots.emotion_tracking, plots.relative_change):
        with pytest.raises(ValueError, match="mode 'noise' was not run: choose from flip, zero"):
            figure(sweep, mode="noise")
    assert words(plots.relative_change(sweep.sel(mode="zero"), mode="zero"))
    with pytest.raises(ValueError, match="mode 'flip' was not run: choose from zero"):
        plots.emotion_tracking(sweep.sel(mode="zero"))
    with pytest.raises(ValueError, match="layer 9 is not in the sweep: choose from 0, 1, 2, 3"):
        plots.layer_effect(sweep, 9)
    with pytest.raises(ValueError, match="a dose–response curve needs the dim k"):
        plots.dose_response(ablation.effect_over_speakers(sweep, mode="flip", layer=1))
    with pytest.raises(ValueError, match=r"this figure needs the dim layer: keep it, e.g. with .sel\(layer=\[…\]\)"):
        plots.layer_curves(ablation.effect_over_speakers(sweep, mode="flip", layer=1))


def test_plots_show_sweep_results(tiny_sweeps):
    """Curves, maps and points show the numbers of the sweep, or of each of 3 speakers, and no tile below the edit."""
    sweep, peaks, _ = tiny_sweeps
    curves = ablation.effect_over_speakers(sweep)
    figure = plots.layer_curves(curves.sel(mode="flip"))
    assert "8 speakers" in words(figure) and "mean of random sets" in words(figure)
    shown = [line.get_ydata() for axes in figure.axes for line in axes.lines]
    assert any(np.array_equal(y, curves["mean"].sel(mode="flip")) for y in shown)
    few = ablation.effect_over_speakers(sweep.isel(clip=slice(3)))
    figure = plots.layer_curves({mode: few.sel(mode=mode) for mode in ("flip", "zero")})
    assert "3 speakers, and each" in words(figure) and "zero" in words(figure)
    alone = ablation.effect_over_speakers(peaks).sel(mode="flip")
    (axes,) = plots.layer_curves(alone).axes
    assert any(np.array_equal(line.get_ydata(), alone["mean"]) for line in axes.lines)
    assert "random" not in words(axes.figure)  # peaks have no random sets
    changes = ablation.selected_values(peaks["relative_change"]).sel(mode="flip").mean("clip").values
    numbers = [text.get_text() for text in plots.relative_change(peaks).axes[0].texts if text.get_text()]
    assert len(numbers) == 4 + 3 + 2 + 1  # nothing below the edit
    assert [float(number) for number in numbers] == pytest.approx(changes[np.isfinite(changes)], abs=0.0051)


def test_emotion_tracking_shows_probabilities(tiny_sweeps):
    """Each label's curve is its probability by edited layer, from that of the clean clip."""
    one = tiny_sweeps[0].isel(clip=[0])
    (axes,) = plots.emotion_tracking(one).axes
    probability = ablation.selected_values(one["probability"])
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    clean = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
    for place, label in enumerate(one["label"].values):
        np.testing.assert_allclose(curves[label], probability.sel(mode="flip", label=label)[0])
        assert clean[place] == pytest.approx(one["clean_probability"].sel(label=label).item())


def test_layer_effect_shows_speakers_and_random_sets(tiny_sweeps):
    """Points are the change of each speaker and random set, bars the probabilities before and after."""
    sweep, peaks, _ = tiny_sweeps
    for result, rows in ((sweep, 2), (peaks, 1)):
        effects, probabilities = plots.layer_effect(result, 2).axes
        row = result.sel(layer=2, mode="flip")
        selected = row.sel(neuron_set="selected")
        random = ablation.control_values(row["target_change"], "random")
        np.testing.assert_allclose(np.sort(effects.lines[0].get_xdata()), np.sort(selected["target_change"]))
        assert len(effects.get_yticks()) == rows
        np.testing.assert_allclose(effects.lines[2].get_xdata(), random.mean("clip"), rtol=1e-5)
        bars = [bar.get_width() for bar in probabilities.patches]
        expected = [*row["clean_probability"].mean("clip").values, *selected["probability"].mean("clip").values]
        np.testing.assert_allclose(bars, expected, rtol=1e-5)


def test_plots_average_clips_without_speakers(tiny_sweeps):
    """Without speakers, figures show means over clips and say so."""
    unknown = tiny_sweeps[0].drop_vars("speaker")
    assert "clips" in words(plots.layer_effect(unknown, 1))
    expected = unknown["probability"].sel(mode="zero", neuron_set="selected").mean("clip").sel(label="sad")
    shown = [line.get_ydata() for line in plots.emotion_tracking(unknown, mode="zero").axes[0].lines]
    assert any(np.array_equal(y, expected) for y in shown)
