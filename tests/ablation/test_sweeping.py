from __future__ import annotations

import itertools
import json
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import xarray as xr
from drawn import words
from handmade import scores
from scipy import special, stats

from xai_lib import ablation, attribution, audio, edits, hooks, models, targets, widgets
from xai_lib.ablation import readouts
from xai_lib.ablation.conditions import ConditionGrid
from xai_lib.ablation.controls import NeuronSet
from xai_lib.activations import random_neurons
from xai_lib.probing import activation_proxies

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(4)}


@pytest.fixture(scope="module")
def clips(tone_clips):
    return tone_clips


def hooked(model, path, edit):
    """Logits [label] and blocks [layer, frame, neuron] of one forward with one edit."""
    x = model.tensor(audio.read(path))
    with torch.no_grad(), hooks.edit(model, edit), hooks.capture(model, model.sites()) as kept:
        logits = model.logits(x)[0]
    return logits.double().cpu().numpy(), torch.cat([kept[site] for site in model.sites()]).double().cpu()


def log_odds(logits, c):
    return logits[c] - special.logsumexp(np.delete(logits, c))


def test_activation_stats_equal_numpy(tiny, clips):
    """Activation statistics are mean, standard deviation and mean magnitude over the frames of all clips."""
    model = tiny()
    found = ablation.activation_stats(model, clips, part="ffn_hidden")
    sites = model.sites("ffn_hidden")
    frames = []
    for path in clips["path"]:
        with torch.no_grad(), hooks.capture(model, sites) as kept:
            model.logits(model.tensor(audio.read(path)))
        frames.append(torch.stack([kept[site][0] for site in sites]).double().cpu().numpy())
    frames = np.concatenate(frames, axis=1)
    assert found["layer"].values.tolist() == [1, 2, 3] and found.attrs["n_frames"] == frames.shape[1]
    for name, expected in {"mean": frames.mean(1), "std": frames.std(1), "magnitude": np.abs(frames).mean(1)}.items():
        assert found[name].values == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("part", ["hidden_state", "ffn_hidden"])
@pytest.mark.parametrize("frames", ["all", "speech", "max_frame"])
def test_sweep_equals_hooked_forwards(tiny, clips, part, frames):
    """Logits and readouts of a sweep equal those of a hooked forward for each clip, layer and mode."""
    model, two = tiny(), clips.iloc[3:5]
    neurons = {layer: own for layer, own in NEURONS.items() if layer or part == "hidden_state"}
    activation_stats, modes = ablation.activation_stats(model, clips.iloc[:3], part=part), ("flip", "zero", "mean")
    found = ablation.sweep(
        model,
        two,
        ablation.Selection(neurons, part),
        controls=None,
        edit=ablation.Edit(modes, frames=frames, activation_stats=activation_stats),
        target="angry",
        batch=5,
    )
    assert found["neuron_set"].values.tolist() == found["kind"].values.tolist() == ["selected"]
    c = model.target("angry")
    for clip, path in two["path"].items():
        clean, before = hooked(model, path, {})
        assert found["clean_logits"].sel(clip=clip).values == pytest.approx(clean, abs=1e-5)
        speech = audio.speech_mask(audio.read(path))
        for (layer, own), mode in itertools.product(neurons.items(), modes):
            function = edits.edit(
                own, mode, frames=frames, speech=speech, means=activation_stats["mean"].sel(layer=layer).values
            )
            logits, after = hooked(model, path, {hooks.Site(layer, part): function})
            row = found.sel(clip=clip, layer=layer, mode=mode, neuron_set="selected")
            assert row["logits"].values == pytest.approx(logits, abs=1e-5)
            assert row["target_change"].item() == pytest.approx(log_odds(logits, c) - log_odds(clean, c), abs=2e-5)
            kl = stats.entropy(special.softmax(clean), special.softmax(logits))
            assert row["kl"].item() == pytest.approx(kl, abs=1e-6)
            assert row["changed"].item() == (logits.argmax() != clean.argmax())
            spread = (after - before).norm(dim=(1, 2)) / before.norm(dim=(1, 2))
            frames_changed = ((after - before).norm(dim=2) > 0.1 * before.norm(dim=2)).double().mean(1)
            assert row["relative_change"].values[layer:] == pytest.approx(spread.numpy()[layer:], abs=1e-5)
            assert row["frames_changed"].values[layer:] == pytest.approx(
                frames_changed.numpy()[layer:], abs=0.051
            )  # a frame at the bound
            assert (
                np.isnan(row["relative_change"].values[:layer]).all()
                and np.isnan(row["frames_changed"].values[:layer]).all()
            )
    assert np.abs(found["target_change"]).min() > 0


