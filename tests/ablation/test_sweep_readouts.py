"""What a sweep crosses: modes, neuron sets, groups of layers, donors; and what is read of it."""

from __future__ import annotations

import itertools
import json
import re
import warnings
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
import xarray as xr
from handmade import neuron_sets, selected_mask, without

from xai_lib import ablation, activations, attribution, audio, edits, execution, hooks, workbook
from xai_lib.activations import caching, donors, random_neurons
from xai_lib.probing import acoustic_decoders, activation_proxies, speaker_space

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(4)}
LABELS = ("angry", "sad", "calm")


@pytest.fixture(scope="module")
def clips(emotional_buzzes):
    return emotional_buzzes


@pytest.fixture(scope="module")
def stats(tiny, clips):
    """Activation statistics of training clips."""
    return ablation.activation_stats(tiny(), clips.iloc[:15])


@pytest.fixture(scope="module")
def readouts(tiny, clips):
    """A readout of every kind, fitted on training clips."""
    return fitted_readouts(tiny(), clips.iloc[:15])


def fitted_readouts(model, train):
    """A readout of every kind, fitted on clips."""
    return [
        ablation.Proxies(activation_proxies.fit(model, train)),
        ablation.Decoders(acoustic_decoders.fit(model, train)),
        ablation.SpeakerSimilarity(speaker_space.fit(model, train)),
    ]


def hooked(model, path, edit):
    with torch.no_grad(), hooks.edit(model, edit):
        return model.logits(model.tensor(audio.read(path)))[0].cpu().numpy()


@pytest.fixture(scope="module")
def responses(tiny, clips, stats, readouts):
    """Half of the neurons of each layer edited in every mode, and all that is read of it."""
    test, half = clips.iloc[[21, 22]], {layer: range(0, 24, 2) for layer in range(4)}
    others = donors.random_donors(test, clips.iloc[:15])
    edit = ablation.Edit(edits.MODES, activation_stats=stats, donors=others)
    found = ablation.sweep(tiny(), test, ablation.Selection(half), controls=None, edit=edit, readouts=readouts)
    return found.sel(neuron_set="selected")


READ = (
    "target_change",
    "logits",
    "probability",
    "log_odds",
    "kl",
    "relative_change",
    "frames_changed",
    "decoded",
    "decoded_change",
    "similarity",
)


@pytest.mark.parametrize("mode", edits.MODES)
@pytest.mark.parametrize("name", [*READ, "proxy_value", "proxy_change", "proxy_sd"])
def test_sweep_readouts_respond_to_every_mode(responses, name, mode):
    """Every readout changes under every mode of edit, for each edited layer that can affect it."""
    found = responses.sel(mode=mode)
    clean = found.get(f"clean_{name}", 1 if name == "similarity" else 0)
    away = np.abs(found[name] - clean).max([dim for dim in ("clip", "readout_layer") if dim in found[name].dims])
    layers = [at for at in found["layer"].values if away.sel(layer=at).notnull().any()]
    assert layers == ([0, 1, 2] if name.startswith(("decoded", "similarity", "proxy")) else [0, 1, 2, 3])
    if "proxy" in name:  # a count of crossings need not change in each layer
        assert (away.sel(proxy="zcr").max() > 1e-5) and (away.sel(layer=layers).drop_sel(proxy="zcr") > 1e-5).all()
    else:
        assert (away.sel(layer=layers) > 1e-5).all()  # of every layer, feature and label


def test_sweep_readouts_are_consistent(responses):
    """Readouts exist after the edit only, changes are edited minus clean, and log-odds follow probabilities."""
    found = responses
    for name in ("proxy_value", "decoded", "similarity"):  # read after the edit and nowhere else
        where = found[name].notnull().any([dim for dim in found[name].dims if dim not in ("layer", "readout_layer")])
        assert (where == (found["readout_layer"] > found["layer"])).all()
    assert found["similarity"].max() <= 1 + 1e-5 and set(found["feature"].values) == set(acoustic_decoders.FEATURES)
    clean = found["clean_decoded"].broadcast_like(found["decoded"])
    assert np.allclose(found["decoded"] - clean, found["decoded_change"], equal_nan=True, atol=1e-3)
    odds = np.log(found["probability"] / (1 - found["probability"]))
    before = np.log(found["clean_probability"] / (1 - found["clean_probability"]))
    assert np.allclose(odds - before, found["log_odds"], atol=1e-4)
    best = found["clean_logits"].argmax("label")
    assert np.allclose(found["log_odds"].isel(label=best), found["target_change"], atol=1e-4)  # the target: "predicted"


@pytest.mark.parametrize("size", ["base", "large"])
def test_edit_flip_is_undone_by_second_flip(tiny, clips, size):
    """Two flips of the same neurons restore the clean logits bit for bit, in each part and frame policy."""
    model, path = tiny(size), clips["path"][0]
    clean = hooked(model, path, {})
    for part in ("hidden_state", "attention", "ffn_hidden", "ffn_out"):
        for frames in ("all", "max_frame", "peak_frames", [3, 5]):
            flip = edits.edit([1, 5, 17], "flip", frames=frames, window=1 if frames != "all" else 0)
            with hooks.edit(model, {(2, part): flip}):
                assert not np.array_equal(hooked(model, path, {}), clean)
                assert np.array_equal(hooked(model, path, {(2, part): flip}), clean), (part, frames)


@pytest.mark.parametrize("window", [0, 2])
@pytest.mark.parametrize("frames", ["all", "speech", "max_frame", "peak_frames", "listed", "seconds"])
def test_sweep_frame_policies_equal_manual_hook(tiny, clips, frames, window):
    """Each frame policy and window gives the logits of a forward with a hook written by hand."""
    model, test, own = tiny(), clips.iloc[[21]], [1, 6, 17]
    wave = audio.read(test["path"].iloc[0])
    speech, given = (
        np.flatnonzero(audio.speech_mask(wave)),
        {"listed": [0, 5, 9], "seconds": model.frames_between(0.1, 0.2)},
    )
    assert given["seconds"].tolist() == [t for t in range(22) if 0.1 <= 0.02 * t + 0.0125 < 0.2]

    def flip(hidden):
        out, size, n = hidden.clone(), hidden[0].abs(), hidden.shape[1]
        largest = size[:, own].sum(dim=1).argsort()[-3:].tolist()
        at = {"all": range(n), "speech": speech, "peak_frames": largest, **given}
        for neuron in own:
            for t in at.get(frames, [int(size[:, neuron].argmax())]):
                near = slice(max(t - window, 0), t + window + 1)
                out[0, near, neuron] = -hidden[0, near, neuron]
        return out

    edit = ablation.Edit(frames=given.get(frames, frames), window=window, n_peaks=3)
    found = ablation.sweep(model, test, ablation.Selection({2: own}), controls=None, edit=edit)
    want = hooked(model, test["path"].iloc[0], {2: flip})
    assert found["logits"].values.ravel() == pytest.approx(want, abs=1e-5)
    assert np.abs(want - hooked(model, test["path"].iloc[0], {})).max() > 1e-4


