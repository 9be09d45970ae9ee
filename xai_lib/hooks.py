"""See and change what a forward computes, by site; hooks are always removed."""

from contextlib import ExitStack, contextmanager

import torch

from .models.sites import PARTS, PassedSites, Site

__all__ = ["PARTS", "Site", "apply", "capture", "edit"]


@contextmanager
def capture(model, sites, reduce=None):
    """Keep what the forwards inside the `with` compute at `sites`: Site, or several Site, (layer, part) or layer.

    Yields {Site: tensor [batch, frame, neuron]}, filled by each forward anew. Tensors stay in the graph; values that
    `edit` changed are seen changed. With `reduce`, `reduce(tensor)` is kept in the place of each tensor: it is called
    as soon as the site is computed, so that no more than one whole tensor is held at a time.

    What is kept is what the site gave: a copy where operations in place may follow (modules that were wrapped). A forward
    that passes a site twice raises ValueError.
    """
    if isinstance(sites, (int, str, Site)):
        sites = [sites]
    kept: dict = {}
    passed = PassedSites()

    def keep(site):
        def hook(module, args, output):
            passed.note(site)
            given = output[0] if isinstance(output, tuple) else output
            if model.family.overwrites:
                given = given.clone()
            hidden = model.family.seen(site, given)
            kept[site] = hidden if reduce is None else reduce(hidden)

        return hook

    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site in map(model.check, sites):
            handle = stack.enter_context(model.family.opened(site)).register_forward_hook(keep(site))
            stack.callback(handle.remove)
        yield kept


@contextmanager
def edit(model, edits):
    """Change what the forwards inside the `with` compute: {Site: function}, from [batch, frame, neuron] to the same.

    Raises
    ------
    ValueError
        A site is out of range, or, during a forward, a function returns another shape, or a site is passed twice.

    Notes
    -----
    The rest of the network runs on the changed values, and so does Hugging Face's own record of hidden states: its
    hooks would see unchanged ones had they been there first, so ours go before them. Hence edits of one site nest as
    functions do: the inner `with` acts first, and the outer one on what it returns.
    """
    passed = PassedSites()
    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site, function in edits.items():
            site = model.check(site)

            def hook(module, args, output, site=site, function=function):
                passed.note(site)
                own = output[0] if isinstance(output, tuple) else output
                edited = apply(function, model.family.seen(site, own), site)
                edited = model.family.given(site, edited, own)
                if model.family.overwrites:  # what the function kept is not written over
                    edited = edited.clone()
                return (edited, *output[1:]) if isinstance(output, tuple) else edited

            handle = stack.enter_context(model.family.opened(site)).register_forward_hook(hook, prepend=True)
            stack.callback(handle.remove)
        model.edited += 1
        try:
            yield
        finally:
            model.edited -= 1


def apply(function, hidden: torch.Tensor, site: Site) -> torch.Tensor:
    """`function(hidden)`, on a copy so that it may write in place, checked for shape."""
    edited = function(hidden.clone())
    if not isinstance(edited, torch.Tensor) or edited.shape != hidden.shape:
        got = tuple(edited.shape) if isinstance(edited, torch.Tensor) else type(edited).__name__
        raise ValueError(
            f"the edit at {site.part} of layer {site.layer} must return a tensor of the shape it was given, "
            f"{tuple(hidden.shape)}, and returned {got}"
        )
    return edited.to(hidden.dtype)
