import numpy as np

from . import style


def clip(frames, *, title=None):
    """Waveform, with speech shaded, above spectrogram above F0, over seconds; `frames` are of `acoustics.frames`."""
    x, rate, times = frames["waveform"].values, frames.attrs["sample_rate"], frames["frame"].values
    speech = frames["speech"].values
    figure, (wave, spectrum, pitch) = style.panels(3, height=5.2, sharex=True, height_ratios=(1, 1.7, 1.1))
    style.waveform(wave, x, rate)
    shade = {"color": style.EMOTION_COLORS["calm"], "alpha": 0.35, "lw": 0, "label": "speech"}
    wave.fill_between(times, 0, 1, where=speech, step="mid", transform=wave.get_xaxis_transform(), **shade)
    wave.set_title(title or "", parse_math=False)  # a file's name may hold a dollar sign
    wave.legend(loc="lower right", bbox_to_anchor=(1, 1), borderaxespad=0)
    image = style.spectrogram(spectrum, x, rate)
    figure.colorbar(image, ax=spectrum, label="dB under the loudest", pad=0.01)
    f0 = np.where(speech, frames["f0"].values, np.nan)
    pitch.plot(times, f0, color=style.EMOTION_COLORS["sad"], marker=".", markersize=3)
    pitch.set(ylabel="F0 (Hz)", xlabel="time (s)")
    pitch.grid(axis="y", color="#DDDDDD")
    if not np.isfinite(f0).any():
        pitch.text(0.5, 0.5, "no voiced speech was found", transform=pitch.transAxes, ha="center")
    return figure