def test_sweep_reads_similarity_in_last_layer_space(tiny, clips):
    """In a speaker space of the last layer alone, as of an x-vector head, only that layer has similarities."""
    model = tiny()
    readouts = [ablation.SpeakerSimilarity(lambda hidden: hidden.mean(dim=1))]
    found = ablation.sweep(model, clips.iloc[[21]], ablation.Selection(NEURONS), controls=None, readouts=readouts)
    read = found["similarity"].notnull().squeeze()
    assert (read == (found["readout_layer"] == 3) & (found["layer"] < 3)).all()
    assert found["similarity"].min() < 1 - 1e-5


def test_sweep_equals_separate_sweeps_of_layers_and_modes(tiny, clips, stats):
    """A sweep of several layers and modes equals a sweep of each, for each selection, target and `k`."""
    model, test = tiny(), clips.iloc[[21, 24]]
    controls = ablation.RandomControls(stats, n=2, n_directions=2)
    modes = ("flip", "zero")
    aims = {"angry": "angry", "sad": ("sad", "calm")}
    names = {"angry": "angry", "sad": "sad − calm"}
    for name, target in aims.items():
        scores = attribution.grad_x_activation(model, clips[clips["label"] == name], target=name)
        for k in (1, 4):
            options = {"controls": controls, "target": target}
            selection = ablation.select(scores, k, layers=[1, 3])
            found = ablation.sweep(model, test, selection, edit=ablation.Edit(modes), **options)
            assert set(found["target"].values) == {names[name]}
            for layer in (1, 3):
                listed = ablation.selected_neurons(found)[layer]
                assert listed == sorted(attribution.top_neurons(scores, k, layer=layer)["neuron"])
                alone = ablation.select(scores, k, layers=[layer])
                assert alone.neurons[layer].tolist() == listed
                for mode in modes:
                    one = ablation.sweep(model, test, alone, edit=ablation.Edit(mode), **options)
                    here = found.sel(layer=[layer], mode=[mode])
                    for variable, values in one.data_vars.items():
                        xr.testing.assert_allclose(here[variable], values, atol=1e-5)


def test_select_takes_either_end_of_scores(tiny, clips):
    """Neurons of greatest score are selected, and those of the least where scores are turned round."""
    scores = attribution.grad_x_activation(tiny(), clips[clips["label"] == "sad"], target="sad")
    order = attribution.top_neurons(scores, 24, layer=2)["neuron"].tolist()
    top = ablation.select(scores, 3, layers=[2])
    bottom = ablation.select(scores.assign(absolute=-scores["absolute"]), 3, layers=[2])
    assert top.neurons[2].tolist() == sorted(order[:3])
    assert bottom.neurons[2].tolist() == sorted(order[-3:])


def test_sweep_edits_random_directions(tiny, clips):
    """Random directions are flipped as a hook flips them, in layers and groups, and are refused for noise."""
    model, test = tiny(), clips.iloc[[21]]
    selection = ablation.Selection(NEURONS)
    controls = ablation.RandomControls(n=0, n_directions=2)
    found = ablation.sweep(model, test, selection, controls=controls, seed=3)
    assert found["neuron_set"].values.tolist() == ["selected", "direction 1", "direction 2"]
    for layer, place in itertools.product(NEURONS, range(2)):
        basis = edits.directions(24, 3, 2, seed=[3, layer])[place]
        want = hooked(model, test["path"].iloc[0], {layer: edits.edit(basis, "flip")})
        got = found["logits"].sel(layer=layer, neuron_set=f"direction {place + 1}").isel(clip=0, mode=0)
        assert got.values == pytest.approx(want, abs=1e-5)
    turned = ablation.effect_over_speakers(found, against="direction")
    directions = ablation.control_values(found["target_change"], "direction")
    assert turned["random_mean"].sel(layer=1).item() == pytest.approx(directions.sel(layer=1).mean().item())
    joint = ablation.sweep(model, test, selection.together({"two": [1, 2]}), controls=controls, seed=3)
    basis = edits.directions(24, 4, 2, seed=[3, 1, 2])[1]  # of 1, 5, 17 and 1, 6, 17: two are chosen in both layers
    flips = {1: edits.edit(basis[:, [0, 1, 3]], "flip"), 2: edits.edit(basis[:, [0, 2, 3]], "flip")}
    got = joint["logits"].sel(neuron_set="direction 2").isel(clip=0, mode=0, group=0)
    assert got.values == pytest.approx(hooked(model, test["path"].iloc[0], flips), abs=1e-5)
    noise = ablation.Edit("noise", activation_stats=ablation.activation_stats(model, clips.iloc[:2]))
    with pytest.raises(ValueError, match="mode 'noise' takes neurons, not directions"):
        ablation.sweep(model, test, selection, controls=ablation.RandomControls(n=0, n_directions=1), edit=noise)


