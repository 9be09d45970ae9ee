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


def test_links_keep_their_names_and_linked_folders_are_entered_once(tmp_path):
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


def test_a_link_to_a_deeper_folder_does_not_take_its_label(tmp_path):
    """Folders come before links to them, at any depth."""
    touch(tmp_path / "data/angry/a.wav", tmp_path / "data/sad/c.wav")
    (tmp_path / "newest").symlink_to(tmp_path / "data/angry")
    with pytest.warns(UserWarning, match="folders linked again"):
        clips = corpora.from_folder(tmp_path)
    assert clips["label"].tolist() == ["angry", "sad"]


def test_hidden_things_and_trash_are_left_out(tmp_path):
    hidden = [".ipynb_checkpoints/a.wav", "__MACOSX/b.wav", ".Trash-1000/c.wav", "$RECYCLE.BIN/d.wav", "angry/._e.wav"]
    touch(*(tmp_path / name for name in hidden), tmp_path / "angry/A.WAV", tmp_path / "notes.txt", tmp_path / "f.m4a")
    found = folders.walk(tmp_path, (".wav",))
    assert [file.name for file in found.files] == ["A.WAV"]
    assert found.left_out["hidden folders"] == 4 and found.left_out["hidden files"] == 1
    assert found.described() in ("1 .txt, 1 .m4a", "1 .m4a, 1 .txt")


def test_what_is_there_instead_is_said(tmp_path):
    touch(tmp_path / "phone/1.m4a", tmp_path / "phone/2.m4a")
    with pytest.raises(FileNotFoundError, match=r"no sound files .* other files: 2 \.m4a"):
        corpora.from_folder(tmp_path / "phone")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        corpora.from_folder(tmp_path / "nowhere")


def test_a_pattern_over_paths(tmp_path):
    touch(tmp_path / "S01/angry_1.wav", tmp_path / "S02/sad_1.wav", tmp_path / "S02/odd.wav")
    with pytest.warns(UserWarning, match=r"1 \(not matched by the pattern\)"):
        clips = corpora.from_folder(tmp_path, pattern=r"(?P<speaker>S\d+)/(?P<label>[a-z]+)_(?P<take>\d)")
    assert clips[["label", "speaker", "take"]].to_numpy().tolist() == [["angry", "S01", "1"], ["sad", "S02", "1"]]
    for pattern, message in (("(", "not a regular expression"), ("S", "no named group"), ("(?P<label>x)", "none of 3")):
        with pytest.raises(ValueError, match=message):
            corpora.from_folder(tmp_path, pattern=pattern)


def test_copies_are_taken_once_by_a_pattern_too(tmp_path):
    touch(tmp_path / "one/S1_angry.wav", tmp_path / "two/S1_angry.wav", tmp_path / "two/S2_sad.wav")
    with pytest.warns(UserWarning, match="the same recording again"):
        clips = corpora.from_folder(tmp_path, pattern=r"(?P<speaker>\w+)_(?P<label>\w+)\.wav")
    assert clips["speaker"].tolist() == ["S1", "S2"]


def test_recordings_that_are_there_twice_are_taken_once(tmp_path):
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


def test_blanks_are_taken_off_and_names_stay_text(tmp_path):
    path = csv(tmp_path, "path, label ,speaker,fold,age,keep\na.wav, angry ,007 ,1,30,True\nb.wav,NA,12,2,,False\n\n")
    table = tables.read(path)
    assert table.columns.tolist() == ["path", "label", "speaker", "fold", "age", "keep"]
    assert table["label"].tolist() == ["angry", "NA"]
    assert table["speaker"].tolist() == ["007", "12"] and table["fold"].tolist() == ["1", "2"]
    assert table["age"].tolist()[0] == 30 and table["age"].isna().tolist() == [False, True]
    assert table["keep"].tolist() == [True, False]


def test_null_is_a_missing_number_and_other_words_are_text(tmp_path):
    table = tables.read(csv(tmp_path, "age,note\n7,random\nnull,null\n"))
    assert table["age"].isna().tolist() == [False, True] and table["age"][0] == 7
    assert table["note"].tolist() == ["random", "null"]


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "cp1252", "utf-16"])
def test_dialects(tmp_path, separator, encoding):
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
def test_what_is_no_table(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        tables.read(csv(tmp_path, text))


@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_lines_end_as_on_any_system(tmp_path, ends):
    path = tmp_path / "a.csv"
    path.write_bytes(ends.join(["", "path;label", "a.wav;angry", ""]).encode())
    assert tables.read(path).to_dict("list") == {"path": ["a.wav"], "label": ["angry"]}


def test_separators_at_the_ends_of_rows_are_nothing(tmp_path):
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
def test_what_pandas_writes_comes_back(tmp_path_factory, rows):
    check_round_trip(tmp_path_factory.mktemp("table"), rows)


@pytest.mark.full
@settings(max_examples=2000)
@given(rows=ROWS)
def test_thousands_of_tables_come_back(tmp_path_factory, rows):
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
def test_any_text_is_a_table_or_one_clear_error(tmp_path_factory, text, encoding):
    check_any_table(tmp_path_factory.mktemp("table"), text, encoding)


@pytest.mark.full
@settings(max_examples=2000)
@given(text=CELLS, encoding=ENCODINGS)
def test_thousands_of_texts_are_tables_or_one_clear_error(tmp_path_factory, text, encoding):
    check_any_table(tmp_path_factory.mktemp("table"), text, encoding)


def test_a_corpus_that_went_through_a_table_is_split_alike(tmp_path):
    buffer = io.BytesIO()
    soundfile.write(buffer, [0.1] * 800, 16000, format="OGG")
    for fold in range(1, 6):
        touch(tmp_path / f"001 - Rain/{fold}-10{fold}-A.ogg", content=buffer.getvalue())
        touch(tmp_path / f"002 - Dog/{fold}-20{fold}-A.ogg", content=buffer.getvalue())
    clips = corpora.load("esc-10", root=tmp_path)
    clips.to_csv(tmp_path / "mine.csv")
    back = corpora.load(tmp_path / "mine.csv")
    pd.testing.assert_frame_equal(back, clips, check_dtype=False)