def test_sweep_passes_window_scale_and_seed(tiny, clips):
    """Window, scale and seed reach the edit: another value of any of them gives other logits."""
    model, activation_stats = tiny(), ablation.activation_stats(tiny(), clips.iloc[:3])
    common = {"frames": "max_frame", "window": 2, "scale": 3.0}
    edit = ablation.Edit("noise", activation_stats=activation_stats, **common)
    selection = ablation.Selection(NEURONS)
    found = ablation.sweep(model, clips.iloc[3:4], selection, controls=None, edit=edit, target="angry", seed=5)
    for layer, own in NEURONS.items():
        stds = activation_stats["std"].sel(layer=layer).values
        logits = found["logits"].sel(layer=layer, mode="noise", neuron_set="selected").values[0]
        key = *targets.key(5, 3, "noise"), layer, 0
        for other in ({}, {"window": 0}, {"scale": 1.0}, {"seed": 0}):
            function = edits.edit(own, "noise", stds=stds, **{**common, "seed": key, **other})
            plain, _ = hooked(model, clips["path"][3], {hooks.Site(layer): function})
            assert np.allclose(logits, plain, atol=1e-5) == (not other), other


def test_sweep_seeds_noise_by_place_among_neuron_sets(tiny, clips):
    """The noise of each neuron set is seeded by its layer and its place among the sets, in every layer of a group."""
    model, stats = tiny(), ablation.activation_stats(tiny(), clips.iloc[:3])
    controls = ablation.RandomControls(stats, n=2)
    edit = ablation.Edit(("flip", "noise"), activation_stats=stats)
    selection = ablation.Selection(NEURONS).together({"two": [1, 2]})
    found = ablation.sweep(model, clips.iloc[3:4], selection, controls=controls, edit=edit, seed=5)
    sets = [selection.neurons_of("two"), *(one.neurons for one in controls.neuron_sets(model, selection, "two", 5))]
    assert len(sets) == found.sizes["neuron_set"] == 5
    for number, neurons in enumerate(sets):
        plan = {}
        for layer, own in neurons.items():
            stds = stats["std"].sel(layer=layer).values
            plan[layer] = edits.edit(own, "noise", stds=stds, seed=(*targets.key(5, 3, "noise"), layer, number))
        logits, _ = hooked(model, clips["path"][3], plan)
        got = found["logits"].sel(group="two", mode="noise").isel(clip=0, neuron_set=number)
        assert got.values == pytest.approx(logits, abs=1e-5)


def test_relative_change_equals_hand_calculation():
    """Relative change, share of changed frames and a further readout equal a calculation by hand, in any batches."""
    clean = torch.tensor([[[3.0, 4], [0, 10], [6, 8], [5, 0]]])  # norms 5, 10, 10, 5
    edited = clean + torch.tensor([[[0.0, 3], [0, 0], [0.99, 0], [0, -0.51]]])  # 60, 0, 9.9 and 10.2 %
    site = hooks.Site(2)
    size = np.sqrt((9 + 0.99**2 + 0.51**2) / 250)
    change = readouts.RelativeChange()
    assert change.names == ["relative_change", "frames_changed"]
    for batches in ([clean, torch.cat([edited, clean])], [torch.cat([clean, edited]), clean]):
        kept = {}
        model = SimpleNamespace(sites=lambda: [site])
        functions = {"change": change.functions(model, kept), "further": {site: lambda hidden: hidden[:, 0]}}
        read = readouts.joint_functions([site], functions, kept)[site]
        found = torch.cat([read(rows) for rows in batches]).numpy()
        assert found == pytest.approx(np.array([[0, 0, 3, 4], [size, 0.5, 3, 7], [0, 0, 3, 4]]))


