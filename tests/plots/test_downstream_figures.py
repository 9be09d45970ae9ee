"""Figures of effects downstream show the numbers in their units, and hatch what is not significant."""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from drawn import bars, has, hatched, heat_map, overlapping, tile, words
from handmade import neuron_sets, planted_sweep, without

from xai_lib import ablation, plots
from xai_lib.plots import style

MODES = ["flip", "zero", "mean", "noise", "resample", "patch"]
LABELS = list(style.EMOTION_COLORS)
WORDS = "q ≥ 0.05"


def test_effect_map_shows_means_hatches_and_groups(rng):
    """A map prints the mean in every tile, hatches tiles that are not significant, and marks layer groups."""
    found = ablation.effect_over_speakers(planted_sweep(rng, ("layer", "label"), layer=range(13), label=LABELS))
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


def test_effect_map_shows_r2_and_reason_untested(rng):
    """A map of decoded features labels columns with the decoder's R², and says why nothing was tested."""
    names = ["level", "f0"]
    sweep = planted_sweep(rng, ("layer", "feature"), layer=range(3), feature=names).assign_coords(readout_layer=3)
    track = xr.Dataset({"mean": (("layer", "feature"), [[0.1, 0.2]] * 3 + [[0.94, -0.3]])})
    track = track.assign_coords(layer=range(4), feature=names)
    found = ablation.effect_over_speakers(sweep)

    def columns(effects, plot=plots.effect_map, **options):
        figure = plot(effects, **options)
        return [text.get_text() for text in figure.axes[0].get_xticklabels()], words(figure)

    assert columns(found, validity=track)[0] == ["level\nR² 0.9", "f0\nR² -0.3"] and columns(found)[0] == names
    mixed = {"odds": found.sel(feature="f0", drop=True).drop_vars("readout_layer"), "F0 (Hz)": found.sel(feature="f0")}
    assert columns(mixed, plots.readout_map, validity=track)[0] == ["odds", "F0 (Hz)\nR² -0.3"]
    readout_layer = planted_sweep(rng, ("layer", "readout_layer"), layer=range(3), readout_layer=[2, 3]).assign_coords(
        feature="level"
    )
    assert columns(ablation.effect_over_speakers(readout_layer), validity=track)[0] == ["2\nR² 0.1", "3\nR² 0.9"]
    assert "no test" not in columns(found)[1]
    few = ablation.effect_over_speakers(sweep.isel(clip=slice(7)))
    alone = ablation.effect_over_speakers(without(sweep, "random"))
    assert "over 7 speakers; fewer than 8 speakers: no test" in columns(few)[1]
    assert "over 9 speakers; too few or too similar random sets: no test" in columns(alone)[1]


def test_readout_map_colours_columns_by_null_width(rng):
    """Columns of different units are coloured by their difference from the null, in half-widths of its band."""
    parts = [planted_sweep(rng, ("layer",), layer=range(6)) for _ in range(3)]
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


def test_proxy_changes_hatches_nonsignificant_tiles(tiny_sweeps):
    """Changes of proxies that are not significant are hatched, and the validity of a proxy is drawn as bars."""
    changes = ablation.effect_over_speakers(tiny_sweeps[0], "proxy_sd").sel(mode="flip")
    after = changes["readout_layer"] > changes["layer"]
    changes["q"] = (
        changes["q"].where(False, 0.2).where((after.cumsum("readout_layer") != 1) | (changes["proxy"] != "zcr"), 0.01)
    )
    figure = plots.proxy_changes(changes, tiny_sweeps[2])
    assert "hatched: n.s. against random neurons" in words(figure)
    hatched = [[patch.get_xy() for patch in axes.patches if patch.get_hatch()] for axes in figure.axes[:3]]
    assert [len(found) for found in hatched] == [6, 3, 6] and (0.5, -0.5) not in hatched[1]
    bars = [patch.get_height() for patch in figure.axes[3].patches]
    assert bars == pytest.approx(tiny_sweeps[2]["mean"].sel(proxy="rms").values, nan_ok=True)
