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
    """The top frames of a clip, seen and heard.

    `shaps` are {baseline: result of `attribution.gradient_shap`}, all of the same `clips`, which, with `sample_rate`, are
    as in `corpora.as_clips`. Drawn and played at `model_rate`, the rate of the model in Hz.
    """

    def __init__(self, shaps, clips, *, k=20, sample_rate=None, model_rate=16_000):
        self.shaps = shaps
        self.clips = as_clips(clips, sample_rate)
        self.model_rate = model_rate
        first = next(iter(shaps.values()))
        self.sources = audio.sources(self.clips)
        names = [(Path(str(self.sources.loc[clip])).name, place) for place, clip in enumerate(first["clip"].values)]
        most = int(first["n_frames"].min())
        controls = {
            "k": ipywidgets.IntSlider(min(k, most), 1, most, description="top frames"),
            "baseline": ipywidgets.Dropdown(options=list(shaps)),
            "clip": ipywidgets.Dropdown(options=names, value=0),
        }
        super().__init__("What speaks for the target", controls, height=620)

    def draw(self, k, baseline, clip):
        one = self.shaps[baseline].isel(clip=[clip])
        source = self.sources.loc[one["clip"].item()]
        waveform, name = audio.read(source, self.model_rate), Path(str(source)).name
        keep = np.zeros(one["n_frames"].item(), bool)
        keep[top_frames(one, k)["frame"]] = True
        shown = [plots.frame_attribution(waveform, self.model_rate, one.isel(clip=0), k=k, name=name)]
        for text, mask in (("top frames", keep), ("the rest", ~keep)):
            heard = gate(waveform, mask, window=one.attrs["window"], sample_rate=self.model_rate)
            file = io.BytesIO()
            soundfile.write(file, heard, self.model_rate, format="WAV")
            # A widget, for its sound stays out of the panel's output, which runners of notebooks send to and fro.
            player = ipywidgets.Audio(value=file.getvalue(), format="wav", autoplay=False, loop=False)
            shown.append(ipywidgets.HBox([ipywidgets.HTML(text), player]))
        return shown
