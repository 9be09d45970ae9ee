"""What a sweep crosses: modes, sets of neurons, numbers of them, groups of layers, donors; and what is read of it."""

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

from xai_lib import ablation, activations, attribution, audio, edits, hooks, workbook
from xai_lib.activations import caching, donors, random_neurons
from xai_lib.probing import acoustic_decoders, activation_proxies, speaker_space

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(4)}
LABELS = ("angry", "sad", "calm")


@pytest.fixture(scope="module")
def clips(emotional_buzzes):
    return emotional_buzzes


@pytest.fixture(scope="module")
def fitted(tiny, clips):
    """What a sweep needs of training clips."""
    model, train = tiny(), clips.iloc[:15]
    return {
        "activation_stats": ablation.activation_stats(model, train),
        "proxies": activation_proxies.fit(model, train),
        "decoders": acoustic_decoders.fit(model, train),
        "speakers": speaker_space.fit(model, train),
    }


def hooked(model, path, edit):
    with torch.no_grad(), hooks.edit(model, edit):
        return model.logits(model.tensor(audio.read(path)))[0].cpu().numpy()


@pytest.fixture(scope="module")
def responses(tiny, clips, fitted):
    """Half of the neurons of each layer edited in every mode, and all that is read of it."""
    test, half = clips.iloc[[21, 22]], {layer: range(0, 24, 2) for layer in range(4)}
    others = donors.random_donors(test, clips.iloc[:15])
    return ablation.sweep(tiny(), test, neurons=half, modes=edits.MODES, donors=others, n_random=0, **fitted)


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

    policy = {"frames": given.get(frames, frames), "window": window, "n_peaks": 3}
    found = ablation.sweep(model, test, neurons={2: own}, n_random=0, **policy)
    want = hooked(model, test["path"].iloc[0], {2: flip})
    assert found["logits"].values.ravel() == pytest.approx(want, abs=1e-5)
    assert np.abs(want - hooked(model, test["path"].iloc[0], {})).max() > 1e-4


def test_sweep_reads_similarity_in_last_layer_space(tiny, clips):
    """In a speaker space of the last layer alone, as of an x-vector head, only that layer has similarities."""
    model = tiny()
    found = ablation.sweep(
        model, clips.iloc[[21]], neurons=NEURONS, n_random=0, speakers=lambda hidden: hidden.mean(dim=1)
    )
    read = found["similarity"].notnull().squeeze()
    assert (read == (found["readout_layer"] == 3) & (found["layer"] < 3)).all() and (
        found["similarity"].min() < 1 - 1e-5
    )


def test_sweep_of_selections_equals_separate_sweeps(tiny, clips, fitted):
    """A sweep of several selections, targets and `k` equals a separate sweep for each of them."""
    model, test = tiny(), clips.iloc[[21, 24]]
    scores = {
        label: attribution.grad_x_activation(model, clips[clips["label"] == label], target=label)
        for label in LABELS[:2]
    }
    options = {
        "activation_stats": fitted["activation_stats"],
        "n_random": 2,
        "directions": 2,
        "modes": ("flip", "zero"),
        "layers": [1, 3],
    }
    aims = {"angry": "angry", "sad": ("sad", "calm")}
    found = ablation.sweep(model, test, neurons=scores, k=(1, 4), target=aims, **options)
    assert found["selected"].values.tolist() == ["angry", "sad"] and found["k"].values.tolist() == [1, 4]
    for name, k in itertools.product(scores, (1, 4)):
        one = ablation.sweep(model, test, neurons=scores[name], k=k, target=aims[name], **options)
        here = found.sel(selected=name, k=k, drop=True)
        for variable, values in one.data_vars.items():
            here_, values = (x.drop_vars("target", errors="ignore") for x in (here[variable], values))
            xr.testing.assert_allclose(here_, values, atol=1e-5)
        assert here["target"].values.tolist() == one["target"].values.tolist()
        assert json.loads(found.attrs["neurons"])[name][str(k)] == json.loads(one.attrs["neurons"])
    ends = {"top": scores["sad"], "bottom": scores["sad"].assign(absolute=-scores["sad"]["absolute"])}
    both = ablation.sweep(model, test, neurons=ends, k=3, layers=[2], n_random=0, target="sad")
    order = attribution.top_neurons(scores["sad"], 24, layer=2)["neuron"].tolist()
    listed = json.loads(both.attrs["neurons"])
    assert listed == {"top": {"2": sorted(order[:3])}, "bottom": {"2": sorted(order[-3:])}}