def test_sweep_flip_doubles_zeroing(tiny_folder, clips):
    """With a head that reads a single neuron, a flip changes the log-odds twice as much as zeroing."""

    class Reads(torch.nn.Module):
        """The first label is neuron 3 of the last layer, the second 0."""

        def forward(self, hidden):
            value = hidden[..., 3].mean(1)
            return torch.stack([value, 0 * value], dim=-1)

    model = models.load(tiny_folder(), device="cpu", head=Reads(), labels=["yes", "no"])

    def swept(neurons, target="yes"):
        selection = ablation.Selection({3: neurons})
        edit = ablation.Edit(("flip", "zero"))
        result = ablation.sweep(model, clips.iloc[:3], selection, controls=None, edit=edit, target=target)
        return result.sel(neuron_set="selected")

    found = swept([3, 5])
    value = found["clean_logits"].sel(label="yes").values
    assert found["target_change"].sel(layer=3, mode="flip").values == pytest.approx(-2 * value, rel=1e-4)
    assert found["target_change"].sel(layer=3, mode="zero").values == pytest.approx(-value, rel=1e-4)
    other = swept([4, 5])
    assert (other["target_change"] == 0).all() and (other["relative_change"].sel(readout_layer=3) > 0).all()
    pair = swept([3], target=("no", "yes"))
    assert pair["target_change"].sel(mode="zero", layer=3).values == pytest.approx(value, rel=1e-4)


def test_sweep_reads_proxies_after_edit(tiny, clips):
    """Proxies change in layers after the edit, in units of their `sd`, and are not read before it."""
    model = tiny()
    fitted = activation_proxies.fit(model, clips.iloc[:4])
    activation_stats = ablation.activation_stats(model, clips.iloc[:4])
    found = ablation.sweep(
        model,
        clips.iloc[4:6],
        ablation.Selection(NEURONS),
        controls=ablation.RandomControls(activation_stats, n=2),
        readouts=[ablation.Proxies(fitted)],
    )
    assert found.sizes["neuron_set"] == 5
    for neuron_set, name in itertools.product(found["neuron_set"].values, ("proxy_value", "proxy_sd")):
        values = found[name].sel(neuron_set=neuron_set)
        for layer, readout_layer in itertools.product(range(4), range(4)):
            assert np.isfinite(values.sel(layer=layer, readout_layer=readout_layer)).all() == (readout_layer > layer)
    selected = found.sel(neuron_set="selected")
    after = selected["proxy_sd"].sel(proxy="rms")
    assert (np.abs(after.sel(layer=0, readout_layer=slice(1, None))) > 1e-4).all()
    clean = activation_proxies.measure(model, clips.iloc[4:6], fitted)["value"].rename(layer="readout_layer")
    assert found["clean_proxy_value"].values == pytest.approx(clean.values, rel=1e-4)
    change = (selected["proxy_value"] - clean) / fitted["sd"].rename(layer="readout_layer")
    assert np.allclose(change.transpose(*selected["proxy_sd"].dims), selected["proxy_sd"], atol=1e-3, equal_nan=True)
    inside = ablation.Selection({2: [0, 30]}, "ffn_hidden")
    inside = ablation.sweep(model, clips.iloc[4:5], inside, controls=None, readouts=[ablation.Proxies(fitted)])
    assert np.isfinite(inside["proxy_sd"].sel(readout_layer=2)).all()
    assert np.isnan(inside["relative_change"].sel(readout_layer=1)).all()


