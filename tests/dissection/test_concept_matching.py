"""Closed concepts: DB, TAB and ICL, their controls, accuracy where the right name is known, and planted neurons."""

from __future__ import annotations

import inspect
import json
import warnings

import numpy as np
import pandas as pd
import pytest
import tiny_text
import xarray as xr
from recordings import recordings
from scipy import stats

from xai_lib import corpora, dissection, statistics
from xai_lib.dissection import concept_matching, descriptions, similarity_measures, units
from xai_lib.dissection.descriptions import encoders

pytestmark = pytest.mark.heavy

WORDS = ["loud", "quiet", "bright", "dark"]
CONCEPTS = pd.Series({word: f"a {word} voice" for word in WORDS})
N = 240


@pytest.fixture
def data():
    """240 clips of 12 speakers with a word each; neuron i of layer 1 follows word i, those of layer 2 nothing."""
    rng = np.random.default_rng(1)
    said = rng.integers(0, 4, N)
    values = rng.standard_normal((N, 2, 4))
    values[:, 0] += 3 * (said[:, None] == np.arange(4))
    coords = {
        "clip": np.arange(N) + 1000,
        "speaker": ("clip", np.repeat([f"s{i}" for i in range(12)], 20).astype(object)),
        "layer": [1, 2],
        "neuron": np.arange(4),
    }
    activations = xr.DataArray(values, coords, ("clip", "layer", "neuron"))
    captions = pd.Series([f"a {WORDS[i]} voice" for i in said], coords["clip"])
    return activations, captions


class Space:
    """A joint encoder made for these tests: a sound is the word that its path says."""

    def text(self, texts):
        return np.array([[float(word in text) for word in WORDS] for text in texts])

    def sound(self, clips):
        return clips.index, self.text(clips["path"])


class Model:
    """A language model that answers what it was told for each description."""

    def __init__(self, answers):
        self.answers, self.asked = answers, []

    def ask(self, system, user):
        found = next(key for key in self.answers if key in user)
        self.asked.append(found)
        return self.answers[found]


@pytest.mark.parametrize("similarity", list(similarity_measures.FUNCTIONS))
def test_identify_agrees_across_inputs(data, similarity):
    """Captions, sounds and a ready fit name the planted neurons alike, by every similarity."""
    activations, captions = data
    options = {"similarity": similarity, "draws": 19}
    by_text = dissection.identify(activations, captions=captions, concepts=CONCEPTS, **options)
    fit = dissection.concept_fit(CONCEPTS, captions=captions)
    xr.testing.assert_identical(by_text, dissection.identify(activations, fit, **options))
    clips = pd.DataFrame({"path": captions})
    by_sound = dissection.identify(
        activations, method="TAB", clips=clips, concepts=CONCEPTS, encoder=Space(), **options
    )
    for named in (by_text, by_sound):
        assert named["name"].sel(layer=1).values.tolist() == WORDS
        assert (named["best"] == named["score"].max("concept")).all()
        if similarity == "rank_reorder":  # which reads an order, and these captions have none
            continue
        assert (named["p"].sel(layer=1) == 0.05).all() and float(named["p"].sel(layer=2).mean()) > 0.2
        assert (named["chance"].sel(layer=1) < named["best"].sel(layer=1)).all()
        assert named["top"].sizes["rank"] == 4 and (named["top"].isel(rank=0) == named["name"]).all()
        order = np.take_along_axis(named["score"].values, np.argsort(-named["score"].values, -1), -1)
        told = [
            [named["score"][i, j].sel(concept=c) for c in named["top"].values[i, j]] for i in range(2) for j in range(4)
        ]
        np.testing.assert_array_equal(np.array(told).reshape(order.shape), order)
    assert by_sound.attrs["method"] == "TAB" and by_text.attrs["similarity"] == similarity


