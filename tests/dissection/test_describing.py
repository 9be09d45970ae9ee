"""Dissection against planted neurons and direct transcriptions of the formulas."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from scipy import stats
from voiced_neurons import emotional

from xai_lib import audio, dissection, hooks, plots, statistics, widgets
from xai_lib.corpora.filenames import EMOTIONS
from xai_lib.dissection import similarity_measures
from xai_lib.models.sites import Site

SPEAKERS, NEURONS = 10, 40


@pytest.fixture
def activations():
    return emotional(SPEAKERS, NEURONS)


def _captions(data, when, then, other="dull"):
    """`then` for clips of the label, `other` for the rest."""
    return pd.Series([then if label == when else other for label in data["label"].values], index=data["clip"].values)


def test_selectivity_finds_planted_neuron_only(activations):
    """The planted neuron is selective for anger, the one that follows voices is not, and at most two others are."""
    found = dissection.selectivity(activations)
    told = found["q"] < 0.05
    assert bool(told.sel(layer=1, neuron=3, concept="angry"))
    told[{"layer": 0, "neuron": 3}] = False
    assert int(told.sum()) <= 2  # a false discovery or two; neuron 5, which only knows voices, among 639
    assert not told.sel(layer=1, neuron=5).any()
    assert list(found["concept"].values) == list(EMOTIONS) and (found["n"] == SPEAKERS).all()


def test_selectivity_p_is_greater_of_two(activations):
    """The p is the greater of that of van Elteren's test over clips and that of a t test over speakers."""
    own = activations["label"].values[:16] == "calm"
    voices = activations.values.reshape(SPEAKERS, 16, 2, NEURONS)
    each = np.array([stats.mannwhitneyu(x[own], x[~own]).statistic / (2 * 14) for x in voices])
    z = (each - 0.5).sum(0) / np.sqrt(SPEAKERS * (2 + 14 + 1) / (12 * 2 * 14))
    over_clips, over_speakers = 2 * stats.norm.sf(np.abs(z)), stats.ttest_1samp(each, 0.5).pvalue
    found = dissection.selectivity(activations)["p"].sel(concept="calm")
    np.testing.assert_allclose(found, np.maximum(over_clips, over_speakers), rtol=1e-6)
    assert (over_clips < over_speakers).any() and (over_clips > over_speakers).any()


def test_selectivity_ignores_monotone_change_and_speaker_shift(activations):
    """The p stays the same where activations are bent monotonically and those of each speaker are shifted."""
    shift = xr.DataArray(np.random.default_rng(0).uniform(-50, 50, SPEAKERS).repeat(16), dims="clip")
    plain = dissection.selectivity(activations)["p"]
    for monotone in (3 * activations, np.cbrt(activations), np.exp(activations)):
        xr.testing.assert_allclose(dissection.selectivity(monotone + shift)["p"], plain)


def test_selectivity_p_is_calibrated_for_noise(activations):
    """For pure noise, p is below 0.05 in under 8 % of neurons and labels."""
    p = dissection.selectivity(activations)["p"].sel(layer=2)
    assert (p < 0.05).mean() < 0.08


def test_describe_finds_planted_words(activations):
    """The planted neuron is described as loud and not quiet, with z above that of shuffled captions."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    described = dissection.describe(activations, captions, k=20, draws=5)
    z = described["z"].sel(layer=1, neuron=3)
    assert z.sel(word="loud") > 3 and z.sel(word="quiet") < -3
    assert np.abs(described["chance"].sel(neuron=3, layer=1)).max() < float(z.sel(word="loud"))
    assert np.abs(described["z"].sel(layer=2)).mean() < 1


@pytest.mark.parametrize("k", [0, -1])
def test_describe_refuses_no_exemplars(activations, k):
    """No exemplars at each end are refused, and not taken for the default."""
    with pytest.raises(ValueError, match=f"k must be a whole number from 1 up, not {k}"):
        dissection.describe(activations, _captions(activations, "angry", "loud", "quiet"), k=k)


def test_predictivity_holds_for_planted_neuron_only(activations):
    """The planted neuron's rho, the mean of Spearman's over speakers, is significant, and that of noise is not."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    train = activations.isel(clip=slice(0, 32))
    test = activations.isel(clip=slice(32, None))  # eight speakers, the fewest for a test
    described = dissection.describe(train, captions, k=6, draws=5)
    held = dissection.predictivity(test, described, captions, min_z=0, draws=99)
    assert float(held["rho"].sel(layer=1, neuron=3)) > 0.5
    assert float(held["p"].sel(layer=1, neuron=3)) < 1e-4  # 99 draws alone stop at 0.01
    assert float((held["p"].sel(layer=2) < 0.05).mean()) < 0.2
    one, rhos = test.sel(layer=1, neuron=3), []
    for name in np.unique(one["speaker"]):
        rows = one["speaker"].values == name
        rhos.append(stats.spearmanr(one.values[rows], one["label"].values[rows] == "angry").statistic)
    assert float(held["rho"].sel(layer=1, neuron=3)) == pytest.approx(np.mean(rhos))


