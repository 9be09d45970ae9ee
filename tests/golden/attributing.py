"""Sections: the seven attributions and what is made of them, activations, exemplars, courses, what layers tell."""

import tempfile

import numpy as np
import xarray as xr

from xai_lib import activations, attribution, heads, targets
from xai_lib.activations import donors, exemplars
from xai_lib.attribution import class_contrast, gradientshap, occlusion
from xai_lib.faithfulness import deletion_test as frames
from xai_lib.probing import (
    acoustic_decoders,
    activation_proxies,
    linear_probes,
    speaker_space,
    time_courses,
    variance_explained,
)

from . import inputs

TARGET = {"target": inputs.EMOTION, "scale": "log_odds"}


def gradients():
    """Gradient, gradient × activation, integrated gradients; rankings of neurons."""
    model, few, scores = inputs.pocket(), inputs.few(), inputs.scores()
    path = {"layers": [1, 5], "steps": 8}
    found = {
        "gradient": attribution.gradient(model, few, **TARGET),
        "gradient_of_a_contrast": attribution.gradient(
            model, few, target=(inputs.EMOTION, inputs.RIVAL), layers=[3], part="ffn_out", frames="speech"
        ),
        "grad_x_activation": attribution.grad_x_activation(model, few, **TARGET),
        "grad_x_activation_of_predicted": attribution.grad_x_activation(
            model, few, target="predicted", scale="probability", part="attention", layers=[2]
        ),
        "grad_x_activation_by_frame": attribution.grad_x_activation(
            model, few, target=inputs.EMOTION, layers=[4], by_frame=True
        ).isel(neuron=slice(0, 16)),
        "integrated_gradients": attribution.integrated_gradients(model, few, **path, **TARGET),
        "integrated_gradients_from_the_mean": attribution.integrated_gradients(
            model, few.head(1), baseline="mean", activation_stats=inputs.activation_stats(), **path, **TARGET
        ),
    }
    methods = {name: found[name] for name in ("gradient", "grad_x_activation")}
    return {
        **found,
        "mean_score": attribution.mean_score(scores, by="signed"),
        "top_neurons": attribution.top_neurons(scores, 30),
        "top_neurons_signed": attribution.top_neurons(scores, 30, by="signed"),
        "top_neurons_of_a_layer": attribution.top_neurons(scores, 10, layer=3),
        "agreement": attribution.agreement(found["grad_x_activation"], scores),
        "methods": attribution.compare_methods(methods, 40),
    }


def shap():
    """GradientSHAP: baselines, frames and neurons."""
    model, few = inputs.pocket(), inputs.few()
    options = {"n": 16, "steps": 8, "batch": 16, **TARGET}
    noise = attribution.gradient_shap(model, few, layers=[1, 5], **options)
    return {
        "noise": noise,
        "silence": attribution.gradient_shap(model, few.head(1), baseline="silence", reduce="sum", **options),
        "clips": attribution.gradient_shap(model, few.head(1), baseline=inputs.train(), reduce="max", **options),
        "every_draw": attribution.gradient_shap(model, few.tail(1), reduce="none", seed=4, **options),
        "frame_table": gradientshap.frame_table(noise),
        "top_frames": gradientshap.top_frames(noise, 10),
    }


def deletion():
    """Draws of baselines and of frames to silence; what silencing them does."""
    model, few = inputs.pocket(), inputs.few().head(1)
    x = model.tensor(np.sin(np.arange(4000)).astype(np.float32))[0]
    key = targets.key(0, 3, targets.SEED_GRADIENT_SHAP)
    drawn = {}
    for name, baseline in {"noise": "noise", "silence": "silence", "clips": inputs.train()}.items():
        alphas, others = gradientshap.draws(x, range(8), steps=4, baseline=baseline, key=key, rate=16000)
        drawn[name] = np.concatenate([alphas[:, None].numpy(), others[:, :50].numpy()], axis=1)
    found = attribution.gradient_shap(model, few, n=4, steps=2, **TARGET)
    wave, level, pool = np.sin(np.arange(40.0)), np.arange(40.0), np.arange(5, 35)
    return {
        "draws": inputs.by_name(drawn, ("draw", "sample")),
        "masks": frames.deletion_masks(wave, level, pool, 0.2, 3, np.random.default_rng(1)),
        "gate": frames.gate(np.ones(640, np.float32), [True, False]),
        "shap": found,
        "frame_deletion": frames.frame_deletion(model, few, found, target=inputs.EMOTION, n=4),
    }


def segment():
    """What each stretch of the input does to every neuron."""
    model, few = inputs.pocket(), inputs.few()
    silence = attribution.segment_response(model, few, seconds=0.4, layers=[2, 5])
    options = {"seconds": 0.4, "layers": [4]}
    return {
        "silence": silence,
        "noise": attribution.segment_response(model, few, baseline="noise", **options),
        "mean": attribution.segment_response(model, few.head(1), baseline="mean", frames=20, fade=0, **options),
        "summary": occlusion.summary(silence),
        "top_segments": occlusion.top_segments(silence, 5, 17, k=3),
    }


def exhaustive():
    """Every neuron edited alone."""
    model, few = inputs.pocket(), inputs.few()
    donor = donors.random_donors(few, inputs.side("test"), seed=2)
    modes = {
        "zero": {},
        "flip": {"frames": "speech"},
        "noise": {"activation_stats": inputs.activation_stats(), "seed": 3},
        "resample": {"donors": donor},
    }
    return {
        mode: attribution.exhaustive_ablation(model, few, mode=mode, layers=[5], batch=72, **options, **TARGET)
        for mode, options in modes.items()
    }


