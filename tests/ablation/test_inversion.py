from __future__ import annotations

import warnings

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from xai_lib import ablation, activations, attribution, audio, edits, execution, hooks, models, plots
from xai_lib.ablation import inversion
from xai_lib.activations import random_neurons

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(1, 4)}
SELECTION = ablation.Selection(NEURONS)


def random_sets(activation_stats, n):
    """Controls of nothing but random sets."""
    return ablation.RandomControls(activation_stats, n=n, target_blind=False)


@pytest.fixture
def activation_stats(model, clips):
    return activations.activation_stats(model, clips)


def layer(model, state, x):
    return model.architecture.step(state.repeat_rows(len(x))._replace(hidden=x)).hidden


def size(x):
    return x.flatten(1).norm(dim=1)


@torch.no_grad()
@pytest.mark.parametrize("at", [1, 3])
def test_upstream_reaches_attainable_outputs(model, wave, at):
    """An output that some input gives is reached, by an input about as near as that one or nearer."""
    state = execution.prefix(model, model.tensor(wave), at - 1)
    x, y = state.hidden, model.architecture.step(state).hidden
    other = x + 0.3 * x.std() * torch.randn_like(x)
    made = layer(model, state, other)
    edit, distance, gain, residual, floor = inversion._run(model, state, y, [lambda _: made], 40, range(1))[0].tolist()
    assert edit > 0.05 and floor < 1e-4 and residual < 1e-3 + floor
    assert distance <= 1.05 * (size(other - x) / size(x)).item()
    if model.architecture.stable:  # there only one input gives it
        assert distance == pytest.approx((size(other - x) / size(x)).item(), rel=0.01)
        assert gain == pytest.approx((size(other - x) / size(made - y)).item(), rel=0.01)


def still(model, offset):
    """Let layers give their input plus `offset`, whose norm is far greater."""
    for block in model.architecture.layers:
        for linear in (block.attention.out_proj, block.feed_forward.output_dense):
            torch.nn.init.zeros_(linear.weight)
            torch.nn.init.constant_(linear.bias, offset / 2)


def test_upstream_gain_is_one_for_additive_layers(tiny_folder, clips):
    """In a layer that only adds a constant the gain is 1, whatever the norms of input and output."""
    model = models.load(tiny_folder("large"))
    still(model, 50)
    selection = ablation.Selection({layer: NEURONS[layer] for layer in (1, 3)})
    found = inversion.upstream(model, clips, selection, controls=None)
    assert found["gain"].values == pytest.approx(1, rel=1e-3)
    grown = (found["distance"] / found["edit"]).mean(["clip", "mode"])  # ‖y‖ / ‖x‖
    assert grown.sel(layer=1) > 10 and grown.sel(layer=3) == pytest.approx(1.5, rel=0.1)


@torch.no_grad()
@pytest.mark.parametrize("times", [0.5, 3])
def test_upstream_gain_is_inverse_of_scaling(tiny, wave, monkeypatch, times):
    """In a layer that multiplies by a factor, the gain is its inverse and the relative distance is the edit."""
    model = tiny("large")
    state = execution.prefix(model, model.tensor(wave), 1)
    monkeypatch.setattr(model.architecture, "step", lambda state: state._replace(hidden=times * state.hidden))
    plan = [edits.edit([1, 6, 17], mode) for mode in ("flip", "zero")]
    found = inversion._run(model, state, times * state.hidden, plan, 40, range(2))
    assert found[:, 2].tolist() == pytest.approx([1 / times] * 2, rel=1e-3)
    assert found[:, 1].tolist() == pytest.approx(found[:, 0].tolist(), rel=1e-3)  # relative to their norms


