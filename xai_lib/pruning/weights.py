"""Pruning of weights: zero the rows of neurons, restore them exactly, save the pruned model."""

import hashlib
import json
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import torch


@contextmanager
def prune(model, neurons):
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
        an activation function that is not 0 at 0; a neuron out of range.
    """
    saved = []
    try:
        with torch.no_grad():
            for site, selected in neurons.items():
                linear = _linear(model, site, selected)
                rows = torch.as_tensor(np.asarray(selected, int), device=linear.weight.device)
                for values in filter(lambda values: values is not None, (linear.weight, linear.bias)):
                    saved.append((values, values.detach().clone()))
                    values[rows] = 0
        yield model
    finally:
        with torch.no_grad():
            for values, before in reversed(saved):
                values.copy_(before)


def save(model, neurons, folder) -> Path:
    """Write the pruned model as a checkpoint that `models.load` opens; the model itself is unchanged.

    The pruned neurons are in its configuration as `xai_pruned`, a list of {layer, part, neurons}.

    Raises
    ------
    ValueError
        Not a Hugging Face model with its own head.
    FileExistsError
        The folder has a model already.
    """
    folder, config = Path(folder), getattr(model.network, "config", None)
    if config is None or model.head is not None:
        raise ValueError("only a Hugging Face model with its own head can be written as a checkpoint")
    if (folder / "config.json").exists():
        raise FileExistsError(f"{folder} contains a model already: choose another folder")
    before = getattr(config, "xai_pruned", None)
    sites = {model.check(site): np.unique(np.asarray(selected, int)).tolist() for site, selected in neurons.items()}
    with prune(model, sites):
        try:
            config.xai_pruned = [*(before or []), *({**site._asdict(), "neurons": n} for site, n in sites.items())]
            model.network.save_pretrained(folder)
        finally:
            config.xai_pruned = before
            if before is None:
                del config.xai_pruned
    (folder / "preprocessor_config.json").write_text(json.dumps(model.preprocessor, indent=2))
    return folder


def fingerprint(model) -> str:
    """Compute a hash of all weights: the same before and after a `prune`."""
    digest = hashlib.sha256()
    for name, value in sorted(model.network.state_dict().items()):
        digest.update(name.encode() + value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def _linear(model, site, selected):
    """Return the linear map whose rows compute the site's neurons; ValueError where `prune` raises it."""
    site = model.check(site, selected)
    network = model.network
    linear = network.get_submodule(site.layer) if site.part == "module" else model.architecture.linear(site)
    name = site.layer if site.part == "module" else f"{site.part} of layer {site.layer}"
    if not isinstance(linear, torch.nn.Linear) or torch.nn.utils.parametrize.is_parametrized(linear):
        raise ValueError(
            f"no single linear map computes the neurons of {name}, so they cannot be pruned: use edits.edit"
        )
    if model.architecture.has_hooked_heads:
        raise ValueError("the attention heads are being edited or captured: leave that `with` block before pruning")
    if _classifies(model, linear):
        raise ValueError(
            f"{name} is the classifier: its rows are the classes themselves and are never pruned; prune other neurons"
        )
    if site.part == "ffn_hidden" and model.architecture.module(site) is not linear:
        from transformers.activations import ACT2FN

        activation = ACT2FN[network.config.hidden_act]
        at_zero = float(activation(torch.zeros(1)))
        if at_zero != 0:
            raise ValueError(
                f"{network.config.hidden_act} of 0 is {at_zero:g}, not 0: pruning cannot zero neurons, use edits.edit"
            )
    return linear


def _classifies(model, linear):
    """Return whether each row of a linear map drives one logit only, apart from the common term of a softmax."""
    n = len(model.labels)
    if linear.out_features != n:
        return False
    waveform = model.dummy_input(1)

    def logits(shift):
        hook = linear.register_forward_hook(lambda module, args, output: output + shift)
        try:
            return model.logits(waveform)[0]
        finally:
            hook.remove()

    with torch.enable_grad():
        clean_logits = logits(zeros := linear.weight.new_zeros(n))
        slope = torch.autograd.functional.jacobian(logits, zeros)
    if clean_logits.logsumexp(0).abs() < 1e-3:  # log probabilities
        slope = slope - (slope.sum(0) - slope.diag()) / max(n - 1, 1)
    off_diagonal = slope - slope.diag().diag()
    return bool(off_diagonal.abs().max() <= 1e-4 * slope.abs().max())
