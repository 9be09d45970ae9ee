"""Each row of the tables in docs/inputs.md is what happens."""

from __future__ import annotations

import re
import struct
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch

from xai_lib import audio, corpora, models
from xai_lib.corpora import folders, tables

PAGE = Path(__file__).resolve().parents[2] / "docs" / "inputs.md"
ROW = re.compile(r"\| (?P<given>.*?) \| `(?P<code>.*)` \| `(?P<result>.*)` \|")
ROWS = [match.groupdict() for match in map(ROW.fullmatch, PAGE.read_text(encoding="utf-8").splitlines()) if match]
RATE = 16000
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


def test_inputs_page_has_all_rows_parsed():
    """All rows with code in the tables of `docs/inputs.md`, more than 35, are parsed."""
    lines = [line for line in PAGE.read_text(encoding="utf-8").splitlines() if line.startswith("| ") and "`" in line]
    assert len(ROWS) == len(lines) > 35


@pytest.fixture(scope="module")
def names(tmp_path_factory):
    """What the page's code can name, in a folder with its files."""
    folder = tmp_path_factory.mktemp("page")
    rng = np.random.default_rng(0)
    wave = (0.1 * rng.standard_normal(RATE) * np.hanning(RATE)).astype(np.float32)

    def write(name, samples, **options):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        soundfile.write(folder / name, samples, RATE, **options)

    for name in ("a.wav", "b.wav", "classes/angry/a.wav", "classes/happy/b.wav", "classes/.ipynb_checkpoints/c.wav"):
        write(name, wave, subtype="FLOAT")
    for name in (
        "mine/S01/sad1.wav",
        "tess/OAF_Fear/OAF_back_fear.wav",
        "tess/again/OAF_back_fear.wav",
        "sample/a.wav",
    ):
        write(name, wave, subtype="FLOAT")
    write("long.wav", np.tile(wave, 70))
    write("silent.wav", np.zeros(RATE))
    write("anti.wav", np.stack([wave, -wave], axis=1))
    write("offset.wav", wave + 0.05, subtype="FLOAT")
    (folder / "text.wav").write_text("this is no sound")
    (folder / "phone").mkdir()
    for name in ("phone/1.m4a", "phone/2.m4a"):
        (folder / name).write_bytes(b"....ftypM4A ")

    write("stream.flac", wave)
    content = bytearray((folder / "stream.flac").read_bytes())
    content[21] &= 0xF0
    content[22:26] = bytes(4)
    (folder / "stream.flac").write_bytes(content)
    write("unfinished.wav", wave, subtype="PCM_16")
    content = bytearray((folder / "unfinished.wav").read_bytes())
    place = content.find(b"data")
    content[4:8] = content[place + 4 : place + 8] = struct.pack("<I", 0)
    (folder / "unfinished.wav").write_bytes(content)

    (folder / "mine.csv").write_text("path,label,speaker\na.wav,anger,007\nb.wav,happy,P2\n")
    (folder / "blanks.csv").write_text("path , label\na.wav, angry \n")
    (folder / "semicolons.csv").write_text("path;label\na.wav;angry\n")
    (folder / "comma.csv").write_text("path,label\na.wav,angry, very\n")
    (folder / "other.csv").write_text("file,label\na.wav,angry\n")

    model = models.load("pocket", device="cpu")
    known = {"audio": audio, "corpora": corpora, "folders": folders, "tables": tables, "model": model, "wave": wave}
    return known | {"np": np, "pd": pd, "torch": torch, "Path": Path, "warned": warned, "folder": folder}


def data_sets(folder):
    """A data set of two clips, and one of two parts."""
    datasets = pytest.importorskip("datasets", reason="the library datasets is not installed")
    features = {"audio": {"path": datasets.Value("string"), "bytes": datasets.Value("binary")}}
    features["label"] = datasets.ClassLabel(names=["calm", "angry"])
    content = (folder / "a.wav").read_bytes()
    columns = {"audio": [{"path": None, "bytes": content}] * 2, "label": [1, 0]}
    table = datasets.Dataset.from_dict(columns, features=datasets.Features(features))
    table = table.cast_column("audio", datasets.Audio())
    return {"dataset": table, "parts": datasets.DatasetDict({"train": table, "test": table})}


def warned(function, *arguments):
    """What a call warns of."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        function(*arguments)
    return str(told[0].message)


@pytest.mark.parametrize("row", ROWS, ids=[row["given"] for row in ROWS])
def test_inputs_page_row_gives_stated_result(row, names, monkeypatch):
    """The code in each row of `docs/inputs.md` gives the result or the error that is stated beside it."""
    monkeypatch.chdir(names["folder"])
    if "dataset" in row["code"] or "parts" in row["code"]:
        names = names | data_sets(names["folder"])
    code = row["code"].replace(r"\|", "|")
    try:
        result = str(eval(code, dict(names)))  # noqa: S307
    except (ValueError, OSError) as error:
        result = f"{type(error).__name__}: {error}"
    parts = map(re.escape, row["result"].split("…"))
    # paths are given in full where the library says them
    result = result.replace(f"{names['folder']}/", "")
    assert re.fullmatch(".*".join(parts), result, re.DOTALL), result
