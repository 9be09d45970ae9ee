"""Adjectives of neurons and whether they are true, against planted neurons and counts by hand."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import voiced_neurons
import xarray as xr
from recordings import FOLD, recordings
from scipy import stats
from sklearn.metrics import roc_auc_score
from voiced_neurons import LEXICON, NEURONS, PER, SPEAKERS, said_of

from xai_lib import dissection, statistics
from xai_lib.dissection import descriptions, open_concepts
from xai_lib.dissection.descriptions import text_analysis
from xai_lib.dissection.units import neighbours


@pytest.fixture
def measured():
    return voiced_neurons.measured()


@pytest.fixture
def activations(measured):
    return voiced_neurons.following(measured)


@pytest.fixture
def described():
    return voiced_neurons.described()


@pytest.fixture
def captions(activations, measured):
    return voiced_neurons.captions(activations, measured)


def bag(texts):
    """A text encoder: counts of letters' code points mod 64, of unit norm."""
    out = np.zeros((len(texts), 64))
    for row, text in zip(out, texts):
        np.add.at(row, [hash(word) % 64 for word in text.lower().split()], 1)
    return out / np.maximum(np.linalg.norm(out, axis=1, keepdims=True), 1e-12)


def exact(texts):
    """A text encoder that knows equal texts only."""
    names = sorted(set(texts))
    return np.eye(len(names))[[names.index(text) for text in texts]]


# what texts say


def test_sentences_splits_any_script():
    """Texts of any script are split at marks and line ends, not within numbers, and bullets are dropped."""
    text = "1. A loud voice. It rises 3.5 dB!\n- bright\n* dark\n\n2) 明るい声。低い声。\n...\nصوت عال؟ नरम आवाज। Ja"
    expected = "A loud voice.|It rises 3.5 dB!|bright|dark|明るい声。|低い声。|صوت عال؟|नरम आवाज।|Ja"
    assert text_analysis.sentences(text) == expected.split("|")
    assert text_analysis.sentences("") == text_analysis.sentences(None) == text_analysis.sentences(float("nan")) == []


def test_calibrate_removes_shared_sentences():
    """A sentence that both summaries share is removed from both and listed with its partner and cosine."""
    high, low, removed = open_concepts.calibrate(
        "It is loud. Someone speaks. It is bright.", "Someone speaks. It is soft.", encoder=exact
    )
    assert (high, low) == ("It is loud. It is bright.", "It is soft.")
    assert removed.values.tolist() == [["high", "Someone speaks.", "Someone speaks.", 1.0],
                                       ["low", "Someone speaks.", "Someone speaks.", 1.0]]  # fmt: skip


def test_calibrate_applies_threshold():
    """A sentence is removed only above the threshold, and the encoder gets each distinct text of a side once."""
    vectors = {"a.": [1, 0], "b.": [0.8, 0.6], "c.": [0, 1]}

    def encoder(texts):
        return np.array([vectors[text] for text in texts], float)

    for threshold, left in ((0.79, ("", "c.")), (0.8, ("a.", "b. c.")), (0.9, ("a.", "b. c."))):
        assert open_concepts.calibrate("a.", "b. c.", encoder=encoder, threshold=threshold)[:2] == left
    asked = []
    open_concepts.calibrate("a. a. c.", "b. b.", encoder=lambda texts: asked.append(texts) or encoder(texts))
    assert asked == [["a.", "c.", "b."]]  # one call, each distinct sentence of a side once


@pytest.mark.parametrize("empty", ["", None, float("nan"), " \n", "…"])
def test_calibrate_keeps_side_beside_empty_one(empty):
    """Beside an empty summary the other is kept, nothing is removed, and the encoder is not called."""

    def encoder(texts):
        raise AssertionError

    assert open_concepts.calibrate("One sentence", empty, encoder=encoder)[:2] == ("One sentence", "")
    assert open_concepts.calibrate(empty, "One.", encoder=encoder)[2].empty
    assert open_concepts.calibrate(empty, empty, encoder=encoder)[:2] == ("", "")


