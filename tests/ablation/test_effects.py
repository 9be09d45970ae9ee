"""Effects over speakers and against the null, on sweeps made by hand."""

from __future__ import annotations

import re

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from handmade import neuron_sets, selected_mask, swept, without
from scipy import stats

from xai_lib import ablation, statistics


def test_effect_over_speakers_weights_speakers_equally_in_null():
    """Every speaker has the same weight in the null distribution, however many clips they have."""
    result = swept(speakers=10)
    names = result["speaker"].values.copy()
    names[1:11] = "s0"  # 11 clips of one, and 9 of nine speakers
    names[11:] = [f"s{i}" for i in range(1, 10)]
    result = result.assign_coords(speaker=("clip", names))
    means = np.array([result["target_change"].values[names == name].mean(0) for name in dict.fromkeys(names)])
    selected, draws = means[..., 0].mean(0), means[..., 1:].mean(0)
    found = ablation.effect_over_speakers(result)
    assert found["random_mean"].values == pytest.approx(draws.mean(-1))
    p = statistics.rank_test(selected, draws)[0]
    assert found["p_random"].values == pytest.approx(p)
    random = ablation.control_values(result["target_change"], "random")
    values = ablation.selected_values(result["target_change"])
    alone = ablation.contrast(values, random.mean("random"), null_distribution=random - random.mean("random"))
    assert alone["p_random"].values == pytest.approx(p)


def planted(effect, rng, *, speakers=8, layers=7, n_random=40, modes=1):
    """Sets of neurons that differ among themselves, with every speaker alike: the chosen one by `effect` more."""
    shape = layers, modes, n_random + 1
    sets = rng.standard_normal((1, *shape)) + 0.1 * rng.standard_normal((speakers, *shape))
    sets[..., 0] += effect
    dims, names = ("clip", "layer", "mode", "neuron_set"), np.array([f"s{i}" for i in range(speakers)], object)
    coords = {"layer": range(layers), "mode": ["flip", *range(1, modes)], "speaker": ("clip", names)}
    return xr.Dataset({"target_change": (dims, sets)}, coords | neuron_sets(n_random))


def test_effect_over_speakers_controls_false_positives():
    """A random set differs from the null over speakers, yet any of 7 layers has q < 0.05 in only about 5 % of modes."""
    found = ablation.effect_over_speakers(planted(0, np.random.default_rng(0), modes=400))
    alone, single, together = (found[name] < 0.05 for name in ("p_speakers", "p_random", "q"))
    assert alone.mean() > 0.5 and 0.03 < single.mean() < 0.07
    assert 0.02 < together.any("layer").mean() < 0.075  # 0.05 and two standard deviations


def test_effect_over_speakers_requires_20_distinct_sets():
    """Where fewer than 20 different random sets exist, p, q and the null band are NaN; differences remain."""
    result = swept()
    few = result.assign(n_random_sets=(("layer",), [1e9, 20.0, 19.0]))
    plain, found = ablation.effect_over_speakers(result), ablation.effect_over_speakers(few)
    assert np.isnan(found[["p_random", "q_random", "p", "q"]].sel(layer=5).to_array()).all()
    assert (found["p_random"] == plain["p_random"]).sel(layer=[1, 2]).all() and found["mean"].notnull().all()
    assert np.isnan(found["random_low"].sel(layer=5)).all()
    xr.testing.assert_allclose(
        found[["difference", "difference_low", "random_mean"]], plain[["difference", "difference_low", "random_mean"]]
    )


def test_effect_over_speakers_finds_one_affected_layer():
    """Of 25 layers of which one is affected, that one alone has q < 0.05."""
    rng = np.random.default_rng(0)
    effect = 0.1 * rng.standard_normal((8, 25, 1))
    effect[:, 4] -= 50 + rng.standard_normal((8, 1))
    random = 0.1 * rng.standard_normal((8, 25, 1, 40))
    values = np.concatenate([effect[..., None], random], axis=-1)
    coords = {"layer": range(25), "mode": ["flip"], "speaker": ("clip", [f"s{i}" for i in range(8)])}
    result = xr.Dataset({"target_change": (("clip", "layer", "mode", "neuron_set"), values)}, coords | neuron_sets(40))
    found = ablation.effect_over_speakers(result)
    assert (found["q"].sel(mode="flip") < 0.05).values.nonzero()[0].tolist() == [4]