def test_upstream_equals_hooked_edits_and_null(model, clips, activation_stats):
    """Sizes are those of hooked edits and random sets, gains use absolute norms, and residuals reach the floor."""
    found = inversion.upstream(model, clips, SELECTION, controls=random_sets(activation_stats, 2), seed=3)
    assert found["distance"].dims == ("clip", "layer", "mode", "neuron_set")
    assert found["neuron_set"].values.tolist() == ["selected", "random 1", "random 2"]
    for clip, path in clips["path"].items():
        with torch.no_grad(), hooks.capture(model, model.sites()) as seen:
            model.logits(model.tensor(audio.read(path)))
        for at, own in NEURONS.items():
            y = seen[hooks.Site(at)]
            sizes = np.hypot(activation_stats["mean"], activation_stats["std"])
            drawn = random_neurons.random_sets(sizes, {at: np.array(own)}, 2, seed=3)
            sets = [neuron_set[at] for neuron_set in drawn]
            for mode in ("flip", "zero"):
                row = found.sel(clip=clip, layer=at, mode=mode)
                expected = [(size(edits.edit(some, mode)(y) - y) / size(y)).item() for some in (own, *sets)]
                assert row["edit"].values == pytest.approx(expected, rel=1e-5)
                grown = (size(y) / size(seen[hooks.Site(at - 1)])).item()
                gain = row["distance"] / row["edit"] / grown  # ‖x′ − x‖ over ‖y′ − y‖, and not each over its own norm
                assert row["gain"].values == pytest.approx(gain.values, rel=1e-4)
    over = found["residual"] - found["floor"]
    assert over.min() > -1e-4 and over.max() < 2e-3  # the nearest output there is was found
    assert (found["reached"] == (found["residual"] <= 0.01)).all()
    if model.architecture.stable:
        assert (found["floor"] == 0).all() and (found["reached"] == 1).all()
    else:
        assert (found["floor"] > 0.05).all() and not found["reached"].any()
    distance = ablation.selected_values(found["distance"])
    assert (distance.sel(mode="flip") > distance.sel(mode="zero")).all()
    assert ablation.effect_over_speakers(found, "distance")["p_random"].dims == ("layer", "mode")


@torch.no_grad()
def test_nearest_normed_is_optimal():
    """The closed form is attainable, and none of 400,000 random outputs of a layer norm is nearer."""
    norm = torch.nn.LayerNorm(5).double()
    norm.weight.copy_(torch.tensor([1.0, 0.5, -0.3, 2.0, 0.8]))
    norm.bias.copy_(torch.tensor([0.1, -0.2, 0.0, 0.5, 0.3]))
    values = torch.randn(6, 5).double() * torch.tensor([0.1, 0.3, 1, 1, 3, 10])[:, None]
    values = torch.cat([values, norm.bias[None]])  # nothing pulls to any side here
    nearest = inversion.nearest_normed(values, norm.weight, norm.bias)
    assert torch.allclose(norm(100 * (nearest - norm.bias) / norm.weight), nearest, atol=1e-6)  # it can be given
    tried = norm(torch.randn(400_000, 5).double())
    best = torch.cdist(values, tried).min(dim=1).values
    ours = (nearest - values).norm(dim=1)
    assert (ours <= best + 1e-6).all() and ours.numpy() == pytest.approx(best.numpy(), abs=0.1)
    assert torch.allclose(inversion.nearest_normed(tried[:9], norm.weight, norm.bias), tried[:9], atol=1e-4)


def test_nearest_normed_standardises_for_plain_norm():
    """For a layer norm of weight 1 and bias 0, the nearest output is the standardised input."""
    values = torch.randn(4, 7).double()
    nearest = inversion.nearest_normed(values, torch.ones(7), torch.zeros(7))
    centred = values - values.mean(1, keepdim=True)
    assert torch.allclose(nearest, centred / values.std(1, correction=0, keepdim=True), atol=1e-6)


def test_upstream_is_zero_for_edits_of_no_frames(model, clips):
    """An edit of no frames has distance, residual and floor 0 and no gain, and counts as reached."""
    no_frames = ablation.Edit(("flip", "zero"), frames=[])
    found = inversion.upstream(model, clips, SELECTION, edit=no_frames, controls=None)
    for name in ("edit", "distance", "residual", "floor"):
        assert (found[name] == 0).all(), name
    assert found["gain"].isnull().all() and (found["reached"] == 1).all()
    assert found["neuron_set"].values.tolist() == ["selected"]


