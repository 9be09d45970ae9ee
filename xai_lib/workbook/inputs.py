"""Inputs of a notebook: the train and test sides of the split, and the clips that are explained one by one."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import audio, corpora
from ..audio import reading
from ..corpora import fingerprints, folders, identity

if TYPE_CHECKING:
    from ..models import Model

MAX_RECORDINGS = 20  # maximum number of recordings per speaker that are compared by sound before the split


def split(corpus: pd.DataFrame, model: Model, *, seed: int = 0) -> pd.DataFrame:
    """Add the column `split`: training speakers (or folds) of the model are "train", all others "test".

    If all or none of the speakers are training speakers, the split is drawn by speaker. Training speakers are
    recognised by name, by the files' names, and by sound (`identity.training_status`; at most 20 recordings of each
    speaker are compared). The spelling of speakers is unified (`identity.unify_spelling`). An existing column `split`
    is kept.

    Raises
    ------
    ValueError
        Some clip has no speaker; an existing column `split` has a speaker on both sides, lacks values or has only one
        side; one file, or files of equal bytes, are on both sides.
    """
    _raise_on_missing_speakers(corpus)
    clips = corpus.assign(speaker=identity.unify_spelling(corpus["speaker"]))
    if "split" in clips:
        _raise_on_invalid_split(clips)
    else:
        clips = _new_split(clips, model, seed)
    _raise_on_copies(clips)
    _warn_on_shared_person(clips)
    return clips


def _raise_on_missing_speakers(corpus):
    """Raise ValueError if some clip has no speaker."""
    missing = len(corpus)
    if "speaker" in corpus:
        missing = sum(identity.comparable_name(name) is None for name in corpus["speaker"])
    if missing:
        raise ValueError(
            f"{missing} of {len(corpus)} clips have no speaker, but all statistics are computed over speakers: "
            "give the corpus (as a CSV file) a column `speaker`, or leave those clips out"
        )


def _warn_on_shared_person(corpus):
    """Warn if, according to the files' names, one person speaks on both sides under two names."""
    if "path" not in corpus:
        return
    clips = corpus.assign(person=identity.of_files(corpus)).dropna(subset="person")
    on_both = clips.groupby("person").filter(lambda rows: rows["split"].nunique() > 1)
    if on_both.empty:
        return
    person, rows = next(iter(on_both.groupby("person")))
    names = " and ".join(map(repr, sorted(rows["speaker"].unique())[:3]))
    warnings.warn(
        f"according to the files' names, some people are on both sides of the split: {person} is "
        f"called {names}; give each person one name",
        stacklevel=3,
    )


def _new_split(corpus, model, seed):
    """Return the corpus with training speakers of the model in train and others in test, or else a drawn split."""
    trained = [*(model.train_speakers or []), *(model.head_train_speakers or [])]
    states = identity.training_status(corpus, trained, _recordings(model, "trained", "head"), most=MAX_RECORDINGS)
    in_training = corpus["speaker"].isin(states.index[states == identity.IN_TRAINING])
    if in_training.any() and not in_training.all():
        return corpus.assign(split=np.where(in_training, "train", "test"))
    return corpora.split(corpus, seed=seed)


def subsample(clips: pd.DataFrame, n: int | None, seed: int) -> pd.DataFrame:
    """Draw at most `n` clips, balanced over label and speaker."""
    if n is None or len(clips) <= n:
        return clips
    return corpora.balanced(clips, n, seed=seed)


def usable(clips: pd.DataFrame, model: Model, skipped: dict[str, str]) -> pd.DataFrame:
    """Return the usable clips, and add the others to the dict `skipped` {path: reason}; NoClips if none is usable."""
    reasons = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # unusable clips are listed in `skipped` instead
        indices = [index for index, _ in model.stream(clips, reasons)]
    for index, reason in reasons.items():
        path = str(audio.sources(clips)[index])
        name = path if path not in skipped else f"{path} (clip {index})"
        skipped[name] = reason.removeprefix(f"{path}: ")
    return clips.loc[indices]


