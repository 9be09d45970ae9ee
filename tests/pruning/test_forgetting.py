"""What is forgotten and kept, in closed form, and on a model in which one neuron is each class."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import soundfile
import torch
import xarray as xr
from scipy import stats
from scipy.special import softmax

from xai_lib import edits, hooks, models, plots, pruning
from xai_lib.models.sites import Site
from xai_lib.pruning import forgetting

pytestmark = pytest.mark.heavy

CLASSES = [f"tone {i}" for i in range(8)]
UNIT = [5, 0, 7, 2, 9, 1, 3, 8]  # which hidden neuron is wired to which class; 4 and 6 to all
RATE, HIDDEN = 2000, Site(1, "ffn_hidden")


class Ears(torch.nn.Module):
    """A tone of 100, 200 … 800 Hz to its class, by one hidden neuron each."""

    def __init__(self):
        super().__init__()
        self.hidden, self.head = torch.nn.Linear(8, 10), torch.nn.Linear(10, 8)
        with torch.no_grad():
            for values in self.parameters():
                values.zero_()
            for i, unit in enumerate(UNIT):
                self.hidden.weight[unit, i], self.head.weight[i, unit] = 2.0, 3.0
            self.hidden.weight[[4, 6]] = 1.0
            self.head.weight[:, [4, 6]] = 0.5
            self.hidden.bias += 0.1
            self.head.bias += torch.linspace(0, 0.7, 8)

    def forward(self, x):
        power = torch.fft.rfft(x).abs()[:, 50:450].reshape(len(x), 8, 50).amax(-1)  # half a second: bins of 2 Hz
        return self.head(torch.relu(self.hidden(power / power.amax(-1, keepdim=True))))


@pytest.fixture(scope="module")
def ears():
    return models.wrap(
        Ears(),
        sites={(1, "ffn_hidden"): "hidden"},
        sample_rate=RATE,
        labels=CLASSES,
        layout="batch neuron",
        device="cpu",
    )


def tones(folder, speakers):
    rows = []
    for speaker in speakers:
        for i, name in enumerate(CLASSES):
            path = folder / f"{speaker}-{i}.wav"
            tone = 0.5 * np.sin(2 * np.pi * (110 + 100 * i + 2 * speaker) * np.arange(1000) / RATE)
            soundfile.write(path, tone, RATE, subtype="FLOAT")
            rows.append({"path": str(path), "label": name, "speaker": f"s{speaker}"})
    return pd.DataFrame(rows)


@pytest.fixture(scope="module")
def train(tmp_path_factory):
    return tones(tmp_path_factory.mktemp("train"), range(2))


@pytest.fixture(scope="module")
def test(tmp_path_factory):
    return tones(tmp_path_factory.mktemp("test"), range(10, 18))


@pytest.fixture(scope="module")
def comparisons(ears, train, test):
    """{class: {strategy: compared}}: one neuron by what it is used for, and one by a score that knows nothing."""
    support, blind = pruning.support(ears, train, [HIDDEN]), np.random.default_rng(3).standard_normal(10)
    found = {}
    for label in CLASSES:
        used = pruning.contrast(support, label)
        found[label] = {
            "used": pruning.compare(ears, test, used, doses=[1, 2], draws=3),
            "blind": pruning.compare(ears, test, used.copy(data=blind), doses=[1, 2], draws=3),
        }
    return found


def test_evaluate_forgets_only_selected_class(ears, train, test):
    """`support` selects the neuron wired to a class, and pruning it forgets that class alone, with selectivity 1."""
    support, test = pruning.support(ears, train, [HIDDEN]), test[test["speaker"] < "s12"]
    for label, unit in zip(CLASSES, UNIT):
        selected = pruning.neurons_of(pruning.contrast(support, label), 1)
        assert {site: found.tolist() for site, found in selected.items()} == {HIDDEN: [unit]}
        found = pruning.evaluate(ears, test, selected, label, draws=1, selection_clips=train).sel(neuron_set="selected")
        accuracy = found["value"].sel(measure="accuracy")
        np.testing.assert_array_equal(accuracy.sel(group="forgotten"), [1, 0])
        np.testing.assert_array_equal(accuracy.sel(group="kept"), [1, 1])
        change = found["change"].sel(measure="logit", dose=1)
        assert float(change.sel(group="forgotten")) == pytest.approx(-3 * 2.1, abs=1e-4)
        # the neuron's bias reaches every clip, but only the forgotten class's logit
        assert float(change.sel(group="kept")) == pytest.approx(0, abs=1e-5)
        assert float(found["selectivity"].sel(measure="logit", dose=1)) == pytest.approx(1, abs=1e-5)
        assert float(found["selectivity"].sel(measure="probability", dose=1)) == pytest.approx(1, abs=0.02)


@torch.no_grad()
def test_prune_equals_edit_of_wrapped_module(ears):
    """Pruning a wrapped module equals zeroing by `hooks.edit`, and its classifier is refused."""
    x = torch.randn(3, 1000)
    for site in (HIDDEN, Site("hidden", "module")):
        with hooks.edit(ears, {site: edits.edit([5, 2], "zero")}):
            edited = ears.logits(x)
        with pruning.prune(ears, {site: [5, 2]}):
            torch.testing.assert_close(ears.logits(x), edited)
        assert not torch.equal(ears.logits(x), edited)
    with pytest.raises(ValueError, match="head is the classifier"), pruning.prune(ears, {Site("head", "module"): [0]}):
        pass


def test_greedy_selects_nested_sets(ears, train):
    """`greedy` selects the neuron wired to the class first, and its sets of neurons are nested."""
    score = pruning.greedy(ears, train, "tone 3", 4, [HIDDEN], step=2)
    assert score.sel(part="ffn_hidden", layer=1)["neuron"].values[np.nanargmax(score)] == UNIT[3]
    assert sorted(score.values[np.isfinite(score)]) == [1, 2, 3, 4]
    sets = [set(pruning.neurons_of(score, k)[HIDDEN]) for k in (1, 2, 3, 4)]
    assert sets[0] < sets[1] < sets[2] < sets[3] and sets[0] == {UNIT[3]}


def test_greedy_finds_redundant_neuron():
    """`greedy` finds both of two redundant neurons, one of which has no gradient until the other is pruned."""

    class Twins(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.hidden, self.head = torch.nn.Linear(1, 4), torch.nn.Linear(4, 2)

        def forward(self, x):
            a, b, c, d = torch.relu(self.hidden(x[:, :1])).unbind(-1)
            return self.head(torch.stack([torch.maximum(a, b), torch.maximum(a, b) * 0, c, d], -1))

    module = Twins()
    with torch.no_grad():
        module.hidden.weight[:, 0], module.hidden.bias[:] = torch.tensor([2, 1.9, 0.5, 0.1]), 0.0
        module.head.weight[:], module.head.bias[:] = torch.tensor([[1, 0, 0.5, 0.1], [0, 0, 0, 0]]), torch.zeros(2)
    model = models.wrap(
        module, sites={(1, "ffn_hidden"): "hidden"}, sample_rate=10, labels=["a", "b"], layout="batch neuron"
    )

    waves = [(0, np.ones(10, np.float32)), (1, -np.ones(10, np.float32))]
    model.stream = lambda clips, skipped: waves
    clips = pd.DataFrame({"path": ["x", "y"], "label": ["a", "b"]})
    once = pruning.contrast(pruning.support(model, clips, [HIDDEN]), "a")
    assert set(pruning.neurons_of(once, 2)[HIDDEN]) == {0, 2}
    assert set(pruning.neurons_of(pruning.greedy(model, clips, "a", 2, [HIDDEN], step=1), 2)[HIDDEN]) == {0, 1}


def test_table_averages_over_classes(comparisons):
    """`table` averages changes over classes, with t intervals, selectivity and the excess over random sets."""
    table = forgetting.table(comparisons, dose=1)
    assert list(table.index.get_level_values("measure").unique()) == ["logit", "probability", "accuracy"]
    used = table.loc[("logit", "used")]
    assert used["neurons"] == 1 and used["classes"] == 8
    assert used["forgotten"] == pytest.approx(-6.3, abs=1e-4) and used["kept"] == pytest.approx(0, abs=1e-4)
    assert used["difference"] == pytest.approx(6.3, abs=1e-4) and used["selectivity"] == pytest.approx(1, abs=1e-4)
    assert used["difference_low"] <= used["difference"] <= used["difference_high"]
    assert table.loc[("accuracy", "used"), "forgotten"] == -1 and table.loc[("accuracy", "used"), "kept"] == 0
    changes = [
        forgetting.summary(by["blind"], label)["change"].sel(neuron_set="selected", dose=1, measure="logit")
        for label, by in comparisons.items()
    ]
    forgotten, kept = ([float(x.sel(group=group)) for x in changes] for group in ("forgotten", "kept"))
    blind = table.loc[("logit", "blind")]
    assert blind["forgotten"] == pytest.approx(np.mean(forgotten)) and blind["kept"] == pytest.approx(np.mean(kept))
    assert blind["selectivity"] == pytest.approx((np.mean(kept) - np.mean(forgotten)) / abs(np.mean(forgotten)))
    low, high = stats.t.interval(0.95, 7, np.mean(kept), stats.sem(kept))
    assert [blind["kept_low"], blind["kept_high"]] == pytest.approx([low, high])
    random = table.loc[("logit", "random")]
    assert random["beyond"] == pytest.approx(0) and used["beyond"] == pytest.approx(used["difference"] - used["random"])
    assert used["random"] == pytest.approx(random["difference"])


def test_table_selectivity_interval_matches_delta_method():
    """The jackknife interval of selectivity matches the delta method, and is NaN under 8 classes."""
    rng = np.random.default_rng(0)
    values = np.c_[
        np.full(10, 5.0),
        -3 + 0.3 * rng.standard_normal(10),
        0.2 * rng.standard_normal(10),
        rng.standard_normal((10, 2)),
    ]
    changes = pd.DataFrame(values, columns=["dose", "forgotten", "kept", "random_forgotten", "random_kept"])
    row = forgetting._average_over_classes(changes)
    difference, forgotten = values[:, 2] - values[:, 1], values[:, 1]
    ratio = difference.mean() / abs(forgotten.mean())
    # of a ratio of means, the delta method: the residual of each class over the mean
    se = stats.sem(difference + ratio * forgotten) / abs(forgotten.mean())
    assert row["selectivity"] == pytest.approx(ratio)
    assert (row["selectivity_high"] - row["selectivity_low"]) / 2 == pytest.approx(stats.t.ppf(0.975, 9) * se, rel=0.03)
    assert np.isnan(forgetting._average_over_classes(changes[:7])["selectivity_low"])


def test_outcomes_are_of_true_class(comparisons):
    """`outcomes` gives logit, probability and accuracy of each clip's true class, NaN for a class not of the model."""
    compared = comparisons["tone 2"]["blind"]
    found, logit = forgetting.outcomes(compared), compared["logit"].values
    own = [CLASSES.index(label) for label in compared["label"].values]
    rows = np.arange(len(own))
    np.testing.assert_allclose(found.sel(measure="logit"), logit[rows, ..., own], rtol=1e-6)
    np.testing.assert_allclose(found.sel(measure="probability"), softmax(logit, -1)[rows, ..., own], rtol=1e-5)
    right = logit.argmax(-1) == np.array(own)[:, None, None]
    np.testing.assert_array_equal(found.sel(measure="accuracy"), right)
    stranger = compared.assign_coords(label=("clip", ["hum", *compared["label"].values[1:]]))
    assert (
        np.isnan(forgetting.outcomes(stranger)[:, 0]).all() and np.isfinite(forgetting.outcomes(stranger)[:, 1:]).all()
    )