def test_upstream_is_independent_of_batch(model, clips, activation_stats):
    """Edits that share a batch give the results of one at a time, and of one layer and clip alone."""
    edit = ablation.Edit(("flip", "mean", "noise"), activation_stats=activation_stats)
    options = {"edit": edit, "controls": random_sets(activation_stats, 2)}
    together = inversion.upstream(model, clips, SELECTION, **options, batch=16)
    alone = inversion.upstream(model, clips, SELECTION, **options, batch=1)
    xr.testing.assert_allclose(together, alone, rtol=2e-3, atol=2e-4)
    one = inversion.upstream(model, clips.iloc[1:], ablation.Selection({2: NEURONS[2]}), edit=edit, controls=None)
    of_both = together["distance"].sel(clip=9, layer=2, neuron_set=["selected"])
    xr.testing.assert_allclose(one["distance"][0, 0], of_both, rtol=2e-3)


@torch.no_grad()
def test_upstream_descent_agrees_with_search(tiny, wave):
    """The descent alone reaches the edit, at the distance of the converged fixed-point search."""
    model = tiny("large")
    state = execution.prefix(model, model.tensor(wave), 1)
    y = model.architecture.step(state).hidden
    plan = [edits.edit([1, 6, 17])]
    short = inversion._run(model, state, y, plan, 1, range(1))[0].tolist()
    long = inversion._run(model, state, y, plan, 40, range(1))[0].tolist()
    assert long[3] < 1e-3 < short[3] < 1  # one step of the search, then one of the descent
    made = edits.edit([1, 6, 17])(y)
    found = inversion._descend(lambda x: layer(model, state, x), state.hidden[0][None], made, (made - y).norm(), 100)
    assert (size(layer(model, state, found) - made) / size(made - y)).item() < 0.01
    assert (size(found - state.hidden) / size(state.hidden)).item() == pytest.approx(long[1], rel=0.02)


@torch.no_grad()
def test_upstream_descends_where_search_does_not_converge(tiny, wave, monkeypatch):
    """The descent starts from the search's input where one step leaves a residual, is reported, and is else not run."""
    model, descend, calls = tiny("large"), inversion._descend, []
    state = execution.prefix(model, model.tensor(wave), 1)
    y = model.architecture.step(state).hidden
    plan = [edits.edit([1, 6, 17]), edits.edit([2], frames=[])]  # the second is none, and has nothing to reach
    monkeypatch.setattr(inversion, "_descend", lambda step, start, *rest: calls.append(start) or start)
    alone = inversion._run(model, state, y, plan, 1, range(2))
    assert len(calls) == 1  # the first row
    residual = size(layer(model, state, calls[0]) - plan[0](y)) / size(plan[0](y) - y)
    assert alone[:, 3].tolist() == pytest.approx([residual.item(), 0]) and residual > 0.1
    monkeypatch.setattr(inversion, "_descend", lambda *args: calls.append(descend(*args)) or calls[-1])
    found = inversion._run(model, state, y, plan, 1, range(2))
    residual = size(layer(model, state, calls[1]) - plan[0](y)) / size(plan[0](y) - y)
    assert found[:, 3].tolist() == pytest.approx([residual.item(), 0]) and found[0, 3] < alone[0, 3]
    moved = size(calls[1] - state.hidden) / size(state.hidden)
    assert found[:, 1].tolist() == pytest.approx([moved.item(), 0])
    inversion._run(model, state, y, plan, 40, range(2))
    assert len(calls) == 2  # where the search converges, nothing is left to the descent


def test_upstream_converges_without_descent(tiny_folder, clips, monkeypatch):
    """With random weights of the layer norms, 30 steps reach the floor without the descent."""
    model = models.load(tiny_folder())
    for block in model.architecture.layers:
        for norm in (block.layer_norm, block.final_layer_norm):
            norm.weight.uniform_(0.1, 2)
    monkeypatch.delattr(inversion, "_descend")  # not called
    found = inversion.upstream(model, clips, SELECTION, controls=None, steps=30)
    assert (found["floor"] > 0.001).all() and (found["residual"] - found["floor"]).max() < 2e-3


