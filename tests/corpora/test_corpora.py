from __future__ import annotations

import functools
import hashlib
import http.server
import threading
import zipfile
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st

from xai_lib import corpora
from xai_lib.corpora import downloads, filenames

PROJECT = Path(__file__).resolve().parents[2]


def touch(*paths):
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


@pytest.fixture
def tone():
    """Bytes of a short wav file."""
    import io

    buffer = io.BytesIO()
    soundfile.write(buffer, 0.1 * np.sin(np.arange(800) / 5), 16000, format="WAV")
    return buffer.getvalue()


@pytest.fixture
def table():
    """24 speakers as in RAVDESS, two statements, two repetitions."""
    rows = [
        {
            "path": f"/{a}/{e}-{i}-{s}-{r}.wav",
            "label": e,
            "speaker": f"s{a:02d}",
            "sex": "male" if a % 2 else "female",
            "intensity": i,
            "statement": s,
            "repetition": r,
        }
        for a in range(1, 25)
        for e in corpora.EMOTIONS
        for i in ("normal", "strong")
        for s in (1, 2)
        for r in (1, 2)
        if (e, i) != ("neutral", "strong")
    ]
    return pd.DataFrame(rows)


# ---------- names


def test_load_expands_home_folder(tmp_path, monkeypatch):
    """`load` expands `~` to the home folder, both in `root` and in a path given as the corpus."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "r" / "Actor_01").mkdir(parents=True)
    (tmp_path / "r" / "Actor_01" / "03-01-05-01-02-01-01.wav").write_bytes(b"")
    assert corpora.load("ravdess", root="~/r")["label"].tolist() == corpora.load("~/r")["label"].tolist() == ["angry"]


def test_parse_reads_ravdess_names():
    """`parse` reads all fields of RAVDESS file names, and returns None for malformed names."""
    fields = filenames.parse("ravdess", "/any/where/03-01-06-02-01-02-17.wav")
    assert fields == {
        "label": "fearful",
        "speaker": "ravdess-17",
        "sex": "male",
        "intensity": "strong",
        "statement": 1,
        "repetition": 2,
        "actor": 17,
        "modality": "audio-only",
        "channel": "speech",
    }
    assert filenames.parse("ravdess", "01-02-02-01-02-01-24.mp4") == {
        "label": "calm",
        "speaker": "ravdess-24",
        "sex": "female",
        "intensity": "normal",
        "statement": 2,
        "repetition": 1,
        "actor": 24,
        "modality": "audio-video",
        "channel": "song",
    }
    for name in (
        "03-01-09-01-01-01-01",
        "03-01-00-01-01-01-01",
        "04-01-01-01-01-01-01",
        "03-01-01-01-01-01",
        "03-01-01-01-01-01-01 copy",
        "03-01-01-03-01-01-01",
        "03-01-01-01-01-01-00",
        "x03-01-01-01-01-01-01",
    ):
        assert filenames.parse("ravdess", name + ".wav") is None


@given(st.tuples(*(st.integers(1, n) for n in (3, 2, 8, 2, 2, 2, 99))))
@settings(max_examples=60)
def test_parse_inverts_ravdess_codes(codes):
    """The fields that `parse` reads from a RAVDESS name give back all its codes, and odd actors are male."""
    fields = filenames.parse("ravdess", "-".join(f"{code:02d}" for code in codes) + ".flac")
    back = (
        ["audio-video", "video-only", "audio-only"].index(fields["modality"]) + 1,
        ["speech", "song"].index(fields["channel"]) + 1,
        corpora.EMOTIONS.index(fields["label"]) + 1,
        ["normal", "strong"].index(fields["intensity"]) + 1,
        fields["statement"],
        fields["repetition"],
        fields["actor"],
    )
    assert back == codes and fields["sex"] == ("male" if codes[-1] % 2 else "female")


@pytest.mark.parametrize(
    ("corpus", "name", "want"),
    [
        ("crema-d", "1001_DFA_ANG_XX.wav", {"label": "angry", "speaker": "crema-d-1001", "statement": "DFA"}),
        ("crema-d", "1076_IEO_FEA_HI.wav", {"label": "fearful", "intensity": "HI"}),
        ("emodb", "03a01Wa.wav", {"label": "angry", "speaker": "emodb-03", "sex": "male", "statement": "a01"}),
        ("emodb", "16b10Lb.wav", {"label": "boredom", "sex": "female", "repetition": "b"}),
        ("tess", "OAF_back_ps.wav", {"label": "surprised", "speaker": "tess-OA", "sex": "female", "statement": "back"}),
        ("tess", "OA_bite_neutral.wav", {"label": "neutral", "speaker": "tess-OA"}),
        ("savee", "DC_sa01.wav", {"label": "sad", "speaker": "savee-DC", "sex": "male"}),
        ("savee", "KL/su15.wav", {"label": "surprised", "speaker": "savee-KL", "statement": "15"}),
        ("esc-50", "1-100032-A-0.wav", {"fold": "1", "recording": "100032", "take": "A", "number": "0"}),
        ("crema-d", "1001_DFA_JOY_XX.wav", None),
        ("emodb", "03a01Xa.wav", None),
        ("tess", "OAF_back_bored.wav", None),
        ("savee", "su15.wav", None),
    ],
)
def test_parse_reads_names_of_other_corpora(corpus, name, want):
    """`parse` reads the file names of CREMA-D, EmoDB, TESS, SAVEE and ESC-50, and returns None for others."""
    got = filenames.parse(corpus, name)
    assert got is None if want is None else want.items() <= got.items()


# ---------- RAVDESS


def test_load_counts_excluded_ravdess_files(tmp_path):
    """Songs, videos, copies, hidden files and misnamed files of RAVDESS are left out and counted by reason."""
    touch(
        tmp_path / "Actor_01" / "03-01-05-01-01-01-01.wav",
        tmp_path / "deep" / "er" / "03-01-03-02-01-01-02.FLAC",
        tmp_path / "03-02-05-01-01-01-01.wav",
        tmp_path / "01-01-05-01-01-01-01.mp4",
        tmp_path / "02-01-05-01-01-01-01.mp4",
        tmp_path / "03-01-09-01-01-01-01.wav",
        tmp_path / "again" / "03-01-05-01-01-01-01.wav",
        tmp_path / "notes.txt",
        tmp_path / "._03-01-05-01-01-01-01.wav",
    )
    with pytest.warns(UserWarning, match="1 .song."):
        clips = corpora.load("ravdess", tmp_path)
    assert clips["label"].tolist() == ["angry", "happy"] and clips["sex"].tolist() == ["male", "female"]
    assert all(Path(path).is_absolute() for path in clips["path"]) and clips.index.tolist() == [0, 1]
    assert clips.attrs["left_out"] == {
        "song": 1,
        "video": 2,
        "not a name of ravdess": 1,
        "the same recording again": 1,
        "hidden files": 1,
    }


def test_load_explains_missing_ravdess(tmp_path, monkeypatch):
    """`load` explains why RAVDESS cannot be found, and finds it below `XAI_REAL_DATA`."""
    monkeypatch.delenv("XAI_REAL_DATA", raising=False)
    monkeypatch.setattr(downloads, "cache", lambda: tmp_path)
    with pytest.raises(FileNotFoundError, match="download=True.*zenodo.org/records/1188976"):
        corpora.load("ravdess")
    touch(tmp_path / "03-02-05-01-01-01-01.wav")
    with pytest.raises(FileNotFoundError, match="no clips of ravdess speech.*'song': 1"):
        corpora.load("ravdess", tmp_path)
    with pytest.raises(FileNotFoundError, match="there are no sound files"):
        (tmp_path / "empty").mkdir()
        corpora.load("ravdess", tmp_path / "empty")
    with pytest.raises(FileNotFoundError, match="no such folder"):
        corpora.load("ravdess", tmp_path / "none")
    monkeypatch.setenv("XAI_REAL_DATA", str(tmp_path))
    touch(tmp_path / "ravdess" / "03-01-05-01-01-01-01.wav")
    assert len(corpora.load("ravdess")) == 1


@pytest.fixture
def served(tmp_path):
    """A loopback web server over a folder: (folder, address)."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Handler(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder)) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield folder, f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def pack(folder, *members, data=b""):
    with zipfile.ZipFile(folder / corpora.RAVDESS_ZIP, "w") as archive:
        for member in members:
            archive.writestr(member, data)
    return "md5:" + hashlib.md5((folder / corpora.RAVDESS_ZIP).read_bytes()).hexdigest()


