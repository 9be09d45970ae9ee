"""The five similarity functions against plain loops, closed forms, and neurons in a file."""

from __future__ import annotations

from itertools import pairwise, permutations
from math import exp, log

import numpy as np
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_lib.dissection import similarity_measures

NAMES = list(similarity_measures.FUNCTIONS)


def loop_cosine(fits, values, power=1):
    out = np.zeros((values.shape[1], fits.shape[1]))
    for i, neuron in enumerate(values.T):
        for j, concept in enumerate(fits.T):
            a, b = (neuron - np.mean(neuron)) ** power, (concept - np.mean(concept)) ** power
            norms = np.sqrt(sum(a * a)) * np.sqrt(sum(b * b))
            out[i, j] = sum(a * b) / norms if norms else 0
    return out


def loop_pmi(fits, values, top, a, lam, first, last):
    joint = np.zeros((values.shape[1], fits.shape[1]))
    for i, neuron in enumerate(values.T):
        for rank, clip in enumerate(np.argsort(-neuron)[:top]):
            weights = [exp(a * fit) for fit in fits[clip]]
            member = first - rank / top * (first - last)
            for j, weight in enumerate(weights):
                joint[i, j] += log(1 + member * (weight / sum(weights) - 1))
    for j in range(fits.shape[1]):
        joint[:, j] -= lam * log(np.mean([exp(x) for x in joint[:, j]]))
    return joint


def loop_rank_reorder(fits, values, top, p, scale):
    """The errors over all orders of the concepts' ties, and over all orders at all."""
    out = np.zeros((values.shape[1], fits.shape[1]))
    for i, neuron in enumerate(values.T):
        clips = np.argsort(-neuron)[:top]
        own, rising = neuron[clips], sorted(neuron[clips])
        orders = list(permutations(range(top)))  # of the places, the least fit first
        errors = {order: np.mean([abs(own[c] - rising[at]) ** p for at, c in enumerate(order)]) for order in orders}
        for j, concept in enumerate(fits.T):
            fit = concept[clips]
            right = [errors[o] for o in orders if all(fit[x] <= fit[y] for x, y in pairwise(o))]
            out[i, j] = -np.mean(right) / np.mean(list(errors.values())) / np.mean(fit.clip(0)).clip(1e-6) ** scale
    return out


