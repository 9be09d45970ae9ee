"""Timed phonemes of a corpus, and how each is made."""

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
VOWELS = "aeiouyæøœɐɑɒɔəɘɚɛɜɝɞɤɨɪʉʊʌʏɵɯ"  # what begins with one is a vowel


def manner(phoneme) -> str:
    """Manner of articulation of a phoneme in IPA; ValueError where it is not known."""
    if phoneme[:1] in VOWELS:
        return "vowel"
    for name, members in MANNERS.items():
        if phoneme.rstrip("ːʰ") in members.split():
            return name
    raise ValueError(f"unknown phoneme {phoneme!r}: give phonemes.csv a column `manner`, or add it to phonemes.MANNERS")


def timed(clips) -> pd.DataFrame | None:
    """Timed phonemes of the clips that have them: `clip`, `start`, `end` (s), `phoneme` and its `manner`.

    They stand in `phonemes.csv` beside a clip's file or up to two folders above: `file`, relative to that folder,
    `start`, `end`, `phoneme` (IPA) and, if you like, `manner`. None where no clip has any.
    """
    rows = []
    if "path" not in clips:
        return None
    for index, path in zip(clips.index, map(Path, clips["path"])):
        home = next((folder for folder in path.parents[:3] if (folder / "phonemes.csv").is_file()), None)
        if home is not None:
            rows.append({"clip": index, "home": home, "file": path.relative_to(home).as_posix()})
    if not rows:
        return None
    groups = pd.DataFrame(rows).groupby("home")
    table = pd.concat([part.merge(pd.read_csv(home / "phonemes.csv"), on="file") for home, part in groups])
    if "manner" not in table:
        table["manner"] = table["phoneme"].map({name: manner(name) for name in table["phoneme"].unique()})
    return table[["clip", "start", "end", "phoneme", "manner"]].reset_index(drop=True)
