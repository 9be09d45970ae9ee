"""Who speaks: how names of speakers are compared, what a file's name tells, and whom a model has heard before."""

import re
import unicodedata
from functools import lru_cache
from pathlib import Path

import numpy as np
import pandas as pd

from ..audio import reading
from . import filenames, fingerprints

HEARD, NOT_HEARD, NOT_KNOWN = "heard", "not heard", "not known"

# Corpora whose speakers are known one by one: what follows the corpus's name, as in "ravdess-07".
_PEOPLE = {
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
    "recording": r"\d+",  # of sounds: what clips of ESC-50 were cut from
    "esc10-fold": r"\d",
    "esc50-fold": r"\d",
}
# File names that say who speaks, beside those of `names.KNOWN`; their groups, joined, are the speaker.
_FILE_NAMES = {
    "iemocap": r"Ses0([1-5])[FM]_(?:impro|script)\w+_([FM])\d{3}",
    "msp-improv": r"MSP-IMPROV-S\d\d[A-Z]-([FM]0[1-6])-[A-Z]-[FM]{2}\d\d",
    "subesco": r"([FM]_\d\d)_[A-Z]+_S_\d+_[A-Z]+_\d",
    "emovo": r"(?:neu|dis|gio|pau|rab|sor|tri)-([fm][123])-[a-z]\d",
}


def compared(speaker) -> str | None:
    """Give the name of a speaker as it is compared: without blanks at its ends, and without case.

    A whole number is the same name in any form: 1, 1.0, "1", "01" and " 1.0 " are all "1". None where it is missing.
    """
    if pd.isna(speaker):
        return None
    name = unicodedata.normalize("NFKC", str(speaker)).strip().casefold()
    number = re.fullmatch(r"0*(\d+)(\.0+)?", name)
    return number[1] if number else name or None


def unified(speakers) -> pd.Series:
    """Spell each speaker in one way, the first that occurs, without blanks at its ends; missing ones are None."""
    speakers = pd.Series(speakers)
    spelling, found = {}, []
    for speaker in speakers:
        name = compared(speaker)
        shown = speaker.strip() if isinstance(speaker, str) else name
        found.append(None if name is None else spelling.setdefault(name, shown))
    return pd.Series(found, index=speakers.index, name=speakers.name, dtype=object)


@lru_cache(maxsize=100_000)
def corpus_of(name) -> str | None:
    """Name the corpus that a compared name is of: "ravdess" for "ravdess-07", None for a name of somebody's own."""
    return next((corpus for corpus, who in _PEOPLE.items() if re.fullmatch(f"{corpus}-({who})", name)), None)


def of_file(path, *, speaker=None, corpus=None) -> str | None:
    """Say who speaks by the file's name alone, as "ravdess-01"; None where it has not the name of a known corpus.

    Only names that hardly anybody gives by chance count: those of RAVDESS, CREMA-D, EmoDB, TESS, SAVEE ("DC_a01", not
    the folder "DC"), IEMOCAP, MSP-IMPROV, SUBESCO and EMOVO, with a speaker whom the corpus has. "84-121123-0000" is
    of LibriSpeech where the folders say so, too, or `speaker` does. Clips of ESC-50 and ESC-10 tell the recording that
    they were cut from ("recording-100032"), ESC-10's in its own folders only ("001 - Dog bark").

    Parameters
    ----------
    speaker : optional
        What the clip's table says.
    corpus : str, optional
        Where it is "sample", or the file lies in a copy of the sample corpus, names like those of RAVDESS are of the
        sample corpus's voices ("sample-01").
    """
    path = Path(path)
    own = Path(path.name)  # folders do not count, unless they are asked about

    actor = filenames.parse("ravdess", own)
    if actor and (compared(corpus) == "sample" or any(map(_holds_sample, path.parents[1:3]))):
        return f"sample-{actor['actor']:02d}"
    for known in ("ravdess", "crema-d", "emodb", "tess", "savee"):
        fields = filenames.parse(known, own)
        name = fields and compared(fields["speaker"])
        if name and corpus_of(name):
            return name

    for known, pattern in _FILE_NAMES.items():
        match = re.fullmatch(pattern, path.stem)
        if match:
            return f"{known}-{''.join(match.groups()).casefold()}"
    return _librispeech(path, speaker) or _sound(path)


@lru_cache(maxsize=10_000)
def _holds_sample(folder):
    """Whether a folder is the sample corpus, or a copy of it."""
    return (folder / "factors.csv").is_file()


def _librispeech(path, speaker):
    """The reader of a file like 84/121123/84-121123-0000.flac; None where nothing but its name looks like that."""
    match = re.fullmatch(r"(\d{2,4})-(\d{3,6})-\d{4}", path.stem)
    if match is None:
        return None
    reader, chapter = match.groups()
    folders = [folder.name for folder in path.parents]
    by_chapter = folders[:2] == [chapter, reader]
    by_reader = reader in folders[:2] and any("librispeech" in name.casefold() for name in folders)
    by_table = compared(speaker) == compared(reader)
    return f"librispeech-{reader}" if by_chapter or by_reader or by_table else None


def _sound(path):
    """The recording that a clip of ESC-50 or ESC-10 was cut from; None of other files."""
    fields = filenames.parse("esc-50", Path(path.name))
    if fields is None or fields["fold"] not in "12345":
        return None
    of_esc50 = "number" in fields and int(fields["number"]) < 50
    of_esc10 = re.match(r"0(0[1-9]|10) - ", path.parent.name)
    return fields["speaker"] if of_esc50 or of_esc10 else None