def test_average_over_layers_keeps_null_width():
    """An average over layers has a null distribution as wide as that of a single layer."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal(20)
    random = np.stack([draws, -draws, rng.permutation(draws)])[None, :, None].repeat(8, axis=0)
    random = random + 0.01 * rng.standard_normal((8, 1, 1, 1))  # the same in each layer
    values = np.concatenate([np.full((8, 3, 1, 1), 7.0), random], axis=-1)
    coords = {"layer": [1, 2, 3], "mode": ["flip"], "speaker": ("clip", [f"s{i}" for i in range(8)])}
    result = xr.Dataset({"target_change": (("clip", "layer", "mode", "neuron_set"), values)}, coords | neuron_sets(20))
    averaged = ablation.average_over_layers(result, {"all": [1, 2, 3]})["target_change"]
    mean = ablation.control_values(averaged, "random").mean("clip").squeeze()
    assert mean.std("random").item() == pytest.approx(np.mean([np.std(draws), np.std(-draws), np.std(draws)]), rel=0.15)
    assert mean.std("random") > 0.8 * np.std(draws)
    assert (ablation.selected_values(averaged) == 7).all()


def test_average_over_layers_sorts_random_sets_alone():
    """Random sets are averaged in the order of their means within each layer, NaN last; all others by their names."""
    order = [1, 5, 2], [3, 2, 4]  # of random sets in the one layer and in the other
    values = [[10, *order[0], 100, 1000], [20, *order[1], 300, 3000]]
    values = np.array(values, float)[None].repeat(2, axis=0) + np.array([-0.1, 0.1])[:, None, None]
    values[:, 1, 2] = np.nan
    names = neuron_sets(3, 1, ["most active"])
    coords = {"layer": [1, 2], "speaker": ("clip", ["a", "b"])}
    result = xr.Dataset({"kl": (("clip", "layer", "neuron_set"), values)}, coords | names)
    mean = ablation.average_over_layers(result, {"all": [1, 2]})["kl"].mean("clip").squeeze()
    assert mean["neuron_set"].values.tolist() == names["neuron_set"]
    assert mean.values == pytest.approx([15, 2, 3, 5, 200, 2000])


@pytest.mark.parametrize("effect", [-8, 8])
def test_effect_over_speakers_detects_effects_of_either_sign(effect):
    """A planted effect of either sign has q < 0.05, and p_random < 0.05 just where the mean leaves the band."""
    found = ablation.effect_over_speakers(planted(effect, np.random.default_rng(1)))
    assert (found["q"] < 0.05).all()
    outside = (found["mean"] < found["random_low"]) | (found["mean"] > found["random_high"])
    assert (outside == (found["p_random"] < 0.05)).all()


def test_effect_over_speakers_requires_effect_shared_by_speakers():
    """An effect beyond random sets that speakers do not share is not significant."""
    result = planted(8, np.random.default_rng(2))
    result["target_change"][..., 0] *= np.array([9, -1.0, 1, -1, 1, -1, 1, -1])[:, None, None]
    found = ablation.effect_over_speakers(result)
    assert (found["p_random"] < 0.05).mean() > 0.95 and not (found["p"] < 0.05).any()


def test_effect_over_speakers_corrects_over_all_tiles_of_mode():
    """The correction for `q` is over all layers, readout layers and proxies, for each mode separately."""
    tiles = swept().expand_dims(readout_layer=[1, 2], proxy=["rms", "zcr"])
    rng = np.random.default_rng(3)
    by_tile = rng.standard_normal((2, 2, 2))  # the second axis is for the selected neurons and for all random ones
    is_random = (tiles["kind"] == "random").values.astype(int)
    tiles = tiles + xr.DataArray(by_tile[..., is_random], dims=("readout_layer", "proxy", "neuron_set"))
    found = ablation.effect_over_speakers(tiles)
    for mode in ("flip", "zero"):
        p, q = (
            found[name].sel(mode=mode).transpose("layer", "readout_layer", "proxy").values
            for name in ("p_speakers", "q")
        )
        of_sets = found["q_random"].sel(mode=mode).transpose("layer", "readout_layer", "proxy").values
        assert p.size == 12
        assert q.ravel() == pytest.approx(np.maximum(stats.false_discovery_control(p.ravel()), of_sets.ravel()))
    assert not np.isnan(ablation.effect_over_speakers(tiles, proxy="zcr")["p"]).any()


def test_contrast_refuses_different_clips():
    """Results are paired by clip in whatever order, and results of different clips are refused."""
    values = ablation.selected_values(swept()["target_change"]).assign_coords(clip=np.arange(18))
    same = ablation.contrast(values, values.isel(clip=slice(None, None, -1)))
    assert np.abs(same["mean"]).max() < 1e-12
    for other in (values.isel(clip=slice(9)), values.assign_coords(clip=np.arange(18) + 1)):
        with pytest.raises(ValueError, match="different clips"):
            ablation.contrast(values, other)
    assert ablation.contrast(values, 0)["mean"].notnull().all()


def test_effect_over_speakers_tests_nothing_below_eight_speakers():
    """Below 8 speakers intervals, p and q are NaN, while means and the rank among random sets remain."""
    found = ablation.effect_over_speakers(swept(speakers=7))
    for name in ("low", "high", "difference_low", "p", "q"):
        assert np.isnan(found[name]).all(), name
    assert np.isfinite(found["mean"]).all() and found.sizes["speaker"] == 7
    assert (found["p_random"].sel(layer=5) < 0.05).all()  # says something of the sets, whoever speaks


def test_effect_over_speakers_gives_nan_without_random_sets():
    """Without random sets the interval remains, and null, difference, p and q are NaN."""
    found = ablation.effect_over_speakers(swept(n_random=0))
    assert np.isfinite(found["low"]).all()
    for name in ("random_mean", "random_low", "difference", "p_random", "p", "q"):
        assert np.isnan(found[name]).all(), name


def test_effect_over_speakers_refuses_missing_speakers():
    """A summary refuses a result whose clips have no speakers."""
    with pytest.raises(ValueError, match="speaker"):
        ablation.effect_over_speakers(swept().drop_vars("speaker"))


def test_summary_tabulates_effect_over_speakers():
    """A summary has the numbers of `effect_over_speakers` in a row for each layer and mode; significant is q < 0.05."""
    result = swept(speakers=10)
    result["target_change"][:, 2, 0, 0] -= 30
    result = result.assign(n_random_sets=("layer", [1e9, 19.0, 1e9]))
    effect = ablation.effect_over_speakers(result)
    found = ablation.summary(result)
    columns = ["mean", "low", "high", "n", "random_mean", "random_low", "random_high", "p", "q"]
    assert found.columns.tolist() == [*columns, "significant"]
    assert found.index.names == ["layer", "mode"]
    for layer in result["layer"].values:
        for mode in result["mode"].values:
            row, expected = found.loc[layer, mode], effect.sel(layer=layer, mode=mode)
            np.testing.assert_array_equal(row[columns].astype(float), [expected[name].item() for name in columns])
            assert row["significant"] == (expected["q"].item() < 0.05)
    assert found["significant"].dtype == bool and found["significant"].any() and not found["significant"].all()
    assert found.loc[2, "q"].isna().all() and not found.loc[2, "significant"].any()  # no test


def test_summary_selects_by_where_and_kind():
    """A summary takes `variable`, `against` and values of further dims as `effect_over_speakers` does."""
    result = swept(speakers=10).rename(target_change="decoded_change")
    kinds = result["kind"].values.copy()
    kinds[11:] = "direction"
    result = result.assign_coords(kind=("neuron_set", kinds))
    result = result["decoded_change"] * xr.DataArray([1.0, 2], {"readout_layer": [3, 4]}, "readout_layer")
    result = result.to_dataset(name="decoded_change")
    for options in ({}, {"against": "direction"}, {"readout_layer": 4}, {"against": "direction", "layer": 5}):
        effect = ablation.effect_over_speakers(result, "decoded_change", **options)
        found = ablation.summary(result, "decoded_change", **options)
        assert found.index.names == list(effect["mean"].dims)
        for name in ("mean", "random_mean", "q"):
            np.testing.assert_array_equal(found[name], effect[name].values.ravel())
    alone = ablation.summary(result, "decoded_change", readout_layer=4, layer=5, mode="flip")
    effect = ablation.effect_over_speakers(result, "decoded_change", readout_layer=4, layer=5, mode="flip")
    assert len(alone) == 1 and alone["mean"].item() == effect["mean"].item()
    assert alone["significant"].tolist() == [effect["q"].item() < 0.05]


def test_selected_and_control_values_split_neuron_sets():
    """Values of the selected neurons lose the dim `neuron_set`; those of a kind of control lie along its name."""
    coords = neuron_sets(2, 1, ["most active", "writes most"])
    values = xr.DataArray([0.0, 1, 2, 3, 4, 5], coords, "neuron_set")
    selected = ablation.selected_values(values)
    assert selected.item() == 0 and not selected.coords
    expected = {"random": [1, 2], "direction": [3], "target-blind": [4, 5]}
    for kind, numbers in expected.items():
        found = ablation.control_values(values, kind)
        assert found.dims == (kind,) and found.values.tolist() == numbers
    assert found["target-blind"].values.tolist() == ["most active", "writes most"]
    assert ablation.control_values(without(values, "random"), "random").sizes == {"random": 0}
    with pytest.raises(ValueError, match="unknown kind of control 'blind': the kinds are random, direction and target"):
        ablation.control_values(values, "blind")


def test_strongest_layers_lists_modes_and_readouts():
    """For each readout and mode there is a row with the layer of greatest significant difference, or a reason."""
    result = planted(0, np.random.default_rng(0), layers=4, modes=2).assign_coords(
        layer=[1, 2, 5, 7], mode=["flip", "zero"]
    )
    result["target_change"][:, 1, 0, 0] += 20
    result["target_change"][:, 2, 0, 0] -= 40
    result = result.assign(kl=result["target_change"][:, :, ::-1].variable)
    readouts = {"target_change": ("log-odds", "nats"), "kl": ("divergence", "bits")}
    found = ablation.strongest_layers(result, readouts=readouts)
    assert found[["readout", "mode", "unit"]].values.tolist() == [
        ["log-odds", "flip", "nats"],
        ["log-odds", "zero", "nats"],
        ["divergence", "flip", "bits"],
        ["divergence", "zero", "bits"],
    ]
    assert (found["n_tested"] == 4).all() and (found["reason"] == "").all()
    effect = ablation.effect_over_speakers(result).sel(layer=5, mode="flip")
    for number in (0, 3):  # the other way round in `kl`
        row = found.loc[number]
        assert row["layer"] == 5
        for column, name in {
            "difference": "difference",
            "low": "difference_low",
            "high": "difference_high",
            "q": "q",
        }.items():
            assert row[column] == effect[name].item()
    for number in (1, 2):
        assert found.loc[number, ["layer", "difference", "low", "high", "q"]].isna().all()
    few = result.assign(n_random_sets=("layer", [99.0, 19.0, 19.0, 99.0]))
    found = ablation.strongest_layers(few, readouts=readouts)
    assert (found["n_tested"] == 2).all() and found["layer"].isna().all()  # neither layer with an effect was tested
    found = ablation.strongest_layers(result.isel(clip=slice(5)), readouts=readouts)
    assert (found["n_tested"] == 0).all() and found["layer"].isna().all()
    assert set(found["reason"]) == {"no test, 5 speakers of the 8 that are needed"}


def test_strongest_layers_takes_readouts_with_selections():
    """A readout may be a variable with values of its further dims, and others are given once for all readouts."""
    result = planted(0, np.random.default_rng(0), layers=3)
    both = xr.concat([result["target_change"], 0 * result["target_change"]], "feature").assign_coords(
        feature=["f0", "rms"]
    )
    both[0, :, 2, :, 0] += 20
    result = both.expand_dims(readout_layer=[3]).to_dataset(name="decoded_change")
    readouts = {
        ("decoded_change", (("feature", "f0"),)): ("F0", "Hz"),
        ("decoded_change", (("feature", "rms"),)): ("RMS", ""),
    }
    found = ablation.strongest_layers(result, readouts=readouts, readout_layer=3)
    assert found["readout"].tolist() == ["F0", "RMS"]
    assert found.loc[0, "layer"] == 2 and np.isnan(found.loc[1, "layer"])
    with pytest.raises(ValueError, match="decoded_change has further dims, readout_layer: select"):
        ablation.strongest_layers(result, readouts=readouts)


def reported(scale=1.0, **options):
    """The lines of a report of an effect of about 3512 × scale in layer 5, of several read-outs."""
    result = planted(0, np.random.default_rng(0), layers=3).assign_coords(layer=[1, 2, 5])
    result["target_change"][:, 2, :, 0] += 3512
    result = result.assign(kl=result["target_change"]) * scale
    result["is_selected"] = selected_mask({1: [0], 2: [1], 5: [2]}, 3)
    names = {"target_change": ("spectral centroid", "Hz"), "kl": ("divergence", "nats")}
    return ablation.report(result.isel(options), readouts=names).splitlines()


@pytest.mark.parametrize(
    ("scale", "size"),
    [
        (1, r"\+3500 \[\+3500, \+3500\] Hz"),
        (-100, r"-350000 \[-350000, -350000\] Hz"),
        (0.01, r"\+35 \[\+35, \+35\] Hz"),
        (0.001, r"\+3\.5 \[\+3\.5, \+3\.5\] Hz"),
        (-1e-6, r"-0\.0035 \[-0\.0035, -0\.0035\] Hz"),
    ],
)
def test_report_writes_two_significant_figures(scale, size):
    """A report writes effects and intervals as decimals without exponent, to two significant figures."""
    first = reported(scale)[0]
    assert re.match(rf"flip, spectral centroid: most in layer 5, {size} beyond random neurons \(q [=<] 0\.0", first), (
        first
    )


def test_report_names_strongest_neurons_of_layer():
    """With scores, a report names the layer's neurons, strongest first, and refuses a result that records none."""
    result = planted(0, np.random.default_rng(0), layers=2)
    result["target_change"][:, 1, :, 0] += 50
    size = np.array([[[9.0, 8, 7, 6], [1.0, 4, 2, 3]]])  # [clip, layer, neuron]
    scores = xr.DataArray(size, {"layer": [0, 1], "neuron": range(4)}, ("clip", "layer", "neuron")).to_dataset(
        name="absolute"
    )
    with pytest.raises(ValueError, match="does not record its neurons, so that none can be named: leave scores out"):
        ablation.report(result, scores, readouts={"target_change": ("effect", "nats")})
    result["is_selected"] = selected_mask({0: [0], 1: [0, 3, 1]}, 4)
    readouts = {"target_change": ("effect", "nats")}
    assert ablation.report(result, scores, readouts=readouts).endswith("; its first neurons by attribution: 1, 3, 0")
    assert ablation.report(result, scores, readouts=readouts, top=1).endswith("its first neuron by attribution: 1")


