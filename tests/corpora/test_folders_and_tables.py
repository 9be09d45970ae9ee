"""Folders are walked, and tables are read, in one place each."""

from __future__ import annotations

import io

import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_lib import corpora
from xai_lib.corpora import folders, tables


def touch(*paths, content=b"x"):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)


# ---------- folders


def test_walk_enters_linked_folders_once(tmp_path):
    """Linked files keep the names of their links, linked folders are entered once, and broken links are counted."""
    touch(tmp_path / "originals/1", tmp_path / "elsewhere/deep/c.wav")
    root = tmp_path / "corpus"
    (root / "angry").mkdir(parents=True)
    (root / "angry/a.wav").symlink_to(tmp_path / "originals/1")
    (root / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "again").symlink_to(tmp_path / "elsewhere")
    (root / "angry/loop").symlink_to(root)
    (root / "angry/gone.wav").symlink_to(tmp_path / "nowhere.wav")
    found = folders.walk(root, (".wav",))
    assert [file.relative_to(root).as_posix() for file in found.files] == ["again/deep/c.wav", "angry/a.wav"]
    assert found.left_out == {"folders linked again": 2, "links to what is not there": 1}


def test_from_folder_prefers_folders_to_links(tmp_path):
    """A link to a deeper folder does not replace its label, since folders come before links to them."""
    touch(tmp_path / "data/angry/a.wav", tmp_path / "data/sad/c.wav")
    (tmp_path / "newest").symlink_to(tmp_path / "data/angry")
    with pytest.warns(UserWarning, match="folders linked again"):
        clips = corpora.from_folder(tmp_path)
    assert clips["label"].tolist() == ["angry", "sad"]


def test_walk_excludes_hidden_files(tmp_path):
    """Hidden files and folders and trash are left out and counted, and files of other types are described."""
    hidden = [".ipynb_checkpoints/a.wav", "__MACOSX/b.wav", ".Trash-1000/c.wav", "$RECYCLE.BIN/d.wav", "angry/._e.wav"]
    touch(*(tmp_path / name for name in hidden), tmp_path / "angry/A.WAV", tmp_path / "notes.txt", tmp_path / "f.m4a")
    found = folders.walk(tmp_path, (".wav",))
    assert [file.name for file in found.files] == ["A.WAV"]
    assert found.left_out["hidden folders"] == 4 and found.left_out["hidden files"] == 1
    assert found.described() in ("1 .txt, 1 .m4a", "1 .m4a, 1 .txt")


def test_from_folder_describes_other_files(tmp_path):
    """The error for a folder without sound files counts its other files, and a missing folder is refused."""
    touch(tmp_path / "phone/1.m4a", tmp_path / "phone/2.m4a")
    with pytest.raises(FileNotFoundError, match=r"no sound files .* other files: 2 \.m4a"):
        corpora.from_folder(tmp_path / "phone")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        corpora.from_folder(tmp_path / "nowhere")


def test_from_folder_parses_pattern(tmp_path):
    """Named groups of a pattern become columns, unmatched files cause a warning, and invalid patterns are refused."""
    touch(tmp_path / "S01/angry_1.wav", tmp_path / "S02/sad_1.wav", tmp_path / "S02/odd.wav")
    with pytest.warns(UserWarning, match=r"1 \(not matched by the pattern\)"):
        clips = corpora.from_folder(tmp_path, pattern=r"(?P<speaker>S\d+)/(?P<label>[a-z]+)_(?P<take>\d)")
    assert clips[["label", "speaker", "take"]].to_numpy().tolist() == [["angry", "S01", "1"], ["sad", "S02", "1"]]
    for pattern, message in (("(", "not a regular expression"), ("S", "no named group"), ("(?P<label>x)", "none of 3")):
        with pytest.raises(ValueError, match=message):
            corpora.from_folder(tmp_path, pattern=pattern)


def test_from_folder_deduplicates_with_pattern(tmp_path):
    """With a pattern too, copies of one recording are taken once, with a warning."""
    touch(tmp_path / "one/S1_angry.wav", tmp_path / "two/S1_angry.wav", tmp_path / "two/S2_sad.wav")
    with pytest.warns(UserWarning, match="the same recording again"):
        clips = corpora.from_folder(tmp_path, pattern=r"(?P<speaker>\w+)_(?P<label>\w+)\.wav")
    assert clips["speaker"].tolist() == ["S1", "S2"]


def test_from_folder_deduplicates_recordings(tmp_path):
    """Copies in nested folders and links to files of the same corpus are taken once, with a warning."""
    touch(tmp_path / "angry/a.wav", tmp_path / "angry/angry/a.wav", tmp_path / "sad/b.wav")
    touch(tmp_path / "sad/c.wav", content=b"y")
    (tmp_path / "sad/d.wav").symlink_to(tmp_path / "sad/c.wav")
    with pytest.warns(UserWarning, match=r"2 \(the same recording again\)"):
        clips = corpora.from_folder(tmp_path)
    assert clips["label"].tolist() == ["angry", "sad", "sad"]


# ---------- tables


