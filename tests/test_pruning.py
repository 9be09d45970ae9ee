"""Pruning equals holding at zero, is undone exactly, and is compared with random neurons that are not the chosen."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from scipy.special import log_softmax

from xai_lib import edits, hooks, plots, pruning, widgets
from xai_lib.families import Site
from xai_lib.statistics import null_test, sign_flip_test

PLAN = {Site(1, "ffn_hidden"): [0, 7], Site(3, "ffn_hidden"): [5]}


@pytest.fixture(params=["base", "large"])
def model(tiny, request):
    return tiny(request.param)


@pytest.fixture
def clips(tmp_path):
    """Two speakers × four labels."""
    rng, rows = np.random.default_rng(0), []
    for i in range(8):
        path = tmp_path / f"{i}.wav"
        soundfile.write(path, 0.1 * rng.standard_normal(6000), 16000)
        rows.append({"path": str(path), "label": ("angry", "calm", "sad", "happy")[i % 4], "speaker": f"s{i // 4}"})
    return pd.DataFrame(rows, index=range(10, 18))


@pytest.fixture
def scores():
    rng = np.random.default_rng(5)
    coords = {"layer": [1, 2, 3], "neuron": np.arange(40)}
    return xr.DataArray(rng.standard_normal((3, 40)), coords, ("layer", "neuron"))


@torch.no_grad()
def test_pruned_weights_do_what_the_edit_does(model, wave):
    x = model.tensor(wave)
    clean = model.logits(x)
    with hooks.edit(model, {site: edits.edit(chosen, "zero") for site, chosen in PLAN.items()}):
        edited = model.logits(x)
    with pruning.prune(model, PLAN) as same:
        assert same is model
        pruned = model.logits(x)
    torch.testing.assert_close(pruned, edited, atol=1e-5, rtol=1e-5)
    assert (pruned - clean).abs().max() > 1e-3
    assert torch.equal(model.logits(x), clean)


def test_weights_come_back_bit_by_bit_also_after_an_error(model):
    before = pruning.fingerprint(model)
    with pytest.raises(RuntimeError, match="inside"), pruning.prune(model, PLAN):
        assert pruning.fingerprint(model) != before
        with pruning.prune(model, {Site(1, "ffn_hidden"): [7, 8]}):  # one within the other, sharing a neuron
            pass
        raise RuntimeError("inside")
    assert pruning.fingerprint(model) == before
    bad = {Site(1, "ffn_hidden"): [0], Site(2, "ffn_hidden"): [99]}
    with pytest.raises(ValueError, match="neuron 99 out of range"), pruning.prune(model, bad):
        pass
    assert pruning.fingerprint(model) == before


def test_only_neurons_that_one_linear_map_reads_can_be_pruned(tiny):
    with pytest.raises(ValueError, match="ffn_hidden"), pruning.prune(tiny(), {Site(1): [0]}):
        pass


def test_neurons_of_takes_the_greatest(scores):
    plan = pruning.neurons_of(scores.transpose("neuron", "layer"), 7)
    taken = [float(scores.sel(layer=site.layer, neuron=n)) for site, found in plan.items() for n in found]
    assert sorted(taken) == sorted(np.sort(scores.values.ravel())[-7:])
    assert all(site.part == "ffn_hidden" for site in plan)


def test_contrast_is_within_speakers():
    """Speaker b is 100 higher throughout and has fewer angry clips; c has no angry one and is left out."""
    values = np.array([3.0, 1, 1, 105, 101, 50])
    data = xr.DataArray(
        values[:, None, None],
        dims=("clip", "layer", "neuron"),
        coords={
            "label": ("clip", ["angry", "calm", "calm", "angry", "sad", "sad"]),
            "speaker": ("clip", list("aaabbc")),
        },
    )
    assert float(pruning.contrast(data, "angry").squeeze()) == pytest.approx((2 + 4) / 2)
    assert float(pruning.contrast(data.drop_vars("speaker"), "angry").squeeze()) == pytest.approx(54 - 153 / 4)
    apart = data.isel(clip=[0, 4, 5])  # no speaker has both
    assert float(pruning.contrast(apart, "angry").squeeze()) == pytest.approx(3 - 151 / 2)
    with pytest.raises(ValueError, match="surprised"):
        pruning.contrast(data, "surprised")


def test_controls_are_other_neurons_as_many_per_layer_and_repeat(scores):
    chosen, size = pruning.neurons_of(scores, 20), np.abs(scores)
    sets = pruning.controls(chosen, size, 6, seed=1)
    assert len(sets) == 6
    for plan in sets:
        assert plan.keys() == chosen.keys()
        for site, found in plan.items():
            assert len(np.unique(found)) == len(chosen[site]) and not set(found) & set(chosen[site])
    assert any(not np.array_equal(sets[0][site], sets[1][site]) for site in chosen)
    again = pruning.controls(chosen, size, 6, seed=1)
    assert all(np.array_equal(a[site], b[site]) for a, b in zip(sets, again) for site in chosen)


def test_random_neurons_are_matched_in_what_they_write(model, scores):
    """Weights × 100 for half the neurons of layer 2: chosen among these, the random ones are among these too."""
    with torch.no_grad():
        pruning._outgoing(model, Site(2, "ffn_hidden"))[:, :20] *= 100
    flat = xr.ones_like(scores)
    size = pruning.reach(model, flat.transpose("neuron", "layer"))
    weights = pruning._outgoing(model, Site(2, "ffn_hidden")).detach().cpu().numpy()
    np.testing.assert_allclose(size.sel(layer=2), np.linalg.norm(weights, axis=0), rtol=1e-5)
    np.testing.assert_allclose(pruning.reach(model, 3 * flat), (3 * size).transpose("layer", "neuron"))
    wanted = flat.where((flat["layer"] == 2) & (flat["neuron"] < 2), 0)
    for plan in pruning.controls(pruning.neurons_of(wanted, 2), size, 5):
        assert set(plan[Site(2, "ffn_hidden")]) <= set(range(2, 20))


def test_compare_is_the_pruned_model(model, clips, scores):
    compared = pruning.compare(model, clips, scores, np.abs(scores), doses=[3, 9], draws=2, batch=4)
    assert compared["logit"].sizes == {"clip": 8, "dose": 3, "who": 3, "target": 8}
    with pruning.prune(model, pruning.neurons_of(scores, 9)):
        expected = _logits(model, clips)
    np.testing.assert_allclose(compared["logit"].sel(dose=9, who="chosen"), expected, atol=1e-4)
    size = pruning.reach(model, np.abs(scores))
    control = pruning.controls(pruning.neurons_of(scores, 3), size, 2)[1]
    with pruning.prune(model, control):
        expected = _logits(model, clips)
    np.testing.assert_allclose(compared["logit"].sel(dose=3, who="random 2"), expected, atol=1e-4)
    np.testing.assert_allclose(compared["logit"].sel(dose=0, who="random 1"), _logits(model, clips), atol=1e-4)


@torch.no_grad()
def _logits(model, clips):
    from xai_lib import audio

    return np.stack([model.logits(model.tensor(x))[0].cpu().numpy() for _, x in audio.stream(clips, 16000)])


@pytest.fixture
def compared():
    """Ten speakers, an angry and a calm clip each. The chosen neurons take 2 off the angry clips' own logit."""
    rng = np.random.default_rng(0)
    names, labels = ["angry", "calm", "sad"], np.tile(["angry", "calm"], 10)
    logit = np.repeat(np.repeat(rng.standard_normal((20, 1, 1, 3)), 2, 1), 4, 2)
    logit[labels == "angry", 1, 0, 0] -= 2
    logit[:, 1, 1:] += rng.standard_normal((20, 3, 1))  # random sets move all logits alike
    return xr.Dataset(
        {"logit": (("clip", "dose", "who", "target"), logit), "shared": ("dose", [0.0, 0.0])},
        {
            "clip": range(20),
            "label": ("clip", labels.astype(object)),
            "dose": [0, 5],
            "target": names,
            "speaker": ("clip", np.repeat([f"s{i}" for i in range(10)], 2)),
            "who": ["chosen", "r1", "r2", "r3"],
        },
    )


