import io
from pathlib import Path

import ipywidgets
import numpy as np
import soundfile

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

    def __init__(self, shaps, clips, *, k=20, sample_rate=None, model_rate=16_000):
        self.shaps = shaps
        self.clips = as_clips(clips, sample_rate)
        self.model_rate = model_rate
        first = next(iter(shaps.values()))
        self.sources = audio.sources(self.clips)
        names = [(Path(str(self.sources.loc[clip])).name, index) for index, clip in enumerate(first["clip"].values)]
        max_frames = int(first["n_frames"].min())
        controls = {
            "k": ipywidgets.IntSlider(min(k, max_frames), 1, max_frames, description="top frames"),
            "baseline": ipywidgets.Dropdown(options=list(shaps)),
            "clip": ipywidgets.Dropdown(options=names, value=0),
        }
        super().__init__("Top frames for the target", controls, height=620)

    def draw(self, k, baseline, clip):
        """Return the figure of one clip, and players of its `k` top frames and of all others."""
        shap = self.shaps[baseline].isel(clip=[clip])
        source = self.sources.loc[shap["clip"].item()]
        waveform, name = audio.read(source, self.model_rate), Path(str(source)).name
        is_top_frame = np.zeros(shap["n_frames"].item(), bool)
        is_top_frame[top_frames(shap, k)["frame"]] = True
        outputs = [plots.frame_attribution(waveform, self.model_rate, shap.isel(clip=0), k=k, name=name)]
        for text, mask in (("top frames", is_top_frame), ("other frames", ~is_top_frame)):
            gated = gate(waveform, mask, window=shap.attrs["window"], sample_rate=self.model_rate)
            file = io.BytesIO()
            soundfile.write(file, gated, self.model_rate, format="WAV")
            # A widget keeps the sound out of the panel's output, which notebook runners exchange in messages.
            player = ipywidgets.Audio(value=file.getvalue(), format="wav", autoplay=False, loop=False)
            outputs.append(ipywidgets.HBox([ipywidgets.HTML(text), player]))
        return outputs
