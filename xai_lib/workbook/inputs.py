"""What a notebook works on: the sides of the split, and the clips that are explained one by one."""

import os
import warnings

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from .. import audio, corpora
from ..audio import reading
from ..corpora import fingerprints, folders, identity

MOST = 20  # recordings of a speaker that are compared by sound before the split


def split(corpus, model, *, seed=0) -> pd.DataFrame:
    """Add the column `split`: speakers (or folds) that the model has never heard are "test"; else it is drawn by speaker.

    Heard counts by name, by the files' names, and by sound (`identity.heard_before`; of each speaker at most 20
    recordings are compared). Speakers are spelled in one way (`identity.unified`). A column that is there already is
    kept.

    Raises
    ------
    ValueError
        Some clip has no speaker; the column that is there leaks, leaves clips out or has one side only; one file, or
        files of equal bytes, are on both sides.
    """
    lacking = sum(identity.compared(name) is None for name in corpus["speaker"]) if "speaker" in corpus else len(corpus)
    if lacking:
        raise ValueError(
            f"{lacking} of {len(corpus)} clips have no speaker, and all that is found here is counted over speakers: "
            "give the corpus, as a CSV file, a column `speaker`, or leave those clips out"
        )
    corpus = corpus.assign(speaker=identity.unified(corpus["speaker"]))
    if "split" in corpus:
        sides = _checked(corpus)
    else:
        sides = _drawn_split(corpus, model, seed)
    _refuse_copies(sides)
    _warn_of_one_person(sides)
    return sides


def _warn_of_one_person(sides):
    """Warn where files say that one person speaks on both sides, under two names."""
    if "path" not in sides:
        return
    clips = sides.assign(person=identity.of_files(sides)).dropna(subset="person")
    on_both = clips.groupby("person").filter(lambda rows: rows["split"].nunique() > 1)
    if on_both.empty:
        return
    person, rows = next(iter(on_both.groupby("person")))
    names = " and ".join(map(repr, sorted(rows["speaker"].unique())[:3]))
    warnings.warn(
        f"going by the names of files, some people are on both sides of the split: {person} is "
        f"called {names}; give each person one name",
        stacklevel=3,
    )


def _drawn_split(corpus, model, seed):
    """The corpus with speakers whom the model has heard in train and others in test, or else drawn."""
    trained = [*(model.trained_on or []), *(model.head_trained_on or [])]
    states = identity.heard_before(corpus, trained, _recordings(model, "trained", "head"), most=MOST)
    known = corpus["speaker"].isin(states.index[states == identity.HEARD])
    if known.any() and not known.all():
        return corpus.assign(split=np.where(known, "train", "test"))
    return corpora.split(corpus, seed=seed)


def drawn(clips, n, seed) -> pd.DataFrame:
    """At most `n` clips, balanced over label and speaker."""
    return clips if n is None or len(clips) <= n else corpora.balanced(clips, n, seed=seed)


def usable(clips, model, skipped) -> pd.DataFrame:
    """The clips that can be used; the others go to the dict `skipped` {path: reason}. NoClips where none is left."""
    reasons = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # they are named one by one instead
        kept = [index for index, _ in model.stream(clips, reasons)]
    for index, reason in reasons.items():
        path = str(audio.sources(clips)[index])
        name = path if path not in skipped else f"{path} (clip {index})"
        skipped[name] = reason.removeprefix(f"{path}: ")
    return clips.loc[kept]


def own_files(files, model, skipped) -> pd.DataFrame:
    """Clips from a path, a folder, a glob, or a list of these.

    Those that cannot be used go to the dict `skipped` {path: reason}; so do sound files of a folder whose format cannot
    be read. Where nothing has such a name, or nothing in a folder can be read, it is a FileNotFoundError, which says
    what is there; where not one file can be used, NoClips.
    """
    paths = []
    for pattern in [files] if isinstance(files, (str, os.PathLike)) else files:
        paths += _named_files(os.path.expanduser(pattern), skipped)
    clips = pd.DataFrame({"path": paths, "label": None, "speaker": None})
    return usable(clips, model, skipped).reset_index(drop=True)


def _named_files(pattern, skipped) -> list[str]:
    """The sound files that one path, folder or glob names."""
    if not os.path.isdir(pattern):
        paths = folders.named(pattern, audio.SUFFIXES)
        if not paths:
            give = "a path, a folder of recordings, a glob such as 'mine/*.wav', or a list"
            raise FileNotFoundError(f"files: nothing is called {pattern}; give {give}")
        return paths
    found = folders.walk(pattern, audio.SUFFIXES)
    if not found.files:
        known = ", ".join(audio.SUFFIXES)
        raise FileNotFoundError(f"files: there is no sound file ({known}) in {pattern}, but {found.described()}")
    left_out = {reason: count for reason, count in found.left_out.items() if not reason.startswith("hidden")}
    if left_out:
        skipped[pattern] = "; ".join(f"{count} {reason}" for reason, count in left_out.items())
    return [str(path) for path in found.files]


