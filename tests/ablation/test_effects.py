"""Effects over speakers and against the null, on sweeps made by hand."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import xarray as xr
from handmade import swept
from scipy import stats

from xai_lib import ablation, statistics


def test_summary_weights_speakers_equally_in_null():
    """Every speaker has the same weight in the null distribution, however many clips they have."""
    result = swept(speakers=10)
    names = result["speaker"].values.copy()
    names[1:11] = "s0"  # 11 clips of one, and 9 of nine speakers
    names[11:] = [f"s{i}" for i in range(1, 10)]
    result = result.assign_coords(speaker=("clip", names))
    random = np.array([result["random_target_change"].values[names == name].mean(0) for name in dict.fromkeys(names)])
    selected = np.array([result["target_change"].values[names == name].mean(0) for name in dict.fromkeys(names)]).mean(
        0
    )
    draws = random.mean(0)
    found = ablation.summary(result)
    assert found["random_mean"].values == pytest.approx(draws.mean(-1))
    p = statistics.rank_test(selected, draws)[0]
    assert found["p_random"].values == pytest.approx(p)
    away = result["random_target_change"] - result["random_target_change"].mean("random")
    alone = ablation.contrast(result["target_change"], result["random_target_change"].mean("random"), random=away)
    assert alone["p_random"].values == pytest.approx(p)


def planted(effect, rng, *, speakers=8, layers=7, n_random=40, modes=1):
    """Sets of neurons that differ among themselves, with every speaker alike: the chosen one by `effect` more."""
    shape = layers, modes, n_random + 1
    sets = rng.standard_normal((1, *shape)) + 0.1 * rng.standard_normal((speakers, *shape))
    sets[..., 0] += effect
    dims, names = ("clip", "layer", "mode"), np.array([f"s{i}" for i in range(speakers)], object)
    data = {"target_change": (dims, sets[..., 0]), "random_target_change": ((*dims, "random"), sets[..., 1:])}
    modes = ["flip", *range(1, modes)]
    return xr.Dataset(data, {"layer": range(layers), "mode": modes, "speaker": ("clip", names)})


def test_summary_controls_false_positives():
    """A random set differs from the null over speakers, yet any of 7 layers has q < 0.05 in only about 5 % of modes."""
    found = ablation.summary(planted(0, np.random.default_rng(0), modes=400))
    alone, single, together = (found[name] < 0.05 for name in ("p_speakers", "p_random", "q"))
    assert alone.mean() > 0.5 and 0.03 < single.mean() < 0.07
    assert 0.02 < together.any("layer").mean() < 0.075  # 0.05 and two standard deviations


def test_summary_requires_20_distinct_sets():
    """Where fewer than 20 different random sets exist, p, q and the null band are NaN; differences remain."""
    result = swept()
    few = result.assign(random_sets=(("layer",), [1e9, 20.0, 19.0]))
    plain, found = ablation.summary(result), ablation.summary(few)
    assert np.isnan(found[["p_random", "q_random", "p", "q"]].sel(layer=5).to_array()).all()
    assert (found["p_random"] == plain["p_random"]).sel(layer=[1, 2]).all() and found["mean"].notnull().all()
    assert np.isnan(found["random_low"].sel(layer=5)).all()
    xr.testing.assert_allclose(
        found[["difference", "difference_low", "random_mean"]], plain[["difference", "difference_low", "random_mean"]]
    )


def test_summary_finds_one_affected_layer():
    """Of 25 layers of which one is affected, that one alone has q < 0.05."""
    rng = np.random.default_rng(0)
    dims, effect = ("clip", "layer", "mode"), 0.1 * rng.standard_normal((8, 25, 1))
    effect[:, 4] -= 50 + rng.standard_normal((8, 1))
    random = 0.1 * rng.standard_normal((8, 25, 1, 40))
    names = ("clip", [f"s{i}" for i in range(8)])
    data = {"target_change": (dims, effect), "random_target_change": ((*dims, "random"), random)}
    found = ablation.summary(xr.Dataset(data, {"layer": range(25), "mode": ["flip"], "speaker": names}))
    assert (found["q"].sel(mode="flip") < 0.05).values.nonzero()[0].tolist() == [4]


def test_average_over_layers_keeps_null_width():
    """An average over layers has a null distribution as wide as that of a single layer."""
    rng = np.random.default_rng(0)
    draws = rng.standard_normal(20)
    random = np.stack([draws, -draws, rng.permutation(draws)])[None, :, None].repeat(
        8, axis=0
    )  # the same in each layer
    data = {"target_change": (("clip", "layer", "mode"), np.zeros((8, 3, 1)))}
    data["random_target_change"] = (
        ("clip", "layer", "mode", "random"),
        random + 0.01 * rng.standard_normal((8, 1, 1, 1)),
    )
    names = ("clip", [f"s{i}" for i in range(8)])
    result = xr.Dataset(data, {"layer": [1, 2, 3], "mode": ["flip"], "speaker": names})
    mean = ablation.average_over_layers(result, {"all": [1, 2, 3]})["random_target_change"].mean("clip").squeeze()
    assert mean.std("random").item() == pytest.approx(np.mean([np.std(draws), np.std(-draws), np.std(draws)]), rel=0.15)
    assert mean.std("random") > 0.8 * np.std(draws)


@pytest.mark.parametrize("effect", [-8, 8])
def test_summary_detects_effects_of_either_sign(effect):
    """A planted effect of either sign has q < 0.05, and p_random < 0.05 just where the mean leaves the band."""
    found = ablation.summary(planted(effect, np.random.default_rng(1)))
    assert (found["q"] < 0.05).all()
    outside = (found["mean"] < found["random_low"]) | (found["mean"] > found["random_high"])
    assert (outside == (found["p_random"] < 0.05)).all()


def test_summary_requires_effect_shared_by_speakers():
    """An effect beyond random sets that speakers do not share is not significant."""
    result = planted(8, np.random.default_rng(2))
    result["target_change"] = result["target_change"] * xr.DataArray([9, -1.0, 1, -1, 1, -1, 1, -1], dims="clip")
    found = ablation.summary(result)
    assert (found["p_random"] < 0.05).mean() > 0.95 and not (found["p"] < 0.05).any()


def test_summary_corrects_over_all_tiles_of_mode():
    """The correction for `q` is over all layers, readout layers and proxies, for each mode separately."""
    tiles = swept().expand_dims(readout_layer=[1, 2], proxy=["rms", "zcr"])
    rng = np.random.default_rng(3)
    tiles = tiles.map(lambda x: x + rng.standard_normal((2, 2, *[1] * (x.ndim - 2))))
    found = ablation.summary(tiles)
    for mode in ("flip", "zero"):
        p, q = (
            found[name].sel(mode=mode).transpose("layer", "readout_layer", "proxy").values
            for name in ("p_speakers", "q")
        )
        of_sets = found["q_random"].sel(mode=mode).transpose("layer", "readout_layer", "proxy").values
        assert p.size == 12
        assert q.ravel() == pytest.approx(np.maximum(stats.false_discovery_control(p.ravel()), of_sets.ravel()))
    assert not np.isnan(ablation.summary(tiles, proxy="zcr")["p"]).any()


def test_contrast_refuses_different_clips():
    """Results are paired by clip in whatever order, and results of different clips are refused."""
    values = swept()["target_change"].assign_coords(clip=np.arange(18))
    same = ablation.contrast(values, values.isel(clip=slice(None, None, -1)))
    assert np.abs(same["mean"]).max() < 1e-12
    for other in (values.isel(clip=slice(9)), values.assign_coords(clip=np.arange(18) + 1)):
        with pytest.raises(ValueError, match="different clips"):
            ablation.contrast(values, other)
    assert ablation.contrast(values, 0)["mean"].notnull().all()


def test_summary_tests_nothing_below_eight_speakers():
    """Below 8 speakers intervals, p and q are NaN, while means and the rank among random sets remain."""
    found = ablation.summary(swept(speakers=7))
    for name in ("low", "high", "difference_low", "p", "q"):
        assert np.isnan(found[name]).all(), name
    assert np.isfinite(found["mean"]).all() and found.sizes["speaker"] == 7
    assert (found["p_random"].sel(layer=5) < 0.05).all()  # says something of the sets, whoever speaks


def test_summary_gives_nan_without_random_sets():
    """Without random sets the interval remains, and null, difference, p and q are NaN."""
    found = ablation.summary(swept(n_random=0))
    assert np.isfinite(found["low"]).all()
    for name in ("random_mean", "random_low", "difference", "p_random", "p", "q"):
        assert np.isnan(found[name]).all(), name


def test_summary_refuses_missing_speakers():
    """A summary refuses a result whose clips have no speakers."""
    with pytest.raises(ValueError, match="speaker"):
        ablation.summary(swept().drop_vars("speaker"))


def reported(scale=1.0, **options):
    """The lines of a report of an effect of about 3512 × scale in layer 5, of several read-outs."""
    result = planted(0, np.random.default_rng(0), layers=3).assign_coords(layer=[1, 2, 5])
    result["target_change"][:, 2] += 3512
    result = result.assign(kl=result["target_change"], random_kl=result["random_target_change"]) * scale
    result.attrs["neurons"] = json.dumps({"1": [0], "2": [1], "5": [2]})
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


def test_report_rounds_interval_like_mean():
    """A report rounds the mean and both ends of its interval to the same digit."""
    result = planted(0, np.random.default_rng(0), layers=2)
    result["target_change"][:, 1] += np.linspace(2, 22, 8)[:, None]
    result.attrs["neurons"] = json.dumps({"0": [0], "1": [1]})
    (line,) = ablation.report(result, readouts={"target_change": ("effect", "nats")}).splitlines()
    found = ablation.summary(result).sel(layer=1, mode="flip")
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
    dims, names = ("clip", "layer", "mode"), np.array([f"s{i}" for i in range(speakers)], object)
    coords = {
        "layer": range(layers),
        "mode": ["flip"],
        "speaker": ("clip", names),
        "blind": ["most active", "writes most"],
    }
    data = {"target_change": (dims, every[..., 0]), "blind_target_change": ((*dims, "blind"), every[..., 2:4])}
    data |= {
        "random_target_change": ((*dims, "random"), every[..., 4:]),
        "random_overlap": ("layer", np.full(layers, 0.3)),
    }
    data |= {
        "magnitude": ("layer", np.ones(layers)),
        "random_magnitude": (("layer", "random"), np.ones((layers, n_random))),
    }
    data["blind_magnitude"] = ("layer", "blind"), np.full((layers, 2), 2.0)
    theirs = every[..., 4:] + rng.standard_normal((1, layers, 1, n_random))  # they share some neurons
    rival = {
        "target_change": (dims, every[..., 1]),
        "random_target_change": ((*dims, "random"), theirs),
        "magnitude": data["magnitude"],
    }
    rival = xr.Dataset(rival, coords)
    return xr.Dataset(data, coords), {"rival": rival}


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
    result["random_target_change"][:, 2] += sign * 15  # what any set of neurons does, the controls aside
    assert beyond(result, rivals) == []


@pytest.mark.parametrize("ratio", [1.3, 0.75])
def test_verdict_requires_similar_edit_size(ratio):
    """A significant effect is not `beyond` if its edit is 30 % larger or 25 % smaller than that of random neurons."""
    result, rivals = compared([-15, 0, 0, 0], np.random.default_rng(1))
    result["magnitude"][2] = ratio
    found = ablation.verdict(result, rivals)
    assert (found["q"].sel(layer=2) < 0.05).all() and not found["beyond"].any()
    assert found["ratio"].sel(control="random").values.tolist() == [1, 1, ratio, 1, 1]
    assert found["ratio"].sel(control="writes most").values.tolist() == [0.5, 0.5, ratio / 2, 0.5, 0.5]


def test_verdict_equals_summary_and_paired_tests():
    """A verdict agrees with `summary` and paired t intervals, and refuses missing or incomparable controls."""
    result, rivals = compared([-15, -3, 0, 0], np.random.default_rng(2))
    found = ablation.verdict(result, rivals).squeeze("mode")
    assert found["control"].values.tolist() == ["random", "rival", "most active", "writes most"]
    whole = ablation.summary(result).squeeze("mode")
    elsewhere = found.sel(layer=[0, 1, 3, 4], control=["rival", "most active"])
    assert np.isnan(elsewhere[["p", "q"]].to_array()).all() and elsewhere["difference"].notnull().all()
    for name, other in {"difference": "difference", "low": "difference_low", "q": "q", "effect": "random_mean"}.items():
        np.testing.assert_allclose(found[name].sel(control="random"), whole[other])
    np.testing.assert_allclose(found["selected"], whole["mean"])
    theirs = rivals["rival"]["target_change"].squeeze("mode")
    np.testing.assert_allclose(found["effect"].sel(control="rival"), theirs.mean("clip"))
    away = stats.ttest_rel(result["target_change"].squeeze("mode").values, theirs.values).confidence_interval()
    np.testing.assert_allclose(found["low"].sel(control="rival"), away.low)
    few = ablation.verdict(result.isel(clip=slice(7)), {"rival": rivals["rival"].isel(clip=slice(7))})
    assert few["beyond"].squeeze().values.nonzero()[0].tolist() == [2] and few["low"].isnull().all()
    alone = ablation.summary(result.isel(clip=slice(7)))["q_random"].squeeze()
    np.testing.assert_allclose(few["q"].sel(control="random").squeeze(), alone)
    other = {"rival": rivals["rival"].isel(random=slice(9))}
    with pytest.raises(ValueError, match="rival has other random sets: sweep it with the same n_random"):
        ablation.verdict(result, other)
    for lacking in (
        result.isel(random=slice(0)),
        result.drop_vars("blind_target_change"),
        result.drop_vars("magnitude"),
    ):
        with pytest.raises(ValueError, match="a verdict needs random sets and target-blind selections"):
            ablation.verdict(lacking, rivals)
    for lacking in ({}, rivals["rival"]):
        with pytest.raises(ValueError, match="a verdict needs rivals: {name"):
            ablation.verdict(result, lacking)
    target = [
        one.assign_coords(target=("clip", [name] * 9)) for one, name in ((result, "angry"), (rivals["rival"], "sad"))
    ]
    with pytest.raises(ValueError, match="rival was swept for the target sad, not for angry"):
        ablation.verdict(target[0], {"rival": target[1]})
    many = [
        one.assign_attrs(neurons=json.dumps({layer: list(range(k)) for layer in range(5)}))
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

    def nearer(one):
        return one.assign(
            {
                name: one[name] + 30
                for name in ("target_change", "random_target_change", "blind_target_change")
                if name in one
            }
        )

    nothing = nearer(result)
    found = ablation.verdict(nothing, {name: nearer(rival) for name, rival in rivals.items()})
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
