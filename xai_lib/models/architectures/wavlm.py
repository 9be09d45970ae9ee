"""WavLM: positions of its parts, and resumable forward passes."""

from __future__ import annotations

from contextlib import contextmanager

import numpy as np
import torch

from ... import audio
from ..sites import PARTS, Site, State
from .base import Architecture


class WavLM(Architecture):
    """WavLM, base (post-norm) and large (pre-norm). Its blocks return (hidden, position bias)."""

    parts = (*PARTS, "heads")
    timeline = True

    def __init__(self, network):
        super().__init__(network)
        self.encoder = self.base.encoder
        self.layers = self.encoder.layers
        self.stable = self.base.config.do_stable_layer_norm
        self.n_heads = self.base.config.num_attention_heads
        self._heads = [_ExposedHeads(layer.attention) for layer in self.layers]
        if getattr(self.base, "adapter", None) is not None:
            raise ValueError("WavLM with add_adapter=True is not supported: its frames are not the encoder's")
        self.hop = 1  # samples between frames
        self.span = 1  # samples in the receptive field of a frame
        for kernel, stride in zip(self.base.config.conv_kernel, self.base.config.conv_stride):
            self.span += (kernel - 1) * self.hop
            self.hop *= stride

    def prepare(self, x: torch.Tensor, preprocessor: dict) -> torch.Tensor:
        """Return raw waveforms [batch, time], normalised if the feature extractor does so."""
        if not preprocessor.get("do_normalize", bool(preprocessor)):  # default: on, as in transformers
            return x
        variance = x.var(dim=-1, keepdim=True, correction=0)
        return (x - x.mean(dim=-1, keepdim=True)) / torch.sqrt(variance + 1e-7)

    def n_frames(self, n_samples: int) -> int:
        """Return the number of frames of a waveform of `n_samples`."""
        return audio.n_frames(n_samples, hop=self.hop, span=self.span)

    def frame_times(self, n_samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the centre of each frame in seconds, and the mask of valid frames (all)."""
        n = self.n_frames(n_samples)
        return audio.frame_times(n, sample_rate, hop=self.hop, span=self.span), np.ones(n, bool)

    def module(self, site: Site):
        """Return the module whose output, or its first item, is the site."""
        if site.layer == 0:
            return self.encoder.dropout
        layer = self.layers[site.layer - 1]
        ffn = layer.feed_forward
        parts = {
            "hidden_state": layer,
            "attention": layer.dropout,
            "ffn_hidden": ffn.intermediate_dropout,
            "ffn_out": ffn,
        }
        return parts[site.part]

    def linear(self, site: Site) -> torch.nn.Linear | None:
        """Return the linear map whose rows produce the neurons of a site; None if no single map does."""
        layer = self.layers[site.layer - 1]
        ffn = layer.feed_forward
        parts = {
            "attention": layer.attention.out_proj,
            "ffn_hidden": ffn.intermediate_dense,
            "ffn_out": ffn.output_dense,
        }
        return parts.get(site.part)

    def norms(self, layer: int) -> tuple | None:
        """Return the layer norms of a post-norm block, after attention and at its end; None for other blocks."""
        block = self.layers[layer - 1]
        if self.stable:
            return None
        return block.layer_norm, block.final_layer_norm

    @property
    def has_hooked_heads(self) -> bool:
        """Return True while attention heads of a layer are hooked (see `hookable`)."""
        return any(heads.users > 0 for heads in self._heads)

    @contextmanager
    def hookable(self, site: Site):
        """Yield the module whose output, or its first item, is the site; `heads` has one within this context only."""
        if site.part != "heads":
            with super().hookable(site) as module:
                yield module
            return
        heads = self._heads[site.layer - 1]
        heads.acquire()
        try:
            yield heads.module
        finally:
            heads.release()

    def weights(self) -> torch.Tensor | None:
        """Return the weight of each layer 0…L in the input of the head; None if the head reads the last layer."""
        weights = getattr(self.network, "layer_weights", None)
        if weights is None:
            return None
        return torch.softmax(weights, dim=-1)

    def embed(self, x: torch.Tensor) -> State:
        """Compute the input of the first layer from normalised waveforms [batch, time]."""
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
        """Return the state with another output of its layer."""
        weights = self.weights()
        if weights is None:
            return State(state.layer, hidden, state.bias)
        total = state.total + weights[state.layer] * (hidden - state.hidden)
        return State(state.layer, hidden, state.bias, total)

    def finish(self, state: State) -> torch.Tensor:
        """Return the input of the head after the last layer, [batch, frame, neuron]."""
        if state.total is not None:
            return state.total
        if self.stable:
            return self.encoder.layer_norm(state.hidden)
        return state.hidden

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the network's own head: project, average over frames, classify."""
        return self.network.classifier(self.network.projector(hidden).mean(dim=1))

    def _add(self, total, layer, hidden):
        """Return the weighted sum of layers with that of `layer` added; None if the head reads the last layer."""
        weights = self.weights()
        if weights is None:
            return None
        if total is None:
            return weights[layer] * hidden
        return total + weights[layer] * hidden


class _ExposedHeads:
    """The heads of one attention module, as the output of `module`, which runs while someone uses it.

    Attention projects its heads with the weights of `out_proj` inside one function. While the heads are exposed, these
    weights are the identity, and `module` and `out_proj` follow as separate steps.
    """

    def __init__(self, attention: torch.nn.Module):
        self.module = torch.nn.Identity().eval()
        self.users = 0
        self._attention = attention
        self._projection = None
        self._hook = None

    def acquire(self) -> None:
        """Count one more user, and expose the heads to the first one."""
        if self.users == 0:
            self._projection = self._attention.out_proj
            self._attention.out_proj = _identity_like(self._projection)
            self._hook = self._attention.register_forward_hook(self._project, prepend=True)
        self.users += 1

    def release(self) -> None:
        """Count one user less, and restore the attention after the last one."""
        self.users -= 1
        if self.users == 0:
            self._attention.out_proj = self._projection
            self._hook.remove()

    def _project(self, attention, args, output):
        """Return the attention's output with its first item, the heads, projected."""
        return self._projection(self.module(output[0])), *output[1:]


def _identity_like(linear: torch.nn.Linear) -> torch.nn.Linear:
    """Return a linear map of the same size, type and device that returns its input."""
    identity = torch.nn.utils.skip_init(torch.nn.Linear, *linear.weight.shape)
    torch.nn.init.eye_(identity.weight.requires_grad_(False))
    torch.nn.init.zeros_(identity.bias.requires_grad_(False))
    return identity.to(linear.weight).eval()
