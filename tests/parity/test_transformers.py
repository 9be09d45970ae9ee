"""Models, heads and encoders give what transformers gives for the same checkpoint and sound."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_text
import torch
from pocket_copies import OTHER_HEADS, changed
from transformers import (
    ASTFeatureExtractor,
    AutoFeatureExtractor,
    AutoModelForAudioClassification,
    AutoProcessor,
    AutoTokenizer,
    BertConfig,
    BertModel,
    ClapConfig,
    ClapFeatureExtractor,
    ClapModel,
    ClapProcessor,
    CLIPTextModelWithProjection,
    Qwen2AudioForConditionalGeneration,
    pipeline,
)

from xai_lib import audio, edits, execution, hooks, models
from xai_lib.dissection import descriptions
from xai_lib.probing import speaker_space

pytestmark = pytest.mark.heavy

RATE = 16000


def sound(n, seed=0):
    """White noise."""
    return 0.2 * np.random.default_rng(seed).standard_normal(n).astype(np.float32)


# ---------- models


@pytest.mark.parametrize("size", ["base", "large"])
def test_logits_equal_transformers(tiny_folder, size, wave):
    """Logits of raw samples equal those of transformers after the checkpoint's own feature extractor."""
    folder = tiny_folder(size)
    model = models.load(folder)
    inputs = AutoFeatureExtractor.from_pretrained(folder)(wave + 0.3, sampling_rate=16_000, return_tensors="pt")
    plain = AutoModelForAudioClassification.from_pretrained(folder).eval()(**inputs).logits
    assert torch.allclose(model.logits(model.tensor(wave + 0.3)), plain, atol=1e-5)
    assert model.labels == [plain_label for plain_label in model.network.config.id2label.values()]


def test_prepare_normalises_by_default_like_transformers(tiny_folder, tmp_path, wave):
    """A model normalises sound, as transformers does, where the preprocessor does not say whether to."""
    shutil.copytree(tiny_folder("base"), tmp_path / "m")
    path = tmp_path / "m/preprocessor_config.json"
    kept = json.loads(path.read_text())
    kept.pop("do_normalize", None)
    path.write_text(json.dumps(kept))
    model = models.load(tmp_path / "m")
    want = AutoFeatureExtractor.from_pretrained(tmp_path / "m")(wave, sampling_rate=16_000)["input_values"][0]
    np.testing.assert_allclose(model.prepare(model.tensor(wave))[0], want, atol=1e-5)
    assert abs(want.std() - wave.std()) > 0.01


@pytest.mark.parametrize("n", [4000, 16000, 30000], ids=["padded", "whole", "cut"])
def test_prepare_equals_ast_feature_extractor(ast, ast_folder, n):
    """The AST's spectrogram and logits equal those of transformers, and gradients reach the clip's own samples."""
    wave = sound(n)
    extract = ASTFeatureExtractor.from_pretrained(ast_folder)
    theirs = extract(wave, sampling_rate=16_000, return_tensors="pt")["input_values"].to(ast.device)
    x = torch.stack([ast.tensor(wave)[0], ast.tensor(sound(n, 1))[0]]).requires_grad_()
    torch.testing.assert_close(ast.prepare(x)[:1], theirs, atol=1e-4, rtol=1e-4)
    logits = ast.logits(x)
    torch.testing.assert_close(logits[:1], ast.network(theirs).logits, atol=1e-4, rtol=1e-4)
    (slope,) = torch.autograd.grad(logits[0, 0], x)
    assert slope[0].abs().max() > 0 and not slope[1].any()


@pytest.mark.parametrize("kind", OTHER_HEADS)
def test_predict_equals_transformers_pipeline(tmp_path, kind):
    """Predictions are the scores of transformers' audio-classification pipeline, for each kind of head."""
    wave = (0.1 * np.random.default_rng(0).standard_normal(RATE)).astype(np.float32)
    folder = changed(tmp_path / kind.replace(" ", "-"), *OTHER_HEADS[kind])
    ours = models.load(folder, device="cpu").predict(wave, RATE).iloc[0].drop("label", errors="ignore").astype(float)
    classify = pipeline("audio-classification", model=str(folder), device="cpu")
    theirs = {row["label"]: row["score"] for row in classify(wave, top_k=None)}
    np.testing.assert_allclose([theirs[name] for name in ours.index], ours, atol=1e-4)