def test_load_verifies_and_caches_download(served, tmp_path, monkeypatch, tone):
    """A download with a wrong hash is refused, and a valid one is reused without a network."""
    folder, address = served
    monkeypatch.delenv("XAI_REAL_DATA", raising=False)
    monkeypatch.setattr(downloads, "cache", lambda: tmp_path / "cache")
    known = pack(folder, "Actor_01/03-01-05-01-01-01-01.wav", "Actor_02/03-01-04-01-01-01-02.wav", data=tone)
    with pytest.raises(ValueError, match="hash"):
        corpora.load("ravdess", download=True, url=address, known_hash="md5:" + "0" * 32)
    assert not (tmp_path / "cache" / "ravdess").exists()
    clips = corpora.load("ravdess", download=True, url=address + "/", known_hash=known)
    assert clips["label"].tolist() == ["angry", "sad"]
    (folder / corpora.RAVDESS_ZIP).unlink()
    pd.testing.assert_frame_equal(corpora.load("ravdess"), clips)  # the second time without a network
    pd.testing.assert_frame_equal(corpora.load("ravdess", download=True), clips)


@pytest.mark.parametrize(
    "member", ["../out.wav", "/etc/out.wav", "a/../../out.wav", "..\\out.wav", "C:\\out.wav", "C:out.wav"]
)
def test_load_refuses_archive_paths_outside_folder(served, tmp_path, monkeypatch, member):
    """An archive with a member outside its folder is refused, and nothing of it is written."""
    folder, address = served
    monkeypatch.delenv("XAI_REAL_DATA", raising=False)
    monkeypatch.setattr(downloads, "cache", lambda: tmp_path / "cache")
    known = pack(folder, "Actor_01/03-01-05-01-01-01-01.wav", member)
    with pytest.raises(ValueError, match="would land outside"):
        corpora.load("ravdess", download=True, url=address, known_hash=known)
    assert not (tmp_path / "cache" / "ravdess").exists() and not list(tmp_path.rglob("out.wav"))