def test_summary_of_common_shift_changes_only_logits(comparisons):
    """A shift common to all logits changes logits, with selectivity 0, but neither probability nor accuracy."""
    compared = comparisons["tone 2"]["used"].copy(deep=True)
    compared["logit"][:, 1] = compared["logit"][:, 0] - 5
    found = forgetting.summary(compared, "tone 2").sel(dose=1, neuron_set="selected")
    np.testing.assert_allclose(found["change"].sel(measure="logit"), -5, rtol=1e-5)
    assert float(found["selectivity"].sel(measure="logit")) == pytest.approx(0, abs=1e-5)
    np.testing.assert_allclose(found["change"].sel(measure=["probability", "accuracy"]), 0, atol=1e-6)


def test_summary_computes_kl_and_macro_f1(comparisons):
    """`summary` gives the mean KL divergence from the unpruned model's probabilities, and the macro F1."""
    compared = comparisons["tone 2"]["blind"]
    found, p = forgetting.summary(compared, "tone 2"), softmax(compared["logit"].values.astype(float), -1)
    own = compared["label"].values == "tone 2"
    kl = stats.entropy(p[own][:, 0], p[own][:, 2], axis=-1).mean(0)
    np.testing.assert_allclose(found["kl"].sel(group="forgotten", dose=2), kl, rtol=1e-4, atol=1e-6)
    assert (found["kl"].sel(dose=0) == 0).all()
    used = forgetting.summary(comparisons["tone 2"]["used"], "tone 2").sel(neuron_set="selected")
    # seven classes known; what was the eighth is called by one of their names, half of which is then wrong
    np.testing.assert_allclose(used["macro_f1"].sel(dose=[0, 1]), [1, (6 + 2 / 3) / 8])


