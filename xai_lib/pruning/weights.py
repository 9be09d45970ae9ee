"""Pruning of weights: zero the rows of neurons, restore them exactly, save the pruned model."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from ..models import require_model

if TYPE_CHECKING:
    from ..models import Model


@contextmanager
def prune(model: Model, neurons: dict) -> Iterator[Model]:
    """Zero the weights of neurons while inside the `with`; exactly undone on leaving it.

    Parameters
    ----------
    neurons : dict
        {Site: neurons}, as returned by `neurons_of`: sites of `attention`, `ffn_hidden` and `ffn_out`, or paths of
        `torch.nn.Linear`. Row and bias of each neuron in the linear map that computes it are set to zero, which is the
        same as setting its activation to zero (`edits.edit`, mode "zero").

    Raises
    ------
    ValueError
        Neurons that no single linear map computes; rows of the classifier, which are the classes themselves;
        an activation function that is not 0 at 0; a neuron out of range; neurons without their sites.

    Examples
    --------
    >>> from xai_lib import corpora, hooks, models, pruning
    >>> clips = corpora.load("sample").head(2)
    >>> model = models.load("pocket")
    >>> clean = model.predict(clips)
    >>> with pruning.prune(model, {hooks.Site(2, "ffn_hidden"): range(300)}):
    ...     pruned = model.predict(clips)
    >>> bool((pruned["angry"] != clean["angry"]).any()), bool((model.predict(clips)["angry"] == clean["angry"]).all())
    (True, True)
    """
    require_model(model)
    require_neurons_by_site(neurons)
    saved = []
    try:
        with torch.no_grad():
            for site, selected in neurons.items():
                linear = _linear(model, site, selected)
                rows = torch.as_tensor(np.asarray(selected, int), device=linear.weight.device)
                for values in (linear.weight, linear.bias):
                    if values is not None:
                        saved.append((values, values.detach().clone()))
                        values[rows] = 0
        yield model
    finally:
        with torch.no_grad():
            for values, before in reversed(saved):
                values.copy_(before)


def save(model: Model, neurons: dict, folder: str | Path) -> Path:
    """Write the pruned model as a checkpoint that `models.load` opens; the model itself is unchanged.

    The pruned neurons are in its configuration as `xai_pruned`, a list of {layer, part, neurons}.

    Raises
    ------
    ValueError
        Not a Hugging Face model with its own head.
    FileExistsError
        The folder has a model already.
    """
    require_model(model)
    require_neurons_by_site(neurons)
    folder = Path(folder)
    config = getattr(model.network, "config", None)
    if config is None or model.head is not None:
        raise ValueError("only a Hugging Face model with its own head can be written as a checkpoint")
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} contains a model already: choose another folder")

    pruned_before = getattr(config, "xai_pruned", None)
    selected = {model.check(site): np.unique(np.asarray(rows, int)).tolist() for site, rows in neurons.items()}
    pruned = list(pruned_before or [])
    for site, rows in selected.items():
        pruned.append({"layer": site.layer, "part": site.part, "neurons": rows})

    with prune(model, selected):
        try:
            config.xai_pruned = pruned
            model.network.save_pretrained(folder)
        finally:
            config.xai_pruned = pruned_before
            if pruned_before is None:
                del config.xai_pruned
    (folder / "preprocessor_config.json").write_text(json.dumps(model.preprocessor, indent=2))
    return folder


def require_neurons_by_site(neurons: dict) -> None:
    """Raise ValueError for anything but {Site: neurons}, such as neurons without their sites."""
    if not isinstance(neurons, Mapping):
        raise ValueError(
            f"neurons must be {{Site: neurons}}, not {neurons!r}: pruning.neurons_of(scores, k) returns them, or give "
            "{Site(3, 'ffn_hidden'): [0, 7]}, with Site of models"
        )


def fingerprint(model: Model) -> str:
    """Compute a hash of all weights: the same before and after a `prune`."""
    require_model(model)
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _linear(model, site, selected) -> torch.nn.Linear:
    """Return the linear map whose rows compute the site's neurons; ValueError where `prune` raises it."""
    site = model.check(site, selected)
    if site.part == "module":
        linear = model.network.get_submodule(site.layer)
        name = site.layer
    else:
        linear = model.architecture.linear(site)
        name = f"{site.part} of layer {site.layer}"

    if not isinstance(linear, torch.nn.Linear) or torch.nn.utils.parametrize.is_parametrized(linear):
        advice = "use edits.edit"
        if site.part not in ("module", "ffn_hidden") and site.layer > 0:
            advice += f"; for ffn_hidden give {{Site({site.layer}, 'ffn_hidden'): …}}"
        raise ValueError(f"no single linear map computes the neurons of {name}, so they cannot be pruned: {advice}")
    if model.architecture.has_hooked_heads:
        raise ValueError("the attention heads are being edited or captured: leave that `with` block before pruning")
    if _classifies(model, linear):
        raise ValueError(
            f"{name} is the classifier: its rows are the classes themselves and are never pruned; prune other neurons"
        )
    if site.part == "ffn_hidden" and model.architecture.module(site) is not linear:  # an activation function follows
        _require_zero_at_zero(model.network.config.hidden_act)
    return linear


def _require_zero_at_zero(activation_name):
    """Raise ValueError if an activation function is not 0 at 0."""
    from transformers.activations import ACT2FN

    at_zero = float(ACT2FN[activation_name](torch.zeros(1)))
    if at_zero != 0:
        raise ValueError(f"{activation_name} of 0 is {at_zero:g}, not 0: pruning cannot zero neurons, use edits.edit")


def _classifies(model, linear) -> bool:
    """Return whether each row of a linear map drives one logit only, apart from the common term of a softmax."""
    n = len(model.labels)
    if linear.out_features != n:
        return False
    waveform = model.dummy_input(1)

    def logits(shift):
        """Compute the logits [label] with the map's output shifted."""
        hook = linear.register_forward_hook(lambda module, args, output: output + shift)
        try:
            return model.logits(waveform)[0]
        finally:
            hook.remove()

    no_shift = linear.weight.new_zeros(n)
    with torch.enable_grad():
        clean_logits = logits(no_shift)
        slope = torch.autograd.functional.jacobian(logits, no_shift)
    if clean_logits.logsumexp(0).abs() < 1e-3:  # log probabilities
        slope = slope - (slope.sum(0) - slope.diag()) / max(n - 1, 1)
    off_diagonal = slope - slope.diag().diag()
    return bool(off_diagonal.abs().max() <= 1e-4 * slope.abs().max())