def test_sweep_null_equals_sweeps_of_random_sets(tiny, clips):
    """Random effects equal sweeps of the random sets, and their sizes and overlaps are those of these sets."""
    model, two = tiny(), clips.iloc[3:5]
    activation_stats = ablation.activation_stats(model, clips.iloc[:3])
    options = {"target": "sad", "edit": ablation.Edit(("zero",))}
    controls = ablation.RandomControls(activation_stats, n=3)
    found = ablation.sweep(model, two, ablation.Selection(NEURONS), controls=controls, seed=7, **options)
    assert found["neuron_set"].values.tolist()[:4] == ["selected", "random 1", "random 2", "random 3"]
    size = np.hypot(activation_stats["mean"], activation_stats["std"])
    sets = {}
    for layer, own in NEURONS.items():
        drawn = random_neurons.random_sets(size, {layer: np.array(own)}, 3, seed=7)
        sets[layer] = [neuron_set[layer] for neuron_set in drawn]
    for number in range(3):
        drawn = {layer: of_layer[number] for layer, of_layer in sets.items()}
        one = ablation.sweep(model, two, ablation.Selection(drawn), controls=None, **options)
        random = found.sel(neuron_set=f"random {number + 1}")
        for name in ("target_change", "relative_change", "kl"):
            expected = ablation.selected_values(one[name]).values
            assert random[name].values == pytest.approx(expected, abs=1e-5, nan_ok=True)
        for layer, own in drawn.items():
            here = size.sel(layer=layer).values
            rms = found["rms"].sel(layer=layer)
            assert random["rms"].sel(layer=layer) == pytest.approx(np.sqrt(np.mean(here[own] ** 2)))
            assert rms.sel(neuron_set="selected") == pytest.approx(np.sqrt(np.mean(here[NEURONS[layer]] ** 2)))
            pairs = [np.isin(a, b).mean() for a, b in itertools.combinations(sets[layer], 2)]
            assert found["random_overlap"].sel(layer=layer) == pytest.approx(np.mean(pairs))
    for layer, own in NEURONS.items():
        count = random_neurons.count_random_sets(size, {layer: np.array(own)})
        assert found["n_random_sets"].sel(layer=layer).item() == count


def test_sweep_selects_top_neurons_of_scores(tiny, clips):
    """Scores select the `k` top neurons of each layer, and the default target is the predicted label."""
    model = tiny()
    scores = attribution.grad_x_activation(model, clips.iloc[:3], target="angry")
    found = ablation.sweep(model, clips.iloc[3:4], ablation.select(scores, 2, layers=[3, 1]), controls=None)
    assert found["layer"].values.tolist() == [1, 3]
    for layer in (1, 3):
        top = sorted(attribution.top_neurons(scores, 2, layer=layer)["neuron"])
        assert np.flatnonzero(found["is_selected"].sel(layer=layer)).tolist() == top
    assert ablation.selected_neurons(found) == ablation.selected_neurons(found.mean("clip"))
    assert found["target"].item() == model.labels[found["clean_logits"].values.argmax()]  # "predicted"


def test_select_takes_all_layers_and_part_of_scores(tiny, clips):
    """Without `layers`, neurons of all layers that have scores are selected, of the part that the scores are of."""
    model = tiny()
    scores = attribution.grad_x_activation(model, clips.iloc[:3], target="angry", part="ffn_out")
    selection = ablation.select(scores)
    assert list(selection.neurons) == [1, 2, 3] and selection.part == "ffn_out"
    assert [len(neurons) for neurons in selection.neurons.values()] == [20, 20, 20]
    assert selection.speakers == ("s0", "s1", "s2")
    found = ablation.sweep(model, clips.iloc[3:4], selection, controls=None)
    assert found.attrs["part"] == "ffn_out" and found["layer"].values.tolist() == [1, 2, 3]


def test_selection_sorts_layers_and_neurons():
    """A selection has its layers and neurons in ascending order, each once, and records them as JSON."""
    selection = ablation.Selection({3: [5, 1, 5], np.int64(1): 7})
    assert selection.part == "hidden_state" and selection.dim == "layer"
    assert [*selection.neurons] == [1, 3] and selection.layer_groups == {1: [1], 3: [3]}
    assert selection.neurons[3].tolist() == [1, 5] and selection.neurons_of(1)[1].tolist() == [7]
    assert {layer: indices.tolist() for layer, indices in selection.neurons.items()} == {1: [7], 3: [1, 5]}


def test_selection_together_edits_groups_of_layers():
    """Groups hold the neurons of their layers, and layers that are in no group are left out."""
    selection = ablation.Selection({0: [9], 1: [3], 2: [3, 4], 3: [5]}, "ffn_out", speakers=("a",))
    joint = selection.together({"late": [3, 2], "early": [0]})
    assert joint.dim == "group" and joint.layer_groups == {"late": [2, 3], "early": [0]}
    assert [*joint.neurons] == [0, 2, 3] and joint.part == "ffn_out" and joint.speakers == ("a",)
    assert {layer: neurons.tolist() for layer, neurons in joint.neurons_of("late").items()} == {2: [3, 4], 3: [5]}
    assert selection.dim == "layer" and [*selection.neurons] == [0, 1, 2, 3]


