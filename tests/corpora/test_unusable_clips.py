"""Clips that cannot be used, among good ones, are skipped by name in every call, and nothing else is lost."""

from __future__ import annotations

import subprocess
import sys
import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import soundfile

from xai_lib import ablation, activations, attribution, audio, corpora, dissection, heads, pruning
from xai_lib.ablation import inversion
from xai_lib.activations import caching, donors, exemplars
from xai_lib.attribution import class_contrast
from xai_lib.dissection.descriptions import captioning, encoders
from xai_lib.faithfulness import deletion_test
from xai_lib.probing import acoustic_decoders, activation_proxies, linear_probes, speaker_space, time_courses
from xai_lib.pruning import neuron_selection

RATE = 16000
GOOD = 3  # clips of each of four speakers
pytestmark = [pytest.mark.heavy, pytest.mark.filterwarnings("ignore")]


def voice(place):
    """A second of a buzz with a pitch of its own, louder and softer, with pauses at both ends."""
    rng = np.random.default_rng(place)
    seconds = np.arange(RATE) / RATE
    pitch = 100 + 10 * place
    sound = np.sign(np.sin(2 * np.pi * pitch * seconds)) * np.sin(np.pi * seconds) * (1 + np.sin(40 * seconds))
    sound[:2000] = sound[-2000:] = 0
    return (0.1 * sound + 1e-4 * rng.standard_normal(RATE)).astype(np.float32)


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    """Good clips of four speakers and two labels; between them silent, empty, broken, missing and short ones."""
    folder = tmp_path_factory.mktemp("corpus")
    rows = []
    for place in range(4 * GOOD):
        path = folder / f"good{place}.wav"
        soundfile.write(path, voice(place), RATE, subtype="FLOAT")
        rows.append({"path": path, "label": ["angry", "calm"][place % 2], "speaker": f"s{place // GOOD}"})
    bad = {
        "silent.wav": np.zeros(RATE),
        "empty.wav": np.zeros(0),
        "short.wav": voice(0)[5000:5100],
        "nan.wav": np.full(RATE, np.nan),
    }
    for name, samples in bad.items():
        soundfile.write(folder / name, samples, RATE, subtype="FLOAT")
    (folder / "broken.flac").write_bytes(b"fLaC and no more")
    for place, name in enumerate([*bad, "broken.flac", "missing.wav"]):
        row = {"path": folder / name, "label": ["angry", "calm"][place % 2], "speaker": f"s{place % 2}"}
        rows.insert(2 * place + 1, row)
    clips = pd.DataFrame(rows)
    clips["path"] = clips["path"].astype(str)
    clips["statement"] = 1
    return clips


def is_good(clips):
    return clips["path"].map(lambda path: Path(path).name.startswith("good"))


def scores(model, clips):
    return attribution.grad_x_activation(model, clips, target="angry")


CALLS = {
    "predict": lambda m, c: m.predict(c).dropna(subset="label"),
    "over_time": lambda m, c: m.over_time(c),
    "features_table": lambda m, c: corpora.features_table(c),
    "gradient": lambda m, c: attribution.gradient(m, c, target="angry"),
    "grad_x_activation": scores,
    "integrated_gradients": lambda m, c: attribution.integrated_gradients(m, c, target="angry", steps=2),
    "exhaustive_ablation": lambda m, c: attribution.exhaustive_ablation(m, c, target="angry", layers=[3]),
    "gradient_shap": lambda m, c: attribution.gradient_shap(m, c, target="angry", n=2, steps=1),
    "gradient_shap, baseline": lambda m, c: attribution.gradient_shap(m, c, target="angry", n=4, steps=1, baseline=c),
    "segment_response": lambda m, c: attribution.segment_response(m, c, seconds=0.5),
    "activation_contrast": lambda m, c: class_contrast.activation_contrast(m, c, target="angry"),
    "frame_deletion": lambda m, c: deletion_test.frame_deletion(
        m, c, attribution.gradient_shap(m, c, target="angry", n=2, steps=1), target="angry", n=2
    ),
    "activations": lambda m, c: dissection.activations(m, c),
    "activation_stats": lambda m, c: activations.activation_stats(m, c),
    "zero_ablation": lambda m, c: dissection.zero_ablation(m, c, 2, 3),
    "top_frames": lambda m, c: exemplars.top_frames(m, c, 2, 3),
    "sweep": lambda m, c: ablation.sweep(
        m,
        c,
        ablation.select(scores(m, c), 2),
        controls=ablation.RandomControls(activations.activation_stats(m, c), n=2),
        target="angry",
    ),
    "sweep, resample": lambda m, c: ablation.sweep(
        m,
        c,
        ablation.Selection({2: [0]}),
        controls=None,
        edit=ablation.Edit("resample", donors=donors.random_donors(c, c)),
        target="angry",
    ),
    "upstream": lambda m, c: inversion.upstream(
        m,
        c,
        ablation.select(scores(m, c), 2, layers=[2]),
        controls=ablation.RandomControls(activations.activation_stats(m, c), n=2, target_blind=False),
        steps=2,
    ),
    "support": lambda m, c: neuron_selection.support(m, c, m.sites("ffn_hidden")),
    "evaluate": lambda m, c: pruning.evaluate(m, c, {(2, "ffn_hidden"): [0]}, "angry", draws=2),
    "probes.read": lambda m, c: linear_probes.read(m, c),
    "proxies": lambda m, c: activation_proxies.validity(m, c, activation_proxies.fit(m, c)),
    "decoders": lambda m, c: acoustic_decoders.validity(
        m, c[c["speaker"] == "s3"], acoustic_decoders.fit(m, c[c["speaker"] != "s3"])
    ),
    "speakers": lambda m, c: speaker_space.fit(m, c),
    "heads.features": lambda m, c: heads.features(m, c),
    "course": lambda m, c: time_courses.course(m, c, bins=3, shuffles=1),
    "by_clip": lambda m, c: caching.by_clip(attribution.grad_x_activation, m, c, folder=FOLDER[0], target="angry"),
    "acoustic captions": lambda m, c: captioning.Acoustics(c)(c),
    "acoustic vectors": lambda m, c: encoders.AcousticSpace(c).sound(c)[1],
}
FOLDER = []  # where `by_clip` keeps what it computes
UNDRAWN = {  # where other clips are drawn, from all that there are: what does not depend on the draw
    "gradient_shap, baseline": ["level", "speech"],
    "sweep, resample": ["clean_logits", "clean_probability"],
}