def test_selected_neurons_of_joined_sweeps_need_one_of_them():
    """Neurons that a result records survive joining; of several selections, one has to be selected."""
    result = planted(0, np.random.default_rng(0), layers=2)
    assert ablation.selected_neurons(result) == {}
    sweeps = []
    for neuron in (3, 4):
        sweeps.append(result.assign(is_selected=selected_mask({0: [neuron], 1: [neuron, 9]}, 10)))
    joined = xr.concat(sweeps, pd.Index([10, 20], name="k"))
    assert ablation.selected_neurons(joined, k=20) == {0: [4], 1: [4, 9]}
    assert ablation.selected_neurons(joined.sel(k=10, layer=1)) == {1: [3, 9]}
    with pytest.raises(ValueError, match="this result joins selections along k: select one value of it first"):
        ablation.selected_neurons(joined)
    same = xr.concat([sweeps[0], sweeps[0]], pd.Index(["flip", "zero"], name="edit"))
    assert ablation.selected_neurons(same) == {0: [3], 1: [3, 9]}
    assert ablation.selected_neurons(sweeps[0].drop_vars("layer").isel(layer=0)) == {}


def test_selected_neurons_ignore_layers_of_other_selections():
    """Layers that one of two joined selections lacks have no neurons in it."""
    masks = [selected_mask({2: [7], 4: [3]}, 10), selected_mask({2: [7], 3: [5]}, 10)]
    sweeps = [mask.to_dataset(name="is_selected") for mask in masks]
    joined = xr.concat(sweeps, pd.Index([10, 20], name="k"), join="outer")
    assert ablation.selected_neurons(joined, k=10) == {2: [7], 4: [3]}
    assert ablation.selected_neurons(joined, k=20) == {2: [7], 3: [5]}