def test_concept_fit_applies_published_softmax(data):
    """With an encoder of texts, the fit is the softmax over concepts of 100 times their cosine."""
    _, captions = data

    def encoder(texts):  # as of CLIP: all alike but for little
        return np.array([[0.9, *(0.3 * (word in text) for word in WORDS)] for text in texts])

    fit = dissection.concept_fit(CONCEPTS, captions=captions, encoder=encoder)
    np.testing.assert_allclose(fit.sum("concept"), 1)
    assert (fit.idxmax("concept").values == captions.str.split().str[1].values).all() and float(
        fit.max("concept").min()
    ) > 0.99
    odds = np.log(fit.max("concept") / fit.min("concept"))
    np.testing.assert_allclose(odds, 100 * 0.09, rtol=1e-6)


def test_identify_reports_share_of_draws(data):
    """The share of draws in which each concept is best, or within five, is returned; it is NaN without draws."""
    activations, captions = data[0].drop_vars("speaker"), data[1]
    named = dissection.identify(activations, captions=captions, concepts=CONCEPTS, draws=200)
    shuffled = named["shuffled"]
    np.testing.assert_allclose(shuffled.sel(within=1).sum("concept"), 1, rtol=1e-5)
    np.testing.assert_allclose(shuffled.sel(within=5), 1)  # all four are within five
    assert float(np.abs(shuffled.sel(within=1) - 0.25).max()) < 0.15
    none = dissection.identify(activations, captions=captions, concepts=CONCEPTS, draws=0)
    assert none["p"].isnull().all() and none["shuffled"].isnull().all() and none["chance"].isnull().all()
    xr.testing.assert_equal(none["name"], named["name"])


def test_identify_permutes_within_speakers():
    """Where all captions of a speaker are alike, p is NaN; without speakers, a warning is given and p is small."""
    activations = xr.DataArray(
        np.repeat([[3.0, 1], [1, 2], [-3, 4]] * 3, 10, axis=0) + np.random.default_rng(0).standard_normal((90, 2)),
        {"clip": np.arange(90), "speaker": ("clip", np.repeat(list("abcdefghi"), 10).astype(object))},
        ("clip", "neuron"),
    )
    captions = pd.Series(np.repeat(["a loud voice", "a dark voice", "a quiet voice"] * 3, 10))
    told = {"captions": captions, "concepts": CONCEPTS, "draws": 50}
    named = dissection.identify(activations, **told)
    assert named["p"].isnull().all() and (named["chance"] > named["best"] - 1e-6).all()
    with pytest.warns(UserWarning, match="speakers are not known"):
        assert (dissection.identify(activations.drop_vars("speaker"), **told)["p"] < 0.1).any()


