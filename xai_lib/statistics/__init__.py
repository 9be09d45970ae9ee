"""Intervals, hypothesis tests and effect sizes with the speaker as the unit, built on scipy."""

from .effect_sizes import auroc, cohens_d, eta_squared, uar
from .hypothesis_tests import FEWEST, fdr, repeated_measures_test, t_test, t_test_above, unit
from .intervals import by_speaker, interval, over_speakers, welch
from .permutation import chosen_test, deals, permutation_p, sign_flip_test
from .random_sets import between_random_sets, null_spread, null_test, rank_band, rank_test

__all__ = [
    "FEWEST",
    "auroc",
    "between_random_sets",
    "by_speaker",
    "chosen_test",
    "cohens_d",
    "deals",
    "eta_squared",
    "fdr",
    "interval",
    "null_spread",
    "null_test",
    "over_speakers",
    "permutation_p",
    "rank_band",
    "rank_test",
    "repeated_measures_test",
    "sign_flip_test",
    "t_test",
    "t_test_above",
    "uar",
    "unit",
    "welch",
]