def test_effects_refuse_values_without_neuron_sets():
    """Values without neuron sets, without the selected neurons, or of mixed kinds are refused in words."""
    result = planted(0, np.random.default_rng(0), layers=2)
    values = result["target_change"]
    with pytest.raises(ValueError, match="these values are not of neuron sets"):
        ablation.selected_values(ablation.selected_values(values))
    with pytest.raises(ValueError, match="the selected neurons are missing"):
        ablation.selected_values(values.isel(neuron_set=slice(1, None)))
    other = result.assign_coords(kind=("neuron_set", result["kind"].values[::-1]))
    mixed = xr.concat([result, other], "sweep")["target_change"]
    with pytest.raises(ValueError, match="join sweeps of the same controls only"):
        ablation.control_values(mixed, "random")
    with pytest.raises(ValueError, match="a contrast is of one neuron set"):
        ablation.contrast(values, ablation.selected_values(values))


def test_report_rounds_interval_like_mean():
    """A report rounds the mean and both ends of its interval to the same digit."""
    result = planted(0, np.random.default_rng(0), layers=2)
    result["target_change"][:, 1, :, 0] += np.linspace(2, 22, 8)[:, None]
    (line,) = ablation.report(result, readouts={"target_change": ("effect", "nats")}).splitlines()
    found = ablation.effect_over_speakers(result).sel(layer=1, mode="flip")
    ends = [f"{found[name].item():+.0f}" for name in ("difference", "difference_low", "difference_high")]
    assert f"{ends[0]} [{ends[1]}, {ends[2]}] nats" in line


