from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import ipywidgets
import numpy as np
import soundfile
import xarray as xr

from .. import audio, plots
from ..attribution.gradientshap import top_frames
from ..corpora import as_clips
from ..faithfulness.deletion_test import gate
from .panel import Panel


class FrameExplorer(Panel):
    """Explorer of a clip's top frames: figure, and players of the top frames and of all others.

    `shaps` is {baseline: result of `attribution.gradient_shap`}, all of the same `clips`, which, with `sample_rate`,
    are as in `corpora.as_clips`. Drawn and played at `model_rate`, the sampling rate of the model in Hz.
    """

    def __init__(
        self,
        shaps: Mapping[str, xr.Dataset],
        clips,
        *,
        k: int = 20,
        sample_rate: int | None = None,
        model_rate: int = 16_000,
    ):
        self.shaps = shaps
        self.clips = as_clips(clips, sample_rate)
        self.model_rate = model_rate
        self.sources = audio.sources(self.clips)
        first = next(iter(shaps.values()))
        names = []  # options of the drop-down list: name and position of each clip
        for position, clip in enumerate(first["clip"].values):
            names.append((self._name(clip), position))
        max_frames = int(first["n_frames"].min())
        controls = {
            "k": ipywidgets.IntSlider(min(k, max_frames), 1, max_frames, description="top frames"),
            "baseline": ipywidgets.Dropdown(options=list(shaps)),
            "clip": ipywidgets.Dropdown(options=names, value=0),
        }
        super().__init__("Top frames for the target", controls, height=620)

    def _name(self, clip):
        """Return the file name of a clip."""
        return Path(str(self.sources.loc[clip])).name

    def draw(self, k: int, baseline: str, clip: int) -> list:
        """Return the figure of one clip, and players of its `k` top frames and of all others."""
        shap = self.shaps[baseline].isel(clip=[clip])
        index = shap["clip"].item()
        waveform = audio.read(self.sources.loc[index], self.model_rate)
        is_top_frame = np.zeros(shap["n_frames"].item(), bool)
        is_top_frame[top_frames(shap, k)["frame"]] = True
        window = shap.attrs["window"]
        return [
            plots.frame_attribution(waveform, self.model_rate, shap.isel(clip=0), k=k, name=self._name(index)),
            self._player("top frames", waveform, is_top_frame, window),
            self._player("other frames", waveform, ~is_top_frame, window),
        ]

    def _player(self, text, waveform, mask, window):
        """Return a player of the frames of `mask` [frame], others silenced, with a text beside it."""
        gated = gate(waveform, mask, window=window, sample_rate=self.model_rate)
        file = io.BytesIO()
        soundfile.write(file, gated, self.model_rate, format="WAV")
        # A widget keeps the sound out of the panel's output, which notebook runners exchange in messages.
        player = ipywidgets.Audio(value=file.getvalue(), format="wav", autoplay=False, loop=False)
        return ipywidgets.HBox([ipywidgets.HTML(text), player])