# ---------- speaker_space


@pytest.mark.parametrize("size", ["base", "large"])
@pytest.mark.parametrize("summed", [False, True])  # whether the emotion head reads a weighted sum does not matter
def test_xvector_equals_transformers(tiny, xvector_heads, voices, size, summed):
    """The x-vector of a clip equals that of transformers' network, and changes under an edit of a layer below."""
    model = tiny(size)
    if summed:
        model.network.layer_weights = torch.nn.Parameter(torch.zeros(4), requires_grad=False)
    try:
        network, folder = xvector_heads(size)
        waveform, space = audio.read(voices["path"][3]), speaker_space.xvector(model, folder)
        plans = [(hooks.Site(2), edits.edit([1, 5], "flip"))]
        _, seen = execution.cascade_read(
            model, waveform, plans, speaker_space.readout_functions(model, space, waveform)
        )
    finally:
        if summed:
            del model.network.layer_weights
    assert list(seen) == [hooks.Site(3)]
    with torch.no_grad():
        expected = network(model.prepare(model.tensor(waveform)).cpu()).embeddings
    found = seen[hooks.Site(3)].cpu().numpy()
    assert found[:1] == pytest.approx(expected.numpy(), rel=1e-3, abs=1e-4)
    assert np.abs(found[1] - found[0]).max() > 1e-4


# ---------- descriptions


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    return tiny_text.clip(tmp_path_factory.mktemp("clip"))


def test_clip_text_equals_transformers(clip):
    """`CLIPText` gives the normalised text projection of transformers, and zeros for an empty text."""
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


@pytest.fixture(scope="module")
def clap(tmp_path_factory):
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


def test_clap_sound_equals_transformers(clap, recorded):
    """`CLAP` embeds sound at 48 kHz as transformers does, without random crops, and skips missing files."""
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


def test_clap_text_equals_transformers(clap, recorded):
    """`CLAP` embeds texts as transformers does, warns of texts it cuts, and matches sounds to them by cosine."""
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


def test_sentence_transformer_equals_transformers(tmp_path):
    """`SentenceTransformer` gives the normalised mean of the token states of transformers."""
    package = pytest.importorskip("sentence_transformers")
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


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return tiny_text.audio_language_model(tmp_path_factory.mktemp("writer"))


@pytest.fixture
def sounds(make_clips, tmp_path):
    """A tone of 4 s."""
    at = np.arange(4 * RATE) / RATE
    tone = 0.3 * sum(np.sin(2 * np.pi * 220 * h * at) / h for h in range(1, 6))
    return make_clips(tmp_path, 1, signal=lambda *_: tone, names="tone.wav", index=["tone"])


def test_audio_language_model_equals_transformers(writer, sounds):
    """`AudioLanguageModel` gives the caption that transformers generates with the checkpoint's own processor."""
    network = Qwen2AudioForConditionalGeneration.from_pretrained(writer, dtype=torch.float32).eval()
    processor = AutoProcessor.from_pretrained(writer)
    asked = "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nAudio 1: "
    asked += "<|audio_bos|><|AUDIO|><|audio_eos|>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n"
    waveform = audio.read(sounds.loc["tone", "path"])
    inputs = processor(text=asked, audio=[waveform], sampling_rate=RATE, return_tensors="pt")
    assert (inputs["input_ids"] == 2).sum() == 50  # 2 s
    with torch.no_grad():
        tokens = network.generate(**inputs, do_sample=False, max_new_tokens=64)[0, inputs["input_ids"].shape[1] :]
    describe = descriptions.AudioLanguageModel(writer, ask="What is it?", max_tokens=64, device="cpu")
    assert describe(sounds.loc[["tone"]])["tone"] == processor.tokenizer.decode(tokens).strip()
