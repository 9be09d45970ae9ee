"""File names of known corpora: the label, speaker, sex and other fields that they hold."""

import re
from collections import Counter
from pathlib import Path

import pandas as pd

EMOTIONS = ("neutral", "calm", "happy", "sad", "angry", "fearful", "disgust", "surprised")


def ordered(labels) -> list:
    """Return each label once: emotions in their usual order, then the others, sorted."""
    known = set(labels)
    return [name for name in EMOTIONS if name in known] + sorted(known - set(EMOTIONS), key=str)


_CREMA_D = {"ANG": "angry", "DIS": "disgust", "FEA": "fearful", "HAP": "happy", "NEU": "neutral", "SAD": "sad"}
_EMODB = {"W": "angry", "L": "boredom", "E": "disgust", "A": "fearful", "F": "happy", "T": "sad", "N": "neutral"}
_TESS = {"fear": "fearful", "ps": "surprised"} | {
    name: name for name in ("angry", "disgust", "happy", "neutral", "sad")
}
_SAVEE = {"a": "angry", "d": "disgust", "f": "fearful", "h": "happy", "n": "neutral", "sa": "sad", "su": "surprised"}
_ESC = r"(?P<fold>\d)-(?P<recording>\d+)-(?P<take>[A-Z])(-(?P<number>\d+))?"
_EMODB_MEN = ("03", "10", "11", "12", "15")

# corpus: pattern of a file name without its suffix, label by code, sex by speaker where it can be derived
# fmt: off
KNOWN = {
    "ravdess": ((r"(?P<modality>0[123])-(?P<channel>0[12])-(?P<label>0[1-8])-(?P<intensity>0[12])-"
                 r"(?P<statement>0[12])-(?P<repetition>0[12])-(?P<speaker>(?!00)\d\d)"),
                {f"{number:02d}": emotion for number, emotion in enumerate(EMOTIONS, 1)},
                lambda speaker_code: "male" if int(speaker_code) % 2 else "female"),
    "crema-d": (r"(?P<speaker>1\d{3})_(?P<statement>[A-Z]{3})_(?P<label>[A-Z]{3})_(?P<intensity>[A-Z]{1,2})",
                _CREMA_D, None),
    "emodb": (r"(?P<speaker>\d\d)(?P<statement>[ab]\d\d)(?P<label>[A-Z])(?P<repetition>[a-z])",
              _EMODB, lambda speaker_code: "male" if speaker_code in _EMODB_MEN else "female"),
    "tess": (r"(?P<speaker>OAF?|YAF)_(?P<statement>[A-Za-z]+)_(?P<label>[a-z]+)",
             _TESS, lambda speaker_code: "female"),
    "savee": (r"(?P<speaker>DC|JE|JK|KL)_(?P<label>[a-z]{1,2})(?P<statement>\d\d)",
              _SAVEE, lambda speaker_code: "male"),
    "esc-50": (_ESC, None, None),
    "esc-10": (_ESC, None, None),
}
# fmt: on
VIDEO = (".mp4", ".m4v", ".mov", ".avi", ".mkv")
_RAVDESS = {  # meanings of the codes of its other fields
    "modality": {"01": "audio-video", "02": "video-only", "03": "audio-only"},
    "channel": {"01": "speech", "02": "song"},
    "intensity": {"01": "normal", "02": "strong"},
}


def parse(corpus, path) -> dict | None:
    """Parse one file name into its fields; None where it is not a name of that corpus, one of `KNOWN`.

    The fields are `label` (spelled as in `EMOTIONS`; EmoDB adds "boredom"), `speaker` ("ravdess-07"; for ESC the
    recording that a clip was cut from) and all others that the name holds. For "savee" the folder's name is used, too:
    it is the speaker in the original layout.
    """
    path = Path(path)
    pattern, labels, sex = KNOWN[corpus]
    match = re.fullmatch(pattern, path.stem)
    if match is None and corpus == "savee":
        match = re.fullmatch(pattern, f"{path.parent.name}_{path.stem}")
    if match is None:
        return None
    fields = {name: value for name, value in match.groupdict().items() if value is not None}
    if labels is not None:
        speaker_code = fields["speaker"].removesuffix("F")  # one file of TESS has OA for OAF
        if fields["label"] not in labels:
            return None
        fields |= {"label": labels[fields["label"]], "speaker": f"{corpus}-{speaker_code}"} | (
            {"sex": sex(speaker_code)} if sex else {}
        )
    if corpus.startswith("esc"):  # clips of one recording are as alike as clips of one speaker
        fields["speaker"] = f"recording-{fields['recording']}"
    if corpus == "ravdess":
        fields |= {name: meanings[fields[name]] for name, meanings in _RAVDESS.items()}
        fields |= {"actor": int(speaker_code), **{name: int(fields[name]) for name in ("statement", "repetition")}}
    return fields


def table(corpus, paths, *, others=False) -> tuple[pd.DataFrame, Counter]:
    """Return the table of the clips among `paths`, and the number of files left out by reason.

    Of RAVDESS only audio files of speech are kept; songs and videos are left out. In every corpus a recording is kept
    once: later files whose names hold the same fields are left out, since widespread copies hold everything twice, in
    two folders or formats. With `others`, files of other names are kept, unlabelled.
    """
    rows, left_out, recordings = [], Counter(), set()
    for path in paths:
        fields, is_video = parse(corpus, path), path.suffix.lower() in VIDEO
        if fields is None and others and not is_video:
            rows.append({"path": str(path), "label": None})
        elif fields is None:
            left_out[f"not a name of {corpus}"] += 1
        elif is_video or fields.get("modality", "audio-only") != "audio-only":
            left_out["video"] += 1
        elif fields.get("channel") == "song":
            left_out["song"] += 1
        elif (recording := tuple(fields.values())) in recordings:
            left_out["the same recording again"] += 1
        else:
            recordings.add(recording)
            rows.append({"path": str(path), **fields, "corpus": corpus})
    return pd.DataFrame(rows), left_out
