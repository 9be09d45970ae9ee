"""setup(), with a corpus and a model made of nothing, and what save leaves on disk."""

from __future__ import annotations

import itertools
import json
import os
import random
import re
import shutil
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from transformers import WavLMModel

from xai_lib import audio, corpora, models, workbook
from xai_lib.corpora import fingerprints
from xai_lib.workbook import inputs, parameters


@pytest.fixture
def stand_ins(make_clips, monkeypatch, tmp_path):
    """A corpus of 4 speakers x 2 emotions x 3 takes and a model that has heard two of the speakers."""
    speakers, labels, takes = zip(*itertools.product("abcd", ("angry", "sad"), range(3)))
    clips = make_clips(
        tmp_path / "corpus",
        24,
        lengths=lambda i: 800 + takes[i],
        seed=0,
        names=lambda i: f"{speakers[i]}/{labels[i]}{takes[i]}.wav",
        subtype="PCM_16",
        label=labels,
        speaker=speakers,
    )
    box = SimpleNamespace(corpus=clips, labels=["angry", "sad"], split_called=False)
    box.train_speakers, box.head_train_speakers, box.selection_speakers = ["a", "b"], None, None
    box.wrong = []  # speakers whose clips the model calls something else

    def target(name):
        return models.Model.target(box, name)

    def split(clips, *, seed=0):
        box.split_called = True
        return clips.assign(split=np.where(clips["speaker"] == "d", "test", "train"))

    def predict(clips):
        right = ~clips["speaker"].isin(box.wrong)
        return pd.DataFrame({"label": clips["label"].where(right, "else")}, index=clips.index)

    def check(layer):
        if layer > 3:
            raise ValueError(f"layer {layer} out of range: this model has 0–3")

    def balanced(clips, n, *, seed=0):
        return clips.groupby(["label", "speaker"]).head(1).head(n)

    def draw(clips, n=1, *, label=None, seed=0):
        return clips[clips["label"] == label].sample(n, random_state=seed)

    def load_model(name, device):
        return SimpleNamespace(
            require_trained=lambda: None,
            name=name,
            labels=box.labels,
            n_layers=3,
            target=target,
            predict=predict,
            check=check,
            n_neurons=lambda site: 40 if site[1] == "ffn_hidden" else 24,
            sample_rate=16_000,
            span=400,
            architecture=SimpleNamespace(timeline=True),
            stream=lambda clips, skipped=None: audio.stream(clips, skipped=skipped),
            device=torch.device("cpu"),
            **{key: value for key, value in vars(box).items() if key.endswith(("_speakers", "_recordings"))},
        )

    monkeypatch.setattr(corpora, "load", lambda name, root=None: box.corpus)
    monkeypatch.setattr(corpora, "split", split)
    monkeypatch.setattr(corpora, "balanced", balanced)
    monkeypatch.setattr(corpora, "draw", draw)
    monkeypatch.setattr(models, "load", load_model)
    return box


def test_setup_tests_on_untrained_speakers(stand_ins, capsys):
    """Speakers that the encoder was not trained on become the test side, and one of their clips is explained."""
    run = workbook.setup("03_x", max_clips=4)
    assert set(run.test["speaker"]) == {"c", "d"} and set(run.train["speaker"]) == {"a", "b"}
    assert len(run.train) == len(run.test) == 4 and not stand_ins.split_called
    assert run.explain["label"].tolist() == ["angry"] and set(run.explain["speaker"]) <= {"c", "d"}
    assert run.k == 20 and run.batch == 16 and run.profile == "quick"
    said = capsys.readouterr().out
    assert len(said.strip().splitlines()) <= 5 and "2, of whom the encoder was trained on 0" in said