def test_calibrate_handles_long_and_japanese_texts():
    """Shared sentences are removed from texts of 100 kB and of Japanese script as from any other."""
    long = " ".join(f"Sentence {'x' * (i % 100)} number w{i}." for i in range(1500))
    high, low, removed = open_concepts.calibrate(long, "同じ文。" + long, encoder=exact)
    assert len(long) > 100_000 and (high, low) == ("", "同じ文。") and len(removed) == 3000
    assert open_concepts.calibrate("x" * 100_000, "y", encoder=exact)[:2] == ("x" * 100_000, "y")
    assert open_concepts.calibrate("明るい声。低い声。", "低い声。", encoder=exact)[:2] == ("明るい声。", "")


@pytest.mark.parametrize(
    "text, told",
    [
        ("Loud", True),
        ("Not loud", False),  # at the very start
        ("The voice is not very loud at all", False),
        ("No sound that is loud", False),
        ("no one here hears a very loud voice", True),  # five words before
        ("It isn't loud", False),
        ("It isn’t loud", False),
        ("Not only loud", True),
        ("Not dark, but loud", True),
        ("It is not dark. Loud voices", True),
        ("not loud, then again loud", False),
        ("not loud; a loud one follows", True),
        ("neither loud nor dark", False),
        ("aloud, louder, loud-ish", False),
        ("LOUD!", True),
        ("<b>loud</b> <script>alert(1)</script>", True),
        ("громкий 大きな声", False),
    ],
)
def test_adjectives_excludes_negated_words(text, told):
    """A word of a text counts only where it occurs whole and at least once without negation in its clause."""
    found = open_concepts.adjectives(pd.Series([text]), LEXICON)
    assert bool(found.sel(adjective="loud")[0]) is told
    assert not found.drop_sel(adjective="loud").any()


@pytest.mark.parametrize(
    "text", ["a high-pitched voice", "a high pitched voice", "High\u2011pitched", "high\u2010pitched"]
)
def test_adjectives_joins_hyphenated_words(text):
    """The word `high-pitched` counts as one, with any hyphen or with a space between its parts."""
    found = open_concepts.adjectives(pd.Series([text, "high and pitched"]), LEXICON)
    assert found.sel(adjective="high-pitched").values.tolist() == [True, False] and int(found.sum()) == 1


def test_adjectives_queries_each_word_once():
    """Each distinct asserted word is passed to `yes_no` once, and a warning names those without a clear answer."""
    asked = []

    def yes_no(word):
        asked.append(word)
        return {"warm": True, "hissing": None, "and": "No"}.get(word, False)

    texts = pd.Series(["a warm voice", "not a warm voice", "warm and hissing"], index=[5, 6, 7])
    with pytest.warns(UserWarning, match="no clear answer.*and, hissing"):
        found = open_concepts.adjectives(texts, yes_no=yes_no)
    assert sorted(asked) == sorted(set(asked)) == ["a", "and", "hissing", "voice", "warm"]
    assert found["adjective"].values.tolist() == ["warm"] and found.values[:, 0].tolist() == [True, False, True]


def tagger(text):
    tags = {"warm": "JJ", "muffled": "VBN", "voice": "NN", "rises": "VBZ", "in": "IN", "louder": "JJR"}
    return [(word, tags.get(word.lower(), "DT")) for word in text.split()]


def test_adjectives_queries_tagged_adjectives_only():
    """With a tagger, only words that are tagged as adjectives are passed to `yes_no` and count."""
    asked = []
    texts = pd.Series(["a warm voice", "a muffled louder voice rises"])
    found = open_concepts.adjectives(texts, yes_no=lambda word: asked.append(word) or True, tagger=tagger)
    assert asked == ["louder", "warm"] and found.values.tolist() == [[False, True], [True, False]]


