"""Write which recordings the bundled models were trained on: `python data/recipes/pocket_recordings.py`.

Fingerprints of them stand in `recordings.csv` beside the weights, so that the workbook knows a copy under any name.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import pandas as pd

from xai_lib import corpora
from xai_lib.corpora import fingerprints, identity

DATA = Path(__file__).resolve().parents[1]


def write_wavlm(folder: Path, ravdess: Path | None, librispeech: Path) -> pd.DataFrame:
    """Write what pocket-wavlm was trained on, RAVDESS actors 1–16, sample voices 1–16 and LibriSpeech; selected on 17–18.

    `ravdess` is where `corpora.load` looks by default. Returns the table.
    """
    real = corpora.load("ravdess", root=ravdess)
    sample = corpora.load("sample")
    read = sorted(Path(librispeech).expanduser().rglob("*.flac"))
    readers = [f"librispeech-{path.stem.split('-')[0]}" for path in read]
    parts = [
        real[real["actor"] <= 16].assign(use="trained"),
        real[real["actor"].isin([17, 18])].assign(use="selected"),
        sample[sample["split"] == "train"].assign(use="trained"),
        pd.DataFrame({"path": map(str, read), "speaker": readers, "use": "trained"}),
    ]
    return _write(folder, pd.concat(parts, ignore_index=True))


def write_ast(folder: Path, esc10: Path) -> pd.DataFrame:
    """Write what pocket-ast was trained on, folds 1–4 of ESC-10; returns the table."""
    clips = corpora.load("esc-10", root=esc10)
    trained = clips[clips["fold"].isin(["1", "2", "3", "4"])]
    return _write(folder, trained.assign(use="trained"))


def _write(folder, clips):
    """Fingerprints of the clips, written and returned."""
    table = pd.DataFrame(
        {"use": clips["use"], "speaker": [identity.comparable_name(name) for name in clips["speaker"]]}
    )
    table["fingerprint"] = fingerprints.of_files(clips["path"])
    fingerprints.write(table, folder)
    return table


def main() -> None:
    real = os.environ.get("XAI_REAL_DATA")
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--real", type=Path, default=real, help="folder of ravdess/, librispeech/ and esc10/")
    given = options.parse_args()
    if given.real is None:
        options.error("name the folder that holds ravdess/, librispeech/ and esc10/ with --real, or set XAI_REAL_DATA")
    tables = {
        "pocket-wavlm": write_wavlm(DATA / "pocket-wavlm", given.real / "ravdess", given.real / "librispeech"),
        "pocket-ast": write_ast(DATA / "pocket-ast", given.real / "esc10"),
    }
    for name, table in tables.items():
        print(f"{name}: {table['use'].value_counts().to_dict()}")


if __name__ == "__main__":
    main()
