"""Hooks that read and change what a forward computes, by site; they are always removed."""

from contextlib import ExitStack, contextmanager

import torch

from .models.sites import PARTS, PassedSites, Site

__all__ = ["PARTS", "Site", "apply", "capture", "edit"]


@contextmanager
def capture(model, sites, reduce=None):
    """Record what the forwards inside the `with` compute at `sites`: Site, or several Site, (layer, part) or layer.

    Yields {Site: tensor [batch, frame, neuron]}, filled by each forward anew. Tensors stay in the graph; values that
    `edit` changed are recorded as changed. With `reduce`, `reduce(tensor)` is recorded in the place of each tensor: it
    is called as soon as the site is computed, so that no more than one whole tensor is held at a time.

    The recorded tensor is the output of the site: a copy where operations in place may follow (modules that were
    wrapped). A forward that passes a site twice raises ValueError.
    """
    if isinstance(sites, (int, str, Site)):
        sites = [sites]
    captured: dict = {}
    passed = PassedSites()

    def recorder(site):
        def hook(module, args, output):
            passed.note(site)
            native = output[0] if isinstance(output, tuple) else output
            if model.architecture.overwrites:
                native = native.clone()
            hidden = model.architecture.to_frames(site, native)
            captured[site] = hidden if reduce is None else reduce(hidden)

        return hook

    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site in map(model.check, sites):
            handle = stack.enter_context(model.architecture.hookable(site)).register_forward_hook(recorder(site))
            stack.callback(handle.remove)
        yield captured


@contextmanager
def edit(model, edits):
    """Change what the forwards inside the `with` compute: {Site: function}, from [batch, frame, neuron] to the same.

    Raises
    ------
    ValueError
        A site is out of range, or, during a forward, a function returns another shape, or a site is passed twice.

    Notes
    -----
    The remaining network runs on the changed values, and so does Hugging Face's own record of hidden states: its hooks
    would read unchanged values if they came first, so the hooks of an edit are put before them. Hence edits of one site
    nest as functions do: the inner `with` acts first, and the outer one on what it returns.
    """
    passed = PassedSites()
    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site, function in edits.items():
            site = model.check(site)

            def hook(module, args, output, site=site, function=function):
                passed.note(site)
                native = output[0] if isinstance(output, tuple) else output
                edited = apply(function, model.architecture.to_frames(site, native), site)
                edited = model.architecture.from_frames(site, edited, native)
                if model.architecture.overwrites:
                    edited = edited.clone()  # so that operations in place do not change what the function has stored
                return (edited, *output[1:]) if isinstance(output, tuple) else edited

            handle = stack.enter_context(model.architecture.hookable(site)).register_forward_hook(hook, prepend=True)
            stack.callback(handle.remove)
        model.edited += 1
        try:
            yield
        finally:
            model.edited -= 1


def apply(function, hidden: torch.Tensor, site: Site) -> torch.Tensor:
    """Return `function(hidden)`, computed on a copy so that the function may write in place, and checked for shape."""
    edited = function(hidden.clone())
    if not isinstance(edited, torch.Tensor) or edited.shape != hidden.shape:
        returned = tuple(edited.shape) if isinstance(edited, torch.Tensor) else type(edited).__name__
        raise ValueError(
            f"the edit at {site.part} of layer {site.layer} must return a tensor of the shape of its input, "
            f"{tuple(hidden.shape)}, and returned {returned}"
        )
    return edited.to(hidden.dtype)
