"""Vectors of texts and sounds: the acoustic space by hand, tiny CLIP, CLAP and sentence models against transformers."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_text
import torch

from xai_lib import audio, corpora
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


def test_adjectives_are_signs_of_features():
    space = descriptions.AcousticSpace(REFERENCE)
    vectors = space.text(["a LOUD sound", "a very quiet, fast thing", "not loud", "not very loud", "aloud; loudly", ""])
    level, rate = NAMES.index("level_db"), NAMES.index("rate")
    assert vectors.shape == (6, len(NAMES) + 1)
    np.testing.assert_allclose(vectors[0], np.eye(len(NAMES) + 1)[level])
    np.testing.assert_allclose(vectors[1, [level, rate]], np.array([-2, 1]) / 5**0.5)
    np.testing.assert_allclose(vectors[[2, 3]], -vectors[[0, 0]])
    assert not vectors[4:].any()


def test_sounds_are_ranks_among_the_reference():
    space = descriptions.AcousticSpace(REFERENCE)
    index, vectors = space.sound(table(level_db=[100.0, 0, -100, np.nan]).set_index(pd.Index([3, 5, 7, 9])))
    assert list(index) == [3, 5, 7, 9]
    np.testing.assert_allclose(vectors[0], np.eye(len(NAMES) + 1)[NAMES.index("level_db")], atol=1e-9)
    np.testing.assert_allclose(vectors[2], -vectors[0], atol=1e-9)
    assert np.abs(vectors[[1, 3]]).max() < 1e-9  # in the middle of everything, and not known


def test_sound_and_word_meet():
    clips = table(level_db=[40.0, -40, 0], rate=[40.0, 40, -40])
    concepts = pd.Series({"shout": "a very loud, fast voice", "murmur": "a quiet, very fast voice", "sigh": "slow"})
    fit = descriptions.match_sound(clips, concepts, descriptions.AcousticSpace(REFERENCE))
    assert fit.dims == ("clip", "concept") and list(fit.idxmax("concept").values) == ["shout", "murmur", "sigh"]
    assert float(fit.min()) < 0 and float(np.abs(fit).max()) <= 1 + 1e-9


def test_lack_of_pitch_is_told_from_pitch_that_is_usual():
    some = REFERENCE.assign(f0=REFERENCE["f0"].where(REFERENCE.index % 4 > 0))  # a quarter lacks it
    space = descriptions.AcousticSpace(some)
    _, vectors = space.sound(table(f0=[np.nan, 0.0, np.nan], level_db=[0.0, 0, np.nan]))
    said = space.text(["unpitched"])[0]
    assert vectors[0] @ said > 0 > vectors[1] @ said and vectors[2] @ said == 0


# ---------- matching


def test_match_takes_any_encoder():
    texts, concepts = pd.Series(["a", "bb"], index=[4, 6]), pd.Series({"one": "a", "two": "b"})

    def letters(texts):
        found = np.array([[text.count("a"), text.count("b")] for text in texts], float)
        return found / np.linalg.norm(found, axis=1, keepdims=True)

    fit = descriptions.match(texts, concepts, letters)
    np.testing.assert_allclose(fit, np.eye(2))
    assert list(fit["clip"].values) == [4, 6] and list(fit["concept"].values) == ["one", "two"]


def test_match_refuses_what_was_not_captioned():
    with pytest.raises(ValueError, match=r"1 of 2 texts are missing \(clips 6\)"):
        descriptions.match(pd.Series(["loud", np.nan], index=[4, 6]), pd.Series({"a": "loud"}))


# ---------- models


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    folder = tmp_path_factory.mktemp("clip")
    words = tiny_text.tokenizer(folder, end=True)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    torch.manual_seed(0)
    config = CLIPTextConfig(**size, **tokens, projection_dim=8, max_position_embeddings=20)
    CLIPTextModelWithProjection(config).half().save_pretrained(folder)
    return folder


def test_clip_text_is_the_models_own_projection(clip):
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    encode = descriptions.CLIPText(clip, device="cpu", batch=2)
    texts = ["a dog barks", "rain", "собака", ""]
    vectors = encode(texts)
    network = CLIPTextModelWithProjection.from_pretrained(clip, dtype=torch.float32).eval()
    words = AutoTokenizer.from_pretrained(clip)
    for text, vector in zip(texts[:3], vectors):
        with torch.no_grad():
            own = network(**words(text, return_tensors="pt")).text_embeds[0].numpy()
        np.testing.assert_allclose(vector, own / np.linalg.norm(own), atol=1e-5)
    assert not vectors[3].any()


def test_a_text_too_long_for_the_model_is_cut_and_said_so(clip):
    encode = descriptions.CLIPText(clip, device="cpu")
    with pytest.warns(UserWarning, match="1 of 2 texts were cut to the 20 tokens"):
        vectors = encode(["a dog", "x" * 100_000])
    with pytest.warns(UserWarning, match="cut"):
        np.testing.assert_allclose(vectors[1], encode(["x" * 300])[0], atol=1e-6)


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
    from transformers import ClapConfig, ClapFeatureExtractor, ClapModel, ClapProcessor

    folder = tmp_path_factory.mktemp("clap")
    words = tiny_text.tokenizer(folder, end=True)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    tokens = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    ears = {"patch_embeds_hidden_size": 16, "depths": [1, 1], "num_attention_heads": [2, 2], "hidden_size": 32}
    config = ClapConfig(
        text_config={**size, **tokens, "max_position_embeddings": 66, "projection_dim": 12},
        audio_config={**ears, "projection_dim": 12, "enable_fusion": False, "aff_block_r": 2},
        projection_dim=12,
    )
    torch.manual_seed(0)
    network = ClapModel(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    network.save_pretrained(folder)
    ClapProcessor(ClapFeatureExtractor(truncation="rand_trunc", padding="repeatpad"), words).save_pretrained(folder)
    return folder


@pytest.fixture
def recorded(tmp_path):
    """Clips of 1, 3 and 23 s at 16 kHz, and one that is not there."""
    rows = []
    for i, seconds in enumerate((1, 3, 23)):
        rng = np.random.default_rng(i)
        wave = 0.1 * rng.standard_normal(seconds * RATE) * np.sin(np.arange(seconds * RATE) / (99 + 900 * i))
        soundfile.write(tmp_path / f"{i}.wav", wave, RATE, subtype="FLOAT")
        rows.append(str(tmp_path / f"{i}.wav"))
    return pd.DataFrame({"path": [*rows, str(tmp_path / "gone.wav")]}, index=[2, 4, 6, 8])


def test_clap_hears_clips_at_its_own_rate(clap, recorded):
    from transformers import ClapFeatureExtractor, ClapModel

    both = descriptions.CLAP(clap, device="cpu")
    assert both.sample_rate == 48000
    with pytest.warns(UserWarning, match="gone.wav"):
        index, heard = both.sound(recorded)
    assert list(index) == [2, 4, 6]
    network, ears = ClapModel.from_pretrained(clap).eval(), ClapFeatureExtractor.from_pretrained(clap)
    wave = audio.read(recorded["path"][4], 48000)
    with torch.no_grad():
        own = (
            network.get_audio_features(**ears(wave, sampling_rate=48000, return_tensors="pt")).pooler_output[0].numpy()
        )
    np.testing.assert_allclose(heard[1], own / np.linalg.norm(own), atol=1e-5)
    np.testing.assert_allclose(np.linalg.norm(heard, axis=1), 1)
    again = both.sound(recorded[:3])[1]
    np.testing.assert_array_equal(again, heard)  # no part of the long clip is drawn at random


def test_clap_reads_texts_and_fits_sounds_to_them(clap, recorded):
    from transformers import AutoTokenizer, ClapModel

    both = descriptions.CLAP(clap, device="cpu")
    vectors = both.text(["a dog barks", "rain", "x" * 40])
    network, words = ClapModel.from_pretrained(clap).eval(), AutoTokenizer.from_pretrained(clap)
    with torch.no_grad():
        own = network.get_text_features(**words("rain", return_tensors="pt")).pooler_output[0].numpy()
    np.testing.assert_allclose(vectors[1], own / np.linalg.norm(own), atol=1e-5)
    with pytest.warns(UserWarning, match="cut to the 65 tokens"):
        both.text(["x" * 500])
    concepts = pd.Series({"dog": "a dog barks", "rain": "rain"})
    fit = descriptions.match_sound(recorded[:3], concepts, both)
    np.testing.assert_allclose(fit, both.sound(recorded[:3])[1] @ vectors[:2].T, atol=1e-6)
    assert list(fit["clip"].values) == [2, 4, 6]


def test_sentence_transformer_is_the_packages_own(tmp_path):
    package = pytest.importorskip("sentence_transformers")
    from transformers import BertConfig, BertModel

    words = tiny_text.tokenizer(tmp_path / "bert", end=True)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    BertModel(BertConfig(vocab_size=len(words), max_position_embeddings=64, **size)).save_pretrained(tmp_path / "bert")
    package.SentenceTransformer(str(tmp_path / "bert"), device="cpu").save(str(tmp_path / "whole"))  # mean of tokens
    encode = descriptions.SentenceTransformer(tmp_path / "whole", device="cpu", batch=2)
    texts = ["a dog barks", "rain", "собака"]
    vectors = encode(texts)
    with torch.no_grad():
        network = BertModel.from_pretrained(tmp_path / "bert").eval()
        own = network(**words("rain", return_tensors="pt")).last_hidden_state[0].mean(0).numpy()
    np.testing.assert_allclose(vectors[1], own / np.linalg.norm(own), atol=1e-5)
    concepts = pd.Series({"dog": "a dog barks", "rain": "rain"})
    assert descriptions.match(pd.Series(texts), concepts, encode).sel(clip=0, concept="dog") == pytest.approx(
        1, abs=1e-5
    )


def test_sentence_transformer_without_its_package_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sentence_transformers", None)
    with pytest.raises(ImportError, match="pip install"):
        descriptions.SentenceTransformer("some/model")


def test_a_corpus_with_a_column_of_levels_is_measured_all_the_same():
    """The sample corpus tells the level at which each clip was made, and none of the other features."""
    clips = corpora.load("sample").head(3)
    assert "level_db" in clips
    table = corpora.features_table(clips)
    for reference in (clips, table):
        index, found = encoders.AcousticSpace(reference).sound(clips)
        np.testing.assert_array_equal(found, encoders.AcousticSpace(table).sound(table)[1])
    assert index.tolist() == clips.index.tolist()
    assert descriptions.Acoustics(clips)(clips).tolist() == descriptions.captions(table, table).tolist()