def test_report_groups_untested_readouts():
    """A report says once, for all readouts of a mode, why they could not be tested."""
    why = "no test, 5 speakers of the 8 that are needed"
    assert reported(clip=slice(5)) == [f"flip, spectral centroid and 1 more readout: {why}"]


def compared(effects, rng, *, speakers=9, layers=5, n_random=40):
    """A sweep of what the selected, a rival's and two target-blind selections do in layer 2, and nothing elsewhere."""
    shape = (speakers, layers, 1, n_random + 4)
    every = rng.standard_normal((1, *shape[1:])) + 0.3 * rng.standard_normal(shape)
    every[:, 2, 0, :4] += np.array(effects)
    selected, of_rival, blind, random = every[..., :1], every[..., 1:2], every[..., 2:4], every[..., 4:]
    dims, names = ("clip", "layer", "mode", "neuron_set"), np.array([f"s{i}" for i in range(speakers)], object)
    coords = {"layer": range(layers), "mode": ["flip"], "speaker": ("clip", names)}

    rms = np.ones((layers, 1 + n_random + 2))
    rms[:, -2:] = 2
    data = {"target_change": (dims, np.concatenate([selected, random, blind], axis=-1))}
    data |= {"rms": (("layer", "neuron_set"), rms), "random_overlap": ("layer", np.full(layers, 0.3))}
    result = xr.Dataset(data, coords | neuron_sets(n_random, target_blind=["most active", "writes most"]))

    theirs = random + rng.standard_normal((1, layers, 1, n_random))  # they share some neurons
    data = {"target_change": (dims, np.concatenate([of_rival, theirs], axis=-1))}
    data |= {"rms": (("layer", "neuron_set"), rms[:, :-2])}
    return result, {"rival": xr.Dataset(data, coords | neuron_sets(n_random))}