def test_upstream_selects_by_scores_saves_and_draws(tiny, clips, tmp_path):
    """Scores select the top `k` neurons, and the result is saved, read again and drawn as bars of distances."""
    model, activation_stats = tiny(), activations.activation_stats(tiny(), clips)
    scores = attribution.grad_x_activation(model, clips, target="angry")
    selection = ablation.select(scores, 2, layers=[1, 2, 3])
    speech = ablation.Edit(("flip", "zero"), frames="speech")
    found = inversion.upstream(model, clips, selection, edit=speech, controls=random_sets(activation_stats, 3))
    top = attribution.top_neurons(scores, 2, layer=2)["neuron"]
    by_hand = inversion.upstream(model, clips, ablation.Selection({2: top.tolist()}), edit=speech, controls=None)
    assert found["layer"].values.tolist() == [1, 2, 3]
    edit = ablation.selected_values(found["edit"])
    assert edit.sel(layer=[2]).values == pytest.approx(by_hand["edit"].squeeze("neuron_set").values)
    all_frames = inversion.upstream(model, clips, selection, controls=None)
    assert (edit < ablation.selected_values(all_frames["edit"])).all()
    found.to_netcdf(tmp_path / "found.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "found.nc", engine="h5netcdf")
    xr.testing.assert_identical(again.drop_vars(["label", "speaker"]), found.drop_vars(["label", "speaker"]))
    figure = plots.upstream(again)
    assert isinstance(figure, Figure)
    bars = [bar for bars in figure.axes[0].containers if hasattr(bars, "patches") for bar in bars.patches]
    heights = ablation.selected_values(found["distance"]).mean("clip").transpose("mode", "layer").values.ravel()
    assert [bar.get_height() for bar in bars] == pytest.approx(heights.tolist(), rel=1e-5)
    assert all(bar.get_hatch() for bar in bars)  # a base model's flips and zeros are not reached


def test_upstream_names_clips_without_frames(tiny, clips):
    """Clips that lack a requested frame are skipped and named."""
    frames = ablation.Edit(frames=[2, 27])
    found = inversion.upstream(tiny(), clips, ablation.Selection({2: [1]}), edit=frames, controls=None)
    assert found["clip"].values.tolist() == [9] and "frame 27 out of range" in found.attrs["skipped"]


def test_upstream_accepts_untrained_head(tiny_folder, clips):
    """A model whose head is untrained can be inverted."""
    model = models.load(tiny_folder())
    model.trained = None
    assert np.isfinite(inversion.upstream(model, clips, SELECTION, controls=None)["distance"]).all()


@pytest.mark.parametrize(
    "neurons, options, message",
    [
        ({0: [1], 2: [1]}, {}, "no layer comes before layer 0.*choose from layers 1–3"),
        ({7: [1]}, {}, "layer 7 out of range: this model has 0–3"),
        ({2: [24]}, {}, "neuron 24 out of range"),
        ({2: [1]}, {"controls": ablation.RandomControls(n=2)}, "needs activation_stats="),
        ({2: [1]}, {"edit": ablation.Edit("mean")}, "needs activation_stats="),
        ({2: [1]}, {"steps": 0}, "steps must be a whole number from 1 up, not 0"),
    ],
)
def test_upstream_refuses_invalid_options(tiny, clips, neurons, options, message):
    """Layer 0, unknown layers and neurons, missing statistics and 0 steps are refused."""
    with pytest.raises(ValueError, match=message):
        inversion.upstream(tiny(), clips, ablation.Selection(neurons), **{"controls": None, **options})


def test_upstream_refuses_other_selections(tiny, clips):
    """Neurons of another part, groups of layers, and neurons that are no selection are refused."""
    for selection, message in (
        (ablation.Selection({2: [1]}, "ffn_hidden"), "the hidden state of one layer"),
        (ablation.Selection({1: [1], 2: [1]}).together({"both": [1, 2]}), "the hidden state of one layer"),
        ({2: [1]}, "selection must be a Selection"),
    ):
        with pytest.raises(ValueError, match=message):
            inversion.upstream(tiny(), clips, selection, controls=None)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"edit": "flip"}, "edit must be an Edit"),
        ({"controls": 40}, "controls must be ablation.RandomControls"),
        ({"model": None}, "model must be an opened model"),
    ],
)
def test_upstream_refuses_arguments_of_other_types(tiny, clips, options, message):
    """What is no model, edit or set of controls is refused, in words that say what makes one."""
    arguments = {"model": tiny(), "clips": clips, "selection": ablation.Selection({2: [1]}), "controls": None}
    with pytest.raises(ValueError, match=message):
        inversion.upstream(**{**arguments, **options})