def test_parts_of_speech_counts_tagged_words():
    """Words are counted by kind, NaN without a text; a missing tagger and an unknown kind are refused."""
    texts = pd.Series(["A warm voice rises in warm air, 3 times", "", None], index=list("xyz"))
    found = open_concepts.parts_of_speech(texts, tagger)
    assert found.loc["x"].to_dict() == {"adjectives": 2, "nouns": 1, "verbs": 1, "prepositions": 1, "length": 8}
    assert not found.loc["y"].any() and found.loc["z"].isna().all()
    assert open_concepts.parts_of_speech(texts, kinds=["length"])["length"].tolist()[:2] == [8, 0]
    with pytest.raises(ImportError, match="pip install nltk"):
        open_concepts.parts_of_speech(texts)
    with pytest.raises(ValueError, match="adverbs.*known are"):
        open_concepts.parts_of_speech(texts, tagger, kinds=["adverbs"])


# adjectives of neurons


def units():
    """Coordinates of a dim `unit`: part a has layers 1 to 4, part b 2 to 4; three neurons each."""
    names = [(part, layer, n) for part, min_z in (("a", 1), ("b", 2)) for layer in range(min_z, 5) for n in range(3)]
    index = pd.MultiIndex.from_tuples(names, names=["part", "layer", "neuron"])
    return xr.Coordinates.from_pandas_multiindex(index, "unit")


def test_adjectives_selects_words_by_min_z():
    """Words of the lexicon, or confirmed by `yes_no`, count where z is at least `min_z`, by default 1.96."""
    z = xr.DataArray(
        [[[2.0, -3.0, 1.9, 5.0]]], {"word": ["loud", "quiet", "high-pitched", "odd"]}, ("layer", "neuron", "word")
    )
    found = open_concepts.adjectives(z, LEXICON)
    assert found.dtype == bool and found.dims == ("layer", "neuron", "adjective")
    assert found["adjective"].values.tolist() == ["quiet", "loud", "low-pitched", "high-pitched"]
    assert found.values.ravel().tolist() == [False, True, False, False]
    assert open_concepts.adjectives(z, LEXICON, min_z=1.5).values.ravel().tolist() == [False, True, False, True]
    assert open_concepts.adjectives(z, yes_no=lambda word: word == "odd").values.ravel().tolist() == [True]
    assert {"loud", "dark"} <= set(open_concepts.adjectives(z)["adjective"].values)  # the bundled lexicon


def test_adjectives_keeps_unit_index():
    """Adjectives of texts keep the index of neurons of several parts, and a warning counts neurons without a text."""
    coords = units()
    texts = xr.DataArray(np.full(21, "a loud voice", object), coords, ("unit",))
    for given in (texts, pd.Series(texts.values, coords.to_index())):
        found = open_concepts.adjectives(given, LEXICON)
        assert bool(found.sel(part="b", layer=3, neuron=2, adjective="loud").all()) and found.sizes["unit"] == 21
    texts[4] = None
    with pytest.warns(UserWarning, match="1 of 21 neurons have no text"):
        assert int(open_concepts.adjectives(texts, LEXICON).sum()) == 20


def test_distribution_compares_counts_with_chance():
    """Neurons are counted by adjective, in descending order, with the chance level, its interval and q."""
    rng = np.random.default_rng(0)
    said = xr.DataArray(
        rng.random((3, 200, 3)) < [0.1, 0.5, 0.1], {"adjective": list("abc")}, ("layer", "neuron", "adjective")
    )
    chance = xr.DataArray(
        rng.random((30, 3, 200, 3)) < 0.1, {"adjective": list("abc")}, ("draw", "layer", "neuron", "adjective")
    )
    table = open_concepts.distribution(said, chance.sel(adjective=list("cba")))
    assert table.index[0] == "b" and table["neurons"].is_monotonic_decreasing
    assert table.loc["b", "neurons"] == said.sel(adjective="b").sum() and table.loc["b", "share"] == pytest.approx(
        0.5, abs=0.05
    )
    assert table.loc["b", "q"] < 1e-6 and (table.loc[["a", "c"], "q"] > 0.05).all()
    assert table.loc["a", "chance"] == pytest.approx(chance.sel(adjective="a").sum(["layer", "neuron"]).mean("draw"))
    assert ((table["chance_low"] < table["chance"]) & (table["chance"] < table["chance_high"])).all()
    assert "chance" not in open_concepts.distribution(said)