def beyond(result, rivals):
    return ablation.verdict(result, rivals)["beyond"].squeeze().values.nonzero()[0].tolist()


@pytest.mark.parametrize("sign", [-1, 1])
def test_verdict_requires_all_controls(sign):
    """An effect is `beyond` only if it exceeds those of random sets, the rival and both target-blind selections."""
    result, rivals = compared([sign * 15, sign * 3, 0, sign * 2], np.random.default_rng(0))
    assert beyond(result, rivals) == [2]
    for place in (1, 2, 3):  # one of them does as much, or more
        for size in (18, 25):
            effects = [sign * 15, sign * 3, 0, sign * 2]
            effects[place] = sign * size
            assert beyond(*compared(effects, np.random.default_rng(0))) == []
    assert beyond(*compared([sign * 15, sign * 25, 0, 0], np.random.default_rng(0))) == []
    result, rivals = compared([sign * 15, 0, 0, 0], np.random.default_rng(0))
    assert beyond(result, rivals) == [2]
    is_random = result["kind"] == "random"
    what_any_set_does = xr.where(is_random & (result["layer"] == 2), sign * 15, 0)
    result["target_change"] = (result["target_change"] + what_any_set_does).transpose(*result["target_change"].dims)
    assert beyond(result, rivals) == []