def test_run_shows_what_setup_prints(stand_ins, tmp_path, capsys):
    """A run shows itself as the lines that `setup` prints and, in a notebook, as a table of them."""
    (tmp_path / "corpus" / "a" / "empty.wav").write_bytes(b"")
    run = workbook.setup("03_x", files=str(tmp_path / "corpus" / "a"))
    assert repr(run) + "\n" == capsys.readouterr().out
    cells = re.findall("<td>(.*)</td>", run._repr_html_())
    assert cells[::2] == ["model", "corpus", "test speakers", "target", "explained", "left out"]
    assert cells[1] == "pocket: angry, sad; layers 0–3" and cells[-1].startswith("empty.wav: ")


def test_setup_refuses_recording_on_both_sides(stand_ins, tmp_path):
    """A recording on both sides of the split is refused, also as a link, a copy or a quieter FLAC file."""
    corpus = stand_ins.corpus.assign(split=lambda table: np.where(table["speaker"] < "c", "train", "test"))
    waveform = audio.read(corpus["path"][0])
    soundfile.write(tmp_path / "quiet.flac", 0.3 * waveform, 16_000)
    shutil.copy(corpus["path"][0], tmp_path / "copy.wav")
    os.symlink(corpus["path"][0], tmp_path / "link.wav")
    for name, message in (("link.wav", "are one file"), ("copy.wav", "same bytes"), ("quiet.flac", "sound the same")):
        stand_ins.corpus = corpus.copy()
        stand_ins.corpus.loc[12, "path"] = str(tmp_path / name)
        with pytest.raises(ValueError, match=rf"angry0.wav in train and \S*{name} in test .*{message}"):
            workbook.setup("03_x")
    stand_ins.corpus = corpus.copy()
    stand_ins.corpus.loc[1, "path"] = str(tmp_path / "quiet.flac")  # on one side it is nobody's concern
    workbook.setup("03_x")


def test_setup_accepts_different_sounds_of_equal_fingerprint(stand_ins, monkeypatch):
    """Different sounds with equal fingerprints are compared by their samples and accepted on both sides."""
    monkeypatch.setattr(fingerprints, "of_file", lambda path: "0" * 32)
    workbook.setup("03_x")


def test_setup_identifies_training_speakers(stand_ins, tmp_path, capsys):
    """Training speakers are identified by name, file name or a copy of their sound; of others it is not known."""
    corpus = stand_ins.corpus
    for index in corpus.index[corpus["speaker"] == "b"]:
        name = f"03-01-0{1 + index % 6}-01-01-01-07.wav"
        corpus.loc[index, "path"] = shutil.copy(corpus["path"][index], str(tmp_path / name))
    copy = tmp_path / "copy.flac"
    soundfile.write(copy, 0.3 * audio.read(corpus["path"][12]), 16_000)
    trained = {"fingerprint": fingerprints.of_file(copy), "use": "trained", "speaker": "ravdess-03"}
    stand_ins.trained_recordings = pd.DataFrame([trained])
    corpus["speaker"] = corpus["speaker"].replace({"a": "Ravdess-01 ", "c": "P7", "d": "P8"})
    stand_ins.train_speakers = ["ravdess-01", "ravdess-03", "ravdess-07"]
    run = workbook.setup("03_x")
    assert set(run.test["speaker"]) == {"P8"} and set(run.train["speaker"]) == {"Ravdess-01", "b", "P7"}
    said = capsys.readouterr().out
    reason = "their names are of another form than those of its training speakers"
    assert f"1; whom the encoder was trained on is not known: {reason}" in said
    assert "and none of their clips here was trained on" in said and "trained on 0" not in said
    told = inputs.describe_test_speakers(run.model, run.clips)
    assert told.startswith("speakers  4, of whom the encoder was trained on 3; of 1 more it is not known: their names")