def of_files(clips) -> pd.Series:
    """Say who speaks in each clip by its file's name alone, `of_file`; None where that does not tell."""
    corpora = clips["corpus"] if "corpus" in clips else [None] * len(clips)
    told = [
        None if pd.isna(path) else of_file(path, speaker=speaker, corpus=corpus)
        for path, speaker, corpus in zip(clips["path"], clips["speaker"], corpora)
    ]
    return pd.Series(told, index=clips.index, dtype=object)


def of_clips(clips) -> pd.Series:
    """Say who speaks in each clip: a speaker of a known corpus where that can be told, else the compared name.

    A name like "ravdess-01" counts first, then the file's name (`of_file`); but that only for speakers whose files all
    say the same, and something else than the files of all others: two people who gave their files the names of one
    actor are two people.
    """
    given = pd.Series([compared(speaker) for speaker in clips["speaker"]], index=clips.index, dtype=object)
    if "path" not in clips:
        return given

    of_known_corpus = given.map(lambda name: name is not None and corpus_of(name) is not None)
    told = given.where(of_known_corpus, of_files(clips))

    pairs = pd.DataFrame({"given": given.to_numpy(), "told": told.to_numpy()}).fillna("")
    one_file_name = pairs.groupby("given")["told"].transform("nunique") == 1
    one_speaker = pairs.groupby("told")["given"].transform("nunique") == 1
    agree = (one_file_name & one_speaker & (pairs["told"] != "")).to_numpy()
    return told.where(agree, given)


def heard_before(clips, trained, recordings=None, *, most=None) -> pd.Series:
    """Say of each speaker whether a model that was trained on others has heard him or her.

    Parameters
    ----------
    clips : DataFrame
        `speaker`, where known `path`, `corpus` and `fold`.
    trained : sequence of str
        Whom the model was trained on; "esc10-fold-1" is a fold of a corpus.
    recordings : DataFrame, optional
        `fingerprint` and `speaker` of what it was trained on, as of `fingerprints.read`.
    most : int, optional
        How many clips of a speaker are compared by sound; all by default.

    Returns
    -------
    Series
        By speaker, spelled as in `unified`: "heard", "not heard" or "not known". Heard is who bears the name of a
        training speaker, whose files bear the names of one (`of_file`), or of whom one recording is a training
        recording (`fingerprints`). Not heard is who can be compared with the training speakers and is none of them:
        a speaker of a known corpus, where those are of known corpora; or one whose name is built like theirs ("P9"
        beside "P1" and "P2"). Of all others it is not known: "P9" beside "ravdess-01" may be anybody, even where none
        of these recordings was trained on.
    """
    trained = {compared(name) for name in trained} - {None}
    if recordings is not None:
        trained |= {compared(name) for name in recordings["speaker"]} - {None}
    schemes = {_scheme(name) for name in trained}

    table = pd.DataFrame({"speaker": unified(clips["speaker"]), "known_as": of_clips(clips)})
    table["name"] = [compared(name) for name in table["speaker"]]
    table["fold"] = _folds(clips)
    states = {}
    for speaker, rows in table.dropna(subset="speaker").groupby("speaker", sort=False):
        known_as = {*rows["name"], *rows["known_as"], *rows["fold"]} - {None}
        comparable = all(
            _comparable(name, schemes) or _comparable(fold, schemes)
            for name, fold in zip(rows["known_as"], rows["fold"])
        )
        states[speaker] = HEARD if known_as & trained else NOT_HEARD if comparable else NOT_KNOWN
    states = pd.Series(states, dtype=object)

    if recordings is None or recordings.empty or not {"path", "audio"} & set(clips):
        return states
    table["sound"] = reading.sources(clips)
    for speaker, state in states.items():
        rows = table[table["speaker"] == speaker]
        of_known_corpus = all(map(corpus_of, rows["known_as"]))
        if state != HEARD and not of_known_corpus:
            asked = rows if most is None or len(rows) <= most else _spread(rows, most)
            if _copies(asked["sound"], recordings).any():
                states[speaker] = HEARD
    return states


def _spread(rows, most):
    """So many of the rows, evenly spread."""
    return rows.iloc[np.linspace(0, len(rows) - 1, most).round().astype(int)]


def _copies(sounds, recordings):
    """Which of the sounds hold one of the recordings, bool [sound]."""
    bits = fingerprints.distances(fingerprints.of_files(sounds), recordings["fingerprint"])
    return (bits <= fingerprints.COPY).any(axis=1)


def _folds(clips):
    """The fold of each clip as training folds are named, "esc10-fold-1"; None where corpus or fold is not known."""
    if "fold" not in clips or "corpus" not in clips:
        return [None] * len(clips)
    pairs = [(compared(corpus), compared(fold)) for corpus, fold in zip(clips["corpus"], clips["fold"])]
    return [f"{corpus.replace('-', '')}-fold-{fold}" if corpus and fold else None for corpus, fold in pairs]


def _scheme(name):
    """What names are built alike with: the corpus, or else the name with 0 for each number, "a" where it has none."""
    shape = re.sub(r"\d+", "0", name)
    return corpus_of(name) or (shape if shape != name or "0" in name else "a")


def _comparable(name, schemes):
    """Whether somebody of that name would be found among names of these schemes, if he or she were there."""
    if name is None:
        return False
    scheme = _scheme(name)
    if not schemes or scheme in schemes:
        return True
    if scheme == "recording" and any(other.endswith("-fold") for other in schemes):
        return False  # folds do not say of which recordings they are made
    return scheme in _PEOPLE and schemes <= set(_PEOPLE)
