"""Figures of a sweep show its numbers, with their units, and say what was not told from the null."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from drawn import band, bars, has, hatched, heat_map, overlapping, tile, words
from handmade import neuron_sets, without
from matplotlib.colors import same_color

from xai_lib import ablation, attribution, plots
from xai_lib.plots import style

MODES = ["flip", "zero", "mean", "noise", "resample", "patch"]
LABELS = list(style.EMOTION_COLORS)
WORDS = "q ≥ 0.05"


def made(rng, dims, **coords):
    """A sweep by hand: `target_change` and its null on further `dims`, with a large effect where `coords` are odd."""
    shape = [len(coords[dim]) for dim in dims]
    odd = np.indices(shape).sum(0) % 2
    random = rng.normal(0, 0.3, (1, *shape, 20)) + rng.normal(0, 0.05, (9, *shape, 20))
    selected = -3 * odd + rng.normal(0, 0.3, (9, *shape))
    values = np.concatenate([selected[..., None], random], axis=-1)
    speakers = ("clip", [f"s{i}" for i in range(9)])
    return xr.Dataset(
        {"target_change": (("clip", *dims, "neuron_set"), values)}, {**coords, "speaker": speakers, **neuron_sets(20)}
    )


@pytest.fixture
def sweep(rng):
    return made(rng, ("layer", "mode"), layer=range(13), mode=MODES)


@pytest.fixture
def rng():
    return np.random.default_rng(0)


@pytest.fixture
def dose(rng):
    return made(rng, ("selection", "k"), selection=["top", "bottom"], k=[1, 3, 10, 40])


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


def test_effect_map_shows_means_hatches_and_groups(rng):
    """A map prints the mean in every tile, hatches tiles that are not significant, and marks layer groups."""
    found = ablation.effect_over_speakers(made(rng, ("layer", "label"), layer=range(13), label=LABELS))
    found["q"][0, 0], found["q"][0, 1] = 0.06, 0.04  # the bound is between them
    groups = {"early 0–4": range(5), "middle 5–8": range(5, 9), "late 9–12": range(9, 13)}
    figure = plots.effect_map(found, groups=groups, unit="change (nats)")
    axes, beside = figure.axes
    assert beside.get_ylabel() == "change (nats)" and axes.get_ylabel() == "edited layer" and WORDS in words(figure)
    image = heat_map(axes)
    assert np.array_equal(image.get_array(), found["mean"]) and image.norm.vmin == -image.norm.vmax
    assert image.norm.vmax == np.abs(found["mean"]).max() and image.cmap.name == style.DIVERGING
    numbers = {tile(text)[::-1]: text.get_text() for text in axes.texts if text.get_text() not in groups}
    assert numbers == {(i, j): f"{found['mean'].values[i, j].round(1) + 0:.1f}" for i, j in np.ndindex(13, 8)}
    told = (found["q"] < 0.05).values
    assert 0 < told.sum() < told.size and hatched(axes) == {(j, i) for i, j in np.argwhere(~told)}
    heights = {text.get_text(): text.get_position()[1] for text in axes.texts if text.get_text() in groups}
    assert heights == {"early 0–4": 2.5, "middle 5–8": 7, "late 9–12": 11}
    blocks = [patch for patch in axes.patches if not patch.get_hatch()]
    assert [patch.get_y() for patch in blocks] == [*range(13)]
    tones = [patch.get_facecolor() for patch in blocks]
    assert [i for i in range(1, 13) if tones[i] != tones[i - 1]] == [5, 9]
    assert not overlapping(figure, axes) and [text.get_text() for text in axes.get_xticklabels()] == LABELS
    by_group = plots.effect_map(found.isel(layer=[0, 5]).rename(layer="group").assign_coords(group=["early", "middle"]))
    assert [text.get_text() for text in by_group.axes[0].get_yticklabels()] == ["early", "middle"]
    with pytest.raises(ValueError, match="pick from the others"):
        plots.effect_map(found.sel(label="sad"))
    with pytest.raises(ValueError, match="pick from the others"):
        plots.effect_map(found.rename(layer="k"))


def test_readout_map_colours_columns_by_null_width(rng):
    """Columns of different units are coloured by their difference from the null, in half-widths of its band."""
    parts = [made(rng, ("layer",), layer=range(6)) for _ in range(3)]
    nats = ablation.effect_over_speakers(parts[0])
    hertz = ablation.effect_over_speakers(
        parts[1].map(lambda x: 1000 * x + 200).where(parts[1]["layer"] < 5)
    )  # unread in the last
    share = ablation.effect_over_speakers(0.001 * parts[2])
    columns = {"log-odds (nats)": nats, "F0 (Hz)": hertz.assign_coords(feature="f0"), "changed (share)": share}
    figure = plots.readout_map(columns)
    axes, beside = figure.axes
    assert [text.get_text() for text in axes.get_xticklabels()] == list(columns)
    image = heat_map(axes)
    colours = image.get_array()
    for j, one in enumerate(columns.values()):
        half = (one["random_high"] - one["random_low"]).values / 2
        wanted = (one["mean"] - one["random_mean"]).values / np.sqrt(np.nanmean(half**2))
        assert np.allclose(np.ma.filled(colours[:, j], np.nan), wanted, equal_nan=True)
    rows = [[None] * 3 for _ in range(6)]
    for text in axes.texts:
        column, row = tile(text)
        rows[row][column] = text.get_text()
    for i in range(6):
        assert rows[i][0] == f"{nats['mean'].values[i].round(1) + 0:.1f}"
        assert rows[i][1] == (None if i == 5 else f"{hertz['mean'].values[i]:.0f}")
        assert rows[i][2] == f"{share['mean'].values[i].round(4) + 0:.4f}"
    assert (1, 5) not in hatched(axes) and 0 < len(hatched(axes)) < 17
    text = words(figure)
    assert "95 % band" in beside.get_ylabel() and "in the unit of its column" in text and WORDS in text
    assert image.norm.vmax == 4 < np.nanmax(np.abs(colours)) and image.colorbar.extend == "both"
    alone = ablation.effect_over_speakers(without(parts[0], "random"))
    message = "columns of different units are coloured relative to random neurons: run the sweep with RandomControls"
    with pytest.raises(ValueError, match=message):
        plots.readout_map({**columns, "relative_change": alone})
    alike = {
        name: one.assign({side: one[side] * np.nan for side in ("random_low", "random_high", "q")})
        for name, one in columns.items()
    }
    figure = plots.readout_map(alike)  # random sets that share nearly all neurons give no band
    assert {text.get_color() for text in figure.axes[0].texts} == {"black"} and heat_map(figure.axes[0]).norm.vmax == 4
    assert len(hatched(figure.axes[0])) == 17 and "too similar random sets: no test" in figure.axes[0].get_title()


def test_layer_curves_show_band_of_single_layer(rng):
    """The null band of a layer without neighbours in the curve is drawn with a visible width."""
    single, gap = (made(rng, ("layer",), layer=range(n)) for n in (1, 4))
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


@pytest.fixture
def moved(rng):
    """A sweep whose spread is 0.5^distance of each mode's own, and half as much with random neurons."""
    size, away = 1 + np.arange(6.0), np.arange(13) - np.arange(13)[:, None]
    fades = np.where(away >= 0, 0.5 ** np.abs(away), np.nan)[:, None] * size[:, None]  # [layer, mode, later]
    spread = fades * rng.uniform(0.9, 1.1, (9, 1, 1, 1))
    values = np.stack([spread, *[0.5 * spread] * 3], axis=3)
    dims = ("clip", "layer", "mode", "neuron_set", "readout_layer")
    coords = {
        "layer": range(13),
        "readout_layer": range(13),
        "mode": MODES,
        "speaker": ("clip", [f"s{i}" for i in range(9)]),
        **neuron_sets(3),
    }
    return xr.Dataset({"relative_change": (dims, values), "frames_changed": (dims, values / 8)}, coords)