def test_setup_normalises_speaker_names(stand_ins):
    """Names of speakers are compared without blanks, case and decimals, both with the model's and across sides."""
    corpus = stand_ins.corpus.assign(speaker=lambda table: table["speaker"].map({"a": 1, "b": 2, "c": 3, "d": 4}))
    odd = corpus.index % 2 == 1
    mixed = corpus["speaker"].astype(object)
    mixed[odd] = [f" {number}.0 " for number in corpus["speaker"][odd]]
    stand_ins.corpus, stand_ins.train_speakers = corpus.assign(speaker=mixed), ["1", "02"]
    run = workbook.setup("03_x")
    assert set(run.train["speaker"]) == {"1", "2"} and set(run.test["speaker"]) == {"3", "4"}
    names = stand_ins.corpus["speaker"].map(lambda name: f"Mine-{name}" if isinstance(name, int) else f"mine-{name}")
    names = names.str.replace("- ", "-").str.replace(".0", "")
    sides = np.where(odd, "train", "test")
    stand_ins.corpus = stand_ins.corpus.assign(speaker=names, split=sides)
    with pytest.raises(ValueError, match="4 speakers are both in train and in test .Mine-1, Mine-2"):
        workbook.setup("03_x")


def test_split_warns_of_shared_person(tmp_path):
    """`split` warns if, by the files' names, one person is on both sides under two names, and not otherwise."""
    rng, rows = np.random.default_rng(0), []
    for number, (speaker, actor, side) in enumerate((("1a", 1, "train"), ("1b", 1, "test"), ("2", 2, "test"))):
        path = tmp_path / f"03-01-05-01-01-0{number % 2 + 1}-{actor:02d}.wav"
        soundfile.write(path, 0.2 * rng.standard_normal(900 + number), 16_000)
        rows.append({"path": str(path), "label": "angry", "speaker": speaker, "split": side})
    model, clips = (
        SimpleNamespace(train_speakers=None, head_train_speakers=None, trained_recordings=None),
        pd.DataFrame(rows),
    )
    with pytest.warns(
        UserWarning, match="some people are on both sides of the split: ravdess-01 is called '1a' and '1b'"
    ):
        inputs.split(clips, model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        inputs.split(clips.assign(split=["train", "train", "test"]), model)


@pytest.mark.parametrize("train_speakers", [None, [], ["nobody"], list("abcd")])
def test_setup_draws_split_if_all_or_none_are_trained(stand_ins, train_speakers):
    """The split is drawn where the model was trained on all speakers or none of them, or this is not recorded."""
    stand_ins.train_speakers = train_speakers
    assert set(workbook.setup("03_x").test["speaker"]) == {"d"}


def test_describe_test_speakers_counts_recordings():
    """Recordings of sounds are described as recordings, trained on by fold, unless a speaker is among them."""
    model = SimpleNamespace(
        train_speakers=["esc10-fold-1"], head_train_speakers=None, selection_speakers=["esc10-fold-5"]
    )
    sounds = pd.DataFrame({"speaker": ["recording-1", "recording-1", "recording-22"]})
    assert inputs.describe_test_speakers(model, sounds).startswith(
        "recordings  2; which the encoder was trained on is not known"
    )
    sounds = sounds.assign(corpus="esc-10", fold=[1, 1, 5])  # as a CSV file brings them back
    assert inputs.describe_test_speakers(model, sounds) == (
        "recordings  2, of which the encoder was trained on 1; its weights were selected on recording-22"
    )
    sounds.loc[1, "speaker"] = "Anna"
    assert inputs.describe_test_speakers(model, sounds).startswith("speakers  3, of whom the encoder was trained on 2;")


def test_setup_describes_training_on_test_speakers(stand_ins, capsys):
    """`setup` prints on how many test speakers encoder and head were trained, and on whom weights were selected."""
    stand_ins.train_speakers, stand_ins.selection_speakers = list("abcd"), ["d", "x"]
    workbook.setup("03_x")
    assert "1, of whom the encoder was trained on 1; its weights were selected on d\n" in capsys.readouterr().out
    stand_ins.train_speakers, stand_ins.head_train_speakers, stand_ins.selection_speakers = None, ["a", "b"], None
    run = workbook.setup("03_x")
    assert set(run.test["speaker"]) == {"c", "d"}
    assert "2; whom the encoder was trained on is not recorded; the head was trained on 0\n" in capsys.readouterr().out
    told = run.provenance()
    assert told["train_speakers"] == "not recorded" and told["test_speakers"] == ["c", "d"]


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (["train", "test"] * 12, "4 speakers are both in train and in test .a, b, c, d.*one side"),
        (["train"] * 6 + ["test"] * 12 + ["dev"] * 6, "dev.*rename or drop the other clips"),
        (["Train"] * 12 + ["Test"] * 12, "must be .train. or .test."),
        (["train"] * 24, "both must occur"),
    ],
)
def test_setup_refuses_invalid_split(stand_ins, split, message):
    """A column `split` with a speaker on both sides, another value than train and test, or one side is refused."""
    stand_ins.corpus["split"] = split
    with pytest.raises(ValueError, match=message):
        workbook.setup("03_x")