@pytest.mark.parametrize("name", CALLS)
def test_methods_skip_unusable_clips(shared, corpus, tmp_path, name):
    """Each method skips unusable clips and, unless it draws from the clips, equals its result on good clips alone."""
    model = shared()
    FOLDER[:] = [tmp_path / "with"]
    found = CALLS[name](model, corpus)
    FOLDER[:] = [tmp_path / "without"]
    alone = CALLS[name](model, corpus[is_good(corpus)])
    assert not is_empty(found)
    check_clips(found, alone, corpus, with_donors=name == "sweep, resample")
    check_same(found, alone.sel(clip=found["clip"])[UNDRAWN[name]] if name in UNDRAWN else alone)


def is_empty(found) -> bool:
    if hasattr(found, "sizes"):
        return found.sizes.get("clip") == 0 or not found.sizes
    return len(found) == 0


def check_clips(found, alone, corpus, *, with_donors):
    """Whether a result names all good clips, and each with its own label and speaker.

    Where donors are drawn, clips whose donor cannot be used are missing too.
    """
    if not hasattr(found, "dims") or "clip" not in found.dims:
        return
    if not with_donors:
        assert found["clip"].values.tolist() == alone["clip"].values.tolist()
    rows = corpus.loc[found["clip"].values]
    assert is_good(rows).all()
    for name in {"label", "speaker"} & set(found.coords):
        if found[name].dims == ("clip",):
            assert found[name].values.tolist() == rows[name].tolist(), name


def check_same(found, alone):
    if isinstance(found, (pd.DataFrame, pd.Series)):
        numbers = found.dropna() if isinstance(found, pd.Series) else found.select_dtypes("number")
        others = alone.dropna() if isinstance(alone, pd.Series) else alone.select_dtypes("number")
        (pd.testing.assert_series_equal if isinstance(found, pd.Series) else pd.testing.assert_frame_equal)(
            numbers, others
        )
        return
    if isinstance(found, np.ndarray):
        np.testing.assert_allclose(found, alone, atol=1e-6)
        return
    found = found.to_dataset(name="value") if not hasattr(found, "data_vars") else found
    alone = alone.to_dataset(name="value") if not hasattr(alone, "data_vars") else alone
    for variable in alone.data_vars:
        if alone[variable].dtype.kind == "f":
            np.testing.assert_allclose(found[variable], alone[variable], atol=1e-5, err_msg=variable)


def test_methods_raise_no_clips_if_all_unusable(shared, corpus):
    """Methods raise `NoClips` with a count if no clip at all can be used."""
    model = shared()
    bad = corpus[~is_good(corpus)]
    for name in ("predict", "features_table", "grad_x_activation", "activations", "activation_stats", "gradient_shap"):
        with pytest.raises(audio.NoClips, match=r"no clip could be used \(0 of 6\)"):
            CALLS[name](model, bad)


@pytest.mark.full
@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_notebooks_run_with_unusable_clips(tmp_path, number):
    """Each notebook runs on 80 clips of which a silent, an empty, a broken and a short one are unusable."""
    actors = [1, 2, 3, 4, 5, 6, 17, 18, 19, 20]
    sample = corpora.load("sample")
    clips = sample[sample["actor"].isin(actors)].groupby(["actor", "label"]).head(1).reset_index(drop=True)
    clips = clips[["path", "label", "speaker", "sex"]]
    bad = {"silent": np.zeros(2 * RATE), "empty": np.zeros(0), "short": voice(0)[5000:5100]}
    for place, (name, samples) in enumerate(bad.items()):
        soundfile.write(tmp_path / f"{name}.wav", samples, RATE)
        clips.loc[19 + 21 * place, "path"] = str(tmp_path / f"{name}.wav")
    (tmp_path / "broken.wav").write_bytes(b"RIFF and no more")
    clips.loc[70, "path"] = str(tmp_path / "broken.wav")
    clips.to_csv(tmp_path / "corpus.csv", index=False)
    command = [sys.executable, "-m", "xai_lib.workbook", "--only", number, "--results", str(tmp_path / "results")]
    command += [f"corpus={tmp_path / 'corpus.csv'}", "max_clips=64", "k=5"]
    with warnings.catch_warnings():
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
