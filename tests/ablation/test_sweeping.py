from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
import torch
from scipy import special, stats

from xai_lib import ablation, attribution, audio, edits, hooks, models, plots, targets, widgets
from xai_lib.ablation import readouts
from xai_lib.activations import random_neurons
from xai_lib.probing import activation_proxies

NEURONS = {layer: [1, 4 + layer, 17] for layer in range(4)}


@pytest.fixture(scope="module")
def clips(make_clips, tmp_path_factory):
    """Nine speakers with one clip each, of different lengths; a tone between silences."""

    def tone(place, rng):
        wave = 0.001 * rng.standard_normal(6400 + 320 * place)
        middle = np.arange(1600, len(wave) - 1600)
        pitch = 150 + 90 * place
        wave[middle] += 0.2 * np.sin(2 * np.pi * pitch * middle / 16000) * rng.uniform(0.5, 1, len(middle))
        return wave

    return make_clips(tmp_path_factory.mktemp("clips"), 9, signal=tone, seed=0, label="angry", speaker="s{}")


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
    assert found["layer"].values.tolist() == [1, 2, 3] and found.attrs["frames"] == frames.shape[1]
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
        neurons=neurons,
        modes=modes,
        part=part,
        frames=frames,
        n_random=0,
        target="angry",
        activation_stats=activation_stats,
        batch=5,
    )
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
            row = found.sel(clip=clip, layer=layer, mode=mode)
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
    common = {"frames": "max_frame", "window": 2, "scale": 3.0, "seed": 5}
    found = ablation.sweep(
        model,
        clips.iloc[3:4],
        neurons=NEURONS,
        modes=("noise",),
        activation_stats=activation_stats,
        n_random=0,
        target="angry",
        **common,
    )
    for layer, own in NEURONS.items():
        stds = activation_stats["std"].sel(layer=layer).values
        logits = found["logits"].sel(layer=layer, mode="noise").values[0]
        key = *targets.key(5, 3, "noise"), layer, 0
        for other in ({}, {"window": 0}, {"scale": 1.0}, {"seed": 0}):
            function = edits.edit(own, "noise", stds=stds, **{**common, "seed": key, **other})
            plain, _ = hooked(model, clips["path"][3], {hooks.Site(layer): function})
            assert np.allclose(logits, plain, atol=1e-5) == (not other), other


def test_readout_functions_equal_hand_calculation():
    """Relative change, share of changed frames and a further reading equal a calculation by hand."""
    clean = torch.tensor([[[3.0, 4], [0, 10], [6, 8], [5, 0]]])  # norms 5, 10, 10, 5
    edited = clean + torch.tensor([[[0.0, 3], [0, 0], [0.99, 0], [0, -0.51]]])  # 60, 0, 9.9 and 10.2 %
    site = hooks.Site(2)
    read = readouts.readout_functions([site], [{site: lambda hidden: hidden[:, 0]}])[site]
    assert read(clean).tolist() == [[0, 0, 3, 4]]
    size = np.sqrt((9 + 0.99**2 + 0.51**2) / 250)
    assert read(torch.cat([edited, clean])).numpy() == pytest.approx(np.array([[size, 0.5, 3, 7], [0, 0, 3, 4]]))


def test_sweep_flip_doubles_zeroing(tiny_folder, clips):
    """With a head that reads a single neuron, a flip changes the log-odds twice as much as zeroing."""

    class Reads(torch.nn.Module):
        """The first label is neuron 3 of the last layer, the second 0."""

        def forward(self, hidden):
            value = hidden[..., 3].mean(1)
            return torch.stack([value, 0 * value], dim=-1)

    model = models.load(tiny_folder(), device="cpu", head=Reads(), labels=["yes", "no"])
    options = {"modes": ("flip", "zero"), "n_random": 0, "target": "yes"}
    found = ablation.sweep(model, clips.iloc[:3], neurons={3: [3, 5]}, **options)
    value = found["clean_logits"].sel(label="yes").values
    assert found["target_change"].sel(layer=3, mode="flip").values == pytest.approx(-2 * value, rel=1e-4)
    assert found["target_change"].sel(layer=3, mode="zero").values == pytest.approx(-value, rel=1e-4)
    other = ablation.sweep(model, clips.iloc[:3], neurons={3: [4, 5]}, **options)
    assert (other["target_change"] == 0).all() and (other["relative_change"].sel(readout_layer=3) > 0).all()
    pair = ablation.sweep(model, clips.iloc[:3], neurons={3: [3]}, **{**options, "target": ("no", "yes")})
    assert pair["target_change"].sel(mode="zero", layer=3).values == pytest.approx(value, rel=1e-4)


