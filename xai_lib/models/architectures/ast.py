"""AST, the Audio Spectrogram Transformer: where its parts lie, and how a forward is stopped and resumed."""

from __future__ import annotations

import numpy as np
import torch

from ..sites import Site, State
from .base import Family


class AST(Family):
    """Audio Spectrogram Transformer: frames are patches of time and frequency, after two class tokens."""

    class_tokens = 2

    def __init__(self, network):
        super().__init__(network)
        self.layers = self.base.layers
        config = self.base.config
        self.n_heads = config.num_attention_heads
        self.grid = self.base.embeddings.get_shape(config)  # patches along frequency and time
        self.span = 400  # samples of one column of the spectrogram
        self.window = config.max_length / 100 + 0.02  # a column each 10 ms, of 25 ms; what follows would be cut off

    @property
    def hop(self):
        """Frames are in no single order of time."""
        raise ValueError("an AST has no frames one after the other but patches of time and frequency: not for this")

    def prepare(self, x: torch.Tensor, preprocessor: dict) -> torch.Tensor:
        """Raw waveforms [batch, time] to log-mel spectrograms [batch, column, band]: what the feature extractor does."""
        from torchaudio.compliance.kaldi import fbank

        config, rate = self.base.config, preprocessor.get("sampling_rate", 16_000)
        options = {"sample_frequency": rate, "window_type": "hanning", "num_mel_bins": config.num_mel_bins}
        mel = torch.stack([fbank(row[None], **options) for row in x])[:, : config.max_length]
        mel = torch.nn.functional.pad(mel, (0, 0, 0, config.max_length - mel.shape[1]))
        if not preprocessor.get("do_normalize", True):
            return mel
        return (mel - preprocessor.get("mean", -4.2677393)) / (2 * preprocessor.get("std", 4.5689974))

    def n_frames(self, n_samples: int) -> int:
        """Class tokens and patches, as many for every clip."""
        return self.class_tokens + self.grid[0] * self.grid[1]

    def places(self, n_samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Centre of each patch in seconds, NaN of class tokens, and whether it lies in the clip."""
        config, step = self.base.config, sample_rate / 100
        column = np.arange(self.grid[1]) * config.time_stride + (config.patch_size - 1) / 2
        inside = column * step + self.span <= n_samples
        inside[0] = True  # a clip shorter than half a patch
        at = np.tile((column * step + self.span / 2) / sample_rate, self.grid[0])
        none = np.full(self.class_tokens, np.nan)
        return np.r_[none, at], np.r_[none > 0, np.tile(inside, self.grid[0])]

    def module(self, site: Site):
        """The module whose output, or its first item, is the site."""
        if site.layer == 0:
            return self.base.embeddings.dropout
        layer = self.layers[site.layer - 1]
        ffn = layer.mlp
        return {"block": layer, "attention": layer.attention, "ffn_hidden": ffn.activation_fn, "ffn_out": ffn}[
            site.part
        ]

    def linear(self, site: Site) -> torch.nn.Linear | None:
        """The linear map whose rows make the neurons of a site; None where no single one does."""
        layer = self.layers[site.layer - 1]
        parts = {"attention": layer.attention.o_proj, "ffn_hidden": layer.mlp.fc1, "ffn_out": layer.mlp.fc2}
        return parts.get(site.part)

    def embed(self, x: torch.Tensor) -> State:
        """Spectrograms to what enters the first layer."""
        return State(0, self.base.embeddings(x))

    def step(self, state: State) -> State:
        """Run the next layer."""
        return State(state.layer + 1, self.layers[state.layer](state.hidden))

    def finish(self, state: State) -> torch.Tensor:
        """After the last layer: what the head reads, [batch, frame, neuron]."""
        return self.base.layernorm(state.hidden)

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """The family's own head, on the mean of the class tokens."""
        return self.network.classifier(hidden[:, :2].mean(dim=1))