def own_files(files: str | os.PathLike | Sequence[str], model: Model, skipped: dict[str, str]) -> pd.DataFrame:
    """Return clips from a path, a folder, a glob, or a list of these.

    Unusable files are added to the dict `skipped` {path: reason}; so are sound files of a folder whose format cannot be
    read. Raises FileNotFoundError if no file matches, or if a folder has no readable sound file (the message says what
    it contains), and NoClips if no file is usable.
    """
    patterns = [files] if isinstance(files, (str, os.PathLike)) else files
    paths = []
    for pattern in patterns:
        paths += _matching_files(os.path.expanduser(pattern), skipped)
    clips = pd.DataFrame({"path": paths, "label": None, "speaker": None})
    return usable(clips, model, skipped).reset_index(drop=True)


def _matching_files(pattern, skipped) -> list[str]:
    """Return the sound files that match one path, folder or glob."""
    if not os.path.isdir(pattern):
        paths = folders.named(pattern, audio.SUFFIXES)
        if not paths:
            expected = "a path, a folder of recordings, a glob such as 'mine/*.wav', or a list"
            raise FileNotFoundError(f"files: no file matches {pattern}; expected {expected}")
        return paths
    content = folders.walk(pattern, audio.SUFFIXES)
    if not content.files:
        formats = ", ".join(audio.SUFFIXES)
        raise FileNotFoundError(f"files: no sound file ({formats}) in {pattern}, but {content.described()}")
    left_out = [f"{count} {reason}" for reason, count in content.left_out.items() if not reason.startswith("hidden")]
    if left_out:
        skipped[pattern] = "; ".join(left_out)
    return [str(path) for path in content.files]


def describe_test_speakers(model: Model, test: pd.DataFrame) -> str:
    """Describe the number of test speakers (or of recordings of sounds), and how many of them the model was trained on.

    The description has a number where that can be determined: "trained on 0" means that these speakers can be compared
    with the training speakers, and none of them is among those (`identity.training_status`). If names and files do not
    determine it, the description says "not known", even if none of these recordings was trained on: others of the same
    people may have been.
    """
    clips = test.assign(speaker=identity.unify_spelling(test["speaker"]))
    speakers = set(clips["speaker"].dropna())
    are_sounds = bool(speakers) and all(name.startswith("recording-") for name in speakers)
    kind = "recordings" if are_sounds else "speakers"
    pronoun = "which" if are_sounds else "whom"
    description = f"{kind}  {len(speakers)}"

    if model.train_speakers is None:
        description += f"; {pronoun} the encoder was trained on is not recorded"
    else:
        description += _training_overlap(model, clips, "trained", model.train_speakers, pronoun)
    if model.head_train_speakers is not None:
        description += _training_overlap(model, clips, "head", model.head_train_speakers, pronoun)

    states = identity.training_status(clips, model.selection_speakers or [], _recordings(model, "selected"))
    names = sorted(states.index[states == identity.IN_TRAINING])
    if names:
        description += f"; its weights were selected on {', '.join(names)}"
    return description


def _training_overlap(model, clips, use, trained, pronoun):
    """Describe how many test speakers the encoder (`use` "trained") or the head ("head") was trained on."""
    recordings = _recordings(model, use)
    states = identity.training_status(clips, trained, recordings)
    n_trained = (states == identity.IN_TRAINING).sum()
    n_unknown = (states == identity.UNKNOWN).sum()
    part = "encoder" if use == "trained" else "head"
    if n_unknown == 0 and part == "encoder":
        return f", of {pronoun} the encoder was trained on {n_trained}"
    if n_unknown == 0:
        return f"; the head was trained on {n_trained}"

    if n_unknown == len(states):
        description = f"; {pronoun} the {part} was trained on is not known"
    else:
        description = f", of {pronoun} the {part} was trained on {n_trained}; of {n_unknown} more it is not known"
    description += ": their names are of another form than those of its training speakers"
    if recordings is not None:
        description += ", and none of their clips here was trained on"
    return description


def _recordings(model, *uses):
    """Return the recordings that the model was trained or selected on, or None; `uses` as in `fingerprints.write`."""
    table = getattr(model, "trained_recordings", None)
    if table is None or not table["use"].isin(uses).any():
        return None
    return table[table["use"].isin(uses)]