def test_sweep_separates_direct_and_indirect_effects(tiny, clips):
    """The direct effect is the edit times the decoder's weights; the indirect one is the rest of the change."""
    model, train, path = tiny("large"), clips.iloc[:15], clips["path"][21]
    selection, test = ablation.Selection(NEURONS), clips.iloc[[21]]
    fitted = acoustic_decoders.fit(model, train)
    with_norms = [ablation.Decoders(acoustic_decoders.fit(tiny(), train))]
    plain = ablation.sweep(tiny(), test, selection, controls=None, readouts=with_norms)
    assert "direct_effect" not in plain  # a norm comes between
    found = ablation.sweep(
        model,
        test,
        selection,
        controls=ablation.RandomControls(ablation.activation_stats(model, train), n=2),
        edit=ablation.Edit(("flip", "zero")),
        readouts=[ablation.Decoders(fitted)],
        batch=3,
    )
    counts = np.isfinite(acoustic_decoders.truth(model, audio.read(path)))
    direct = found["direct_effect"].sel(neuron_set="selected")
    for layer, mode in itertools.product(NEURONS, ("flip", "zero")):
        with torch.no_grad(), hooks.capture(model, layer) as seen:
            model.logits(model.tensor(audio.read(path)))
        away = np.zeros(seen[hooks.Site(layer)][0].shape)
        own = seen[hooks.Site(layer)][0].numpy()[:, NEURONS[layer]]
        away[:, NEURONS[layer]] = -own * (2 if mode == "flip" else 1)
        for readout_layer, place in itertools.product(range(layer + 1, 4), range(3)):  # the features that are linear
            weight = fitted["weight"].values[readout_layer, place]
            want = (away @ weight)[counts[place]].mean()
            got = direct.sel(layer=layer, mode=mode, readout_layer=readout_layer).values[0, place]
            assert got == pytest.approx(want, rel=1e-3, abs=1e-3 * np.abs(weight).max())
    np.testing.assert_allclose(
        found["direct_effect"] + found["indirect_effect"], found["decoded_change"], rtol=1e-4, atol=1e-3
    )
    silence(model)
    still = ablation.sweep(model, test, selection, controls=None, readouts=[ablation.Decoders(fitted)])
    assert np.nanmax(np.abs(still["indirect_effect"])) < 1e-3 * np.nanmax(np.abs(still["decoded_change"]))


def silence(model, above=0):
    """Make layers that add nothing of all above one."""
    for block, name in itertools.product(
        model.architecture.layers[above:], ("attention.out_proj", "feed_forward.output_dense")
    ):
        module = block.get_submodule(name)
        module.weight.data.zero_(), module.bias.data.zero_()


INSIDE = ("attention", "ffn_hidden", "ffn_out", "heads")


@pytest.mark.parametrize(
    ("part", "members"),
    [*itertools.product(("hidden_state", *INSIDE), ([1, 2], [1])), ("hidden_state", [0, 1, 2])],
    ids=str,
)
def test_sweep_effects_are_direct_through_silent_layers(tiny, clips, part, members):
    """Through layers that add nothing, edits of any part or of several layers have no indirect effect."""
    model, train, test = tiny("large"), clips.iloc[:15], clips.iloc[[21, 22]]
    joint = len(members) > 1
    neurons = {at: [1, 4 + at, 17] for at in members}
    selection = ablation.Selection(neurons | {3: [2]}, part)  # what is edited in layer 3 joins the batch later
    if joint:
        selection = selection.together({"several": members, "other": [3]})
    options = {"controls": None, "edit": ablation.Edit(("flip", "zero")), "batch": 2}
    options["readouts"] = [ablation.Decoders(acoustic_decoders.fit(model, train))]
    whole = ablation.sweep(model, test, selection, **options)
    silence(model, above=members[-1])
    still = ablation.sweep(model, test, selection, **options)
    place = {"group": "several"} if joint else {"layer": 1}
    whole, still = (found.sel(**place, readout_layer=slice(members[-1], None)) for found in (whole, still))
    assert (
        still["decoded_change"].notnull().any() and (np.abs(still["decoded_change"]).max("readout_layer") > 1e-3).all()
    )
    limit = 1e-3 * float(np.abs(still["decoded_change"]).max())
    assert np.nanmax(np.abs(still["indirect_effect"])) < limit < 10 * np.nanmax(np.abs(whole["indirect_effect"]))
    linear = {"feature": slice(None, "f0")}  # and so the same whatever the layers above made of the clean clip
    want, got = still["decoded_change"].sel(linear), whole["direct_effect"].sel(linear)
    np.testing.assert_allclose(got, want, rtol=1e-3, atol=limit)


def test_sweep_edits_groups_jointly(tiny, clips, stats, readouts):
    """A group of layers is edited in one forward; `average_over_layers` averages edits of single layers."""
    model, test = tiny(), clips.iloc[[21, 22]]
    halves = ablation.groups(model, ("lower", "upper"))
    assert halves == {"lower 0–1": [0, 1], "upper 2–3": [2, 3]}
    thirds = ablation.groups(model)
    assert [*itertools.chain(*thirds.values())] == [0, 1, 2, 3] and [name.split()[0] for name in thirds] == [
        "early",
        "middle",
        "late",
    ]
    selection = ablation.Selection(NEURONS)
    options = {"controls": ablation.RandomControls(stats, n=2), "readouts": readouts, "target": "sad"}
    joint = ablation.sweep(model, test, selection.together(halves), **options)
    assert joint["group"].values.tolist() == list(halves) and "layer" not in joint.dims
    size, sets = np.hypot(stats["mean"], stats["std"]), {}
    for members in halves.values():  # a neuron that is chosen in both layers has the same one in its place in both
        own = {at: np.array(NEURONS[at]) for at in members}
        drawn = random_neurons.random_sets(size, own, 2, seed=0)[1]
        sets |= {at: drawn[at].tolist() for at in members}
        assert len(set(sets[members[0]]) & set(sets[members[1]])) >= 2
    for name, members in halves.items():
        for clip, path in test["path"].items():
            want = hooked(model, path, {at: edits.edit(NEURONS[at]) for at in members})
            logits = joint["logits"].sel(group=name, clip=clip, mode="flip")
            assert logits.sel(neuron_set="selected").values == pytest.approx(want, abs=1e-5)
            want = hooked(model, path, {at: edits.edit(sets[at]) for at in members})
            assert logits.sel(neuron_set="random 2").values == pytest.approx(want, abs=1e-5)
        spread, value = (
            joint[variable].sel(group=name, mode="flip") for variable in ("relative_change", "proxy_value")
        )
        assert (spread.notnull() == (joint["readout_layer"] >= members[0])).all()
        assert (value.notnull() == (joint["readout_layer"] > members[-1])).all()
    single = ablation.sweep(model, test, selection, **options)
    mean = ablation.average_over_layers(single, halves)
    want = ablation.selected_values(single["target_change"]).sel(layer=[2, 3]).mean("layer")
    got = ablation.selected_values(mean["target_change"]).sel(group="upper 2–3")
    np.testing.assert_allclose(got, want, rtol=1e-5)
    found, expected = ablation.effect_over_speakers(mean), ablation.effect_over_speakers(joint)
    assert found["mean"].dims == expected["mean"].dims


