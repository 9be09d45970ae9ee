"""What all architectures have in common."""

from __future__ import annotations

from contextlib import contextmanager

import torch

from ..sites import PARTS, Site, State


class Family:
    """What families have in common, where they do not say otherwise.

    `parts`; `class_tokens`, frames at the beginning that stand for the whole clip; `timeline`, whether frames follow one
    another every `hop` samples; `resumable`, whether a forward can be stopped after a layer and go on from there (`embed`,
    `step`, `replace`, `finish`, `classify`); `residual`, whether a block adds to what came in (the residual stream);
    `overwrites`, whether operations in place may follow a site.
    """

    parts = PARTS
    class_tokens = 0
    resumable = True
    residual = True
    overwrites = False
    timeline = False
    is_open = False
    window = None  # seconds of a clip that are heard, where what follows would be cut off
    seconds = None  # that a forward covers, whatever the clip's length, where it has to be told

    def __init__(self, network):
        self.network = network
        self.base = getattr(network, network.base_model_prefix, network)

    @contextmanager
    def opened(self, site: Site):
        """The module whose output, or its first item, is the site, while it is."""
        yield self.network.get_submodule(site.layer) if site.part == "module" else self.module(site)

    def has(self, site: Site) -> bool:
        """Whether there is such a site: what enters the first layer is a block only."""
        return site.layer > 0 or site.part == "block"

    def width(self, part: str) -> int:
        """Number of neurons of a part."""
        config = self.base.config
        return config.intermediate_size if part == "ffn_hidden" else config.hidden_size

    def seen(self, site: Site, output: torch.Tensor) -> torch.Tensor:
        """What the site's module gave, as [batch, frame, neuron]."""
        return output if output.ndim > 2 else output[:, None]

    def given(self, site: Site, hidden: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        """[batch, frame, neuron] as the module would have given it, in place of its `output`."""
        return hidden.reshape(output.shape)

    def logits(self, x) -> torch.Tensor:
        """Logits [batch, label] of what `prepare` gave."""
        return self.network(x).logits

    def norms(self, layer: int) -> tuple | None:
        """The layer norms that a block ends in, after attention and after the whole; None where the stream passes."""
        return None

    def replace(self, state: State, hidden: torch.Tensor) -> State:
        """The same state with another output of its layer."""
        return state._replace(hidden=hidden)