@pytest.mark.parametrize("split", [None, ["train"] * 18 + ["test"] * 6])
def test_setup_refuses_missing_speakers(stand_ins, split):
    """A corpus in which clips have no speaker is refused before it is split, with their number."""
    if split:  # it could be kept, but nothing could be said about people
        stand_ins.corpus["split"] = split
    stand_ins.corpus.loc[:5, "speaker"] = None
    with pytest.raises(ValueError, match="6 of 24 clips have no speaker.* a column `speaker`"):
        workbook.setup("03_x")
    stand_ins.corpus = stand_ins.corpus.drop(columns="speaker")
    with pytest.raises(ValueError, match="24 of 24 clips have no speaker"):
        workbook.setup("03_x")
    assert not stand_ins.split_called


def test_setup_keeps_given_split(stand_ins):
    """A valid column `split` of the corpus is kept."""
    stand_ins.corpus["split"] = np.where(stand_ins.corpus["speaker"] == "a", "test", "train")
    assert set(workbook.setup("03_x").test["speaker"]) == {"a"}


def test_setup_without_max_clips_takes_all(stand_ins):
    """With `max_clips=None`, all clips of the corpus are taken."""
    assert len(workbook.setup("03_x", max_clips=None).clips) == 24


def test_setup_refuses_unknown_labels(stand_ins):
    """Labels of the corpus that the model does not have are refused, with the advice to map them."""
    stand_ins.corpus.loc[0, "label"] = "bored"
    with pytest.raises(ValueError, match="labels bored .*map them"):
        workbook.setup("03_x")


def test_setup_refuses_unknown_emotion(stand_ins):
    """An emotion that the model does not have is refused, with the model's list of labels."""
    with pytest.raises(ValueError, match="unknown label 'bored': this model has angry, sad"):
        workbook.setup("03_x", emotion="bored")
    assert not stand_ins.split_called


def test_setup_explains_own_files(stand_ins, tmp_path):
    """`files` may be a path, a glob, a folder or a list, whose clips have no label; no match is an error."""
    folder = tmp_path / "corpus" / "a"
    for files, n in [
        (str(folder / "sad0.wav"), 1),
        (str(folder / "*.wav"), 6),
        (str(folder), 6),
        ([str(folder / "sad0.wav"), str(folder / "sad1.wav")], 2),
    ]:
        explain = workbook.setup("03_x", files=files).explain
        assert len(explain) == n and explain["label"].isna().all()
    with pytest.raises(FileNotFoundError, match="no file matches"):
        workbook.setup("03_x", files=str(tmp_path / "none*.wav"))


