"""Sites (positions in a network), states of a stopped forward pass, and the check that a site runs once."""

from __future__ import annotations

from contextlib import ExitStack
from typing import NamedTuple

import torch

PARTS = ("hidden_state", "attention", "ffn_hidden", "ffn_out")


class Site(NamedTuple):
    """A position in the network: `layer` 0…L and `part`.

    `hidden_state` is the hidden state after the layer (layer 0: the input of the first one), `attention` and `ffn_out`
    are the outputs added to it, `ffn_hidden` is the inside of the feed-forward network, after the non-linearity.
    `heads`, where the architecture allows it, is the concatenated output of the attention heads, before their
    projection to `attention`. Any other position is the path of its module, in place of the layer, and the part
    `module`.
    """

    layer: int | str
    part: str = "hidden_state"


class State(NamedTuple):
    """A forward pass stopped after `layer`: its output [batch, frame, neuron] and other inputs of later layers."""

    layer: int
    hidden: torch.Tensor
    bias: torch.Tensor | None = None  # of attention, by relative position [batch * heads, frame, frame]
    total: torch.Tensor | None = None  # weighted sum of the layers so far, where the head reads one

    def repeat_rows(self, rows: int) -> State:
        """Return a state of `rows` copies of this one, which has one row."""
        return State(
            self.layer,
            self.hidden.repeat(rows, 1, 1),
            None if self.bias is None else self.bias.repeat(rows, 1, 1),
            None if self.total is None else self.total.repeat(rows, 1, 1),
        )

    def append_rows(self, other: State) -> State:
        """Return a state of the rows of this one and of another one after the same layer."""
        return State(
            self.layer,
            torch.cat([self.hidden, other.hidden]),
            None if self.bias is None else torch.cat([self.bias, other.bias]),
            None if self.total is None else torch.cat([self.total, other.total]),
        )


class PassedSites:
    """The sites that a forward pass of the whole network has passed; passing one again raises ValueError."""

    def __init__(self):
        self.sites = None  # outside of such a forward pass

    def watch(self, network: torch.nn.Module, stack: ExitStack) -> None:
        """Register hooks that mark begin and end of forward passes of the network, while the stack is open."""
        stack.callback(network.register_forward_pre_hook(self._begin, prepend=True).remove)
        stack.callback(network.register_forward_hook(self._end, always_call=True).remove)

    def _begin(self, module, args):
        self.sites = set()

    def _end(self, module, args, output):
        self.sites = None

    def note(self, site: Site) -> None:
        """Record that a site was passed; raise ValueError if it was already passed in this forward pass."""
        if self.sites is None:
            return
        if site in self.sites:
            raise ValueError(
                f"layer {site.layer}, {site.part} runs more than once in a forward pass, so its output is ambiguous: "
                "choose a module that runs once"
            )
        self.sites.add(site)
