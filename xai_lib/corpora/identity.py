"""Identity of speakers: comparison of names, speakers named by file names, and overlap with training speakers."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..audio import reading
from . import filenames, fingerprints

IN_TRAINING = "in training"
NOT_IN_TRAINING = "not in training"
UNKNOWN = "not known"

# Corpora whose speakers are known one by one: pattern of what follows the corpus's name, as in "ravdess-07".
_SPEAKER_PATTERNS = {
    "ravdess": r"0[1-9]|1\d|2[0-4]",
    "sample": r"0[1-9]|1\d|2[0-4]",
    "crema-d": r"10(0[1-9]|[1-8]\d|9[01])",
    "emodb": r"03|08|09|1[0-6]",
    "tess": r"oa|ya",
    "savee": r"dc|je|jk|kl",
    "iemocap": r"[1-5][fm]",
    "msp-improv": r"[fm]0[1-6]",
    "subesco": r"[fm]_\d\d",
    "emovo": r"[fm][123]",
    "librispeech": r"\d+",
    "recording": r"\d+",  # the recordings that clips of ESC-50 were cut from
    "esc10-fold": r"\d",
    "esc50-fold": r"\d",
}
# File names that hold the speaker, besides those of `filenames.KNOWN`; their groups, joined, are the speaker.
_FILE_NAME_PATTERNS = {
    "iemocap": r"Ses0([1-5])[FM]_(?:impro|script)\w+_([FM])\d{3}",
    "msp-improv": r"MSP-IMPROV-S\d\d[A-Z]-([FM]0[1-6])-[A-Z]-[FM]{2}\d\d",
    "subesco": r"([FM]_\d\d)_[A-Z]+_S_\d+_[A-Z]+_\d",
    "emovo": r"(?:neu|dis|gio|pau|rab|sor|tri)-([fm][123])-[a-z]\d",
}


def comparable_name(speaker: Any) -> str | None:
    """Return the name of a speaker as it is compared: without blanks at its ends, and without case.

    A whole number is the same name in any form: 1, 1.0, "1", "01" and " 1.0 " are all "1". None where it is missing.
    """
    if pd.isna(speaker):
        return None
    name = unicodedata.normalize("NFKC", str(speaker)).strip().casefold()
    number = re.fullmatch(r"0*(\d+)(\.0+)?", name)
    if number:
        return number[1]
    return name or None


def shared_speakers(clips: pd.DataFrame, names: Sequence[str]) -> list[str]:
    """Return those speakers of the clips who are among `names`, in any spelling, sorted."""
    compared = {comparable_name(name) for name in names}
    speakers = clips["speaker"].dropna().unique() if "speaker" in clips else []
    return sorted(str(speaker) for speaker in speakers if comparable_name(speaker) in compared)


def unify_spelling(speakers: Sequence | pd.Series) -> pd.Series:
    """Return each speaker in one spelling, the first that occurs, without blanks at its ends; missing ones are None."""
    speakers = pd.Series(speakers)
    first_spellings = {}  # by compared name
    spellings = []
    for speaker in speakers:
        name = comparable_name(speaker)
        if name is not None and name not in first_spellings:
            first_spellings[name] = speaker.strip() if isinstance(speaker, str) else name
        spellings.append(first_spellings.get(name))
    return pd.Series(spellings, index=speakers.index, name=speakers.name, dtype=object)


@lru_cache(maxsize=100_000)
def corpus_of(name: str) -> str | None:
    """Return the corpus of a compared name: "ravdess" for "ravdess-07", None for a name of no known corpus."""
    for corpus, pattern in _SPEAKER_PATTERNS.items():
        if re.fullmatch(f"{corpus}-({pattern})", name):
            return corpus
    return None


def of_file(path: str | Path, *, speaker: Any = None, corpus: str | None = None) -> str | None:
    """Return the speaker from a file's name alone, as "ravdess-01"; None where it is not a name of a known corpus.

    Only names that are hardly given by chance count: those of RAVDESS, CREMA-D, EmoDB, TESS, SAVEE ("DC_a01", not
    the folder "DC"), IEMOCAP, MSP-IMPROV, SUBESCO and EMOVO, with a speaker whom the corpus has. "84-121123-0000" is
    of LibriSpeech only where the folders or `speaker` agree. For clips of ESC-50 and ESC-10, the recording that they
    were cut from is returned ("recording-100032"), for ESC-10 in its own folders only ("001 - Dog bark").

    Parameters
    ----------
    speaker : optional
        Speaker in the clip's table.
    corpus : str, optional
        Corpus in the clip's table. Where it is "sample", or the file lies in a copy of the sample corpus, names like
        those of RAVDESS are those of the sample corpus's voices ("sample-01").
    """
    path = Path(path)
    file_name = Path(path.name)  # folders do not count, except where they are checked below

    actor = filenames.parse("ravdess", file_name)
    if actor and (comparable_name(corpus) == "sample" or any(map(_holds_sample, path.parents[1:3]))):
        return f"sample-{actor['actor']:02d}"
    for corpus_name in ("ravdess", "crema-d", "emodb", "tess", "savee"):
        fields = filenames.parse(corpus_name, file_name)
        name = fields and comparable_name(fields["speaker"])
        if name and corpus_of(name):
            return name

    for corpus_name, pattern in _FILE_NAME_PATTERNS.items():
        match = re.fullmatch(pattern, path.stem)
        if match:
            return f"{corpus_name}-{''.join(match.groups()).casefold()}"
    return _librispeech_reader(path, speaker) or _esc_recording(path)


@lru_cache(maxsize=10_000)
def _holds_sample(folder) -> bool:
    """Return whether a folder is the sample corpus, or a copy of it."""
    return (folder / "factors.csv").is_file()


def _librispeech_reader(path, speaker) -> str | None:
    """Return the reader of a file like 84/121123/84-121123-0000.flac; None where its name alone looks like that."""
    match = re.fullmatch(r"(\d{2,4})-(\d{3,6})-\d{4}", path.stem)
    if match is None:
        return None
    reader, chapter = match.groups()
    folders = [folder.name for folder in path.parents]
    by_chapter = folders[:2] == [chapter, reader]
    by_reader = reader in folders[:2] and any("librispeech" in name.casefold() for name in folders)
    by_table = comparable_name(speaker) == comparable_name(reader)
    return f"librispeech-{reader}" if by_chapter or by_reader or by_table else None


def _esc_recording(path) -> str | None:
    """Return the recording that a clip of ESC-50 or ESC-10 was cut from; None for other files."""
    fields = filenames.parse("esc-50", Path(path.name))
    if fields is None or fields["fold"] not in "12345":
        return None
    of_esc50 = "number" in fields and int(fields["number"]) < 50
    of_esc10 = re.match(r"0(0[1-9]|10) - ", path.parent.name)
    return fields["speaker"] if of_esc50 or of_esc10 else None


def of_files(clips: pd.DataFrame) -> pd.Series:
    """Return the speaker of each clip from its file's name alone (`of_file`); None where it cannot be determined."""
    corpora = clips["corpus"] if "corpus" in clips else [None] * len(clips)
    speakers = []
    for path, speaker, corpus in zip(clips["path"], clips["speaker"], corpora):
        speakers.append(None if pd.isna(path) else of_file(path, speaker=speaker, corpus=corpus))
    return pd.Series(speakers, index=clips.index, dtype=object)


