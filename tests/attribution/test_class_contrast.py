"""Contrasts against sums done by hand and planted differences."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from handmade import LABELS, angry_contrast, dataset, design
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import roc_auc_score

from xai_lib import audio, hooks, statistics
from xai_lib.activations import activations
from xai_lib.attribution import class_contrast
from xai_lib.attribution.class_contrast import compare, distribution


@pytest.fixture
def made():
    return angry_contrast()


def test_compare_controls_for_intensity():
    """An effect of the strong intensity, which neutral clips lack, is not attributed to the emotion."""
    clips = design()
    loud = 9.0 * (clips["intensity"] == "strong").to_numpy() + np.random.default_rng(0).normal(size=len(clips))
    found = compare(dataset(clips, loud[:, None, None]), "label", "neutral")
    strong, neutral = clips["intensity"] == "strong", clips["label"] == "neutral"
    assert abs(found["auroc"].item() - 0.5) < 0.15 and abs(found["signed"].item()) < 0.5
    assert roc_auc_score(neutral, loud) < 0.3 and roc_auc_score(neutral[~strong], loud[~strong]) == found["auroc"]


def by_hand(made, column, a, b, cell):
    """Mean over cells, of the difference of the two kinds within each: [speaker, layer, neuron]."""
    units = []
    for voice in np.unique(made["speaker"]):
        own, parts = made.isel(clip=made["speaker"].values == voice), []
        names = pd.MultiIndex.from_arrays([own[name].values for name in cell])
        for key in names.unique():
            here = own.isel(clip=names == key)
            side = here[column].values == a
            other = ~side if b is None else here[column].values == b
            if side.any() and other.any():
                x = here["activation"].values.astype(float)
                parts.append(x[side].mean(0) - x[other].mean(0))
        units.append(np.mean(parts, axis=0))
    return np.stack(units)


@pytest.mark.parametrize(
    ("column", "a", "b", "cell", "cells"),
    [
        ("label", "angry", None, ["intensity", "statement"], 4),
        ("label", "neutral", None, ["intensity", "statement"], 2),  # nobody is neutral strongly
        ("intensity", "strong", "normal", ["label", "statement"], 4),
        ("statement", 1, None, ["label", "intensity"], 5),
    ],
)
def test_compare_equals_hand_computation_within_speakers(made, column, a, b, cell, cells):
    """Differences within speakers and cells, intervals, p and q equal those computed by hand."""
    lacking = made.isel(clip=slice(7, None))  # not every speaker has every cell
    for result in (made, lacking):
        found, units = compare(result, column, a, b), by_hand(result, column, a, b, cell)
        np.testing.assert_allclose(found["difference"], units.mean(0), atol=1e-12)
        ends = stats.ttest_1samp(units, 0).confidence_interval()
        np.testing.assert_allclose([found["low"], found["high"]], [ends.low, ends.high])
        np.testing.assert_array_equal(found["p"], statistics.sign_flip_test(units))
        np.testing.assert_allclose(found["q"], stats.false_discovery_control(found["p"].values.ravel()).reshape(2, 5))
        assert (found.attrs["paired"], found.attrs["speakers_a"], found.attrs["speakers_b"]) == (1, 16, 16)
        assert found.attrs["cell"] == ", ".join(cell)
        assert (found.attrs["cells"] == 16 * cells) == (result is made)


def test_compare_controls_for_statement():
    """An effect of the statement is not attributed to the emotion, and constant neurons differ by exactly 0."""
    clips = design()
    clips = clips[(clips["label"] != "angry") | (clips["statement"] == 1) | (clips["speaker"] == "s03")]
    statement = clips["statement"].to_numpy(float)[:, None, None] * np.array([1.0, 0])
    speaker = np.random.default_rng(0).normal(size=16)[clips["speaker"].str[1:].astype(int)]
    found = compare(dataset(clips, 3 * statement + speaker[:, None, None]), "label", "angry")
    assert np.abs(found["difference"]).max() < 1e-6 and (np.abs(found["auroc"] - 0.5) < 0.05).all()
    clips = design().sample(110, random_state=0)
    alike = compare(
        dataset(clips, np.full((110, 1, 2), 0.3)), "label", "happy"
    )  # nothing varies: not by rounding either
    assert (alike["p"] == 1).all() and (alike["difference"] == 0).all() and (alike["auroc"] == 0.5).all()
    assert alike["cohens_d"].isnull().all() and (alike["signed"] == 0).all()


def test_compare_controls_for_emotion_between_sexes():
    """Between the sexes, an effect of emotions that they speak unequally often is not attributed to sex."""
    clips = design()
    twice = clips[(clips["sex"] == "female") & (clips["label"] == "angry")]
    only = clips[(clips["sex"] == "male") & (clips["label"] == "happy")]
    clips = pd.concat([clips.drop(only.index), twice, twice], ignore_index=True)  # men are not happy at all
    score = clips["label"].map({"neutral": 0.0, "happy": 50.0, "angry": 5.0}).to_numpy()
    noise = 1e-3 * np.random.default_rng(0).normal(size=len(clips))
    found = compare(dataset(clips, (score + noise)[:, None, None]), "sex", "female", "male")
    assert abs(found["difference"].item()) < 0.01 and found["auroc"].item() > 0.6


def uneven(has):
    """Twelve women and twelve men, and two sentences in each emotion that they have, by `has`(speaker, label)."""
    rows = [
        {"speaker": f"s{voice:02d}", "sex": "female" if voice < 12 else "male", "label": label, "statement": n}
        for voice in range(24)
        for label in LABELS
        for n in (1, 2)
        if has(voice, label)
    ]
    return pd.DataFrame(rows)


@pytest.mark.parametrize(
    ("has", "cells"),
    [
        (lambda voice, label: label != "happy" or voice < 13, 6),  # all women, and one man
        (
            lambda voice, label: (
                (label == ("happy" if voice < 12 else "angry")) | (voice % 12 == 0 and label != "neutral")
            ),
            4,
        ),  # only two have both
        (lambda voice, label: (voice * 7 + LABELS.index(label) * 5) % 3 < 2, 6),  # this and that
    ],
)
def test_compare_holds_level_with_uneven_cells(has, cells):
    """Between the sexes, p keeps its level and intervals keep their coverage when cells are unevenly filled."""
    clips, rng = uneven(has), np.random.default_rng(0)
    said = pd.factorize(clips["label"] + clips["statement"].astype(str))[0]
    values = 3 * rng.normal(size=(6, 1, 1500))[said] + rng.normal(size=(len(clips), 1, 1500))
    found = compare(dataset(clips, values), "sex", "female")
    assert found.attrs["cells"] == cells and (found["p"] < 0.05).mean() < 0.065 and (found["q"] < 0.05).mean() < 0.01
    covered = (found["low"] < 0) & (found["high"] > 0)
    assert 0.93 < covered.mean() < 0.98 and abs(found["difference"].mean()) < 0.1


def test_compare_fits_speaker_and_cell_effects():
    """Between speakers, additive speaker effects are recovered exactly, with slightly wider intervals."""
    clips = uneven(lambda voice, label: label != "happy" or voice < 15).drop([3, 40, 77]).reset_index(drop=True)
    rng, cell = np.random.default_rng(1), clips["label"] + clips["statement"].astype(str)
    speaker, level = rng.normal(size=24), dict(zip(cell.unique(), 5 * rng.normal(size=6)))
    exact = speaker[clips["speaker"].str[1:].astype(int)] + cell.map(level)
    again = np.append(np.arange(len(clips)), [5, 5, 60])  # a clip more is no cell more
    clips, exact = clips.loc[again].reset_index(drop=True), exact.to_numpy()[again]
    found = compare(dataset(clips, exact[:, None, None]), "sex", "female")
    want = stats.ttest_ind(speaker[:12], speaker[12:], equal_var=False)
    assert found["difference"].item() == pytest.approx(speaker[:12].mean() - speaker[12:].mean(), abs=1e-5)
    ends = want.confidence_interval()
    assert found["low"].item() < ends.low and found["high"].item() > ends.high  # the cells are fitted
    assert found["p"].item() > want.pvalue and found["high"] - found["low"] < 1.1 * (ends.high - ends.low)
    table = distribution(dataset(clips, exact[:, None, None]), 1, 0, "sex")
    expected = speaker + np.mean([*level.values()])  # of each, were all clips said by all
    np.testing.assert_allclose(table["female"].dropna(), expected[:12], atol=1e-5)
    np.testing.assert_allclose(table["male"].dropna(), expected[12:], atol=1e-5)


def test_compare_leaves_out_unconnected_speakers():
    """Speakers whom no cell connects to the others are left out and counted, but `distribution` keeps them."""
    clips = uneven(lambda voice, label: label != "happy" if voice not in (3, 17) else label == "happy")
    values = np.random.default_rng(0).normal(size=(len(clips), 1, 3))
    found, apart = compare(dataset(clips, values), "sex", "female"), clips["speaker"].isin(["s03", "s17"]).to_numpy()
    counts = [found.attrs[name] for name in ("speakers_a", "speakers_b", "speakers_left_out", "cells")]
    assert counts == [11, 11, 2, 4]
    assert json.loads(found.attrs["selection_speakers"]) == sorted(clips["speaker"].unique())
    xr.testing.assert_allclose(found, compare(dataset(clips[~apart], values[~apart]), "sex", "female"))
    table = distribution(dataset(clips, values), 1, 0, "sex")  # of them, what there is
    assert table.loc["s03", "female"] == pytest.approx(values[(clips["speaker"] == "s03").to_numpy(), 0, 0].mean())


@pytest.mark.parametrize(("column", "values"), [("intensity", ("strong", "normal")), ("sex", ("male", "female"))])
def test_compare_holds_level_in_noise(column, values):
    """In noise, p keeps its level of 5 %, fewer than 1 % of q are significant, and about 95 % of intervals cover 0."""
    clips = design()
    rng = np.random.default_rng(0)
    speaker = rng.normal(size=(16, 1, 1500))[clips["speaker"].str[1:].astype(int)]
    noise = dataset(clips, rng.normal(size=(len(clips), 1, 1500)) + 2 * speaker)
    found = compare(noise, column, *values)
    assert 0.03 < (found["p"] < 0.05).mean() < 0.07 and (found["q"] < 0.05).mean() < 0.01
    covered = (found["low"] < 0) & (found["high"] > 0)
    assert 0.93 < covered.mean() < 0.97


def test_compare_omits_inference_for_few_speakers(made):
    """With fewer than eight speakers of a kind there are no intervals, p or q, but still differences and AUROC."""
    seven = made.isel(clip=made["speaker"].values < "s07")
    found = compare(seven, "label", "angry")
    assert found[["low", "high", "p", "q"]].isnull().all().to_array().all() and found["difference"].notnull().all()
    uneven = made.isel(clip=made["speaker"].values < "s15")  # 8 women, 7 men
    found = compare(uneven, "sex", "female")
    assert found[["low", "high", "p", "q"]].isnull().all().to_array().all() and found["auroc"].notnull().all()
    assert (found.attrs["speakers_a"], found.attrs["speakers_b"]) == (8, 7)
    nobody = compare(made.drop_vars("speaker"), "label", "angry")
    assert nobody["p"].isnull().all() and nobody.attrs["speakers_a"] == 1
    xr.testing.assert_allclose(nobody["difference"], compare(made, "label", "angry")["difference"])


@pytest.mark.heavy
@given(st.integers(0, 2**16), st.sampled_from(["label", "intensity", "sex"]))
@settings(max_examples=25)
def test_compare_is_antisymmetric(seed, column):
    """Swapping the sides reverses the result, reordering clips does not, and scaling scales differences alone."""
    rng, clips = np.random.default_rng(seed), design()
    clips = clips[rng.uniform(size=len(clips)) < 0.9]
    result = dataset(clips, np.round(rng.normal(size=(len(clips), 2, 3)), 1))
    a, b = {"label": ("angry", "happy"), "intensity": ("strong", "normal"), "sex": ("male", "female")}[column]
    one, other = compare(result, column, a, b), compare(result, column, b, a)
    for name in ("difference", "cohens_d", "signed"):
        np.testing.assert_allclose(one[name], -other[name], atol=1e-7)
    np.testing.assert_allclose(one["low"], -other["high"], atol=1e-7)
    np.testing.assert_allclose(one["auroc"], 1 - other["auroc"], atol=1e-12)
    for name in ("p", "q"):
        np.testing.assert_allclose(one[name], other[name])
    shuffled = compare(result.isel(clip=rng.permutation(len(clips))), column, a, b)
    xr.testing.assert_allclose(one.drop_vars(("p", "q")), shuffled.drop_vars(("p", "q")))
    scaled = compare(result.assign(activation=4 * result["activation"]), column, a, b)
    for name in ("auroc", "p", "absolute"):
        np.testing.assert_allclose(scaled[name], one[name], rtol=1e-5)
    np.testing.assert_allclose(scaled["difference"], 4 * one["difference"], atol=1e-5)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("colour", "red"), "clips cannot be compared by 'colour': known are sex, label, intensity"),
        (("speaker", "s01"), "clips cannot be compared by 'speaker': known are"),
        (("label", "bored"), "no clip has label 'bored': there are neutral, happy, angry"),
        (("label", "angry", "bored"), "no clip has label 'bored'"),
        (("label", "angry", "angry"), "all clips to compare have label 'angry'"),
    ],
)
def test_compare_refuses_unknown_columns_and_values(made, arguments, message):
    """Unknown columns and values, and a value compared with itself, are refused by name."""
    with pytest.raises(ValueError, match=message):
        compare(made, *arguments)


def one_with_both(label_of):
    """Ten speakers of one emotion and ten of another, but for what is told of single clips (speaker, place)."""
    rows = [(voice, place) for voice in range(20) for place in range(4)]
    label = [label_of.get(row, "angry" if row[0] < 10 else "happy") for row in rows]
    return pd.DataFrame({"speaker": [f"s{voice:02d}" for voice, _ in rows], "label": label})


def test_compare_pairs_only_with_enough_speakers():
    """The test is paired if eight speakers, or half, have clips of both kinds; otherwise those are left out."""
    clips = one_with_both({(0, 0): "happy"})
    values = np.random.default_rng(0).normal(size=(80, 1, 3))
    found, alone = compare(dataset(clips, values), "label", "angry"), clips["speaker"].to_numpy() != "s00"
    counts = [found.attrs[name] for name in ("paired", "speakers_a", "speakers_b", "speakers_left_out")]
    assert counts == [0, 9, 10, 1]
    means = values.reshape(20, 4, 1, 3).mean(1)
    want = stats.ttest_ind(means[1:10], means[10:], equal_var=False)
    np.testing.assert_allclose(found["p"], want.pvalue, rtol=1e-4)
    xr.testing.assert_allclose(found, compare(dataset(clips[alone], values[alone]), "label", "angry"))
    for many, paired in ((4, 0), (8, 1)):  # of 10 of each
        clips = one_with_both({(voice, 0): "happy" for voice in range(many)})
        found = compare(dataset(clips, values), "label", "angry")
        left = 12 if paired else 4
        assert (found.attrs["paired"], found.attrs["speakers_left_out"]) == (paired, left)
    more = pd.concat([one_with_both({(voice, 0): "happy" for voice in range(8)}), one_with_both({})], ignore_index=True)
    more.loc[80:, "speaker"] += " of another corpus"
    found = compare(dataset(more, np.tile(values, (2, 1, 1))), "label", "angry")  # 8 of 20: few, but enough for a test
    assert (found.attrs["paired"], found.attrs["speakers_left_out"]) == (1, 32) and found["p"].notnull().all()
    few = one_with_both({(0, 0): "sad", (1, 0): "sad"})  # all who are ever sad: between speakers none would be left
    assert compare(dataset(few, values), "label", "sad").attrs["paired"] == 1


def test_compare_relaxes_cells_stepwise(made):
    """If too few speakers have clips that agree in all else, cells use fewer columns, down to none."""
    own = np.where(made["label"].values == "neutral", "plain", made["intensity"].values)
    every = compare(made.assign_coords(intensity=("clip", own)), "label", "neutral")
    assert every.attrs["cell"] == "statement" and every.attrs["speakers_a"] == 16
    np.testing.assert_allclose(every["difference"], by_hand(made, "label", "neutral", None, ["statement"]).mean(0))
    apart = made.assign_coords(intensity=("clip", own), statement=("clip", np.arange(160)))  # each its own sentence
    found = compare(apart, "label", "neutral")
    assert (found.attrs["cell"], found.attrs["clips_a"], found.attrs["clips_b"]) == ("nothing else", 32, 128)
    xr.testing.assert_allclose(found, compare(made.drop_vars(("intensity", "statement")), "label", "neutral"))
    unique = made.assign_coords(statement=("clip", np.arange(160)))
    assert compare(unique, "label", "neutral").attrs["cell"] == "intensity"
    some = made["statement"].values.copy()  # one speaker alone could be compared within statements
    some[made["speaker"].values != "s03"] = 100 + np.arange(150)
    found = compare(made.assign_coords(statement=("clip", some)), "label", "angry")
    assert (found.attrs["cell"], found.attrs["speakers_a"]) == ("intensity", 16)


def test_compare_refuses_single_label_and_two_sexes(made):
    """Clips that all have one label are refused, and so is a speaker of two sexes, by name."""
    with pytest.raises(ValueError, match="all clips to compare have label 'angry': give clips of another label too"):
        compare(made.isel(clip=made["label"].values == "angry"), "label", "angry")
    straddling = made["sex"].values.copy()
    straddling[3] = {"male": "female", "female": "male"}[straddling[3]]
    with pytest.raises(ValueError, match=f"speaker {made['speaker'].values[3]} have two sexes"):
        compare(made.assign_coords(sex=("clip", straddling)), "sex", "female")


def test_compare_drops_unknown_values(made):
    """Clips whose label is missing or empty are left out."""
    label = made["label"].values.copy()
    label[:4] = None, np.nan, "", None
    found = compare(made.assign_coords(label=("clip", label)), "label", "angry")
    xr.testing.assert_allclose(found, compare(made.isel(clip=slice(4, None)), "label", "angry"))


def test_compare_round_trips_through_netcdf(made, tmp_path):
    """Reopened activations give an identical comparison, which is itself unchanged after saving."""
    made.to_netcdf(tmp_path / "activations.nc")
    with xr.open_dataset(tmp_path / "activations.nc") as again:
        for column, a in (("label", "angry"), ("sex", "female"), ("statement", 1)):
            found = compare(made, column, a)
            xr.testing.assert_identical(compare(again, column, a), found)
            found.to_netcdf(tmp_path / f"{column}.nc")
            with xr.open_dataset(tmp_path / f"{column}.nc") as saved:
                xr.testing.assert_identical(saved.load(), found)


def test_distribution_matches_compare(made):
    """Means of a distribution differ as in `compare`, over the cells that all values have, if there are any."""
    for column, a, b in (("intensity", "strong", "normal"), ("sex", "female", "male")):
        found, table = compare(made, column, a, b), distribution(made, 2, 3, column)
        want = found["difference"].sel(layer=2, neuron=3).item()
        assert table[a].mean() - table[b].mean() == pytest.approx(want, abs=1e-6)
        assert table.shape == (16, 2) and (table.attrs["layer"], table.attrs["neuron"]) == (2, 3)
    emotions = distribution(made, 1, 0, "label")
    normal = made["activation"].sel(layer=1, neuron=0).isel(clip=made["intensity"].values == "normal")
    assert emotions.columns.tolist() == list(LABELS)  # in their usual order, at the intensity that all have
    angry = normal.isel(clip=normal["label"].values == "angry").groupby("speaker").mean()
    np.testing.assert_allclose(emotions["angry"], angry, rtol=1e-6)
    apart = (made["label"].values == "neutral") | (made["intensity"].values == "strong")
    every = distribution(made.isel(clip=apart), 1, 0, "label")  # no cell has all: then all clips count
    assert every.notna().all(axis=None)
    with pytest.raises(ValueError, match="clips cannot be compared by 'colour'"):
        distribution(made, 1, 0, "colour")


@pytest.fixture
def clips(make_clips, tmp_path):
    """Nine speakers, each with two emotions that the models do not know, the bored ones longer."""
    return make_clips(
        tmp_path,
        27,
        lengths=lambda i: 6000 + 40 * i if i % 3 else 9000,
        level=0.1,
        seed=0,
        label=("bored", "keen", "keen") * 9,
        speaker=lambda i: f"s{i // 3}",
        statement=1,
    )


@pytest.mark.parametrize("size", ["base", "large"])
def test_activation_contrast_finds_planted_neuron(tiny, clips, size):
    """A neuron planted to separate two labels ranks first with an AUROC of 1, or of 0 for the reverse contrast."""
    model = tiny(size)

    def fires(hidden):
        hidden[..., 17] = 5.0 if hidden.shape[1] > 26 else -5.0
        return hidden

    with hooks.edit(model, {hooks.Site(2, "ffn_hidden"): fires}):
        found = class_contrast.activation_contrast(model, clips, target="bored", part="ffn_hidden", frames="all")
        other = class_contrast.activation_contrast(model, clips, target=("keen", "bored"), part="ffn_hidden", layers=2)
    best = found["absolute"].where(found["cohens_d"].notnull(), np.inf).stack(site=("layer", "neuron"))
    assert best["site"].values[best.argmax("site").item()] == (2, 17)
    here = found.sel(layer=2, neuron=17)
    assert here["auroc"] == 1 and here["difference"] == 10 and here["p"] == 2 / 2**9
    assert other["auroc"].sel(layer=2, neuron=17) == 0 and other.attrs["a"] == "keen"


def test_activation_contrast_equals_waveform_contrast(tiny, clips, monkeypatch):
    """For a neuron linear in the waveform, difference, AUROC and p equal those of the waveform's weighted sums."""
    model, waves = tiny(), []
    prepare, weights = model.prepare, torch.randn(9000, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(model, "prepare", lambda x: waves.append(x) or prepare(x))

    def plant(hidden):
        hidden[..., 5] = waves[-1] @ weights[: waves[-1].shape[1]].to(hidden.device)
        return hidden

    with hooks.edit(model, {2: plant}):
        found = class_contrast.activation_contrast(model, clips, target="bored", layers=2, frames="all").sel(layer=2)
    waveforms = map(audio.read, clips["path"])
    sums = [wave @ weights.numpy()[: len(wave)] for wave in waveforms]
    means = clips.assign(given=sums).groupby(["speaker", "label"])["given"].mean().unstack()
    difference, bored = means["bored"] - means["keen"], clips["label"] == "bored"
    here = found.sel(neuron=5)
    assert here["difference"].item() == pytest.approx(difference.mean(), rel=1e-4)
    assert here["auroc"].item() == pytest.approx(roc_auc_score(bored, sums))
    assert here["p"].item() == pytest.approx(statistics.sign_flip_test(difference))


def test_activation_contrast_equals_compare(tiny, clips):
    """The contrast is identical to `compare` on the mean activations of the same layers."""
    model = tiny()
    found = class_contrast.activation_contrast(model, clips, target="bored", layers=[1, 3])
    want = compare(activations(model, clips, [1, 3]), "label", "bored")
    xr.testing.assert_identical(found, want.assign_attrs(method="activation_contrast"))
    assert (found.attrs["part"], found.attrs["cell"]) == ("hidden_state", "statement")
    assert found["layer"].values.tolist() == [1, 3]
    np.testing.assert_array_equal(found["absolute"], np.abs(found["signed"]))


def test_activation_contrast_refuses_labels_before_pass(tiny, clips):
    """A label of no clip or of all clips, and a missing label column, are refused before any clip is read."""
    missing = clips.assign(path="nowhere.wav")
    with pytest.raises(ValueError, match="no clip has label 'angry': there are bored, keen"):
        class_contrast.activation_contrast(tiny(), missing, target="angry")
    with pytest.raises(ValueError, match="all clips to compare have label 'keen'"):
        class_contrast.activation_contrast(tiny(), missing[missing["label"] == "keen"], target="keen")
    with pytest.raises(ValueError, match="no column 'label'"):
        class_contrast.activation_contrast(tiny(), missing.drop(columns="label"), target="keen")
