"""What a notebook works on: the sides of the split, and the clips that are explained one by one."""

import glob
import os
import warnings

import numpy as np
import pandas as pd

from . import audio, corpora


def split(corpus, model, *, seed=0) -> pd.DataFrame:
    """Add the column `split`: speakers (or folds) that the model has never heard are "test"; else it is drawn by speaker.

    A column that is there already is kept; ValueError if it leaks, leaves clips out or has one side only, or if some
    clip has no speaker.
    """
    lacking = corpus["speaker"].isna().sum() if "speaker" in corpus else len(corpus)
    if lacking:
        raise ValueError(
            f"{lacking} of {len(corpus)} clips have no speaker, and all that is found here is counted over speakers: "
            "give the corpus, as a CSV file, a column `speaker`, or leave those clips out"
        )
    if "split" in corpus:
        return _checked(corpus)
    heard = {*(model.trained_on or []), *(model.head_trained_on or [])}
    known = corpus["speaker"].isin(heard)
    if "fold" in corpus and "corpus" in corpus:  # "esc10-fold-1"
        known |= (corpus["corpus"].str.replace("-", "") + "-fold-" + corpus["fold"]).isin(heard)
    if known.any() and not known.all():
        return corpus.assign(split=np.where(known, "train", "test"))
    return corpora.split(corpus, seed=seed)


def drawn(clips, n, seed) -> pd.DataFrame:
    """At most `n` clips, balanced over label and speaker."""
    return clips if n is None or len(clips) <= n else corpora.balanced(clips, n, seed=seed)


def own_files(files, model, skipped) -> pd.DataFrame:
    """Clips from a path, a folder, a glob, or a list of these.

    Those that cannot be used go to the dict `skipped` {path: reason}. Of a folder only sound files are taken. Where
    nothing has such a name it is a FileNotFoundError, where not one file can be used a ValueError.
    """
    paths = []
    for pattern in map(os.path.expanduser, [files] if isinstance(files, str) else files):
        if os.path.isdir(pattern):
            inside = glob.glob(os.path.join(glob.escape(pattern), "*"))  # without hidden files
            found = [path for path in inside if path.lower().endswith(audio.SUFFIXES)]
        else:
            found = [pattern] if os.path.isfile(pattern) else glob.glob(pattern, recursive=True)
        found = sorted(filter(os.path.isfile, found))
        if not found:
            give = "a path, a folder of recordings, a glob such as 'mine/*.wav', or a list"
            raise FileNotFoundError(f"files: nothing is called {pattern}; give {give}")
        paths += [os.path.abspath(path) for path in found]
    clips, bad = pd.DataFrame({"path": paths, "label": None, "speaker": None}), {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are named one by one instead
        kept = [i for i, _ in model.stream(clips, bad)]
    skipped.update({paths[i]: reason.removeprefix(f"{paths[i]}: ") for i, reason in bad.items()})
    return clips.loc[kept].reset_index(drop=True)


def of_whom(model, test) -> str:
    """How many test speakers, or recordings of sounds, there are, and what the model knows of them already."""
    speakers = set(test["speaker"])
    sounds = bool(speakers) and all(str(name).startswith("recording-") for name in speakers)
    kind, whom = ("recordings", "which") if sounds else ("speakers", "whom")
    told = f"{kind}  {len(speakers)}"
    if model.trained_on is None:
        told += f"; {whom} the encoder has heard is not recorded"
    else:
        told += f", of {whom} the encoder has heard {len(speakers & set(model.trained_on))}"
    if model.head_trained_on is not None:
        told += f", the head {len(speakers & set(model.head_trained_on))}"
    chose = sorted(speakers & set(model.chosen_on or []))
    return told + (f"; its weights were chosen on {', '.join(chose)}" if chose else "")


def _checked(corpus):
    """The corpus, if its column `split` has two sides and no speaker on both."""
    known = sorted(set(corpus["split"].dropna().astype(str)))
    if known != ["test", "train"] or corpus["split"].isna().any():
        raise ValueError(
            f'the column split must say "train" or "test" for every clip, and both must occur; it says {known}: '
            "rename or drop the other clips, or drop the column to have one drawn"
        )
    sides = corpus.groupby("speaker")["split"].nunique()
    both = [str(name) for name in sides[sides > 1].index]
    if both:
        raise ValueError(
            f"{len(both)} speakers are both in train and in test ({', '.join(both[:5])}): give each speaker one side, "
            "or drop the column split to have it drawn"
        )
    return corpus