def test_sweep_edits_random_directions(tiny, clips):
    """Random directions are flipped as a hook flips them, in layers and groups, and are refused for noise."""
    model, test = tiny(), clips.iloc[[21]]
    found = ablation.sweep(model, test, neurons=NEURONS, n_random=0, directions=2, seed=3)
    for layer, place in itertools.product(NEURONS, range(2)):
        basis = edits.directions(24, 3, 2, seed=[3, layer])[place]
        want = hooked(model, test["path"].iloc[0], {layer: edits.edit(basis, "flip")})
        got = found["direction_logits"].sel(layer=layer).isel(direction=place, clip=0, mode=0)
        assert got.values == pytest.approx(want, abs=1e-5)
    turned = ablation.summary(found, against="direction")
    assert turned["random_mean"].sel(layer=1).item() == pytest.approx(
        found["direction_target_change"].sel(layer=1).mean().item()
    )
    joint = ablation.sweep(model, test, neurons=NEURONS, n_random=0, directions=2, seed=3, layers={"two": [1, 2]})
    basis = edits.directions(24, 4, 2, seed=[3, 1, 2])[1]  # of 1, 5, 17 and 1, 6, 17: two are chosen in both layers
    flips = {1: edits.edit(basis[:, [0, 1, 3]], "flip"), 2: edits.edit(basis[:, [0, 2, 3]], "flip")}
    got = joint["direction_logits"].isel(direction=1, clip=0, mode=0, group=0)
    assert got.values == pytest.approx(hooked(model, test["path"].iloc[0], flips), abs=1e-5)
    with pytest.raises(ValueError, match="mode 'noise' takes neurons, not directions"):
        activation_stats = ablation.activation_stats(model, clips.iloc[:2])
        ablation.sweep(
            model, test, neurons=NEURONS, modes=("noise",), activation_stats=activation_stats, n_random=0, directions=1
        )


def test_sweep_separates_direct_and_indirect_effects(tiny, clips):
    """The direct effect is the edit times the decoder's weights; the indirect one is the rest of the change."""
    model, train, path = tiny("large"), clips.iloc[:15], clips["path"][21]
    fitted = acoustic_decoders.fit(model, train)
    plain = ablation.sweep(
        tiny(), clips.iloc[[21]], neurons=NEURONS, n_random=0, decoders=acoustic_decoders.fit(tiny(), train)
    )
    assert "direct_effect" not in plain  # a norm comes between
    activation_stats = ablation.activation_stats(model, train)
    found = ablation.sweep(
        model,
        clips.iloc[[21]],
        neurons=NEURONS,
        n_random=2,
        activation_stats=activation_stats,
        decoders=fitted,
        batch=3,
        modes=("flip", "zero"),
    )
    counts = np.isfinite(acoustic_decoders.truth(model, audio.read(path)))
    for layer, mode in itertools.product(NEURONS, ("flip", "zero")):
        with torch.no_grad(), hooks.capture(model, layer) as seen:
            model.logits(model.tensor(audio.read(path)))
        away = np.zeros(seen[hooks.Site(layer)][0].shape)
        own = seen[hooks.Site(layer)][0].numpy()[:, NEURONS[layer]]
        away[:, NEURONS[layer]] = -own * (2 if mode == "flip" else 1)
        for readout_layer, place in itertools.product(range(layer + 1, 4), range(3)):  # the features that are linear
            weight = fitted["weight"].values[readout_layer, place]
            want = (away @ weight)[counts[place]].mean()
            got = found["direct_effect"].sel(layer=layer, mode=mode, readout_layer=readout_layer).values[0, place]
            assert got == pytest.approx(want, rel=1e-3, abs=1e-3 * np.abs(weight).max())
    np.testing.assert_allclose(
        found["direct_effect"] + found["indirect_effect"], found["decoded_change"], rtol=1e-4, atol=1e-3
    )
    silence(model)
    still = ablation.sweep(model, clips.iloc[[21]], neurons=NEURONS, n_random=0, decoders=fitted)
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
    layers = {"several": members, "other": [3]} if joint else [1, 3]  # what is edited in layer 3 joins the batch later
    neurons = {at: [1, 4 + at, 17] for at in members}
    options = {"neurons": neurons | {3: [2]}, "layers": layers, "part": part, "n_random": 0}
    options |= {"decoders": acoustic_decoders.fit(model, train), "batch": 2, "modes": ("flip", "zero")}
    whole = ablation.sweep(model, test, **options)
    silence(model, above=members[-1])
    still = ablation.sweep(model, test, **options)
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


