"""Probes and selectivity against planted truths and chance."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from handmade import code, manners, noise, probed
from scipy import stats

from xai_lib import audio, corpora, hooks, plots, statistics
from xai_lib.corpora import phonemes
from xai_lib.probing import linear_probes, variance_explained

pytestmark = pytest.mark.heavy


def test_manner_covers_the_sample_corpus():
    """The sample corpus has timed phonemes, each with a known manner; `manner` refuses an unknown phoneme."""
    clips = corpora.load("sample", subset="all")
    selected = pd.concat([clips[clips["subset"] == "main"][3:5], clips[clips["subset"] == "one_factor"][:1]])
    found = phonemes.timed(selected)
    assert set(found["clip"]) == set(selected.index) and (found["end"] > found["start"]).all()
    raw = pd.read_csv(Path(selected["path"].iloc[0]).parents[1] / "phonemes.csv")
    own = raw[raw["file"] == "/".join(Path(selected["path"].iloc[0]).parts[-2:])]
    mine = found[found["clip"] == selected.index[0]]
    assert mine["phoneme"].tolist() == own["phoneme"].tolist() and np.allclose(mine["start"], own["start"])
    manners = {name: phonemes.manner(name) for name in raw["phoneme"].unique()}
    assert manners["ɾ"] == "tap" and manners["ŋ"] == "nasal" and manners["ɑːɹ"] == "vowel" and manners["ɡ"] == "plosive"
    assert set(manners.values()) == {"vowel", "plosive", "fricative", "nasal", "tap"}
    assert (
        phonemes.manner("tʃ") == "affricate"
        and phonemes.manner("nː") == "nasal"
        and phonemes.manner("w") == "approximant"
    )
    with pytest.raises(ValueError, match="unknown phoneme '!'"):
        phonemes.manner("!")


@pytest.fixture
def clips(make_clips, tmp_path):
    """Three clips in a folder with timed phonemes, of which the last has none."""
    timed = []
    for place in range(2):
        for start, phoneme in ((0.1, "s"), (0.2, "a"), (0.3, "s"), (0.4, "m"), (0.4401, "t")):
            end = start + (0.1 if phoneme != "t" else 0.001)  # too short to hold the centre of a frame
            timed.append({"file": f"voice/{place}.wav", "start": start, "end": end, "phoneme": phoneme})
    pd.DataFrame(timed).to_csv(tmp_path / "phonemes.csv", index=False)
    about = {"index": [5, 6, 8], "label": ["sad", "angry", None], "speaker": "s{}", "statement": 1}
    return make_clips(tmp_path / "voice", 3, lengths=(8000, 9600, 11200), **about)


def test_timed_reads_phonemes_beside_clips(clips, tmp_path):
    """Phonemes are read from phonemes.csv beside the clips, with its own manners if given; without it, None."""
    found = phonemes.timed(clips)
    assert found["clip"].tolist() == [5] * 5 + [6] * 5
    assert found["manner"].tolist()[:5] == ["fricative", "vowel", "fricative", "nasal", "plosive"]
    table = pd.read_csv(tmp_path / "phonemes.csv")
    table.assign(phoneme="X", manner="click").to_csv(tmp_path / "phonemes.csv", index=False)
    assert set(phonemes.timed(clips)["manner"]) == {"click"}  # words of your own
    table.assign(phoneme="X").to_csv(tmp_path / "phonemes.csv", index=False)
    with pytest.raises(ValueError, match="unknown phoneme 'X'"):
        phonemes.timed(clips)
    (tmp_path / "phonemes.csv").unlink()
    assert phonemes.timed(clips) is None


@pytest.mark.parametrize("size", ["base", "large"])
def test_read_averages_frames_of_phonemes(tiny, clips, size):
    """A sound is the mean over all frames of a phoneme in a clip, said once or twice; a clip, over its speech."""
    model = tiny(size)
    found = linear_probes.read(model, clips, layers=[1, 3], part="ffn_hidden")
    assert (
        found["phoneme"].values.tolist() == ["a", "m", "s"] * 2
        and found["sound_clip"].values.tolist() == [5] * 3 + [6] * 3
    )
    assert found["manner"].values.tolist()[:3] == ["vowel", "nasal", "fricative"]
    x = audio.read(clips["path"][6])
    at = audio.frame_times(model.n_frames(len(x)))
    with torch.no_grad(), hooks.capture(model, [(1, "ffn_hidden"), (3, "ffn_hidden")]) as seen:
        model.logits(model.tensor(x))
    hidden = torch.stack([seen[model.check((layer, "ffn_hidden"))][0] for layer in (1, 3)]).cpu().numpy()
    twice = (at >= 0.1) & (at < 0.2) | (at >= 0.3) & (at < 0.4)  # it is said twice, and counts once
    assert np.allclose(found["sound_mean"][5], hidden[:, twice].mean(axis=1), atol=1e-5)
    assert np.allclose(found["clip_mean"].sel(clip=6), hidden[:, audio.speech_mask(x)].mean(axis=1), atol=1e-5)
    assert found["clip"].values.tolist() == [5, 6, 8] and found["statement"].values.tolist() == [1, 1, 1]
    assert "sound_mean" not in linear_probes.read(model, clips[2:], layers=1)


def types(table, rng):
    """What a layer holds that knows each phoneme, and nothing that those of a manner share."""
    return code(table["phoneme"], 3) + 0.1 * noise(table, rng)


def test_layer_probes_find_planted_classes():
    """Probes find planted manners and emotions; control tasks are solved only where types can be memorised."""
    layers = [noise, manners, types]
    sides = probed(layers, per=16), probed(layers, per=16, first=8, seed=1)
    found = linear_probes.layer_probes(*sides, components=None)
    assert found["task"].values.tolist() == ["manner", "statement", "emotion"]
    assert found["chance"].values.tolist() == [1 / 3, 1 / 2, 1 / 8] and found.sizes["speaker"] == 8
    mean = found.mean("speaker")
    accuracy, control = (mean[name].sel(task="manner").values for name in ("accuracy", "control"))
    assert accuracy[0] == pytest.approx(1 / 3, abs=0.06) and control[0] == pytest.approx(1 / 3, abs=0.06)
    assert accuracy[1] > 0.99 and control[1] < 0.6
    assert accuracy[2] > 0.99 and control[2] > 0.99  # by heart
    emotion = mean.sel(task="emotion")
    assert emotion["accuracy"][1] > 0.99 and emotion["control"][1] < 0.7  # each has two cells
    assert emotion["accuracy"][0] == pytest.approx(1 / 8, abs=0.1) and emotion["control"][0] == pytest.approx(
        1 / 8, abs=0.1
    )
    assert mean["accuracy"].sel(task="statement")[1] == pytest.approx(1 / 2, abs=0.15)
    assert np.allclose(found["selectivity"], found["accuracy"] - found["control"])


@pytest.mark.full
def test_over_speakers_and_controls_covers_truth():
    """Over 90 % of intervals over speakers and controls hold the true selectivity; over speakers alone, under 70 %."""

    def some(table, rng):
        return manners(table, rng) + types(table, rng) + noise(table, rng)

    sides = probed([some, some]), probed([some, some], first=8, seed=1)
    many = [linear_probes.layer_probes(*sides, controls=3, seed=seed).sel(task="manner") for seed in range(24)]
    truth = float(xr.concat(many, "seed")["selectivity"].mean())
    one = many[0].mean("layer")
    alone, both = statistics.over_speakers(one["selectivity"]), linear_probes.over_speakers_and_controls(one)
    each = one["each_control"].mean("speaker").values
    np.testing.assert_allclose(both["mean"], alone["mean"])
    ends = stats.ttest_1samp(each, 0).confidence_interval()
    one_more = (ends.high - ends.low) / 2 * np.sqrt(len(each) + 1)
    half = np.hypot(float(alone["high"] - alone["mean"]), one_more)
    np.testing.assert_allclose([both["low"], both["high"]], [both["mean"] - half, both["mean"] + half])
    np.testing.assert_allclose(one["control"], one["each_control"].mean("control_task"))
    every = [x.mean("layer") for x in many]
    found = [(statistics.over_speakers(x["selectivity"]), linear_probes.over_speakers_and_controls(x)) for x in every]
    alone, both = (np.mean([(x["low"] < truth) & (truth < x["high"]) for x in part]) for part in zip(*found))
    assert alone < 0.7 and both > 0.9
    single = linear_probes.layer_probes(*sides, controls=1)
    assert linear_probes.over_speakers_and_controls(single)[["low", "high"]].isnull().all().to_array().all()


def test_layer_probes_omit_unlearnable_controls():
    """Controls are NaN under 5 examples a type; that of emotions does not depend on the number of sentences."""
    sides = probed([manners], per=16, sounds=False), probed([manners], per=16, first=8, seed=1, sounds=False)
    coarse = linear_probes.layer_probes(*sides)
    fine = linear_probes.layer_probes(*(side.assign_coords(statement=side["clip"] % 30) for side in sides))
    for name in ("accuracy", "control", "selectivity"):
        assert np.isfinite(coarse[name]).all()
        assert np.array_equal(coarse[name].sel(task="emotion"), fine[name].sel(task="emotion"))
    assert np.isnan(fine["selectivity"].sel(task="statement")).all() and fine["accuracy"].notnull().all()
    few = sides[0].isel(clip=slice(79)), sides[1]  # 16 types
    assert np.isnan(linear_probes.layer_probes(*few)["control"].sel(task="emotion")).all()
    enough = sides[0].isel(clip=slice(80)), sides[1]
    assert np.isfinite(linear_probes.layer_probes(*enough)["control"].sel(task="emotion")).all()


def test_layer_probes_memorise_less_with_few_components():
    """A probe of all neurons solves the control task of manners; one of two components does so less."""
    sides = probed([types]), probed([types], first=8, seed=1)
    control = [
        float(linear_probes.layer_probes(*sides, components=c)["control"].sel(task="manner").mean()) for c in (None, 2)
    ]
    assert control[0] > 0.99 and control[1] < 0.9


def test_layer_probes_controls_keep_types_and_class_sizes(monkeypatch):
    """Control tasks keep the class sizes and give a phoneme one class, the same in training and test."""
    seen, plain = [], linear_probes._recalls

    def spy(x, new, labellings, *rest):
        seen.append(labellings)
        return plain(x, new, labellings, *rest)

    monkeypatch.setattr(linear_probes, "_recalls", spy)
    train, test = probed([manners]), probed([manners], first=8, seed=1)
    linear_probes.layer_probes(train, test, controls=4)
    real, *controls = seen[0]
    assert len(controls) == 4 and real.train.tolist() == train["manner"].values.tolist()
    assert real.test.tolist() == test["manner"].values.tolist()
    for control in controls:
        assert control.train.value_counts().to_dict() == real.train.value_counts().to_dict()
        assert control.train.tolist() != real.train.tolist()
        class_of_phoneme = dict(zip(train["phoneme"].values, control.train))
        assert [class_of_phoneme[name] for name in train["phoneme"].values] == control.train.tolist()
        assert [class_of_phoneme[name] for name in test["phoneme"].values] == control.test.tolist()


def test_layer_probes_omit_tasks_without_examples():
    """Tasks without examples are left out, a control with one type a class is NaN, and having no task is refused."""
    sides = [probed([noise], first=first, seed=first, sounds=False) for first in (0, 8)]
    assert linear_probes.layer_probes(*sides)["task"].values.tolist() == ["statement", "emotion"]
    bare = [side.drop_vars(["statement", "intensity"]) for side in sides]
    found = linear_probes.layer_probes(*bare)
    assert found["task"].values.tolist() == ["emotion"] and np.isnan(found["control"]).all()  # a type a class
    some = [side.assign_coords(label=side["label"].where(side["clip"] % 8 > 0, None)) for side in bare]
    assert linear_probes.layer_probes(*some)["chance"].values.tolist() == [1 / 7]
    with pytest.raises(ValueError, match="no task has two classes"):
        linear_probes.layer_probes(*(side.drop_vars("label") for side in bare))


@pytest.mark.filterwarnings("error")
def test_layer_probes_run_on_very_few_clips():
    """Nine clips, or three, are enough for probes and their control tasks to run without a warning."""
    sides = [side.isel(clip=slice(9)).drop_dims("sound") for side in (probed([noise]), probed([noise], first=8))]
    assert linear_probes.layer_probes(*sides, controls=20)["task"].values.tolist() == ["statement", "emotion"]
    lone = [side.isel(clip=[0, 1, 9 - 1]) for side in sides]
    found = linear_probes.layer_probes(*lone, controls=20)
    assert found["task"].values.tolist() == ["statement", "emotion"] and np.isfinite(found["accuracy"]).all()


def test_layer_probes_record_tasks_left_out():
    """The attributes list the tasks that the clips have no examples of, or only one class."""
    sides = [probed([noise], first=first, seed=first, sounds=False) for first in (0, 8)]
    assert linear_probes.layer_probes(*sides).attrs["tasks_left_out"] == '["manner"]'
    alike = [side.assign_coords(statement=("clip", [1] * side.sizes["clip"])) for side in sides]
    assert linear_probes.layer_probes(*alike).attrs["tasks_left_out"] == '["manner", "statement"]'


def test_layer_probes_refuse_tables_of_clips():
    """Probes refuse tables of clips, and say what reads the activations."""
    clips = pd.DataFrame({"path": ["a.wav"]})
    with pytest.raises(ValueError, match=r"not a DataFrame: pass linear_probes\.read\(model, clips\)"):
        linear_probes.layer_probes(clips, clips)


def test_layer_probes_refuse_common_or_unknown_speakers():
    """Probes refuse a speaker who is in training and in test, and clips without a speaker."""
    train, test = probed([noise]), probed([noise], first=7, seed=1)
    with pytest.raises(ValueError, match="speaker s07 is in training and in test"):
        linear_probes.layer_probes(train, test)
    with pytest.raises(ValueError, match="every clip needs its speaker"):
        linear_probes.layer_probes(train, test.drop_vars("speaker"))


def planted(table, rng):
    """Neurons: manner, emotion, half of each, noise, a clip's own level, silent."""
    manner, label = (code(table[name], place)[:, 0] for place, name in enumerate(("manner", "label")))
    manner, label = ((x - x.mean()) / max(x.std(), 1e-9) for x in (manner, label))
    of_clip = np.random.default_rng(9).standard_normal(1000)[table["clip"].to_numpy()]
    voice = 10 * code(table["speaker"], 5)[:, 0]
    columns = [manner, label, manner + label, rng.standard_normal(len(table)), of_clip]
    return np.stack([*(column + voice for column in columns), np.ones(len(table))], axis=1)


