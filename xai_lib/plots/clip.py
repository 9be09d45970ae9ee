"""One clip: waveform, spectrogram and fundamental frequency, with speech marked."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from scipy import signal

from . import style

FLOOR = -70  # dB under the loudest point


def clip(frames, *, title=None) -> plt.Figure:
    """Waveform, with speech shaded, above spectrogram above F0, over seconds.

    Parameters
    ----------
    frames : Dataset
        Of `acoustics.frames`.
    title : str, optional
    """
    x, rate, times = frames["waveform"].values, frames.attrs["sample_rate"], frames["frame"].values
    speech = frames["speech"].values
    figure, (wave, spectrum, pitch) = plt.subplots(
        3, 1, figsize=(style.WIDTH, 5.2), sharex=True, height_ratios=(1, 1.7, 1.1), layout="constrained"
    )
    wave.plot(frames["sample"], x, color="black", linewidth=0.5)
    wave.fill_between(
        times,
        0,
        1,
        where=speech,
        step="mid",
        transform=wave.get_xaxis_transform(),
        linewidth=0,
        color=style.EMOTION_COLORS["calm"],
        alpha=0.35,
        label="speech",
    )
    wave.set(ylabel="amplitude\n(full scale 1)", xlim=(0, len(x) / rate))
    wave.set_title(title or "", parse_math=False)  # a file's name may hold a dollar sign
    wave.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)

    width, hop = round(0.025 * rate), round(0.005 * rate)
    hertz, at, power = signal.spectrogram(x, rate, "hann", width, width - hop, 2 * width, scaling="spectrum")
    level = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-12)
    edges = (at[0] - hop / rate / 2, at[-1] + hop / rate / 2, 0, hertz[-1] / 1000)
    image = spectrum.imshow(
        level,
        origin="lower",
        vmin=FLOOR,
        vmax=0,
        cmap=style.SEQUENTIAL,
        extent=edges,
        aspect="auto",
        interpolation="nearest",
    )
    spectrum.set(ylabel="frequency (kHz)", xlim=(0, len(x) / rate))
    figure.colorbar(image, ax=spectrum, label="dB under the loudest", pad=0.01)

    f0 = np.where(speech, frames["f0"].values, np.nan)
    pitch.plot(times, f0, color=style.EMOTION_COLORS["sad"], marker=".", markersize=3)
    pitch.set(ylabel="F0 (Hz)", xlabel="time (s)")
    pitch.grid(axis="y", color="#DDDDDD")
    if not np.isfinite(f0).any():
        pitch.text(0.5, 0.5, "no voiced speech was found", transform=pitch.transAxes, ha="center")
    return figure
