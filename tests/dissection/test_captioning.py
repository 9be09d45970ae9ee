"""Captions of sounds that are no voices; tags and answers of tiny models, against the same model asked directly."""

from __future__ import annotations

import sys

import numpy as np
import pandas as pd
import pytest
import soundfile
import tiny_text
import torch

from xai_lib import audio, corpora, models
from xai_lib.dissection import descriptions

pytestmark = pytest.mark.heavy

RATE = 16000
AT = np.arange(4 * RATE) / RATE


def save(path, samples, rate=RATE):
    soundfile.write(path, np.asarray(samples, np.float32).clip(-1, 1), rate, subtype="FLOAT")
    return str(path)


@pytest.fixture
def sounds(tmp_path):
    """Clips of 4 s: hiss, hiss that beats twice a second, hiss in bursts without order, a tone, and a tick."""
    rng = np.random.default_rng(0)
    hiss = 0.1 * rng.standard_normal(len(AT))
    bursts = np.zeros(len(AT))
    for start in (0.3, 0.55, 1.35, 1.7, 2.9, 3.15):
        bursts[int(start * RATE) : int((start + 0.1) * RATE)] = 1
    made = {
        "hiss": hiss,
        "beats": hiss * (AT % 0.5 < 0.1),
        "bursts": hiss * bursts,
        "tone": 0.3 * sum(np.sin(2 * np.pi * 220 * h * AT) / h for h in range(1, 6)),
        "short": hiss * ((AT > 1) & (AT < 1.4)),
    }
    return pd.DataFrame({"path": [save(tmp_path / f"{name}.wav", x) for name, x in made.items()]}, index=list(made))


# ---------- measured


def test_features_table_measures_rhythm_and_steadiness(sounds):
    """Only hiss that beats has a high rhythm, and a tone is steadier than hiss, which is steadier than bursts."""
    table = corpora.features_table(sounds)
    assert table["rhythm"]["beats"] > 0.9 and table["rhythm"].drop("beats").max() < 0.5
    assert table["steadiness"]["tone"] > table["steadiness"]["hiss"] > -1
    assert -30 < table["steadiness"][["beats", "bursts", "short"]].max() < -10  # digital silence counts as 50 dB less
    assert table["steadiness"].max() <= 0


@pytest.mark.parametrize("beat", [0.5, 1, 2.5, 8])
def test_rhythm_detects_regular_pulses(beat):
    """Pulses at 0.5 to 8 a second have a rhythm above 0.85, at any level, and shuffled ones below 0.45."""
    pulses = np.exp(-(((np.arange(400) * 0.02 * beat) % 1 - 0.5) ** 2) * 40)
    assert audio.rhythm(pulses) > 0.85
    shuffled = np.random.default_rng(0).permutation(pulses)
    assert audio.rhythm(shuffled) < 0.45
    assert audio.rhythm(3 * pulses) == pytest.approx(audio.rhythm(pulses))


def test_rhythm_is_low_without_beats():
    """Constant, rising, barely modulated and slow envelopes have a rhythm near 0, and one that is too short has NaN."""
    assert np.isnan(audio.rhythm(np.ones(12))) and max(audio.rhythm(np.ones(200)), audio.rhythm(np.zeros(200))) < 1e-9
    ripple = np.sin(2 * np.pi * 2 * np.arange(400) * 0.02)
    assert audio.rhythm(1 + 0.5 * ripple) > 0.9 and audio.rhythm(1 + 0.002 * ripple) < 0.05
    assert audio.rhythm(np.linspace(0.1, 1, 400)) < 0.1
    for beat in (0.2, 0.45):  # under one in two seconds
        assert audio.rhythm(np.exp(-(((np.arange(400) * 0.02 * beat) % 1 - 0.5) ** 2) * 40)) < 0.1


def test_captions_of_sounds_mention_no_voice(sounds):
    """With the noun `sound`, captions mention no voice, but lack of pitch, rhythm and steadiness as measured."""
    table = corpora.features_table(sounds)
    captions = descriptions.captions(table, table, noun="sound")
    assert captions.str.endswith(" sound").all() and not captions.str.contains("voice").any()
    assert "unpitched" in captions["hiss"] and "unpitched" not in captions["tone"]
    assert "rhythmic" in captions["beats"] and "fitful" in captions["beats"] and "steady" in captions["tone"]
    middle = table.iloc[[0]].assign(**table.median().to_dict())
    assert descriptions.captions(middle, middle, noun="sound").iloc[0] == "an ordinary sound"


def test_acoustics_names_undescribed_clips(sounds, tmp_path):
    """Silent and missing clips are NaN and named in a warning, and the others are captioned as by `captions`."""
    describe = descriptions.Acoustics(sounds, noun="sound")
    table = corpora.features_table(sounds)
    assert list(describe(sounds)) == list(descriptions.captions(table, table, noun="sound"))
    assert list(descriptions.Acoustics(table, noun="sound")(sounds)) == list(describe(sounds))
    sounds.loc["still", "path"] = save(tmp_path / "still.wav", 1e-5 * np.sin(AT))
    sounds.loc["gone", "path"] = str(tmp_path / "gone.wav")
    with pytest.warns(UserWarning) as warned:
        captions = describe(sounds)
    assert captions.name == "caption" and list(captions.index) == list(sounds.index)
    assert list(captions.index[captions.isna()]) == ["still", "gone"]
    assert any("2 of 7 clips got no answer (still, gone)" in str(w.message) for w in warned)