def test_setup_names_unusable_files(stand_ins, tmp_path, capsys, recwarn):
    """Own files that cannot be used are each named once with the reason; if none can be used, it is an error."""
    folder = tmp_path / "corpus" / "a"
    for name in ("empty.wav", "notes.txt", ".hidden.wav"):
        (folder / name).write_bytes(b"")
    (folder / "text.flac").write_text("no sound")
    soundfile.write(folder / "short.wav", np.ones(100) / 2, 16_000)
    run = workbook.setup("03_x", files=str(folder))
    assert len(run.explain) == 6 and run.explain.index.tolist() == list(range(6))
    said = capsys.readouterr().out.splitlines()
    left = {line.split()[2].rstrip(":"): line for line in said if line.startswith("left out")}
    assert set(left) == {"empty.wav", "text.flac", "short.wav"}
    assert "0 bytes" in left["empty.wav"] and "100 samples" in left["short.wav"]
    assert not [w for w in recwarn if "skipped" in str(w.message)]
    with pytest.raises(ValueError, match="no clip could be used"):
        workbook.setup("03_x", files=str(folder / "text.flac"))


def test_setup_explains_recognised_clip(stand_ins, capsys):
    """The explained clip is one that the model recognises or, if there is none, any test clip of the emotion."""
    for seed in range(4):
        stand_ins.wrong = ["c"]
        assert workbook.setup("03_x", seed=seed).explain["speaker"].tolist() == ["d"]
    assert "target  angry: the model recognises it in 3 of 6 test clips of it" in capsys.readouterr().out
    stand_ins.wrong = ["c", "d"]
    assert workbook.setup("03_x").explain["label"].tolist() == ["angry"]
    assert "in 0 of 6 test clips" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"), [({"layer": 4}, "layer 4 out of range"), ({"neuron": 40}, "neuron 40 .* widest part .* 0–39")]
)
def test_setup_refuses_layer_and_neuron_out_of_range(stand_ins, given, message):
    """A layer or a neuron that the model does not have is refused, and the last of each accepted."""
    workbook.setup("03_x", layer=3, neuron=39)
    with pytest.raises(ValueError, match=message):
        workbook.setup("03_x", **given)


def test_seed_everything_repeats_draws():
    """After `seed_everything` with the same seed, random, numpy and torch draw the same numbers."""
    draws = []
    for _ in range(2):
        workbook.seed_everything(5)
        draws.append((random.random(), np.random.rand(), torch.rand(1).item()))
    assert draws[0] == draws[1]


def test_save_writes_results_with_provenance(stand_ins, monkeypatch, tmp_path):
    """`save` writes figures, results and tables under the notebook's number, with provenance, and refuses a list."""
    monkeypatch.setenv("XAI_RUN_DIR", str(tmp_path / "run"))
    run = workbook.setup("03_x")
    assert not (tmp_path / "run").exists()
    figure, axes = plt.subplots()
    axes.plot([1, 2])
    assert run.save(figure, "curve") is figure and plt.get_fignums() == []
    array = xr.DataArray(np.arange(3.0), dims="clip", name="a", attrs={"target": "angry"}).assign_coords(
        label=("clip", np.array(["angry", None, np.nan], dtype=object)),
        speaker=("clip", pd.array(["x", "y", None], dtype="str")),
    )
    assert run.save(array, "a") is array
    assert run.save(xr.Dataset({"a": array}), "b").attrs == {}
    run.save(stand_ins.corpus, "clips")
    files = sorted(str(p.relative_to(tmp_path / "run")) for p in (tmp_path / "run").rglob("*") if p.is_file())
    assert files == ["03_x.json", "data/03_a.nc", "data/03_b.nc", "data/03_clips.csv", "figures/03_curve.png"]
    with xr.open_dataarray(tmp_path / "run" / "data" / "03_a.nc") as back:
        assert back["label"].values.tolist() == ["angry", "", ""] and back["speaker"].values.tolist() == ["x", "y", ""]
        assert json.loads(back.attrs["provenance"])["parameters"]["emotion"] == "angry"
        assert back.attrs["target"] == "angry" and np.array_equal(back, array)
    provenance = json.loads((tmp_path / "run" / "03_x.json").read_text())
    assert provenance["versions"]["torch"] == torch.__version__.split("+")[0]
    with pytest.raises(ValueError, match="save takes"):
        run.save([1], "list")


