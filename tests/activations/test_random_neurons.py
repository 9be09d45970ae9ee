"""What selected neurons are compared with: random sets that are their equals, and choices blind to the target."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from xai_lib import ablation, activations, edits, hooks
from xai_lib.activations import random_neurons


def sizes_of(values, layers=(1,)):
    return xr.DataArray(
        np.broadcast_to(values, (len(layers), len(values))), {"layer": list(layers)}, ("layer", "neuron")
    )


@given(seed=st.integers(0, 99), k=st.integers(1, 40), n=st.integers(1, 6))
def test_random_sets_keep_size_class_counts(seed, k, n):
    """Random sets have as many neurons of each size class as the selected set, and depend on the seed alone."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.standard_normal(60))
    own = np.sort(rng.permutation(60)[:k])
    classes = random_neurons.size_classes(size, n)
    counts = np.bincount(classes)
    assert counts.max() - counts.min() <= 1 and len(counts) == n
    assert all(size[classes == i].max() <= size[classes == i + 1].min() for i in range(n - 1))
    random = random_neurons.random_sets(sizes_of(size), {1: own}, 8, seed=seed, classes=n)
    assert len(random) == 8
    for neuron_set in random:
        assert list(neuron_set) == [1]
        drawn = neuron_set[1]
        assert len(np.unique(drawn)) == k and (np.diff(drawn) > 0).all()
        assert (np.bincount(classes[drawn], minlength=n) == np.bincount(classes[own], minlength=n)).all()
    again = random_neurons.random_sets(sizes_of(size), {1: own}, 8, seed=seed, classes=n)
    assert all(np.array_equal(a[1], b[1]) for a, b in zip(random, again, strict=True))
    assert random_neurons.count_sets(classes, own) == np.prod(
        [special.comb(a, b) for a, b in zip(counts, np.bincount(classes[own], minlength=n))]
    )


def test_random_sets_draw_uniformly_within_class():
    """Every neuron of a size class is drawn equally often, the selected ones included."""
    sets = random_neurons.random_sets(sizes_of(np.arange(40.0)), {1: np.array([3, 25])}, 4000, seed=0, classes=2)
    drawn = np.concatenate([neuron_set[1] for neuron_set in sets])
    shares = np.bincount(drawn, minlength=40) / 4000
    assert shares == pytest.approx(np.full(40, 1 / 20), abs=0.015)  # 0.0034 is their standard deviation


def test_size_classes_number_grows_with_width():
    """The default number of size classes grows with the width of a layer, from 1 to 12."""
    assert [random_neurons.size_classes(np.arange(width)).max() + 1 for width in (5, 71, 72, 144, 768, 3072)] == [
        1,
        1,
        2,
        4,
        12,
        12,
    ]


def test_random_sets_preserve_shared_neurons():
    """Random sets of two selections share as many neurons as these do, and are nested if these are."""
    sizes, first, second = sizes_of(np.arange(48.0)), np.arange(10, 30), np.arange(20, 40)

    def drawn(neurons):
        return [neuron_set[1] for neuron_set in random_neurons.random_sets(sizes, {1: neurons}, 30, seed=5)]

    pairs = [*zip(drawn(first), drawn(second), strict=True)]
    assert len(pairs) == 30 and all(len(np.intersect1d(a, b)) == 10 for a, b in pairs)
    nested = zip(drawn(first[:3]), drawn(first), strict=True)
    assert all(set(few) <= set(many) for few, many in nested)


def test_random_sets_repeat_substitute_across_layers():
    """A neuron selected in two layers of a group has the same neuron in its place in both."""
    sizes = sizes_of(np.arange(48.0), layers=(1, 2))
    sets = random_neurons.random_sets(sizes, {1: np.array([4, 9]), 2: np.array([9, 40])}, 20, seed=1)
    assert len(sets) == 20
    for neuron_set in sets:
        assert list(neuron_set) == [1, 2]
        assert np.isin(neuron_set[1], neuron_set[2]).sum() == 1


def test_random_sets_need_no_sizes_for_none():
    """No random sets are drawn for n = 0, and no sizes are needed."""
    assert random_neurons.random_sets(None, {1: np.array([4, 9])}, 0) == []


def test_direction_sets_repeat_direction_across_layers():
    """A neuron selected in two layers of a group has the same direction of a basis in its place in both."""
    selected = {1: np.array([4, 9]), 2: np.array([9, 40])}
    sets = random_neurons.direction_sets(48, selected, 3, seed=1)
    bases = edits.directions(48, 3, 3, seed=[1, 1, 2])  # 4, 9 and 40, in layers 1 and 2
    assert random_neurons.direction_sets(48, selected, 0) == []
    for neuron_set, basis in zip(sets, bases, strict=True):
        np.testing.assert_array_equal(neuron_set[1], basis[:, [0, 1]])
        np.testing.assert_array_equal(neuron_set[2], basis[:, [1, 2]])
        same = (neuron_set[1][..., None] == neuron_set[2][:, None]).all(axis=0)
        assert same.tolist() == [[False, False], [True, False]]