def test_effects_are_log_odds_blind_to_a_common_shift(compared):
    effects = pruning.effects(compared, "angry")
    np.testing.assert_allclose(effects["log_odds"].sel(group="forgotten", dose=5, who="chosen"), -2)
    np.testing.assert_allclose(effects["log_odds"].isel(who=slice(1, None)), 0, atol=1e-9)
    np.testing.assert_allclose(effects[["log_odds", "moved"]].sel(group="kept").to_dataarray(), 0, atol=1e-9)
    assert effects["log_odds"].sizes == {"group": 2, "speaker": 10, "dose": 2, "who": 4}
    np.testing.assert_allclose(effects["margin"].sel(group="forgotten", dose=5), -2)
    assert float(effects["margin_p"].sel(group="forgotten", dose=5)) == pytest.approx(2 / 2**10)


def test_a_loss_of_the_forgotten_class_is_no_gain_of_the_kept(compared):
    """Angry falls by 2 in all clips: the odds of calm against all rise, against the others alone they stay."""
    compared["logit"][:, 1, 0] = compared["logit"][:, 0, 0] - 2.0 * (compared["target"] == "angry")
    kept = pruning.effects(compared, "angry").sel(group="kept", dose=5, who="chosen")
    np.testing.assert_allclose(kept[["log_odds", "moved"]].to_dataarray(), 0, atol=1e-9)
    full = pruning._log_odds(compared).isel(who=0)
    assert (full.isel(dose=1) > full.isel(dose=0) + 0.01)[compared["label"].values == "calm"].all()


