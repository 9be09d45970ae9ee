"""What people reported of tools like this one, and its neighbours: each gives what is right, or says what to do."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pocket_copies
import pytest
import soundfile
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pocket_copies import OTHER_HEADS, head_of
from torch import nn

from xai_lib import activations, audio, corpora, dissection, heads, hooks, models
from xai_lib.models import checkpoints
from xai_lib.workbook import command_line, inputs, parameters

RATE = 16000


def sound(seconds=1.0, seed=0):
    return (0.1 * np.random.default_rng(seed).standard_normal(round(seconds * RATE))).astype(np.float32)


def write(path, samples=None, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, sound() if samples is None else samples, RATE, **options)
    return path


# ---------- the same recordings twice


@pytest.mark.parametrize(
    ("corpus", "names"),
    [
        (
            "ravdess",
            ["Actor_01/03-01-05-01-01-01-01.wav", "audio_speech_actors_01-24/Actor_01/03-01-05-01-01-01-01.wav"],
        ),
        ("crema-d", ["AudioWAV/1001_DFA_ANG_XX.wav", "AudioMP3/1001_DFA_ANG_XX.mp3"]),
        ("tess", ["a/OAF_Fear/OAF_back_fear.wav", "a/a/OAF_Fear/OAF_back_fear.wav"]),
        ("savee", ["DC/a01.wav", "again/DC/a01.wav"]),
        ("savee", ["DC/a01.wav", "DC_a01.wav"]),
        ("emodb", ["wav/03a01Fa.wav", "copy/03a01Fa.flac"]),
        ("esc-50", ["audio/1-100032-A-0.wav", "audio/audio/1-100032-A-0.wav"]),
    ],
)
def test_corpora_load_deduplicates_recordings(tmp_path, corpus, names):
    """Of two copies of a recording, `corpora.load` takes one in each known corpus, with a warning."""
    for name in names:
        write(tmp_path / name)
    with pytest.warns(UserWarning, match=r"1 \(the same recording again\)"):
        clips = corpora.load(corpus, root=tmp_path)
    assert len(clips) == 1


def test_from_csv_deduplicates_rows(tmp_path):
    """A repeated row of a table is dropped with a warning, and the same file with another label is kept."""
    write(tmp_path / "a.wav")
    (tmp_path / "mine.csv").write_text("path,label\na.wav,angry\na.wav,angry\na.wav,sad\n")
    with pytest.warns(UserWarning, match=r"1 \(the same row again\)"):
        assert corpora.from_csv(tmp_path / "mine.csv")["label"].tolist() == ["angry", "sad"]


# ---------- names come before folders of that name


@pytest.mark.parametrize(
    ("pair", "expected"),
    [
        ("corpus=tess", "tess"),
        ("corpus=TESS", "TESS"),
        ("corpus=sample", "sample"),
        ("model=pocket", "pocket"),
        ("model=pocket-ast", "pocket-ast"),
        ("corpus=mine", None),
        ("model=my-model", None),
    ],
)
def test_command_line_prefers_bundled_names(tmp_path, monkeypatch, pair, expected):
    """Names of corpora and models precede folders of the same name, and other names become absolute paths."""
    name = pair.split("=")[1]
    (tmp_path / name).mkdir()
    monkeypatch.chdir(tmp_path)
    found = next(iter(command_line.parameters({}, [pair]).values()))
    assert found == (expected or str(tmp_path / name))


# ---------- what a layer gave


def network(inplace):
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Unflatten(1, (1, -1)),
        nn.Conv1d(1, 8, 400, 320),
        nn.BatchNorm1d(8),
        nn.ReLU(inplace=inplace),
        nn.Conv1d(8, 8, 3),
        nn.Hardtanh(inplace=inplace),
        nn.AdaptiveAvgPool1d(1),
        nn.Flatten(),
        nn.Linear(8, 2),
    ).eval()


def wrapped(inplace):
    options = {"sample_rate": RATE, "labels": ["angry", "calm"], "layout": "batch neuron frame", "device": "cpu"}
    return models.wrap(network(inplace), sites={(1, "norm"): "2", (2, "conv"): "4"}, **options)


@pytest.mark.parametrize("site", [(1, "norm"), (2, "conv")])
def test_capture_ignores_inplace_operations(site):
    """`capture` keeps the output of a layer as it was before later in-place operations."""
    seen = []
    for inplace in (False, True):
        model = wrapped(inplace)
        x = model.tensor(sound())
        with torch.no_grad(), hooks.capture(model, [site]) as kept:
            model.logits(x)
        seen.append(kept[hooks.Site(*site)])
    assert (seen[0] < 0).any()
    torch.testing.assert_close(*seen)


def test_capture_keeps_gradients_despite_inplace():
    """Captured outputs, their gradients and those of the logits are equal with and without in-place operations."""
    gradients = []
    for inplace in (False, True):
        torch.manual_seed(0)
        layers = [
            nn.Unflatten(1, (-1, 400)),
            nn.Linear(400, 8),
            nn.ReLU(inplace=inplace),
            nn.Flatten(),
            nn.Linear(320, 2),
        ]
        options = {"sample_rate": RATE, "labels": ["angry", "calm"], "seconds": 1, "device": "cpu"}
        model = models.wrap(nn.Sequential(*layers).eval(), sites={(1, "linear"): "1"}, **options)
        x = model.tensor(sound()).requires_grad_()
        with hooks.capture(model, [(1, "linear")]) as kept:
            logits = model.logits(x)
        hidden = kept[hooks.Site(1, "linear")]
        upstream = torch.autograd.grad(hidden[0, 3, 1], x, retain_graph=True)
        gradients.append((hidden.detach(), *upstream, *torch.autograd.grad(logits[0, 0], x)))
    assert all(gradient.abs().max() > 0 for gradient in gradients[0])
    for one, other in zip(*gradients):
        torch.testing.assert_close(one, other)


def test_edit_ignores_inplace_operations():
    """Outputs passed to `edit` and `grad_x_activation` scores are equal with and without in-place operations."""
    kept = {}
    for inplace in (False, True):
        model = wrapped(inplace)

        def keep(hidden, inplace=inplace):
            kept[inplace] = hidden
            return hidden

        with torch.no_grad(), hooks.edit(model, {(1, "norm"): keep}):
            model.logits(model.tensor(sound()))
    torch.testing.assert_close(kept[True], kept[False])
    from xai_lib import attribution

    scores = [
        attribution.grad_x_activation(wrapped(i), sound(), target="angry", part="norm", sample_rate=RATE)
        for i in (0, 1)
    ]
    np.testing.assert_allclose(scores[1]["signed"], scores[0]["signed"], atol=1e-6)


def test_wrap_refuses_clips_beyond_window():
    """A model wrapped with `seconds` refuses longer clips in `predict`, and `over_time` uses its window."""
    model = models.wrap(
        nn.Sequential(nn.Unflatten(1, (-1, 400)), nn.Linear(400, 8), nn.Flatten(), nn.Linear(320, 2)).eval(),
        sites={(1, "linear"): "1"}, sample_rate=RATE, labels=["angry", "calm"], seconds=1, device="cpu",
    )  # fmt: skip
    with pytest.raises(audio.NoClips, match="longer than the 1 s"):
        model.predict(sound(2), RATE)
    assert model.over_time(sound(2), RATE).attrs["window"] == 1


def test_activations_ignores_inplace_operations():
    """`activations` and `activation_stats` give equal values with and without in-place operations."""
    found = {}
    for inplace in (False, True):
        model = wrapped(inplace)
        found[inplace] = [
            dissection.activations(model, sound(), ["norm"], frames="all", sample_rate=RATE)["activation"].values,
            activations.activation_stats(model, sound(), part="norm", sample_rate=RATE)["mean"].values,
        ]
    for one, other in zip(found[True], found[False], strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


class Reused(nn.Module):
    """One module that runs twice in a forward."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv1d(1, 8, 400, 320)
        self.twice = nn.Linear(8, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        hidden = self.front(x[:, None]).transpose(1, 2)
        return self.out(self.twice(self.twice(hidden).relu()).mean(1))


def test_wrap_refuses_modules_that_run_twice():
    """A site whose module runs more than once in a forward is refused by `wrap` and by `n_neurons`."""
    options = {"sample_rate": RATE, "labels": ["angry", "calm"], "device": "cpu"}
    with pytest.raises(ValueError, match="runs more than once in a forward"):
        models.wrap(Reused().eval(), sites={(1, "hidden"): "twice"}, **options)
    model = models.wrap(Reused().eval(), sites={(1, "hidden"): "front"}, layout="batch neuron frame", **options)
    with pytest.raises(ValueError, match="runs more than once in a forward"):
        model.n_neurons("twice")


class InPieces(nn.Module):
    """A network that goes through long clips in pieces."""

    def __init__(self):
        super().__init__()
        self.front = nn.Conv1d(1, 8, 400, 320)
        self.hidden = nn.Linear(8, 8)
        self.out = nn.Linear(8, 2)

    def forward(self, x):
        pieces = [self.hidden(self.front(piece[:, None]).transpose(1, 2)) for piece in x.split(5 * RATE, 1)]
        return self.out(torch.cat(pieces, 1).mean(1))


def test_capture_refuses_modules_that_run_twice_in_long_clips():
    """`capture` and `edit` refuse a module that runs twice on long clips only, which `wrap` cannot detect."""
    model = models.wrap(
        InPieces().eval(), sites={(1, "hidden"): "hidden"}, sample_rate=RATE, labels=["angry", "calm"], device="cpu"
    )
    short, long = model.tensor(sound()), model.tensor(np.tile(sound(), 12))
    assert long.shape[1] > 5 * RATE
    with hooks.capture(model, [(1, "hidden")]) as kept:
        model.logits(short)
        model.logits(short)
        assert len(kept) == 1
        with pytest.raises(ValueError, match="runs more than once in a forward"):
            model.logits(long)
        model.logits(short)
    with hooks.edit(model, {(1, "hidden"): lambda hidden: 0 * hidden}):
        with pytest.raises(ValueError, match="runs more than once in a forward"):
            model.logits(long)
    model.logits(long)


@pytest.mark.heavy
def test_model_refuses_training_mode(tiny):
    """A network that is in training mode as a whole or in part is refused."""
    model = tiny()
    model.network.train()
    for call in (model.predict, model, lambda x, rate: dissection.activations(model, x, sample_rate=rate)):
        with pytest.raises(ValueError, match=r"training mode.*model.network.eval\(\)"):
            call(sound(), RATE)
    model.network.eval()
    model.architecture.layers[1].dropout.train()  # a part of it
    with pytest.raises(ValueError, match="training mode"):
        model.predict(sound(), RATE)


# ---------- heads of other kinds, and heads that cannot be fitted


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """checkpoint(name, config=…, weights=…): a copy of the bundled model with changes."""

    def make(name, config=None, weights=None):
        return pocket_copies.changed(tmp_path_factory.mktemp("checkpoint") / name, config, weights)

    return make


@pytest.mark.heavy
def test_models_load_supports_other_heads(checkpoint):
    """Models of several labels or of numbers are explained by logits, and methods that need one label refuse them."""
    from xai_lib import ablation, attribution, pruning, targets

    several = models.load(checkpoint("several", *OTHER_HEADS["several labels"]), device="cpu")
    logits = several(sound(), RATE)
    assert targets.value(several, logits, (4,), "probability").item() == pytest.approx(logits[0, 4].sigmoid().item())
    assert targets.value(several, logits, (4,), "log_odds").item() == pytest.approx(logits[0, 4].item())
    with pytest.raises(ValueError, match="needs a model that gives one label of several"):
        pruning.evaluate(several, sound(), {(2, "ffn_hidden"): [0]}, "angry", sample_rate=RATE)
    with pytest.raises(ValueError, match="needs a model that gives one label of several"):
        selection = ablation.Selection({2: [0]})
        ablation.sweep(several, sound(), selection, controls=None, target="angry", sample_rate=RATE)
    folder = checkpoint("numbers", *OTHER_HEADS["numbers"])
    own = models.load(folder, head=nn.Linear(several.n_neurons(0), 2), labels=["calm", "angry"], device="cpu")
    assert own.outputs == "one label" and own.predict(sound(), RATE)["label"].notna().all()
    numbers = models.load(folder, device="cpu")
    assert "label" not in numbers.predict(sound(), RATE)
    with pytest.raises(ValueError, match="numbers .a regression., which have no probability: use scale='logit'"):
        attribution.gradient(numbers, sound(), target="valence", scale="probability", sample_rate=RATE)
    found = attribution.gradient(numbers, sound(), target="valence", sample_rate=RATE)
    assert np.isfinite(found["signed"]).all()


def features(speakers, labels=("angry", "calm")):
    import xarray as xr

    rng = np.random.default_rng(0)
    rows = [(voice, label) for voice in range(speakers) for label in labels for _ in range(3)]
    coords = {"clip": np.arange(len(rows)), "layer": [0, 1], "label": ("clip", np.array([r[1] for r in rows], object))}
    coords["speaker"] = "clip", np.array([f"s{r[0]}" for r in rows], object)
    return xr.DataArray(rng.standard_normal((len(rows), 2, 5)), dims=("clip", "layer", "neuron"), coords=coords)


@pytest.mark.parametrize(
    ("table", "folds", "message"),
    [
        (features(2), 5, "5 folds need at least as many speakers, and there are 2: give more speakers$"),
        (features(2), 2, "2 folds are too few.*use folds=3 or more"),
        (features(4), 2, "2 folds are too few"),
        (features(4), 5, "there are 4: give more speakers, or folds=4"),
        (features(6, labels=(0, 1)), 3, "labels must be strings, and . is a int: name the classes"),
    ],
)
def test_cross_validate_refuses_unfittable_tables(table, folds, message):
    """`cross_validate` refuses too few speakers, too few folds, and labels that are not strings."""
    with pytest.raises(ValueError, match=message):
        heads.cross_validate(table, folds=folds)


def test_cross_validate_accepts_three_speakers():
    """`cross_validate` accepts three folds of three speakers."""
    assert heads.cross_validate(features(3), folds=3, shuffles=1).sizes["fold"] == 3


# ---------- checkpoints


POINTER = "version https://git-lfs.github.com/spec/v1\noid sha256:" + "a" * 64 + "\nsize 6733792\n"


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda f: (f / "model.safetensors").write_text(POINTER),
            FileNotFoundError,
            "pointer of Git LFS.*git lfs pull",
        ),
        (
            lambda f: ((f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_text(POINTER)),
            FileNotFoundError,
            "pytorch_model.bin is a pointer of Git LFS",
        ),
        (
            lambda f: (f / "model.safetensors").write_bytes((f / "model.safetensors").read_bytes()[:3_000_000]),
            ValueError,
            "cut off or broken, so download it again",
        ),
        (lambda f: (f / "model.safetensors").write_bytes(b""), ValueError, "cut off or broken"),
        (
            lambda f: ((f / "model.safetensors").unlink(), (f / "pytorch_model.bin").write_bytes(b"not weights")),
            ValueError,
            "cut off or broken",
        ),
        (lambda f: (f / "model.safetensors").unlink(), FileNotFoundError, "could not be read"),
        (
            lambda f: (f / "config.json").write_text("{"),
            (FileNotFoundError, ValueError),
            "could not be read|cannot be opened",
        ),
    ],
)
def test_models_load_refuses_broken_checkpoints(checkpoint, change, error, message):
    """Checkpoints with Git LFS pointers or truncated, empty or missing files are refused with the reason."""
    folder = checkpoint("broken")
    change(folder)
    with pytest.raises(error, match=message):
        models.load(folder, device="cpu")


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("config", "weights", "message"),
    [
        (None, head_of(3), r"other sizes than its config.json says \(8 labels"),
        ({"id2label": {"0": "a", "1": "b"}, "label2id": {}}, None, "other sizes than its config.json says"),
        ({"intermediate_size": 36}, None, "other sizes than its config.json says"),
        (
            {"model_type": "ser", "auto_map": {"AutoConfig": "m.C", "AutoModelForAudioClassification": "m.M"}},
            None,
            "code of its own, which is not run here",
        ),
        (None, lambda s: {"classifier.bias": torch.full((8,), torch.nan)}, "1 weights .* hold NaN .* classifier.bias"),
        (None, lambda s: {"projector.weight": s["projector.weight"] * torch.inf}, "hold NaN or infinite"),
    ],
)
def test_models_load_refuses_inconsistent_checkpoints(checkpoint, config, weights, message):
    """Checkpoints whose weights contradict the config, are not finite, or need code of their own are refused."""
    with pytest.raises(ValueError, match=message):
        models.load(checkpoint("unfit", config, weights), device="cpu")