@pytest.mark.real
def test_load_reads_real_ravdess(real):
    """The real RAVDESS folder gives 1200 clips of 20 speakers: 80 neutral ones and 160 of each other emotion."""
    clips = corpora.load("ravdess", real / "ravdess")
    assert len(clips) == 1200 and clips["path"].is_unique and clips["speaker"].nunique() == 20
    counts = corpora.summary(clips)
    assert counts.loc["neutral"].to_dict() == {
        "clips": 80,
        "speakers": 20,
        "female": 40,
        "male": 40,
        "normal": 80,
        "strong": 0,
    }
    assert (counts.loc[list(corpora.EMOTIONS[1:]), "clips"] == 160).all() and counts.loc["all", "strong"] == 560
    assert corpora.from_folder(real / "ravdess").equals(clips)


@pytest.mark.real
def test_from_folder_reads_real_esc10_and_librispeech(real):
    """Real ESC-10 gives 40 clips per class and 80 per fold, and real LibriSpeech 351 clips without labels."""
    clips = corpora.from_folder(real / "esc10")
    assert clips["label"].value_counts().to_dict() == dict.fromkeys(
        (
            "Dog bark",
            "Rain",
            "Sea waves",
            "Baby cry",
            "Clock tick",
            "Person sneeze",
            "Helicopter",
            "Chainsaw",
            "Rooster",
            "Fire crackling",
        ),
        40,
    )
    folds = corpora.load("esc-50", real / "esc10")
    assert folds["label"].equals(clips["label"]) and folds["fold"].value_counts().to_dict() == dict.fromkeys(
        "12345", 80
    )
    read = corpora.from_folder(real / "librispeech")
    assert len(read) == 351 and read["label"].isna().all()


# ---------- sample