def test_sweep_edits_whole_layers_and_heads(tiny, clips):
    """A whole layer set to zero and an attention head set to its mean give the logits of hooked forwards."""
    model, path = tiny(), clips["path"][21]
    zero = ablation.Edit("zero")
    whole = ablation.sweep(model, clips.iloc[[21]], ablation.Selection({2: range(24)}), controls=None, edit=zero)
    assert whole["logits"].values.ravel() == pytest.approx(hooked(model, path, {2: torch.zeros_like}), abs=1e-5)
    own = model.head_neurons(1)
    of_heads = ablation.activation_stats(model, clips.iloc[:3], part="heads")
    found = ablation.sweep(
        model,
        clips.iloc[[21]],
        ablation.Selection({2: own}, "heads"),
        controls=ablation.RandomControls(of_heads, n=1),
        edit=ablation.Edit("mean", activation_stats=of_heads),
    )
    mean = edits.edit(own, "mean", means=of_heads["mean"].sel(layer=2).values)
    logits = found["logits"].sel(neuron_set="selected").values.ravel()
    assert logits == pytest.approx(hooked(model, path, {(2, "heads"): mean}), abs=1e-5)


def test_patching_effect_is_fraction_recovered(tiny, clips):
    """A patch sets the donor's values, and all neurons of the last layer recover a fraction of 1."""
    model, test = tiny(), clips[clips["label"] == "sad"].iloc[5:]
    pairs = donors.minimal_pairs(test, clips, "angry")
    assert (pairs["speaker"] == test["speaker"]).all() and set(pairs["label"]) == {"angry"}
    patch = ablation.Edit("patch", donors=pairs)
    every, some = ablation.Selection({3: range(24)}), ablation.Selection({3: [1, 5, 9]})
    found = ablation.sweep(model, test, some, controls=None, edit=patch)
    both = ablation.Edit(("patch", "resample"), donors=pairs)
    several = ablation.sweep(model, test, ablation.Selection(NEURONS), controls=None, edit=both)
    several = several.sel(neuron_set="selected")
    for layer, mode in itertools.product(NEURONS, ("patch", "resample")):  # each layer has its donor's own values
        values = donors.read(model, pairs["path"].iloc[1], [hooks.Site(layer)])[0][hooks.Site(layer)]
        want = hooked(model, test["path"].iloc[1], {layer: edits.edit(NEURONS[layer], mode, values=values)})
        assert several["logits"].sel(layer=layer, mode=mode)[1].values == pytest.approx(want, abs=1e-5)
    for clip, path in pairs["path"].items():
        assert found["donor_logits"].sel(clip=clip).values == pytest.approx(hooked(model, path, {}), abs=1e-5)
        values = donors.read(model, path, [hooks.Site(3)])[0][hooks.Site(3)]
        want = hooked(model, test["path"][clip], {3: edits.edit([1, 5, 9], "patch", values=values)})
        assert found["logits"].sel(clip=clip).values.ravel() == pytest.approx(want, abs=1e-5)
    assert set(found["donor_label"].values) == {"angry"}
    effect = ablation.effect_over_speakers(ablation.patching_effect(found), "fraction_recovered")
    share = effect["speakers"].squeeze()
    as_long = ablation.Edit("patch", donors=clips[clips["label"] == "angry"].iloc[7:].set_axis(test.index[:2]))
    whole = ablation.sweep(model, test[:2], every, controls=None, edit=as_long)
    assert ablation.patching_effect(whole)["fraction_recovered"].values.ravel() == pytest.approx(np.ones(2), abs=1e-3)
    side = found.sel(neuron_set="selected", mode="patch", layer=3)

    def apart(logits):
        return (logits.sel(label="angry") - logits.sel(label="sad")).values

    clean = apart(side["clean_logits"])
    moved, whole = apart(side["logits"]) - clean, apart(side["donor_logits"]) - clean
    assert share.mean().item() == pytest.approx(moved.sum() / whole.sum(), rel=1e-4)
    left = moved - moved.sum() / whole.sum() * whole  # what makes the interval: the delta method
    assert share.std(ddof=1).item() == pytest.approx(np.std(left / whole.mean(), ddof=1), rel=1e-3)
    with pytest.raises(ValueError, match="nothing was patched"):
        ablation.patching_effect(ablation.sweep(model, test[:1], ablation.Selection(NEURONS), controls=None))
    with pytest.raises(ValueError, match="patch needs a donor for each clip"):
        ablation.sweep(model, clips, ablation.Selection(NEURONS), controls=None, edit=patch)


def test_donors_are_counterparts_or_other_clips():
    """Minimal pairs share speaker and statement and prefer equal intensity; random donors are other clips."""
    rows = [("a", 1, "sad", "normal", 1), ("a", 1, "calm", "normal", 2), ("a", 1, "calm", "strong", 1)]
    rows += [("a", 2, "calm", "normal", 1), ("b", 1, "calm", "normal", 1), ("a", 1, "calm", "normal", 1)]
    names = ["speaker", "statement", "label", "intensity", "repetition"]
    table = pd.DataFrame(rows, columns=names, index=list("uvwxyz")).assign(path=list("UVWXYZ"))
    assert donors.minimal_pairs(table, table, "calm")["path"].to_dict() == {"u": "Z"}
    assert donors.minimal_pairs(table, table.drop(index="z"), "calm")["path"].to_dict() == {"u": "V"}
    plain = donors.minimal_pairs(table, table.drop(columns=["intensity", "repetition"]), "calm")
    assert plain["path"].to_dict() == {"u": "V"}
    with pytest.raises(ValueError, match="no clip has a counterpart with label happy"):
        donors.minimal_pairs(table, table, "happy")
    with pytest.raises(ValueError, match="need the column 'statement'"):
        donors.minimal_pairs(table.drop(columns="statement"), table, "calm")
    for seed in range(5):
        drawn = donors.random_donors(table, table, seed=seed)
        assert drawn.index.tolist() == table.index.tolist() and (drawn["path"] != table["path"]).all()
    with pytest.raises(ValueError, match="no other clip"):
        donors.random_donors(table[:1], table[:1])


