"""Pools against plain numpy on captured activations; files against memory, stopped anywhere; moments against all frames."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tracemalloc
from functools import partial
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from transformers import ASTConfig, ASTForAudioClassification

from xai_lib import audio, hooks, models
from xai_lib.activations import (
    activation_stats,
    activations,
    check_activation_stats,
    exemplars,
    open_activations,
    storage,
)
from xai_lib.models.sites import Site

PARTS = ["ffn_hidden", "ffn_out"]


@pytest.fixture
def corpus(make_clips, tmp_path):
    """corpus(n): clips of three lengths, two of each in a row, with a burst in the middle."""

    def make(n, seconds=(0.4, 0.3, 0.5)):
        def burst(place, rng):
            length = round(16_000 * seconds[place // 2 % len(seconds)])
            x = 0.001 * rng.standard_normal(length)
            x[length // 3 : length // 2] += 0.2 * rng.standard_normal(length // 2 - length // 3)
            return x

        about = {"label": lambda i: ("angry", None)[i % 2], "speaker": lambda i: f"s{i // 3}"}
        index = [f"clip {i}" for i in range(n)]
        return make_clips(tmp_path, n, signal=burst, subtype="PCM_16", index=index, **about)

    return make


@pytest.fixture(scope="module")
def ast(device):
    """A random AST of one second."""
    torch.manual_seed(1)
    config = ASTConfig(hidden_size=24, num_hidden_layers=2, num_attention_heads=3, intermediate_size=40, patch_size=16,
                       time_stride=8, frequency_stride=8, max_length=100, num_mel_bins=32, num_labels=3)  # fmt: skip
    network = ASTForAudioClassification(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    return models.Model(
        network,
        labels=list("abc"),
        name="ast",
        trained="a test",
        preprocessor={"mean": -5.0, "std": 4.0},
        device=device,
    )


class Frames(torch.nn.Module):
    """Windows of 100 samples through a linear map; its logits are of their mean."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(2)
        self.fc, self.head = torch.nn.Linear(100, 7), torch.nn.Linear(7, 2)

    def forward(self, x):
        return self.head(torch.relu(self.fc(x.unfold(-1, 100, 100))).mean(1))


@pytest.fixture
def wrapped(device):
    return models.wrap(
        Frames(), sites={(1, "ffn_hidden"): "fc"}, sample_rate=16_000, labels="ab", layout={"head": "batch neuron"},
        device=device,
    )  # fmt: skip


def frames_of(model, path, site):
    """Hidden [frame, neuron] by a plain hooked forward, the logits, and the waveform."""
    x = audio.read(path, model.sample_rate)
    with torch.no_grad(), hooks.capture(model, site) as seen:
        logits = model.logits(model.tensor(x))
    return seen[model.check(site)][0].cpu().numpy(), logits[0].cpu().numpy(), x


def top(share):
    return lambda x: np.sort(x, axis=0)[-max(round(share * len(x)), 1) :].mean(0)


POOLS = {"mean": lambda x: x.mean(0), "max": lambda x: x.max(0), "top-0.1": top(0.1), "top-0.5": top(0.5)}


@pytest.mark.parametrize("frames", ["speech", "all"])
@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("which", ["wavlm", "ast", "wrapped"])
def test_activations_equal_numpy_pools(tiny, ast, wrapped, corpus, which, pool, frames):
    """Pools and magnitudes equal numpy on captured frames, and logits a plain forward, for three models."""
    model, clips = {"wavlm": tiny(), "ast": ast, "wrapped": wrapped}[which], corpus(3)
    found, magnitude = activations(model, clips, pool=pool, frames=frames), 0
    assert (found.attrs["pool"], found.attrs["part"], found.attrs["frames"]) == (pool, "ffn_hidden", frames)
    last = found["layer"].values[-1]
    for index, path in clips["path"].items():
        hidden, logits, x = frames_of(model, path, Site(last, "ffn_hidden"))
        keep = (model.speech if frames == "speech" else model.valid_frames)(x, len(hidden))
        assert 0 < keep.sum() < len(keep) or (frames == "all" and which != "ast")
        np.testing.assert_allclose(
            found["activation"].sel(clip=index, layer=last), POOLS[pool](hidden[keep]), atol=1e-5
        )
        np.testing.assert_allclose(found["logit"].sel(clip=index), logits, atol=1e-5)
        magnitude = magnitude + np.abs(hidden[keep]).mean(0) / len(clips)
    np.testing.assert_allclose(found["magnitude"].sel(layer=last), magnitude, atol=1e-5)


