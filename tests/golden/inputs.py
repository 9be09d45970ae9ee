"""What golden arrays are made of: bundled models, 16 training and 16 test clips of the sample, and made-up sounds."""

from functools import cache

import numpy as np
import pandas as pd
import xarray as xr

from xai_lib import activations, attribution, corpora, models
from xai_lib.corpora import sampling
from xai_lib.dissection.descriptions import captioning
from xai_lib.probing import acoustic_decoders, activation_proxies, speaker_space

EMOTION, RIVAL = "angry", "sad"
DEEP = (2, 5)  # layers whose neurons are looked at in the feed-forward
SPEAKERS = 8  # of either side
CLIPS = 16  # of either side
DRAWS = 20


@cache
def pocket():
    """The bundled WavLM."""
    return models.load("pocket", device="cpu")


@cache
def pocket_ast():
    """The bundled AST."""
    return models.load("pocket-ast", device="cpu")


@cache
def corpus():
    """The sample corpus."""
    return corpora.load("sample")


@cache
def side(name):
    """All clips of the first speakers of a side of the split."""
    clips = corpus()[corpus()["split"] == name]
    return clips[clips["speaker"].isin(sorted(clips["speaker"].unique())[:SPEAKERS])]


@cache
def train():
    """Training clips."""
    return sampling.balanced(side("train"), CLIPS, seed=0)


@cache
def test():
    """Test clips."""
    return sampling.balanced(side("test"), CLIPS, seed=0)


@cache
def few():
    """Two test clips of the emotion."""
    return test()[test()["label"] == EMOTION].head(2)


@cache
def scores():
    """Attribution of training clips, by which neurons are chosen."""
    return attribution.grad_x_activation(pocket(), train(), target=EMOTION)


@cache
def activation_stats():
    """Activation statistics of hidden states over training clips."""
    return activations.activation_stats(pocket(), train())


@cache
def fitted():
    """Decoders, proxies and the space of speakers, fitted on training clips."""
    voices = sampling.balanced(side("train"), 3 * SPEAKERS, seed=1)
    decoder = acoustic_decoders.fit(pocket(), train(), frames=640, seed=1)
    return decoder, activation_proxies.fit(pocket(), train()), speaker_space.fit(pocket(), voices)


@cache
def deep(name):
    """Activations of neurons in the feed-forward, of either side: "train" or "test"."""
    sites = [(layer, "ffn_hidden") for layer in DEEP]
    return activations.activations(pocket(), {"train": train, "test": test}[name](), sites)


@cache
def measured():
    """Acoustic features of all clips."""
    return corpora.features_table(pd.concat([train(), test()]))


@cache
def captions():
    """A caption for each clip, from what was measured."""
    return captioning.captions(measured(), measured().loc[train().index])


@cache
def sounds():
    """Twelve made-up sounds of four sources, each of which rumbles, rings and hisses: waveforms with labels."""
    rows = []
    time = np.arange(16000) / 16000
    for source in range(4):
        rng = np.random.default_rng(source)
        envelope = np.exp(-3 * time * rng.uniform(0.5, 1.5))
        pitch = rng.uniform(200, 800)
        made = {
            "helicopter": np.sin(2 * np.pi * pitch / 8 * time) * (1 + np.sin(2 * np.pi * 12 * time)),
            "clock tick": np.sin(2 * np.pi * pitch * time) * envelope,
            "rain": rng.standard_normal(len(time)) * envelope,
        }
        for label, waveform in made.items():
            waveform = (0.2 * waveform).astype(np.float32)
            rows.append({"audio": waveform, "label": label, "speaker": f"recording-{source}"})
    return corpora.as_clips(pd.DataFrame(rows), 16000)


def neurons(plan):
    """{Site: neurons} as a table: `part`, `layer` (or path), `neuron`, in the order of the sites."""
    rows = [(site.part, site.layer, int(neuron)) for site, some in plan.items() for neuron in some]
    return pd.DataFrame(rows, columns=["part", "layer", "neuron"])


def listed(arrays):
    """Arrays [entry] of any lengths as a table: `place` of the array, and its `value`."""
    rows = [(place, value) for place, some in enumerate(arrays) for value in np.asarray(some).tolist()]
    return pd.DataFrame(rows, columns=["place", "value"])


def by_name(arrays, dims):
    """Arrays of one shape by name, as a Dataset with the dim `name`."""
    values = np.stack([np.asarray(one) for one in arrays.values()])
    return xr.Dataset({"values": (("name", *dims), values)}, {"name": [str(name) for name in arrays]})


def by_place(arrays):
    """{place: array}, for `by_name`."""
    return dict(enumerate(arrays))