def test_moved_is_the_mean_of_absolute_changes(compared):
    """Two calm clips a speaker, one rises by 1 against sad and one falls by 1: nothing on average, 1 moved."""
    two = xr.concat([compared.sel(clip=compared["label"] == "calm")] * 2, "clip", data_vars="minimal").assign_coords(
        clip=range(20)
    )
    sign = np.repeat([1.0, -1.0], 10)
    two["logit"][:, 1, 0] = two["logit"][:, 0, 0] + xr.DataArray(sign, dims="clip") * (two["target"] == "calm")
    both = xr.concat(
        [compared.assign_coords(clip=range(20, 40)).sel(clip=range(20, 40, 2)), two], "clip", data_vars="minimal"
    )
    kept = pruning.effects(both, "angry").sel(group="kept", dose=5, who="chosen")
    np.testing.assert_allclose(kept["log_odds"], 0, atol=1e-9)
    np.testing.assert_allclose(kept["moved"], 1)


def _exchangeable(runs, planted=0.0):
    """Sets that each shift the classes in a way of their own, alike for all speakers; `runs` of them as doses."""
    rng = np.random.default_rng(1)
    names, labels = ["angry", "calm", "sad"], np.tile(["angry", "calm"], 10)
    logit = np.repeat(rng.standard_normal((20, 1, 1, 3)), runs + 1, 1) + np.zeros((1, 1, 9, 1))
    logit[:, 1:] += rng.standard_normal((1, runs, 9, 3)) + 0.1 * rng.standard_normal((20, runs, 9, 3))
    logit[:, 1:, 0, 0] -= planted
    coords = {"label": ("clip", labels.astype(object)), "speaker": ("clip", np.repeat(list("abcdefghij"), 2))}
    coords |= {"clip": range(20), "dose": range(runs + 1), "target": names, "who": [f"r{i}" for i in range(9)]}
    shared = ("dose", np.zeros(runs + 1))
    return xr.Dataset({"logit": (("clip", "dose", "who", "target"), logit), "shared": shared}, coords)


def test_p_is_as_rare_as_it_says_where_the_chosen_set_is_random_too():
    effects = pruning.effects(_exchangeable(200), "angry").isel(dose=slice(1, None))
    assert ((effects["margin_p"] < 0.05).mean("dose") < 0.08).all()
    assert ((effects["across_p"] < 0.05).mean("dose") > 0.01).all()
    over = [[sign_flip_test(v) for v in one.transpose("dose", "speaker").values] for one in effects["margin"]]
    assert np.mean(np.array(over) < 0.05) > 0.5  # over speakers alone, as if there were no other random sets
    np.testing.assert_allclose(effects["margin_p"], np.maximum(np.array(over), effects["across_p"].values))


