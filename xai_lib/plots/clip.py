from __future__ import annotations

import numpy as np
import xarray as xr
from matplotlib.figure import Figure

from . import style


def clip(frames: xr.Dataset, *, title: str | None = None) -> Figure:
    """Plot waveform (speech shaded), spectrogram and F0 over seconds.

    `frames` are as returned by `emotion_profiles.frames`.
    """
    samples = frames["waveform"].values
    rate = frames.attrs["sample_rate"]
    times = frames["frame"].values
    speech = frames["speech"].values
    f0 = np.where(speech, frames["f0"].values, np.nan)

    figure, (waveform_axes, spectrogram_axes, pitch_axes) = style.panels(
        3, height=5.2, sharex=True, height_ratios=(1, 1.7, 1.1)
    )
    style.waveform(waveform_axes, samples, rate)
    options = {"color": style.EMOTION_COLORS["calm"], "alpha": 0.35, "lw": 0, "label": "speech"}
    waveform_axes.fill_between(
        times, 0, 1, where=speech, step="mid", transform=waveform_axes.get_xaxis_transform(), **options
    )
    waveform_axes.set_title(title or "", parse_math=False)  # a file name may contain a dollar sign
    waveform_axes.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)

    image = style.spectrogram(spectrogram_axes, samples, rate)
    figure.colorbar(image, ax=spectrogram_axes, label="dB relative to the maximum", pad=0.01)

    pitch_axes.plot(times, f0, color=style.EMOTION_COLORS["sad"], marker=".", markersize=3)
    pitch_axes.set(ylabel="F0 (Hz)", xlabel="time (s)")
    pitch_axes.grid(axis="y", color="#DDDDDD")
    if not np.isfinite(f0).any():
        pitch_axes.text(0.5, 0.5, "no voiced speech", transform=pitch_axes.transAxes, ha="center")
    return figure