def test_sweep_reads_proxies_after_edit(tiny, clips):
    """Proxies change in layers after the edit, in units of their `sd`, and are not read before it."""
    model = tiny()
    fitted = activation_proxies.fit(model, clips.iloc[:4])
    activation_stats = ablation.activation_stats(model, clips.iloc[:4])
    found = ablation.sweep(
        model, clips.iloc[4:6], neurons=NEURONS, proxies=fitted, activation_stats=activation_stats, n_random=2
    )
    for prefix, name in itertools.product(("", "random_"), ("proxy_value", "proxy_sd")):
        values = found[prefix + name]
        for layer, readout_layer in itertools.product(range(4), range(4)):
            assert np.isfinite(values.sel(layer=layer, readout_layer=readout_layer)).all() == (readout_layer > layer)
    after = found["proxy_sd"].sel(proxy="rms")
    assert (np.abs(after.sel(layer=0, readout_layer=slice(1, None))) > 1e-4).all()
    clean = activation_proxies.measure(model, clips.iloc[4:6], fitted)["value"].rename(layer="readout_layer")
    assert found["clean_proxy_value"].values == pytest.approx(clean.values, rel=1e-4)
    change = (found["proxy_value"] - clean) / fitted["sd"].rename(layer="readout_layer")
    assert np.allclose(change.transpose(*found["proxy_sd"].dims), found["proxy_sd"], atol=1e-3, equal_nan=True)
    inside = ablation.sweep(model, clips.iloc[4:5], neurons={2: [0, 30]}, part="ffn_hidden", proxies=fitted, n_random=0)
    assert (
        np.isfinite(inside["proxy_sd"].sel(readout_layer=2)).all()
        and np.isnan(inside["relative_change"].sel(readout_layer=1)).all()
    )


def test_sweep_null_equals_sweeps_of_matched_sets(tiny, clips):
    """Random effects equal sweeps of the matched sets, and their sizes and overlaps are those of these sets."""
    model = tiny()
    activation_stats = ablation.activation_stats(model, clips.iloc[:3])
    options = {"target": "sad", "modes": ("zero",)}
    found = ablation.sweep(
        model, clips.iloc[3:5], neurons=NEURONS, activation_stats=activation_stats, n_random=3, seed=7, **options
    )
    size = np.hypot(activation_stats["mean"], activation_stats["std"])
    width = {"n_random": 3, "directions": 0, "seed": 7}
    sets = {layer: [own for (own,) in random_neurons.matched_sets(24, size, {layer: np.array(own)}, **width)[1:]]
            for layer, own in NEURONS.items()}  # fmt: skip
    for i in range(3):
        drawn = {layer: lists[i] for layer, lists in sets.items()}
        one = ablation.sweep(model, clips.iloc[3:5], neurons=drawn, n_random=0, **options)
        for name in ("target_change", "relative_change", "kl"):
            expected = one[name].values
            assert found[f"random_{name}"].isel(random=i).values == pytest.approx(expected, abs=1e-5, nan_ok=True)
        for layer, own in drawn.items():
            here = size.sel(layer=layer).values
            assert found["random_magnitude"].sel(layer=layer)[i] == pytest.approx(np.sqrt(np.mean(here[own] ** 2)))
            assert found["magnitude"].sel(layer=layer) == pytest.approx(np.sqrt(np.mean(here[NEURONS[layer]] ** 2)))
            pairs = [np.isin(a, b).mean() for a, b in itertools.combinations(sets[layer], 2)]
            assert found["random_overlap"].sel(layer=layer) == pytest.approx(np.mean(pairs))


def test_sweep_selects_top_neurons_of_scores(tiny, clips):
    """Scores select the `k` top neurons of each layer, and the default target is the predicted label."""
    model = tiny()
    scores = attribution.grad_x_activation(model, clips.iloc[:3], target="angry")
    found = ablation.sweep(model, clips.iloc[3:4], neurons=scores, k=2, layers=[3, 1], n_random=0)
    assert found["layer"].values.tolist() == [1, 3]
    assert found.attrs["neurons"] == json.dumps(
        {str(layer): sorted(attribution.top_neurons(scores, 2, layer=layer)["neuron"]) for layer in (1, 3)}
    )
    assert found["target"].item() == model.labels[found["clean_logits"].values.argmax()]  # "predicted"