@pytest.mark.heavy
def test_distance_draws_fading_effects_per_mode(moved):
    """Effects of each mode, and those of random neurons, are drawn over the distance from the edited layer."""
    figure = plots.distance(moved)
    left, right = figure.axes
    selected = ablation.selected_values(moved["relative_change"])
    factor = selected.sel(layer=0, readout_layer=0, mode="flip").values  # of each speaker
    for i in range(6):
        fades = (1 + i) * 0.5 ** np.arange(13)
        assert has(left, factor.mean() * fades) and has(left, factor.mean() * fades / 2)
        assert has(right, factor.mean() * fades / 8)
    assert len(bars(left)) == 6 * 13 and "9 speakers" in words(figure) and "Dotted" in words(figure)
    assert "‖h′ − h‖ / ‖h‖" in left.get_ylabel() and "over 10 %" in right.get_ylabel()
    assert all("layers" in axes.get_xlabel() and not overlapping(figure, axes) for axes in figure.axes)
    few = plots.distance(without(moved.isel(clip=slice(4)), "random"))
    assert not len(bars(few.axes[0])) and "4 speakers, and each" in words(few) and "Dotted" not in words(few)
    assert all(has(few.axes[0], one * 0.5 ** np.arange(13)) for one in factor[:4])


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


def test_effect_map_shows_r2_and_reason_untested(rng):
    """A map of decoded features labels columns with the decoder's R², and says why nothing was tested."""
    names = ["level", "f0"]
    sweep = made(rng, ("layer", "feature"), layer=range(3), feature=names).assign_coords(readout_layer=3)
    track = xr.Dataset({"mean": (("layer", "feature"), [[0.1, 0.2]] * 3 + [[0.94, -0.3]])})
    track = track.assign_coords(layer=range(4), feature=names)
    found = ablation.effect_over_speakers(sweep)

    def columns(effects, plot=plots.effect_map, **options):
        figure = plot(effects, **options)
        return [text.get_text() for text in figure.axes[0].get_xticklabels()], words(figure)

    assert columns(found, validity=track)[0] == ["level\nR² 0.9", "f0\nR² -0.3"] and columns(found)[0] == names
    mixed = {"odds": found.sel(feature="f0", drop=True).drop_vars("readout_layer"), "F0 (Hz)": found.sel(feature="f0")}
    assert columns(mixed, plots.readout_map, validity=track)[0] == ["odds", "F0 (Hz)\nR² -0.3"]
    readout_layer = made(rng, ("layer", "readout_layer"), layer=range(3), readout_layer=[2, 3]).assign_coords(
        feature="level"
    )
    assert columns(ablation.effect_over_speakers(readout_layer), validity=track)[0] == ["2\nR² 0.1", "3\nR² 0.9"]
    assert "no test" not in columns(found)[1]
    few = ablation.effect_over_speakers(sweep.isel(clip=slice(7)))
    alone = ablation.effect_over_speakers(without(sweep, "random"))
    assert "over 7 speakers; fewer than 8 speakers: no test" in columns(few)[1]
    assert "over 9 speakers; too few or too similar random sets: no test" in columns(alone)[1]
