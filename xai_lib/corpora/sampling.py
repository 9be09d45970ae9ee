"""Which clips: seeded draws, and splits that no speaker straddles."""

import warnings
from collections import Counter

import numpy as np
import pandas as pd
from sklearn.model_selection import StratifiedGroupKFold

from . import identity
from .filenames import ordered


def draw(clips, n=1, *, seed=0, **where) -> pd.DataFrame:
    """Draw `n` clips at random, seeded: ``draw(clips, label="sad", sex="female", intensity="strong")``.

    A KeyError lists the columns or values that the corpus has instead; a ValueError says that fewer than `n` clips
    match.
    """
    chosen = np.ones(len(clips), bool)
    for column, value in where.items():
        if value is None:
            continue
        if column not in clips:
            raise KeyError(f"the clips have no column {column!r}; they have {', '.join(clips)}")
        if not (clips[column] == value).any():
            known = ", ".join(map(str, ordered(clips[column].dropna()))) or "none"
            raise KeyError(f"no clip has {column} {value!r}: known are {known}")
        chosen &= (clips[column] == value).to_numpy()
    if chosen.sum() < n:
        raise ValueError(f"only {chosen.sum()} clips match {where}, not {n}")
    return clips[chosen].sample(n, random_state=seed)


def balanced(clips, n, *, seed=0) -> pd.DataFrame:
    """Draw `n` clips (or all, if fewer), as even over labels and then speakers as can be; order is kept."""
    rng = np.random.default_rng(seed)
    labels = pd.factorize(clips["label"])[0] + 1  # 0: no label
    speakers = (
        pd.factorize(identity.unified(clips["speaker"]))[0] + 1 if "speaker" in clips else np.zeros(len(clips), int)
    )
    left = list(rng.permutation(len(clips)))
    of_label, of_speaker, cells, taken = Counter(), Counter(), Counter(), []
    while left and len(taken) < n:
        best = min(left, key=lambda i: (of_label[labels[i]], of_speaker[speakers[i]], cells[labels[i], speakers[i]]))
        left.remove(best)
        taken.append(best)
        of_label[labels[best]] += 1
        of_speaker[speakers[best]] += 1
        cells[labels[best], speakers[best]] += 1
    return clips.iloc[sorted(taken)]


def _strata(clips):
    """What splits keep even: label and, where known, sex. Raises where no speakers are known."""
    lacking = clips["speaker"].isna().sum() if "speaker" in clips else len(clips)
    if lacking or "speaker" not in clips:
        how = f"lack a speaker in {lacking} rows" if "speaker" in clips else "have no column `speaker`"
        add = 'add it, e.g. clips["speaker"] = ..., or a `speaker` column in the CSV file'
        raise ValueError(f"the clips {how}, so a split could put one voice on both sides: {add}")
    label = clips["label"].astype(str)
    return label + "|" + clips["sex"].astype(str) if "sex" in clips else label


def split(clips, *, test=0.25, seed=0) -> pd.DataFrame:
    """Copy with a column `split`, "train" or "test": no speaker on both sides, labels and sexes even.

    Of 500 seeded draws of test speakers, the one is kept whose share of each label and sex is nearest to `test`.
    ValueError where speakers are not known, there is only one, or `test` is not between 0 and 1.
    """
    strata = _strata(clips)
    speakers = identity.unified(clips["speaker"])
    counts = pd.crosstab(speakers, strata)
    if len(counts) < 2 or not 0 < test < 1:
        raise ValueError(f"a split needs two speakers or more, 0 < test < 1; not {len(counts)}, {test}")
    rng = np.random.default_rng(seed)
    n = min(max(round(test * len(counts)), 1), len(counts) - 1)
    draws = np.stack([rng.permutation(len(counts)) < n for _ in range(500)])
    off = (draws @ counts.to_numpy() - test * counts.sum().to_numpy()) ** 2
    chosen = counts.index[draws[off.sum(axis=1).argmin()]]
    return clips.assign(split=np.where(speakers.isin(chosen), "test", "train"))


def folds(clips, n=5, *, seed=0) -> pd.Series:
    """Fold 0 to n - 1 of each clip, indexed like `clips`: whole speakers, labels and sexes even."""
    strata = _strata(clips)
    speakers = identity.unified(clips["speaker"])
    if not 2 <= n <= speakers.nunique():
        raise ValueError(f"{n} folds need from 2 to as many speakers as there are, {speakers.nunique()}")
    with warnings.catch_warnings():  # a stratum with fewer clips than folds: it is spread as far as it goes
        warnings.simplefilter("ignore", UserWarning)
        parts = list(StratifiedGroupKFold(n, shuffle=True, random_state=seed).split(clips, strata, speakers))
    fold = pd.Series(-1, index=clips.index, name="fold")
    for number, (_, held_out) in enumerate(parts):
        fold.iloc[held_out] = number
    return fold