def check_sounds(clips: pd.DataFrame) -> None:
    """Raise ValueError if train and test contain the same recording, in any format, at any rate and level.

    Clips are compared by fingerprint (`fingerprints.of_waveform`), and those with matching fingerprints sample by
    sample (`fingerprints.same_sound`). If all clips are of corpora with known individual speakers, names suffice, and
    no file is read.
    """
    if all(map(identity.corpus_of, identity.of_clips(clips))):
        return
    sounds = audio.sources(clips)
    train = sounds[clips["split"] == "train"]
    test = sounds[clips["split"] == "test"]
    bits = fingerprints.distances(fingerprints.of_files(train), fingerprints.of_files(test))
    copies = []
    for row, column in np.argwhere(bits <= fingerprints.COPY):
        pair = (train.iloc[row], test.iloc[column])
        if fingerprints.same_sound(*pair):
            copies.append(pair)
    if copies:
        raise ValueError(_leakage_message(*copies[0], len(copies), "sound the same"))


def _raise_on_copies(corpus):
    """Raise ValueError if one file, or two files of equal bytes, are on both sides."""
    if "audio" in corpus:
        sounds = audio.sources(corpus)
        in_memory = sounds[[isinstance(source, (audio.Waveform, audio.Encoded)) for source in sounds]]
        table = pd.DataFrame({"path": in_memory.map(str), "hash": in_memory.map(reading.content_hash)})
        _raise_on_equal(table.assign(split=corpus["split"]), "hash", "are one sound")
    if "path" not in corpus:
        return
    files = pd.DataFrame({"path": corpus["path"], "split": corpus["split"]}).dropna(subset="path")
    files["file"] = [os.path.realpath(path) for path in files["path"]]
    _raise_on_equal(files, "file", "are one file")

    # Only files of equal size, one on each side, need to be read.
    files["bytes"] = files["file"].map(_size)
    sides_by_size = files.groupby("bytes")["split"].nunique()
    candidates = files[files["bytes"].isin(sides_by_size.index[sides_by_size > 1])]
    progress = tqdm(candidates["file"], "looking for copies", unit="file", leave=False, delay=2)
    hashes = [reading.content_hash(path) for path in progress]
    _raise_on_equal(candidates.assign(hash=hashes), "hash", "hold the same bytes")


def _size(path):
    """Return the size of a file in bytes, None if there is no file."""
    return os.path.getsize(path) if os.path.isfile(path) else None


def _raise_on_equal(files, column, relation):
    """Raise ValueError, naming two files, if both sides have the same value in a column."""
    n_sides = files.groupby(column)["split"].nunique()
    shared = n_sides.index[n_sides > 1]
    if len(shared):
        pair = files[files[column] == shared[0]].drop_duplicates("split").set_index("split")["path"]
        raise ValueError(_leakage_message(pair["train"], pair["test"], len(shared), relation))


def _leakage_message(train, test, count, relation):
    """Return the error message for a recording on both sides."""
    more = f" (and {count - 1} more such pairs)" if count > 1 else ""
    return (
        f"{train} in train and {test} in test {relation}{more}, so the model would be tested on training data: leave "
        "one of them out, or give both the same speaker"
    )


def _raise_on_invalid_split(corpus):
    """Raise ValueError unless the column `split` has two sides and no speaker on both."""
    values = sorted(set(corpus["split"].dropna().astype(str)))
    if values != ["test", "train"] or corpus["split"].isna().any():
        raise ValueError(
            f'the column split must be "train" or "test" for every clip, and both must occur; it has {values}: '
            "rename or drop the other clips, or drop the column so that a split is drawn"
        )
    n_sides = corpus.groupby("speaker")["split"].nunique()
    shared = [str(name) for name in n_sides[n_sides > 1].index]
    if shared:
        subject = "1 speaker is" if len(shared) == 1 else f"{len(shared)} speakers are"
        raise ValueError(
            f"{subject} both in train and in test ({', '.join(shared[:5])}): give each speaker one side, "
            "or drop the column split so that one is drawn"
        )