def test_sweep_names_unusable_clips(tiny, clips, monkeypatch):
    """Clips that are missing or without speech are skipped and named, and refused if no other is left."""
    model, rows, mask = tiny(), clips.iloc[:3].copy(), audio.speech_mask
    rows.loc[1, "path"] = "nowhere.wav"
    longest = max(len(audio.read(path)) for path in clips["path"][[0, 2]])
    monkeypatch.setattr(audio, "speech_mask", lambda x, *a, **kw: mask(x, *a, **kw) & (len(x) < longest))
    options = {"controls": None, "edit": ablation.Edit(frames="speech")}
    with pytest.warns(UserWarning, match="nowhere"):
        found = ablation.sweep(model, rows, ablation.Selection(NEURONS), **options)
    assert found["clip"].values.tolist() == [0]
    skipped = json.loads(found.attrs["skipped"])
    assert list(skipped) == ["1", "2"] and "no speech" in skipped["2"]
    with pytest.raises(ValueError, match="no speech was found"):
        ablation.sweep(model, rows.iloc[2:], ablation.Selection(NEURONS), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": ablation.Selection({4: [0]})}, "layer 4 out of range: this model has 0–3"),
        ({"selection": ablation.Selection({9: [0]})}, "layer 9 out of range: this model has 0–3"),
        ({"selection": ablation.Selection({1: [24]})}, "neuron 24 out of range"),
        ({"edit": ablation.Edit(("mean",))}, "needs activation_stats="),
        ({"controls": ablation.RandomControls(n=5)}, "needs activation_stats="),
        ({"target": "bored"}, "bored"),
    ],
)
def test_sweep_refuses_invalid_options(tiny, clips, options, message):
    """A sweep refuses layers and neurons that the model lacks, unknown targets, and missing statistics."""
    with pytest.raises(ValueError, match=message):
        ablation.sweep(
            tiny(), clips.iloc[:1], **{"selection": ablation.Selection(NEURONS), "controls": None, **options}
        )


@pytest.mark.parametrize(
    ("neurons", "message"),
    [
        ({1: []}, "no neurons are given for layer 1"),
        ({}, "the selection has no layer: give {layer: neurons}"),
        ({2: np.arange(24) < 3}, "neurons must be whole numbers, not bool: for a mask give np.flatnonzero"),
        ({2: [7.9]}, "neurons must be whole numbers, not float64"),
        ({2.5: [7]}, "layer must be an integer, not 2.5"),
        ({"late": [7]}, "layer must be an integer, not 'late'"),
        ([1, 2], "a selection is {layer: neurons}; of scores, ablation.select"),
        (scores([[[1.0, 2]]], ["s0"]), "a selection is {layer: neurons}; of scores, ablation.select"),
    ],
)
def test_selection_refuses_invalid_neurons(neurons, message):
    """A selection refuses what is not {layer: neurons}, layers without neurons, masks and other numbers."""
    with pytest.raises(ValueError, match=message):
        ablation.Selection(neurons)


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ({"odd": [1, 9]}, "no neurons are given for layer 9"),
        ({}, "no group is given: leave groups out"),
        ({"none": []}, "no layer is given for the group 'none'"),
        ({"some": [1], "none": []}, "no layer is given for the group 'none'"),
        ({"some": [1.5]}, "layer must be an integer, not 1.5"),
        ({"some": "12"}, "layer must be an integer, not '1'"),
        ({"some": 1}, "the layers of the group 'some' must be a list, not 1"),
        ([1, 2], r"groups must be {name: layers}, as returned by ablation.groups\(model\), not \[1, 2\]"),
    ],
)
def test_selection_refuses_invalid_groups(groups, message):
    """Groups are refused that have no layers, or layers that are not in the selection or no integers."""
    with pytest.raises(ValueError, match=message):
        ablation.Selection(NEURONS).together(groups)
    with pytest.raises(ValueError, match=message):
        ablation.Selection(NEURONS, groups=groups)


def test_selection_with_groups_equals_together():
    """Groups given at once are those of `together`: sorted layers, and only neurons of layers in a group."""
    neurons = {3: [1], 1: [7, 2], 2: [4]}
    at_once = ablation.Selection(neurons, groups={"outer": [3, 1, 3]})
    afterwards = ablation.Selection(neurons).together({"outer": [3, 1, 3]})
    of_set = ablation.Selection(neurons).together({"outer": {3, 1}})
    for selection in (at_once, afterwards, of_set):
        assert selection.groups == {"outer": [1, 3]}
        assert list(selection.neurons) == [1, 3]
        assert {layer: indices.tolist() for layer, indices in selection.neurons.items()} == {1: [2, 7], 3: [1]}


