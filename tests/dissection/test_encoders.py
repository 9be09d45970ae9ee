"""Vectors of texts and sounds: the acoustic space by hand, and what a text model cannot read."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import tiny_text

from xai_lib import corpora
from xai_lib.dissection import descriptions
from xai_lib.dissection.descriptions import encoders

pytestmark = pytest.mark.heavy

NAMES = [*descriptions.lexicon().index]
RATE = 16000


def table(**columns):
    """Measured values of made-up clips: what is not given lies in the middle of everything."""
    size = len(next(iter(columns.values())))
    return pd.DataFrame({name: np.zeros(size) for name in NAMES} | columns)


REFERENCE = table(**{name: np.arange(-50.0, 51) for name in NAMES})


# ---------- the acoustic space


def test_acoustic_space_reads_signed_adjectives():
    """Adjectives are signed features: `very` doubles one, `not` reverses it, and words that only contain it are 0."""
    space = descriptions.AcousticSpace(REFERENCE)
    vectors = space.text(["a LOUD sound", "a very quiet, fast thing", "not loud", "not very loud", "aloud; loudly", ""])
    level, rate = NAMES.index("level_db"), NAMES.index("rate")
    assert vectors.shape == (6, len(NAMES) + 1)
    np.testing.assert_allclose(vectors[0], np.eye(len(NAMES) + 1)[level])
    np.testing.assert_allclose(vectors[1, [level, rate]], np.array([-2, 1]) / 5**0.5)
    np.testing.assert_allclose(vectors[[2, 3]], -vectors[[0, 0]])
    assert not vectors[4:].any()


def test_acoustic_space_ranks_sounds():
    """Sounds are ranked among the reference: the extremes are ±1, the median and missing values 0."""
    space = descriptions.AcousticSpace(REFERENCE)
    index, vectors = space.sound(table(level_db=[100.0, 0, -100, np.nan]).set_index(pd.Index([3, 5, 7, 9])))
    assert list(index) == [3, 5, 7, 9]
    np.testing.assert_allclose(vectors[0], np.eye(len(NAMES) + 1)[NAMES.index("level_db")], atol=1e-9)
    np.testing.assert_allclose(vectors[2], -vectors[0], atol=1e-9)
    assert np.abs(vectors[[1, 3]]).max() < 1e-9  # in the middle of everything, and not known


def test_match_sound_fits_described_clips():
    """Each sound fits best the concept that describes its level and rate, with fits from −1 to 1."""
    clips = table(level_db=[40.0, -40, 0], rate=[40.0, 40, -40])
    concepts = pd.Series({"shout": "a very loud, fast voice", "murmur": "a quiet, very fast voice", "sigh": "slow"})
    fit = descriptions.match_sound(clips, concepts, descriptions.AcousticSpace(REFERENCE))
    assert fit.dims == ("clip", "concept") and list(fit.idxmax("concept").values) == ["shout", "murmur", "sigh"]
    assert float(fit.min()) < 0 and float(np.abs(fit).max()) <= 1 + 1e-9


def test_acoustic_space_separates_unpitched():
    """A sound without pitch fits `unpitched`, one of median pitch does not, and a clip without sound has 0."""
    some = REFERENCE.assign(f0=REFERENCE["f0"].where(REFERENCE.index % 4 > 0))  # a quarter lacks it
    space = descriptions.AcousticSpace(some)
    _, vectors = space.sound(table(f0=[np.nan, 0.0, np.nan], level_db=[0.0, 0, np.nan]))
    said = space.text(["unpitched"])[0]
    assert vectors[0] @ said > 0 > vectors[1] @ said and vectors[2] @ said == 0


# ---------- matching


def test_match_accepts_any_encoder():
    """The fit is the cosine by any encoder of texts, with the names of clips and concepts."""
    texts, concepts = pd.Series(["a", "bb"], index=[4, 6]), pd.Series({"one": "a", "two": "b"})

    def letters(texts):
        found = np.array([[text.count("a"), text.count("b")] for text in texts], float)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    fit = descriptions.match(texts, concepts, letters)
    np.testing.assert_allclose(fit, np.eye(2))
    assert list(fit["clip"].values) == [4, 6] and list(fit["concept"].values) == ["one", "two"]


def test_match_refuses_missing_texts():
    """Missing texts raise a ValueError that counts them and names their clips."""
    with pytest.raises(ValueError, match=r"1 of 2 texts are missing \(clips 6\)"):
        descriptions.match(pd.Series(["loud", np.nan], index=[4, 6]), pd.Series({"a": "loud"}))


# ---------- models


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_text.clip(tmp_path_factory.mktemp("clip"))


def test_clip_text_truncates_long_texts(clip):
    """A text longer than the model reads is truncated, and a warning says how many were."""
    encode = descriptions.CLIPText(clip, device="cpu")
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to the 20 tokens"):
        vectors = encode(["a dog", "x" * 100_000])
    with pytest.warns(UserWarning, match="cut"):
        np.testing.assert_allclose(vectors[1], encode(["x" * 300])[0], atol=1e-6)


def test_sentence_transformer_names_missing_package(monkeypatch):
    """Without its package, `SentenceTransformer` raises an ImportError that says what to install."""
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install"):
        descriptions.SentenceTransformer("some/model")


def test_acoustic_space_measures_despite_level_column():
    """Clips with a column `level_db` are measured like any others, by `AcousticSpace` and by `Acoustics`."""
    clips = corpora.load("sample").head(3)
    assert "level_db" in clips
    table = corpora.features_table(clips)
    for reference in (clips, table):
        index, found = encoders.AcousticSpace(reference).sound(clips)
        np.testing.assert_array_equal(found, encoders.AcousticSpace(table).sound(table)[1])
    assert index.tolist() == clips.index.tolist()
    assert descriptions.Acoustics(clips)(clips).tolist() == descriptions.captions(table, table).tolist()