def test_activations_pool_class_tokens_and_skip_padding(ast, corpus):
    """The pool `cls` averages the class tokens alone, and frames of padding enter no pool."""
    clips = corpus(1)
    hidden, _, x = frames_of(ast, clips["path"].iloc[0], Site(2))
    found = activations(ast, clips, Site(2), pool="cls")
    np.testing.assert_allclose(found["activation"][0, 0], hidden[:2].mean(0), atol=1e-5)
    np.testing.assert_allclose(found["magnitude"][0], np.abs(hidden[:2]).mean(0), atol=1e-5)
    heard = np.flatnonzero(ast.valid_frames(x))
    assert heard.min() >= 2 and len(heard) < len(hidden) - 2  # 0.4 of 1 s
    found = activations(ast, clips, Site(2), pool="max", frames="all")
    np.testing.assert_allclose(found["activation"][0, 0], hidden[heard].max(0), atol=1e-5)


def test_activations_refuse_unknown_pools_frames_and_sites(tiny, corpus):
    """Unknown pools and frames, an empty list of sites and sites with another number of frames are refused."""
    model, clips = tiny(), corpus(1)
    with pytest.raises(ValueError, match='has no class tokens: pool its frames with "mean"'):
        activations(model, clips, pool="cls")
    for pool in ("avg", "top-", "top-0", "top-2", "top-nan", None):
        with pytest.raises(ValueError, match="unknown pool"):
            activations(model, clips, pool=pool)
    with pytest.raises(ValueError, match="unknown frames"):
        activations(model, clips, frames="loud")
    with pytest.raises(ValueError, match="no sites"):
        activations(model, clips, [])
    with pytest.raises(ValueError, match="returned 12 frames where the model has 19"):
        activations(model, clips, "wavlm.feature_extractor.conv_layers.5")


def test_activations_of_parts_equal_each_alone(tiny, corpus):
    """Activations of several parts at once equal those of each part alone, by part, layer and neuron."""
    model, clips = tiny(), corpus(4)
    both = activations(model, clips, [*PARTS, Site(0)])
    assert both["activation"].dims == ("clip", "unit") and both["unit"].to_index().names == ["part", "layer", "neuron"]
    for part in PARTS:
        alone = activations(model, clips, part)
        assert alone["activation"].dims == ("clip", "layer", "neuron")
        for layer in (1, 3):
            want = alone.sel(layer=layer)
            got = both.sel(part=part, layer=layer)
            np.testing.assert_array_equal(got["activation"], want["activation"])
            np.testing.assert_array_equal(got["magnitude"], want["magnitude"])
    one = both["activation"].sel(part="ffn_out", layer=3, neuron=7)
    np.testing.assert_array_equal(one, activations(model, clips, "ffn_out")["activation"].sel(layer=3, neuron=7))
    np.testing.assert_array_equal(both["logit"], alone["logit"])
    np.testing.assert_array_equal(
        both["activation"].sel(part="hidden_state", layer=0), activations(model, clips, 0)["activation"][:, 0]
    )


def test_activations_accept_all_forms_of_sites(tiny, corpus):
    """Sites may be a pair, a `Site`, a layer, a part or a list, of which duplicates count once."""
    model, clips = tiny(), corpus(1)
    for sites, layers in [
        ((2, "ffn_out"), [2]),
        (Site(3), [3]),
        (1, [1]),
        ([3, 1, 3], [3, 1]),
        ("hidden_state", [0, 1, 2, 3]),
    ]:
        assert activations(model, clips, sites)["layer"].values.tolist() == layers
    assert activations(model, clips, PARTS).sizes["unit"] == 3 * (40 + 24)