def test_overlap_is_mean_share_in_common():
    """Overlap is the mean share of neurons that two sets have in common, and 0 of fewer than two sets."""
    assert random_neurons.overlap([[1, 2, 3, 4], [3, 4, 5, 6], [1, 2, 3, 4]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert random_neurons.overlap([[1, 2]]) == random_neurons.overlap([]) == 0
    layers = [[("a", 1), ("b", 1)], [("a", 1), ("b", 2)]]  # a number is another neuron in another layer
    assert random_neurons.overlap(layers) == 0.5


def test_mean_overlap_averages_over_layers():
    """The overlap of random sets of a group is the mean over its layers, and 0 without sets."""
    sets = [
        {1: np.arange(4), 2: np.arange(4)},
        {1: np.arange(4, 8), 2: np.arange(4)},
        {1: np.arange(8, 12), 2: np.arange(2, 6)},
    ]
    assert random_neurons.mean_overlap(sets) == pytest.approx((0 + (1 + 0.5 + 0.5) / 3) / 2)
    assert random_neurons.mean_overlap([]) == 0


def test_rms_of_is_root_mean_square():
    """The size of a set is the root mean square of its neurons' sizes, averaged over layers; NaN of directions."""
    sizes = sizes_of([3.0, 4.0, 0.0], layers=(1, 2))
    assert random_neurons.rms_of(sizes, {1: np.array([0, 1])}) == pytest.approx(np.sqrt(12.5))
    assert random_neurons.rms_of(sizes, {1: np.array([2])}) == 0
    assert random_neurons.rms_of(sizes, {1: np.array([0, 1]), 2: np.array([0])}) == pytest.approx(
        (np.sqrt(12.5) + 3) / 2
    )
    assert np.isnan(random_neurons.rms_of(sizes, {1: np.eye(3)[:, :2]}))


def test_target_blind_selects_most_active_and_writing(tiny, clips):
    """Target-blind selections have the greatest root mean square of a block's output, or of its change."""
    model, some = tiny(), clips.iloc[:2]
    activation_stats, kept = activations.activation_stats(model, some), []
    for _, waveform in model.stream(some, {}):
        with hooks.capture(model, model.sites()) as seen:
            model.logits(model.tensor(waveform))
        kept.append(np.stack([seen[site][0].numpy() for site in model.sites()]))
    hidden = np.concatenate(kept, axis=1).astype(float)  # [layer, frame, neuron]
    changed = np.diff(hidden, axis=0, prepend=0)
    written = np.sqrt((changed**2).mean(1))
    assert activation_stats["written"].values == pytest.approx(written, rel=1e-4)
    found = random_neurons.target_blind(activation_stats, 4)
    for name, size in {"most active": np.sqrt((hidden**2).mean(1)), "writes most": written}.items():
        for layer, own in found[name].items():
            assert set(own) == set(np.argsort(-size[layer])[:4])


@pytest.mark.parametrize("part", ["ffn_hidden", "heads", "attention"])
def test_activation_stats_written_uses_outgoing_weights(tiny, clips, part):
    """What a neuron inside a block writes is its size times the norm of its outgoing weights."""
    model, width = tiny(), 5
    activation_stats = activations.activation_stats(model, clips.iloc[:1], part=part)
    layer = model.architecture.layers[1]
    weight = {"ffn_hidden": layer.feed_forward.output_dense.weight, "heads": layer.attention.out_proj.weight}.get(part)
    norm = 1 if weight is None else weight.detach().norm(dim=0).numpy()
    size = random_neurons.rms(activation_stats).sel(layer=2).values
    assert activation_stats["written"].sel(layer=2).values == pytest.approx(size * norm, rel=1e-4)
    found = random_neurons.target_blind(activation_stats, width)
    assert list(found) == (["most active"] if part == "attention" else ["most active", "writes most"])


def test_sweep_includes_target_blind_selections(tiny, clips):
    """A sweep with random sets has target-blind selections, equal to sweeps of these, unless `target_blind=False`."""
    model, some = tiny(), clips
    stats = ablation.activation_stats(model, clips.iloc[:1])
    neurons = {1: [0, 3, 5], 3: [2, 4]}
    options = {"edit": ablation.Edit(("flip", "zero")), "target": "sad"}

    def swept(neurons, controls):
        return ablation.sweep(model, some, ablation.Selection(neurons), controls=controls, **options)

    found = swept(neurons, ablation.RandomControls(stats, n=2, n_directions=1))
    names = ["selected", "random 1", "random 2", "direction 1", "most active", "writes most"]
    assert found["neuron_set"].values.tolist() == names
    assert found["kind"].values.tolist() == [
        "selected",
        "random",
        "random",
        "direction",
        "target-blind",
        "target-blind",
    ]
    for name, by_layer in random_neurons.target_blind(stats, 3).items():
        own = {layer: by_layer[layer][: len(neurons[layer])] for layer in neurons}
        alone = swept(own, None)
        for variable in ("target_change", "kl", "relative_change"):
            expected = ablation.selected_values(alone[variable]).values
            got = found[variable].sel(neuron_set=name).values
            assert got == pytest.approx(expected, abs=1e-5, nan_ok=True)
    plain = swept(neurons, ablation.RandomControls(stats, n=2, target_blind=False))
    assert plain["neuron_set"].values.tolist() == names[:3]
    random = ablation.control_values(found["target_change"], "random").values
    assert random == pytest.approx(ablation.control_values(plain["target_change"], "random").values, abs=1e-5)


def test_sweep_takes_other_statistics_for_target_blind(tiny, clips):
    """Target-blind selections are those of `target_blind_stats`, and random sets those of `activation_stats`."""
    model = tiny()
    stats = ablation.activation_stats(model, clips.iloc[:1])
    reversed_stats = stats.assign({name: stats[name][:, ::-1].variable for name in ("mean", "std", "written")})
    selection = ablation.Selection({1: [0, 3, 5]})
    sets = []
    for other in (None, reversed_stats):
        controls = ablation.RandomControls(stats, n=2, target_blind_stats=other)
        sets.append({one.name: one.neurons[1].tolist() for one in controls.neuron_sets(model, selection, 1, 0)})
    plain, found = sets
    assert all(plain[name] == found[name] for name in ("random 1", "random 2"))
    for name, by_layer in random_neurons.target_blind(reversed_stats, 3).items():
        assert found[name] == sorted(by_layer[1]) != plain[name]
