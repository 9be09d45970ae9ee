"""Intervals, hypothesis tests and effect sizes with the speaker as the unit, built on scipy."""

from .effect_sizes import auroc, cohens_d, eta_squared, uar
from .hypothesis_tests import MIN_SPEAKERS, fdr, repeated_measures_test, standardize, t_test, t_test_above
from .intervals import by_speaker, interval, over_speakers, welch
from .permutation import permutation_p, restricted_permutations, selection_test, sign_flip_test
from .rank_tests import between_random_sets, prediction_sd, prediction_test, rank_band, rank_test

__all__ = [
    "MIN_SPEAKERS",
    "auroc",
    "between_random_sets",
    "by_speaker",
    "selection_test",
    "cohens_d",
    "restricted_permutations",
    "eta_squared",
    "fdr",
    "interval",
    "prediction_sd",
    "prediction_test",
    "over_speakers",
    "permutation_p",
    "rank_band",
    "rank_test",
    "repeated_measures_test",
    "sign_flip_test",
    "t_test",
    "t_test_above",
    "uar",
    "standardize",
    "welch",
]