def test_sweep_edits_groups_jointly(tiny, clips, fitted):
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
    joint = ablation.sweep(model, test, neurons=NEURONS, layers=halves, n_random=2, target="sad", **fitted)
    assert joint["group"].values.tolist() == list(halves) and "layer" not in joint.dims
    size, sets = np.hypot(fitted["activation_stats"]["mean"], fitted["activation_stats"]["std"]), {}
    for members in halves.values():  # a neuron that is chosen in both layers has the same one in its place in both
        own = {at: np.array(NEURONS[at]) for at in members}
        drawn = random_neurons.matched_sets(24, size, own, n_random=2, directions=0, seed=0)[2]
        sets |= {at: one.tolist() for at, one in zip(members, drawn)}
        assert len(set(sets[members[0]]) & set(sets[members[1]])) >= 2
    for name, members in halves.items():
        for clip, path in test["path"].items():
            want = hooked(model, path, {at: edits.edit(NEURONS[at]) for at in members})
            assert joint["logits"].sel(group=name, clip=clip, mode="flip").values == pytest.approx(want, abs=1e-5)
            want = hooked(model, path, {at: edits.edit(sets[at]) for at in members})
            got = joint["random_logits"].sel(group=name, clip=clip, mode="flip").isel(random=1)
            assert got.values == pytest.approx(want, abs=1e-5)
        spread, value = (
            joint[variable].sel(group=name, mode="flip") for variable in ("relative_change", "proxy_value")
        )
        assert (spread.notnull() == (joint["readout_layer"] >= members[0])).all()
        assert (value.notnull() == (joint["readout_layer"] > members[-1])).all()
    single = ablation.sweep(model, test, neurons=NEURONS, n_random=2, target="sad", **fitted)
    mean = ablation.average_over_layers(single, halves)
    want = single["target_change"].sel(layer=[2, 3]).mean("layer")
    np.testing.assert_allclose(mean["target_change"].sel(group="upper 2–3"), want, rtol=1e-5)
    assert ablation.summary(mean)["mean"].dims == ablation.summary(joint)["mean"].dims


def test_sweep_edits_whole_layers_and_heads(tiny, clips):
    """A whole layer set to zero and an attention head set to its mean give the logits of hooked forwards."""
    model, path = tiny(), clips["path"][21]
    whole = ablation.sweep(model, clips.iloc[[21]], neurons={2: range(24)}, modes=("zero",), n_random=0)
    assert whole["logits"].values.ravel() == pytest.approx(hooked(model, path, {2: torch.zeros_like}), abs=1e-5)
    own = model.head_neurons(1)
    activation_stats = ablation.activation_stats(model, clips.iloc[:3], part="heads")
    found = ablation.sweep(
        model,
        clips.iloc[[21]],
        neurons={2: own},
        part="heads",
        modes=("mean",),
        n_random=1,
        activation_stats=activation_stats,
    )
    mean = edits.edit(own, "mean", means=activation_stats["mean"].sel(layer=2).values)
    assert found["logits"].values.ravel() == pytest.approx(hooked(model, path, {(2, "heads"): mean}), abs=1e-5)