def test_activations_accept_module_paths(tiny, corpus):
    """A module is a site by its path, alone or beside parts, and one without frames is not pooled."""
    model, clips = tiny(), corpus(2)
    path = "wavlm.encoder.layers.1.feed_forward.intermediate_dropout"
    alone = activations(model, clips, path)
    np.testing.assert_array_equal(
        alone["activation"].sel(layer=path), activations(model, clips, (2, "ffn_hidden"))["activation"][:, 0]
    )
    mixed = activations(model, clips, [path, "classifier", "ffn_out"])
    found = mixed["activation"].sel(part="module", layer="classifier").values
    np.testing.assert_allclose(found, mixed["logit"], atol=1e-6)  # no frames to pool
    np.testing.assert_array_equal(mixed["activation"].sel(part="module", layer=path), alone["activation"][:, 0])
    np.testing.assert_array_equal(
        mixed["activation"].sel(part="ffn_out", layer=1), activations(model, clips, (1, "ffn_out"))["activation"][:, 0]
    )


def test_activations_omit_logits_without_labels(corpus, tmp_path, device):
    """A wrapped module without labels has no logits, in memory and in a file."""
    inner = torch.nn.Sequential(torch.nn.Unflatten(1, (-1, 100)), torch.nn.Linear(100, 5))
    model = models.wrap(inner, sites={(1, "ffn_hidden"): "1"}, sample_rate=16_000, device=device)
    clips = corpus(3)
    found = activations(model, clips)
    assert "logit" not in found and found["activation"].shape == (3, 1, 5)
    xr.testing.assert_identical(activations(model, clips, file=tmp_path / "a.nc").load(), found)


def test_activations_are_independent_of_batch(tiny, corpus):
    """Clips that share a forward have the activations of each clip alone."""
    model, clips = tiny("large"), corpus(7)
    xr.testing.assert_allclose(activations(model, clips, batch=3), activations(model, clips), atol=1e-5)


@pytest.mark.parametrize("sites", ["ffn_hidden", PARTS, ["classifier", Site(2)]], ids=["layers", "units", "modules"])
def test_activations_file_equals_memory(tiny, corpus, tmp_path, sites, monkeypatch):
    """A file is plain netCDF, is read lazily, equals the result in memory, and is not computed a second time."""
    model, clips = tiny(), corpus(5)
    Path(clips["path"].iloc[1]).write_bytes(b"no sound")
    with pytest.warns(UserWarning, match="1 of 5 clips"):
        want = activations(model, clips, sites, pool="top-0.1", batch=2)
    with pytest.warns(UserWarning, match="1 of 5 clips"):
        found = activations(model, clips, sites, pool="top-0.1", batch=2, file=tmp_path / "a.nc")
    assert json.loads(found.attrs["skipped"]).keys() == {"clip 1"} and "1.wav" in found.attrs["skipped"]
    assert found["activation"].dtype == np.float32
    assert not found["activation"].variable._in_memory  # read when it is used
    xr.testing.assert_identical(found.load(), want)
    assert [path.name for path in tmp_path.glob("a.nc*")] == ["a.nc"]
    with h5py.File(tmp_path / "a.nc") as file:  # a plain netCDF file to everyone else
        assert file["activation"].chunks is None and np.isnan(file["activation"][1]).all()
    monkeypatch.delattr(models.Model, "logits")  # no forward is left to do
    again = activations(model, clips, sites, pool="top-0.1", file=tmp_path / "a.nc")
    xr.testing.assert_identical(again.load(), found)


class Stopped(Exception):
    pass