def test_selectivity_is_nan_without_forgetting():
    """`selectivity` is NaN where nothing was forgotten, and else relative to the change of the forgotten class."""
    found = forgetting.selectivity(xr.DataArray([0.0, -2.0, 2.0]), xr.DataArray([1.0, -0.5, 2.0]))
    np.testing.assert_allclose(found, [np.nan, 0.75, 0])


def test_frontier_joins_classes_strategies_doses(comparisons):
    """`frontier` joins classes, strategies and doses, with NaN at missing doses, and its plot shows them."""
    found = forgetting.frontier(
        {label: {"used": by["used"], "blind": by["blind"].isel(dose=[0, 2])} for label, by in comparisons.items()}
    )
    assert found.sizes["class"] == 8 and found["dose"].values.tolist() == [0, 1, 2]
    at = found["value"].sel(measure="accuracy", strategy="used", random=False, dose=1)
    assert (at.sel(group="forgotten") == 0).all() and (at.sel(group="kept") == 1).all()
    assert np.isnan(found["value"].sel(strategy="blind", dose=1)).all()
    random = (
        forgetting.summary(comparisons["tone 5"]["used"], "tone 5")["value"]
        .isel(neuron_set=slice(1, None))
        .mean("neuron_set")
    )
    np.testing.assert_allclose(
        found["value"]
        .sel({"class": "tone 5", "strategy": "used", "random": True})
        .sel(dose=2)
        .transpose("group", "measure"),
        random.sel(dose=2).transpose("group", "measure"),
    )
    figure = plots.frontier(found)
    line = next(line for line in figure.axes[0].lines if line.get_label() == "used")
    np.testing.assert_allclose(line.get_xydata()[:2], [[1, 1], [1, 0]])
    right = figure.axes[1]  # each way stands at its own doses
    assert [tick.get_text() for tick in right.get_xticklabels()] == ["0", "1", "2"]
    assert [0, 2] in [line.get_xdata().tolist() for line in right.lines]