def test_patching_effect_is_fraction_recovered(tiny, clips):
    """A patch sets the donor's values, and all neurons of the last layer recover a fraction of 1."""
    model, test = tiny(), clips[clips["label"] == "sad"].iloc[5:]
    pairs = donors.minimal_pairs(test, clips, "angry")
    assert (pairs["speaker"] == test["speaker"]).all() and set(pairs["label"]) == {"angry"}
    neurons = {"all": {3: range(24)}, "some": {3: [1, 5, 9]}}
    found = ablation.sweep(model, test, neurons=neurons, modes=("patch",), donors=pairs, n_random=0)
    several = ablation.sweep(model, test, neurons=NEURONS, modes=("patch", "resample"), donors=pairs, n_random=0)
    for layer, mode in itertools.product(NEURONS, ("patch", "resample")):  # each layer has its donor's own values
        values = donors.read(model, pairs["path"].iloc[1], [hooks.Site(layer)])[0][hooks.Site(layer)]
        want = hooked(model, test["path"].iloc[1], {layer: edits.edit(NEURONS[layer], mode, values=values)})
        assert several["logits"].sel(layer=layer, mode=mode)[1].values == pytest.approx(want, abs=1e-5)
    for clip, path in pairs["path"].items():
        assert found["donor_logits"].sel(clip=clip).values == pytest.approx(hooked(model, path, {}), abs=1e-5)
        values = donors.read(model, path, [hooks.Site(3)])[0][hooks.Site(3)]
        want = hooked(model, test["path"][clip], {3: edits.edit([1, 5, 9], "patch", values=values)})
        got = found["logits"].sel(clip=clip, selected="some").values.ravel()
        assert got == pytest.approx(want, abs=1e-5)
    share = ablation.summary(ablation.patching_effect(found), "fraction_recovered")["speakers"].squeeze()
    as_long = clips[clips["label"] == "angry"].iloc[7:].set_axis(test.index[:2])
    whole = ablation.sweep(model, test[:2], neurons=neurons["all"], modes=("patch",), donors=as_long, n_random=0)
    assert ablation.patching_effect(whole)["fraction_recovered"].values.ravel() == pytest.approx(np.ones(2), abs=1e-3)
    side = found.sel(selected="some", mode="patch", layer=3)

    def apart(logits):
        return (logits.sel(label="angry") - logits.sel(label="sad")).values

    clean = apart(side["clean_logits"])
    moved, whole = apart(side["logits"]) - clean, apart(side["donor_logits"]) - clean
    assert share.sel(selected="some").mean().item() == pytest.approx(moved.sum() / whole.sum(), rel=1e-4)
    left = moved - moved.sum() / whole.sum() * whole  # what makes the interval: the delta method
    assert share.sel(selected="some").std(ddof=1).item() == pytest.approx(np.std(left / whole.mean(), ddof=1), rel=1e-3)
    with pytest.raises(ValueError, match="nothing was patched"):
        ablation.patching_effect(ablation.sweep(model, test[:1], neurons=NEURONS, n_random=0))
    with pytest.raises(ValueError, match="patch needs a donor for each clip"):
        ablation.sweep(model, clips, neurons=NEURONS, n_random=0, modes=("patch",), donors=pairs)


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
    assert found.sel(clip=0).values.tolist() == [10, 9, 8, 7] and found["distance"].values.tolist() == [0, 1, 2, 3]