def test_distance_averages_equal_distances():
    """An effect is averaged over the pairs of edited and readout layers that are equally far apart."""
    spread = np.full((2, 3, 4), np.nan)
    for layer, readout_layer in itertools.product(range(3), range(4)):
        if readout_layer >= layer:
            spread[:, layer, readout_layer] = 10 - (readout_layer - layer)
    dims = {"clip": [0, 1], "layer": [0, 1, 2], "readout_layer": [0, 1, 2, 3]}
    found = ablation.distance(xr.Dataset({"relative_change": (tuple(dims), spread)}, dims))
    several = xr.Dataset({"relative_change": ((*dims, "neuron_set"), np.stack([spread, 2 * spread], axis=-1))}, dims)
    assert ablation.distance(several).sel(clip=0).values.tolist() == [[10, 20], [9, 18], [8, 16], [7, 14]]
    assert found.sel(clip=0).values.tolist() == [10, 9, 8, 7] and found["distance"].values.tolist() == [0, 1, 2, 3]


def test_report_names_layer_neurons_and_untested():
    """A report names the most affected layer and its strongest neurons, and says what could not be tested."""
    rng, names = np.random.default_rng(0), [f"s{i}" for i in range(9)]
    effect = 0.1 * rng.standard_normal((9, 3, 2))
    effect[:, 1, 0] -= 4
    random = 0.1 * rng.standard_normal((9, 3, 2, 40))
    values = np.concatenate([effect[..., None], random], axis=-1)
    result = xr.Dataset(
        {"target_change": (("clip", "layer", "mode", "neuron_set"), values)},
        {"layer": [1, 2, 5], "mode": ["flip", "zero"], "speaker": ("clip", names), **neuron_sets(40)},
    )
    result["is_selected"] = selected_mask({1: [0], 2: [3, 4, 8], 5: [1]}, 10)
    told = {"target_change": ("log-odds of sad", "nats")}
    first, second = ablation.report(result, readouts=told).splitlines()
    assert first.startswith("flip, log-odds of sad: most in layer 2, -4") and "its first neurons" not in first
    assert first.endswith("nats beyond random neurons (q = 0.024)")
    assert second == "zero, log-odds of sad: none beyond random neurons, in 3 layers"
    assert ablation.report(result.sel(mode=["zero"], layer=[2]), readouts=told).endswith("in 1 layer")
    result["target_change"][:, 1, 0, 0] += 3.9
    assert re.search(r"\(q = 0\.0\d\d\)$", ablation.report(result, readouts=told).splitlines()[0])
    result["target_change"][:, 1, 0, 0] -= 3.9
    sizes = np.arange(30.0).reshape(1, 3, 10)
    sizes[0, 1, [3, 4, 8]] = 1, 3, 2
    scores = xr.Dataset({"absolute": (("clip", "layer", "neuron"), sizes)}, {"layer": [1, 2, 5], "neuron": range(10)})
    assert "; its first neurons by attribution: 4, 8\n" in ablation.report(result, scores, readouts=told, top=2)
    assert "; its first neuron by attribution: 4\n" in ablation.report(result, scores, readouts=told, top=1)
    assert "; its first neurons by attribution: 4, 8, 3\n" in ablation.report(result, scores, readouts=told)
    other = result.assign(is_selected=selected_mask({1: [0], 2: [1], 5: [1]}, 10))
    assert "; its first neuron by attribution: 1\n" in ablation.report(other, scores, readouts=told)
    several = result.expand_dims(readout_layer=[1, 2])
    with pytest.raises(ValueError, match="target_change has further dims, readout_layer: select"):
        ablation.report(several, readouts=told)
    assert ablation.report(several, scores, readouts=told, readout_layer=2) == ablation.report(
        result, scores, readouts=told
    )
    for fewer, why in (
        (result.isel(clip=slice(5)), "no test, 5 speakers of the 8 that are needed"),
        (result.isel(clip=slice(1)), "no test, 1 speaker of the 8 that are needed"),
        (without(result, "random"), "no test, there are no random sets"),
        (result.assign(n_random_sets=("layer", [19.0, 6, 1])), "no test, too few different random sets exist"),
        (result.where(result["neuron_set"] != "random 7"), "no test, values are missing in some random sets"),
    ):
        assert ablation.report(fewer, readouts=told).splitlines()[0] == f"flip, log-odds of sad: {why}"
    some = ablation.report(result.assign(n_random_sets=("layer", [19.0, 20, 1])), readouts=told).splitlines()
    assert some[1:] == [
        "zero, log-odds of sad: none beyond random neurons, in 1 layer",
        "no test (too few different random sets exist) in layers 1, 5",
    ]
    both = result.expand_dims(selection=["a", "b"])  # sweeps side by side
    both = both.assign(n_random_sets=(("selection", "layer"), [[99, 99, 9], [99, 99, 99]]))
    told_of = [ablation.report(both, readouts=told, selection=name) for name in ("a", "b")]
    assert told_of[0].endswith("\nno test (too few different random sets exist) in layer 5")
    assert "no test" not in told_of[1]


def test_report_refuses_groups_of_layers():
    """A report refuses a result without the dim `layer`."""
    with pytest.raises(ValueError, match="a report needs the dim 'layer'"):
        ablation.report(xr.Dataset({"kl": ("group", [1.0])}, {"group": ["early"]}))