@pytest.mark.filterwarnings("ignore:.*clips were skipped")
@pytest.mark.parametrize("step", [pytest.param(1, marks=pytest.mark.full), 3])
def test_activations_resume_after_any_write(tiny, corpus, tmp_path, monkeypatch, step):
    """A run stopped at any write leaves valid data, and is resumed to the bytes of an uninterrupted run."""
    model, clips = tiny(), corpus(6)
    Path(clips["path"].iloc[2]).write_bytes(b"no sound")
    Path(clips["path"].iloc[5]).write_bytes(b"")
    run = partial(activations, model, clips, PARTS, batch=2)
    whole = run(file=tmp_path / "whole.nc").load()
    left = {"n": 0}

    class File:
        """A file that takes so many writes, and of the last but half."""

        def __init__(self, *args, **kwargs):
            self.file = Path.open(*args, **kwargs)
            self.seek, self.read, self.fileno = self.file.seek, self.file.read, self.file.fileno

        def __enter__(self):
            return self

        def __exit__(self, *error):
            self.file.close()

        def write(self, data):
            left["n"] -= 1
            if left["n"] < 0:
                self.file.write(data[: len(data) // 2 if len(data) > 8 else 0])
                raise Stopped
            self.file.write(data)

    monkeypatch.setattr(storage, "open", File, raising=False)
    stops = 0
    while stops < 100:
        left["n"], name = stops, f"{stops}.nc"
        try:
            run(file=tmp_path / name)
            break
        except Stopped:
            stops += step
        done = open_activations(tmp_path / f"{name}.part")
        xr.testing.assert_equal(done["activation"], whole["activation"].sel(clip=done["clip"]))
        done.close()
        left["n"] = 100
        run(file=tmp_path / name).close()
        assert (tmp_path / name).read_bytes() == (tmp_path / "whole.nc").read_bytes(), stops
    assert 15 < stops < 100


KILLED = """
import os, signal, sys
import pandas as pd
from xai_lib import models
from xai_lib.activations import caching
from xai_lib.activations import activations
folder, table, file, after, caching.CODE = sys.argv[1:]
model, calls, logits = models.load(folder, device="cpu"), [], models.Model.logits
def counted(self, x):
    calls.append(1)
    if len(calls) > int(after):
        os.kill(os.getpid(), signal.SIGKILL)
    return logits(self, x)
models.Model.logits = counted
activations(model, pd.read_csv(table, index_col=0), file=file)
"""


@pytest.mark.full
def test_activations_resume_after_kill(tiny_folder, corpus, tmp_path, monkeypatch):
    """After SIGKILL, another process computes the missing clips alone and completes the file."""
    clips, model = corpus(6), models.load(tiny_folder(), device="cpu")
    clips["label"] = "angry"
    clips.to_csv(tmp_path / "clips.csv")
    told = [tiny_folder(), tmp_path / "clips.csv", tmp_path / "a.nc", 4, storage.caching.CODE]  # that of this process
    root = Path(__file__).parents[2]
    command = [sys.executable, "-c", KILLED, *map(str, told)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (tmp_path / "a.nc").exists()
    assert open_activations(tmp_path / "a.nc.part")["clip"].values.tolist() == clips.index[:4].tolist()
    calls, logits = [], models.Model.logits
    monkeypatch.setattr(models.Model, "logits", lambda self, x: calls.append(1) or logits(self, x))
    clips = pd.read_csv(tmp_path / "clips.csv", index_col=0)
    found = activations(model, clips, file=tmp_path / "a.nc")
    assert len(calls) == 2
    xr.testing.assert_allclose(found, activations(model, clips))
    activations(model, clips, file=tmp_path / "b.nc")
    xr.testing.assert_identical(open_activations(tmp_path / "a.nc"), open_activations(tmp_path / "b.nc"))


def test_activations_refuse_files_of_other_runs(tiny, corpus, tmp_path, monkeypatch):
    """A file of other weights, options, clips or code, or of another kind, is refused and left unchanged."""
    clips, file = corpus(3), tmp_path / "a.nc"
    activations(tiny(), clips, file=file)
    before = file.read_bytes()

    def refused(what, model=None, clips=clips, sites="ffn_hidden", **options):
        with pytest.raises(ValueError, match=rf"a\.nc(\.part)? holds activations of other {what}: delete it"):
            activations(model or tiny(), clips, sites, file=file, **options)

    other = tiny()
    with torch.no_grad():
        other.network.classifier.bias += 1

    for path in (file, tmp_path / "a.nc.part"):
        if path != file:
            file.rename(path)
        refused("weights or settings", other)
        refused("options", pool="max")
        refused("options", frames="all")
        refused("options", sites="ffn_out")
        refused("clips", clips=clips[:2])
        refused("clips", clips=clips.assign(label="sad"))
        refused("clips, options", clips=clips[::-1], pool="max")
        with monkeypatch.context() as patch:
            patch.setattr(storage.caching, "CODE", "newer")
            refused("code")
    assert path.read_bytes() == before
    path.rename(file)
    sound = Path(clips["path"].iloc[0])
    sound.write_bytes(Path(clips["path"].iloc[1]).read_bytes())
    refused("clips")
    file.write_text("mine")
    with pytest.raises(ValueError, match=r"a\.nc exists and holds no activations"):
        activations(tiny(), clips, file=file)
    assert file.read_text() == "mine"
    model = tiny()
    with hooks.edit(model, {Site(1): lambda x: 0 * x}), pytest.raises(ValueError, match="the model is edited"):
        activations(model, clips, file=tmp_path / "b.nc")


def test_activations_refuse_concurrent_writers(tiny, corpus, tmp_path, monkeypatch):
    """A run is refused as soon as another has written or removed its file, and the data stay correct."""
    model, clips, file = tiny(), corpus(6), tmp_path / "a.nc"
    expected, stream = activations(model, clips), model.stream

    def disturbed(again):
        def rows(clips, skipped):
            for row, item in enumerate(stream(clips, skipped)):
                if row == 2:
                    monkeypatch.setattr(model, "stream", stream)
                    again()
                yield item

        return rows

    monkeypatch.setattr(model, "stream", disturbed(lambda: activations(model, clips, file=file)))
    with pytest.raises(ValueError, match=r"another run writes .*a\.nc\.part"):
        activations(model, clips, file=file)
    xr.testing.assert_allclose(open_activations(file)["activation"].load(), expected["activation"], atol=1e-6)

    def stopped():
        monkeypatch.setattr(model, "stream", lambda *args: (x if i < 3 else 1 / 0 for i, x in enumerate(stream(*args))))
        with pytest.raises(ZeroDivisionError):
            activations(model, clips, file=tmp_path / "c.nc")
        monkeypatch.setattr(model, "stream", stream)

    monkeypatch.setattr(model, "stream", disturbed(stopped))
    with pytest.raises(ValueError, match="another run writes"):
        activations(model, clips, file=tmp_path / "c.nc")
    again = activations(model, clips, file=tmp_path / "c.nc")
    xr.testing.assert_allclose(again["activation"].load(), expected["activation"], atol=1e-6)
    xr.testing.assert_allclose(again["magnitude"], expected["magnitude"])
    monkeypatch.setattr(model, "stream", disturbed(lambda: (tmp_path / "b.nc.part").unlink()))
    with pytest.raises(ValueError, match="another run writes"):
        activations(model, clips, file=tmp_path / "b.nc")


def test_activations_leave_no_file_without_clips(tiny, corpus, tmp_path):
    """Clips none of which can be used are refused, and leave no file."""
    clips = corpus(2)
    for path in clips["path"]:
        Path(path).write_bytes(b"")
    with pytest.raises(audio.NoClips):
        activations(tiny(), clips, file=tmp_path / "a.nc")
    with pytest.raises(ValueError, match="there are no clips"):
        activations(tiny(), clips[:0], file=tmp_path / "a.nc")
    assert not list(tmp_path.glob("a.nc*"))


def test_activations_memory_is_independent_of_clips(tiny, corpus, tmp_path):
    """Peak memory of a run into a file does not grow with the number of clips."""
    model, clips = tiny(intermediate_size=2000), corpus(2, seconds=(0.1,))
    peaks = {}
    for n in (8, 8, 128):  # the first is the warm-up
        many = pd.concat([clips] * (n // 2), ignore_index=True)
        tracemalloc.start()
        activations(model, many, file=tmp_path / "a.nc").close()
        peaks[n] = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        (tmp_path / "a.nc").unlink()
    assert peaks[128] - peaks[8] < 0.1 * 120 * 4 * 3 * 2000, peaks


def test_activation_stats_skip_padding(ast, corpus):
    """Activation statistics are over all frames that lie within the clips, without padding."""
    clips = corpus(3)
    found, every = activation_stats(ast, clips, part="ffn_out"), []
    for path in clips["path"]:
        hidden, _, x = frames_of(ast, path, Site(2, "ffn_out"))
        every.append(hidden[ast.valid_frames(x)])
    every = np.concatenate(every)
    np.testing.assert_allclose(found["mean"].sel(layer=2), every.mean(0), atol=1e-5)
    np.testing.assert_allclose(found["std"].sel(layer=2), every.std(0), atol=1e-4)
    assert found.attrs["n_frames"] == len(every)


def test_check_activation_stats_refuses_other_objects(tiny, corpus):
    """Statistics of the same part are accepted; other tables, and statistics of another part, are refused."""
    model = tiny()
    found = activation_stats(model, corpus(2))
    check_activation_stats(found, model, "hidden_state")
    for other in (
        found["mean"].sel(layer=1).to_series(),
        found.to_dataframe(),
        activations(model, corpus(2), "hidden_state"),
        {"mean": 0},
    ):
        with pytest.raises(ValueError, match="activation_stats must be the Dataset"):
            check_activation_stats(other, model, "hidden_state")
    with pytest.raises(ValueError, match="are of hidden_state instead of ffn_out"):
        check_activation_stats(found, model, "ffn_out")


def test_exemplars_of_parts_equal_each_alone(tiny, corpus):
    """Exemplars from several parts equal those of the part alone, and the part must be named."""
    model, clips = tiny(), corpus(6)
    both = activations(model, clips, PARTS)["activation"]
    alone = activations(model, clips, "ffn_out")["activation"]
    pd.testing.assert_frame_equal(
        exemplars.exemplars(both, 2, 5, 2, part="ffn_out"), exemplars.exemplars(alone, 2, 5, 2)
    )
    with pytest.raises(ValueError, match="choose one of ffn_hidden, ffn_out with part="):
        exemplars.exemplars(both, 2, 5, 2)


@pytest.mark.parametrize("which", ["wavlm", "ast", "wrapped"])
def test_top_frames_rank_strongest_speech_frames(tiny, ast, wrapped, corpus, which):
    """Top frames are the strongest speech frames of the clips, in order, with time, waveform and speaker."""
    model, clips = {"wavlm": tiny(), "ast": ast, "wrapped": wrapped}[which], corpus(6)
    Path(clips["path"].iloc[3]).write_bytes(b"")
    with pytest.warns(UserWarning, match="1 of 6"):
        found = exemplars.top_frames(model, clips, 1, 4, 3, half=0.05)
    want = {}
    for index, path in clips["path"].drop("clip 3").items():
        hidden, _, x = frames_of(model, path, Site(1, "ffn_hidden"))
        keep = model.speech(x, len(hidden))
        at = np.where(keep, hidden[:, 4], -np.inf).argmax()
        want[index] = hidden[at, 4], model.times(x, len(hidden))[at], x
    order = sorted(want, key=lambda index: -want[index][0])[:3]
    assert found.index.tolist() == order and (found["end"] == "high").all()
    for index, row in found.iterrows():
        value, peak, x = want[index]
        assert (row["activation"], row["peak"]) == (pytest.approx(value, abs=1e-5), pytest.approx(peak))
        assert 0 <= row["start"] <= peak <= row["stop"] <= len(x) / 16_000
        np.testing.assert_array_equal(row["waveform"], x[int(row["start"] * 16_000) : int(row["stop"] * 16_000)])
        assert row["speaker"] == clips["speaker"][index]
    with pytest.warns(UserWarning):
        most = activations(model, clips, pool="max")["activation"]
    assert exemplars.exemplars(most, 1, 4, 2).index[:2].tolist() == order[:2]


def test_snippets_peak_at_extreme_patches(ast, corpus):
    """Snippets of an AST peak at the patch of greatest activation, or of least for the low end."""
    clips = corpus(4)
    table = exemplars.exemplars(activations(ast, clips, "ffn_out")["activation"], 2, 3, 2)
    found = exemplars.snippets(ast, clips, table, 2, 3, part="ffn_out", half=0.1)
    for index, row in found.iterrows():
        hidden, _, x = frames_of(ast, clips["path"][index], Site(2, "ffn_out"))
        values = np.where(ast.speech(x), hidden[:, 3] * (1 if row["end"] == "high" else -1), -np.inf)
        assert row["peak"] == pytest.approx(ast.times(x)[values.argmax()]) and len(row["waveform"]) <= 3200


def test_activation_stats_records_number_of_frames(tiny, corpus):
    """The number of frames is the attribute `n_frames`, and `frames` is left to names such as "speech"."""
    model, clips = tiny(), corpus(2)
    frames = activations(model, clips, frames="all")
    found = activation_stats(model, clips)
    assert found.attrs["n_frames"] > 0 and "frames" not in found.attrs and frames.attrs["frames"] == "all"
