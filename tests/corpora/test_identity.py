"""Who speaks: by name, by the file's name, and by sound; and where that cannot be known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile

from xai_lib import corpora
from xai_lib.corpora import fingerprints, identity, sampling
from xai_lib.corpora.identity import IN_TRAINING, NOT_IN_TRAINING, UNKNOWN
from xai_lib.probing import speaker_space


@pytest.mark.parametrize(
    ("given", "name"),
    [
        ("mine-17 ", "mine-17"),
        (" Mine-17", "mine-17"),
        ("\u00a0anna\t", "anna"),
        (1, "1"),
        (1.0, "1"),
        (np.int64(1), "1"),
        ("1.0", "1"),
        ("01", "1"),
        (0, "0"),
        ("00", "0"),
        (1.5, "1.5"),
        ("P01", "p01"),
        (None, None),
        (np.nan, None),
        (pd.NA, None),
        ("  ", None),
    ],
)
def test_comparable_name_normalizes_spelling(given, name):
    """`comparable_name` ignores case, blanks and how a number is written, and is None for missing names."""
    assert identity.comparable_name(given) == name


def test_unify_spelling_keeps_first_spelling():
    """`unify_spelling` spells each speaker as it first occurs, and keeps missing values, index and name."""
    names = pd.Series(["Anna ", "anna", 3, "3.0", None, "Bo"], index=[5, 3, 1, 0, 2, 9], name="speaker")
    found = identity.unify_spelling(names)
    assert found.tolist() == ["Anna", "Anna", "3", "3", None, "Bo"]
    assert found.index.tolist() == names.index.tolist() and found.name == "speaker"


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("03-01-05-01-02-01-12.wav", "ravdess-12"),
        ("any/where/03-02-05-01-02-01-01.flac", "ravdess-01"),
        ("03-01-05-01-02-01-25.wav", None),  # there are 24
        ("03-01-05-01-02-01-12-copy.wav", None),
        ("2024-01-05-01-02-01-12.wav", None),
        ("1001_DFA_ANG_XX.wav", "crema-d-1001"),
        ("1092_DFA_ANG_XX.wav", None),
        ("1001_DFA_XYZ_XX.wav", None),
        ("03a01Fa.wav", "emodb-03"),
        ("17a01Fa.wav", None),
        ("OAF_back_angry.wav", "tess-oa"),
        ("OA_bite_neutral.wav", "tess-oa"),
        ("DC_a01.wav", "savee-dc"),
        ("DC/a01.wav", None),
        ("Ses01F_impro01_M003.wav", "iemocap-1m"),
        ("MSP-IMPROV-S01A-F01-P-FM01.wav", "msp-improv-f01"),
        ("F_01_OISHI_S_1_ANGRY_1.wav", "subesco-f_01"),
        ("gio-f1-b1.wav", "emovo-f1"),
        ("84/121123/84-121123-0000.flac", "librispeech-84"),
        ("LibriSpeech/84/84-121123-0000.flac", "librispeech-84"),
        ("84-121123-0000.flac", None),
        ("2024/2024-120512-0001.wav", None),
        ("1-100032-A-0.wav", "recording-100032"),
        ("001 - Dog bark/1-100032-A.ogg", "recording-100032"),
        ("mine/1-100032-A.ogg", None),
        ("anna1.wav", None),
    ],
)
def test_of_file_identifies_speaker_by_file_name(path, expected):
    """`of_file` identifies speakers or recordings of known corpora by file name, and returns None for other names."""
    assert identity.of_file(f"/corpus/{path}") == expected
    assert expected is None or identity.corpus_of(expected) in expected


def test_of_file_confirms_librispeech_by_table():
    """A LibriSpeech name outside its folders identifies the reader if the table's speaker agrees, and else nobody."""
    assert identity.of_file("84-121123-0000.flac", speaker="084") == "librispeech-84"
    assert identity.of_file("84-121123-0000.flac", speaker="Anna") is None


def test_of_file_separates_sample_from_ravdess(tmp_path):
    """`of_file` identifies files of the sample corpus as its own speakers, not as those of RAVDESS."""
    path = corpora.load("sample")["path"][0]
    assert identity.of_file(path) == "sample-01"
    assert identity.of_file("elsewhere/03-01-05-01-02-01-12.flac", corpus="sample") == "sample-12"


def ravdess(actors, takes=2):
    """Names like those of RAVDESS, of files that are not there."""
    rows = [(f"/x/03-01-05-01-01-0{take}-{actor:02d}.wav", f"P{actor}") for actor in actors for take in (1, 2)[:takes]]
    return pd.DataFrame(rows, columns=["path", "speaker"])


def test_of_clips_requires_one_to_one_names():
    """Speakers identified by file names replace those of the table only where the two agree one to one."""
    clips = ravdess([1, 2])
    assert identity.of_clips(clips).tolist() == ["ravdess-01"] * 2 + ["ravdess-02"] * 2
    assert identity.of_clips(clips.assign(speaker="all")).tolist() == ["all"] * 4
    two = clips.assign(speaker=["Anna", "Bo", "P2", "P2"])  # both of whom called their files after actor 1
    assert identity.of_clips(two).tolist() == ["anna", "bo", "ravdess-02", "ravdess-02"]
    named = clips.assign(speaker=["sample-03"] * 2 + ["P2"] * 2)
    assert identity.of_clips(named).tolist() == ["sample-03"] * 2 + ["ravdess-02"] * 2


def states(clips, trained, recordings=None):
    return identity.training_status(clips, trained, recordings).to_dict()