def of_clips(clips: pd.DataFrame) -> pd.Series:
    """Return the speaker of each clip: one of a known corpus where that can be determined, else the compared name.

    A name like "ravdess-01" counts first, then the file's name (`of_file`). File names count only for a speaker whose
    files all name the same person, and one whom no other speaker's files name: two people whose files bear the names of
    one actor are two people.
    """
    table_names = pd.Series([comparable_name(speaker) for speaker in clips["speaker"]], index=clips.index, dtype=object)
    if "path" not in clips:
        return table_names

    of_known_corpus = table_names.map(lambda name: name is not None and corpus_of(name) is not None)
    identified = table_names.where(of_known_corpus, of_files(clips))

    pairs = pd.DataFrame({"table": table_names.to_numpy(), "identified": identified.to_numpy()}).fillna("")
    has_one_identity = pairs.groupby("table")["identified"].transform("nunique") == 1
    has_one_table_name = pairs.groupby("identified")["table"].transform("nunique") == 1
    agree = (has_one_identity & has_one_table_name & (pairs["identified"] != "")).to_numpy()
    return identified.where(agree, table_names)


def training_status(
    clips: pd.DataFrame, trained: Sequence[str], recordings: pd.DataFrame | None = None, *, most: int | None = None
) -> pd.Series:
    """Determine for each speaker whether a model was trained on him or her.

    Parameters
    ----------
    clips : DataFrame
        `speaker`, where known `path`, `corpus` and `fold`.
    trained : sequence of str
        Training speakers of the model; "esc10-fold-1" is a fold of a corpus.
    recordings : DataFrame, optional
        `fingerprint` and `speaker` of the training recordings, as returned by `fingerprints.read`.
    most : int, optional
        Maximum number of clips per speaker that are compared by sound; default: all.

    Returns
    -------
    Series
        By speaker, spelled as in `unify_spelling`: one of this module's constants `IN_TRAINING`, `NOT_IN_TRAINING` and
        `UNKNOWN`. The first means that the speaker bears the name of a training speaker, that the files bear the names
        of one (`of_file`), or that one recording is a training recording (`fingerprints`). The second means that the
        speaker can be compared with the training speakers and is none of them: a speaker of a known corpus, where those
        are of known corpora; or one whose name is built like theirs ("P9" beside "P1" and "P2"). All others are not
        known: "P9" beside "ravdess-01" may be anybody, even where the model was trained on none of these recordings.
    """
    training_names = {comparable_name(name) for name in trained} - {None}
    if recordings is not None:
        training_names |= {comparable_name(name) for name in recordings["speaker"]} - {None}
    schemes = {_scheme(name) for name in training_names}

    table = pd.DataFrame({"speaker": unify_spelling(clips["speaker"]), "known_as": of_clips(clips)})
    table["name"] = [comparable_name(speaker) for speaker in table["speaker"]]
    table["fold"] = _fold_names(clips)
    by_speaker = table.dropna(subset="speaker").groupby("speaker", sort=False)
    states = {speaker: _status_by_name(rows, training_names, schemes) for speaker, rows in by_speaker}
    states = pd.Series(states, dtype=object)

    if recordings is None or recordings.empty or not {"path", "audio"} & set(clips):
        return states
    table["sound"] = reading.sources(clips)
    for speaker, state in states.items():
        rows = table[table["speaker"] == speaker]
        of_known_corpus = all(map(corpus_of, rows["known_as"]))
        if state == IN_TRAINING or of_known_corpus:
            continue
        if most is not None and len(rows) > most:
            rows = _evenly_spaced(rows, most)
        if _are_copies(rows["sound"], recordings).any():
            states[speaker] = IN_TRAINING
    return states