@pytest.mark.parametrize("ratio", [1.3, 0.75])
def test_verdict_requires_similar_edit_size(ratio):
    """A significant effect is not `beyond` if its edit is 30 % larger or 25 % smaller than that of random neurons."""
    result, rivals = compared([-15, 0, 0, 0], np.random.default_rng(1))
    result["rms"][2, 0] = ratio
    found = ablation.verdict(result, rivals)
    assert (found["q"].sel(layer=2) < 0.05).all() and not found["beyond"].any()
    assert found["ratio"].sel(control="random").values.tolist() == [1, 1, ratio, 1, 1]
    assert found["ratio"].sel(control="writes most").values.tolist() == [0.5, 0.5, ratio / 2, 0.5, 0.5]


def test_verdict_equals_effect_over_speakers_and_paired_tests():
    """A verdict agrees with `effect_over_speakers` and paired t intervals, and refuses lacking or other controls."""
    result, rivals = compared([-15, -3, 0, 0], np.random.default_rng(2))
    found = ablation.verdict(result, rivals).squeeze("mode")
    assert found["control"].values.tolist() == ["random", "rival", "most active", "writes most"]
    whole = ablation.effect_over_speakers(result).squeeze("mode")
    elsewhere = found.sel(layer=[0, 1, 3, 4], control=["rival", "most active"])
    assert np.isnan(elsewhere[["p", "q"]].to_array()).all() and elsewhere["difference"].notnull().all()
    for name, other in {"difference": "difference", "low": "difference_low", "q": "q", "effect": "random_mean"}.items():
        np.testing.assert_allclose(found[name].sel(control="random"), whole[other])
    np.testing.assert_allclose(found["selected"], whole["mean"])
    own = ablation.selected_values(result["target_change"]).squeeze("mode")
    theirs = ablation.selected_values(rivals["rival"]["target_change"]).squeeze("mode")
    np.testing.assert_allclose(found["effect"].sel(control="rival"), theirs.mean("clip"))
    away = stats.ttest_rel(own.values, theirs.values).confidence_interval()
    np.testing.assert_allclose(found["low"].sel(control="rival"), away.low)
    few = ablation.verdict(result.isel(clip=slice(7)), {"rival": rivals["rival"].isel(clip=slice(7))})
    assert few["beyond"].squeeze().values.nonzero()[0].tolist() == [2] and few["low"].isnull().all()
    alone = ablation.effect_over_speakers(result.isel(clip=slice(7)))["q_random"].squeeze()
    np.testing.assert_allclose(few["q"].sel(control="random").squeeze(), alone)
    others = [{"rival": rivals["rival"].isel(neuron_set=slice(10))}]
    for option in ("seed", "size_classes", "part", "frames"):
        others.append({"rival": rivals["rival"].assign_attrs({option: "another"})})
    for other in others:
        with pytest.raises(ValueError, match="rival has other random sets: sweep it with the same controls and seed"):
            ablation.verdict(result, other)
    with pytest.raises(ValueError, match="unknown variable 'target_chance': a verdict is of a variable of the sweep"):
        ablation.verdict(result, rivals, variable="target_chance")
    for lacking in (
        without(result, "random"),
        without(result, "target-blind"),
        result.drop_vars("rms"),
    ):
        with pytest.raises(ValueError, match="a verdict needs random sets and target-blind selections"):
            ablation.verdict(lacking, rivals)
    for name in ("random", "most active", "writes most"):
        with pytest.raises(ValueError, match=f"a rival must not be named '{name}'"):
            ablation.verdict(result, {name: rivals["rival"]})
    for lacking in ({}, rivals["rival"]):
        with pytest.raises(ValueError, match="a verdict needs rivals: {name"):
            ablation.verdict(result, lacking)
    target = [
        one.assign_coords(target=("clip", [name] * 9)) for one, name in ((result, "angry"), (rivals["rival"], "sad"))
    ]
    with pytest.raises(ValueError, match="rival was swept for the target sad, not for angry"):
        ablation.verdict(target[0], {"rival": target[1]})
    many = [
        one.assign(is_selected=selected_mask({layer: range(k) for layer in range(5)}, 9))
        for one, k in ((result, 4), (rivals["rival"], 5))
    ]
    with pytest.raises(ValueError, match="rival has other numbers of neurons"):
        ablation.verdict(many[0], {"rival": many[1]})
    mean = ablation.average_over_layers(result, {"all": range(5)})
    with pytest.raises(ValueError, match="those of averaged layers are sorted"):
        ablation.verdict(mean, {"rival": ablation.average_over_layers(rivals["rival"], {"all": range(5)})})