def test_by_layer_fits_line_per_part():
    """The linear trend of each part is fitted over the layers that the part has."""
    coords = units()
    layer, part = coords["layer"].values, coords["part"].values
    count = np.where(part == "a", 5 - layer, layer - 1)  # one less each layer, one more
    said = xr.DataArray(np.arange(4) < count[:, None], coords.assign(adjective=list("wxyz")), ("unit", "adjective"))
    found = open_concepts.by_layer(said)
    assert found["slope"].sel(part="a") == pytest.approx(-1) and found["slope"].sel(part="b") == pytest.approx(1)
    np.testing.assert_allclose(found["mean"].sel(part="b"), [np.nan, 1, 2, 3])
    assert found["intercept"].sel(part="b") == pytest.approx(-1)


def test_by_layer_compares_slope_with_chance():
    """The p against chance is small only if the slope differs from that of shuffled captions, whatever its own p."""
    rng = np.random.default_rng(0)

    def draw(n, slope):
        rate = 0.3 + slope * np.arange(8)[:, None, None]
        coords = {"layer": range(8), "adjective": list("abc")}
        return xr.DataArray(rng.random((n, 8, 50, 3)) < rate, coords, ("draw", "layer", "neuron", "adjective"))

    chance = draw(40, 0.05)
    same = open_concepts.by_layer(draw(1, 0.05)[0], chance)
    other = open_concepts.by_layer(draw(1, 0.0)[0], chance)
    assert float(same["chance_p"]) > 0.05 > float(other["chance_p"]) and float(same["p"]) < 0.01
    assert same["chance"].sizes == {"draw": 40, "layer": 8} and float(same["chance_slope"].mean()) == pytest.approx(
        0.15, abs=0.01
    )


def test_by_layer_jackknife_equals_t_interval():
    """For a mean over speakers, the jackknife interval of the slope is its t interval; NaN with seven speakers."""
    values = np.random.default_rng(0).standard_normal((9, 5, 4, 2))  # [speaker, layer, neuron, adjective]
    coords = {"layer": range(5), "adjective": ["a", "b"]}
    whole = xr.DataArray(values.mean(0), coords, ("layer", "neuron", "adjective"))
    left = [np.delete(values, i, axis=0).mean(0) for i in range(9)]
    left = xr.DataArray(np.array(left), coords, ("speaker", "layer", "neuron", "adjective"))
    found = open_concepts.by_layer(whole, left_out=left)
    slopes = [stats.linregress(range(5), own.sum(2).mean(1)).slope for own in values]
    mean, low, high = statistics.interval(slopes)
    np.testing.assert_allclose([found["slope"], found["speakers_low"], found["speakers_high"]], [mean, low, high])
    assert np.isnan(open_concepts.by_layer(whole, left_out=left[:7])["speakers_low"])


# whether they are true


def test_check_passes_true_adjectives_only(activations, measured):
    """True adjectives are significant; false ones, and one that holds only between speakers, are not."""
    said = said_of(
        activations, loud=[(1, 0), (1, 1), (1, 3), (2, 5)], quiet=[(1, 1)], high_pitched=[(1, 2)], odd=[(1, 7)]
    )
    found = open_concepts.check(activations, said, measured, LEXICON, draws=999)
    one = found.sel(layer=1)
    for neuron, name, rho in (
        (0, "loud", 1),
        (1, "quiet", 1),
        (1, "loud", -1),
        (2, "high-pitched", 1),
        (2, "low-pitched", -1),
    ):
        here = one.sel(neuron=neuron, adjective=name)
        assert float(here["rho"]) == pytest.approx(rho) and (float(here["q"]) < 0.05) == (rho > 0)
    assert float(one["p"].sel(neuron=0, adjective="loud")) < 1e-9  # fewer than draws can tell
    assert float(one["p"].sel(neuron=0, adjective="quiet")) == 1
    assert float(one["p"].sel(neuron=3, adjective="loud")) > 0.01  # it only knows voices
    passed = found["passed"]
    assert passed.sel(adjective="loud") == 0.25 and passed.sel(adjective=["quiet", "high-pitched"]).values.tolist() == [
        1,
        1,
    ]
    assert np.isnan(passed.sel(adjective="low-pitched")) and found["neurons"].values.tolist() == [1, 0, 4, 1]
    assert found.attrs["unchecked"] == '["odd"]' and "odd" not in found["adjective"]
    assert np.isnan(found["rho"].sel(layer=2, neuron=29)).all()
    np.testing.assert_allclose(found["q"], statistics.fdr(found["p"]))