def _status_by_name(rows, training_names, schemes) -> str:
    """Determine the status of one speaker from the names of the clips, columns `name`, `known_as` and `fold`."""
    names = {*rows["name"], *rows["known_as"], *rows["fold"]}
    if names & training_names:
        return IN_TRAINING
    for name, fold in zip(rows["known_as"], rows["fold"]):
        if not _is_comparable(name, schemes) and not _is_comparable(fold, schemes):
            return UNKNOWN
    return NOT_IN_TRAINING


def _evenly_spaced(rows, count) -> pd.DataFrame:
    """Return `count` of the rows, evenly spaced."""
    return rows.iloc[np.linspace(0, len(rows) - 1, count).round().astype(int)]


def _are_copies(sounds, recordings) -> np.ndarray:
    """Return which of the sounds hold one of the recordings, bool [sound]."""
    bits = fingerprints.distances(fingerprints.of_files(sounds), recordings["fingerprint"])
    return (bits <= fingerprints.COPY).any(axis=1)


def _fold_names(clips) -> pd.Series:
    """Return the fold of each clip, named like training folds ("esc10-fold-1"); None where it is not known."""
    names = [None] * len(clips)
    if "fold" in clips and "corpus" in clips:
        for row, (corpus, fold) in enumerate(zip(clips["corpus"], clips["fold"])):
            corpus_name = comparable_name(corpus)
            fold_name = comparable_name(fold)
            if corpus_name is not None and fold_name is not None:
                names[row] = f"{corpus_name.replace('-', '')}-fold-{fold_name}"
    return pd.Series(names, index=clips.index, dtype=object)  # None, which pandas would make NaN among texts


def _scheme(name) -> str:
    """Return the scheme of a name: its corpus, or else the name with 0 for each number, "a" where it has no number."""
    corpus = corpus_of(name)
    if corpus:
        return corpus
    return re.sub(r"\d+", "0", name) if re.search(r"\d", name) else "a"


def _is_comparable(name, schemes) -> bool:
    """Return whether a speaker of that name would be recognised among training speakers with these schemes."""
    if name is None:
        return False
    scheme = _scheme(name)
    if not schemes or scheme in schemes:
        return True
    if scheme == "recording" and any(training_scheme.endswith("-fold") for training_scheme in schemes):
        return False  # the recordings of a fold are not known
    return scheme in _SPEAKER_PATTERNS and schemes <= set(_SPEAKER_PATTERNS)