def make_sample(folder):
    rows = [
        (
            f"Actor_{a:02d}/03-01-{e:02d}-01-01-01-{a:02d}.flac",
            a,
            "male" if a % 2 else "female",
            "test" if a == 3 else "train",
            corpora.EMOTIONS[e - 1],
            "normal",
            1,
            1,
            "main",
            None,
            0.5 * e,
        )
        for a in (1, 2, 3)
        for e in (1, 5)
    ]
    rows.append(
        (
            "one_factor/Actor_01/03-01-01-01-01-02-01.flac",
            1,
            "male",
            "train",
            "neutral",
            "normal",
            1,
            2,
            "one_factor",
            "f0_semitones",
            4.0,
        )
    )
    columns = [
        "file",
        "actor",
        "sex",
        "split",
        "emotion",
        "intensity",
        "statement",
        "repetition",
        "subset",
        "varied",
        "f0_semitones",
    ]
    table = pd.DataFrame(rows, columns=columns)
    touch(*(folder / file for file in table["file"]))
    table.to_csv(folder / "factors.csv", index=False)


def test_load_selects_sample_subsets(tmp_path, monkeypatch):
    """`load` reads the subsets of the sample corpus, and refuses unknown subsets and missing files."""
    monkeypatch.setenv("XAI_DATA", str(tmp_path))
    with pytest.raises(FileNotFoundError, match="make_sample.py"):
        corpora.load("sample")
    make_sample(tmp_path / "sample")
    clips = corpora.load("sample")
    assert len(clips) == 6 and clips["speaker"].unique().tolist() == ["sample-01", "sample-02", "sample-03"]
    assert clips["split"].tolist() == ["train"] * 4 + ["test"] * 2 and clips["f0_semitones"].tolist() == [0.5, 2.5] * 3
    assert "varied" not in clips and (clips["corpus"] == "sample").all() and Path(clips["path"][0]).is_file()
    varied = corpora.load("sample", subset="one_factor")
    assert varied["varied"].tolist() == ["f0_semitones"] and varied.index.tolist() == [0]
    assert len(corpora.load("sample", subset="all")) == 7
    with pytest.raises(ValueError, match="unknown subset 'half': known are main, one_factor, all"):
        corpora.load("sample", subset="half")
    Path(clips["path"][0]).unlink()
    with pytest.raises(FileNotFoundError, match="1 of 6 files"):
        corpora.load("sample")


@pytest.mark.skipif(not (PROJECT / "data/sample/factors.csv").is_file(), reason="data/sample has not been made")
def test_load_reads_bundled_sample():
    """The bundled sample has all emotions, unique paths, disjoint speakers by split, and file names that agree."""
    clips = corpora.load("sample")
    assert set(clips["label"]) == set(corpora.EMOTIONS) and clips["path"].is_unique
    assert not set(clips.loc[clips["split"] == "train", "speaker"]) & set(
        clips.loc[clips["split"] == "test", "speaker"]
    )
    assert clips["f0_semitones"].notna().all() and set(clips["sex"]) == {"female", "male"}
    for path, label, actor in clips[["path", "label", "actor"]].itertuples(index=False):
        assert filenames.parse("ravdess", path).items() >= {"label": label, "actor": actor}.items()


# ---------- folders and tables


def test_from_folder_derives_labels(tmp_path):
    """Labels come from class folders or RAVDESS names, and are missing where there are neither."""
    touch(tmp_path / "a" / "Angry" / "1.wav", tmp_path / "a" / "02_Joy" / "2.mp3", tmp_path / "a" / "02_Joy" / "x.txt")
    assert corpora.from_folder(tmp_path / "a")["label"].tolist() == ["Joy", "angry"]
    touch(tmp_path / "b" / "one" / "1.wav")
    assert corpora.from_folder(tmp_path / "b")["label"].isna().all()  # one folder is no classification
    touch(tmp_path / "c" / "Actor_01" / "1.wav", tmp_path / "c" / "Actor_02" / "1.ogg")
    assert corpora.from_folder(tmp_path / "c")["label"].isna().all()
    touch(tmp_path / "d" / "1.wav", tmp_path / "d" / "sad" / "1.wav", tmp_path / "d" / "happy" / "2.wav")
    mixed = corpora.from_folder(tmp_path / "d")  # a file that lies in no such folder has no label, the others have
    assert mixed["label"].tolist()[1:] == ["happy", "sad"] and mixed["label"].isna()[0]
    touch(
        tmp_path / "e" / "03-01-05-01-01-01-01.wav",
        tmp_path / "e" / "mine.wav",
        tmp_path / "e" / "03-02-05-01-01-01-01.wav",
    )
    with pytest.warns(UserWarning, match="song"):
        mixed = corpora.load(tmp_path / "e")
    assert mixed["label"].tolist()[0] == "angry" and len(mixed) == 2 and mixed["label"].isna()[1]


