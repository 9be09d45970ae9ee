from __future__ import annotations

import json
import pickle
import shutil

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
from transformers import AutoModelForAudioClassification, HubertConfig, HubertModel, WavLMModel

from xai_lib import hooks, models
from xai_lib.models.sites import PARTS, Site


def test_prepare_is_differentiable(tiny):
    """The normalisation in `prepare` passes `gradcheck`, and gradients of the logits reach the samples."""
    model = tiny("large")
    x = torch.randn(1, 1200, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(model.prepare, x[:, :40].detach().requires_grad_())
    gradient = torch.autograd.grad(model.logits(x.float())[0, 0], x)[0]
    assert gradient.abs().sum() > 0


def test_model_describes_itself(tiny, wave):
    """A model knows its layers, neurons, frames, sites and labels; its network is frozen and in evaluation mode."""
    model = tiny()
    assert (model.n_layers, model.hop, model.span, model.frame_seconds) == (3, 320, 400, 0.02)
    assert model.n_neurons(Site(1)) == 24 and model.n_neurons((2, "ffn_hidden")) == 40 and model.n_neurons(0) == 24
    assert len(model.sites()) == 4 and len(model.sites(PARTS)) == 4 + 3 * 3
    with torch.no_grad(), hooks.capture(model, 0) as seen:
        model.logits(model.tensor(wave))
    assert seen[Site(0)].shape[1] == model.n_frames(len(wave))
    assert not model.network.training and not any(p.requires_grad for p in model.network.parameters())
    assert model.target("sad") == 3 and model.target(3) == 3


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda m: m.check(14), "layer 14 out of range: this model has 0–3"),
        (lambda m: m.check(-1), "layer -1 out of range"),
        (lambda m: m.check((1, "mlp")), "unknown part 'mlp': the parts are hidden_state, attention"),
        (lambda m: m.check((0, "attention")), "layer 0 is the input of the first layer"),
        (lambda m: m.check(1, 24), "neuron 24 out of range: hidden_state has 0–23"),
        (lambda m: m.check((1, "ffn_hidden"), [3, 40]), "neuron 40 out of range: ffn_hidden has 0–39"),
        (lambda m: m.target("bored"), "unknown label 'bored': this model has neutral, calm"),
        (lambda m: m.target(8), "unknown label 8"),
        (lambda m: m.tensor(np.zeros(399)), "399 samples are too short: one frame of this model needs 400"),
        (lambda m: m.tensor(np.zeros((2, 800))), "a waveform is one-dimensional"),
        (lambda m: m.tensor([0.0] * 500 + [np.nan]), "holds NaN"),
    ],
)
def test_model_refuses_bad_sites_labels_and_samples(tiny, call, message):
    """Invalid sites, neurons, labels and samples are refused, and the message says what is valid."""
    with pytest.raises(ValueError, match=message):
        call(tiny())


@pytest.fixture
def encoder_folder(tiny_folder, tmp_path):
    """The checkpoint of an encoder without a head."""
    WavLMModel.from_pretrained(tiny_folder("base")).save_pretrained(tmp_path)
    shutil.copy(tiny_folder("base") / "preprocessor_config.json", tmp_path)
    return tmp_path


def test_require_trained_refuses_untrained_head(encoder_folder, tmp_path, wave):
    """An untrained head is refused by `require_trained` and `predict`, unless `load` was to allow it."""
    model = models.load(encoder_folder)
    assert model.trained is None
    soundfile.write(tmp_path / "a.wav", wave, 16_000)
    for refused in (model.require_trained, lambda: model.predict(tmp_path / "a.wav")):
        with pytest.raises(models.UntrainedHead, match=r"heads\.fit"):
            refused()
    models.load(encoder_folder, allow_untrained_head=True).require_trained()