def test_save_leaves_nothing_after_failure(stand_ins, monkeypatch, tmp_path):
    """A `save` that fails leaves no file behind."""
    monkeypatch.setenv("XAI_RUN_DIR", str(tmp_path / "run"))
    run = workbook.setup("03_x")
    with pytest.raises((TypeError, ValueError)):
        run.save(xr.Dataset({"a": ("x", [1.0])}, attrs={"bad": {"a": 1}}), "bad")
    assert [p for p in (tmp_path / "run").rglob("*") if p.is_file()] == []


def test_fingerprint_ignores_order(stand_ins):
    """`fingerprint` depends on the labels and on which clips there are, and not on their order."""
    clips = stand_ins.corpus
    first = workbook.fingerprint(clips)
    assert workbook.fingerprint(clips.sample(frac=1, random_state=1)) == first
    assert workbook.fingerprint(clips.assign(label=["sad"] * len(clips))) != first
    assert workbook.fingerprint(clips.iloc[1:]) != first


@pytest.mark.parametrize(
    "given",
    [
        {"colour": "red"},
        {"k": 0},
        {"k": "many"},
        {"k": 2.5},
        {"k": float("inf")},
        {"k": True},
        {"k": None},
        {"layer": -1},
        {"profile": "fast"},
        {"device": "gpu"},
        {"emotion": ""},
        {"model": 3},
    ],
)
def test_check_refuses_bad_parameters(given):
    """`check` refuses an unknown name or a wrong value, and names the parameter."""
    with pytest.raises(ValueError, match=next(iter(given))):
        parameters.check(given)


@pytest.mark.parametrize("text", ["null", "None", ""])
def test_check_reads_words_for_none(text):
    """The texts null, None and the empty one leave an optional parameter unset; any other text is kept."""
    assert parameters.check({"layer": text})["layer"] is None
    assert parameters.check({"emotion": "random"})["emotion"] == "random"


@given(k=st.integers(1, 10**6), layer=st.none() | st.integers(0, 99))
def test_check_reads_text_as_value(k, layer):
    """Numbers and None given as text mean the same as the values themselves."""
    assert parameters.check({"k": str(k), "layer": str(layer)}) == parameters.check({"k": k, "layer": layer})


def test_check_is_idempotent():
    """`check` of nothing gives the defaults, and checking them again changes nothing."""
    assert parameters.check({}) == parameters.DEFAULTS == parameters.check(parameters.check({}))


def test_folder_name_distinguishes_runs():
    """`folder_name` differs between runs with different parameters, and has no slash from a model's hub id."""
    a, b = (parameters.folder_name(parameters.check({"k": k, "model": "microsoft/wavlm-base-plus"})) for k in (1, 2))
    assert a != b and "sample-wavlm-base-plus" in a and "/" not in a


def test_setup_refuses_untrained_head(tiny_folder, tmp_path):
    """A model without a trained head is refused as `UntrainedHead`, with a hint at `heads.fit`."""
    WavLMModel.from_pretrained(tiny_folder("base")).save_pretrained(tmp_path)
    with pytest.raises(models.UntrainedHead, match=r"heads\.fit"):
        workbook.setup("03_x", model=str(tmp_path))


def test_setup_refuses_model_without_timeline():
    """Notebooks 01 to 04, which need frames, refuse an AST; in 05 and 06 only the corpus's labels are refused."""
    options = {"model": "pocket-ast", "emotion": "rain", "device": "cpu"}
    for name in ("01_data_exploration", "02_neuron_attribution", "03_sign_flip_ablation", "04_gradient_shap"):
        with pytest.raises(
            ValueError, match="pocket-ast represents sound as patches of time and frequency.*use notebook 05 or 06"
        ):
            workbook.setup(name, **options)
    for name in ("05_dissection", "06_pruning"):  # the corpus is of other sounds
        with pytest.raises(ValueError, match="does not know the labels"):
            workbook.setup(name, **options)