def test_check_p_is_calibrated_for_noise(activations, measured):
    """For neurons of noise, p is below 0.05 in under 10 % and between 0.4 and 0.6 on average."""
    found = open_concepts.check(activations, said_of(activations), measured, LEXICON, draws=199)
    assert float((found["p"].sel(layer=2) < 0.05).mean()) < 0.1
    assert 0.4 < float(found["p"].sel(layer=2).mean()) < 0.6


@pytest.mark.full
def test_check_p_extrapolates_beyond_draws(activations, measured, described, captions):
    """By `check` and AUROC, p below 1 / (1 + draws) agrees with 8,000 draws on average, each within a factor of 4."""
    level = measured["level_db"].groupby(activations["speaker"].values).transform(lambda x: x - x.mean())
    part = activations + 0.3 * xr.DataArray(level.to_numpy(), dims="clip")
    every = (
        lambda n: open_concepts.check(part, said_of(part), measured, LEXICON, draws=n),
        lambda n: open_concepts.predictivity_auroc(activations, described, captions, draws=n),
    )
    for run, few_draws, min_z in zip(every, (100, 40), (8, 1)):
        few, many = (run(n)["p"].values for n in (few_draws, 8_000))
        told = (few < 1 / (1 + few_draws) - 1e-9) & (many > 8 / 8_000)
        ratio = np.log(few[told] / many[told])
        assert len(ratio) >= min_z and abs(ratio.mean()) < np.log(1.5) and np.abs(ratio).max() < np.log(4)


def test_check_permutes_within_speakers():
    """Noise of ten speakers of two clips and one of sixty gives no excess of small p, by `check` and by AUROC."""
    rng, neurons = np.random.default_rng(0), 300
    voices = np.repeat(list("abcdefghijk"), [2] * 10 + [60]).astype(object)
    coords = {"clip": np.arange(80), "speaker": ("clip", voices), "layer": [1]}
    data = xr.DataArray(rng.standard_normal((80, 1, neurons)), coords, ("clip", "layer", "neuron"))
    said = xr.DataArray(
        np.ones((1, neurons, 1), bool), {"layer": [1], "adjective": ["loud"]}, ("layer", "neuron", "adjective")
    )
    table = pd.DataFrame({"level_db": rng.standard_normal(80)})
    assert float((open_concepts.check(data, said, table, LEXICON, draws=199)["p"] < 0.05).mean()) < 0.09
    z = xr.DataArray(
        np.tile([3.0, -3.0], (1, neurons, 1)), {"layer": [1], "word": ["loud", "quiet"]}, said.dims[:2] + ("word",)
    )
    texts = pd.Series(np.tile(["a loud voice", "a quiet voice"], 40))
    foretold = open_concepts.predictivity_auroc(
        data, xr.Dataset({"z": z, "chance": z.expand_dims(draw=1)}), texts, draws=199
    )
    assert float((foretold["p"] < 0.05).mean()) < 0.09 and float((foretold["p"] < 0.25).mean()) > 0.15