def table(*names):
    return pd.DataFrame({"speaker": names})


def test_training_status_identifies_ravdess_files():
    """RAVDESS files are compared with the training speakers whatever the table calls their speakers."""
    trained = [f"ravdess-{actor:02d}" for actor in range(1, 17)]
    assert states(ravdess([1, 16, 17]), trained) == {"P1": IN_TRAINING, "P16": IN_TRAINING, "P17": NOT_IN_TRAINING}
    numbers = ravdess([1, 17]).assign(speaker=[1, "1", 17, 17.0])
    assert states(numbers, trained) == {"1": IN_TRAINING, "17": NOT_IN_TRAINING}


@pytest.mark.parametrize(
    ("names", "trained", "want"),
    [
        (["mine-1 ", "Mine-2"], ["mine-1"], {"mine-1": IN_TRAINING, "Mine-2": NOT_IN_TRAINING}),
        (["P1"], ["ravdess-01"], {"P1": UNKNOWN}),
        (["1"], ["P1", "P2"], {"1": UNKNOWN}),
        (["9"], ["1", "2"], {"9": NOT_IN_TRAINING}),
        (["Anna"], ["Bo"], {"Anna": NOT_IN_TRAINING}),
        (["Anna"], ["s1"], {"Anna": UNKNOWN}),
        (["emodb-03"], ["ravdess-01", "librispeech-84"], {"emodb-03": NOT_IN_TRAINING}),
        (["emodb-03"], ["ravdess-01", "P3"], {"emodb-03": UNKNOWN}),
        (["ravdess-20"], ["ravdess-01", "P3"], {"ravdess-20": NOT_IN_TRAINING}),
        (["recording-1"], ["esc10-fold-1"], {"recording-1": UNKNOWN}),
        (["recording-1"], ["ravdess-01"], {"recording-1": NOT_IN_TRAINING}),
        (["P1"], [], {"P1": NOT_IN_TRAINING}),
    ],
)
def test_training_status_is_unknown_if_incomparable(names, trained, want):
    """A speaker is `NOT_IN_TRAINING` only if the name is comparable with those of the training speakers."""
    assert states(table(*names), trained) == want


def test_training_status_accepts_numeric_folds():
    """Folds of ESC-10 that are given as numbers are compared with the training folds."""
    clips = table("recording-1", "recording-2").assign(corpus="esc-10", fold=[1, 5])
    assert states(clips, ["esc10-fold-1"]) == {"recording-1": IN_TRAINING, "recording-2": NOT_IN_TRAINING}


@pytest.fixture
def noises(make_clips, tmp_path):
    """Two files each of three speakers."""
    return make_clips(tmp_path, 6, lengths=8000, level=0.1, subtype="PCM_16", speaker=lambda i: f"P{i // 2}")


def test_training_status_matches_recordings(noises, tmp_path):
    """A speaker is `IN_TRAINING` if a compared clip is a copy of a training recording, whatever the names."""
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, 0.5 * soundfile.read(noises["path"][3])[0], 16_000)
    recordings = pd.DataFrame({"fingerprint": [fingerprints.of_file(copy)], "speaker": ["ravdess-01"]})
    assert states(noises, ["ravdess-01"], recordings) == {"P0": UNKNOWN, "P1": IN_TRAINING, "P2": UNKNOWN}
    found = identity.training_status(noises, ["ravdess-01"], recordings, most=1)  # the first of each speaker only
    assert found["P1"] == UNKNOWN


def test_training_status_takes_folds_of_some_clips():
    """Clips without a corpus and a fold may stand beside clips of a training fold."""
    clips = pd.DataFrame({"speaker": ["recording-1", "anna"], "corpus": ["esc-10", None], "fold": ["3", None]})
    assert states(clips, ["esc10-fold-3"]) == {"recording-1": IN_TRAINING, "anna": UNKNOWN}


def test_training_status_skips_audio_of_known_corpora(noises, monkeypatch):
    """The training status of speakers of known corpora is determined without reading their files."""
    monkeypatch.setattr(fingerprints, "of_files", lambda paths: pytest.fail("read"))
    recordings = pd.DataFrame({"fingerprint": ["0" * 32], "speaker": ["ravdess-01"]})
    clips = noises.assign(speaker=[f"sample-0{name[1:]}" for name in noises["speaker"].replace("P0", "P9")])
    assert set(states(clips, ["ravdess-01"], recordings).values()) == {NOT_IN_TRAINING}


@pytest.mark.parametrize("name", ["mine-1 ", "MINE-1", " mine-1"])
def test_speaker_names_refuses_training_speakers(name):
    """`speaker_names` refuses a training speaker in any spelling, and counts two spellings as one speaker."""
    with pytest.raises(ValueError, match="is a training speaker of what was fitted"):
        speaker_space.speaker_names(table(name), train_speakers=["mine-1"])
    assert speaker_space.speaker_names(table(name, "mine-1")) == [name.strip()]


def test_split_merges_spellings():
    """`split` and `folds` keep two spellings of one speaker on the same side and in the same fold."""
    names = [f"s{speaker}{blank}" for speaker in range(6) for blank in ("", " ")]
    clips = pd.DataFrame({"speaker": names, "label": "calm"})
    for seed in range(5):
        sides = sampling.split(clips, seed=seed)
        folds = sampling.folds(clips, 3, seed=seed)
        for first in range(0, 12, 2):
            assert sides["split"][first] == sides["split"][first + 1] and folds[first] == folds[first + 1]
