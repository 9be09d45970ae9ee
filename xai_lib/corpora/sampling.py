"""Seeded draws of clips, and splits with no speaker on both sides."""

from __future__ import annotations

import warnings
from collections import Counter, deque

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from . import identity
from .filenames import ordered


def draw(clips: pd.DataFrame, n: int = 1, *, seed: int = 0, **where) -> pd.DataFrame:
    """Draw `n` clips at random, seeded: ``draw(clips, label="sad", sex="female", intensity="strong")``.

    Raises KeyError where the clips lack a column or value (the message lists those that they have), ValueError where
    fewer than `n` clips match.
    """
    matches = np.ones(len(clips), bool)
    for column, value in where.items():
        if value is None:
            continue
        if column not in clips:
            raise KeyError(f"the clips have no column {column!r}; they have {', '.join(clips)}")
        if not (clips[column] == value).any():
            known = ", ".join(map(str, ordered(clips[column].dropna()))) or "none"
            raise KeyError(f"no clip has {column} {value!r}: known are {known}")
        matches &= (clips[column] == value).to_numpy()
    if matches.sum() < n:
        raise ValueError(f"only {matches.sum()} clips match {where}, not {n}")
    return clips[matches].sample(n, random_state=seed)


def balanced(clips: pd.DataFrame, n: int, *, seed: int = 0) -> pd.DataFrame:
    """Draw `n` clips (or all, if fewer), as evenly as possible over labels and then speakers, and keep their order.

    Examples
    --------
    >>> from xai_lib import corpora
    >>> clips = corpora.balanced(corpora.load("sample"), 16)
    >>> clips["label"].value_counts().unique().tolist()
    [2]
    """
    labels = _codes(clips["label"])
    if "speaker" in clips:
        speakers = _codes(identity.unify_spelling(clips["speaker"]))
    else:
        speakers = [0] * len(clips)

    order = np.random.default_rng(seed).permutation(len(clips)).tolist()
    pending = {}  # ranks, in this order, of the clips of each label and speaker
    for rank, position in enumerate(order):
        pending.setdefault((labels[position], speakers[position]), deque()).append(rank)

    label_counts = Counter()
    speaker_counts = Counter()
    cell_counts = Counter()

    def precedence(cell):
        """Return what a cell is compared by: how much of its label, speaker and itself was drawn, then the order."""
        label, speaker = cell
        return label_counts[label], speaker_counts[speaker], cell_counts[cell], pending[cell][0]

    drawn = []
    while pending and len(drawn) < n:
        cell = min(pending, key=precedence)
        drawn.append(order[pending[cell].popleft()])
        if not pending[cell]:
            del pending[cell]
        label, speaker = cell
        label_counts[label] += 1
        speaker_counts[speaker] += 1
        cell_counts[cell] += 1
    return clips.iloc[sorted(drawn)]


def _codes(values) -> list[int]:
    """Return a number for each value, the same for equal values and for all missing ones."""
    codes, _ = pd.factorize(values)
    return codes.tolist()


def _strata(clips) -> pd.Series:
    """Return the stratum of each clip, its label and, where known, sex; ValueError where a clip has no speaker."""
    problem = None
    if "speaker" not in clips:
        problem = "have no column `speaker`"
    elif clips["speaker"].isna().any():
        problem = f"lack a speaker in {clips['speaker'].isna().sum()} rows"
    if problem:
        remedy = 'add it, e.g. clips["speaker"] = ..., or a `speaker` column in the CSV file'
        raise ValueError(f"the clips {problem}, so a split could put one voice on both sides: {remedy}")

    label = clips["label"].astype(str)
    return label + "|" + clips["sex"].astype(str) if "sex" in clips else label


def split(clips: pd.DataFrame, *, test: float = 0.25, seed: int = 0) -> pd.DataFrame:
    """Return a copy with a column `split`, "train" or "test": no speaker on both sides, labels and sexes even.

    Of 500 seeded draws of test speakers, the one whose share of each label and sex is nearest to `test` is used. Raises
    ValueError where speakers are not known, there is only one, or `test` is not between 0 and 1.

    Examples
    --------
    >>> from xai_lib import corpora
    >>> clips = corpora.split(corpora.load("sample"), test=0.25)
    >>> clips.groupby("split")["speaker"].nunique()
    split
    test      6
    train    18
    Name: speaker, dtype: int64
    """
    strata = _strata(clips)
    speakers = identity.unify_spelling(clips["speaker"])
    counts = pd.crosstab(speakers, strata)
    if len(counts) < 2 or not 0 < test < 1:
        raise ValueError(
            f"a split needs two speakers or more and 0 < test < 1, not {len(counts)} speakers and test={test}"
        )
    rng = np.random.default_rng(seed)
    n_test = min(max(round(test * len(counts)), 1), len(counts) - 1)
    draws = np.stack([rng.permutation(len(counts)) < n_test for _ in range(500)])
    deviations = (draws @ counts.to_numpy() - test * counts.sum().to_numpy()) ** 2
    test_speakers = counts.index[draws[deviations.sum(axis=1).argmin()]]
    return clips.assign(split=np.where(speakers.isin(test_speakers), "test", "train"))


def folds(clips: pd.DataFrame, n: int = 5, *, seed: int = 0) -> pd.Series:
    """Return the fold of each clip, 0 to n - 1, indexed like `clips`: whole speakers, labels and sexes even."""
    strata = _strata(clips)
    speakers = identity.unify_spelling(clips["speaker"])
    if not 2 <= n <= speakers.nunique():
        raise ValueError(
            f"{n} folds are not possible with {speakers.nunique()} speakers: n must be from 2 to the number of speakers"
        )
    with warnings.catch_warnings():  # of a stratum with fewer clips than folds, which is spread as far as possible
        warnings.simplefilter("ignore", UserWarning)
        parts = list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(clips, strata, speakers))
    fold = pd.Series(-1, index=clips.index, name="fold")
    for number, (_, held_out) in enumerate(parts):
        fold.iloc[held_out] = number
    return fold