def test_sweep_by_clip_equals_sweep_and_is_saved(tiny, clips, stats, readouts, tmp_path):
    """A sweep through `by_clip` equals a plain sweep, and is saved and read again unchanged."""
    model, test = tiny(), clips.iloc[[21, 22, 24]]
    options = {
        "selection": ablation.Selection(NEURONS),
        "controls": ablation.RandomControls(stats, n=2),
        "edit": ablation.Edit(("flip", "resample"), donors=donors.random_donors(test, clips)),
        "readouts": readouts,
    }
    straight = ablation.sweep(model, test, **options)
    found = caching.by_clip(ablation.sweep, model, test, folder=tmp_path / "kept", **options)
    xr.testing.assert_allclose(found, straight, atol=1e-5)
    assert found.attrs == straight.attrs
    run = SimpleNamespace(name="03_x", folder=tmp_path, provenance=lambda: {"versions": {"torch": "2"}})
    workbook.Run.save(run, found, "sweep")
    with xr.open_dataset(tmp_path / "data" / "03_sweep.nc") as again:
        assert again.attrs == straight.attrs | {"provenance": json.dumps(run.provenance())}
        assert set(again.data_vars) == set(found.data_vars) and set(again.coords) == set(found.coords)
        for name in [*found.data_vars, "neuron_set", "kind"]:
            np.testing.assert_array_equal(again[name], found[name], err_msg=name)
        told = ablation.effect_over_speakers(again, "decoded_change", readout_layer=3)
        xr.testing.assert_allclose(told, ablation.effect_over_speakers(found, "decoded_change", readout_layer=3))


def test_sweep_size_classes_narrow_random_sizes(tiny, clips):
    """Random sets vary less in activation size with 8 size classes than with one."""
    model = tiny()
    activation_stats = activations.activation_stats(model, clips.iloc[:9])
    spread = []
    for n in (8, 1):
        controls = ablation.RandomControls(activation_stats, n=30, size_classes=n)
        found = ablation.sweep(model, clips.iloc[[21]], ablation.Selection({2: [1, 5, 9]}), controls=controls)
        assert found.attrs["size_classes"] == n
        spread.append(ablation.control_values(found["rms"], "random").std().item())
    assert spread[0] < spread[1]


def test_sweep_names_unusable_clips_and_donors(tiny, clips, tmp_path):
    """Clips that lack a requested frame, or whose donor cannot be read, are skipped and named."""
    model, test, selection = tiny(), clips.iloc[[0, 8, 26]], ablation.Selection(NEURONS)
    found = ablation.sweep(model, test, selection, controls=None, edit=ablation.Edit("flip", frames=[2, 22]))
    assert found["clip"].values.tolist() == [8, 26] and "frame 22 out of range" in found.attrs["skipped"]
    assert found.attrs["frames"] == "[2, 22]"
    others = donors.random_donors(test, clips)
    others.loc[8, "path"] = str(tmp_path / "nowhere.wav")
    found = ablation.sweep(model, test, selection, controls=None, edit=ablation.Edit("resample", donors=others))
    assert found["clip"].values.tolist() == [0, 26] and "its donor cannot be used" in found.attrs["skipped"]


SOME = xr.Dataset({"std": 1.0})
NOT_STATS = "activation_stats must be the Dataset returned by activations.activation_stats"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"selection": ablation.Selection(NEURONS, "brain")}, "unknown part 'brain'"),
        ({"selection": NEURONS}, r"selection must be a Selection: ablation.select\(scores, k=20\) of scores, or"),
        ({"selection": SOME}, r"selection must be a Selection: ablation.select\(scores, k=20\) of scores, or"),
        ({"edit": "flip"}, r"edit must be an Edit, such as ablation.Edit\('flip'\), not a str"),
        ({"controls": SOME}, r"controls must be ablation.RandomControls\(activation_stats, n=40\), or None.*a Dataset"),
        ({"controls": 40}, r"controls must be ablation.RandomControls\(activation_stats, n=40\), or None.*an? int"),
        ({"readouts": ablation.Proxies(SOME)}, r"readouts must be a list, such as \[ablation.Proxies\(fitted\)\]"),
        ({"readouts": ["proxies"]}, "readouts must hold readouts, such as .* not a str"),
        ({"edit": ablation.Edit("mean", activation_stats=SOME)}, NOT_STATS),
        ({"edit": ablation.Edit("mean", activation_stats=pd.DataFrame())}, NOT_STATS),
        ({"controls": ablation.RandomControls(SOME)}, NOT_STATS),
        ({"controls": ablation.RandomControls(pd.DataFrame())}, NOT_STATS),
        (
            {"readouts": [ablation.Proxies(SOME)]},
            "the Dataset returned by activation_proxies.fit.*this one has no 'comp",
        ),
        (
            {"readouts": [ablation.Decoders(SOME)]},
            "the Dataset returned by acoustic_decoders.fit.*this one has no 'weight'",
        ),
        (
            {"readouts": [ablation.SpeakerSimilarity(SOME)]},
            "the Dataset returned by speaker_space.fit.*this one has no 'projection'",
        ),
        (
            {"readouts": [ablation.SpeakerSimilarity(pd.DataFrame())]},
            "expected the Dataset returned by speaker_space.fit.*, not a DataFrame",
        ),
        ({"readouts": [ablation.Proxies({})]}, "expected the Dataset returned by activation_proxies.fit.*, not a dict"),
        ({"readouts": [ablation.Decoders(None)]}, "a readout needs the Dataset returned by acoustic_decoders.fit"),
        (
            {"edit": ablation.Edit(donors=pd.Series(["a.wav"]))},
            "donors must be a DataFrame with the columns path and label",
        ),
        (
            {"edit": ablation.Edit(donors=pd.DataFrame({"path": ["a.wav"]}))},
            "donors must be a DataFrame with the columns path and label",
        ),
        (
            {"edit": ablation.Edit(("resample",))},
            "resample needs a donor for each clip: pass donors=donors.random_donors",
        ),
        (
            {"controls": ablation.RandomControls(n=0, modes=["zero"])},
            "modes of controls must be among those of the edit, flip, not zero",
        ),
        (
            {"controls": ablation.RandomControls(n=0, modes="mean"), "edit": ablation.Edit(("flip", "zero"))},
            "modes of controls must be among those of the edit, flip, zero, not mean",
        ),
        ({"target": {"angry": "angry"}}, r"target must be a class, a pair .*, not {'angry': 'angry'}"),
    ],
)
def test_sweep_refuses_invalid_options(tiny, clips, options, message):
    """A sweep refuses invalid selections, modes of controls, donors and tables, and says what is wrong."""
    with pytest.raises(ValueError, match=message):
        ablation.sweep(
            tiny(), clips.iloc[:1], **{"selection": ablation.Selection(NEURONS), "controls": None, **options}
        )


