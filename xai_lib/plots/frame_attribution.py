import numpy as np

from . import style


def frame_attribution(waveform, sample_rate, shaps, *, k=20, name=""):
    """Waveform [time], spectrogram and attribution of one clip on one time axis, the top frames marked.

    `shaps` is one clip of `attribution.gradient_shap`, or {baseline: one clip}; the `k` top frames are those of the
    first. `name` is the clip's, for the title.
    """
    shaps = shaps if isinstance(shaps, dict) else {shaps.attrs["baseline"]: shaps}
    first = next(iter(shaps.values()))
    count, step = int(first["n_frames"]), first.attrs["window"]
    edges = np.append(np.arange(count) * step, len(waveform) / sample_rate)
    top = np.argsort(-first["attribution"].values[:count], kind="stable")[:k]
    figure, (above, middle, below) = style.panels(3, height=6, sharex=True, height_ratios=[1, 1.3, 1.5])
    style.waveform(above, waveform, sample_rate)
    style.spectrogram(middle, waveform, sample_rate)
    for (baseline, shap), color in reversed(list(zip(shaps.items(), ("#0072B2", "#E69F00", "#009E73") * 4))):
        mean, error = (shap[values].values[:count] for values in ("attribution", "error"))
        below.stairs(mean, edges, color=color, label=f"{baseline} baseline ± 1 SE", lw=1.3)
        below.bar(edges[:-1], 2 * error, np.diff(edges), mean - error, align="edge", color=color, alpha=0.25)
    below.axhline(0, color="black", lw=0.6)
    for frame in top:
        for panel in (above, below):
            color = style.EMOTION_COLORS["surprised"]
            panel.axvspan(edges[frame], edges[frame + 1], color=color, alpha=0.5, lw=0, zorder=0)
    scale = first.attrs["scale"].replace("_", " ")
    below.set(xlabel="time (s)", ylabel=f"attribution ({scale})", xlim=(0, edges[-1]))
    below.legend(loc="upper right", ncols=len(shaps), reverse=True)
    share, best = float(first["target_probability"]), float(first["probability"])
    above.set_title(
        f"{name and name + ': '}target {first['target'].item()}, p = {share:.2f}; predicted "
        f"{first['predicted'].item()}, p = {best:.2f}; yellow: top {len(top)} frames"
    )
    return figure
