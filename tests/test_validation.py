"""Levels of sweeps and verdicts at a small scale: `validation.sweeps`, on networks in which nothing was selected by effect.

With what was done before (a normal null distribution, corrected by false discovery), the same data fail: so these can.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from validation import framework, sweeps

from xai_lib import statistics

DRAWS = 60
MOST = stats.binom.isf(0.002, DRAWS, 0.05) / DRAWS  # a share of p < 0.05 beyond this is no accident


def share(run, **design):
    """Share of data sets in which the least p is below 0.05."""
    one = framework.Scenario("", "", run, design=design)
    return np.mean(framework.least_p(one, 8, DRAWS, effect=design.pop("effect", 0.0)) < 0.05)


@pytest.mark.parametrize(
    "k", [1, pytest.param(5, marks=pytest.mark.full), 20, pytest.param(48, marks=pytest.mark.full)]
)
def test_no_layer_of_a_sweep_of_any_neurons(k):
    assert share(sweeps.sweep, k=k, data="by speaker") <= MOST


def test_a_normal_null_distribution_would_not_do():
    """Effects of single neurons have far tails: p below 0.01 would be twice as frequent as it says."""
    small = []
    for draw in range(DRAWS):
        result = sweeps.swept(np.random.default_rng(draw), speakers=8, k=1, data="by speaker")
        units, draws = (result[name].mean("clip").squeeze("mode").values for name in ("delta", "null_delta"))
        small.append(statistics.null_test(units, draws, axis=-1) < 0.01)
    assert np.mean(small) > 0.016


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
        expected = stats.binomtest(hits, draws, alternative="less").proportion_ci(0.95, "exact").high
        assert framework.upper_bound(hits, draws) == pytest.approx(expected)
    assert framework.upper_bound(7, 7) == 1


def test_rows_say_whether_a_level_is_held():
    def run(rng, *, speakers, effect, level):
        return [np.nan] if rng.random() < 0.5 else [rng.random() * level * (1 - effect)]

    made = {name: framework.Scenario(name, "", run, (8,), {"level": level}, 0.5, "half", draws=400, limit=limit)
            for name, level, limit in (("exact", 1, ""), ("often", 0.1, ""), ("rare", 9, ""), ("known", 0.1, "why"))}  # fmt: skip
    found = framework.table(made.values(), jobs=1).set_index("test")
    assert found[""].to_dict() == {
        "exact": "holds",
        "often": "too often",
        "rare": "conservative",
        "known": "a limit: why",
    }
    assert (found["draws"] < 240).all() and found.loc["often", "false positives"] == pytest.approx(0.5, abs=0.1)
    assert found.loc["exact", "power"] > 0.02 and "| often |" in framework.written(found.reset_index())