def test_summary_refuses_class_without_clips(comparisons):
    """`summary` refuses a class of which there are no clips, and names it."""
    with pytest.raises(ValueError, match="tone 9"):
        forgetting.summary(comparisons["tone 2"]["used"], "tone 9")


def test_importance_follows_ranking(ears, train, test):
    """Pruned by rank, accuracy falls by one class per neuron; ties vary by draw; unranked neurons are never pruned."""
    support = pruning.support(ears, train, [HIDDEN]).mean("clip")
    neurons = support["unit"].to_index().get_level_values("neuron")
    wired = support.copy(data=[8.0 - UNIT.index(n) if n in UNIT[:4] else 0.0 for n in neurons])
    rankings = {"wired": wired, "counts": support.copy(data=np.ones(10))}
    found = pruning.importance(ears, test, rankings, shares=[0, 0.2, 0.21, 0.4, 0.6], seeds=3)
    accuracy = found["right"].mean("clip")
    np.testing.assert_allclose(
        accuracy.sel(ranking="wired", neuron_set="selected", draw=0), [1, 6 / 8, 6 / 8, 4 / 8, np.nan]
    )
    assert found["neurons"].values.tolist() == [[0, 2, 2, 4, 6]] * 2
    assert (
        len({tuple(x) for x in accuracy.sel(ranking="counts", neuron_set="selected").transpose("draw", "share").values})
        > 1
    )
    assert len(plots.importance_curves(found).axes) >= 2