def test_sweep_names_unusable_clips(tiny, clips, monkeypatch):
    """Clips that are missing or without speech are skipped and named, and refused if no other is left."""
    model, rows, mask = tiny(), clips.iloc[:3].copy(), audio.speech_mask
    rows.loc[1, "path"] = "nowhere.wav"
    longest = max(len(audio.read(path)) for path in clips["path"][[0, 2]])
    monkeypatch.setattr(audio, "speech_mask", lambda x, *a, **kw: mask(x, *a, **kw) & (len(x) < longest))
    with pytest.warns(UserWarning, match="nowhere"):
        found = ablation.sweep(model, rows, neurons=NEURONS, frames="speech", n_random=0)
    assert found["clip"].values.tolist() == [0]
    skipped = json.loads(found.attrs["skipped"])
    assert list(skipped) == ["1", "2"] and "no speech" in skipped["2"]
    with pytest.raises(ValueError, match="no speech was found"):
        ablation.sweep(model, rows.iloc[2:], neurons=NEURONS, frames="speech", n_random=0)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neurons": {4: [0]}}, "layer 4 out of range"),
        ({"neurons": {1: [24]}}, "neuron 24 out of range"),
        ({"neurons": {1: []}}, "no neurons are given for layer 1"),
        ({"neurons": {}}, "no neurons are given for any layer"),
        ({"layers": [9]}, "layer 9 out of range: this model has 0–3"),
        ({"modes": ("explode",)}, "unknown mode"),
        ({"modes": ("mean",)}, "needs activation_stats="),
        ({"n_random": 5}, "needs activation_stats="),
        ({"frames": "some"}, "unknown frames"),
        ({"target": "bored"}, "bored"),
    ],
)
def test_sweep_refuses_invalid_options(tiny, clips, options, message):
    """A sweep refuses unknown layers, neurons, modes, frames or targets, and missing statistics."""
    with pytest.raises(ValueError, match=message):
        ablation.sweep(tiny(), clips.iloc[:1], **{"neurons": NEURONS, "n_random": 0, **options})


def test_sweep_refuses_statistics_of_other_part_or_model(tiny, clips):
    """A sweep refuses statistics and scores of another part, and statistics of another model."""
    model = tiny()
    one = clips.iloc[:1]
    with pytest.raises(ValueError, match="of ffn_out instead of hidden_state"):
        ablation.sweep(
            model, one, neurons=NEURONS, activation_stats=ablation.activation_stats(model, one, part="ffn_out")
        )
    with pytest.raises(ValueError, match="of another model"):
        ablation.sweep(
            model, one, neurons=NEURONS, activation_stats=ablation.activation_stats(model, one).isel(neuron=slice(9))
        )
    scores = attribution.grad_x_activation(model, one, target="sad", part="ffn_out")
    with pytest.raises(ValueError, match="the scores are of ffn_out, and the edit is of hidden_state"):
        ablation.sweep(model, one, neurons=scores, n_random=0)


@pytest.fixture(scope="module")
def swept(tiny, clips):
    model = tiny()
    train, test = clips.iloc[:1], clips.iloc[1:]
    options = {"neurons": NEURONS, "target": "angry", "activation_stats": ablation.activation_stats(model, train)}
    fitted = activation_proxies.fit(model, clips)
    return [
        ablation.sweep(model, test, modes=("flip", "zero"), n_random=4, proxies=fitted, **options),
        ablation.sweep(model, test, n_random=0, frames="max_frame", **options),
        activation_proxies.validity(model, test, fitted),
    ]


def words(figure):
    """All text of a figure."""
    figure.canvas.draw()
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_plots_show_sweep_results(swept):
    """Curves, maps and points show the numbers of the sweep, or of each of 3 speakers, and no tile below the edit."""
    sweep, peaks, _ = swept
    curves = ablation.summary(sweep)
    figure = plots.layer_curves(curves.sel(mode="flip"))
    assert "8 speakers" in words(figure) and "mean of random sets" in words(figure)
    shown = [line.get_ydata() for axes in figure.axes for line in axes.lines]
    assert any(np.array_equal(y, curves["mean"].sel(mode="flip")) for y in shown)
    few = ablation.summary(sweep.isel(clip=slice(3)))
    figure = plots.layer_curves({mode: few.sel(mode=mode) for mode in ("flip", "zero")})
    assert "3 speakers, and each" in words(figure) and "zero" in words(figure)
    alone = ablation.summary(peaks).sel(mode="flip")
    (axes,) = plots.layer_curves(alone).axes
    assert any(np.array_equal(line.get_ydata(), alone["mean"]) for line in axes.lines)
    assert "random" not in words(axes.figure)  # peaks have no random sets
    changes = peaks["relative_change"].sel(mode="flip").mean("clip").values
    numbers = [text.get_text() for text in plots.relative_change(peaks).axes[0].texts if text.get_text()]
    assert len(numbers) == 4 + 3 + 2 + 1  # nothing below the edit
    assert [float(number) for number in numbers] == pytest.approx(changes[np.isfinite(changes)], abs=0.0051)


