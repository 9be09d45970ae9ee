from __future__ import annotations

import matplotlib.pyplot as plt
import numpy as np

from . import style

_COLORS = ("#0072B2", "#E69F00", "#009E73")


def frame_attribution(waveform, sample_rate, shaps, *, k=20, name=""):
    """Waveform, spectrogram and attribution of one clip on one time axis, the top frames marked.

    Parameters
    ----------
    waveform : array [time]
    shaps : Dataset, or dict of str to Dataset
        One clip of `attribution.gradient_shap`, or several by baseline; the `k` frames of the first are marked.
    name : str
        Of the clip, for the title.
    """
    shaps = shaps if isinstance(shaps, dict) else {shaps.attrs["baseline"]: shaps}
    first = next(iter(shaps.values()))
    count, step = int(first["n_frames"]), first.attrs["window"]
    edges = np.append(np.arange(count) * step, len(waveform) / sample_rate)
    top = np.argsort(-first["attribution"].values[:count], kind="stable")[:k]
    figure, axes = plt.subplots(3, 1, sharex=True, figsize=(style.WIDTH, 6), height_ratios=[1, 1.3, 1.5])
    axes[0].plot(np.arange(len(waveform)) / sample_rate, waveform, color="#444444", lw=0.4)
    axes[0].set_ylabel("amplitude")
    spectrum, hertz, seconds = plt.mlab.specgram(waveform, NFFT=512, Fs=sample_rate, noverlap=352)
    decibel = 10 * np.log10(spectrum + 1e-12)
    axes[1].pcolormesh(seconds, hertz / 1000, decibel, vmin=decibel.max() - 70, rasterized=True)
    axes[1].set_ylabel("frequency (kHz)")
    for (baseline, shap), color in reversed(list(zip(shaps.items(), _COLORS * 4))):
        mean, error = (shap[values].values[:count] for values in ("attribution", "error"))
        axes[2].stairs(mean, edges, color=color, label=f"{baseline} baseline ± 1 SE", lw=1.3)
        axes[2].bar(edges[:-1], 2 * error, np.diff(edges), mean - error, align="edge", color=color, alpha=0.25)
    axes[2].axhline(0, color="black", lw=0.6)
    for panel in (axes[0], axes[2]):
        for frame in top:
            panel.axvspan(
                edges[frame], edges[frame + 1], color=style.EMOTION_COLORS["surprised"], alpha=0.5, lw=0, zorder=0
            )
    scale = first.attrs["scale"].replace("_", " ")
    axes[2].set(xlabel="time (s)", ylabel=f"attribution ({scale})", xlim=(0, edges[-1]))
    axes[2].legend(loc="upper right", ncols=len(shaps), reverse=True)
    share, best = float(first["target_probability"]), float(first["probability"])
    axes[0].set_title(
        f"{name and name + ': '}target {first['target'].item()}, p = {share:.2f}; predicted "
        f"{first['predicted'].item()}, p = {best:.2f}; yellow: top {len(top)} frames"
    )
    return figure