def test_sweep_refuses_scores_as_statistics(tiny, clips):
    """A sweep refuses scores in the place of activation statistics, though they are of the same model and part."""
    model, one = tiny(), clips.iloc[:1]
    scores = attribution.grad_x_activation(model, one, target="sad")
    with pytest.raises(ValueError, match=NOT_STATS):
        ablation.sweep(model, one, ablation.select(scores), controls=ablation.RandomControls(scores))


def test_sweep_refuses_two_readouts_of_one_kind(tiny, clips, readouts):
    """A sweep refuses two readouts of one kind, whose variables have the same names."""
    proxies, decoders, similarity = readouts
    for twice in ([proxies, decoders, proxies], [similarity, ablation.SpeakerSimilarity(lambda hidden: hidden)]):
        kinds = ", ".join(readout.name for readout in twice)
        with pytest.raises(ValueError, match=f"readouts contains one kind twice: {kinds}$"):
            ablation.sweep(tiny(), clips.iloc[:1], ablation.Selection(NEURONS), controls=None, readouts=twice)


def test_sweep_refuses_swapped_arguments(tiny, clips):
    """A sweep refuses a model in place of clips, and clips or a name in place of the model, and says which is which."""
    is_model = "clips is a model: the model is the first argument, and clips the second"
    is_no_model = "model must be an opened model, not"
    cases = ((clips, tiny(), is_model), (tiny(), tiny(), is_model), (clips, clips, is_no_model))
    for first, second, message in (*cases, ("pocket", clips, is_no_model)):
        with pytest.raises(ValueError, match=message):
            ablation.sweep(first, second, ablation.Selection(NEURONS), controls=None)


def test_sweep_reads_alike_without_resuming(tiny, clips, stats, readouts, monkeypatch):
    """A network that cannot resume gives the same readouts in several batches of hooked forwards."""
    model, test = tiny(), clips.iloc[[21, 24]]
    options = {"controls": ablation.RandomControls(stats, n=3), "readouts": readouts}
    options["edit"] = ablation.Edit(("flip", "zero"))
    resumed = ablation.sweep(model, test, ablation.Selection(NEURONS), **options)
    monkeypatch.setattr(model.architecture, "resumable", False)
    monkeypatch.setattr(model.architecture, "widths", dict.fromkeys(model.sites(), 24), raising=False)
    monkeypatch.delattr(execution, "_run")  # what resumes
    for batch in (3, 7, 99):  # of 49 rows: 4 layers, 2 modes and 6 neuron sets, and the clean one
        found = ablation.sweep(model, test, ablation.Selection(NEURONS), batch=batch, **options)
        assert found.sizes == resumed.sizes and found.sizes["neuron_set"] == 6
        for name in ("relative_change", "frames_changed", "decoded", "decoded_change", "similarity", "proxy_value"):
            tolerance = 0.051 if name == "frames_changed" else 1e-3  # a frame at the bound
            np.testing.assert_allclose(found[name], resumed[name], rtol=1e-3, atol=tolerance, err_msg=name)
        xr.testing.assert_allclose(found["similarity"], resumed["similarity"], atol=1e-5)
        xr.testing.assert_allclose(found["logits"], resumed["logits"], atol=1e-5)
    assert resumed["similarity"].min() < 1 - 1e-3


def test_sweep_has_no_direct_effects_without_resuming(tiny, clips, monkeypatch):
    """Without resuming, clean states are not known before the edits: there are no direct effects, and all else is."""
    model, test = tiny("large"), clips.iloc[[21]]
    options = {"controls": None, "readouts": fitted_readouts(model, clips.iloc[:15]), "batch": 3}
    resumed = ablation.sweep(model, test, ablation.Selection(NEURONS), **options)
    monkeypatch.setattr(model.architecture, "resumable", False)
    monkeypatch.setattr(model.architecture, "widths", dict.fromkeys(model.sites(), 24), raising=False)
    found = ablation.sweep(model, test, ablation.Selection(NEURONS), **options)
    assert set(resumed) - set(found) == {"direct_effect", "indirect_effect"}
    np.testing.assert_allclose(found["decoded_change"], resumed["decoded_change"], rtol=1e-3, atol=1e-3)


def test_sweep_warns_of_speaker_leakage(tiny, clips, stats, readouts):
    """A sweep warns of speakers on whom neurons were selected or readouts fitted, and only of those."""
    model, heard, new = tiny(), clips.iloc[[0, 4, 21]], clips.iloc[[21, 24]]
    scores = attribution.grad_x_activation(model, clips.iloc[:3], target="sad")
    listed = ablation.Selection({3: NEURONS[3]})

    def selected(scores):
        return ablation.select(scores, 3, layers=[3])

    def swept(clips, selection=listed, **options):
        return ablation.sweep(model, clips, selection, **{"controls": None, **options})

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        controls = ablation.RandomControls(stats, n=1)
        swept(new, controls=controls, edit=ablation.Edit("mean", activation_stats=stats), readouts=readouts)
        swept(new, selected(scores))
        swept(heard, controls=controls)  # nothing known of them
        swept(heard.drop(columns="speaker"), selected(scores))
        swept(new, selected(scores.drop_vars("speaker")))
    contrasted = scores.drop_vars("speaker").assign_attrs(selection_speakers='["s0"]')  # as activation_contrast records
    known = stats.assign_attrs(speakers='["s1"]')
    proxies, decoders, similarity = readouts
    for options, voice in (
        ({"selection": selected(contrasted)}, r"\(s0\)"),
        ({"readouts": [proxies, decoders]}, r"\(s0, s1\)"),
        ({"readouts": [similarity]}, r"\(s0, s1\)"),
        ({"selection": selected(scores)}, r"\(s0\)"),
        ({"selection": selected(scores).together({"one": [3]})}, r"\(s0\)"),
        ({"controls": ablation.RandomControls(known, n=1)}, r"\(s1\)"),
        ({"controls": ablation.RandomControls(stats, n=1, target_blind_stats=known)}, r"\(s1\)"),
        ({"edit": ablation.Edit("mean", activation_stats=known)}, r"\(s1\)"),
    ):
        with pytest.warns(UserWarning, match=f"speaker leakage: .* on speakers used to select neurons .* {voice}"):
            swept(heard, **options)