def csv(tmp_path, text, name="a.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_bytes(text.encode(encoding))
    return path


def test_read_strips_blanks_and_keeps_text(tmp_path):
    """`read` strips blanks, keeps labels, speakers and folds as text, and converts numbers and booleans."""
    path = csv(tmp_path, "path, label ,speaker,fold,age,keep\na.wav, angry ,007 ,1,30,True\nb.wav,NA,12,2,,False\n\n")
    table = tables.read(path)
    assert table.columns.tolist() == ["path", "label", "speaker", "fold", "age", "keep"]
    assert table["label"].tolist() == ["angry", "NA"]
    assert table["speaker"].tolist() == ["007", "12"] and table["fold"].tolist() == ["1", "2"]
    assert table["age"].tolist()[0] == 30 and table["age"].isna().tolist() == [False, True]
    assert table["keep"].tolist() == [True, False]


def test_read_treats_null_as_missing_number(tmp_path):
    """`read` takes `null` as a missing value in a column of numbers, and as text in a column of text."""
    table = tables.read(csv(tmp_path, "age,note\n7,random\nnull,null\n"))
    assert table["age"].isna().tolist() == [False, True] and table["age"][0] == 7
    assert table["note"].tolist() == ["random", "null"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_read_detects_separator_and_encoding(tmp_path, separator, encoding):
    """`read` gives the same table for each of four separators in each of four encodings."""
    text = separator.join(["path", "label", "who"]) + "\r\n" + separator.join(["ä.wav", '"a, b; c|d"', "Zoë"]) + "\r\n"
    table = tables.read(csv(tmp_path, text, encoding=encoding))
    assert table.to_numpy().tolist() == [["ä.wav", "a, b; c|d", "Zoë"]]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "it is empty"),
        ("\n \n", "it is empty"),
        ("path,label,label\na,b,c\n", "two columns named 'label'"),
        ("path,label\na.wav,angry, very\n", "line 2: 3 cells, but the header has 2; the first extra cell is 'very'"),
        ("path\0,label\n", "it is not text"),
        ('path,label\nx.wav,"angry\nb.wav,sad\nc.wav,calm\n', "is a closing quote missing"),
        ('path,label\nx.wav,"angry\nb.wav,sad"\nc.wav,calm\n', "a label spans several lines"),
    ],
)
def test_read_refuses_malformed_tables(tmp_path, text, message):
    """`read` refuses empty, binary and malformed tables with a message that names the fault."""
    with pytest.raises(ValueError, match=message):
        tables.read(csv(tmp_path, text))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_read_accepts_any_line_ending(tmp_path, ends):
    """`read` accepts the line endings of Unix, Windows and old Mac systems, and skips blank lines."""
    path = tmp_path / "a.csv"
    path.write_bytes(ends.join(["", "path;label", "a.wav;angry", ""]).encode())
    assert tables.read(path).to_dict("list") == {"path": ["a.wav"], "label": ["angry"]}


def test_read_ignores_trailing_separators(tmp_path):
    """`read` ignores separators at the ends of rows, and cells that a short row lacks are missing."""
    table = tables.read(csv(tmp_path, "path,label\na.wav,angry,\nb.wav,sad,\nc.wav\n"))
    assert table["label"].tolist()[:2] == ["angry", "sad"] and pd.isna(table["label"][2])


TEXT = st.text(st.characters(codec="utf-8", exclude_characters='\0\r\n",;\t|'), min_size=1, max_size=8).filter(
    str.strip
)


ROWS = st.lists(st.tuples(TEXT, TEXT, st.integers(0, 2000).map(str)), min_size=1, max_size=5)


def check_round_trip(folder, rows):
    written = pd.DataFrame(rows, columns=["label", "speaker", "fold"])
    written.to_csv(folder / "a.csv")
    pd.testing.assert_frame_equal(tables.read(folder / "a.csv"), written.map(str.strip), check_dtype=False)


@settings(max_examples=50)
@given(rows=ROWS)
def test_read_round_trips_pandas_tables(tmp_path_factory, rows):
    """`read` returns tables as pandas has written them, apart from blanks around cells."""
    check_round_trip(tmp_path_factory.mktemp("table"), rows)


@pytest.mark.full
@settings(max_examples=2000)
@given(rows=ROWS)
def test_read_round_trips_many_pandas_tables(tmp_path_factory, rows):
    """`read` returns thousands of tables as pandas has written them, apart from blanks around cells."""
    check_round_trip(tmp_path_factory.mktemp("table"), rows)


def check_any_table(folder, text, encoding):
    path = folder / "a.csv"
    path.write_bytes(text.encode(encoding, errors="replace"))
    try:
        table = tables.read(path)
    except ValueError as error:
        assert str(path) in str(error)
    else:
        assert table.columns.is_unique and not table.isna().all(axis=1).any()


CELLS = st.text(alphabet=' abc1.,;\t|"\n\r\0ä_', max_size=60)
ENCODINGS = st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"])


@settings(max_examples=50)
@given(text=CELLS, encoding=ENCODINGS)
def test_read_parses_or_refuses_any_text(tmp_path_factory, text, encoding):
    """Random text is read as a table with unique columns and no empty row, or refused with the file's path."""
    check_any_table(tmp_path_factory.mktemp("table"), text, encoding)


@pytest.mark.full
@settings(max_examples=2000)
@given(text=CELLS, encoding=ENCODINGS)
def test_read_parses_or_refuses_many_texts(tmp_path_factory, text, encoding):
    """Thousands of random texts are read as tables with unique columns, or refused with the file's path."""
    check_any_table(tmp_path_factory.mktemp("table"), text, encoding)


def test_load_round_trips_through_csv(tmp_path):
    """ESC-10 clips that are written with `to_csv` are loaded again with equal values, index and columns."""
    buffer = io.BytesIO()
    soundfile.write(buffer, [0.1] * 800, 16000, format="OGG")
    for fold in range(1, 6):
        touch(tmp_path / f"001 - Rain/{fold}-10{fold}-A.ogg", content=buffer.getvalue())
        touch(tmp_path / f"002 - Dog/{fold}-20{fold}-A.ogg", content=buffer.getvalue())
    clips = corpora.load("esc-10", root=tmp_path)
    clips.to_csv(tmp_path / "mine.csv")
    back = corpora.load(tmp_path / "mine.csv")
    pd.testing.assert_frame_equal(back, clips, check_dtype=False)