class Pooled(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.linear = torch.nn.Linear(24, 2)

    def forward(self, hidden):
        return torch.relu(self.linear(hidden.amax(1)))


@pytest.mark.parametrize("make", [lambda: torch.nn.Linear(24, 2), Pooled])
def test_load_takes_own_head(tiny_folder, make, wave):
    """With a head passed to `load`, the logits are those of the head on the encoder's last layer."""
    torch.manual_seed(3)
    head = make()
    model = models.load(tiny_folder("base"), head=head, labels=["yes", "no"])
    model.require_trained()
    hidden = WavLMModel.from_pretrained(tiny_folder("base")).eval()(torch.from_numpy(wave)[None]).last_hidden_state
    expected = head(hidden.mean(1)) if isinstance(head, torch.nn.Linear) else head(hidden)
    assert torch.allclose(model.logits(model.tensor(wave)).cpu(), expected.cpu(), atol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"head": torch.nn.Linear(24, 2)}, "needs labels="),
        ({"head": torch.nn.Linear(24, 2), "labels": ["a"]}, r"expected \(1, 1\)"),
        ({"head": torch.nn.Linear(25, 2), "labels": ["a", "b"]}, r"does not take \[batch, frame, 24\]"),
        ({"labels": ["a"]}, "1 labels were given, but the head has 8"),
        ({"device": "nowhere"}, "device 'nowhere' is unknown: expected 'auto', 'cpu'"),
    ],
)
def test_load_refuses_bad_heads_and_labels(tiny_folder, options, message):
    """Loading refuses a head without labels or of a wrong width, a wrong number of labels, and an unknown device."""
    with pytest.raises(ValueError, match=message):
        models.load(tiny_folder("base"), **options)


def test_predict_equals_softmax_and_skips_bad_clips(tiny, tmp_path, wave):
    """Predictions are softmax probabilities and their label; unusable clips are NaN and listed as skipped."""
    model = tiny()
    for name, sound in {"good": wave, "short": wave[:300], "silent": np.zeros(8000), "nan": wave * np.nan}.items():
        soundfile.write(tmp_path / f"{name}.wav", sound, 16_000, subtype="FLOAT")
    (tmp_path / "text.wav").write_text("this is no sound")
    (tmp_path / "empty.wav").touch()
    names = ["short", "good", "silent", "nan", "text", "empty", "absent"]
    clips = pd.DataFrame({"path": [str(tmp_path / f"{n}.wav") for n in names]}, index=list("abcdefg"))
    with pytest.warns(UserWarning, match="6 of 7 clips were skipped"):
        table = model.predict(clips)
    assert list(table.index) == list(clips.index) and list(table.columns) == ["label", *model.labels]
    assert set(table.attrs["skipped"]) == set("acdefg") and table.drop("b").isna().all(axis=None)
    with torch.no_grad():
        expected = model.logits(model.tensor(wave)).softmax(-1)[0].tolist()
    assert table.loc["b", model.labels].tolist() == pytest.approx(expected, abs=1e-6)
    assert table.loc["b", "label"] == model.labels[int(np.argmax(expected))]
    pd.testing.assert_frame_equal(
        model.predict([tmp_path / "good.wav"]).reset_index(drop=True), table.loc[["b"]].reset_index(drop=True)
    )
    with pytest.raises(ValueError, match=r"no clip could be used \(0 of 6\)"):
        model.predict(clips.drop(index="b"))


def test_load_refuses_folders_without_model(tmp_path):
    """Loading raises FileNotFoundError for a folder without config.json, an absent one and an unknown hub id."""
    with pytest.raises(FileNotFoundError, match="no config.json"):
        models.load(tmp_path)
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        models.load(tmp_path / "absent")
    with pytest.raises(FileNotFoundError, match="download the model elsewhere"):
        models.load("nobody/has-this-model")