def test_emotion_tracking_shows_probabilities(swept):
    """Each label's curve is its probability by edited layer, from that of the clean clip."""
    one = swept[0].isel(clip=[0])
    (axes,) = plots.emotion_tracking(one).axes
    curves = {line.get_label(): line.get_ydata() for line in axes.lines}
    clean = [line.get_ydata()[0] for line in axes.lines if line.get_marker() == "D"]
    for place, label in enumerate(one["label"].values):
        np.testing.assert_allclose(curves[label], one["probability"].sel(mode="flip", label=label)[0])
        assert clean[place] == pytest.approx(one["clean_probability"].sel(label=label).item())


def test_layer_effect_shows_speakers_and_random_sets(swept):
    """Points are the change of each speaker and random set, bars the probabilities before and after."""
    sweep, peaks, _ = swept
    for result, rows in ((sweep, 2), (peaks, 1)):
        effects, probabilities = plots.layer_effect(result, 2).axes
        row = result.sel(layer=2, mode="flip")
        np.testing.assert_allclose(np.sort(effects.lines[0].get_xdata()), np.sort(row["target_change"]))
        assert len(effects.get_yticks()) == rows
        np.testing.assert_allclose(effects.lines[2].get_xdata(), row["random_target_change"].mean("clip"), rtol=1e-5)
        bars = [bar.get_width() for bar in probabilities.patches]
        expected = [*row["clean_probability"].mean("clip").values, *row["probability"].mean("clip").values]
        np.testing.assert_allclose(bars, expected, rtol=1e-5)


def test_proxy_changes_hatches_nonsignificant_tiles(swept):
    """Changes of proxies that are not significant are hatched, and the validity of a proxy is drawn as bars."""
    changes = ablation.summary(swept[0], "proxy_sd").sel(mode="flip")
    after = changes["readout_layer"] > changes["layer"]
    changes["q"] = (
        changes["q"].where(False, 0.2).where((after.cumsum("readout_layer") != 1) | (changes["proxy"] != "zcr"), 0.01)
    )
    figure = plots.proxy_changes(changes, swept[2])
    assert "hatched: n.s. against random neurons" in words(figure)
    hatched = [[patch.get_xy() for patch in axes.patches if patch.get_hatch()] for axes in figure.axes[:3]]
    assert [len(found) for found in hatched] == [6, 3, 6] and (0.5, -0.5) not in hatched[1]
    bars = [patch.get_height() for patch in figure.axes[3].patches]
    assert bars == pytest.approx(swept[2]["mean"].sel(proxy="rms").values, nan_ok=True)


def test_plots_average_clips_without_speakers(swept):
    """Without speakers, figures show means over clips and say so."""
    unknown = swept[0].drop_vars("speaker")
    assert "clips" in words(plots.layer_effect(unknown, 1))
    expected = unknown["probability"].sel(mode="zero").mean("clip").sel(label="sad")
    shown = [line.get_ydata() for line in plots.emotion_tracking(unknown, mode="zero").axes[0].lines]
    assert any(np.array_equal(y, expected) for y in shown)


def test_ablation_explorer_follows_controls(swept):
    """The explorer follows layer, mode and readout, and says which modes were run for the chosen frames."""
    explorer = widgets.AblationExplorer(swept[:2])
    assert explorer.error is None and explorer.controls["layer"].value == 2
    explorer.controls["layer"].value = 3
    assert "Layer 3, flip" in words(explorer.figure)
    explorer.controls["mode"].value = "zero"
    explorer.controls["readout"].value = "decision changed"
    assert explorer.error is None and "another label" in words(explorer.figure)
    explorer.controls["frames"].value = "max_frame"
    assert "mode 'zero' was not run with frames='max_frame': choose from flip" in explorer.error