def test_report_names_layer_neurons_and_untested():
    """A report names the most affected layer and its strongest neurons, and says what could not be tested."""
    rng, names = np.random.default_rng(0), [f"s{i}" for i in range(9)]
    effect = 0.1 * rng.standard_normal((9, 3, 2))
    effect[:, 1, 0] -= 4
    random = 0.1 * rng.standard_normal((9, 3, 2, 40))
    dims = ("clip", "layer", "mode")
    result = xr.Dataset(
        {"target_change": (dims, effect), "random_target_change": ((*dims, "random"), random)},
        {"layer": [1, 2, 5], "mode": ["flip", "zero"], "speaker": ("clip", names)},
        {"neurons": json.dumps({"1": [0], "2": [3, 4, 8], "5": [1]})},
    )
    told = {"target_change": ("log-odds of sad", "nats")}
    first, second = ablation.report(result, readouts=told).splitlines()
    assert first.startswith("flip, log-odds of sad: most in layer 2, -4") and "its first neurons" not in first
    assert first.endswith("nats beyond random neurons (q = 0.024)")
    assert second == "zero, log-odds of sad: none beyond random neurons, in 3 layers"
    assert ablation.report(result.sel(mode=["zero"], layer=[2]), readouts=told).endswith("in 1 layer")
    result["target_change"][:, 1, 0] += 3.9
    assert re.search(r"\(q = 0\.0\d\d\)$", ablation.report(result, readouts=told).splitlines()[0])
    result["target_change"][:, 1, 0] -= 3.9
    sizes = np.arange(30.0).reshape(1, 3, 10)
    sizes[0, 1, [3, 4, 8]] = 1, 3, 2
    scores = xr.Dataset({"absolute": (("clip", "layer", "neuron"), sizes)}, {"layer": [1, 2, 5], "neuron": range(10)})
    assert "; its first neurons by attribution: 4, 8\n" in ablation.report(result, scores, readouts=told, top=2)
    assert "; its first neuron by attribution: 4\n" in ablation.report(result, scores, readouts=told, top=1)
    named = result.expand_dims(selected=["a", "b"]).assign_attrs(
        neurons=json.dumps({"a": {"1": [0], "2": [3, 4, 8], "5": [1]}, "b": {"1": [0], "2": [1], "5": [1]}})
    )
    for one in (ablation.report(named, scores, readouts=told, selected="a"),
                ablation.report(named.sel(selected="a"), scores, readouts=told)):  # fmt: skip
        assert "; its first neurons by attribution: 4, 8, 3\n" in one
    with pytest.raises(ValueError, match="the result has several values along selected: pick one"):
        ablation.report(named, readouts=told)
    with pytest.raises(ValueError, match="target_change has further dims, readout_layer: select"):
        ablation.report(result.expand_dims(readout_layer=[1, 2]), readouts=told)
    for fewer, why in (
        (result.isel(clip=slice(5)), "no test, 5 speakers of the 8 that are needed"),
        (result.isel(clip=slice(1)), "no test, 1 speaker of the 8 that are needed"),
        (result.isel(random=slice(0)), "no test, there are no random sets"),
        (result.assign(random_sets=("layer", [19.0, 6, 1])), "no test, too few different random sets exist"),
    ):
        assert ablation.report(fewer, readouts=told).splitlines()[0] == f"flip, log-odds of sad: {why}"
    some = ablation.report(result.assign(random_sets=("layer", [19.0, 20, 1])), readouts=told).splitlines()
    assert some[1:] == [
        "zero, log-odds of sad: none beyond random neurons, in 1 layer",
        "no test (too few different random sets exist) in layers 1, 5",
    ]
    few = named.assign(random_sets=(("selected", "layer"), [[99, 99, 9], [99, 99, 99]]))
    told_of = [ablation.report(few, readouts=told, selected=name) for name in ("a", "b")]
    assert told_of[0].endswith("\nno test (too few different random sets exist) in layer 5")
    assert "no test" not in told_of[1]


def test_sweep_by_clip_equals_sweep_and_is_saved(tiny, clips, fitted, tmp_path):
    """A sweep through `by_clip` equals a plain sweep, and is saved and read again unchanged."""
    model, test = tiny(), clips.iloc[[21, 22, 24]]
    pairs = donors.random_donors(test, clips)
    options = {"neurons": NEURONS, "n_random": 2, "modes": ("flip", "resample"), "donors": pairs, **fitted}
    straight = ablation.sweep(model, test, **options)
    found = caching.by_clip(ablation.sweep, model, test, folder=tmp_path / "kept", **options)
    xr.testing.assert_allclose(found, straight, atol=1e-5)
    assert found.attrs == straight.attrs
    run = SimpleNamespace(name="03_x", folder=tmp_path, provenance=lambda: {"versions": {"torch": "2"}})
    workbook.Run.save(run, found, "sweep")
    with xr.open_dataset(tmp_path / "data" / "03_sweep.nc") as again:
        assert again.attrs == straight.attrs | {"provenance": json.dumps(run.provenance())}
        assert set(again.data_vars) == set(found.data_vars) and set(again.coords) == set(found.coords)
        for name, values in found.data_vars.items():
            np.testing.assert_array_equal(again[name], values, err_msg=name)
        told = ablation.summary(again, "decoded_change", readout_layer=3)
        xr.testing.assert_allclose(told, ablation.summary(found, "decoded_change", readout_layer=3))


