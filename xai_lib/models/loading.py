"""Functions that open an audio classifier: raw waveform in, logits and all layers out."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch

from ..corpora import fingerprints
from . import checkpoints, torch_pair
from .architectures import ARCHITECTURES, Wrapped
from .model import Model


def load(
    name_or_path: str | Path = "pocket",
    *,
    device: str = "auto",
    head: torch.nn.Module | None = None,
    labels: Sequence[str] | None = None,
    allow_untrained_head: bool = False,
) -> Model:
    """Open a model: a bundled one, a local folder in Hugging Face format, or a hub id.

    Parameters
    ----------
    name_or_path : str or Path
        "pocket" (emotions, a WavLM), "pocket-ast" (ten sounds, an AST), a folder with `config.json` and weights, or
        e.g. "microsoft/wavlm-base-plus".
    device : str
        "auto" (a GPU if available), "cpu", "cuda", "cuda:1", "mps".
    head : torch.nn.Module, optional
        Your own head, which must be trained (this is not checked): maps the last layer [batch, frame, neuron] to logits
        [batch, label], or [batch, frame, label], which are averaged over frames.
    labels : sequence of str, optional
        Names of the logits: required with `head`, otherwise they replace those of the checkpoint.
    allow_untrained_head : bool
        Accept a head whose weights are not in the checkpoint (random baselines, parity tests, benchmarks).

    Raises
    ------
    FileNotFoundError
        The folder or hub model cannot be read.
    ValueError
        The architecture is not supported, weights are missing, or `labels` do not fit.

    Examples
    --------
    >>> from xai_lib import models
    >>> model = models.load("pocket")
    >>> model.labels[:3]
    ['neutral', 'calm', 'happy']
    >>> model.n_layers
    6
    """
    torch_pair.check()
    folder = checkpoints.folder(name_or_path)
    config = checkpoints.config(folder)
    if config.model_type not in ARCHITECTURES:
        raise ValueError(
            f"{name_or_path} has the architecture {config.model_type}; supported are {', '.join(ARCHITECTURES)}: "
            "open others with models.wrap(network, …)"
        )
    network, trained = checkpoints.network(folder, config, bare=head is not None)
    if head is None:
        labels = _labels_of_head(config, labels)
    elif labels is None:
        raise ValueError("head= needs labels=[…], the names of its logits in order")
    if trained is None and allow_untrained_head:
        trained = "not trained: allow_untrained_head=True"
    model = Model(
        network,
        labels=list(labels),
        name=checkpoints.BUNDLED.get(folder, str(name_or_path)),
        head=head,
        trained=trained,
        preprocessor=checkpoints.preprocessor(folder),
        device=checkpoints.device(device),
    )
    model.trained_recordings = fingerprints.read(folder)
    return model


def _labels_of_head(config, labels) -> list[str]:
    """Return the names of the logits: those of the checkpoint, or the user's; ValueError if their number is wrong."""
    names = [str(config.id2label[i]) for i in range(config.num_labels)]
    if labels is None:
        return names
    if len(labels) != len(names):
        raise ValueError(
            f"{len(labels)} labels were given, but the head has {len(names)} logits: give one label per logit"
        )
    return list(labels)


def wrap(
    module: torch.nn.Module,
    *,
    sites: Mapping,
    sample_rate: int,
    preprocess: Callable | None = None,
    labels: Sequence[str] = (),
    layout: str | Mapping[str, str] = "batch frame neuron",
    read: Callable | None = None,
    seconds: float | None = None,
    name: str | None = None,
    device: str = "auto",
) -> Model:
    """Open any module, with access to its activations by the paths of its submodules.

    Parameters
    ----------
    module : torch.nn.Module
        Takes the output of `preprocess` for raw waveforms [batch, time], or these themselves.
    sites : dict
        Paths by (layer, part), such as {(1, "ffn_hidden"): "encoder.layers.0.fc1"}; or by part, with {} for the numbers
        from 0: {"ffn_hidden": "encoder.layers.{}.fc1"} are layers 1 to the last one. Functions that take a site accept
        any other path too.
    sample_rate : int
        Hz, of the waveforms.
    preprocess : function, optional
        Maps waveforms, a tensor [batch, time] on the device, to the argument of the module (a tuple: its arguments).
    labels : sequence of str
        Names of the logits; empty (default) if the module does not classify.
    layout : str or dict
        Axes of the sites' outputs in order, from the words batch, frame, time and neuron; a dict gives them by part or
        path. "frame batch neuron" is the layout of BEATs, "batch neuron frame time" that of two-dimensional
        convolutions over frequency and time (their frames are concatenated); "batch neuron" has no frames.
    read : function, optional
        Maps the output of the module to logits [batch, label]; default: its `logits`, its first item, or the output
        itself.
    seconds : float, optional
        Time that the frames of a forward pass cover, if the module or `preprocess` pads or cuts every clip to one
        length: frames past the end of a clip do not count. Default: the length of the clip, with a warning if that
        seems wrong.

    Returns
    -------
    Model
        Its forward passes cannot be stopped and resumed, so every analysis runs the whole module; analyses that need a
        timeline of frames raise ValueError. Whether its head is trained is not checked.

    Raises
    ------
    ValueError
        A path does not exist, or a layout or the logits do not fit: they are checked with two short waveforms.
    """
    architecture = Wrapped(
        module, sites, layout=layout, preprocess=preprocess, read=read, n_labels=len(labels), seconds=seconds
    )
    model = Model(
        module,
        labels=list(labels),
        name=name or type(module).__name__,
        trained="given by the user, not checked",
        preprocessor={"sampling_rate": sample_rate},
        device=checkpoints.device(device),
        architecture=architecture,
    )
    architecture.probe(model)
    return model