def test_selectivity_recovers_planted_shares():
    """Neurons of manner, emotion, both or neither get the eta squared, excess and p planted; silent ones get NaN."""
    found = variance_explained.selectivity(probed([planted])).sel(layer=0)
    assert found["task"].values.tolist() == ["manner", "emotion"] and found.attrs["over"] == "sound"
    manner, emotion = found["eta_squared"].values
    assert np.allclose(manner[:3], [1, 0, 0.5], atol=1e-9) and np.allclose(emotion[:3], [0, 1, 0.5], atol=1e-9)
    assert manner[3] < 0.02 and emotion[3] < 0.05 and manner[4] < 1e-9
    assert np.isnan(manner[5]) and np.isnan(found["p"].values[:, 5]).all()
    assert (found["q"].values[0, [0, 2]] < 0.05).all() and (found["q"].values[1, [1, 2]] < 0.02).all()
    assert found["excess"].values[0, 0] == pytest.approx(1 - 2 / 8, abs=0.02)  # 3 manners of 9 phonemes
    assert np.isnan(found["excess"].values[:, 5]).all() and (abs(found["excess"].values[:, 3]) < 0.03).all()
    assert found["p"].values[0, 1] > 0.9 and found["p"].values[1, 0] > 0.9
    assert (found["p"].values[:, 3] > 0.05).all()