# ---------- tags


def test_tagger_lists_most_probable_labels(tiny_folder, clips):
    """A caption lists the three most probable labels of the model, asked directly, in descending order."""
    folder = tiny_folder("base")
    tagger = descriptions.Tagger(folder, top=3, floor=0, device="cpu")
    captions = tagger(clips)
    model = models.load(folder, device="cpu", allow_untrained_head=True)
    for clip, wave in audio.stream(clips):
        with torch.no_grad():
            expected = model.logits(model.tensor(wave))[0].softmax(-1).numpy()
        order = np.argsort(-expected, kind="stable")[:3]
        assert captions[clip] == ", ".join(model.labels[i] for i in order)
        np.testing.assert_allclose(tagger.probabilities(wave)[model.labels], expected, atol=1e-5)


def test_tagger_omits_improbable_labels(tiny_folder, clips):
    """A clip without a label of probability `floor` gets no caption, and a warning says so."""
    tagger = descriptions.Tagger(tiny_folder("base"), floor=0.999, device="cpu")
    with pytest.warns(UserWarning, match="2 of 2 clips got no answer.*0.999"):
        assert tagger(clips).isna().all()


def test_tagger_uses_sigmoid_for_multi_label(tiny_folder, clips, wave):
    """Probabilities of a multi-label model are sigmoids: their odds, normalised, are the softmax."""
    plain = descriptions.Tagger(tiny_folder("base"), device="cpu")
    plain.network.config.problem_type = "multi_label_classification"
    odds = plain.probabilities(wave)
    odds = odds / (1 - odds)
    plain.network.config.problem_type = None
    np.testing.assert_allclose(plain.probabilities(wave), odds / odds.sum(), atol=1e-5)


# ---------- a model that hears and writes


@pytest.fixture(scope="module")
def writer(tmp_path_factory):
    return tiny_text.audio_language_model(tmp_path_factory.mktemp("writer"))


def test_audio_language_model_is_deterministic(writer, sounds):
    """Captions differ between sounds and requests, and are the same each time though the model is set to sample."""
    describe = descriptions.AudioLanguageModel(writer, max_tokens=64, device="cpu")
    captions = describe(sounds)
    assert captions.notna().all() and captions.nunique() > 2 and captions.name == "caption"
    pd.testing.assert_series_equal(describe(sounds), captions)  # though the model is set to sample
    other = descriptions.AudioLanguageModel(writer, ask="What is it?", max_tokens=64, device="cpu")(sounds)
    assert (other != captions).any()


def test_audio_language_model_keeps_saved_precision(writer, sounds, tmp_path):
    """A model that was saved in bfloat16 captions clips in bfloat16."""
    from transformers import AutoProcessor, Qwen2AudioForConditionalGeneration

    Qwen2AudioForConditionalGeneration.from_pretrained(writer, dtype=torch.bfloat16).save_pretrained(tmp_path / "half")
    AutoProcessor.from_pretrained(writer).save_pretrained(tmp_path / "half")
    describe = descriptions.AudioLanguageModel(tmp_path / "half", max_tokens=64, device="cpu")
    assert describe.network.dtype == torch.bfloat16 and describe(sounds[:1]).notna().all()


def test_audio_language_model_warns_of_missing_answers(writer, sounds, tmp_path):
    """A missing file and answers that are cut off are NaN, and warnings name the file and the limit."""
    sounds.loc["gone", "path"] = str(tmp_path / "gone.wav")
    with pytest.warns(UserWarning) as warned:
        captions = descriptions.AudioLanguageModel(writer, max_tokens=1, device="cpu")(sounds)
    messages = [str(w.message) for w in warned]
    assert list(captions.index) == list(sounds.index) and np.isnan(captions["gone"])
    whole = descriptions.AudioLanguageModel(writer, max_tokens=64, device="cpu")(sounds.drop("gone"))
    cut_off = captions.drop("gone").isna()
    assert cut_off.any() and captions.drop("gone")[~cut_off].equals(whole[~cut_off])
    assert any("gone.wav" in text for text in messages) and any("cut off after 1 tokens" in text for text in messages)


def test_tagger_refuses_missing_folder(tmp_path):
    """A folder that does not exist is refused by `Tagger` and by `AudioLanguageModel`."""
    for captioner in (descriptions.Tagger, descriptions.AudioLanguageModel):
        with pytest.raises(FileNotFoundError, match="no folder"):
            captioner(tmp_path / "none")


# ---------- real recordings


@pytest.mark.full
@pytest.mark.real
def test_match_names_esc10_concepts(real):
    """Over half of the captions, and of the sounds, of each of folds 1 to 4 are nearest to their own concept."""
    sys.path.insert(0, str(descriptions.CONCEPTS.parent / "recipes"))
    from pocket_ast import corpus

    clips = corpus(real / "esc10")
    clips = clips[clips["fold"] <= 4].astype({"path": str})
    table, concepts = corpora.features_table(clips), descriptions.concepts("esc10")
    assert set(concepts.index) == set(clips["label"])
    for fold in (1, 2, 3, 4):
        rest, here = table[clips["fold"] != fold], table[clips["fold"] == fold]
        labels = clips["label"][here.index].to_numpy()
        written = descriptions.match(descriptions.captions(here, rest, noun="sound"), concepts)
        heard = descriptions.match_sound(here, concepts, descriptions.AcousticSpace(rest))
        for fit in (written, heard):
            assert np.mean(fit.idxmax("concept").values == labels) > 0.5