def test_p_knows_that_random_sets_share_neurons():
    """Effects of sets that are sums over neurons, half of them common to all random sets and none to the chosen."""
    rng, many = np.random.default_rng(2), 2000
    sets = rng.standard_normal((8, many)) * np.sqrt(0.5) + rng.standard_normal(many) * np.sqrt(0.5)
    chosen = rng.standard_normal(many)
    assert (null_test(chosen, sets) < 0.05).mean() > 0.15
    assert 0.035 < (null_test(chosen, sets, overlap=np.full(many, 0.5)) < 0.05).mean() < 0.065


def test_p_finds_a_planted_effect():
    effects = pruning.effects(_exchangeable(50, planted=8), "angry").isel(dose=slice(1, None))
    assert (effects["margin_p"].sel(group="forgotten") < 0.05).mean() > 0.9
    assert (effects["margin_p"].sel(group="kept") < 0.05).mean() < 0.1


def test_log_odds_are_those_of_the_probabilities(compared):
    logp = log_softmax(compared["logit"].isel(dose=1, who=0).values, axis=-1)
    own = np.array([list(compared["target"].values).index(label) for label in compared["label"].values])
    p = np.exp(logp[np.arange(20), own])
    np.testing.assert_allclose(pruning._log_odds(compared).isel(dose=1, who=0), np.log(p / (1 - p)))
    unknown = compared.assign_coords(label=("clip", ["boredom"] + list(compared["label"].values[1:])))
    assert np.isnan(pruning._log_odds(unknown)).sum() == np.isnan(pruning._log_odds(unknown)[0]).sum() == 8


def test_recalls_are_of_speakers(compared):
    """One speaker has three more angry clips, all right: the mean over speakers is not that over clips."""
    best = compared["target"].values[compared["logit"].isel(dose=0, who=0).argmax("target").values]
    right = (best == compared["label"].values)[compared["label"].values == "angry"]
    more = compared.isel(clip=[int(np.flatnonzero(compared["label"].values == "angry")[right][0])] * 3)
    compared = xr.concat([compared, more.assign_coords(clip=[20, 21, 22])], "clip", data_vars="minimal")
    found = pruning.recalls(compared).isel(dose=0, who=0)
    assert list(found["label"].values) == ["calm", "angry"] and found.sizes["speaker"] == 10
    assert float(found.sel(label="angry").mean()) == pytest.approx(right.mean())
    assert 0 < right.mean() < (right.sum() + 3) / 13
    figure = plots.class_recalls(pruning.recalls(compared), 0, forgotten="angry")
    assert figure.axes[0].patches[0].get_height() == pytest.approx(right.mean())


def test_under_eight_speakers_points_and_no_interval(compared):
    effects = pruning.effects(compared.isel(clip=slice(0, 8)), "angry")
    assert np.isnan(effects["margin_p"]).all() and np.isfinite(effects["across_p"]).all()
    shown = [line for line in plots.forgetting(effects).axes[1].lines if line.get_linestyle() == "None"]
    assert len(shown) == 2 * 4  # groups × speakers
    points = np.sort([line.get_ydata()[1] for line in shown[:4]])
    wanted = effects["log_odds"].sel(group="forgotten", dose=5, who="chosen")
    np.testing.assert_allclose(points, np.sort(wanted))


def test_bars_of_recall_stay_between_0_and_1(compared):
    effects = pruning.effects(compared, "angry")
    figure = plots.forgetting(effects)
    ends = np.concatenate([path.vertices[:, 1] for c in figure.axes[0].collections for path in c.get_paths()])
    assert len(ends) and ends.min() >= 0 and ends.max() <= 1
    assert not [line for ax in figure.axes for line in ax.lines if line.get_linestyle() == "None"]


def test_figures_and_explorer(compared):
    effects = pruning.effects(compared, "calm")
    assert len(plots.forgetting(effects).axes) == 3
    figure = plots.class_recalls(pruning.recalls(compared), 5, forgotten="calm")
    assert [tick.get_text() for tick in figure.axes[0].get_xticklabels()] == ["calm", "angry"]
    with pytest.raises(ValueError, match="the doses are"):
        plots.class_recalls(pruning.recalls(compared), 6, forgotten="calm")
    panel = widgets.PruningExplorer({"used": compared, "responds": compared}, "calm")
    panel.controls["neurons"].value = 0
    assert panel.error is None and "0 neurons" in panel.figure.axes[0].get_title()
