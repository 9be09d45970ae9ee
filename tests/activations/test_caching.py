"""Runs that are stopped and go on: equal to those that were not, and never from what was kept of something else."""

from __future__ import annotations

import importlib
import json
import pickle
import sys
from functools import partial
from pathlib import Path

import joblib
import numpy as np
import pytest
import soundfile
import torch
import xarray as xr

from xai_lib import ablation, activations, attribution, audio, hooks, models
from xai_lib.activations import caching

METHODS = {
    "grad_x_activation": {"target": "predicted", "frames": "speech"},
    "gradient": {"target": "sad", "by_frame": True},
    "integrated_gradients": {"target": "sad", "baseline": "silence", "steps": 4},
    "gradient_shap": {"target": "sad", "n": 4, "steps": 2, "layers": "all", "seed": 3},
    "segment_response": {"baseline": "noise", "seed": 3},
    "exhaustive_ablation": {"target": "sad", "layers": [1, 3], "mode": "flip"},
}


@pytest.fixture
def clips(make_clips, tmp_path):
    """Three clips of unequal length by three speakers."""
    return make_clips(tmp_path, 3, lengths=(6000, 6700, 7400), index=[7, 9, 4], label="angry", speaker="s{}")


@pytest.fixture
def counted(monkeypatch):
    """Clips read by the model, counted; after `stop` of them the run is interrupted."""
    seen, plain = {"n": 0, "stop": None}, models.Model.stream

    def stream(*args, **options):
        for found in plain(*args, **options):
            if seen["n"] == seen["stop"]:
                raise KeyboardInterrupt
            seen["n"] += 1
            yield found

    monkeypatch.setattr(models.Model, "stream", stream)
    return seen


@pytest.mark.parametrize("name", METHODS)
def test_by_clip_resumes_interrupted_runs(tiny, clips, counted, tmp_path, name):
    """An interrupted run goes on with the missing clips alone, and equals one that was never interrupted."""
    model, method, folder = tiny(), getattr(attribution, name), tmp_path / "kept"
    run = partial(caching.by_clip, method, model, folder=folder, **METHODS[name])
    straight = method(model, clips, **METHODS[name])
    counted.update(n=0, stop=2)
    with pytest.raises(KeyboardInterrupt):
        run(clips)
    counted.update(n=0, stop=None)
    found = run(clips)
    assert counted["n"] == 1
    xr.testing.assert_allclose(found, straight, rtol=1e-6)
    assert found.attrs == straight.attrs and found.sizes == straight.sizes
    assert set(found.coords) == set(straight.coords)
    xr.testing.assert_identical(run(clips[::-1]).sel(clip=clips.index), run(clips))
    assert counted["n"] == 1
    found.to_netcdf(tmp_path / "found.nc")


def test_by_clip_recomputes_on_changed_input(tiny, tiny_folder, clips, counted, tmp_path):
    """Other options, functions, weights, labels or sound are computed anew; another batch or path is not."""

    def forwards(model=None, clips=clips[:1], method=attribution.segment_response, **options):
        counted["n"] = 0
        caching.by_clip(method, model or tiny(), clips, folder=tmp_path / "kept", **{"layers": 3, **options})
        return counted["n"]

    assert (forwards(), forwards(), forwards(batch=1)) == (1, 0, 0)
    loudest, mean = (lambda hidden: hidden.amax(dim=(1, 2))), (lambda hidden: hidden.mean(dim=(1, 2)))
    ramp = np.linspace(0, 1, 6000, dtype=np.float32)
    others = [{"layers": 2}, {"frames": "all"}, {"seed": 1}, {"respond": loudest}, {"respond": mean}]
    others += [{"baseline": ramp}, {"baseline": 2 * ramp}]
    for other in others:
        assert (forwards(**other), forwards(**other)) == (1, 0), other
    assert forwards(method=partial(attribution.segment_response, fade=0)) == 1
    changed = models.load(tiny_folder())
    changed.network.classifier.weight.data[0, 0] += 1
    relabelled = models.load(tiny_folder(), labels=changed.labels[::-1])
    headed = [models.load(tiny_folder(), head=torch.nn.Linear(24, 2), labels=["a", "b"], device="cpu") for _ in "ab"]
    for model in (changed, relabelled, *headed):
        assert (forwards(model), forwards(model)) == (1, 0)
    assert forwards(models.load(tiny_folder())) == 0
    assert forwards(clips=clips[:1].assign(label="sad")) == 1
    moved = clips[:1].assign(path=str(tmp_path / "moved.wav"))
    (tmp_path / "moved.wav").write_bytes(Path(clips["path"].iloc[0]).read_bytes())
    assert forwards(clips=moved) == 0
    soundfile.write(clips["path"].iloc[0], 0.5 * audio.read(clips["path"].iloc[0]), 16000, subtype="FLOAT")
    assert forwards() == 1