@pytest.mark.heavy
def test_models_load_converts_numeric_labels(checkpoint):
    """Labels that are numbers in the config become strings in `labels`, `repr` and predictions."""
    model = models.load(checkpoint("numbered", {"id2label": {str(i): i for i in range(8)}}), device="cpu")
    assert model.labels == list("01234567") and "0, 1, 2" in repr(model)
    assert model.predict(sound(), RATE)["label"].iloc[0] in model.labels


@pytest.mark.parametrize("name", ["mps", "cuda", "cuda:9", "meta", "gpu", "cuda:x"])
def test_device_refuses_unavailable_devices(name):
    """`device` refuses a device that is unavailable or unknown, and names it."""
    if name.startswith("cuda") and torch.cuda.is_available() and name != "cuda:9":
        pytest.skip("there is a GPU here")
    if name == "mps" and torch.backends.mps.is_available():
        pytest.skip("there is a Metal GPU here")
    with pytest.raises(ValueError, match=f"device .?{name}"):
        checkpoints.device(name)


# ---------- an offset


@pytest.mark.parametrize("offset", [0.001, 0.01, -0.05, 0.3])
def test_features_table_is_invariant_to_offset(tmp_path, offset):
    """A constant offset of the waveform changes no acoustic feature."""
    seconds = np.arange(2 * RATE) / RATE
    voice = np.sin(2 * np.pi * 150 * seconds) * (0.2 * np.sin(2 * np.pi * 3 * seconds).clip(0) + 1e-4)
    voice += 1e-4 * sound(2)
    paths = [write(tmp_path / f"{name}.wav", voice + name, subtype="FLOAT") for name in (0, offset)]
    table = corpora.features_table(paths)
    np.testing.assert_allclose(table.iloc[1], table.iloc[0], rtol=2e-3, atol=2e-3)