def test_sweep_size_classes_narrow_random_sizes(tiny, clips):
    """Random sets vary less in activation size with 8 size classes than with one."""
    model = tiny()
    activation_stats = activations.activation_stats(model, clips.iloc[:9])
    options = {"neurons": {2: [1, 5, 9]}, "activation_stats": activation_stats, "n_random": 30}
    near, any_ = (ablation.sweep(model, clips.iloc[[21]], **options, size_classes=n) for n in (8, 1))
    spread = [found["random_magnitude"].std().item() for found in (near, any_)]
    assert spread[0] < spread[1]


def test_sweep_names_unusable_clips_and_donors(tiny, clips, tmp_path):
    """Clips that lack a requested frame, or whose donor cannot be read, are skipped and named."""
    model, test = tiny(), clips.iloc[[0, 8, 26]]
    found = ablation.sweep(model, test, neurons=NEURONS, modes="flip", frames=[2, 22], n_random=0)
    assert found["clip"].values.tolist() == [8, 26] and "frame 22 out of range" in found.attrs["skipped"]
    others = donors.random_donors(test, clips)
    others.loc[8, "path"] = str(tmp_path / "nowhere.wav")
    found = ablation.sweep(model, test, neurons=NEURONS, modes=("resample",), donors=others, n_random=0)
    assert found["clip"].values.tolist() == [0, 26] and "its donor cannot be used" in found.attrs["skipped"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"k": (1, 2)}, "several k need scores"),
        ({"layers": {"odd": [1, 9]}}, "layer 9 out of range: this model has 0–3"),
        ({"layers": "late"}, "layer must be an integer, not 'late'"),
        ({"part": "brain"}, "unknown part 'brain'"),
        ({"k": (5, 5)}, "k contains duplicates: 5, 5"),
        ({"frames": "peak"}, "unknown frames 'peak': use all, speech, max_frame, peak_frames or a list"),
        (
            {"activation_stats": xr.Dataset({"absolute": 1.0})},
            "the Dataset returned by activation_stats.*this one has no 'std'",
        ),
        ({"match": xr.Dataset({"absolute": 1.0})}, "the Dataset returned by activation_stats.*this one has no 'std'"),
        (
            {"proxies": xr.Dataset({"std": 1.0})},
            "the Dataset returned by activation_proxies.fit.*this one has no 'comp",
        ),
        (
            {"decoders": xr.Dataset({"std": 1.0})},
            "the Dataset returned by acoustic_decoders.fit.*this one has no 'weight'",
        ),
        (
            {"speakers": xr.Dataset({"std": 1.0})},
            "the Dataset returned by speaker_space.fit.*this one has no 'projection'",
        ),
        ({"donors": pd.Series(["a.wav"])}, "donors must be a DataFrame with the columns path and label"),
        ({"donors": pd.DataFrame({"path": ["a.wav"]})}, "donors must be a DataFrame with the columns path and label"),
        ({"modes": ("flip", "zero", "flip")}, "modes contains duplicates: flip, zero, flip"),
        ({"speakers": pd.DataFrame()}, "expected the Dataset returned by speaker_space.fit.*, not a DataFrame"),
        ({"activation_stats": pd.DataFrame()}, "expected the Dataset returned by activation_stats.*, not a DataFrame"),
        ({"proxies": {}}, "expected the Dataset returned by activation_proxies.fit.*, not a dict"),
        ({"modes": ("resample",)}, "resample needs a donor for each clip: pass donors=donors.random_donors"),
        ({"k": 0}, "k must be whole numbers from 1 up"),
        ({"k": 5.0}, "k must be whole numbers from 1 up"),
        ({"size_classes": 0}, "size_classes must be a whole number from 1 up, not 0"),
        ({"random_modes": ["zero"]}, "random_modes must be among the modes, flip, not zero"),
        ({"n_random": -1}, "n_random and directions from 0 up"),
        ({"neurons": [1, 2]}, "neurons must be scores"),
        ({"target": {"angry": "angry"}}, "target has the names angry and neurons none"),
        ({"modes": "explode"}, "unknown mode 'explode'"),
        (
            {"neurons": {2: np.arange(24) < 3}},
            "neurons must be whole numbers, not bool: for a mask give np.flatnonzero",
        ),
        ({"neurons": {2: [7.9]}}, "neurons must be whole numbers, not float64"),
        ({"neurons": {2.5: [7]}}, "layer must be an integer, not 2.5"),
    ],
)
def test_sweep_refuses_invalid_options(tiny, clips, options, message):
    """A sweep refuses invalid neurons, layers, modes, donors, numbers and tables, and says what is wrong."""
    with pytest.raises(ValueError, match=message):
        ablation.sweep(tiny(), clips.iloc[:1], **{"neurons": NEURONS, "n_random": 0, **options})