def test_by_clip_refuses_hooked_model(tiny, clips, tmp_path):
    """A model under an edit or a capture is refused, cannot be pickled, and is accepted again afterwards."""
    model = tiny()
    run = partial(caching.by_clip, attribution.gradient, model, clips, target="sad", folder=tmp_path / "kept")
    for inside in (hooks.edit(model, {2: torch.zeros_like}), hooks.capture(model, hooks.Site(2, "heads"))):
        with inside:
            with pytest.raises(ValueError, match="the model is edited"):
                run()
            with pytest.raises(ValueError, match="the model is edited"):
                pickle.dumps(model)
    with pytest.raises(KeyError), hooks.edit(model, {2: torch.zeros_like}):
        raise KeyError
    xr.testing.assert_allclose(run(), attribution.gradient(model, clips, target="sad"), rtol=1e-6)


def test_by_clip_recomputes_on_changed_settings(tiny, clips, counted, tmp_path):
    """Another preprocessor, training state, label order or configuration of the model is computed anew."""

    def forwards(**changed):
        model = tiny()
        for name, value in changed.items():
            setattr(model, name, value)
        counted["n"] = 0
        caching.by_clip(activity, model, clips[:1], folder=tmp_path / "kept")
        return counted["n"]

    assert (forwards(), forwards()) == (1, 0)
    others = [
        {"preprocessor": {}},
        {"preprocessor": {"sampling_rate": 8000}},
        {"trained": None},
        {"labels": list("abcdefgh")},
    ]
    for changed in others:
        assert (forwards(**changed), forwards(**changed)) == (1, 0), changed
    model = tiny()
    model.network.config.update({"layer_norm_eps": 0.1})
    counted["n"] = 0
    caching.by_clip(activity, model, clips[:1], folder=tmp_path / "kept")
    assert counted["n"] == 1


def activity(model, clips, **options):
    """A method of one's own: the mean of the last layer."""
    return activations.activations(model, clips, 3)["activation"]


class Head(torch.nn.Module):
    """Pools as it is told."""

    def __init__(self, pool, scale=1.0):
        super().__init__()
        self.pool, self.scale = pool, scale

    def forward(self, hidden):
        return self.scale * self.pool(hidden, dim=1)[:, :2]


def test_by_clip_identifies_clips_in_memory(tiny, clips, counted, tmp_path):
    """Clips given as bytes are computed once, with the results of their files."""
    files = [Path(path).read_bytes() for path in clips["path"]]
    run = partial(caching.by_clip, attribution.gradient, tiny(), target="sad", folder=tmp_path / "kept")
    first = run(files)
    n_forwards = counted["n"]
    xr.testing.assert_identical(run(files), first)
    assert counted["n"] == n_forwards
    np.testing.assert_allclose(first["signed"], attribution.gradient(tiny(), clips, target="sad")["signed"], rtol=1e-5)


def test_by_clip_identifies_custom_heads_by_content(tiny_folder, clips, counted, tmp_path):
    """Custom heads that pool or scale differently are computed anew, and an equal head is not."""

    def forwards(head):
        model = models.load(tiny_folder(), head=head, labels=["a", "b"], device="cpu")
        counted["n"] = 0
        caching.by_clip(attribution.gradient, model, clips[:1], target="a", folder=tmp_path / "kept")
        return counted["n"]

    for head in (Head(torch.mean), Head(torch.amax), Head(torch.mean, scale=2.0)):
        assert (forwards(head), forwards(head)) == (1, 0)
    assert forwards(Head(torch.mean)) == 0