@pytest.mark.parametrize("sizes", [FOLD, [3] * 27])
def test_check_permutes_whole_recordings(sizes):
    """Neurons that share only recordings with level, F0 or captions have p < 0.05 in 1 to 7.5 %, by all three tests."""
    share = []
    for seed in range(3):
        draw, coords = recordings(seed, 0.9, sizes)
        data = xr.DataArray(draw(200), coords, ("clip", "neuron"))
        table = pd.DataFrame(draw(2), columns=["level_db", "f0"])
        table.loc[::9, "f0"] = np.nan
        said = xr.DataArray(
            np.ones((200, 2), bool),
            {"neuron": np.arange(200), "adjective": ["loud", "high-pitched"]},
            ("neuron", "adjective"),
        )
        data = data.assign_coords(neuron=np.arange(200))
        data[:, 0] = table["level_db"].to_numpy()
        checked = open_concepts.check(data, said, table, LEXICON, draws=199)
        texts = pd.Series(np.where(draw(1)[:, 0] > 0, "a loud voice", "a quiet voice"))
        z = np.tile(3.0 * np.random.default_rng(seed).choice([-1, 1], 200)[:, None], 2) * [1, -1]
        z = xr.DataArray(z, {"neuron": np.arange(200), "word": ["loud", "quiet"]}, ("neuron", "word"))
        told = xr.Dataset({"z": z, "chance": z.expand_dims(draw=1)})
        foretold = [
            f(data, told, texts, draws=199) for f in (open_concepts.predictivity_auroc, dissection.predictivity)
        ]
        share.append([float((x["p"][1:] < 0.05).mean()) for x in (checked, *foretold)])
        assert checked["p"][0, 0] < 1e-4
    assert (np.mean(share, 0) < 0.075).all() and (np.mean(share, 0) > 0.01).all(), share


def voices(seed, icc=0.8, clips=4):
    """16 voices; 120 neurons and four quantities that have nothing in common but the voices; captions of the latter."""
    draw, coords = recordings(seed, icc, [clips] * 16)
    said = [["low", "high"], ["slow", "fast"], ["dark", "bright"], ["quiet", "loud"]]
    captions = pd.Series([" ".join(pair[int(x > 0)] for x, pair in zip(row, said) if abs(x) > 0.43) for row in draw(4)])
    data = xr.DataArray(draw(120).reshape(-1, 3, 40), coords, ("clip", "layer", "neuron"))
    return data.assign_coords(layer=[1, 2, 3], neuron=np.arange(40)).drop_vars("label"), captions


def test_distribution_is_calibrated_for_voice_neurons():
    """Neurons that follow only speakers get adjectives no more often than with shuffled captions."""
    q, p, says = [], [], []
    for seed in range(8):
        data, texts = voices(seed)
        texts = "a voice " + texts
        told = dissection.describe(data, texts, draws=20, seed=seed)
        said, chance = open_concepts.adjectives(told["z"]), open_concepts.adjectives(told["chance"])
        table = open_concepts.distribution(said, chance)
        q += table.loc[table["neurons"] + table["chance"] > 0, "q"].tolist()
        p.append(float(open_concepts.by_layer(said, chance)["chance_p"]))
        says.append([float((abs(x) >= 1.96).any("word").mean()) for x in (told["z"], told["chance"])])
    assert np.mean(np.array(q) < 0.05) < 0.06 and np.mean(np.array(p) < 0.05) <= 0.25
    assert np.mean(says, 0)[0] == pytest.approx(np.mean(says, 0)[1], abs=0.04) and np.mean(says) > 0.15


def test_distribution_detects_word_neurons():
    """Of 120 neurons, 40 that follow loudness make `loud` first and significant, and few other adjectives."""
    data, texts = voices(0, icc=0.1, clips=16)
    data[:, 0] += 3 * texts.str.contains("loud").to_numpy()[:, None]
    told = dissection.describe(data, "a voice " + texts, draws=20)
    table = open_concepts.distribution(open_concepts.adjectives(told["z"]), open_concepts.adjectives(told["chance"]))
    assert table.index[0] == "loud" and table.loc["loud", "q"] < 0.01 and table.loc["loud", "neurons"] >= 36
    assert (table.drop(index=["loud", "quiet"])["q"].dropna() > 0.05).mean() > 0.8