def test_recognition_refuses_missing_or_unknown_labels(tiny, clips):
    """Recalls are refused where clips have no label, or none that the model has."""
    odd = [clips.iloc[:2].drop(columns="label"), clips.iloc[:2].assign(label="bored")]
    for test in odd:
        with pytest.raises(ValueError, match="no clip has a label that the model knows"):
            ablation.recognition(ablation.sweep(tiny(), test, ablation.Selection(NEURONS), controls=None))


def test_sweep_matches_null_on_other_statistics(tiny, clips, stats):
    """Random sets are matched by the statistics of the controls, while the mode `mean` uses those of the edit."""
    model = tiny()
    other = stats.assign(mean=stats["mean"][:, ::-1].variable, std=2 * stats["std"][:, ::-1].variable)
    selection = ablation.Selection({2: [1, 6, 17]})
    edit = ablation.Edit("mean", activation_stats=stats)
    plain, found = (
        ablation.sweep(
            model,
            clips.iloc[[21]],
            selection,
            controls=ablation.RandomControls(matched, n=3, size_classes=4, target_blind_stats=stats),
            edit=edit,
        )
        for matched in (stats, other)
    )
    size = random_neurons.rms(other).sel(layer=2)
    rms = found["rms"].sel(layer=2)
    assert rms.sel(neuron_set="selected").item() == pytest.approx(np.sqrt((size[[1, 6, 17]] ** 2).mean().item()))
    drawn = random_neurons.random_sets(random_neurons.rms(other), {2: np.array([1, 6, 17])}, 3, seed=0, classes=4)
    expected = [np.sqrt(np.mean(size.values[neuron_set[2]] ** 2)) for neuron_set in drawn]
    assert ablation.control_values(rms, "random").values == pytest.approx(expected)
    for kind in ("selected", "target-blind"):
        same = found["kind"] == kind
        np.testing.assert_array_equal(found["logits"].sel(neuron_set=same), plain["logits"].sel(neuron_set=same))
    random, plain_random = (ablation.control_values(one["logits"], "random") for one in (found, plain))
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(random, plain_random, atol=1e-5)


def test_patching_effect_keeps_random_set_counts(tiny, clips):
    """Fractions recovered keep the number of different random sets, and are not tested where it is too small."""
    model, test = tiny(), clips[clips["label"] == "sad"]
    pairs, activation_stats = donors.minimal_pairs(test, clips, "angry"), ablation.activation_stats(model, clips)
    found = ablation.sweep(
        model,
        test,
        ablation.Selection({1: range(23), 2: range(24), 3: [0, 1]}),
        controls=ablation.RandomControls(activation_stats, n=5),
        edit=ablation.Edit("patch", donors=pairs),
    )
    share = ablation.patching_effect(found)
    xr.testing.assert_equal(share["n_random_sets"], found["n_random_sets"])
    assert found["n_random_sets"].values.tolist() == [24, 1, 276]
    assert share["neuron_set"].values.tolist() == found["neuron_set"].values.tolist()
    p = ablation.effect_over_speakers(share, "fraction_recovered")["p_random"].squeeze("mode")
    assert p.notnull().values.tolist() == [True, False, True]


def test_sweep_cuts_donors_as_it_cuts_clips(tiny, clips):
    """A copy of a clip that is 20 ms too long changes nothing when it is patched in: both are cut alike."""
    model = tiny()
    clip = clips.iloc[:1]
    waveform = audio.read(clip["path"].iloc[0])
    model.max_seconds = (len(waveform) - 320) / 16000
    copy = pd.DataFrame({"audio": [audio.Waveform(waveform, 16000)], "label": ["sad"]}, index=clip.index)
    edit = ablation.Edit("patch", donors=copy)
    found = ablation.sweep(model, clip, ablation.Selection(NEURONS), controls=None, edit=edit)
    assert np.abs(found["logits"] - found["clean_logits"]).max() < 1e-5
    assert np.abs(found["donor_logits"] - found["clean_logits"]).max() < 1e-5


def test_sweep_refuses_clip_as_own_donor(tiny, clips):
    """A sweep refuses a clip as its own donor."""
    with pytest.raises(ValueError, match="a clip is its own donor"):
        edit = ablation.Edit("resample", donors=clips)
        ablation.sweep(tiny(), clips.iloc[:1], ablation.Selection(NEURONS), controls=None, edit=edit)


def test_select_refuses_k_above_width(tiny, clips):
    """A `k` above the number of neurons in a layer is refused, and that number is accepted."""
    scores = attribution.grad_x_activation(tiny(), clips.iloc[:2], target="sad")
    with pytest.raises(ValueError, match="k is 25, and there are 24 neurons in a layer: give a smaller k"):
        ablation.select(scores, 25)
    whole = ablation.sweep(tiny(), clips.iloc[:1], ablation.select(scores, 24, layers=[2]), controls=None)
    assert whole["is_selected"].values.tolist() == [[True] * 24]


def test_sweep_limits_controls_to_their_modes(tiny, clips, stats, readouts):
    """Controls are edited in their modes only, and all other values stay the same."""
    model, test = tiny(), clips.iloc[[21, 24]]
    options = {"edit": ablation.Edit(("zero", "flip")), "readouts": readouts, "target": "sad"}
    for neurons in (NEURONS, {layer: [0, 5] for layer in NEURONS}):
        whole, found, named = (
            ablation.sweep(
                model,
                test,
                ablation.Selection(neurons),
                controls=ablation.RandomControls(stats, n=3, n_directions=1, modes=modes),
                **options,
            )
            for modes in (None, ["flip"], "flip")
        )
        xr.testing.assert_identical(named, found)
        xr.testing.assert_allclose(found.sel(mode="flip"), whole.sel(mode="flip"), atol=1e-5)
        assert set(whole["kind"].values) == {"selected", "random", "direction", "target-blind"}
        for name in whole.data_vars:
            if "mode" in whole[name].dims:
                zero, expected = found[name].sel(mode="zero"), whole[name].sel(mode="zero")
                assert zero.sel(neuron_set=zero["kind"] != "selected").isnull().all()
                selected, expected = ablation.selected_values(zero), ablation.selected_values(expected)
                assert np.allclose(selected, expected, 0, 1e-4, True)