@pytest.mark.parametrize(
    ("folders", "labels"),
    [
        (["0 dB", "10 dB"], ["0 dB", "10 dB"]),
        (["1_star", "2_star"], ["1_star", "2_star"]),
        (["20-29", "30-39"], ["20-29", "30-39"]),
        (["4.5", "5.0"], ["4.5", "5.0"]),
        (["001 - Dog bark", "002 - Rain"], ["Dog bark", "Rain"]),
        (["1_Angry", "2_Sad"], ["angry", "sad"]),
    ],
)
def test_from_folder_keeps_numbered_classes_apart(tmp_path, folders, labels):
    """Class folders that differ in a number only keep their full names, and others lose a leading number."""
    for place, folder in enumerate(folders):
        touch(tmp_path / folder / f"{place}.wav")
    assert sorted(corpora.from_folder(tmp_path)["label"]) == sorted(labels)


def test_load_labels_esc_by_visible_table(tmp_path):
    """ESC-50 labels come from the visible table below the root, not from a hidden one or a folder named `audio`."""
    touch(tmp_path / "audio/1-100032-A-0.wav", tmp_path / "audio/1-100038-A-14.wav")
    assert corpora.load("esc-50", tmp_path / "audio")["label"].isna().all()
    for folder, word in ((".old", "CAT"), ("meta", "dog")):
        (tmp_path / folder).mkdir()
        text = f"filename,category\n1-100032-A-0.wav,{word}\n1-100032-A-0.wav,{word}\n1-100038-A-14.wav,bird\n"
        (tmp_path / folder / "esc50.csv").write_text(text)
    with pytest.warns(UserWarning, match="hidden"):
        assert corpora.load("esc-50", tmp_path)["label"].tolist() == ["dog", "bird"]


def test_from_csv_recognizes_usual_column_names(tmp_path):
    """Columns such as `Emotion`, `class`, `Speaker_ID` and `client_id` are recognized as label and speaker."""
    touch(tmp_path / "a.wav", tmp_path / "b.wav")
    for header in ("path,Emotion,Speaker_ID", "path,class,client_id", "path,Label,Speaker"):
        (tmp_path / "mine.csv").write_text(f"{header}\na.wav,angry,007\nb.wav,sad,1\n")
        clips = corpora.from_csv(tmp_path / "mine.csv")
        assert clips["label"].tolist() == ["angry", "sad"] and clips["speaker"].tolist() == ["007", "1"]


def test_from_csv_accepts_column_names(tmp_path):
    """`from_csv` reads columns by the given names, and errors on missing columns name the parameter to set."""
    touch(tmp_path / "a.wav")
    (tmp_path / "liste.csv").write_text("Datei;Gefühl;VP\na.wav;Ärger;007\n")
    clips = corpora.from_csv(tmp_path / "liste.csv", path_column="Datei", label_column="Gefühl", speaker_column="VP")
    assert clips[["label", "speaker"]].iloc[0].tolist() == ["Ärger", "007"]
    with pytest.raises(ValueError, match=r"no column 'Person'; it has 'Datei', .*speaker_column=…"):
        corpora.from_csv(tmp_path / "liste.csv", path_column="Datei", speaker_column="Person")
    with pytest.raises(ValueError, match=r"no column 'path'; .*corpora.from_csv\(…, path_column=…\)"):
        corpora.load(tmp_path / "liste.csv")


def test_from_folder_warns_of_conflicting_labels(tmp_path):
    """Identical files in folders of different labels are all kept, with a warning."""
    for name, content in {"angry/a.wav": b"alike", "sad/b.wav": b"alike", "sad/c.wav": b"other"}.items():
        touch(tmp_path / name)
        (tmp_path / name).write_bytes(content)
    with pytest.warns(
        UserWarning, match=r"different labels, e.g. angry and sad \(number of such sounds: 1\): all copies are kept"
    ):
        assert len(corpora.from_folder(tmp_path)) == 3


