"""Base class of all architectures."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from ..sites import PARTS, Site, State


class Architecture:
    """Base class of architectures, with the defaults that they share.

    `parts`; `class_tokens`, number of initial frames that stand for the whole clip; `timeline`, True if frames follow
    one another every `hop` samples; `resumable`, True if a forward pass can be stopped after a layer and resumed there
    (`embed`, `step`, `replace`, `finish`, `classify`); `residual`, True if a block adds to its input (the residual
    stream); `overwrites`, True if in-place operations may follow a site.
    """

    parts = PARTS
    class_tokens = 0
    resumable = True
    residual = True
    overwrites = False
    timeline = False
    has_hooked_heads = False
    window = None  # seconds of a clip that the network takes, if it would cut off the rest
    seconds = None  # that a forward pass covers, if fixed for all clips and specified by the user

    def __init__(self, network):
        self.network = network
        self.base = getattr(network, network.base_model_prefix, network)

    @contextmanager
    def hookable(self, site: Site):
        """Yield the module whose output, or its first item, is the site, within the context."""
        if site.part == "module":
            yield self.network.get_submodule(site.layer)
        else:
            yield self.module(site)

    def has(self, site: Site) -> bool:
        """Return True if the site exists: layer 0, the input of the first layer, has the part `hidden_state` only."""
        return site.layer > 0 or site.part == "hidden_state"

    def width(self, part: str) -> int:
        """Return the number of neurons of a part."""
        if part == "ffn_hidden":
            return self.base.config.intermediate_size
        return self.base.config.hidden_size

    def to_frames(self, site: Site, output: torch.Tensor) -> torch.Tensor:
        """Convert the output of the site's module to [batch, frame, neuron]."""
        if output.ndim > 2:
            return output
        return output[:, None]

    def from_frames(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """Convert [batch, frame, neuron] to the layout of the module's `output`, to replace it."""
        return hidden.reshape(output.shape)

    def logits(self, x) -> torch.Tensor:
        """Compute logits [batch, label] of input as returned by `prepare`."""
        return self.network(x).logits

    def norms(self, layer: int) -> tuple | None:
        """Return the layer norms of a post-norm block, after attention and at its end; None for other blocks."""
        return None

    def replace(self, state: State, hidden: torch.Tensor) -> State:
        """Return the state with another output of its layer."""
        return state._replace(hidden=hidden)
