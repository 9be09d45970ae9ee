"""WavLM: where its parts lie, and how a forward is stopped and resumed."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

from ... import audio
from ..sites import PARTS, Site, State
from .base import Family


class WavLM(Family):
    """WavLM, base (layer norm after) and large (before). Its blocks return (hidden, position bias)."""

    parts = (*PARTS, "heads")
    timeline = True

    def __init__(self, network):
        super().__init__(network)
        self.encoder = self.base.encoder
        self.layers = self.encoder.layers
        self.stable = self.base.config.do_stable_layer_norm
        self.n_heads = self.base.config.num_attention_heads
        self._open = {}  # layer: [what passes its heads on, how many want that, how to close it]
        if getattr(self.base, "adapter", None) is not None:
            raise ValueError("WavLM with add_adapter=True is not supported: its frames are not the encoder's")
        self.hop, self.span = 1, 1  # samples between frames, and seen by one
        for kernel, stride in zip(self.base.config.conv_kernel, self.base.config.conv_stride):
            self.span += (kernel - 1) * self.hop
            self.hop *= stride

    def prepare(self, x: torch.Tensor, preprocessor: dict) -> torch.Tensor:
        """Raw waveforms [batch, time], normalised where the feature extractor does so."""
        if not preprocessor.get("do_normalize", bool(preprocessor)):  # left out it is on, as in transformers
            return x
        variance = x.var(dim=-1, keepdim=True, correction=0)
        return (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-7)

    def n_frames(self, n_samples: int) -> int:
        """Frames that a waveform of `n_samples` gives."""
        return audio.n_frames(n_samples, hop=self.hop, span=self.span)

    def places(self, n_samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Centre of each frame in seconds, and whether it lies in the clip."""
        n = self.n_frames(n_samples)
        return audio.frame_times(n, sample_rate, hop=self.hop, span=self.span), np.ones(n, bool)

    def module(self, site: Site):
        """The module whose output, or its first item, is the site."""
        if site.layer == 0:
            return self.encoder.dropout
        layer = self.layers[site.layer - 1]
        ffn = layer.feed_forward
        parts = {"block": layer, "attention": layer.dropout, "ffn_hidden": ffn.intermediate_dropout, "ffn_out": ffn}
        return parts[site.part]

    def linear(self, site: Site) -> torch.nn.Linear | None:
        """The linear map whose rows make the neurons of a site; None where no single one does."""
        layer = self.layers[site.layer - 1]
        ffn = layer.feed_forward
        parts = {
            "attention": layer.attention.out_proj,
            "ffn_hidden": ffn.intermediate_dense,
            "ffn_out": ffn.output_dense,
        }
        return parts.get(site.part)

    def norms(self, layer: int) -> tuple | None:
        """The layer norms that a block ends in, after attention and after the whole; None where the stream passes."""
        block = self.layers[layer - 1]
        return None if self.stable else (block.layer_norm, block.final_layer_norm)

    @property
    def is_open(self) -> bool:
        """Whether some layer's heads are."""
        return bool(self._open)

    @contextmanager
    def opened(self, site: Site):
        """The module whose output, or its first item, is the site, while it is; the heads have one only then.

        Attention mixes its heads in one function with the weights of `out_proj`. Meanwhile those are the identity, and
        `out_proj` follows as a step of its own.
        """
        if site.part != "heads":
            with super().opened(site) as module:
                yield module
            return
        attention = self.layers[site.layer - 1].attention
        if site.layer not in self._open:
            mix, inside, same = (
                attention.out_proj,
                torch.nn.Identity().eval(),
                torch.nn.utils.skip_init(torch.nn.Linear, *attention.out_proj.weight.shape),
            )
            torch.nn.init.eye_(same.weight.requires_grad_(False))
            torch.nn.init.zeros_(same.bias.requires_grad_(False))
            attention.out_proj = same.to(mix.weight).eval()
            hook = attention.register_forward_hook(lambda *call: (mix(inside(call[2][0])), *call[2][1:]), prepend=True)
            self._open[site.layer] = [inside, 0, lambda: (setattr(attention, "out_proj", mix), hook.remove())]
        opened = self._open[site.layer]
        opened[1] += 1
        try:
            yield opened[0]
        finally:
            opened[1] -= 1
            if not opened[1]:
                self._open.pop(site.layer)[2]()

    def weights(self) -> torch.Tensor | None:
        """Share of each layer 0…L in what the head reads; None where it reads the last."""
        weights = getattr(self.network, "layer_weights", None)
        return None if weights is None else torch.softmax(weights, dim=-1)

    def embed(self, x: torch.Tensor) -> State:
        """Normalised waveform [batch, time] to what enters the first layer."""
        projected, _ = self.base.feature_projection(self.base.feature_extractor(x).transpose(1, 2))
        hidden = projected + self.encoder.pos_conv_embed(projected)
        if not self.stable:
            hidden = self.encoder.layer_norm(hidden)
        hidden = self.encoder.dropout(hidden)
        return State(0, hidden, None, self._add(None, 0, hidden))

    def step(self, state: State) -> State:
        """Run the next layer."""
        hidden, bias = self.layers[state.layer](state.hidden, position_bias=state.bias, index=state.layer)
        layer = state.layer + 1
        return State(layer, hidden, bias, self._add(state.total, layer, hidden))

    def replace(self, state: State, hidden: torch.Tensor) -> State:
        """The same state with another output of its layer."""
        weights = self.weights()
        total = None if weights is None else state.total + weights[state.layer] * (hidden - state.hidden)
        return State(state.layer, hidden, state.bias, total)

    def finish(self, state: State) -> torch.Tensor:
        """After the last layer: what the head reads, [batch, frame, neuron]."""
        if state.total is not None:
            return state.total
        return self.encoder.layer_norm(state.hidden) if self.stable else state.hidden

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """The family's own head: project, average over frames, classify."""
        return self.network.classifier(self.network.projector(hidden).mean(dim=1))

    def _add(self, total, layer, hidden):
        weights = self.weights()
        if weights is None:
            return None
        return weights[layer] * hidden if total is None else total + weights[layer] * hidden
