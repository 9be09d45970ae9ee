"""Open an audio classifier, raw waveform in, logits and every layer out."""

from __future__ import annotations

from ..corpora import fingerprints
from . import checkpoints, torch_pair
from .architectures import FAMILIES, Wrapped
from .model import Model


def load(name_or_path="pocket", *, device="auto", head=None, labels=None, allow_untrained_head=False) -> Model:
    """Open a model: a bundled one, a local folder in Hugging Face format, or a hub id.

    Parameters
    ----------
    name_or_path : str or Path
        "pocket" (emotions, a WavLM), "pocket-ast" (ten sounds, an AST), a folder with `config.json` and weights, or
        e.g. "microsoft/wavlm-base-plus".
    device : str
        "auto" (a GPU where there is one), "cpu", "cuda", "cuda:1", "mps".
    head : torch.nn.Module, optional
        Your own trained head, for which you vouch: takes the last layer [batch, frame, neuron] and returns logits
        [batch, label], or [batch, frame, label], which are averaged over frames.
    labels : sequence of str, optional
        Names of the logits: needed with `head`, otherwise they replace the checkpoint's.
    allow_untrained_head : bool
        Let a head through whose weights are not in the checkpoint (nulls, parity tests, benchmarks).

    Raises
    ------
    FileNotFoundError
        The folder or hub model cannot be read.
    ValueError
        The family is not supported, weights are missing, or `labels` do not fit.
    """
    torch_pair.check()
    folder = checkpoints.folder(name_or_path)
    config = checkpoints.config(folder)
    if config.model_type not in FAMILIES:
        raise ValueError(f"{name_or_path} is of the family {config.model_type}; supported are {', '.join(FAMILIES)}")
    network, trained = checkpoints.network(folder, config, bare=head is not None)
    if head is None:
        names = [str(config.id2label[i]) for i in range(config.num_labels)]
        labels = names if labels is None else list(labels)
        if len(labels) != len(names):
            raise ValueError(f"{len(labels)} labels were given and the head has {len(names)} logits")
    elif labels is None:
        raise ValueError("a head of your own needs labels=[…], the name of each of its logits in order")
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


def wrap(
    module, *, sites, sample_rate, preprocess=None, labels=(), layout="batch frame neuron", read=None, seconds=None,
    name=None, device="auto",
) -> Model:  # fmt: skip
    """Open any module: see inside of it by the paths of its submodules.

    Parameters
    ----------
    module : torch.nn.Module
        Takes what `preprocess` makes of raw waveforms [batch, time], or these themselves.
    sites : dict
        Paths by (layer, part), such as {(1, "ffn_hidden"): "encoder.layers.0.fc1"}; or by part, with {} for the numbers
        from 0: {"ffn_hidden": "encoder.layers.{}.fc1"} are layers 1 to the last there is. Other paths can be given
        wherever a site is asked for.
    sample_rate : int
        Hz, of the waveforms.
    preprocess : function, optional
        From waveforms, a tensor [batch, time] on the device, to the module's argument (a tuple: its arguments).
    labels : sequence of str
        Names of the logits; none where the module does not classify.
    layout : str or dict
        What the axes of the sites' outputs are, or that by part or path: words among batch, frame and neuron, in order.
        "frame batch neuron" is that of BEATs, "batch neuron frame time" of two-dimensional convolutions over frequency
        and time (their frames are laid side by side), "batch neuron" has no frames.
    read : function, optional
        From the module's output to logits [batch, label]; else the output, its `logits` or its first item are taken.
    seconds : float, optional
        What the frames of a forward cover, where the module or `preprocess` pads or cuts every clip to one length: those
        past a clip's end do not count. Unless told, the clip; a warning where that does not seem to be so.

    Returns
    -------
    Model
        Its forwards cannot be stopped and resumed, so all that is done with it runs the whole module; what asks for a
        timeline of frames refuses it. That its head is trained is yours to vouch for.

    Raises
    ------
    ValueError
        A path that is not there, a layout or logits that do not fit: each is tried on two short waveforms.
    """
    family = Wrapped(
        module, sites, layout=layout, preprocess=preprocess, read=read, n_labels=len(labels), seconds=seconds
    )
    known = {
        "labels": list(labels),
        "name": name or type(module).__name__,
        "trained": "a module that the user vouches for",
    }
    model = Model(
        module, **known, preprocessor={"sampling_rate": sample_rate}, device=checkpoints.device(device), family=family
    )
    family.probe(model)
    return model