def test_sweep_records_neurons_of_groups(tiny, clips):
    """A sweep records the neurons of each group by layer, and `selected_neurons` returns those of all or of one."""
    selection = ablation.Selection({1: [7, 2], 2: [4], 3: [1]}).together({"outer": [1, 3], "upper": [2, 3]})
    found = ablation.sweep(tiny(), clips.iloc[:1], selection, controls=None)
    assert found["is_selected"].dims == ("group", "edited_layer", "neuron")
    assert ablation.selected_neurons(found) == {1: [2, 7], 2: [4], 3: [1]}
    assert ablation.selected_neurons(found, group="outer") == {1: [2, 7], 3: [1]}
    assert ablation.selected_neurons(found, group="upper") == {2: [4], 3: [1]}


def test_selection_takes_one_speaker_as_text():
    """A speaker given as text is one speaker, not one for each letter."""
    assert ablation.Selection(NEURONS, speakers="s1").speakers == ("s1",)
    assert ablation.Selection(NEURONS, speakers=["s1", "s2"]).speakers == ("s1", "s2")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": 0}, "k must be a whole number from 1 up, not 0"),
        ({"k": 2.0}, "k must be a whole number from 1 up, not 2.0"),
        ({"k": (1, 2)}, r"k must be a whole number from 1 up, not \(1, 2\)"),
        ({"k": 5}, "k is 5, and there are 4 neurons in a layer: give a smaller k"),
        ({"layers": [1, 9]}, "no neurons are given for layer 9"),
        ({"layers": []}, "no neurons are given for any layer"),
        ({"layers": "late"}, "layer must be an integer, not 'late'"),
        ({"layers": [0.5]}, "layer must be an integer, not 0.5"),
        ({"scores": NEURONS}, r"scores must be a Dataset of attribution; .* ablation.Selection\({layer: neurons}\)"),
    ],
)
def test_select_refuses_invalid_options(options, message):
    """Neurons are selected from scores alone, at most as many as there are, in layers that have scores."""
    values = np.arange(8.0).reshape(1, 2, 4)
    with pytest.raises(ValueError, match=message):
        ablation.select(**{"scores": scores(values, ["s0"]), "k": 2, **options})


def test_select_takes_k_up_to_width():
    """As many neurons can be selected as a layer has."""
    selection = ablation.select(scores(np.arange(8.0).reshape(1, 2, 4), ["s0"]), 4)
    assert {layer: neurons.tolist() for layer, neurons in selection.neurons.items()} == {
        0: [0, 1, 2, 3],
        1: [0, 1, 2, 3],
    }


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"modes": ("explode",)}, "unknown mode 'explode': the modes are flip, zero"),
        ({"modes": "explode"}, "unknown mode 'explode'"),
        ({"modes": ()}, "an edit needs a mode: flip, zero"),
        ({"modes": ("flip", "zero", "flip")}, "modes contains duplicates: flip, zero, flip"),
        ({"frames": "some"}, "unknown frames 'some': use all, speech, max_frame, peak_frames or a list"),
        ({"frames": None}, "frames must be all, speech, max_frame, peak_frames or a list of frames, not None"),
        ({"window": -1}, "window must be a whole number from 0 up, not -1"),
        ({"window": 1.5}, "window must be a whole number from 0 up, not 1.5"),
        ({"n_peaks": 0}, "n_peaks must be a whole number from 1 up, not 0"),
        ({"n_peaks": "3"}, "n_peaks must be a whole number from 1 up, not '3'"),
        ({"scale": np.nan}, "scale must be a number of standard deviations, not nan"),
        ({"scale": "2"}, "scale must be a number of standard deviations, not '2'"),
    ],
)
def test_edit_refuses_invalid_options(options, message):
    """An edit refuses unknown or repeated modes, unknown frames, and numbers that are too small."""
    with pytest.raises(ValueError, match=message):
        ablation.Edit(**options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"n": -1}, "n must be a whole number from 0 up, not -1"),
        ({"n": 2.5}, "n must be a whole number from 0 up, not 2.5"),
        ({"n_directions": -1}, "n_directions must be a whole number from 0 up, not -1"),
        ({"n": True}, "n must be a whole number from 0 up, not True"),
        ({"size_classes": 0}, "size_classes must be a whole number from 1 up, not 0"),
        ({"size_classes": "3"}, "size_classes must be a whole number from 1 up, not '3'"),
        ({"modes": ()}, "controls are edited in no mode"),
        ({"n": 0, "target_blind_stats": xr.Dataset()}, "target-blind selections come with random sets"),
    ],
)
def test_random_controls_refuse_invalid_options(options, message):
    """Controls refuse numbers that are too small or not whole, no mode, and target-blind selections without sets."""
    with pytest.raises(ValueError, match=message):
        ablation.RandomControls(**options)