def test_sweep_refuses_swapped_arguments(tiny, clips):
    """A sweep refuses a model in place of clips, and clips or a name in place of the model, and names the order."""
    for first, second in ((clips, tiny()), (tiny(), tiny()), (clips, clips), ("pocket", clips)):
        with pytest.raises(ValueError, match="takes a model, as returned by models.load, and clips, in this order"):
            ablation.sweep(first, second, neurons=NEURONS, n_random=0)


def test_sweep_warns_of_speaker_leakage(tiny, clips, fitted):
    """A sweep warns of speakers on whom neurons were selected or readouts fitted, and only of those."""
    model, heard, new = tiny(), clips.iloc[[0, 4, 21]], clips.iloc[[21, 24]]
    scores = attribution.grad_x_activation(model, clips.iloc[:3], target="sad")
    listed = {"neurons": NEURONS, "n_random": 0, "layers": [3]}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ablation.sweep(model, new, **listed, **fitted)
        ablation.sweep(model, new, **listed | {"neurons": {"a": scores, "b": NEURONS}}, k=3)
        ablation.sweep(model, heard, **listed, activation_stats=fitted["activation_stats"])  # nothing known of them
        ablation.sweep(model, heard.drop(columns="speaker"), **listed | {"neurons": scores}, k=3)
        ablation.sweep(model, new, **listed | {"neurons": scores.drop_vars("speaker")}, k=3)
    contrasted = scores.drop_vars("speaker").assign_attrs(selection_speakers='["s0"]')  # as activation_contrast records
    for options, voice in (
        ({"neurons": contrasted}, r"\(s0\)"),
        ({"decoders": fitted["decoders"]}, r"\(s0, s1\)"),
        ({"speakers": fitted["speakers"]}, r"\(s0, s1\)"),
        ({"neurons": scores}, r"\(s0\)"),
        ({"neurons": {"a": scores, "b": NEURONS}}, r"\(s0\)"),
    ):
        with pytest.warns(UserWarning, match=f"speaker leakage: .* on speakers used to select neurons .* {voice}"):
            ablation.sweep(model, heard, **listed | options, k=3)


def test_recognition_refuses_missing_or_unknown_labels(tiny, clips):
    """Recalls are refused where clips have no label, or none that the model has."""
    odd = [clips.iloc[:2].drop(columns="label"), clips.iloc[:2].assign(label="bored")]
    for test in odd:
        with pytest.raises(ValueError, match="no clip has a label that the model knows"):
            ablation.recognition(ablation.sweep(tiny(), test, neurons=NEURONS, n_random=0))