def test_selectivity_equals_eta_squared_if_balanced():
    """In a balanced design the shares equal `statistics.eta_squared` of values centred within speakers."""
    read = probed([noise, manners])
    found, about = (
        variance_explained.selectivity(read, draws=3),
        read["label"].to_series().loc[read["sound_clip"].values].to_numpy(),
    )
    speaker_of_sound = read["speaker"].to_series().loc[read["sound_clip"].values].to_numpy()
    for layer in (0, 1):
        for neuron in (0, 13):
            values = pd.Series(read["sound_mean"].values[:, layer, neuron])
            values = values - values.groupby(speaker_of_sound).transform("mean")
            here = found["eta_squared"].sel(layer=layer, neuron=neuron)
            assert here[0] == pytest.approx(statistics.eta_squared(values, read["manner"].values))
            assert here[1] == pytest.approx(statistics.eta_squared(values, about))


def test_selectivity_stays_exact_if_unbalanced():
    """Planted neurons keep an eta squared of 1 where speakers have different emotions, or a clip has no label."""
    read = probed([planted])
    few = read["clip"].values[np.random.default_rng(3).permutation(read.sizes["clip"])[:30]]
    some = read.sel(clip=few).isel(sound=np.isin(read["sound_clip"].values, few))
    found = variance_explained.selectivity(some, draws=50).sel(layer=0)
    assert found["eta_squared"].values[1, 1] == pytest.approx(1) and found["eta_squared"].values[0, 0] == pytest.approx(
        1
    )
    unlabelled = some.assign_coords(label=some["label"].where(some["clip"] != few[0], None))
    assert variance_explained.selectivity(unlabelled, draws=5)["eta_squared"].values[1, 0, 1] == pytest.approx(1)