def of_whom(model, test) -> str:
    """How many test speakers, or recordings of sounds, there are, and what the model knows of them already.

    A number is given where it can be known: "heard 0" says that these speakers can be compared with those the model was
    trained on, and none of them is among those (`identity.heard_before`). Where names and files cannot tell, it says
    "not known", even if none of these recordings was trained on: others of the same people may have been.
    """
    test = test.assign(speaker=identity.unified(test["speaker"]))
    speakers = set(test["speaker"].dropna())
    sounds = bool(speakers) and all(name.startswith("recording-") for name in speakers)
    kind, whom = ("recordings", "which") if sounds else ("speakers", "whom")
    told = f"{kind}  {len(speakers)}"

    if model.trained_on is None:
        told += f"; {whom} the encoder has heard is not recorded"
    else:
        told += _whom_it_heard(model, test, "trained", model.trained_on, whom)
    if model.head_trained_on is not None:
        told += _whom_it_heard(model, test, "head", model.head_trained_on, whom)

    chosen_on = identity.heard_before(test, model.chosen_on or [], _recordings(model, "chosen"))
    chose = sorted(chosen_on.index[chosen_on == identity.HEARD])
    return told + (f"; its weights were chosen on {', '.join(chose)}" if chose else "")


def _whom_it_heard(model, test, use, trained, whom):
    """What is said of the test speakers whom the encoder (`use` "trained") or the head ("head") has heard."""
    recordings = _recordings(model, use)
    states = identity.heard_before(test, trained, recordings)
    heard = (states == identity.HEARD).sum()
    unknown = (states == identity.NOT_KNOWN).sum()
    part = "encoder" if use == "trained" else "head"
    if not unknown:
        return f", of {whom} the encoder has heard {heard}" if use == "trained" else f", the head {heard}"
    if unknown == len(states):
        told = f"; {whom} the {part} has heard is not known"
    else:
        told = f", of {whom} the {part} has heard {heard}; of {unknown} more it is not known"
    why = ": they are named otherwise than its training speakers"
    return told + why + ("" if recordings is None else ", and none of their clips here was trained on")


def _recordings(model, *uses):
    """Which recordings the model was trained or chosen on, if that is known; `uses` are those of `fingerprints.write`."""
    table = getattr(model, "trained_recordings", None)
    if table is None or not table["use"].isin(uses).any():
        return None
    return table[table["use"].isin(uses)]


def check_sounds(clips) -> None:
    """ValueError where a clip in train and one in test hold the same recording, in whatever format, rate and level.

    Clips are compared by their fingerprints (`fingerprints.of_waveform`), and those that have the same, sample by sample
    (`fingerprints.same_sound`). Where all of them are of corpora whose speakers are known one by one, names tell, and
    nothing is read.
    """
    if all(map(identity.corpus_of, identity.of_clips(clips))):
        return
    sounds = audio.sources(clips)
    train = sounds[clips["split"] == "train"]
    test = sounds[clips["split"] == "test"]
    bits = fingerprints.distances(fingerprints.of_files(train), fingerprints.of_files(test))
    pairs = [(train.iloc[row], test.iloc[column]) for row, column in np.argwhere(bits <= fingerprints.COPY)]
    same = [pair for pair in pairs if fingerprints.same_sound(*pair)]
    if same:
        raise ValueError(_one_recording(*same[0], len(same), "sound the same"))


def _refuse_copies(corpus):
    """ValueError where one file, or two files of equal bytes, are on both sides."""
    if "audio" in corpus:
        sounds = audio.sources(corpus)
        in_memory = sounds[[isinstance(source, (audio.Waveform, audio.Encoded)) for source in sounds]]
        table = pd.DataFrame({"path": in_memory.map(str), "hash": in_memory.map(reading.content_hash)})
        _refuse_equal(table.assign(split=corpus["split"]), "hash", "are one sound")
    if "path" not in corpus:
        return
    files = pd.DataFrame({"path": corpus["path"], "split": corpus["split"]}).dropna(subset="path")
    files["file"] = [os.path.realpath(path) for path in files["path"]]
    _refuse_equal(files, "file", "are one file")

    files["bytes"] = [os.path.getsize(path) if os.path.isfile(path) else None for path in files["file"]]
    sizes = files.groupby("bytes")["split"].nunique()
    alike = files[files["bytes"].isin(sizes.index[sizes > 1])]
    hashes = [
        reading.content_hash(path)
        for path in tqdm(alike["file"], "looking for copies", unit="file", leave=False, delay=2)
    ]
    _refuse_equal(alike.assign(hash=hashes), "hash", "hold the same bytes")


def _refuse_equal(files, column, what):
    """ValueError, naming two files, where both sides have the same value in a column."""
    sides = files.groupby(column)["split"].nunique()
    both = sides.index[sides > 1]
    if len(both):
        pair = files[files[column] == both[0]].drop_duplicates("split").set_index("split")["path"]
        raise ValueError(_one_recording(pair["train"], pair["test"], len(both), what))


def _one_recording(train, test, count, what):
    """What is said of a recording on both sides."""
    more = f" (and {count - 1} more such pairs)" if count > 1 else ""
    return (
        f"{train} in train and {test} in test {what}{more}, so the model would be tested on what was learnt from: leave "
        "one of them out, or give both the same speaker"
    )


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
        are = "1 speaker is" if len(both) == 1 else f"{len(both)} speakers are"
        raise ValueError(
            f"{are} both in train and in test ({', '.join(both[:5])}): give each speaker one side, "
            "or drop the column split to have it drawn"
        )
    return corpus