def test_predictivity_refuses_descriptions_of_other_neurons(activations):
    """Descriptions are paired with neurons by layer and neuron: in another order, or of others, they are refused."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    described = dissection.describe(activations, captions, k=6, draws=2)
    for other in (activations.isel(neuron=slice(None, None, -1)), activations.isel(layer=[0])):
        with pytest.raises(ValueError, match="cannot align"):
            dissection.predictivity(other, described, captions, draws=9)


def test_predictivity_extrapolates_p_beyond_draws():
    """One true description among 4,000 is significant with 100 draws, and p of the others is calibrated."""
    rng, voices = np.random.default_rng(1), np.repeat([f"s{i}" for i in range(10)], 12)
    coords = {"clip": np.arange(120), "speaker": ("clip", voices.astype(object)), "layer": [1]}
    loud = np.tile([True, False], 60)
    values = rng.standard_normal((120, 1, 4000))
    values[:, 0, 0] += 3 * loud
    data = xr.DataArray(values, coords, ("clip", "layer", "neuron"))
    said = _said(["loud", "quiet"], np.tile([1, -1], (4000, 1)))
    held = dissection.predictivity(data, said, pd.Series(np.where(loud, "a loud voice", "a quiet voice")), draws=100)
    q, p = held["q"].values[0], held["p"].values[0]
    assert q[0] < 0.01 and (q[1:] < 0.05).sum() <= 1
    for min_z in (0.05, 0.005):  # and where nothing is true, p is what it says
        assert (p[1:] < min_z).sum() <= stats.binom.isf(1e-3, 3999, min_z)
    # draws that tell nothing of their spread leave the floor
    one = dissection.predictivity(
        data[..., :1], said.isel(neuron=[0]), pd.Series(np.where(loud, "loud", "quiet")), draws=1
    )
    assert one["p"].item() == 0.5


def _said(words, signs):
    """Descriptions [layer, neuron, word] that say (+) or deny (−) their words, as of `describe`."""
    z = xr.DataArray(3.0 * np.asarray(signs, float)[None], {"word": words}, ("layer", "neuron", "word"))
    return xr.Dataset({"z": z, "chance": z.expand_dims(draw=1)})


def test_predictivity_permutes_within_speakers():
    """Noise of ten speakers of two clips and one of sixty gives no excess of p below 0.05."""
    rng = np.random.default_rng(0)
    voices, neurons = np.repeat(list("abcdefghijk"), [2] * 10 + [60]), 300
    coords = {"clip": np.arange(80), "speaker": ("clip", voices.astype(object)), "layer": [1]}
    data = xr.DataArray(rng.standard_normal((80, 1, neurons)), coords, ("clip", "layer", "neuron"))
    captions = pd.Series(np.tile(["a loud voice", "a quiet voice"], 40))
    signs = np.tile([[1, -1], [-1, 1]], (neurons // 2, 1))
    held = dissection.predictivity(data, _said(["loud", "quiet"], signs), captions, draws=199)
    assert float((held["p"] < 0.05).mean()) < 0.09


def test_predictivity_other_is_never_own(activations):
    """Of two neurons described oppositely, `other` is −`rho`: each gets the description of the other one."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    two = activations.sel(layer=[1]).isel(neuron=[3, 7])
    for seed in range(4):
        held = dissection.predictivity(two, _said(["loud", "quiet"], [[1, -1], [-1, 1]]), captions, draws=2, seed=seed)
        np.testing.assert_allclose(held["other"], -held["rho"])
        assert float(held["rho"][0, 0]) > 0.5


