"""One clip: waveform and spectrogram, with speech and F0 marked."""

from __future__ import annotations

import numpy as np
from matplotlib import pyplot as plt
from scipy import ndimage, signal

from . import style

FLOOR = -70  # dB under the loudest point


def clip(frames, *, title=None) -> plt.Figure:
    """Waveform above spectrogram.

    Parameters
    ----------
    frames : Dataset
        Of `acoustics.frames`: `waveform` [sample], `speech` and `f0` [frame].
    title : str, optional

    Returns
    -------
    Figure
        Two axes over seconds: amplitude, with the stretches of speech marked, and frequency in kHz, with the
        level in dB under the loudest point and F0 as a line.
    """
    x, rate, seconds = frames["waveform"].values, frames.attrs["sample_rate"], frames["sample"].values
    figure, (top, bottom) = plt.subplots(
        2, 1, figsize=(style.WIDTH, 4.4), sharex=True, height_ratios=(1, 1.9), layout="constrained"
    )
    top.plot(seconds, x, color="black", linewidth=0.5)
    times = frames["frame"].values
    step = np.diff(times[:2]).sum() or 0.02
    parts, count = ndimage.label(frames["speech"].values)
    for part in range(1, count + 1):
        first, last = times[parts == part][[0, -1]]
        top.axvspan(first - step / 2, last + step / 2, color=style.EMOTION_COLORS["calm"], alpha=0.35, linewidth=0,
                    label="speech" if part == 1 else None)
    top.set(ylabel="amplitude\n(full scale 1)")
    top.set_title(title or "", parse_math=False)  # a file's name may hold a dollar sign

    width, hop = round(0.025 * rate), round(0.005 * rate)
    width = min(width, len(x))
    hertz, at, power = signal.spectrogram(
        x, rate, "hann", width, width - min(hop, width), max(512, width), scaling="spectrum"
    )
    level = 10 * np.log10(power / max(power.max(), 1e-20) + 1e-12)
    half = hop / rate / 2
    image = bottom.imshow(
        level, origin="lower", aspect="auto", vmin=FLOOR, vmax=0, cmap=style.SEQUENTIAL,
        extent=(at[0] - half, at[-1] + half, 0, hertz[-1] / 1000), interpolation="nearest",
    )  # fmt: skip
    voiced = np.where(frames["speech"].values, frames["f0"].values, np.nan)
    bottom.plot(times, voiced / 1000, color="black", linewidth=3.4)  # an edge, to be seen on any ground
    bottom.plot(times, voiced / 1000, color="white", linewidth=1.6, label="F0")
    bottom.set(xlabel="time (s)", ylabel="frequency (kHz)", xlim=(0, seconds[-1] + 1 / rate), ylim=(0, rate / 2000))
    figure.colorbar(image, ax=bottom, label="level (dB under the loudest)", pad=0.01)
    if count:
        top.legend(loc="upper right", fontsize=8)
    if np.isfinite(voiced).any():
        bottom.legend(loc="upper right", fontsize=8, labelcolor="white")
    return figure
