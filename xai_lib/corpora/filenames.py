"""File names of known corpora: the label, speaker, sex and other fields that they hold."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


@dataclass(frozen=True)
class Grammar:
    """What the file names of a corpus hold."""

    pattern: str  # of a name without its suffix; its groups are the fields
    labels: dict[str, str] | None = None  # by code
    sex: Callable[[str], str] | None = None  # of a speaker's code, where it can be derived


def ordered(labels: Iterable) -> list:
    """Return each label once: emotions in their usual order, then the others, sorted."""
    present = set(labels)
    emotions = [name for name in EMOTIONS if name in present]
    return emotions + sorted(present - set(EMOTIONS), key=str)


def _ravdess_sex(speaker_code) -> str:
    """Return the sex of an actor: odd numbers are men."""
    return "male" if int(speaker_code) % 2 else "female"


def _emodb_sex(speaker_code) -> str:
    """Return the sex of a speaker."""
    return "male" if speaker_code in ("03", "10", "11", "12", "15") else "female"


_ESC = Grammar(r"(?P<fold>\d)-(?P<recording>\d+)-(?P<take>[A-Z])(-(?P<number>\d+))?")

KNOWN = {
    "ravdess": Grammar(
        r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<label>0[1-8])-(?P<intensity>0[12])-"
        r"(?P<statement>0[12])-(?P<repetition>0[12])-(?P<speaker>(?!00)\d\d)",
        {f"{number:02d}": emotion for number, emotion in enumerate(EMOTIONS, 1)},
        _ravdess_sex,
    ),
    "crema-d": Grammar(
        r"(?P<speaker>1\d{3})_(?P<statement>[A-Z]{3})_(?P<label>[A-Z]{3})_(?P<intensity>[A-Z]{1,2})",
        {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"},
    ),
    "emodb": Grammar(
        r"(?P<speaker>\d\d)(?P<statement>[ab]\d\d)(?P<label>[A-Z])(?P<repetition>[a-z])",
        {"W": "angry", "L": "boredom", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"},
        _emodb_sex,
    ),
    "tess": Grammar(
        r"(?P<speaker>OAF?|YAF)_(?P<statement>[A-Za-z]+)_(?P<label>[a-z]+)",
        {
            "angry": "angry",
            "disgust": "disgust",
            "fear": "fearful",
            "happy": "happy",
            "neutral": "neutral",
            "ps": "surprised",
            "sad": "sad",
        },
        lambda speaker_code: "female",
    ),
    "savee": Grammar(
        r"(?P<speaker>DC|JE|JK|KL)_(?P<label>[a-z]{1,2})(?P<statement>\d\d)",
        {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised"},
        lambda speaker_code: "male",
    ),
    "esc-50": _ESC,
    "esc-10": _ESC,
}
VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv")
_RAVDESS = {  # meanings of the codes of its other fields
    "modality": {"01": "audio-video", "02": "video-only", "03": "audio-only"},
    "channel": {"01": "speech", "02": "song"},
    "intensity": {"01": "normal", "02": "strong"},
}


def parse(corpus: str, path: str | Path) -> dict | None:
    """Parse one file name into its fields; None where it is not a name of that corpus, one of `KNOWN`.

    The fields are `label` (spelled as in `EMOTIONS`; EmoDB adds "boredom"), `speaker` ("ravdess-07"; for ESC the
    recording that a clip was cut from) and all others that the name holds. For "savee" the folder's name is used, too:
    it is the speaker in the original layout.
    """
    path = Path(path)
    grammar = KNOWN[corpus]
    match = re.fullmatch(grammar.pattern, path.stem)
    if match is None and corpus == "savee":
        match = re.fullmatch(grammar.pattern, f"{path.parent.name}_{path.stem}")
    if match is None:
        return None
    fields = {name: value for name, value in match.groupdict().items() if value is not None}

    if grammar.labels is not None:
        if fields["label"] not in grammar.labels:
            return None
        speaker_code = fields["speaker"].removesuffix("F")  # one file of TESS has OA for OAF
        fields["label"] = grammar.labels[fields["label"]]
        fields["speaker"] = f"{corpus}-{speaker_code}"
        if grammar.sex is not None:
            fields["sex"] = grammar.sex(speaker_code)
    if corpus.startswith("esc"):  # clips of one recording are as alike as clips of one speaker
        fields["speaker"] = f"recording-{fields['recording']}"
    if corpus == "ravdess":
        for name, meanings in _RAVDESS.items():
            fields[name] = meanings[fields[name]]
        fields["actor"] = int(speaker_code)
        fields["statement"] = int(fields["statement"])
        fields["repetition"] = int(fields["repetition"])
    return fields


def table(corpus: str, paths: Sequence[Path], *, others: bool = False) -> tuple[pd.DataFrame, Counter]:
    """Return the table of the clips among `paths`, and the number of files left out by reason.

    Of RAVDESS only audio files of speech are kept; songs and videos are left out. In every corpus a recording is kept
    once: later files whose names hold the same fields are left out, since widespread copies hold everything twice, in
    two folders or formats. With `others`, files of other names are kept, unlabelled.
    """
    rows = []
    left_out = Counter()
    known_recordings = set()
    for path in paths:
        fields = parse(corpus, path)
        is_video = path.suffix.lower() in VIDEO
        if fields is None and others and not is_video:
            rows.append({"path": str(path), "label": None})
            continue

        reason = _reason_to_leave_out(corpus, fields, is_video)
        if reason is None:
            recording = tuple(fields.values())
            if recording in known_recordings:
                reason = "the same recording again"
        if reason is not None:
            left_out[reason] += 1
            continue
        known_recordings.add(recording)
        rows.append({"path": str(path), **fields, "corpus": corpus})
    return pd.DataFrame(rows), left_out


def _reason_to_leave_out(corpus, fields, is_video) -> str | None:
    """Return why a file with these fields is no clip of speech or sound; None where it is one."""
    if fields is None:
        return f"not a name of {corpus}"
    if is_video or fields.get("modality", "audio-only") != "audio-only":
        return "video"
    if fields.get("channel") == "song":
        return "song"
    return None