def test_predictivity_other_is_of_same_part_and_layer(activations):
    """Where descriptions are alike within a part of a layer and reverse in the others, `other` is `rho`."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    names = [(*own, neuron) for own in (("attention", 1), ("ffn_out", 1), ("ffn_out", 2)) for neuron in (0, 1)]
    index = pd.MultiIndex.from_tuples(names, names=["part", "layer", "neuron"])
    unit = xr.Coordinates.from_pandas_multiindex(index, "unit")
    alike = activations.sel(layer=1).isel(neuron=[3] * 6).drop_vars(["layer", "neuron"]).rename(neuron="unit")
    z = xr.DataArray(3.0 * np.array([[1, -1], [-1, 1], [1, -1]]).repeat(2, axis=0), dims=("unit", "word"))
    z = z.assign_coords(unit).assign_coords(word=["loud", "quiet"])
    for seed in range(4):
        told = xr.Dataset({"z": z, "chance": z.expand_dims(draw=1)})
        held = dissection.predictivity(alike.assign_coords(unit), told, captions, draws=2, seed=seed)
        np.testing.assert_allclose(held["other"], held["rho"])
        assert (np.sign(held["rho"]) == [1, 1, -1, -1, 1, 1]).all()


def test_describe_compares_extreme_clips():
    """Of twelve clips with a word each, the two strongest get z > 0, the two weakest z < 0, and the others 0."""
    names = [f"word{chr(97 + i)}" for i in range(12)]
    data = xr.DataArray(np.arange(12.0)[:, None], {"clip": np.arange(12)}, ("clip", "neuron"))
    z = dissection.describe(data, pd.Series(names), k=2, draws=1)["z"][0].to_series()
    assert (z[names[-2:]] > 0).all() and (z[names[:2]] < 0).all() and (z[names[2:-2]].abs() < 1e-9).all()


def test_dissection_q_is_fdr_over_all_neurons(activations, fit):
    """The q of `predictivity`, `identify` and `selectivity` is the false discovery rate over all of their p."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    described = dissection.describe(activations, captions, draws=1)
    for found in (
        dissection.predictivity(activations, described, captions, min_z=0, draws=99),
        dissection.identify(activations, fit, draws=99),
        dissection.selectivity(activations),
    ):
        np.testing.assert_allclose(found["q"], statistics.fdr(found["p"]))
        assert float((found["q"] > found["p"] + 0.05).mean()) > 0.5


def test_predictivity_ignores_voice_descriptions(activations):
    """A description that separates only speakers has no rho, as no speaker has clips of both kinds."""
    names = activations["speaker"].to_series()
    captions = pd.Series(np.where(names > "s4", "low-pitched", "high-pitched"), index=names.index)
    described = dissection.describe(activations, captions, draws=2)
    assert described["z"].sel(layer=1, neuron=5, word="low-pitched") > 2
    held = dissection.predictivity(activations, described, captions, draws=19)
    assert np.isnan(held["rho"].sel(layer=1, neuron=5))  # no speaker has clips of either kind


@pytest.fixture
def fit(activations):
    values = [[float(label == name) for name in EMOTIONS] for label in activations["label"].values]
    coords = {"clip": activations["clip"].values, "concept": list(EMOTIONS)}
    return xr.DataArray(np.array(values), coords, ("clip", "concept"))


@pytest.mark.parametrize("similarity", list(similarity_measures.FUNCTIONS))
def test_identify_names_planted_neuron(activations, fit, similarity):
    """By every similarity the planted neuron is named `angry`, and few neurons of noise are significant."""
    named = dissection.identify(activations, fit, similarity=similarity, draws=199)
    assert named["name"].sel(layer=1, neuron=3) == "angry"
    if similarity != "rank_reorder":  # which reads an order, and labels have none
        assert float(named["p"].sel(layer=1, neuron=3)) == pytest.approx(0.005)
    assert float((named["p"].sel(layer=2) < 0.05).mean()) < 0.2
    assert named["best"].equals(named["score"].max("concept"))
    assert named["score"].sizes == {"layer": 2, "neuron": NEURONS, "concept": 8}