def test_hashable_content_identifies_functions_by_code(tmp_path, monkeypatch):
    """Functions are hashed by their code, in a notebook or a module, and not by the file and line."""

    def made(text, name):
        space = {"torch": torch, "__name__": "__main__"}
        exec(compile(text, name, "exec"), space)
        return joblib.hash(caching.hashable_content(space["respond"]))

    one = "def respond(hidden):\n    return max([hidden], key=lambda x: x.mean()).mean(dim=(1, 2))"
    assert made(one, "/tmp/ipykernel_1/2.py") == made("\n\n" + one, "/tmp/ipykernel_7/9.py")
    assert made(one, "a.py") != made(one.replace("x.mean", "x.amax"), "a.py")
    assert made(one, "a.py") != made(one.replace("dim=(1, 2)", "dim=(2, 1)"), "a.py")
    monkeypatch.syspath_prepend(tmp_path)
    found = []
    for body in ("hidden.mean(dim=1)", "hidden.amax(dim=1)"):
        (tmp_path / "mine.py").write_text(f"def respond(hidden):\n    return {body}\n")
        sys.modules.pop("mine", None)
        importlib.invalidate_caches()
        module = importlib.import_module("mine")
        found.append(joblib.hash(caching.hashable_content(partial(module.respond))))
    assert found[0] != found[1]


def test_hashable_content_identifies_datasets_by_values(tiny, clips, tmp_path):
    """A dataset has the same hash after saving and opening, and another one with other values."""
    found = activations.activation_stats(tiny(), clips)
    found.to_netcdf(tmp_path / "moments.nc")
    with xr.open_dataset(tmp_path / "moments.nc") as again:
        assert joblib.hash(caching.hashable_content(again)) == joblib.hash(caching.hashable_content(found))
    assert joblib.hash(caching.hashable_content(found + 1)) != joblib.hash(caching.hashable_content(found))


def test_hashable_content_identifies_objects_by_their_parts(tiny, clips):
    """Edits, controls and readouts are hashed by their numbers, results, functions and the sound of their donors."""
    stats = activations.activation_stats(tiny(), clips)
    mean = "def respond(hidden):\n    return hidden.mean(dim=1)"

    def respond(text=mean):
        space = {"__name__": "__main__"}
        exec(compile(text, "a.py", "exec"), space)
        return space["respond"]

    def options(k=3, n=2, window=0, statistics=stats, function=None):
        edit = ablation.Edit(("mean",), window=window, activation_stats=statistics, donors=clips)
        controls = ablation.RandomControls(statistics, n=n)
        similarity = ablation.SpeakerSimilarity(function or respond())
        return [ablation.Selection({1: range(k)}), controls, edit, [ablation.Proxies(statistics), similarity]]

    def hashed(**changed):
        return joblib.hash([caching.hashable_content(option) for option in options(**changed)])

    first = hashed()
    assert hashed() == hashed(statistics=stats.copy(deep=True)) == first
    changed = [
        {"k": 4},
        {"n": 3},
        {"window": 1},
        {"statistics": stats + 1},
        {"function": respond(mean.replace("1", "2"))},
    ]
    assert len({first, *(hashed(**other) for other in changed)}) == 6
    soundfile.write(clips["path"].iloc[1], 0.1 * audio.read(clips["path"].iloc[1]), 16000, subtype="FLOAT")
    assert hashed() != first


def test_by_clip_recomputes_sweep_on_changed_donor(tiny, clips, counted, tmp_path):
    """A sweep is computed anew when the sound of a donor changes, and not otherwise."""
    donors = clips[1:2].set_axis(clips.index[:1])
    options = {"selection": ablation.Selection({1: [0, 3]}), "controls": None}
    options["readouts"] = [ablation.SpeakerSimilarity(lambda hidden: hidden.mean(dim=1))]

    def found():
        edit = ablation.Edit("resample", donors=donors)
        return caching.by_clip(ablation.sweep, tiny(), clips[:1], folder=tmp_path / "kept", edit=edit, **options)

    first, n = found(), counted["n"]
    xr.testing.assert_identical(found(), first)
    assert counted["n"] == n
    soundfile.write(donors["path"].iloc[0], audio.read(donors["path"].iloc[0])[::-1], 16000, subtype="FLOAT")
    assert not np.allclose(found()["logits"], first["logits"])


