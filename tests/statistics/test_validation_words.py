"""Levels of the tests of words, at a small scale: `validation.words` on data in which nothing follows a word.

By clips alone, the same data fail: so these tests can.
"""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from validation import words

from xai_lib import statistics
from xai_lib.dissection import units

DRAWS = 40
MOST = stats.binom.isf(0.002, DRAWS, 0.05) / DRAWS  # a share of p < 0.05 beyond this is no accident
ALIKE = {"kind": "speaker × emotion", "share": 0.95, "emotions": 5, "repetitions": 5}  # 10 clips each that agree


def share_below(run, *, effect=0.0, draws=DRAWS, **design):
    """Share of data sets in which p is below 0.05."""
    options = {"speakers": 8, "effect": effect, **ALIKE, **design}
    p = words.side_by_side(run)([np.random.default_rng(seed) for seed in range(draws)], **options)
    assert p.shape == (draws, 1)
    return np.mean(p < 0.05)


@pytest.fixture
def by_clips(monkeypatch):
    """Leave the tests over speakers out."""
    monkeypatch.setattr(units, "tested_speakers", lambda data: None)
    monkeypatch.setattr(statistics, "repeated_measures_test", lambda values: np.zeros(values.shape[2:]))


def some(*quick, rest=()):
    """Parameters by name: those that always run, and those of the full tests."""
    return [pytest.param(run, id=run.__name__) for run in quick] + [
        pytest.param(run, id=run.__name__, marks=pytest.mark.full) for run in rest
    ]


OTHERS = [words.predictivity_auroc, words.check, words.selectivity_of_variance]


@pytest.mark.parametrize(
    "run", some(words.identify, words.predictivity, rest=[*OTHERS, words.describe, words.selectivity_by_label])
)
def test_words_hold_level_over_speakers(run):
    """Tests of words over speakers hold their level where the clips of an emotion are alike."""
    assert share_below(run) <= MOST


@pytest.mark.parametrize("run", some(words.identify, words.predictivity, rest=[*OTHERS, words.z_of_words]))
def test_words_exceed_level_over_clips_alone(run, by_clips):
    """Tests of words over clips alone have too many false positives where the clips of an emotion are alike."""
    assert share_below(run) > MOST


@pytest.mark.parametrize("run", some(words.predictivity, rest=[words.identify, words.predictivity_auroc, words.check]))
def test_words_find_planted_effect(run):
    """Neurons that do follow a word have p < 0.05 in over 70 % of cases."""
    assert share_below(run, effect=1.0, share=0.5, draws=10) > 0.7


def test_words_treat_sentences_as_fixed():
    """Neurons and captions that both follow two sentences, alike in all speakers, are significant too often."""
    assert share_below(words.predictivity, kind="sentence", emotions=8, repetitions=1, draws=20) > 0.2


def test_scenarios_are_complete():
    """Every test of words is tried on every kind of data, with 2,000 draws or more and a planted effect."""
    tested = {(one.test, one.data) for one in words.SCENARIOS if not one.limit}
    assert tested >= {(test, kind) for test in words.TESTS for kind in words.KINDS}
    assert all(one.draws >= 2000 and one.effect > 0 for one in words.SCENARIOS)


@pytest.mark.full
def test_scenarios_give_one_p():
    """Every scenario gives one p for each data set."""
    for one in words.SCENARIOS:
        p = one.run([np.random.default_rng(seed) for seed in range(2)], speakers=8, **one.design)
        assert np.shape(p) == (2, 1)
