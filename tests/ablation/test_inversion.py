from __future__ import annotations

import numpy as np
import pytest
import torch
import xarray as xr
from matplotlib.figure import Figure

from xai_lib import ablation, activations, attribution, audio, edits, execution, hooks, models
from xai_lib.ablation import inversion
from xai_lib.activations import random_neurons
from xai_lib.plots.upstream import upstream as figure_of

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(1, 4)}


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
    found = inversion.upstream(model, clips, neurons=NEURONS, layers=[1, 3], n_random=0)
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
    found = inversion.upstream(model, clips, neurons=NEURONS, n_random=2, activation_stats=activation_stats, seed=3)
    assert found["distance"].dims == ("clip", "layer", "mode") and found["random_distance"].sizes["random"] == 2
    for clip, path in clips["path"].items():
        with torch.no_grad(), hooks.capture(model, model.sites()) as seen:
            model.logits(model.tensor(audio.read(path)))
        for at, own in NEURONS.items():
            y = seen[hooks.Site(at)]
            sizes = np.hypot(activation_stats["mean"], activation_stats["std"])
            sets = [
                one
                for (one,) in random_neurons.matched_sets(
                    24, sizes, {at: np.array(own)}, n_random=2, directions=0, seed=3
                )[1:]
            ]
            for mode in ("flip", "zero"):
                row = found.sel(clip=clip, layer=at, mode=mode)
                expected = [(size(edits.edit(some, mode)(y) - y) / size(y)).item() for some in (own, *sets)]
                assert [row["edit"].item(), *row["random_edit"].values] == pytest.approx(expected, rel=1e-5)
                grown = (size(y) / size(seen[hooks.Site(at - 1)])).item()
                for random in ("", "random_"):  # ‖x′ − x‖ over ‖y′ − y‖, and not each over its own norm
                    gain = row[f"{random}distance"] / row[f"{random}edit"] / grown
                    assert row[f"{random}gain"].values == pytest.approx(gain.values, rel=1e-4)
    for random in ("", "random_"):
        over = found[f"{random}residual"] - found[f"{random}floor"]
        assert over.min() > -1e-4 and over.max() < 2e-3  # the nearest output there is was found
        assert (found[f"{random}reached"] == (found[f"{random}residual"] <= 0.01)).all()
        if model.architecture.stable:
            assert (found[f"{random}floor"] == 0).all() and found[f"{random}reached"].all()
        else:
            assert (found[f"{random}floor"] > 0.05).all() and not found[f"{random}reached"].any()
    assert (found["distance"].sel(mode="flip") > found["distance"].sel(mode="zero")).all()
    assert ablation.summary(found, "distance")["p_random"].dims == ("layer", "mode")


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
    found = inversion.upstream(model, clips, neurons=NEURONS, frames=[], n_random=0)
    for name in ("edit", "distance", "residual", "floor"):
        assert (found[name] == 0).all(), name
    assert found["gain"].isnull().all() and found["reached"].all() and found["random_distance"].sizes["random"] == 0


def test_upstream_is_independent_of_batch(model, clips, activation_stats):
    """Edits that share a batch give the results of one at a time, and of one layer and clip alone."""
    options = {
        "neurons": NEURONS,
        "n_random": 2,
        "activation_stats": activation_stats,
        "modes": ("flip", "mean", "noise"),
    }
    together, alone = (inversion.upstream(model, clips, **options, batch=batch) for batch in (16, 1))
    xr.testing.assert_allclose(together, alone, rtol=2e-3, atol=2e-4)
    one = inversion.upstream(model, clips.iloc[1:], **options | {"n_random": 0}, layers=[2])
    xr.testing.assert_allclose(one["distance"][0, 0], together["distance"].sel(clip=9, layer=2), rtol=2e-3)


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
    found = inversion.upstream(model, clips, neurons=NEURONS, n_random=0, steps=30)
    assert (found["floor"] > 0.001).all() and (found["residual"] - found["floor"]).max() < 2e-3


def test_upstream_selects_by_scores_saves_and_draws(tiny, clips, tmp_path):
    """Scores select the top `k` neurons, and the result is saved, read again and drawn as bars of distances."""
    model, activation_stats = tiny(), activations.activation_stats(tiny(), clips)
    scores = attribution.grad_x_activation(model, clips, target="angry")
    found = inversion.upstream(
        model, clips, neurons=scores, k=2, n_random=3, activation_stats=activation_stats, frames="speech"
    )
    top = attribution.top_neurons(scores, 2, layer=2)["neuron"]
    given = inversion.upstream(model, clips, neurons={2: top.tolist()}, n_random=0, frames="speech")
    assert found["layer"].values.tolist() == [1, 2, 3]
    assert found["edit"].sel(layer=[2]).values == pytest.approx(given["edit"].values)
    assert (found["edit"] < inversion.upstream(model, clips, neurons=scores, k=2, n_random=0)["edit"]).all()
    found.to_netcdf(tmp_path / "found.nc", engine="h5netcdf")
    again = xr.load_dataset(tmp_path / "found.nc", engine="h5netcdf")
    xr.testing.assert_identical(again.drop_vars(["label", "speaker"]), found.drop_vars(["label", "speaker"]))
    figure = figure_of(again)
    assert isinstance(figure, Figure)
    bars = [bar for bars in figure.axes[0].containers if hasattr(bars, "patches") for bar in bars.patches]
    heights = found["distance"].mean("clip").transpose("mode", "layer").values.ravel()
    assert [bar.get_height() for bar in bars] == pytest.approx(heights.tolist(), rel=1e-5)
    assert all(bar.get_hatch() for bar in bars)  # a base model's flips and zeros are not reached