def test_check_compares_within_layers(activations, measured):
    """The share `other` is that which passes among neurons of the same layers as those with the adjective."""
    first = open_concepts.check(activations, said_of(activations, loud=[(1, 2)]), measured, LEXICON)
    second = open_concepts.check(activations, said_of(activations, loud=[(2, 2)]), measured, LEXICON)
    both = open_concepts.check(activations, said_of(activations, loud=[(1, 2), (2, 2)]), measured, LEXICON)
    share = [float(x["other"].sel(adjective="loud")) for x in (first, second, both)]
    assert share[0] == pytest.approx(1 / 29) and share[1] == 0
    # the neuron that never changes counts in neither mean
    assert share[2] == pytest.approx((share[0] + 28 / 29 * share[1]) / (1 + 28 / 29))


def test_check_gap_separates_true_adjectives(activations, measured):
    """The interval of `gap` is above 0.8 for a true adjective, covers 0 for a false one, and needs eight speakers."""
    found = open_concepts.check(
        activations, said_of(activations, loud=[(1, 0)], quiet=[(2, 3)]), measured, LEXICON, draws=1
    )
    loud, quiet = (found.sel(adjective=name) for name in ("loud", "quiet"))
    assert float(loud["gap_low"]) > 0.8 and float(quiet["gap_low"]) < 0 < float(quiet["gap_high"])
    assert float(loud["gap"]) == pytest.approx(float(loud["mean"] - loud["mean_other"]))
    few = activations.isel(clip=slice(7 * PER))
    assert np.isnan(
        open_concepts.check(few, said_of(activations, loud=[(1, 0)]), measured, LEXICON, draws=1)["gap_low"]
    ).all()


def test_check_reports_chance_by_draw(activations, measured):
    """For each draw of shuffled captions, the neurons with the adjective and the share that passes are reported."""
    chance = xr.concat(
        [said_of(activations, loud=[(1, 0)]), said_of(activations, loud=[(2, 5), (1, 0)]), said_of(activations)], "draw"
    )
    found = open_concepts.check(activations, said_of(activations, loud=[(1, 0)]), measured, LEXICON, chance=chance).sel(
        adjective="loud"
    )
    np.testing.assert_array_equal(found["chance"], [1, 0.5, np.nan])
    np.testing.assert_array_equal(found["chance_neurons"], [1, 2, 0])


def test_check_refuses_untestable_input(activations, measured):
    """A missing feature, adjectives outside the lexicon and neurons that differ raise a ValueError."""
    with pytest.raises(ValueError, match="features lacks f0"):
        open_concepts.check(activations, said_of(activations), measured[["level_db"]], LEXICON)
    with pytest.raises(ValueError, match="no adjective is a word of the lexicon"):
        open_concepts.check(activations, said_of(activations)[..., 4:], measured, LEXICON)
    with pytest.raises(ValueError):
        open_concepts.check(activations, said_of(activations).isel(neuron=slice(5)), measured, LEXICON)


def test_check_accepts_several_parts(measured):
    """A planted neuron of one of several parts is found by `check`, without speakers or interval, and by AUROC."""
    coords = units()
    values = np.random.default_rng(0).standard_normal((len(measured), 21))
    values[:, 20] = measured["level_db"]
    data = xr.DataArray(values, coords.assign(clip=measured.index.to_numpy()), ("clip", "unit"))
    said = xr.DataArray(np.ones((21, 1), bool), coords.assign(adjective=["loud"]), ("unit", "adjective"))
    found = open_concepts.check(data, said, measured, LEXICON)
    assert float(found["rho"].sel(part="b", layer=4, neuron=2)[0]) == pytest.approx(1)
    assert np.isnan(found["low"]).all()  # no speakers are known
    captions = pd.Series(np.where(measured["level_db"] > 0, "loud", "quiet"), measured.index)
    z = xr.DataArray(np.tile([3.0, -3.0], (21, 1)), coords.assign(word=["loud", "quiet"]), ("unit", "word"))
    foretold = open_concepts.predictivity_auroc(
        data, xr.Dataset({"z": z, "chance": z.expand_dims(draw=2)}), captions, draws=9
    )
    assert float(foretold["auroc"].sel(part="b", layer=4, neuron=2)) > 0.7


