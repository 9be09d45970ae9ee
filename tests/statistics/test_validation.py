"""Levels of sweeps and verdicts at a small scale: `validation.sweeps`, where nothing was selected by effect.

With what was done before (a normal null distribution), single neurons fail on the same data: so these tests can.
"""

from __future__ import annotations

import numpy as np
import pytest
import xarray as xr
from scipy import stats
from validation import framework, sweeps

from xai_lib import ablation, statistics
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
def test_sweep_holds_its_level_for_random_neurons(k):
    """Sweeps of randomly selected neurons have p < 0.05 in some layer no more often than chance allows."""
    assert share(sweeps.sweep, k=k, data="by speaker") <= MOST


def test_prediction_test_fails_for_single_neurons():
    """Effects of single neurons have heavy tails: by a normal null distribution p < 0.01 in over 1.6 % of cases."""
    result = sweeps.swept(some(DRAWS), speakers=8, k=1, data="by speaker")
    values = result["target_change"].mean("clip")
    units, draws = ablation.selected_values(values).values, ablation.control_values(values, "random").values
    assert np.mean(statistics.prediction_test(units, draws, axis=-1) < 0.01) > 0.016


@pytest.mark.parametrize("run, effect", [(sweeps.sweep, 0.0), (sweeps.verdict, 0.9)])
def test_sweep_and_verdict_test_data_sets_separately(run, effect):
    """Data sets side by side, as modes of one result, have the same p as each by itself."""
    design = {"speakers": 8, "k": 20, "data": "by speaker", "effect": effect}
    together = run(some(3), **design)
    alone = np.concatenate([run([one], **design) for one in some(3)])
    np.testing.assert_allclose(together, alone, rtol=1e-12)
    assert len(np.unique(together)) > 1


def test_network_draws_random_sets_of_sweeps():
    """Random sets of the network, their sizes, overlap and number are those of `random_neurons`."""
    network = sweeps.Network(np.random.default_rng(0), speakers=8)
    selected = network.selected("any", np.random.default_rng(1), 5)
    found = network.swept(selected)
    sizes = xr.DataArray(network.size, {"layer": range(sweeps.LAYERS)}, ("layer", "neuron"))
    for layer in range(sweeps.LAYERS):
        own, seed = {layer: selected[layer]}, int(network.seeds[layer])
        drawn = random_neurons.random_sets(sizes, own, sweeps.SETS, seed=seed)
        rms = [random_neurons.rms_of(sizes, neuron_set) for neuron_set in (own, *drawn)]
        np.testing.assert_allclose(found["rms"][layer][:-2], rms)
        assert found["random_overlap"][layer] == pytest.approx(random_neurons.mean_overlap(drawn))
        assert found["n_random_sets"][layer] == random_neurons.count_random_sets(sizes, own)
        members = [np.isin(np.arange(sweeps.WIDTH), neuron_set[layer]) for neuron_set in (own, *drawn)]
        members = np.array(members, float)
        apart = found["values"][layer][:, :-2] - network.moved(layer, members)
        np.testing.assert_allclose(apart - apart[:, :1], 0, atol=1e-9)  # what clips add scales with all of the sets


def test_sweep_finds_neurons_selected_by_effect():
    """Neurons selected by their effect are significant in a sweep in over half of the data sets."""
    design = {"k": 20, "data": "by speaker", "effect": 0.9}
    assert share(sweeps.sweep, **design) > 0.5


@pytest.mark.parametrize("how", ["the most active, nearly", pytest.param("of the strongest", marks=pytest.mark.full)])
def test_verdict_holds_its_level_for_blind_choices(how):
    """Target-blind choices that do more than random neurons in a sweep get a verdict no more often than by chance."""
    design = {"k": 20, "how": how, "down": sweeps.ACTIVE}
    assert share(sweeps.sweep, **design) > MOST
    assert share(sweeps.verdict, **design) <= MOST


def test_verdict_finds_neurons_selected_by_target():
    """Neurons that were selected by the target get a verdict in over 20 % of the data sets."""
    assert share(sweeps.verdict, k=20, data="by speaker", effect=0.9) > 0.2


def test_upper_bound_equals_clopper_pearson():
    """The upper bound equals scipy's exact interval of Clopper and Pearson, and is 1 if every draw is a hit."""
    for hits, draws in ((0, 100), (5, 100), (100, 2000)):
        expected = stats.binomtest(hits, draws, alternative="less").proportion_ci(0.975, "exact").high
        assert framework.upper_bound(hits, draws) == pytest.approx(expected)
    assert framework.upper_bound(7, 7) == 1


def test_table_says_whether_level_is_held():
    """The table says whether a test holds its level, and repeats rows in doubt with four times the draws."""

    def run(rng, *, speakers, effect, level):
        return [np.nan] if rng.random() < 0.5 else [rng.random() * level * (1 - effect)]

    made = []
    for name, level, limit in (("exact", 1, ""), ("often", 0.1, ""), ("rare", 9, ""), ("known", 0.1, "why")):
        options = {"draws": 2000, "limit": limit}
        each = framework.each(run)
        made.append(framework.Scenario(name, "", each, (8,), {"level": level}, 0.5, "half", **options))
    found = framework.table(made, jobs=1).set_index("test")
    assert found["level"].to_dict() == {
        "exact": "holds",
        "often": "too often",
        "rare": "conservative",
        "known": "a limit: why",
    }
    assert found.loc["rare", "draws"] < 1200 and found.loc["often", "draws"] > 3700  # four times as many, anew
    assert found.loc["often", "false positives"] == pytest.approx(0.5, abs=0.1)
    assert found.loc["exact", "power"] > 0.02 and "| often |" in framework.written(found.reset_index())


def test_kept_reads_rows_as_written(tmp_path):
    """Rows are read as they were written, left-out rows are not repeated, and a new row replaces its old one."""

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
