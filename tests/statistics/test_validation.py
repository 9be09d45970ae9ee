"""Levels of sweeps and verdicts at a small scale: `validation.sweeps`, on networks in which nothing was selected by effect.

With what was done before (a normal null distribution), single neurons fail on the same data: so these tests can.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from validation import framework, sweeps

from xai_lib import statistics
from xai_lib.activations import random_neurons

DRAWS = 60
MOST = stats.binom.isf(0.002, DRAWS, 0.05) / DRAWS  # a share of p < 0.05 beyond this is no accident


def share(run, **design):
    """Share of data sets in which the least p is below 0.05."""
    one = framework.Scenario("", "", run, design=design)
    return np.mean(framework.least_p(one, 8, DRAWS, effect=design.pop("effect", 0.0)) < 0.05)


def some(n):
    """Generators of random numbers."""
    return [np.random.default_rng(seed) for seed in range(n)]


@pytest.mark.parametrize(
    "k", [1, pytest.param(5, marks=pytest.mark.full), 20, pytest.param(48, marks=pytest.mark.full)]
)
def test_no_layer_of_a_sweep_of_any_neurons(k):
    assert share(sweeps.sweep, k=k, data="by speaker") <= MOST


def test_a_normal_null_distribution_would_not_do():
    """Effects of single neurons have far tails: p below 0.01 would be twice as frequent as it says."""
    result = sweeps.swept(some(DRAWS), speakers=8, k=1, data="by speaker")
    units, draws = (result[name].mean("clip").values for name in ("target_change", "random_target_change"))
    assert np.mean(statistics.prediction_test(units, draws, axis=-1) < 0.01) > 0.016


@pytest.mark.parametrize("run, effect", [(sweeps.sweep, 0.0), (sweeps.verdict, 0.9)])
def test_data_sets_side_by_side_are_tested_each_by_itself(run, effect):
    """They stand as modes of one result, which are corrected for separately."""
    design = {"speakers": 8, "k": 20, "data": "by speaker", "effect": effect}
    together = run(some(3), **design)
    alone = np.concatenate([run([one], **design) for one in some(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(np.unique(together)) > 1


def test_random_sets_are_those_of_a_sweep():
    network = sweeps.Network(np.random.default_rng(0), speakers=8)
    selected = network.selected("any", np.random.default_rng(1), 5)
    found = network.swept(selected)
    sizes = xr.DataArray(network.size, {"layer": range(sweeps.LAYERS)}, ("layer", "neuron"))
    for layer in range(sweeps.LAYERS):
        own, seed = {layer: selected[layer]}, int(network.seeds[layer])
        drawn = random_neurons.matched_sets(sweeps.WIDTH, sizes, own, n_random=sweeps.SETS, directions=0, seed=seed)
        magnitudes = random_neurons.set_sizes(sizes, [layer], drawn)
        np.testing.assert_allclose(found["magnitudes"][layer][:-2], magnitudes)
        assert found["random_overlap"][layer] == pytest.approx(random_neurons.mean_overlap(drawn[1:]))
        assert found["random_sets"][layer] == random_neurons.count_random_sets(sizes, own)
        members = np.array([np.isin(np.arange(sweeps.WIDTH), neurons) for (neurons,) in drawn], float)
        apart = found["values"][layer][:, :-2] - network.moved(layer, members)
        np.testing.assert_allclose(apart - apart[:, :1], 0, atol=1e-9)  # what clips add scales with all of the sets


def test_what_was_selected_by_its_effect_is_found():
    design = {"k": 20, "data": "by speaker", "effect": 0.9}
    assert share(sweeps.sweep, **design) > 0.5


@pytest.mark.parametrize("how", ["the most active, nearly", pytest.param("of the strongest", marks=pytest.mark.full)])
def test_blind_choices_get_no_verdict_though_random_neurons_do_less(how):
    """Large neurons do more than the others of their size class: the sweep says so, and the verdict is no more."""
    design = {"k": 20, "how": how, "down": sweeps.ACTIVE}
    assert share(sweeps.sweep, **design) > MOST
    assert share(sweeps.verdict, **design) <= MOST


def test_a_verdict_is_found_where_the_target_guided_the_choice():
    assert share(sweeps.verdict, k=20, data="by speaker", effect=0.9) > 0.2


def test_the_bound_is_clopper_and_pearsons():
    for hits, draws in ((0, 100), (5, 100), (100, 2000)):
        expected = stats.binomtest(hits, draws, alternative="less").proportion_ci(0.975, "exact").high
        assert framework.upper_bound(hits, draws) == pytest.approx(expected)
    assert framework.upper_bound(7, 7) == 1


def test_rows_say_whether_a_level_is_held():
    def run(rng, *, speakers, effect, level):
        return [np.nan] if rng.random() < 0.5 else [rng.random() * level * (1 - effect)]

    made = {name: framework.Scenario(name, "", framework.each(run), (8,), {"level": level}, 0.5, "half", draws=2000, limit=limit)
            for name, level, limit in (("exact", 1, ""), ("often", 0.1, ""), ("rare", 9, ""), ("known", 0.1, "why"))}  # fmt: skip
    found = framework.table(made.values(), jobs=1).set_index("test")
    assert found["level"].to_dict() == {
        "exact": "holds",
        "often": "too often",
        "rare": "conservative",
        "known": "a limit: why",
    }
    assert found.loc["rare", "draws"] < 1200 and found.loc["often", "draws"] > 3700  # four times as many, anew
    assert found.loc["often", "false positives"] == pytest.approx(0.5, abs=0.1)
    assert found.loc["exact", "power"] > 0.02 and "| often |" in framework.written(found.reset_index())


def test_rows_are_kept_and_taken_up(tmp_path):
    """What was written is read as it was, in any order, and a row made anew takes the old one's place."""

    def run(rng, *, speakers, effect):
        return [rng.random()]

    scenarios = [framework.Scenario(name, "data", framework.each(run), (8, 16), draws=40) for name in ("a", "b")]
    path = tmp_path / "rows.csv"
    rows = framework.kept(path)
    assert rows.empty
    for row in framework.rows(scenarios, jobs=1):
        rows.loc[framework.key(row)] = row
    rows.to_csv(path, index=False)
    again = framework.kept(path)
    assert framework.written(again) == framework.written(rows) and len(again) == 4
    left = list(framework.rows(scenarios, jobs=1, left_out=set(again.index[1:])))
    assert [framework.key(row) for row in left] == [("a", "data", 8)]
    again.loc[("a", "data", 8)] = left[0]
    assert len(again) == 4