# AUROC


def test_predictivity_auroc_has_two_controls(activations, described, captions):
    """The control `shuffled` has one AUROC per draw, NaN without words, and `other` is by another's description."""
    found = open_concepts.predictivity_auroc(activations, described, captions, draws=1)
    assert (
        found["shuffled"].sizes == {"draw": 2, "layer": 2, "neuron": NEURONS} and np.isnan(found["shuffled"][1]).all()
    )
    two = described.isel(neuron=[0, 1])
    swapped = open_concepts.predictivity_auroc(activations.isel(neuron=[0, 1]), two, captions, draws=1).sel(layer=1)
    np.testing.assert_allclose(swapped["other"], 1 - swapped["auroc"])  # each has the other's, which says the reverse


def test_predictivity_auroc_includes_ties(activations, described, captions):
    """All clips that tie within the top share are positive: the AUROC is the mean of scikit-learn's over speakers."""
    half = activations.copy(data=(activations > 0).astype(float))
    found = open_concepts.predictivity_auroc(half, described, captions, draws=1).sel(layer=2, neuron=7)
    z = np.sign(described["z"].sel(layer=2, neuron=7).values)
    score = captions.str.contains("loud") * z[0] + captions.str.contains("quiet") * z[1]
    each = []
    for i in range(SPEAKERS):
        rows = slice(i * PER, (i + 1) * PER)
        if score.iloc[rows].nunique() > 1:
            each.append(roc_auc_score(half.sel(layer=2, neuron=7)[rows], score.iloc[rows]))
    assert float(found["auroc"]) == pytest.approx(np.mean(each))


@pytest.mark.parametrize("kind", ["absent", "missing"])
def test_predictivity_auroc_refuses_uncaptioned_clips(activations, described, captions, kind):
    """Clips that are not among the captions, or whose caption is missing, are refused by name."""
    kept = captions.iloc[2:]
    captions = kept if kind == "absent" else kept.reindex(captions.index)
    with pytest.raises(ValueError, match=r"2 of 120 clips have no caption \(1000, 1001\): leave them out"):
        open_concepts.predictivity_auroc(activations, described, captions, draws=1)


def test_neighbours_stay_in_layer():
    """Each neuron's neighbour is another neuron of its layer, and no two neurons share one."""
    places = np.random.default_rng(0).permutation(np.repeat([0, 1, 2], [5, 2, 30]))
    for seed in range(5):
        other = neighbours(places, seed)
        assert (other != np.arange(37)).all() and (places[other] == places).all() and len(set(other)) == 37


def test_check_confirms_described_adjective(activations, measured, captions):
    """An adjective that captions of two speakers assign to a planted neuron is confirmed on the eight others."""
    activations = activations.groupby("speaker") - activations.groupby("speaker").mean()
    train, test = activations.isel(clip=slice(2 * PER)), activations.isel(clip=slice(2 * PER, None))
    told = dissection.describe(train, captions, k=6, draws=10)
    said, chance = open_concepts.adjectives(told["z"], LEXICON), open_concepts.adjectives(told["chance"], LEXICON)
    assert {n for n in range(NEURONS) if bool(said.sel(layer=1, neuron=n, adjective="quiet"))} >= {1}
    found = open_concepts.check(test, said, measured, LEXICON, chance=chance)
    assert bool((found["q"] < 0.05).sel(layer=1, neuron=1, adjective="quiet"))
    assert set(open_concepts.distribution(said, chance).index) == set(
        descriptions.lexicon().loc[["level_db", "f0"], ["low", "high"]].values.ravel()
    )


# figures