def test_load_refuses_unsupported_architectures(tmp_path):
    """Loading refuses a HuBERT checkpoint, and names its architecture and those that are supported."""
    HubertModel(
        HubertConfig(
            hidden_size=12,
            num_hidden_layers=1,
            num_attention_heads=2,
            intermediate_size=12,
            conv_dim=[4],
            conv_kernel=[10],
            conv_stride=[5],
            num_conv_pos_embedding_groups=4,
        )
    ).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="architecture hubert; supported are wavlm"):
        models.load(tmp_path)


def test_load_refuses_missing_encoder_weights(tiny_folder, tmp_path):
    """Loading refuses a checkpoint that lacks a weight of the encoder, and names the weight."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(tiny_folder("base"), tmp_path / "m")
    weights = load_file(tmp_path / "m/model.safetensors")
    weights.pop("wavlm.encoder.layers.1.attention.q_proj.weight")
    save_file(weights, tmp_path / "m/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match="lacks 1 of the encoder's weights, such as .*layers.1.attention.q_proj"):
        models.load(tmp_path / "m")


def test_load_converts_half_precision_to_float32(tiny_folder, tmp_path):
    """All weights of a checkpoint in half precision are loaded as float32."""
    network = AutoModelForAudioClassification.from_pretrained(tiny_folder("base")).half()
    network.save_pretrained(tmp_path)
    shutil.copy(tiny_folder("base") / "preprocessor_config.json", tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "float16"
    assert {p.dtype for p in models.load(tmp_path).network.parameters()} == {torch.float32}


def test_load_without_preprocessor_keeps_waveform(tiny_folder, tmp_path, wave):
    """Without preprocessor_config.json `load` warns, and `prepare` leaves the waveform unchanged, at 16 kHz."""
    shutil.copytree(tiny_folder("large"), tmp_path / "m")
    (tmp_path / "m/preprocessor_config.json").unlink()
    with pytest.warns(UserWarning, match="no preprocessor_config.json"):
        model = models.load(tmp_path / "m")
    assert torch.equal(model.prepare(model.tensor(wave)), model.tensor(wave)) and model.sample_rate == 16_000


@pytest.mark.parametrize("head", [None, torch.nn.Linear(24, 2)])
def test_model_survives_pickling(tiny_folder, wave, head):
    """A pickled model, with its own or a user's head, gives the same logits and the same description."""
    labels = head and ["calm", "angry"]
    model = models.load(tiny_folder("large"), head=head, labels=labels, device="cpu")
    again = pickle.loads(pickle.dumps(model))
    x = model.tensor(wave)
    assert torch.equal(again.logits(x), model.logits(x)) and again.architecture.network is again.network
    assert (repr(again), again.trained, again.hop, again.span) == (repr(model), model.trained, model.hop, model.span)


def test_frames_between_goes_by_frame_centres(tiny):
    """Frames between two times are those whose centres lie in the interval, its end left out."""
    model = tiny()  # centres at 12.5 ms, 32.5 ms, 52.5 ms, …
    assert model.frames_between(0.03, 0.08).tolist() == [1, 2, 3]
    assert model.frames_between(0, 0.0125).tolist() == [] and model.frames_between(0, 0.013).tolist() == [0]
    assert model.frames_between(1.0, 1.05).tolist() == [50, 51]
    assert model.frames_between(0.5, 0.2).tolist() == []


def test_load_names_bundled_models(monkeypatch):
    """A name that cannot be read is refused with the names of the bundled models."""

    def unreadable(*args, **options):
        raise OSError("no such repository")

    monkeypatch.setattr("transformers.AutoConfig.from_pretrained", unreadable)
    with pytest.raises(
        FileNotFoundError, match="pockets could not be read .*: the bundled models are pocket and pocket-ast"
    ):
        models.load("pockets")


def test_check_names_parts(shared):
    """A site that is neither a part nor a module is refused with modules and the parts."""
    with pytest.raises(ValueError, match="there is no module 'ffn': .*, and the parts hidden_state, .*, ffn_hidden, "):
        shared().check("ffn")
