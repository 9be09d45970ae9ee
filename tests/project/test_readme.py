"""The code that README.md shows is run, with stand-ins for what it would download."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from torch import nn

from xai_lib import corpora, dissection, hooks
from xai_lib.dissection import descriptions

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]


def run(word, folder):
    """What the names stand for at the end of the one block of Python in README.md that holds a word."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    (code,) = [code for code in blocks if word in code]
    (folder / "shown.py").write_text(code)
    return runpy.run_path(str(folder / "shown.py"))


class Layer(nn.Module):
    """A feed-forward on [frame, batch, neuron], with what else a layer of BEATs gives."""

    def __init__(self, width, hidden):
        super().__init__()
        self.fc1, self.fc2, self.dropout2 = nn.Linear(width, hidden), nn.Linear(hidden, width), nn.Dropout(0.5)

    def forward(self, x):
        mixed = x + x.mean(0, keepdim=True)  # over frames: were the axes mistaken, clips would mix
        return x + self.fc2(self.dropout2(torch.relu(self.fc1(mixed)))), None, None


class StandIn(nn.Module):
    """The interface of BEATs: no forward, frames first inside of the encoder, probabilities and a mask."""

    def __init__(self, settings):
        super().__init__()
        self.embed, self.predictor = nn.Linear(400, 8), nn.Linear(8, settings["predictor_class"])
        self.encoder = nn.Module()
        self.encoder.layers = nn.ModuleList(Layer(8, 12) for _ in range(2))

    def extract_features(self, source, padding_mask=None):
        x = self.embed(source.unfold(-1, 400, 400)).transpose(0, 1)
        for layer in self.encoder.layers:
            x, _, _ = layer(x)
        return self.predictor(x.transpose(0, 1)).mean(1).sigmoid(), padding_mask


def test_readme_beats_example_equals_manual_forward(tmp_path, monkeypatch):
    """The README's code opens a BEATs-like module; its activations, logits and edits equal those by hand."""
    beats, settings = ModuleType("BEATs"), {"predictor_class": 3}
    beats.BEATs, beats.BEATsConfig = StandIn, dict
    monkeypatch.setitem(sys.modules, "BEATs", beats)
    network = StandIn(settings)
    saved = {"cfg": settings, "model": network.state_dict(), "label_dict": {2: "c", 0: "a", 1: "b"}}
    monkeypatch.setattr(torch, "load", lambda path: saved)
    clips = corpora.load("sample").iloc[[0, 40, 80]]
    monkeypatch.setattr(corpora, "load", lambda name, root: clips)
    monkeypatch.chdir(tmp_path)
    shown = run("BEATs", tmp_path)
    model, found = shown["model"], shown["found"]
    assert model.labels == ["a", "b", "c"] and (tmp_path / "beats.nc").is_file()
    assert found["activation"].sizes == {"clip": 3, "unit": 2 * (12 + 8)}
    network.eval()
    for clip, wave in model.stream(clips):
        x = model.tensor(wave)
        states = network.embed(x.unfold(-1, 400, 400)[0])
        for number, layer in enumerate(network.encoder.layers, 1):
            inside = torch.relu(layer.fc1(states + states.mean(0)))
            for part, hidden in (("ffn_hidden", inside), ("ffn_out", layer.fc2(inside))):
                own = found["activation"].sel(clip=clip).sel(part=part, layer=number).values
                np.testing.assert_allclose(own, hidden.mean(0).detach(), atol=1e-5)
            states = states + layer.fc2(inside)
        logits = network.predictor(states).mean(0).detach()
        np.testing.assert_allclose(found["logit"].sel(clip=clip), logits, atol=1e-4)
        with hooks.edit(model, {(2, "ffn_out"): lambda hidden: 0 * hidden}):
            gone = model.logits(x)[0].detach()
        by_hand = network.predictor(states - layer.fc2(inside)).mean(0).detach()
        torch.testing.assert_close(gone, by_hand, atol=1e-4, rtol=1e-4)


def test_readme_describers_example_names_neurons(tmp_path, monkeypatch):
    """The README's code for larger describers runs with stand-ins, and names two neurons by ICL, DB and TAB."""

    def hears(clips):
        return pd.Series(
            np.where(clips["statement"] == 1, "a breathy voice, quiet", "a harsh voice, loud"), clips.index
        )

    class Answers:
        def __init__(self, url, model, cache):
            pass

        def __call__(self, texts):
            return " and ".join(sorted(set(texts)))

        def ask(self, system, user):
            return "harsh\nbreathy\ncreaky\nlax\ntense" if "harsh voice" in user.split("<description>")[-1] else "none"

    monkeypatch.setattr(descriptions, "AudioLanguageModel", lambda model: hears)
    monkeypatch.setattr(descriptions, "Endpoint", Answers)
    monkeypatch.setattr(descriptions, "SentenceTransformer", lambda: descriptions.tfidf(["a harsh, a breathy voice"]))
    monkeypatch.setattr(descriptions, "CLAP", lambda: descriptions.AcousticSpace(corpora.load("sample").head(9)))
    kept, identify = {}, dissection.identify
    monkeypatch.setattr(
        dissection, "identify", lambda *x, method, **y: kept.update({method: identify(*x, method=method, **y)})
    )
    shown = run("Endpoint", tmp_path)
    assert set(kept) == {"ICL", "DB", "TAB"} and all(isinstance(named, xr.Dataset) for named in kept.values())
    assert all(named["name"].shape == (1, 2) for named in kept.values())
    assert kept["ICL"]["name"].values[0].tolist() == ["harsh" if "harsh" in text else "" for text in shown["summaries"]]
    assert {*np.ravel([kept[method]["name"] for method in ("DB", "TAB")])} <= {
        *descriptions.concepts("voice_qualities").index
    }


def test_readme_names_public_descriptions():
    """README names only public members of `descriptions`; an unknown bundled table is refused with a list."""
    text = (ROOT / "README.md").read_text()
    for name in re.findall(r"`descriptions\.(\w+)", text):
        assert name in descriptions.__all__
    with pytest.raises(FileNotFoundError, match="available are pocket-ast, pocket-wavlm"):
        descriptions.bundled_descriptions("nothing")


def test_readme_own_recordings_example_runs(tmp_path, monkeypatch):
    """The README's code for recordings of one's own runs on files of 22,050 Hz, with finite scores of one clip."""
    import soundfile

    rng = np.random.default_rng(0)
    for name, seconds in (("mine.wav", 1), ("call.wav", 6)):
        soundfile.write(tmp_path / name, 0.1 * rng.standard_normal(seconds * 22_050), 22_050)
    monkeypatch.chdir(tmp_path)
    known = run("model.over_time", tmp_path)
    assert known["rate"] == 22_050
    assert np.isfinite(known["scores"]["signed"]).all() and known["scores"].sizes["clip"] == 1