def test_upstream_warns_of_speaker_leakage(tiny, clips):
    """Clips of a speaker on whom neurons were selected are inverted with a warning, those of others without."""
    speaker = clips["speaker"].iloc[0]
    leaky = ablation.Selection({2: [1]}, speakers=speaker)
    with pytest.warns(UserWarning, match=f"speaker leakage: .*{speaker}"):
        inversion.upstream(tiny(), clips[:1], leaky, controls=None, steps=1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inversion.upstream(tiny(), clips[:1], ablation.Selection({2: [1]}, speakers="nobody"), controls=None, steps=1)


def test_upstream_limits_controls_to_their_modes(tiny, clips):
    """Where controls are not edited, everything is missing, also whether the edit was reached."""
    model = tiny()
    controls = ablation.RandomControls(
        activations.activation_stats(model, clips), n=2, target_blind=False, modes="flip"
    )
    found = inversion.upstream(
        model, clips[:1], ablation.Selection({2: [1, 5]}), controls=controls, edit=ablation.Edit(("flip", "zero"))
    )
    for name in ("edit", "residual", "reached"):
        random = ablation.control_values(found[name], "random")
        assert random.sel(mode="flip").notnull().all() and random.sel(mode="zero").isnull().all()
        assert ablation.selected_values(found[name]).notnull().all()
    assert set(np.unique(found["reached"].sel(mode="flip"))) <= {0.0, 1.0}


def test_upstream_holds_at_most_batch_edits(tiny, clips, monkeypatch):
    """No more than `batch` edits are held at once with 50 random sets, and all of them are computed."""
    model, rows, run = tiny(), [], inversion._run
    activation_stats = activations.activation_stats(model, clips)
    monkeypatch.setattr(inversion, "_run", lambda *args: rows.append(len(args[-1])) or run(*args))
    controls = random_sets(activation_stats, 50)
    found = inversion.upstream(model, clips[:1], ablation.Selection({2: [1, 5]}), controls=controls, batch=8, steps=2)
    random_gain = ablation.control_values(found["gain"], "random")
    assert random_gain.sizes["random"] == 50 and random_gain.notnull().all()
    assert max(rows) == 8 and sum(rows) == 2 * 51  # edits held at once, and all of them


def test_upstream_reports_random_overlap(tiny, clips):
    """The result's `random_overlap` is the mean overlap of the random sets that were drawn."""
    model = tiny()
    known, own = activations.activation_stats(model, clips), [1, 5, 9, 12]
    selection = ablation.Selection({2: own})
    found = inversion.upstream(
        model, clips[:1], selection, edit=ablation.Edit("flip"), controls=random_sets(known, 4), seed=3
    )
    sizes = np.hypot(known["mean"], known["std"])
    drawn = random_neurons.random_sets(sizes, {2: np.array(own)}, 4, seed=3)
    expected = random_neurons.overlap([neuron_set[2] for neuron_set in drawn])
    assert found["random_overlap"].item() == pytest.approx(expected) and found["random_overlap"] > 0
