"""AST, the Audio Spectrogram Transformer: positions of its parts, and resumable forward passes."""

from __future__ import annotations

import numpy as np
import torch

from ..sites import Site, State
from .base import Architecture


class AST(Architecture):
    """Audio Spectrogram Transformer: frames are patches of time and frequency, after two class tokens."""

    class_tokens = 2

    def __init__(self, network):
        super().__init__(network)
        self.layers = self.base.layers
        config = self.base.config
        self.n_heads = config.num_attention_heads
        self.grid = self.base.embeddings.get_shape(config)  # patches along frequency and time
        self.span = 400  # samples of one column of the spectrogram
        self.window = config.max_length / 100 + 0.02  # one column per 10 ms, of 25 ms; longer clips would be cut off

    @property
    def hop(self):
        """Raise ValueError: frames have no single order in time."""
        raise ValueError(
            "the frames of an AST are patches of time and frequency, not successive in time: this needs a model with "
            "a timeline of frames, such as WavLM"
        )

    def prepare(self, x: torch.Tensor, preprocessor: dict) -> torch.Tensor:
        """Convert raw waveforms [batch, time] to log-mel spectrograms [batch, column, band] as the extractor does."""
        from torchaudio.compliance.kaldi import fbank

        config = self.base.config
        options = {
            "sample_frequency": preprocessor.get("sampling_rate", 16_000),
            "window_type": "hanning",
            "num_mel_bins": config.num_mel_bins,
        }
        mel = torch.stack([fbank(row[None], **options) for row in x])[:, : config.max_length]
        mel = torch.nn.functional.pad(mel, (0, 0, 0, config.max_length - mel.shape[1]))
        if not preprocessor.get("do_normalize", True):
            return mel
        return (mel - preprocessor.get("mean", -4.2677393)) / (2 * preprocessor.get("std", 4.5689974))

    def n_frames(self, n_samples: int) -> int:
        """Return the number of class tokens and patches, the same for all clips."""
        return self.class_tokens + self.grid[0] * self.grid[1]

    def frame_times(self, n_samples: int, sample_rate: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the centre of each patch in seconds, NaN for class tokens, and the mask of valid frames."""
        config = self.base.config
        n_bands, n_columns = self.grid
        column = np.arange(n_columns) * config.time_stride + (config.patch_size - 1) / 2  # of the spectrogram
        start = column * (sample_rate / 100)  # in samples
        inside = start + self.span <= n_samples
        inside[0] = True  # for a clip shorter than half a patch
        times = (start + self.span / 2) / sample_rate
        # Frames run through the columns of one band after another.
        frame_times = np.r_[np.full(self.class_tokens, np.nan), np.tile(times, n_bands)]
        valid = np.r_[np.zeros(self.class_tokens, bool), np.tile(inside, n_bands)]
        return frame_times, valid

    def module(self, site: Site):
        """Return the module whose output, or its first item, is the site."""
        if site.layer == 0:
            return self.base.embeddings.dropout
        layer = self.layers[site.layer - 1]
        parts = {
            "hidden_state": layer,
            "attention": layer.attention,
            "ffn_hidden": layer.mlp.activation_fn,
            "ffn_out": layer.mlp,
        }
        return parts[site.part]

    def linear(self, site: Site) -> torch.nn.Linear | None:
        """Return the linear map whose rows produce the neurons of a site; None if no single map does."""
        layer = self.layers[site.layer - 1]
        parts = {"attention": layer.attention.o_proj, "ffn_hidden": layer.mlp.fc1, "ffn_out": layer.mlp.fc2}
        return parts.get(site.part)

    def embed(self, x: torch.Tensor) -> State:
        """Compute the input of the first layer from spectrograms."""
        return State(0, self.base.embeddings(x))

    def step(self, state: State) -> State:
        """Run the next layer."""
        return State(state.layer + 1, self.layers[state.layer](state.hidden))

    def finish(self, state: State) -> torch.Tensor:
        """Return the input of the head after the last layer, [batch, frame, neuron]."""
        return self.base.layernorm(state.hidden)

    def classify(self, hidden: torch.Tensor) -> torch.Tensor:
        """Apply the network's own head to the mean of the class tokens."""
        return self.network.classifier(hidden[:, :2].mean(dim=1))