def contrast():
    """Which neurons tell one kind of clip from another."""
    found = activations.activations(inputs.pocket(), inputs.test(), "hidden_state")
    pair = inputs.EMOTION, inputs.RIVAL
    alike = inputs.side("test").query("statement == 1 and repetition == 1 and label in @pair")
    return {
        "activation_contrast": attribution.activation_contrast(inputs.pocket(), alike, target=pair, layers=[1, 5]),
        "compare": class_contrast.compare(found, "label", inputs.EMOTION),
        "compare_sexes": class_contrast.compare(found, "sex", "female", "male"),
        "distribution": class_contrast.distribution(found, 3, 11, "label"),
    }


def activity():
    """Activations, pooled in several ways; moments; clips and moments that drive a neuron."""
    model, few, train = inputs.pocket(), inputs.few(), inputs.deep("train")
    layer, neuron = inputs.DEEP[1], 40
    found = exemplars.exemplars(train, layer, neuron, 4)
    cut = exemplars.snippets(model, inputs.train(), found, layer, neuron)
    top = exemplars.top_frames(model, inputs.train(), layer, neuron, 4)
    sites = [(2, "attention"), (4, "ffn_out"), (1, "heads")]
    return {
        "train": train,
        "maximum": activations.activations(model, few, "hidden_state", pool="max"),
        "highest_tenth": activations.activations(model, few, "hidden_state", pool="top-0.1", frames="all"),
        "several_parts": activations.activations(model, few, sites),
        "activation_stats": inputs.activation_stats(),
        "moments_of_the_feed_forward": activations.activation_stats(model, few, part="ffn_hidden").sel(layer=[3]),
        "exemplars": found,
        "snippets": cut.drop(columns="waveform").assign(samples=cut["waveform"].map(len)),
        "top_frames": top.drop(columns="waveform").assign(samples=top["waveform"].map(len)),
    }


def course():
    """When in an utterance neurons are active, and whether that holds over speakers."""
    clips = inputs.test().drop_duplicates("speaker")
    found = time_courses.course(inputs.pocket(), clips, bins=5, layers=[2, 5], shuffles=2)
    rng = np.random.default_rng(2)
    coords = {"clip": range(32), "speaker": ("clip", np.repeat(range(16), 2)), "statement": ("clip", [1, 2] * 16)}
    shapes = {"activation": (32, 5, 1, 12), "shuffled": (32, 5, 1, 12), "level": (32, 5), "shuffled_level": (32, 5)}
    dims = ("clip", "position", "layer", "neuron")
    made = {name: (dims[: len(shape)], rng.standard_normal(shape)) for name, shape in shapes.items()}
    return {
        "course": found,
        "consistency": time_courses.consistency(found),
        "consistency_by_draws": time_courses.consistency(xr.Dataset(made, {**coords, "layer": [1]}), draws=99, seed=5),
    }


def probing():
    """What probes read, how well they do on unseen speakers, shares of variance."""
    train, test = (
        linear_probes.read(inputs.pocket(), clips, layers=[1, 5]) for clips in (inputs.train(), inputs.test())
    )
    found = linear_probes.layer_probes(train, test, controls=3, seed=1)
    return {
        "read": test.drop_dims("sound", errors="ignore").drop_vars("sound_clip", errors="ignore"),
        "sounds": test[["sound_mean"]].isel(sound=slice(0, 30)),
        "layer_probes": found,
        "over_speakers_and_controls": linear_probes.over_speakers_and_controls(found),
        "selectivity": variance_explained.selectivity(test, draws=inputs.DRAWS, seed=2),
    }


def head():
    """A head on frozen features, cross-validated over speakers, and fitted."""
    lively = inputs.train()["label"].isin(["angry", "happy", "fearful", "surprised"])
    clips = inputs.train().assign(label=np.where(lively, "lively", "quiet"))
    features = heads.features(inputs.pocket(), clips, layers=[2, 5])
    with tempfile.TemporaryDirectory() as folder:
        model, report = heads.fit(inputs.pocket(), clips, f"{folder}/head", layers=[2, 5], folds=3, seed=1)
        logits = model(inputs.few()).numpy()
    return {
        "features": features,
        "cross_validate": heads.cross_validate(features, folds=4, shuffles=2, seed=1),
        "fitted": report,
        "logits": logits,
    }


def decoding():
    """Decoders of level, pitch and the like, proxies, speakers; how well they do on unseen speakers."""
    model, train, test = inputs.pocket(), inputs.train(), inputs.test()
    decoder, proxy, space = inputs.fitted()
    return {
        "decoders": decoder.sel(layer=[0, 5]),
        "truth": acoustic_decoders.measure(model, inputs.few()),
        "decoders_validity": acoustic_decoders.validity(model, test, decoder),
        "proxies": signed(proxy),
        "proxies_measured": activation_proxies.measure(model, test, proxy),
        "proxies_validity": activation_proxies.validity(
            model, inputs.side("test").groupby("speaker").head(3).head(12), proxy
        ),
        "speakers": signed(space).sel(layer=[2, 5]),
        "equal_error_rate": speaker_space.equal_error_rate(model, test, space, draws=5, seed=1),
        "known": speaker_space.speaker_names(train),
    }


def signed(fitted):
    """Axes whose direction is of no meaning, turned so that their largest weight is positive."""
    turned = {}
    for name in {"component", "projection"} & set(fitted):
        axis = fitted[name]
        turned[name] = axis * np.sign(
            axis.isel(neuron=np.abs(axis).argmax("neuron")).drop_vars("neuron", errors="ignore")
        )
    return fitted.assign(turned)
