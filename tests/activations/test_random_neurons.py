"""What selected neurons are compared with: random sets that are their equals, and choices blind to the target."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from scipy import special

from xai_lib import ablation, activations, hooks
from xai_lib.activations import random_neurons


def sizes_of(values, layers=(1,)):
    return xr.DataArray(
        np.broadcast_to(values, (len(layers), len(values))), {"layer": list(layers)}, ("layer", "neuron")
    )


@given(seed=st.integers(0, 99), k=st.integers(1, 40), n=st.integers(1, 6))
def test_matched_sets_keep_size_class_counts(seed, k, n):
    """Random sets have as many neurons of each size class as the selected set, and depend on the seed alone."""
    rng = np.random.default_rng(seed)
    size = np.exp(rng.standard_normal(60))
    own = np.sort(rng.permutation(60)[:k])
    classes = random_neurons.size_classes(size, n)
    counts = np.bincount(classes)
    assert counts.max() - counts.min() <= 1 and len(counts) == n
    assert all(size[classes == i].max() <= size[classes == i + 1].min() for i in range(n - 1))
    selected, *random = random_neurons.matched_sets(
        60, sizes_of(size), {1: own}, n_random=8, directions=0, seed=seed, classes=n
    )
    assert selected[0] is own and len(random) == 8
    for (drawn,) in random:
        assert len(np.unique(drawn)) == k
        assert (np.bincount(classes[drawn], minlength=n) == np.bincount(classes[own], minlength=n)).all()
    again = random_neurons.matched_sets(60, sizes_of(size), {1: own}, n_random=8, directions=0, seed=seed, classes=n)
    assert all(np.array_equal(a[0], b[0]) for a, b in zip(random, again[1:]))
    assert random_neurons.count_sets(classes, own) == np.prod(
        [special.comb(a, b) for a, b in zip(counts, np.bincount(classes[own], minlength=n))]
    )


def test_matched_sets_draw_uniformly_within_class():
    """Every neuron of a size class is drawn equally often, the selected ones included."""
    drawn = np.concatenate([one for (one,) in random_neurons.matched_sets(
        40, sizes_of(np.arange(40.0)), {1: np.array([3, 25])}, n_random=4000, directions=0, seed=0, classes=2)[1:]])  # fmt: skip
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


def test_matched_sets_preserve_shared_neurons():
    """Random sets of two selections share as many neurons as these do, and are nested if these are."""
    sizes, first, second = sizes_of(np.arange(48.0)), np.arange(10, 30), np.arange(20, 40)
    pairs = zip(
        *(
            random_neurons.matched_sets(48, sizes, {1: own}, n_random=30, directions=0, seed=5)
            for own in (first, second)
        )
    )
    assert all(len(np.intersect1d(a, b)) == 10 for (a,), (b,) in pairs)
    nested = zip(
        *(
            random_neurons.matched_sets(48, sizes, {1: own}, n_random=30, directions=0, seed=5)
            for own in (first[:3], first)
        )
    )
    assert all(set(few) <= set(many) for (few,), (many,) in nested)


def test_matched_sets_repeat_substitute_across_layers():
    """A neuron selected in two layers of a group has the same neuron, or direction, in its place in both."""
    sizes = sizes_of(np.arange(48.0), layers=(1, 2))
    for one, other in random_neurons.matched_sets(
        48, sizes, {1: np.array([4, 9]), 2: np.array([9, 40])}, n_random=20, directions=3, seed=1
    ):
        shared = np.isin(one, other) if one.ndim == 1 else (one[..., None] == other[:, None]).all(0).any(1)
        assert shared.sum() == 1


def test_overlap_is_mean_share_in_common():
    """Overlap is the mean share of neurons that two sets have in common, and 0 of fewer than two sets."""
    assert random_neurons.overlap([[1, 2, 3, 4], [3, 4, 5, 6], [1, 2, 3, 4]]) == pytest.approx((0.5 + 1 + 0.5) / 3)
    assert random_neurons.overlap([[1, 2]]) == random_neurons.overlap([]) == 0
    layers = [[("a", 1), ("b", 1)], [("a", 1), ("b", 2)]]  # a number is another neuron in another layer
    assert random_neurons.overlap(layers) == 0.5


def test_set_sizes_are_root_mean_squares():
    """The size of a set is the root mean square of its neurons' sizes."""
    sizes = sizes_of([3.0, 4.0, 0.0])
    assert random_neurons.set_sizes(sizes, [1], [[np.array([0, 1])], [np.array([2])]]) == pytest.approx(
        [np.sqrt(12.5), 0]
    )


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
    """A sweep with statistics includes target-blind selections, equal to sweeps of these, unless `blind=False`."""
    model, some = tiny(), clips
    activation_stats = ablation.activation_stats(model, clips.iloc[:1])
    options = {"target": "sad", "modes": ("flip", "zero"), "layers": [1, 3]}
    neurons = {1: [0, 3, 5], 3: [2, 4]}
    found = ablation.sweep(
        model, some, neurons=neurons, activation_stats=activation_stats, n_random=2, directions=1, **options
    )
    assert found["blind"].values.tolist() == ["most active", "writes most"]
    for name, by_layer in random_neurons.target_blind(activation_stats, 3).items():
        own = {layer: by_layer[layer][: len(neurons[layer])] for layer in neurons}
        alone = ablation.sweep(model, some, neurons=own, n_random=0, **options)
        for variable in ("target_change", "kl", "relative_change"):
            expected, got = alone[variable].values, found[f"blind_{variable}"].sel(blind=name).values
            assert got == pytest.approx(expected, abs=1e-5, nan_ok=True)
    plain = ablation.sweep(
        model, some, neurons=neurons, activation_stats=activation_stats, n_random=2, blind=False, **options
    )
    assert "blind_target_change" not in plain
    assert found["random_target_change"].values == pytest.approx(plain["random_target_change"].values, abs=1e-5)