def test_upstream_names_clips_without_frames(tiny, clips):
    """Clips that lack a requested frame are skipped and named."""
    found = inversion.upstream(tiny(), clips, neurons={2: [1]}, frames=[2, 27], n_random=0)
    assert found["clip"].values.tolist() == [9] and "frame 27 out of range" in found.attrs["skipped"]


def test_upstream_accepts_untrained_head(tiny_folder, clips):
    """A model whose head is untrained can be inverted."""
    model = models.load(tiny_folder())
    model.trained = None
    assert np.isfinite(inversion.upstream(model, clips, neurons=NEURONS, n_random=0)["distance"]).all()


@pytest.mark.parametrize(
    "options, message",
    [
        ({"neurons": {0: [1], 2: [1]}, "layers": [0, 2]}, "no layer comes before layer 0.*choose from layers 1–3"),
        ({"neurons": {0: [1]}}, "no neurons are given for any layer from 1 up"),
        ({"neurons": {2: [1]}, "layers": [1]}, "no neurons are given for layer 1"),
        ({"neurons": {2: [1]}, "layers": [7]}, "layer 7 out of range: this model has 0–3"),
        ({"neurons": {2: [24]}}, "neuron 24 out of range"),
        ({"neurons": {2: [1]}, "modes": ("twist",)}, "unknown mode 'twist'"),
        ({"neurons": {2: [1]}, "frames": "loud"}, "unknown frames 'loud'"),
        ({"neurons": {2: [1]}, "n_random": 2}, "needs activation_stats="),
        ({"neurons": {2: [1]}, "modes": ("mean",)}, "needs activation_stats="),
        ({"neurons": {2: [1]}, "steps": 0}, "steps must be 1 or more"),
    ],
)
def test_upstream_refuses_invalid_options(tiny, clips, options, message):
    """Layer 0, unknown layers, neurons, modes or frames, missing statistics and 0 steps are refused."""
    with pytest.raises(ValueError, match=message):
        inversion.upstream(tiny(), clips, **{"n_random": 0, **options})


def test_upstream_refuses_unfit_scores(tiny, clips):
    """Scores of another part, and a `k` above the number of neurons, are refused."""
    for part, k, message in (
        ("ffn_hidden", 2, "the scores are of ffn_hidden"),
        ("hidden_state", 25, "k is 25, and there are 24"),
    ):
        scores = attribution.grad_x_activation(tiny(), clips, target="angry", part=part)
        with pytest.raises(ValueError, match=message):
            inversion.upstream(tiny(), clips, neurons=scores, k=k, n_random=0)


def test_upstream_holds_at_most_batch_edits(tiny, clips, monkeypatch):
    """No more than `batch` edits are held at once with 50 random sets, and all of them are computed."""
    model, rows, run = tiny(), [], inversion._run
    activation_stats = activations.activation_stats(model, clips)
    monkeypatch.setattr(inversion, "_run", lambda *args: rows.append(len(args[-1])) or run(*args))
    found = inversion.upstream(
        model, clips[:1], neurons={2: [1, 5]}, activation_stats=activation_stats, n_random=50, batch=8, steps=2
    )
    assert found["random_gain"].sizes["random"] == 50 and found["random_gain"].notnull().all()
    assert max(rows) == 8 and sum(rows) == 2 * 51  # edits held at once, and all of them


def test_upstream_reports_random_overlap(tiny, clips):
    """The result's `random_overlap` is the mean overlap of the random sets that were drawn."""
    model = tiny()
    known, own = activations.activation_stats(model, clips), [1, 5, 9, 12]
    found = inversion.upstream(
        model, clips[:1], neurons={2: own}, activation_stats=known, n_random=4, modes=("flip",), seed=3
    )
    sizes = np.hypot(known["mean"], known["std"])
    drawn = [
        one
        for (one,) in random_neurons.matched_sets(24, sizes, {2: np.array(own)}, n_random=4, directions=0, seed=3)[1:]
    ]
    assert (
        found["random_overlap"].item() == pytest.approx(random_neurons.overlap(drawn)) and found["random_overlap"] > 0
    )