def loop(name, fits, values, top):
    if name.startswith("cosine"):
        return loop_cosine(fits, values, 3 if name == "cosine_cubed" else 1)
    if name == "rank_reorder":
        return loop_rank_reorder(fits, values, top, 3, 0.5)
    options = {"wpmi": (2, 0.6, 1, 1), "soft_wpmi": (10, 1, 0.998, 0.97)}[name]
    return loop_pmi(fits, values, top, *options)


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=30)
@given(seed=st.integers(0, 10**6), ties=st.booleans(), neurons=st.integers(2, 7), concepts=st.integers(1, 5))
def test_similarity_measures_equal_plain_loops(name, seed, ties, neurons, concepts):
    """Every similarity function equals a plain loop, with and without ties in the fits."""
    rng = np.random.default_rng(seed)
    values, fits = rng.standard_normal((12, neurons)), rng.random((12, concepts))
    fits = np.round(2 * fits) / 2 if ties else fits
    top = 5
    if name.endswith("wpmi"):
        values[:, 0], values[:, 1] = np.arange(12), -np.arange(12)  # never all alike
    options = {} if name.startswith("cosine") else {"top": top}
    found = getattr(similarity_measures, name)(fits, values, **options)
    np.testing.assert_allclose(found, loop(name, fits, values, top), atol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_blocks_change_no_score(name, tmp_path, monkeypatch):
    """Neurons read from a file in blocks, never as a whole, get the scores that they get in memory."""
    rng = np.random.default_rng(0)
    values, fits = rng.standard_normal((50, 3, 11)).astype(np.float32), rng.random((50, 4))
    data = xr.Dataset({"activation": (("clip", "layer", "neuron"), values)})
    data.to_netcdf(tmp_path / "activations.nc", engine="h5netcdf")
    opened = xr.open_dataset(tmp_path / "activations.nc", engine="h5netcdf")["activation"]
    sizes = [block.shape for block in similarity_measures.blocks(opened, 200)]
    assert sizes == 3 * [(50, 4), (50, 4), (50, 3)]
    monkeypatch.setattr(similarity_measures.blocks, "__defaults__", (200,))
    found = getattr(similarity_measures, name)(fits, opened)
    assert not opened.variable._in_memory
    monkeypatch.undo()
    np.testing.assert_allclose(found, getattr(similarity_measures, name)(fits, values.reshape(50, -1)), atol=2e-6)
    opened.close()


def test_scorer_equals_similarity_functions():
    """A scorer reads the activations once, and gives each of many fits the score of the similarity function."""
    rng = np.random.default_rng(0)
    values, fits = rng.standard_normal((40, 6)), rng.random((3, 40, 4))
    for name in NAMES:
        read = values.copy()
        raw, usual = similarity_measures.scorer(name, read)
        read[:] = np.nan  # whatever is read from now on
        for one in fits:
            np.testing.assert_array_equal(raw(one) - usual(raw(one)), getattr(similarity_measures, name)(one, values))


def test_cosine_equals_closed_form():
    """The cosine keeps the sign and ignores shifts, and both it and its cube equal their closed forms."""
    x = np.array([0.0, 1, 2, 5])
    fits = np.column_stack([x, -x, [1.0, 1, 1, 1], [0.0, 0, 0, 1]])
    values = np.column_stack([3 * x - 7, -2 * x])
    np.testing.assert_allclose(similarity_measures.cosine(fits, values)[:, :3], [[1, -1, 0], [-1, 1, 0]], atol=1e-12)
    linear, cubed = (f(fits, values)[0, 3] for f in (similarity_measures.cosine, similarity_measures.cosine_cubed))
    # centred, −2 −1 0 3 and (in quarters) −1 −1 −1 3: 12 / √(14 · 12)
    assert linear == pytest.approx(12 / np.sqrt(14 * 12))
    assert cubed == pytest.approx((8 + 1 + 27 * 27) / np.sqrt((64 + 1 + 27**2) * (3 + 27**2)))


def test_cosine_is_zero_for_constant_neurons():
    """A constant neuron has cosine 0, plain and cubed, and by rank reorder the error of chance."""
    values = np.column_stack([np.full(90, 5.3), np.zeros(90), np.arange(90)]).astype(np.float32)
    for f in (similarity_measures.cosine, similarity_measures.cosine_cubed):
        found = f(np.random.default_rng(0).random((90, 4)), values)
        assert (found[:2] == 0).all() and (found[2] != 0).all()
    np.testing.assert_allclose(similarity_measures.rank_reorder(np.full((90, 1), 0.25), values)[:2], -2)


def test_rank_reorder_equals_closed_form():
    """Two clips in the right, wrong and tied order score 0, −4 and −2; negative fits give finite scores."""
    values = np.array([[1.0], [0.0], [-9.0]])
    fits = np.array([[0.3, 0.2, 0.25], [0.2, 0.3, 0.25], [0.9, 0.9, 0.9]])
    found = similarity_measures.rank_reorder(fits, values, top=2)
    np.testing.assert_allclose(found, [[0, -2 / 0.5, -1 / 0.5]], atol=1e-9)
    negative = similarity_measures.rank_reorder(fits - 1, values, top=2)
    assert np.isfinite(negative).all() and (negative <= 0).all()


def test_wpmi_equals_closed_form():
    """For softmax values of 3/4 and 1/4, WPMI and soft WPMI of two neurons equal their closed forms."""
    values, fits = np.array([[1.0, 0.0], [0.0, 1.0]]), np.array([[log(3), 0.0], [0.0, log(3)]])
    weighed = similarity_measures.wpmi(fits, values, top=1, a=1, lam=0.6)
    mean = 0.6 * log((0.75 + 0.25) / 2)
    np.testing.assert_allclose(weighed, [[log(0.75) - mean, log(0.25) - mean], [log(0.25) - mean, log(0.75) - mean]])
    soft = similarity_measures.soft_wpmi(fits, values, top=1, a=1, lam=1, first=0.5)
    np.testing.assert_allclose(soft, np.log(np.array([[0.875, 0.625], [0.625, 0.875]]) / 0.75))


def test_soft_wpmi_subtracts_common_fit():
    """For each concept, the mean over neurons of exp(soft WPMI) is 1: what all neurons have in common is removed."""
    rng = np.random.default_rng(0)
    values, fits = rng.standard_normal((64, 9)), rng.random((64, 3))
    found = similarity_measures.soft_wpmi(fits, values)
    np.testing.assert_allclose(np.log(np.exp(found).mean(0)), 0, atol=1e-12)
    assert (found.std(0) > 0.1).all()  # by neuron
    raw, common = similarity_measures.scorer("soft_wpmi", values)
    more = raw(fits) + [0, 5, -7]  # to the log probability of a concept, for all neurons
    np.testing.assert_allclose(more - common(more), found)


@pytest.mark.parametrize("name", ["wpmi", "soft_wpmi"])
def test_wpmi_refuses_identical_neurons(name):
    """A single neuron, or several with the same strongest clips, is refused instead of scored 0."""
    rng = np.random.default_rng(0)
    values, fits = rng.standard_normal((40, 5)), rng.random((40, 4))
    with pytest.raises(ValueError, match="several neurons whose strongest clips differ"):
        getattr(similarity_measures, name)(fits, values[:, :1])
    with pytest.raises(ValueError, match="several neurons"):
        getattr(similarity_measures, name)(fits, np.repeat(values[:, :1], 3, axis=1))
    assert (np.abs(getattr(similarity_measures, name)(fits, values)) > 1e-6).all()


def test_similarity_measures_reduce_top_for_few_clips():
    """By default the published number of strongest clips is read, and fewer where there are few clips."""
    rng = np.random.default_rng(0)
    for n, tops in ((2000, (100, 28, 100)), (80, (10, 10, 10)), (4, (1, 1, 4))):
        values, fits = rng.standard_normal((n, 4)), rng.random((n, 3))
        values[:, 0] = -values[:, 1]
        for name, top in zip(("soft_wpmi", "wpmi", "rank_reorder"), tops):
            f = getattr(similarity_measures, name)
            np.testing.assert_allclose(f(fits, values), f(fits, values, top=top))
            if n > 4:
                assert not np.allclose(f(fits, values), f(fits, values, top=top + 1))


def test_strongest_breaks_ties_randomly():
    """Clips that tie at 0 come from all quarters of the corpus, after the one clip that is above 0."""
    values = np.zeros((400, 3))
    values[[7, 150, 399], [0, 1, 2]] = 1
    order, strong = similarity_measures._strongest(values, 50)
    assert list(order[:, 0]) == [7, 150, 399] and (strong[:, 0] == 1).all() and (strong[:, 1:] == 0).all()
    counts = np.bincount(order[0] // 100, minlength=4)
    assert counts.sum() == 50 and counts.min() >= 5
    assert all(len(set(row)) == 50 for row in order)


def test_similarity_measures_refuse_invalid_input():
    """Every function refuses NaN and infinite activations, and an unknown similarity is refused with those known."""
    values, fits = np.random.default_rng(0).standard_normal((20, 4)), np.ones((20, 2))
    for bad in (np.nan, np.inf, -np.inf):
        values[3, 2] = bad
        for name in NAMES:
            with pytest.raises(ValueError, match="NaN or infinite"):
                getattr(similarity_measures, name)(fits, values)
    with pytest.raises(ValueError, match="known are cosine, cosine_cubed, rank_reorder, wpmi, soft_wpmi"):
        similarity_measures.scorer("dot", values)