def test_sweep_matches_null_on_other_statistics(tiny, clips, fitted):
    """Random sets are matched by the sizes of `match`, while the mode `mean` still uses `activation_stats`."""
    model, activation_stats = tiny(), fitted["activation_stats"]
    other = activation_stats.assign(
        mean=activation_stats["mean"][:, ::-1].variable, std=2 * activation_stats["std"][:, ::-1].variable
    )
    options = {"neurons": {2: [1, 6, 17]}, "modes": ("mean",), "n_random": 3, "activation_stats": activation_stats}
    options["size_classes"] = 4
    plain, found = (ablation.sweep(model, clips.iloc[[21]], **options, match=match) for match in (None, other))
    size = random_neurons.rms(other).sel(layer=2)
    assert found["magnitude"].item() == pytest.approx(np.sqrt((size[[1, 6, 17]] ** 2).mean().item()))
    sizes = random_neurons.rms(other)
    drawn = random_neurons.matched_sets(
        24, sizes, {2: np.array([1, 6, 17])}, n_random=3, directions=0, seed=0, classes=4
    )[1:]
    rms = [np.sqrt(np.mean(size.values[own] ** 2)) for (own,) in drawn]
    assert found["random_magnitude"].values.ravel() == pytest.approx(rms)
    np.testing.assert_array_equal(found["logits"], plain["logits"])
    with pytest.raises(AssertionError):
        np.testing.assert_allclose(found["random_logits"], plain["random_logits"], atol=1e-5)


def test_patching_effect_keeps_random_set_counts(tiny, clips):
    """Fractions recovered keep the number of different random sets, and are not tested where it is too small."""
    model, test = tiny(), clips[clips["label"] == "sad"]
    pairs, activation_stats = donors.minimal_pairs(test, clips, "angry"), ablation.activation_stats(model, clips)
    options = {"modes": ("patch",), "donors": pairs, "activation_stats": activation_stats, "n_random": 5}
    found = ablation.sweep(model, test, neurons={1: range(23), 2: range(24), 3: [0, 1]}, **options)
    share = ablation.patching_effect(found)
    xr.testing.assert_equal(share["random_sets"], found["random_sets"])
    assert found["random_sets"].values.tolist() == [24, 1, 276]
    p = ablation.summary(share, "fraction_recovered")["p_random"].squeeze("mode")
    assert p.notnull().values.tolist() == [True, False, True]


def test_mean_overlap_averages_over_layers():
    """The overlap of random sets of a group is the mean over its layers, and 0 without sets."""
    sets = [[np.arange(4), np.arange(4)], [np.arange(4, 8), np.arange(4)], [np.arange(8, 12), np.arange(2, 6)]]
    assert (
        random_neurons.mean_overlap(sets) == pytest.approx((0 + (1 + 0.5 + 0.5) / 3) / 2)
        and random_neurons.mean_overlap([]) == 0
    )


def test_sweep_refuses_clip_as_own_donor(tiny, clips):
    """A sweep refuses a clip as its own donor."""
    with pytest.raises(ValueError, match="a clip is its own donor"):
        ablation.sweep(tiny(), clips.iloc[:1], neurons=NEURONS, modes=("resample",), donors=clips, n_random=0)


def test_sweep_refuses_k_above_width(tiny, clips):
    """A sweep refuses a `k` above the number of neurons in a layer, and accepts that number."""
    scores = attribution.grad_x_activation(tiny(), clips.iloc[:2], target="sad")
    with pytest.raises(ValueError, match="k is 25, and there are 24 neurons of hidden_state in a layer"):
        ablation.sweep(tiny(), clips.iloc[:1], neurons=scores, k=(2, 25), n_random=0)
    whole = ablation.sweep(tiny(), clips.iloc[:1], neurons=scores, k=24, layers=[2], n_random=0)
    assert len(json.loads(whole.attrs["neurons"])["2"]) == 24


def test_sweep_limits_controls_to_random_modes(tiny, clips, fitted):
    """Only `random_modes` have random and target-blind controls, and all other values stay the same."""
    model, test = tiny(), clips.iloc[[21, 24]]
    options = {"neurons": {"a": NEURONS, "b": {layer: [0, 5] for layer in NEURONS}}, "target": "sad", **fitted}
    whole = ablation.sweep(model, test, modes=("zero", "flip"), n_random=3, **options)
    found = ablation.sweep(model, test, modes=("zero", "flip"), n_random=3, random_modes=["flip"], **options)
    xr.testing.assert_allclose(found.sel(mode="flip"), whole.sel(mode="flip"), atol=1e-5)
    for name in whole.data_vars:
        if "mode" in whole[name].dims:
            compared = name.startswith(("random_", "blind_"))
            zero = found[name].sel(mode="zero")
            assert zero.isnull().all() if compared else np.allclose(zero, whole[name].sel(mode="zero"), 0, 1e-4, True)