def test_relabel_warns_of_case_mismatch():
    """`relabel` warns of labels that differ from its table in case only, and leaves them unchanged."""
    clips = pd.DataFrame({"label": ["Ekel", "Zorn"]})
    with pytest.warns(UserWarning, match="the table has 'ekel', but the clips have 'Ekel'"):
        assert corpora.relabel(clips, {"ekel": "disgust", "Zorn": "angry"})["label"].tolist() == ["Ekel", "angry"]


def test_relabel_refuses_duplicate_labels(tmp_path):
    """`relabel` refuses a table that gives one old label two new ones."""
    (tmp_path / "words.csv").write_text("old,new\nanger,angry\nanger,sad\n")
    with pytest.raises(ValueError, match="old label 'anger' twice"):
        corpora.relabel(pd.DataFrame({"label": ["anger"]}), tmp_path / "words.csv")


def test_load_explains_missing_inputs(tmp_path):
    """Empty folders, missing folders or tables, and unknown corpora are refused with an explanation."""
    with pytest.raises(FileNotFoundError, match="no sound files"):
        corpora.from_folder(tmp_path)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        corpora.from_folder(tmp_path / "none")
    with pytest.raises(FileNotFoundError, match="no such table"):
        corpora.from_csv(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="unknown corpus 'ravdes': known are sample, ravdess"):
        corpora.load("ravdes")
    with pytest.raises(FileNotFoundError, match="pass root="):
        corpora.load("emodb")
    touch(tmp_path / "03a01Wa.wav", tmp_path / "readme.wav")
    with pytest.warns(UserWarning, match="1 .not a name of emodb."):
        assert corpora.load("EmoDB", tmp_path)["label"].tolist() == ["angry"]


def test_from_csv_resolves_paths_and_keeps_columns(tmp_path):
    """Paths are relative to the table or to `root`, labels and speakers stay text, and other columns are kept."""
    touch(tmp_path / "wav" / "a.wav", tmp_path / "wav" / "b.wav")
    (tmp_path / "clips.csv").write_text("path,label,speaker,mood\nwav/a.wav,sad,01,3\nwav/b.wav,,02,4\n")
    clips = corpora.load(tmp_path / "clips.csv")
    assert clips["path"].tolist() == [str(tmp_path / "wav" / name) for name in ("a.wav", "b.wav")]
    assert clips["speaker"].tolist() == ["01", "02"] and clips["mood"].tolist() == [3, 4] and clips["label"].isna()[1]
    (tmp_path / "t.tsv").write_text("file\tclass\na.wav\t7\n")
    other = corpora.from_csv(tmp_path / "t.tsv", path_column="file", label_column="class", root=tmp_path / "wav")
    assert other["label"].tolist() == ["7"] and list(other) == ["path", "label"]
    (tmp_path / "bare.csv").write_text("path\nwav/a.wav\n")
    assert corpora.from_csv(tmp_path / "bare.csv")["label"].isna().all()


def test_from_csv_refuses_invalid_tables(tmp_path):
    """Tables without paths or rows, with missing files or with too many cells are refused with the reason."""
    touch(tmp_path / "a.wav")
    cases = {
        "file,label\na.wav,sad\n": (
            ValueError,
            "no column 'path'; it has 'file', 'label': open it with corpora.from_csv",
        ),
        "path,label\na.wav,sad\nb.wav,sad\nc.wav,sad\n": (
            FileNotFoundError,
            r"2 of 3 files .* missing, e.g. .*b\.wav, .*c\.wav",
        ),
        "path,label\n,sad\na.wav,sad\n": (ValueError, "names no file in 1 of its 2 rows"),
        "path,label\n": (ValueError, "names no file"),
        "": (ValueError, "cannot be read"),
        "path\na.wav,1,2\nb,1,2,3\n": (ValueError, "line 2: 3 cells, but the header has 1"),
    }
    for text, (error, message) in cases.items():
        (tmp_path / "t.csv").write_text(text)
        with pytest.raises(error, match=message):
            corpora.from_csv(tmp_path / "t.csv")