def test_identify_ignores_voice_concepts(activations, fit):
    """A concept that varies only between speakers is the best of the neuron that follows voices, but with p NaN."""
    place = activations["speaker"].str.replace("s", "").astype(float).values / SPEAKERS
    voice = fit.copy(data=np.stack([place] + [0.001 * fit.values[:, i] for i in range(7)], axis=1))
    named = dissection.identify(activations, voice, draws=99)
    assert named["name"].sel(layer=1, neuron=5) == EMOTIONS[0] and float(named["best"].sel(layer=1, neuron=5)) > 0.9
    assert np.isnan(named["p"].sel(layer=1, neuron=5))  # its concept varies within no speaker: nobody tells


def test_identify_refuses_unknown_similarity(activations, fit):
    """An unknown similarity is refused with the names of those known, and by `selectivity` clips of one label are."""
    with pytest.raises(ValueError, match="cosine, cosine_cubed"):
        dissection.identify(activations, fit, similarity="dot")
    with pytest.raises(ValueError, match="two labels"):
        dissection.selectivity(activations.isel(clip=[0, 1]))


def test_exemplars_are_extreme_clips(activations):
    """Exemplars are the clips of highest and of lowest activation, the most extreme first, with their labels."""
    found = dissection.exemplars(activations, 1, 3, 4)
    values = activations.sel(layer=1, neuron=3).to_series().sort_values()
    assert list(found.index[found["end"] == "high"]) == list(values.index[::-1][:4])
    assert list(found.index[found["end"] == "low"]) == list(values.index[:4])
    assert list(found["label"]) == list(activations["label"].sel(clip=found.index).values)


@pytest.fixture
def clips(make_clips, tmp_path):
    """Eight clips of noise bursts, two speakers, two labels; the last file is broken."""

    def burst(place, rng):
        x = 0.001 * rng.standard_normal(12000)
        x[4000:8000] += 0.2 * rng.standard_normal(4000)
        return x

    about = {"label": ("angry", "calm") * 4, "speaker": lambda i: f"s{i // 4}"}
    found = make_clips(tmp_path, 8, signal=burst, seed=0, subtype="PCM_16", **about)
    (tmp_path / "7.wav").write_bytes(b"not a sound")
    return found


def test_activations_averages_frames(tiny, clips):
    """Activations equal the hooked means over speech frames, or over all, and an unreadable clip is skipped."""
    model = tiny()
    with pytest.warns(UserWarning, match="7.wav"):
        spoken = dissection.activations(model, clips, [(2, "ffn_hidden")])
    whole = dissection.activations(model, clips[:7], "hidden_state", frames="all")
    assert list(spoken["clip"].values) == list(range(7)) and "7" in spoken.attrs["skipped"]
    x = audio.read(clips["path"][3], model.sample_rate)
    mask = audio.speech_mask(x, model.sample_rate)
    assert 0 < mask.sum() < len(mask)
    with torch.no_grad(), hooks.capture(model, [Site(2, "ffn_hidden"), Site(3)]) as kept:
        logits = model.logits(model.tensor(x))
    hidden = kept[Site(2, "ffn_hidden")][0].cpu().numpy()
    np.testing.assert_allclose(spoken["activation"].sel(clip=3, layer=2), hidden[mask].mean(0), atol=1e-5)
    np.testing.assert_allclose(whole["activation"].sel(clip=3, layer=3), kept[Site(3)][0].cpu().mean(0), atol=1e-5)
    one = dissection.activations(model, clips[3:4], "hidden_state", frames="all")
    size = kept[Site(3)][0].abs().mean(0).cpu()
    np.testing.assert_allclose(one["magnitude"].sel(layer=3), size, atol=1e-5)
    assert (size > kept[Site(3)][0].mean(0).abs().cpu() + 1e-3).any()  # frames of either sign: the order matters
    np.testing.assert_allclose(spoken["logit"].sel(clip=3), logits[0].cpu(), atol=1e-5)
    with pytest.raises(ValueError, match="layer 9 out of range"):
        dissection.activations(model, clips, [9])