def test_identify_permutes_whole_sources(outputs):
    """Sources of one label are permuted as wholes, and clips within sources where these have several labels."""
    logits, fit = outputs
    labels = np.repeat([f"class_{i}" for i in range(12)], 30)
    sources = ("clip", np.arange(360) // 3)
    nested = logits.assign_coords(speaker=sources, label=("clip", labels))
    named = dissection.identify(nested, fit, draws=99)
    assert (named["p"] == 0.01).all() and abs(dissection.accuracy(named).loc["top1", "shuffled"] - 1 / 20) < 0.03
    for rows in units.restricted_permutations(nested, 5, 0):
        assert sorted(rows) == list(range(360)) and (rows.reshape(-1, 3) // 3 == rows[::3, None] // 3).all()
        assert (rows != np.arange(360)).mean() > 0.9
    # with clips of two labels each, it is within them
    mixed = logits.assign_coords(speaker=("clip", np.arange(360) % 30), label=("clip", labels))
    for rows in units.restricted_permutations(mixed, 5, 0):
        assert (rows % 30 == np.arange(360) % 30).all() and (rows != np.arange(360)).mean() > 0.8


def test_identify_keeps_unit_index(data):
    """Stacked units keep their index, and have the same p as by layer and neuron."""
    activations, captions = data
    units = activations.stack(unit=["layer", "neuron"])
    for similarity in ("cosine", "soft_wpmi"):
        options = {"captions": captions, "concepts": CONCEPTS, "similarity": similarity, "draws": 9}
        named = dissection.identify(units, **options)
        assert named["name"].sel(layer=1, neuron=2).item() == "bright"
        whole = dissection.identify(activations, **options)
        np.testing.assert_allclose(named["p"].unstack("unit").transpose("layer", "neuron"), whole["p"])


def test_identify_reads_from_file(data, tmp_path):
    """Neurons in a file get the names that they get in memory, and the file is not loaded as a whole."""
    activations, captions = data
    activations.astype(np.float32).rename("activation").to_netcdf(tmp_path / "a.nc", engine="h5netcdf")
    with xr.open_dataset(tmp_path / "a.nc", engine="h5netcdf") as opened:
        options = {"captions": captions, "concepts": CONCEPTS, "similarity": "soft_wpmi", "draws": 9}
        named = dissection.identify(opened["activation"], **options)
        assert not opened["activation"].variable._in_memory
    assert named["name"].equals(dissection.identify(activations, **options)["name"])


def test_identify_skips_uncaptioned_clips(data):
    """Clips without a caption are left out, by `describe` too, and clips of which none has a caption are refused."""
    activations, captions = data
    lost = captions.copy()
    lost.iloc[::3] = np.nan
    options = {"concepts": CONCEPTS, "draws": 9}
    named = dissection.identify(activations, captions=lost, **options)
    known = captions[lost.notna()]
    xr.testing.assert_identical(
        named, dissection.identify(activations.sel(clip=known.index), captions=known, **options)
    )
    with pytest.raises(ValueError, match="fewer than two clips"):
        dissection.identify(activations, captions=captions.rename(index=lambda i: i + 9999), **options)
    described, held = (dissection.describe(x, lost, draws=2) for x in (activations, activations.sel(clip=known.index)))
    xr.testing.assert_identical(described, held)


def test_identify_tab_uses_measured_features():
    """TAB without an encoder hears measured features, and names a neuron that follows the level `loud`."""
    clips = corpora.balanced(corpora.load("sample"), 48, seed=0)
    level = corpora.features_table(clips)["level_db"].rank().to_numpy()
    activations = xr.DataArray(level[:, None], {"clip": clips.index}, ("clip", "neuron"))
    concepts = pd.Series({word: f"a {word} voice" for word in ("loud", "quiet", "fast", "slow")})
    options = {"method": "TAB", "clips": clips, "concepts": concepts, "draws": 99}
    named = dissection.identify(activations, **options)
    assert named["name"].item() == "loud" and named["p"].item() == pytest.approx(0.01)
    xr.testing.assert_identical(
        named, dissection.identify(activations, **options, encoder=encoders.AcousticSpace(clips))
    )


def test_identify_icl_accepts_listed_names_only(data):
    """ICL scores listed names by rank, leaves all other answers unnamed, and queries each description once."""
    activations, _ = data
    summaries = np.array([[f"sentence {i}{j}" for j in range(4)] for i in range(2)], object)
    summaries[1, 3], summaries[0, 1] = np.nan, "sentence 00"  # nothing to read; the same again
    answers = {
        "sentence 00": "loud\ndark\nquiet\nbright",
        "sentence 02": "noisy\nloud\ndark\nbright",  # the first is off the list
        "sentence 03": "It is loud, I would say.",  # not a list
        "sentence 10": "Dark.\nloud\nquiet\nbright",
        "sentence 11": "loud\nloud\nquiet\nbright",  # one comes again
        "sentence 12": "<script>alert(1)</script>\nloud\nquiet\nbright",
    }
    llm = Model(answers)
    named = dissection.identify(
        activations,
        method="ICL",
        summaries=xr.DataArray(summaries, dims=("layer", "neuron")),
        concepts=CONCEPTS,
        llm=llm,
    )
    assert named["name"].values.tolist() == [["loud", "loud", "", ""], ["dark", "loud", "", ""]]
    assert named["top"].values[0, 0].tolist() == ["loud", "dark", "quiet", "bright"]
    assert named["top"].values[0, 2].tolist() == ["", "loud", "dark", "bright"]
    assert sorted(llm.asked) == sorted(answers)  # each description once
    np.testing.assert_allclose(
        named["score"][0, 0].sel(concept=["loud", "dark", "quiet", "bright"]), [1, 1 / 2, 1 / 3, 1 / 4]
    )
    assert (named["score"][0, 3] == 0).all() and np.isnan(named["p"][0, 3]) and np.isnan(named["best"][0, 3])
    np.testing.assert_allclose(named["p"].values[:, :2], [[3 / 8, 3 / 8], [1 / 8, 3 / 8]])  # three of eight are "loud"
    np.testing.assert_allclose(named["shuffled"].sel(within=1, layer=2, neuron=0), [3 / 8, 0, 0, 1 / 8])
    assert not named["score"].isnull().any()


@pytest.mark.parametrize(
    ("answer", "top"),
    [("dog\nbark", ["dog", "bark"]), ("bark\ndog", ["bark", "dog"]), ("cat\ndog", ["", "dog"]), ("a dog", ["", ""])],
)
def test_identify_icl_works_with_transformers(data, tmp_path, answer, top):
    """A real `LLM`, whose answer is set in its weights, names all neurons of one description with one request."""
    activations, _ = data
    llm = descriptions.LLM(
        tiny_text.chat(tmp_path / "model", answer), max_tokens=16, device="cpu", cache=tmp_path / "answers"
    )
    summaries = xr.DataArray(np.full((2, 4), "loud (+3.1), fast (+2.2)", object), dims=("layer", "neuron"))
    concepts = pd.Series({"dog": "a loud animal", "bark": "what it says"})
    named = dissection.identify(activations, method="ICL", summaries=summaries, concepts=concepts, llm=llm)
    assert (named["top"].values == top).all() and (named["name"].values == top[0]).all()
    assert (named["p"].notnull() == bool(top[0])).all()
    asked = [json.loads(path.read_text())["asked"]["user"] for path in (tmp_path / "answers").iterdir()]
    assert len(asked) == 1 and '"loud (+3.1), fast (+2.2)"' in asked[0] and "dog\nbark" in asked[0]


def test_identify_names_missing_arguments(data):
    """Each method of `identify`, and `concept_fit`, refuses to run without its inputs and names them."""
    activations, captions = data
    summaries = ["loud"] * 8
    for match, options in {
        "needs a language model": {"method": "ICL", "summaries": summaries, "concepts": CONCEPTS},
        "ICL needs summaries": {"method": "ICL", "concepts": CONCEPTS, "llm": Model({})},
        "3 descriptions for 8": {"method": "ICL", "summaries": summaries[:3], "concepts": CONCEPTS, "llm": Model({})},
        "DB needs concepts= and captions=": {"concepts": CONCEPTS},
        "TAB needs concepts= and clips=": {"method": "TAB", "captions": captions, "concepts": CONCEPTS},
        "known are DB, TAB, ICL": {"method": "OCP", "captions": captions, "concepts": CONCEPTS},
    }.items():
        with pytest.raises(ValueError, match=match):
            dissection.identify(activations, **options)
    with pytest.raises(ValueError, match="one of the two"):
        dissection.concept_fit(CONCEPTS)
    with pytest.raises(ValueError, match="no column path.*AcousticSpace"):
        dissection.concept_fit(CONCEPTS, clips=pd.DataFrame({"level_db": [0.0, 1.0]}))


@pytest.mark.parametrize(
    ("method", "unused"),
    [
        ("DB", {"clips": pd.DataFrame()}),
        ("DB", {"summaries": ["loud"] * 8, "llm": Model({})}),
        ("TAB", {"captions": pd.Series(["loud"])}),
        ("ICL", {"encoder": Space().text}),
        ("ICL", {"similarity": "wpmi", "top": 5, "draws": 9, "seed": 1}),
    ],
)
def test_identify_refuses_unused_options(data, method, unused):
    """Options that the method does not use are refused, each by name."""
    names = ", ".join(f"{name}=" for name in unused)
    with pytest.raises(ValueError, match=f"^{method} needs .*; it does not use {names}$"):
        dissection.identify(data[0], method=method, concepts=CONCEPTS, **unused)


def test_identify_default_scoring_is_that_of_signature():
    """The options that ICL refuses, where they differ from the defaults, have the defaults of the signature."""
    for function in (dissection.identify, concept_matching.match_by_captions, concept_matching.match_by_sound):
        parameters = inspect.signature(function).parameters
        defaults = {name: parameters[name].default for name in concept_matching.DEFAULT_SCORING}
        assert defaults == concept_matching.DEFAULT_SCORING


def test_identify_icl_leaves_missing_summaries_unnamed(data):
    """A summary that is missing in a list is no description "nan": it is not queried, and its neuron has no name."""
    llm = Model({"loud one": "loud\ndark\nquiet\nbright", "nan": "dark\nloud\nquiet\nbright"})
    summaries = ["loud one", np.nan] * 4
    named = dissection.identify(data[0], method="ICL", summaries=summaries, concepts=CONCEPTS, llm=llm)
    assert named["name"].values.ravel().tolist() == ["loud", ""] * 4 and llm.asked == ["loud one"]


@pytest.fixture
def outputs():
    """Logits of 12 classes, of which ten follow their class and two each other's; 20 concepts."""
    rng, names = np.random.default_rng(2), [f"class_{i}" for i in range(12)]
    truth = np.repeat(np.arange(12), 30)
    logits = rng.standard_normal((360, 12)) * 0.5 + 4 * (truth[:, None] == np.array([*range(10), 11, 10]))
    every = [*names, *(f"other_{i}" for i in range(8))]
    fit = np.concatenate([(truth[:, None] == np.arange(12)).astype(float), rng.random((360, 8))], axis=1)
    coords = {"clip": np.arange(360)}
    return (
        xr.DataArray(logits, {**coords, "target": names}, ("clip", "target")),
        xr.DataArray(fit, {**coords, "concept": every}, ("clip", "concept")),
    )


def test_accuracy_reports_wilson_interval(outputs):
    """Ten of twelve classes are named correctly, with Wilson's interval, guessing and shuffled accuracy."""
    named = dissection.identify(*outputs, draws=300)
    table = dissection.accuracy(named)
    interval = stats.binomtest(10, 12).proportion_ci(method="wilson")
    np.testing.assert_allclose(table.loc["top1", ["value", "low", "high", "guessing"]], [10 / 12, *interval, 1 / 20])
    in_five = [name in top for name, top in zip(named["target"].values, named["top"].values)]
    assert table.loc["top5", "value"] == np.mean(in_five) and table.loc["top5", "guessing"] == 1 / 4
    assert abs(table.loc["top1", "shuffled"] - 1 / 20) < 0.02 and abs(table.loc["top5", "shuffled"] - 1 / 4) < 0.06
    # TF-IDF of "class 3": every name shares the word "class" or "other", and no number of one digit is a word
    assert (table["n"] == 12).all() and table.loc["cosine", "low"] <= table.loc["cosine", "value"] <= 1


def test_identify_soft_wpmi_null_is_at_chance(outputs):
    """By soft WPMI, accuracy with shuffled scores is at chance, and ten classes or more have p of at most 0.01."""
    named = dissection.identify(*outputs, similarity="soft_wpmi", draws=200)
    assert abs(dissection.accuracy(named).loc["top1", "shuffled"] - 1 / 20) < 0.03
    assert (named["p"] <= 0.01).sum() >= 10  # which a bound of log(12) would not allow


@pytest.mark.parametrize("similarity", ["wpmi", "soft_wpmi"])
def test_identify_wpmi_p_ignores_other_neurons(similarity):
    """By mutual information, p does not depend on how many of the other neurons are copies of a neuron."""
    rng = np.random.default_rng(0)
    truth = np.arange(200) % 10
    fit = 0.15 * rng.standard_normal((200, 10)) + 0.6 * (truth[:, None] == np.arange(10))
    fit = xr.DataArray(fit, {"clip": np.arange(200), "concept": list("abcdefghij")}, ("clip", "concept"))
    noise, shared = rng.standard_normal((200, 100)), 0.5 * rng.standard_normal((200, 1))
    for copies in (1, 20, 90):
        values = noise.copy()
        values[:, :copies] = 3.0 * (truth == 0)[:, None] + shared + 0.2 * noise[:, :copies]
        activations = xr.DataArray(values, {"clip": np.arange(200)}, ("clip", "neuron"))
        named = dissection.identify(activations, fit, similarity=similarity, draws=99)
        assert (named["p"][:copies] == 0.01).all() and (named["name"][:copies] == "a").all()
        if copies < 90:
            assert float((named["p"][copies:] < 0.05).mean()) < 0.12
    alone = dissection.identify(activations.isel(neuron=slice(80, None)), fit, similarity=similarity, draws=99)
    np.testing.assert_allclose(alone["p"], named["p"][80:])  # whoever else is there


@pytest.mark.parametrize("similarity", ["cosine", "soft_wpmi"])
def test_identify_p_is_calibrated_for_recordings(similarity):
    """Neurons and captions that share only recordings, of unequal size, have p of at most 0.05 in 1 to 8 %."""
    share = []
    for seed in range(4):
        draw, coords = recordings(seed, 0.9)
        fit = xr.DataArray(draw(10), {"clip": coords["clip"], "concept": list("abcdefghij")}, ("clip", "concept"))
        activations = xr.DataArray(draw(200), coords, ("clip", "neuron"))
        named = dissection.identify(activations, fit, similarity=similarity, draws=99)
        share.append(float((named["p"] <= 0.05).mean()))
    assert 0.01 < np.mean(share) < 0.08, share


def test_accuracy_reports_cosine(outputs):
    """The row `cosine` is the mean cosine of given and true names, with interval, guessing and shuffled values."""
    named = dissection.identify(*outputs, draws=50)

    def encoder(texts):  # 60 degrees between any class and the next
        return np.array([[np.cos(np.pi / 3 * i), np.sin(np.pi / 3 * i)] for i in range(len(texts))])

    found = dissection.accuracy(named, encoder=encoder).loc["cosine"]
    each = np.r_[np.ones(10), 0.5, 0.5]
    np.testing.assert_allclose(found[["value", "low", "high"]].astype(float), statistics.interval(each))
    every = np.cos(np.pi / 3 * (np.arange(20)[:, None] - np.arange(12)))
    assert found["guessing"] == pytest.approx(every.mean())
    dealt = named["shuffled"].sel(within=1).values
    assert found["shuffled"] == pytest.approx((dealt * every.T).sum(1).mean())
    heard = []
    dissection.accuracy(
        named,
        concepts=pd.Series({n: f"a sound of {n}" for n in named["concept"].values}),
        encoder=lambda texts: heard.extend(texts) or encoder(texts),
    )
    assert heard[0] == "a sound of class 0" and len(heard) == 20


def test_accuracy_counts_no_name_as_wrong(data):
    """A neuron without a name counts as wrong, with cosine 0, and invalid true names are refused."""
    activations, _ = data
    llm = Model({"x": "noisy\nloud\ndark\nbright"})
    named = dissection.identify(activations, method="ICL", summaries=["x"] * 8, concepts=CONCEPTS, llm=llm)
    table = dissection.accuracy(named, truth=["loud"] * 8)
    assert table.loc["top1", "value"] == 0 and table.loc["cosine", "value"] == 0 and table.loc["top5", "value"] == 1
    with pytest.raises(ValueError, match="unknown concepts: shrill"):
        dissection.accuracy(named, truth=["loud"] * 7 + ["shrill"])
    with pytest.raises(ValueError, match="for each neuron"):
        dissection.accuracy(named, truth=["loud"] * 7)


def test_choose_sorts_by_accuracy(outputs, monkeypatch):
    """Similarity functions are sorted by accuracy and, where it is equal, in the order of `among`."""
    table = dissection.choose(*outputs)
    assert sorted(table.index) == sorted(similarity_measures.FUNCTIONS)
    assert list(table["top1"]) == sorted(table["top1"], reverse=True)
    for name, row in table.iterrows():
        own = dissection.accuracy(dissection.identify(*outputs, similarity=name, draws=0))["value"]
        assert row["top1"] == own["top1"] and row["top5"] == own["top5"]
    best = table[table["top1"] == table["top1"].max()].index
    assert len(best) > 1  # a tie: the order told decides
    assert list(dissection.choose(*outputs, among=best[::-1]).index) == list(best[::-1])
    logits, fit = outputs
    wrong = dissection.choose(logits, fit, truth=logits["target"].values[::-1])
    assert wrong["top1"].max() <= 2 / 12


@pytest.fixture(scope="module")
def measured():
    """192 clips of the sample corpus, what was measured of them, and their captions."""
    clips = corpora.balanced(corpora.load("sample"), 192, seed=0)
    table = corpora.features_table(clips)
    return clips, table, descriptions.captions(table, table)


def _planted(values, rng):
    """A neuron that rises with what was measured: noise of half its spread, and a bend drawn at random."""
    x = np.nan_to_num((values - np.nanmean(values)) / np.nanstd(values))
    x = np.exp(0.5 * rng.standard_normal()) * (x + 0.5 * rng.standard_normal(len(x)))
    bends = (lambda x: x, np.tanh, np.exp, lambda x: np.logaddexp(0, 3 * x))
    return bends[rng.integers(4)](x)


@pytest.mark.parametrize(
    "similarity",
    [
        pytest.param(name, marks=[] if name == "soft_wpmi" else pytest.mark.full)  # the others take as long each
        for name in similarity_measures.FUNCTIONS
    ],
)
def test_identify_names_planted_neurons(measured, similarity):
    """Planted neurons are named in 95 of 100 draws (rank reorder: by emotion only), with shuffled labels by chance."""
    clips, table, captions = measured
    words = [word for row in descriptions.lexicon().itertuples() for word in (row.low, row.high)]
    acoustic = dissection.concept_fit(pd.Series({word: f"a {word} voice" for word in words}), captions=captions)
    names = pd.Series({name: f"{name} voice" for name in corpora.EMOTIONS})
    emotional = dissection.concept_fit(names, captions="a " + clips["label"] + " voice")
    right, chance = np.zeros(3), np.zeros(3)
    for draw in range(100):
        rng = np.random.default_rng(draw)
        label = corpora.EMOTIONS[draw % 8]
        wired = (table["level_db"], table["f0"], (clips["label"] == label).astype(float))
        planted = [_planted(x.to_numpy(), rng) for x in wired]
        values = np.column_stack([*planted, rng.standard_normal((len(clips), 40))])
        activations = xr.DataArray(values, {"clip": clips.index}, ("clip", "neuron"))
        dealt = rng.permutation(len(clips))
        for counts, rows in ((right, slice(None)), (chance, dealt)):
            found = [
                dissection.identify(activations, fit.copy(data=fit.values[rows]), similarity=similarity, draws=0)[
                    "name"
                ]
                for fit in (acoustic, emotional)
            ]
            counts += [found[0][0] == "loud", found[0][1] == "high-pitched", found[1][2] == label]
    assert right[2] >= 95 and (similarity == "rank_reorder" or (right >= 95).all()), right
    by_chance = 100 * np.array([1 / len(words), 1 / len(words), 1 / 8])
    assert (chance <= stats.binom.isf(0.001, 100, by_chance / 100)).all(), chance


@pytest.mark.parametrize("similarity", ["cosine", "soft_wpmi"])
def test_identify_p_separates_planted_from_noise(measured, similarity):
    """Neurons that follow level and centroid get their names and the least p; p of noise is not too small."""
    clips, table, captions = measured
    rng = np.random.default_rng(0)
    planted = [_planted(table[name].to_numpy(), rng) for name in ("level_db", "centroid")]
    values = np.column_stack([*planted, rng.standard_normal((len(clips), 200))])
    coords = {"clip": clips.index, "speaker": ("clip", clips["speaker"].to_numpy())}
    activations = xr.DataArray(values, coords, ("clip", "neuron"))
    concepts = pd.Series({word: f"a {word} voice" for word in descriptions.lexicon()[["low", "high"]].values.ravel()})
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        named = dissection.identify(activations, captions=captions, concepts=concepts, similarity=similarity, draws=199)
    assert (named["p"][:2] == 0.005).all() and named["name"].values[:2].tolist() == ["loud", "bright"]
    low = 0.01 if similarity == "cosine" else 0  # its best concept is not the one that correlates most: few pass
    assert low <= float((named["p"][2:] < 0.05).mean()) <= 0.1
