from __future__ import annotations

import os
import random
import zlib
from pathlib import Path
from types import SimpleNamespace

import matplotlib
import numpy as np
import pandas as pd
import pytest
import soundfile
from hypothesis import HealthCheck, settings
from speechlike import voice

matplotlib.use("Agg")
# No limit on time inside a test: a slow machine would miss it.
settings.register_profile("any machine", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("any machine")


NETWORKS = {"tiny_folder", "tiny", "shared", "model", "pocket", "ast"}  # fixtures that open a network


def pytest_collection_modifyitems(items):
    for item in items:
        if NETWORKS & set(getattr(item, "fixturenames", ())):
            item.add_marker("heavy")


@pytest.fixture(scope="session")
def device(request):
    """The device that the tests run on (--device)."""
    import torch

    name = request.config.getoption("--device")
    if name.startswith("cuda") and not torch.cuda.is_available():
        pytest.fail(f"--device {name} was asked for and torch finds no GPU")
    return name


@pytest.fixture(scope="session")
def real():
    """Folder of real recordings (ravdess/, esc10/, librispeech/)."""
    path = os.environ.get("XAI_REAL_DATA")
    lacking = [name for name in ("ravdess", "esc10", "librispeech") if not path or not (Path(path) / name).is_dir()]
    if lacking:
        what = "the folder that holds ravdess/, esc10/ and librispeech/"
        pytest.skip(f"real recordings ({', '.join(lacking)}) are not here: set XAI_REAL_DATA to {what}")
    return Path(path)


@pytest.fixture(scope="session")
def espeak():
    """The library of espeak-ng, with which the sample corpus was spoken."""
    import sys

    sys.path.insert(0, str(Path(__file__).parents[1] / "data" / "recipes"))
    import synthesis

    try:
        return synthesis.espeak()
    except FileNotFoundError as error:
        pytest.skip(str(error))


@pytest.fixture(autouse=True)
def _seeds():
    """Each test starts from the same seeds, and leaves no figure open and no style behind."""
    import torch
    from matplotlib import pyplot as plt

    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
    with matplotlib.rc_context():
        yield
    plt.close("all")


TINY = {
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "conv_dim": (12, 12, 12, 12, 12, 12, 12),
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "classifier_proj_size": 16,
    "num_buckets": 16,
    "max_bucket_distance": 40,
}
LARGE = {"do_stable_layer_norm": True, "feat_extract_norm": "layer", "conv_bias": True}


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """tiny_folder("base"): a checkpoint of a small random WavLM, base or large, with its feature extractor."""
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForSequenceClassification

    from xai_lib.corpora.filenames import EMOTIONS

    made = {}

    def make(size="base", **options):
        key = (size, tuple(sorted(options.items())))
        if key not in made:
            import torch

            torch.manual_seed(zlib.crc32(repr(key).encode()))  # whatever else was made before
            names = dict(enumerate(EMOTIONS))
            config = WavLMConfig(
                **{**TINY, **(LARGE if size == "large" else {}), **options},
                id2label=names,
                label2id={v: k for k, v in names.items()},
            )
            network = WavLMForSequenceClassification(config)
            with torch.no_grad():  # the library's first weights are so small that edits would hardly show
                for parameter in network.parameters():
                    parameter.add_(0.08 * torch.randn_like(parameter))
            made[key] = tmp_path_factory.mktemp(size)
            network.save_pretrained(made[key])
            Wav2Vec2FeatureExtractor(do_normalize=size == "large").save_pretrained(made[key])
        return made[key]

    return make


@pytest.fixture(scope="session")
def tiny(tiny_folder, device):
    """tiny("base" | "large", …config options): such a model, opened."""
    from xai_lib import models

    return lambda size="base", **options: models.load(tiny_folder(size, **options), device=device)


@pytest.fixture
def xvector_heads(tiny_folder, tmp_path):
    """xvector_heads("base" | "large", …config options): a small x-vector network on that encoder, and its folder."""
    import torch
    from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForXVector

    from xai_lib import models

    def make(size="base", **options):
        sizes = {
            "tdnn_dim": (16, 16, 20),
            "tdnn_kernel": (5, 3, 1),
            "tdnn_dilation": (1, 2, 1),
            "xvector_output_dim": 8,
        }
        config = WavLMConfig.from_pretrained(tiny_folder(size), **sizes, **options)
        network = WavLMForXVector(config).eval()
        encoder = models.load(tiny_folder(size)).architecture.base
        network.wavlm.load_state_dict(encoder.state_dict())
        with torch.no_grad():
            for name, weight in network.named_parameters():
                if not name.startswith("wavlm."):
                    weight.add_(0.1 * torch.randn_like(weight))
        network.save_pretrained(tmp_path / "head")
        Wav2Vec2FeatureExtractor().save_pretrained(tmp_path / "head")
        return network, tmp_path / "head"

    return make


@pytest.fixture(scope="session")
def ast_folder(tmp_path_factory):
    """A small random AST of one second, three layers."""
    import torch
    from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

    torch.manual_seed(0)
    settings = {"max_length": 100, "num_mel_bins": 32}
    names = dict(enumerate(["rain", "dog", "bell"]))
    config = ASTConfig(hidden_size=24, num_hidden_layers=3, num_attention_heads=3, intermediate_size=40, patch_size=16,
                       time_stride=8, frequency_stride=8, id2label=names, label2id={v: k for k, v in names.items()},
                       **settings)  # fmt: skip
    network = ASTForAudioClassification(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    path = tmp_path_factory.mktemp("ast")
    network.save_pretrained(path)
    ASTFeatureExtractor(mean=-5.0, std=4.0, **settings).save_pretrained(path)
    return path


@pytest.fixture(scope="session")
def ast(ast_folder, device):
    """That AST, opened."""
    from xai_lib import models

    return models.load(ast_folder, device=device)


@pytest.fixture(scope="session")
def opened():
    """{(size, options): a model of `tiny` that several tests share}."""
    return {}


@pytest.fixture
def shared(tiny, opened):
    """shared("base" | "large", …config options): as `tiny`, opened once; anew after a test that changed it."""
    states = {}

    def open_once(size="base", **options):
        key = (size, *sorted(options.items()))
        if key not in opened:
            opened[key] = tiny(size, **options)
        states.setdefault(key, state_of(opened[key]))
        return opened[key]

    yield open_once
    for key, before in states.items():
        if state_of(opened[key]) != before:
            del opened[key]


def state_of(model) -> tuple:
    """What a test could change of a model: its attributes, and the modules, hooks and weights of its network."""
    attributes = {name: id(value) for name, value in vars(model).items()}
    modules = [
        (id(module), module.training, len(module._forward_hooks), len(module._forward_pre_hooks))
        for module in model.network.modules()
    ]
    gradients = [(weight.requires_grad, weight.grad is None) for weight in model.network.parameters()]
    weights = {name: hash(x.cpu().numpy().tobytes()) for name, x in model.network.state_dict().items()}
    return attributes, modules, gradients, weights


@pytest.fixture(
    params=[
        "base",
        pytest.param("large", marks=pytest.mark.full),
        pytest.param("base-sum", marks=pytest.mark.full),
        "large-sum",
    ]
)
def model(request, shared):
    """Such a model of either size, without and with a weighted sum of its layers; `make test` takes two of the four."""
    size, *summed = request.param.split("-")
    return shared(size, **({"use_weighted_layer_sum": True} if summed else {}))


def entry(value, place):
    """Return what the clip of this number has of `value`."""
    if callable(value):
        return value(place)
    if isinstance(value, (list, tuple)):
        return value[place]
    return value.format(place) if isinstance(value, str) else value


@pytest.fixture(scope="session")
def make_clips():
    """make_clips(folder, number, …): sound files at 16 kHz in a folder, and their table with a column `path`.

    Clip `i` is `signal(i, rng)`; without a signal it is `level` times white noise of `lengths` samples.
    Each clip has a generator of its own, of seed `i`; `seed` makes one that draws all clips in turn.
    `silent` are the numbers of samples at the start and at the end that are turned down by 80 dB.
    Further columns are given by name. What differs between clips (`lengths`, `names`, columns) is
    one value, a text with {} for the number, a list, or a function of the number.
    """

    def make(
        folder,
        number,
        *,
        signal=None,
        lengths=None,
        level=0.2,
        seed=None,
        silent=(0, 0),
        names="{}.wav",
        subtype="FLOAT",
        index=None,
        **columns,
    ):
        shared, rows = np.random.default_rng(seed), []
        for place in range(number):
            rng = np.random.default_rng(place) if seed is None else shared
            samples = signal(place, rng) if signal else level * rng.standard_normal(entry(lengths, place))
            start, end = silent
            samples[:start] *= 1e-4
            samples[len(samples) - end :] *= 1e-4
            path = Path(folder) / entry(names, place)
            path.parent.mkdir(parents=True, exist_ok=True)
            soundfile.write(path, samples, 16000, subtype=subtype)
            rows.append({"path": str(path), **{name: entry(value, place) for name, value in columns.items()}})
        return pd.DataFrame(rows, index=index)

    return make


@pytest.fixture
def clips(make_clips, tmp_path):
    """Two clips of unequal length by two speakers, silent at both ends."""
    about = {"index": [7, 9], "label": "angry", "speaker": "s{}"}
    return make_clips(tmp_path, 2, lengths=(8000, 10000), silent=(2000, 1000), **about)


@pytest.fixture
def swelling_clips(make_clips, tmp_path):
    """Two clips of noise that swells, of unequal length, by two speakers."""

    def swell(place, rng):
        length = (8000, 9777)[place]
        return 0.2 * rng.standard_normal(length) * np.linspace(0.01, 1, length)

    return make_clips(tmp_path, 2, signal=swell, label="sad", speaker="s{}")


@pytest.fixture
def coloured_clips(make_clips, tmp_path):
    """Six clips of noise, each of another level, length and colour."""

    def coloured(place, rng):
        noise = rng.standard_normal(5000 + 400 * place)
        return np.convolve(noise, np.ones(1 + place) / (1 + place), "same") * 0.05 * (1 + place % 4)

    return make_clips(tmp_path, 6, signal=coloured, seed=0, label="angry", speaker="s{}")


@pytest.fixture(scope="session")
def voices(make_clips, tmp_path_factory):
    """Three clips each by twelve speakers, of noise coloured by speaker, each of another statement and length."""

    def coloured(place, rng):
        colour = np.random.default_rng(place // 3).standard_normal(6)
        return 0.1 * np.convolve(rng.standard_normal(6000 + 320 * place), colour, "same")

    about = {"label": "calm", "speaker": lambda i: f"s{i // 3:02}", "statement": lambda i: i % 3}
    return make_clips(tmp_path_factory.mktemp("voices"), 36, signal=coloured, seed=0, **about)


@pytest.fixture(scope="session")
def gliding_voices(make_clips, tmp_path_factory):
    """Three clips each by twelve speakers, of their own pitch; no two clips are of one length."""
    return make_clips(
        tmp_path_factory.mktemp("voices"),
        36,
        signal=lambda i, rng: voice(rng, 8000 + 320 * i, 100 + 12 * (i // 3), rng.uniform(-20, 20)),
        seed=0,
        label=("angry", "sad", "calm") * 12,
        speaker=lambda i: f"s{i // 3:02}",
    )


@pytest.fixture(scope="session")
def emotional_buzzes(make_clips, tmp_path_factory):
    """Nine speakers who say one thing in three ways, clips of different lengths; buzzes between silences."""
    labels = ("angry", "sad", "calm")

    def buzz(number, rng):
        speaker, place = divmod(number, 3)
        n = 6400 + 320 * speaker + 640 * place
        wave, at = 0.001 * rng.standard_normal(n), np.arange(1600, n - 1600)
        phase = np.cumsum((110 + 12 * speaker + 40 * place) * (1 + 0.1 * np.sin(at / 900)) / 16000)
        wave[at] += 0.1 * (1 + place) * ((phase % 1) - 0.5) * (1 + 0.5 * np.sin(at / 700))
        return wave

    return make_clips(
        tmp_path_factory.mktemp("clips"),
        27,
        signal=buzz,
        seed=0,
        names=lambda i: f"{i // 3}-{labels[i % 3]}.wav",
        label=labels * 9,
        speaker=lambda i: f"s{i // 3}",
        statement=1,
    )


@pytest.fixture
def edited(model):
    """edited(waveform, readout_functions): two edits, what `cascade_read` sees of them, and the hidden states that hooks see.

    {site: [row, …]} and {site: array [row, frame, neuron]}; rows are clean, zero in layer 1, and flip in layer 2.
    """
    import torch

    from xai_lib import edits, execution, hooks

    plans = [(hooks.Site(1), edits.edit([0, 3], "zero")), (hooks.Site(2), edits.edit([1], "flip"))]

    def run(waveform, readout_functions):
        _, seen = execution.cascade_read(model, waveform, plans, readout_functions)
        rows = []
        for plan in ({}, *({site: function} for site, function in plans)):
            with torch.no_grad(), hooks.edit(model, plan), hooks.capture(model, model.sites()) as kept:
                model.logits(model.tensor(waveform))
            rows.append(kept)
        assert list(seen) == model.sites()
        seen = {site: found.cpu().numpy() for site, found in seen.items()}
        assert np.allclose(seen[hooks.Site(1)][2], seen[hooks.Site(1)][0], atol=1e-5)  # below its edit
        assert not np.array_equal(seen[hooks.Site(3)][2], seen[hooks.Site(3)][0])
        return seen, {site: torch.cat([kept[site] for kept in rows]).cpu().numpy() for site in seen}

    return run


@pytest.fixture
def wave():
    """Half a second of noise, as a waveform at 16 kHz."""
    return (0.1 * np.random.default_rng(1).standard_normal(8000)).astype(np.float32)


@pytest.fixture
def linear():
    """A model whose logits are weighted sums of the samples."""
    import torch

    from xai_lib import audio

    weights = torch.as_tensor(np.random.default_rng(5).standard_normal((20_000, 2)), dtype=torch.float32)
    return SimpleNamespace(
        name="linear",
        network=torch.nn.Identity(),
        outputs="one label",
        scores=lambda logits: torch.softmax(logits, dim=-1),
        labels=["calm", "angry"],
        sample_rate=16000,
        hop=320,
        span=400,
        weights=weights,
        require_trained=lambda: None,
        target=["calm", "angry"].index,
        check=lambda site: site,
        n_frames=audio.n_frames,
        valid_frames=lambda wave: np.ones(audio.n_frames(len(wave)), bool),
        stream=lambda clips, skipped=None: audio.stream(clips, skipped=skipped),
        speech=audio.speech_mask,
        tensor=lambda wave: torch.as_tensor(wave)[None],
        logits=lambda x: x @ weights[: x.shape[1]],
    )


@pytest.fixture(scope="session")
def tone_clips(make_clips, tmp_path_factory):
    """Nine speakers with one clip each, of different lengths; a tone between silences."""

    def tone(place, rng):
        wave = 0.001 * rng.standard_normal(6400 + 320 * place)
        middle = np.arange(1600, len(wave) - 1600)
        pitch = 150 + 90 * place
        wave[middle] += 0.2 * np.sin(2 * np.pi * pitch * middle / 16000) * rng.uniform(0.5, 1, len(middle))
        return wave

    return make_clips(tmp_path_factory.mktemp("clips"), 9, signal=tone, seed=0, label="angry", speaker="s{}")


@pytest.fixture(scope="session")
def tiny_sweeps(tiny, tone_clips):
    """Sweeps of a small model, of all frames with random sets and of one frame without, and validity of proxies."""
    from xai_lib import ablation
    from xai_lib.probing import activation_proxies

    model = tiny()
    train, test = tone_clips.iloc[:1], tone_clips.iloc[1:]
    fitted = activation_proxies.fit(model, tone_clips)
    selection = ablation.Selection({layer: [1, 4 + layer, 17] for layer in range(4)})
    every_frame = ablation.sweep(
        model,
        test,
        selection,
        controls=ablation.RandomControls(ablation.activation_stats(model, train), n=4),
        edit=ablation.Edit(("flip", "zero")),
        readouts=[ablation.Proxies(fitted)],
        target="angry",
    )
    edit = ablation.Edit(frames="max_frame")
    peaks = ablation.sweep(model, test, selection, controls=None, edit=edit, target="angry")
    return [every_frame, peaks, activation_proxies.validity(model, test, fitted)]