def test_relabel_maps_labels(tmp_path):
    """`relabel` maps labels in a copy, and refuses tables that match no clip and labels that are not `known`."""
    clips = pd.DataFrame({"path": list("abc"), "label": ["anger", "joy", None]})
    new = corpora.relabel(clips, {"anger": "angry", "joy": "happy"}, known=corpora.EMOTIONS)
    assert new["label"].tolist()[:2] == ["angry", "happy"] and new["label"].isna()[2] and clips["label"][0] == "anger"
    (tmp_path / "t.csv").write_text("theirs,ours\nanger,angry\njoy,happy\n")
    assert corpora.relabel(clips, tmp_path / "t.csv")["label"].tolist()[:2] == ["angry", "happy"]
    assert corpora.relabel(clips, {"anger": "angry"})["label"].tolist()[:2] == ["angry", "joy"]
    with pytest.raises(KeyError, match="no clip has a label of the table, .'rage'.; the clips have .'anger', 'joy'."):
        corpora.relabel(clips, {"rage": "angry"})
    with pytest.raises(KeyError, match="'joy'.*not among the model's, which are .'neutral'"):
        corpora.relabel(clips, {"anger": "angry"}, known=corpora.EMOTIONS)
    with pytest.raises(KeyError, match="'joyful'.*not among the model's"):
        corpora.relabel(clips, {"anger": "angry", "joy": "joyful"}, known=corpora.EMOTIONS)


# ---------- draws and splits


def test_summary_counts_clips(table):
    """`summary` counts clips, speakers, sexes and intensities by label, and clips without a label."""
    counts = corpora.summary(table)
    assert list(counts.index) == [*corpora.EMOTIONS, "all"]
    assert counts.loc["neutral"].to_dict() == {
        "clips": 96,
        "speakers": 24,
        "female": 48,
        "male": 48,
        "normal": 96,
        "strong": 0,
    }
    assert counts.loc["all", "clips"] == len(table) and counts.loc["all", "speakers"] == 24
    bare = corpora.summary(pd.DataFrame({"path": list("abc"), "label": ["zeal", None, "sad"]}))
    assert list(bare.index) == ["sad", "(no label)", "zeal", "all"] and bare["clips"].tolist() == [1, 1, 1, 3]


def test_draw_is_seeded_and_refuses_unknown_values(table):
    """`draw` samples matching clips reproducibly by seed, and refuses unknown values and columns and empty matches."""
    wanted = {"label": "sad", "sex": "female", "intensity": "strong"}
    one = corpora.draw(table, seed=3, **wanted)
    assert len(one) == 1 and one.iloc[0][list(wanted)].to_dict() == wanted and one.index[0] in table.index
    assert corpora.draw(table, seed=3, **wanted).equals(one)
    assert len({corpora.draw(table, seed=seed, **wanted).index[0] for seed in range(20)}) > 10
    assert len(corpora.draw(table, 5, label="sad", sex=None)) == 5
    with pytest.raises(
        KeyError, match="label 'furious': known are neutral, calm, happy, sad, angry, fearful, disgust, surprised"
    ):
        corpora.draw(table, label="furious")
    with pytest.raises(KeyError, match="sex 'other': known are female, male"):
        corpora.draw(table, sex="other")
    with pytest.raises(KeyError, match="no column 'mood'"):
        corpora.draw(table, mood="grim")
    with pytest.raises(ValueError, match="only 0 clips match"):
        corpora.draw(table, label="neutral", intensity="strong")


@given(n=st.integers(1, 200), seed=st.integers(0, 5))
@settings(max_examples=15)
def test_balanced_evens_labels_and_speakers(n, seed):
    """`balanced` draws `n` clips with counts of labels within 1 and of speakers within 2, reproducibly by seed."""
    table = pd.DataFrame(
        [(e, f"s{a}", r) for a in range(6) for e in corpora.EMOTIONS for r in range(4)],
        columns=["label", "speaker", "r"],
    ).rename(lambda i: 7 * i)
    drawn = corpora.balanced(table, n, seed=seed)
    assert len(drawn) == min(n, len(table)) and drawn.index.is_unique and drawn.index.is_monotonic_increasing
    counts = drawn["label"].value_counts().reindex(corpora.EMOTIONS, fill_value=0)
    assert counts.max() - counts.min() <= 1
    people = drawn["speaker"].value_counts().reindex([f"s{a}" for a in range(6)], fill_value=0)
    assert people.max() - people.min() <= 2
    assert drawn.equals(corpora.balanced(table, n, seed=seed))