def test_verdict_requires_sign_of_effect():
    """At the same distances from the controls, an effect is `beyond` away from 0, and not towards it."""
    result, rivals = compared([-15, 0, 0, 0], np.random.default_rng(2))
    assert ablation.verdict(result, rivals)["beyond"].sel(layer=2).all()

    nothing = result.assign(target_change=result["target_change"] + 30)
    rival = rivals["rival"].assign(target_change=rivals["rival"]["target_change"] + 30)
    found = ablation.verdict(nothing, {"rival": rival})
    assert (found["q"].sel(layer=2) < 0.05).all() and (found["selected"].sel(layer=2) > 0).all()
    assert not found["beyond"].any()


def test_between_random_sets_corrects_for_overlap():
    """Differences between sets of 20 that share a third have the spread of differences between disjoint sets."""
    rng = np.random.default_rng(0)
    weights = rng.standard_normal((60, 400))
    sets = [rng.choice(60, 20, replace=False) for _ in range(30)]
    random = xr.DataArray([weights[own].sum(0) for own in sets], dims=("random", "place"))
    apart = statistics.between_random_sets(random, shared=1 / 3)
    assert apart.sizes["random"] == 30 * 29 and np.abs(apart.mean("random")).max() < 1e-9
    assert float(apart.std()) == pytest.approx(np.sqrt(40), rel=0.05)
