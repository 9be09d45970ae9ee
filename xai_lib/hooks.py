"""Hooks that read and change what a forward computes, by site; they are always removed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import torch

from .models.model import require_model
from .models.sites import PARTS, PassedSites, Site

if TYPE_CHECKING:
    from .models.model import Model, SiteLike

__all__ = ["PARTS", "Site", "apply", "capture", "edit"]


@contextmanager
def capture(
    model: Model, sites: SiteLike | Sequence[SiteLike], reduce: Callable[[torch.Tensor], torch.Tensor] | None = None
) -> Iterator[dict[Site, torch.Tensor]]:
    """Record what the forwards inside the `with` compute at `sites`: Site, or several Site, (layer, part) or layer.

    Yields {Site: tensor [batch, frame, neuron]}, filled by each forward anew. Tensors stay in the graph; values that
    `edit` changed are recorded as changed. With `reduce`, `reduce(tensor)` is recorded in the place of each tensor: it
    is called as soon as the site is computed, so that no more than one whole tensor is held at a time.

    The recorded tensor is the output of the site: a copy where operations in place may follow (modules that were
    wrapped). A forward that passes a site twice raises ValueError.

    Examples
    --------
    >>> import torch
    >>> from xai_lib import hooks, models
    >>> model = models.load("pocket")
    >>> with hooks.capture(model, [0, 3]) as captured:
    ...     logits = model(0.1 * torch.randn(1, 16000), sample_rate=16000)
    >>> for site, hidden in captured.items():
    ...     print(site.layer, site.part, list(hidden.shape))
    0 hidden_state [1, 49, 144]
    3 hidden_state [1, 49, 144]
    """
    require_model(model)
    if isinstance(sites, (int, str, Site)):
        sites = [sites]
    captured: dict = {}
    passed = PassedSites()

    def hook_of(site):
        def record(module, args, output):
            passed.note(site)
            native = output[0] if isinstance(output, tuple) else output
            if model.architecture.overwrites:
                native = native.clone()
            hidden = model.architecture.to_frames(site, native)
            captured[site] = hidden if reduce is None else reduce(hidden)

        return record

    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site in sites:
            checked = model.check(site)
            module = stack.enter_context(model.architecture.hookable(checked))
            stack.callback(module.register_forward_hook(hook_of(checked)).remove)
        yield captured


@contextmanager
def edit(model: Model, edits: Mapping[SiteLike, Callable[[torch.Tensor], torch.Tensor]]) -> Iterator[None]:
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

    Examples
    --------
    >>> import torch
    >>> from xai_lib import edits, hooks, models
    >>> model = models.load("pocket")
    >>> waveform = 0.1 * torch.randn(1, 16000)
    >>> with hooks.edit(model, {hooks.Site(2): edits.edit([7, 11], "flip")}):
    ...     flipped = model(waveform, sample_rate=16000)
    >>> bool((flipped != model(waveform, sample_rate=16000)).any())
    True
    """
    require_model(model)
    passed = PassedSites()

    def hook_of(site, function):
        def change(module, args, output):
            passed.note(site)
            native = output[0] if isinstance(output, tuple) else output
            hidden = apply(function, model.architecture.to_frames(site, native), site)
            edited = model.architecture.from_frames(site, hidden, native)
            if model.architecture.overwrites:
                edited = edited.clone()  # so that operations in place do not change what the function has stored
            return (edited, *output[1:]) if isinstance(output, tuple) else edited

        return change

    with ExitStack() as stack:
        passed.watch(model.network, stack)
        for site, function in edits.items():
            checked = model.check(site)
            module = stack.enter_context(model.architecture.hookable(checked))
            stack.callback(module.register_forward_hook(hook_of(checked, function), prepend=True).remove)
        model.edited += 1
        try:
            yield
        finally:
            model.edited -= 1


def apply(function: Callable[[torch.Tensor], torch.Tensor], hidden: torch.Tensor, site: Site) -> torch.Tensor:
    """Return `function(hidden)`, computed on a copy so that the function may write in place, and checked for shape."""
    edited = function(hidden.clone())
    if not isinstance(edited, torch.Tensor) or edited.shape != hidden.shape:
        returned = tuple(edited.shape) if isinstance(edited, torch.Tensor) else type(edited).__name__
        raise ValueError(
            f"the edit at {site.part} of layer {site.layer} must return a tensor of the shape of its input, "
            f"{tuple(hidden.shape)}, and returned {returned}"
        )
    return edited.to(hidden.dtype)