@given(test=st.sampled_from([0.1, 0.25, 1 / 3, 0.5]), seed=st.integers(0, 20))
@settings(max_examples=20)
def test_split_separates_speakers_and_evens_labels(test, seed):
    """`split` shares no speaker between its sides, and keeps labels and sexes nearly proportional."""
    rng = np.random.default_rng(seed)
    rows = [
        (f"s{a}", "female" if a < 8 else "male", e)
        for a in range(16)
        for e in ("sad", "happy", "calm")
        for _ in range(rng.integers(2, 6))
    ]
    clips = corpora.split(pd.DataFrame(rows, columns=["speaker", "sex", "label"]), test=test, seed=seed)
    held = clips["split"] == "test"
    assert not set(clips["speaker"][held]) & set(clips["speaker"][~held])
    assert abs(held.mean() - test) < 0.1
    assert (held.groupby(clips["label"]).mean() - held.mean()).abs().max() < 0.1
    assert (held.groupby(clips["sex"]).mean() - held.mean()).abs().max() < 0.15
    assert clips.equals(corpora.split(clips, test=test, seed=seed))


def test_split_is_exact_on_ravdess_design(table):
    """On the design of RAVDESS, `split` and `folds` balance speakers and sexes exactly, and `split` labels too."""
    clips = corpora.split(table)
    held = clips[clips["split"] == "test"]
    assert held["speaker"].nunique() == 6 and held.groupby("sex")["speaker"].nunique().tolist() == [3, 3]
    assert (held["label"].value_counts(normalize=True) - table["label"].value_counts(normalize=True)).abs().max() < 1e-9
    assert "split" not in table
    fold = corpora.folds(table, 6, seed=1)
    assert fold.index.equals(table.index) and sorted(fold.unique()) == list(range(6))
    assert (table.groupby(fold)["speaker"].nunique() == 4).all() and (
        fold.groupby(table["speaker"]).nunique() == 1
    ).all()
    assert (table[table["sex"] == "male"].groupby(fold)["speaker"].nunique() == 2).all()
    assert corpora.folds(table, 6, seed=1).equals(fold) and not corpora.folds(table, 6, seed=2).equals(fold)


def test_split_refuses_too_few_speakers(table):
    """`split` and `folds` refuse tables without speakers, with missing speakers, or with too few speakers."""
    with pytest.raises(ValueError, match="no column `speaker`.*add it"):
        corpora.split(table.drop(columns="speaker"))
    with pytest.raises(ValueError, match="lack a speaker in 1 rows"):
        corpora.folds(table.assign(speaker=[None, *table["speaker"][1:]]))
    with pytest.raises(ValueError, match="two speakers or more"):
        corpora.split(table[table["speaker"] == "s01"])
    with pytest.raises(ValueError, match="two speakers or more"):
        corpora.split(table, test=1.0)
    with pytest.raises(ValueError, match="25 folds"):
        corpora.folds(table, 25)


def test_load_unifies_speaker_spelling(tmp_path, tone):
    """Speakers that differ in blanks or case only are spelled in one way when a table is loaded."""
    paths = [f"{place}.wav" for place in range(4)]
    for path in paths:
        (tmp_path / path).write_bytes(tone)
    filenames = ["mine-17", "mine-17 ", " Mine-17", "mine-18"]
    pd.DataFrame({"path": paths, "label": "sad", "speaker": filenames}).to_csv(tmp_path / "a.csv", index=False)
    assert corpora.load(tmp_path / "a.csv")["speaker"].tolist() == ["mine-17"] * 3 + ["mine-18"]


def test_load_sample_refuses_other_roots(tmp_path):
    """A root without the sample corpus is refused with the advice to leave it out."""
    with pytest.raises(FileNotFoundError, match="no sample corpus in .*: leave out root= for the bundled one"):
        corpora.load("sample", root=tmp_path / "nowhere")