def test_sweep_refuses_statistics_of_other_part_or_model(tiny, clips):
    """A sweep refuses statistics of another part or model, for an edit, for random sets and for target-blind ones."""
    model, one = tiny(), clips.iloc[:1]
    selection = ablation.Selection(NEURONS)
    stats = ablation.activation_stats(model, one)
    of_part = ablation.activation_stats(model, one, part="ffn_out")
    others = {"of ffn_out instead of hidden_state": of_part, "of another model": stats.isel(neuron=slice(9))}
    for message, other in others.items():
        for controls in (ablation.RandomControls(other), ablation.RandomControls(stats, target_blind_stats=other)):
            with pytest.raises(ValueError, match=message):
                ablation.sweep(model, one, selection, controls=controls)
        with pytest.raises(ValueError, match=message):
            ablation.sweep(model, one, selection, controls=None, edit=ablation.Edit("mean", activation_stats=other))
    scores = attribution.grad_x_activation(model, one, target="sad", part="ffn_out")
    with pytest.raises(ValueError, match="of hidden_state instead of ffn_out"):
        ablation.sweep(model, one, ablation.select(scores), controls=ablation.RandomControls(stats))


def test_condition_grid_arranges_rows_by_condition():
    """Rows lie where their condition is, [layer, mode, neuron set], and NaN where controls were not asked for."""
    neuron_sets = {}
    for layer in (1, 3):
        names = {"selected": "selected", "random 1": "random", "most active": "target-blind"}
        neuron_sets[layer] = [NeuronSet(name, kind, {layer: np.array([0])}) for name, kind in names.items()]
    grid = ConditionGrid(neuron_sets, ("zero", "flip"), ["flip"])
    assert [(one.layer_group, one.mode, one.neuron_set.name, one.set_number) for one in grid.conditions] == [
        (1, "zero", "selected", 0),
        (1, "flip", "selected", 0),
        (1, "flip", "random 1", 1),
        (1, "flip", "most active", 2),
        (3, "zero", "selected", 0),
        (3, "flip", "selected", 0),
        (3, "flip", "random 1", 1),
        (3, "flip", "most active", 2),
    ]
    missing = np.nan
    expected = [[[1, missing, missing], [2, 3, 4]], [[5, missing, missing], [6, 7, 8]]]
    rows = np.arange(1.0, 9)
    np.testing.assert_array_equal(grid.arrange(rows), expected)
    several = grid.arrange(np.stack([rows, 10 * rows], axis=-1))
    assert several.shape == (2, 2, 3, 2)
    np.testing.assert_array_equal(several[..., 0], expected)
    np.testing.assert_array_equal(several[..., 1], 10 * np.array(expected))


def test_ablation_explorer_follows_controls(tiny_sweeps):
    """The explorer follows layer, mode and readout, and says which modes were run for the chosen frames."""
    explorer = widgets.AblationExplorer(tiny_sweeps[:2])
    assert explorer.error is None and explorer.controls["layer"].value == 2
    explorer.controls["layer"].value = 3
    assert "Layer 3, flip" in words(explorer.figure)
    explorer.controls["mode"].value = "zero"
    explorer.controls["readout"].value = "decision changed"
    assert explorer.error is None and "another label" in words(explorer.figure)
    explorer.controls["frames"].value = "max_frame"
    assert "mode 'zero' was not run with frames='max_frame': choose from flip" in explorer.error
