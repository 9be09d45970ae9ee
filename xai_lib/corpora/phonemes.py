"""Timed phonemes of a corpus, and their manners of articulation."""

from pathlib import Path

import pandas as pd

MANNERS = {  # of consonants, in IPA
    "plosive": "p b t d k g ɡ q ʔ",
    "affricate": "tʃ dʒ ts dz pf",
    "fricative": "f v θ ð s z ʃ ʒ ç x ɣ h",
    "nasal": "m n ɲ ŋ",
    "tap": "ɾ",
    "trill": "r ʀ",
    "approximant": "l ɫ ɹ ɻ j w ʋ ʎ",
}
VOWELS = "aeiouyæøœɐɑɒɔəɘɚɛɜɝɞɤɨɪʉʊʌʏɵɯ"  # a phoneme that begins with one of these is a vowel


def manner(phoneme) -> str:
    """Return the manner of articulation of a phoneme in IPA; ValueError where it is not known."""
    if phoneme[:1] in VOWELS:
        return "vowel"
    for name, members in MANNERS.items():
        if phoneme.rstrip("ːʰ") in members.split():
            return name
    raise ValueError(
        f"unknown phoneme {phoneme!r}: add a column `manner` to phonemes.csv, or the phoneme to phonemes.MANNERS"
    )


def timed(clips) -> pd.DataFrame | None:
    """Return the timed phonemes of the clips that have them: `clip`, `start`, `end` (s), `phoneme` and its `manner`.

    They are read from `phonemes.csv` beside a clip's file or up to two folders above: `file`, relative to that folder,
    `start`, `end`, `phoneme` (IPA) and, optionally, `manner`. None where no clip has any.
    """
    rows = []
    if "path" not in clips:
        return None
    for index, path in zip(clips.index, map(Path, clips["path"])):
        table_folder = next((folder for folder in path.parents[:3] if (folder / "phonemes.csv").is_file()), None)
        if table_folder is not None:
            rows.append({"clip": index, "folder": table_folder, "file": path.relative_to(table_folder).as_posix()})
    if not rows:
        return None
    groups = pd.DataFrame(rows).groupby("folder")
    table = pd.concat(
        [part.merge(pd.read_csv(table_folder / "phonemes.csv"), on="file") for table_folder, part in groups]
    )
    if "manner" not in table:
        table["manner"] = table["phoneme"].map({name: manner(name) for name in table["phoneme"].unique()})
    return table[["clip", "start", "end", "phoneme", "manner"]].reset_index(drop=True)