def test_selectivity_holds_level_for_clip_differences():
    """Neurons that differ between clips alone have p < 0.05 in under 9 %; labels shuffled by sound would fail."""

    def ways(table, rng):
        own = np.random.default_rng(9).standard_normal((1000, 400))[table["clip"].to_numpy()]
        return own + 0.5 * rng.standard_normal(own.shape)

    found = variance_explained.selectivity(probed([ways]), draws=199)["p"].sel(layer=0)
    share = (found < 0.05).mean("neuron")
    assert ((share > 0.005) & (share < 0.09)).all()  # the greater of two p is rarely small


def test_selectivity_holds_level_for_phonemes():
    """Neurons of single phonemes, not of manners, have p < 0.05 for manner in 2 to 8 %, and no mean excess."""

    def known(table, rng):
        return code(table["phoneme"], 3, 600) + 0.1 * rng.standard_normal((len(table), 600))

    found = variance_explained.selectivity(probed([known]), draws=999).sel(task="manner", layer=0)
    assert 0.02 < (found["p"] < 0.05).mean() < 0.08 and abs(found["excess"].mean()) < 0.02
    assert found["eta_squared"].mean() > 0.2


@pytest.mark.parametrize("sounds", [True, False])
def test_selectivity_of_noise_has_no_excess(sounds):
    """In noise the excess and the speakers' shares are near 0 for every task, however many classes it has."""

    def much(table, rng):
        return rng.standard_normal((len(table), 500))

    found = variance_explained.selectivity(probed([much, much], sounds=sounds), draws=200)
    assert abs(found["excess"].mean(["layer", "neuron"])).max() < 0.005
    assert abs(found["excess"].median("neuron")).max() < 0.015
    if not sounds:  # where eta squared itself would call emotion ahead
        ahead = found["eta_squared"].sel(task="emotion") - found["eta_squared"].sel(task="statement")
        assert ahead.median() > 0.05
    over = statistics.over_speakers(found["typical"])
    assert found["typical"].sizes["speaker"] == 8 and (abs(over["mean"]) < 0.03).all()