@pytest.mark.parametrize("convert", [np.asarray, torch.as_tensor])
def test_without_offset_keeps_centred_waveforms(convert):
    """`without_offset` leaves a waveform of mean zero unchanged, and keeps the type of others."""
    clean = convert(sound() - sound().mean())
    found = audio.without_offset(clean)
    assert found.dtype == clean.dtype and (found == clean).all()
    assert audio.without_offset(clean + 0.1).dtype == clean.dtype


def test_speech_mask_excludes_zero_padding():
    """Zeros that pad a waveform with an offset are not marked as speech."""
    padded = np.concatenate([0.2 * np.sin(np.arange(RATE) / 10) + 0.03, np.zeros(RATE)]).astype(np.float32)
    mask = audio.speech_mask(padded)
    assert mask[:48].all() and not mask[52:].any()


# ---------- the user's own files, folders and results


@pytest.fixture
def any_model():
    return type("Any", (), {"stream": staticmethod(lambda clips, skipped: audio.stream(clips, skipped=skipped))})


def test_own_files_reports_unreadable_formats(tmp_path, any_model):
    """`own_files` counts files of unreadable formats, and refuses folders without a readable sound file."""
    m4a = b"\0\0\0\x20ftypM4A " + bytes(100)
    for name in ("phone/1.m4a", "phone/2.m4a", "mixed/b.m4a", "mixed/c.webm", "mixed/d.amr"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(m4a)
    write(tmp_path / "mixed/a.wav")
    write(tmp_path / "deep/day1/a.wav")
    (tmp_path / "empty").mkdir()
    with pytest.raises(FileNotFoundError, match=r"no sound file .* in .*phone, but 2 \.m4a"):
        inputs.own_files(str(tmp_path / "phone"), any_model, {})
    with pytest.raises(FileNotFoundError, match="in .*empty, but nothing"):
        inputs.own_files(tmp_path / "empty", any_model, {})
    assert len(inputs.own_files(str(tmp_path / "deep"), any_model, {})) == 1
    skipped = {}
    clips = inputs.own_files([tmp_path / "mixed"], any_model, skipped)
    assert [Path(path).name for path in clips["path"]] == ["a.wav"]
    for ending in (".m4a", ".webm", ".amr"):
        assert f"1 {ending}, which cannot be read" in skipped[str(tmp_path / "mixed")]


def test_parameters_accepts_path_objects(tmp_path):
    """The parameter `files` may be a `Path` or a list of them, and is converted to strings."""
    assert parameters.check({"files": tmp_path / "a.wav"})["files"] == str(tmp_path / "a.wav")
    assert parameters.check({"files": [tmp_path / "a.wav"]})["files"] == [str(tmp_path / "a.wav")]


@pytest.mark.heavy
def test_command_line_reports_unwritable_results(tmp_path, capsys):
    """A results folder that cannot be written is reported in one line, with exit status 2."""
    (tmp_path / "file").write_text("")
    assert command_line.main(["--only", "01", "--results", str(tmp_path / "file")]) == 2
    said = capsys.readouterr().err.strip().splitlines()
    assert len(said) == 1 and "results cannot be written to" in said[0] and "--results" in said[0]


def test_command_line_shortens_socket_folder(tmp_path, monkeypatch):
    """Kernel sockets are placed in `/tmp` only where their names in the temporary folder would be too long."""
    longest = command_line.LONGEST_SOCKET - len("/xai-12345678")
    for length, expected in ((1, None), (longest, None), (longest + 1, "/tmp"), (200, "/tmp")):
        monkeypatch.setattr("tempfile.tempdir", "/" + "n" * (length - 1))
        assert command_line._folder_of_sockets() == expected, length


@pytest.mark.full
def test_command_line_runs_with_long_tmpdir(tmp_path):
    """Notebook 01 runs from the command line if `TMPDIR` has a long name."""
    long = tmp_path / "job.12345678/interactive/tmp" / ("n" * 60)
    long.mkdir(parents=True)
    command = [sys.executable, "-m", "xai_lib.workbook", "--only", "01", "--results", str(tmp_path / "results")]
    command += ["max_clips=8", "k=5"]
    environment = {**os.environ, "TMPDIR": str(long)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


# ---------- folders of any shape


NAMES = ["a.wav", "b.WAV", "ä ö.wav", ".hidden.wav", "._a.wav", "03-01-05-01-01-01-01.wav", "03-02-05-01-01-01-01.wav"]
NAMES += ["01-01-05-01-01-01-01.mp4", "03-01-05-01-01-01-99.wav", "notes.txt", "c.m4a", "d.flac", "noend", "e.wav.wav"]
FOLDERS = ["", "angry", "sad", "Actor_01", "001 - Dog", ".git", "__MACOSX", "x y", "angry/angry"]


@st.composite
def trees(draw):
    """Files, links to them, to nothing and to folders: (folder, name, kind, target)."""
    entry = st.tuples(
        st.sampled_from(FOLDERS),
        st.sampled_from(NAMES),
        st.sampled_from(["sound", "empty", "text", "link", "broken link", "folder link"]),
        st.integers(0, 20),
    )
    return draw(st.lists(entry, max_size=12))


def build(root, tree):
    made = []
    for folder, name, kind, number in tree:
        path = root / folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() or path.is_symlink():
            continue
        if kind == "sound":
            path.write_bytes(CONTENT + bytes([number]))
        elif kind == "empty":
            path.write_bytes(b"")
        elif kind == "text":
            path.write_text("text")
        elif kind == "link" and made:
            path.symlink_to(made[number % len(made)])
        elif kind == "folder link":
            link = path.with_name(f"linked{number}")
            if not link.is_symlink():
                link.symlink_to(root if number % 2 else path.parent, target_is_directory=True)
            continue
        else:
            path.symlink_to(root / "nowhere")
        made.append(path)


CONTENT = b"RIFF and so on"


def check_tree(root, tree):
    build(root, tree)
    for load in (corpora.from_folder, corpora.as_clips, lambda path: corpora.load("ravdess", root=path)):
        try:
            clips = load(root)
        except FileNotFoundError as error:
            assert str(root) in str(error)
            visible = [path for path in root.glob("*") if path.suffix.lower() == ".wav" and path.is_file()]
            ravdess = "ravdess" in str(error)
            assert ravdess or not any(not path.name.startswith(".") for path in visible)
            continue
        paths = [Path(path) for path in clips["path"]]
        assert paths and len(set(paths)) == len(paths)
        for path in paths:
            inside = path.relative_to(root)
            assert path.is_file() and not any(part.startswith(".") or part == "__MACOSX" for part in inside.parts)
            assert path.suffix.lower() in audio.SUFFIXES
        assert set(clips["label"].dropna()) <= {*corpora.EMOTIONS, "Dog", "x y", *[f"linked{n}" for n in range(21)]}


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=60)
@given(tree=trees())
def test_corpora_load_accepts_or_refuses_any_folder(tmp_path_factory, tree):
    """Random folder trees give valid clips in three loaders, or an error that names the folder."""
    check_tree(tmp_path_factory.mktemp("tree"), tree)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore")
@settings(max_examples=4000)
@given(tree=trees())
def test_corpora_load_accepts_or_refuses_many_folders(tmp_path_factory, tree):
    """Thousands of random folder trees give valid clips in three loaders, or an error that names the folder."""
    check_tree(tmp_path_factory.mktemp("tree"), tree)