@pytest.mark.full
def test_hashable_content_ignores_what_a_sweep_caches(tiny, clips):
    """Edits and controls are hashed alike before and after a sweep has used them."""
    activation_stats = activations.activation_stats(tiny(), clips)
    edit = ablation.Edit("mean", activation_stats=activation_stats)
    controls = ablation.RandomControls(activation_stats, n=1)
    before = joblib.hash(caching.hashable_content([edit, controls]))
    ablation.sweep(tiny(), clips, ablation.Selection({2: [1]}), edit=edit, controls=controls)
    assert joblib.hash(caching.hashable_content([edit, controls])) == before


def test_by_clip_is_independent_of_parallel_jobs(tiny, clips, tmp_path):
    """Two parallel processes give the same result as one."""
    run = partial(caching.by_clip, attribution.segment_response, tiny(), clips)
    with joblib.parallel_config(n_jobs=2):
        found = run(folder=tmp_path / "one")
    xr.testing.assert_allclose(found, run(folder=tmp_path / "other"), rtol=1e-4, atol=1e-5)


def test_by_clip_identifies_clips_in_options(tiny, clips, counted, tmp_path):
    """Clips passed as an option are identified by their sound: a change of it is computed anew."""
    options = {"target": "sad", "n": 2, "steps": 1, "baseline": clips[1:]}

    def found():
        return caching.by_clip(attribution.gradient_shap, tiny(), clips[:1], folder=tmp_path / "kept", **options)

    first, n = found(), counted["n"]
    xr.testing.assert_identical(found(), first)
    assert counted["n"] == n
    for path in clips["path"][1:]:
        soundfile.write(path, 0.1 * audio.read(path), 16000, subtype="FLOAT")
    assert not np.allclose(found()["attribution"], first["attribution"])


def test_by_clip_recomputes_on_changed_code(tiny, clips, counted, tmp_path, monkeypatch):
    """A change of the package's code or version is computed anew."""
    source, code = tmp_path / "xai_lib", tmp_path / "xai_lib" / "attribution" / "gradients.py"
    code.parent.mkdir(parents=True)
    (source / "edits.py").write_text("flip = -1")

    def forwards():
        counted["n"] = 0
        caching.by_clip(attribution.gradient, tiny(), clips[:1], target="sad", folder=tmp_path / "kept")
        return counted["n"]

    assert (forwards(), forwards()) == (1, 0)
    for text in ("flip = -1", "flip = 1"):
        code.write_text(text)
        monkeypatch.setattr(caching, "CODE", caching._code(source))
        assert (forwards(), forwards()) == (1, 0)
    monkeypatch.setattr(caching, "__version__", "99")
    assert (forwards(), forwards()) == (1, 0)
    assert caching._code(Path(caching.__file__).parent) != caching._code(source)


def test_by_clip_names_unusable_clips(tiny, clips, tmp_path):
    """Missing clips are skipped with a warning and named, and refused if no other is left."""
    clips.loc[9, "path"] = str(tmp_path / "nowhere.wav")
    run = partial(caching.by_clip, attribution.gradient, tiny(), target="sad", folder=tmp_path / "kept")
    with pytest.warns(UserWarning, match="1 of 3 clips were skipped, e.g. .*nowhere"):
        found = run(clips)
    assert found["clip"].values.tolist() == [7, 4] and list(json.loads(found.attrs["skipped"])) == ["9"]
    assert "nowhere" in found.attrs["skipped"]
    with pytest.raises(audio.NoClips, match="nowhere"):
        run(clips.loc[[9]])


def test_by_clip_passes_on_errors_of_method(tiny, clips, tmp_path):
    """Errors of a method are passed on, and results of more than single clips are refused."""
    run = partial(caching.by_clip, model=tiny(), clips=clips, folder=tmp_path / "kept")
    with pytest.raises(ValueError, match="bored"):
        run(attribution.gradient, target="bored")
    with pytest.raises(ValueError, match="returns more than results of single clips"):
        run(activations.activations)