def test_selectivity_of_speakers_averages_to_excess():
    """The shares of speakers, weighted by their variances, average to the excess."""
    read = probed([planted]).isel(neuron=[2, 2])
    found = variance_explained.selectivity(read, draws=50).isel(neuron=0, layer=0)
    values = read["sound_mean"].values[:, 0, 0]
    speaker_of_sound = read["speaker"].to_series().loc[read["sound_clip"].values].to_numpy()
    weight = pd.Series(values).groupby(speaker_of_sound).var(ddof=0)
    for task in ("manner", "emotion"):
        parts = found["typical"].sel(task=task).to_series()[weight.index]
        assert np.average(parts, weights=weight) == pytest.approx(found["excess"].sel(task=task).item())


@pytest.mark.filterwarnings("error")
def test_selectivity_is_nan_for_speaker_of_one_clip():
    """A speaker with one clip has no share of variance (NaN), without a warning; all others have one."""
    found = variance_explained.selectivity(probed([noise], sounds=False).isel(clip=slice(7, None)), draws=9)["typical"]
    assert np.isnan(found.sel(speaker="s00")).all() and np.isfinite(found.isel(speaker=slice(1, None))).all()


def test_shuffled_within_keeps_labels_within_groups():
    """Labels are shuffled within their group only, in each of 50 draws differently."""
    groups, labels = np.repeat(list("ba"), 6), np.array(list("uvwxyz" * 2), object)
    groups, labels = groups[[0, 7, *range(1, 7), *range(8, 12)]], labels[::-1]
    drawn = [*variance_explained._shuffled_within(labels, groups, 50, 0)]
    for one in drawn:
        assert all(sorted(one[groups == name]) == sorted(labels[groups == name]) for name in "ab")
    assert len({tuple(one) for one in drawn}) == 50


def test_selectivity_uses_statements_without_phonemes():
    """Without timed phonemes the task is the statement instead of the manner; having no task is refused."""

    def said(table, rng):
        return np.stack([table["statement"].to_numpy(float), code(table["label"], 1)[:, 0]], axis=1)

    read = probed([said], sounds=False)
    found = variance_explained.selectivity(read, draws=99).sel(layer=0)
    assert found["task"].values.tolist() == ["statement", "emotion"] and found.attrs["over"] == "clip"
    assert found["eta_squared"].values[0, 0] == pytest.approx(1) and found["eta_squared"].values[1, 1] == pytest.approx(
        1
    )
    assert (np.diagonal(found["p"].values) < 0.05).all()
    alone = variance_explained.selectivity(read.drop_vars(["statement", "speaker"]), draws=9)
    assert alone["task"].values.tolist() == ["emotion"] and np.isfinite(alone["eta_squared"]).all()
    with pytest.raises(ValueError, match="only emotion"):
        plots.selectivity_scatter(alone)
    with pytest.raises(ValueError, match="no task has two classes"):
        variance_explained.selectivity(read.drop_vars(["statement", "label"]))