def test_snippets_surround_peak(tiny, clips):
    """Snippets surround the speech frame of highest, or lowest, activation, and each has a player."""
    model, clips = tiny(), clips[:6]
    found = dissection.activations(model, clips)["activation"]
    table = dissection.snippets(model, clips, dissection.exemplars(found, 2, 4, 2), 2, 4, half=0.1)
    assert len(table) == 4 and (table["peak"].between(0.24, 0.52)).all()  # where the burst is
    assert all(len(x) == pytest.approx(3200, abs=2) for x in table["waveform"])
    assert list(table["end"]) == ["high", "high", "low", "low"]
    for index, row in table.iterrows():
        x = audio.read(clips["path"][index], model.sample_rate)
        with torch.no_grad(), hooks.capture(model, [Site(2, "ffn_hidden")]) as kept:
            model.logits(model.tensor(x))
        values = kept[Site(2, "ffn_hidden")][0, :, 4].cpu().numpy()
        values[~audio.speech_mask(x, model.sample_rate)] = np.nan
        extreme = np.nanargmax(values) if row["end"] == "high" else np.nanargmin(values)
        assert row["peak"] == pytest.approx(audio.frame_times(len(values), model.sample_rate)[extreme])
    shown = widgets.players(table.assign(caption="<b>loud</b>"), 16000).data
    assert shown.count('controls="controls"') == len(table) and "&nbsp;" not in shown
    assert shown.count("<audio") == 4 and "&lt;b&gt;loud" in shown


def test_dissection_results_are_drawn(tiny, clips, activations, fit):
    """The card, the figures and the widget show the results, and the widget follows its controls."""
    captions = _captions(activations, "angry", "a loud voice", "a quiet voice")
    described = dissection.describe(activations, captions, draws=3)
    results = {
        "test": xr.Dataset({"activation": activations}),
        "described": described,
        "concept_match": dissection.identify(activations, fit, draws=9),
        "selectivity": dissection.selectivity(activations),
        "predictivity": dissection.predictivity(activations, described, captions, draws=9),
    }
    card = dissection.card(1, 3, **results)
    assert "loud" in card.sentence
    figure = plots.neuron_card(card, marks={"mine": 1.0})
    assert "loud" in figure.get_suptitle() and len(figure.axes) == 3
    figure = plots.selective_neurons(results["selectivity"])
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert max(heights) == pytest.approx(100 / NEURONS, abs=100 / NEURONS) and min(heights) >= -100
    assert plots.description_check(results["predictivity"]).axes

    model, clips = tiny(), clips[:6]
    train = dissection.activations(model, clips, model.sites("ffn_hidden", [1, 2]))
    panel = widgets.NeuronCard(
        model, clips, train=train, captions=pd.Series("dull", clips.index), layer=1, neuron=3, **results
    )
    assert panel.error is None and "<audio" in panel.shown[1].data
    panel.controls["neuron"].value = 5
    assert panel.error is None and "neuron 5" in panel.figure.get_suptitle()


def test_dissection_accepts_whole_datasets():
    """A Dataset of activations gives the same results as its DataArray; missing neurons and captions are named."""
    rng = np.random.default_rng(0)
    dims = {"clip": range(12), "layer": [1], "neuron": range(3)}
    speakers = {"speaker": ("clip", [*"aabbccddeeff"]), "label": ("clip", ["x", "y"] * 6)}
    values = xr.DataArray(rng.standard_normal((12, 1, 3)), dims, tuple(dims)).assign_coords(speakers)
    whole = values.to_dataset(name="activation")
    captions = pd.Series(["a loud voice", "a quiet voice"] * 6, range(12))
    xr.testing.assert_equal(dissection.describe(whole, captions)["z"], dissection.describe(values, captions)["z"])
    assert dissection.exemplars(whole, 1, 2).equals(dissection.exemplars(values, 1, 2))
    concepts = {"loud": "a loud voice", "quiet": "a quiet voice"}
    found = [dissection.identify(x, concepts=concepts, captions=captions, draws=2)["name"] for x in (whole, values)]
    xr.testing.assert_equal(*found)
    assert set(np.unique(found[0].values)) <= {"loud", "quiet"}
    words = dissection.concept_fit(["loud", "quiet"], captions=captions)
    assert words["concept"].values.tolist() == ["loud", "quiet"]
    with pytest.raises(ValueError, match="neuron 7 is not in these activations"):
        dissection.exemplars(values, 1, 7)
    with pytest.raises(ValueError, match="this result holds z"):
        dissection.describe(whole.rename(activation="z"), captions)
    with pytest.warns(UserWarning, match="8 of 12 clips have no caption"):
        dissection.describe(values, captions[:4])
    with pytest.raises(ValueError, match="none of the clips has a caption: captions and clips"):
        dissection.describe(values, captions.set_axis(range(50, 62)))
    with pytest.warns(UserWarning, match="speakers are not known"):
        dissection.describe(values.drop_vars("speaker"), captions)
