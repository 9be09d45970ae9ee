import numpy as np

from . import style


def frame_attribution(waveform, sample_rate, shaps, *, k=20, name=""):
    """Plot waveform [time] and spectrogram of one clip and, on the same time axis, its attribution and top frames.

    `shaps` is one clip of the result of `attribution.gradient_shap`, or {baseline: one clip}: each has a panel with its
    own scale and its `k` top frames in yellow. `name` is the clip's name, for the title.
    """
    shaps = shaps if isinstance(shaps, dict) else {shaps.attrs["baseline"]: shaps}
    first = next(iter(shaps.values()))
    count, step = int(first["n_frames"]), first.attrs["window"]
    edges = np.append(np.arange(count) * step, len(waveform) / sample_rate)
    heights = [1, 1.3, *[1.5 if len(shaps) == 1 else 1.1] * len(shaps)]
    figure, panels = style.panels(len(heights), height=1.58 * sum(heights), sharex=True, height_ratios=heights)
    style.waveform(panels[0], waveform, sample_rate)
    style.spectrogram(panels[1], waveform, sample_rate)
    scale = first.attrs["scale"].replace("_", " ")
    for axes, color, (baseline, shap) in zip(panels[2:], ("#0072B2", "#D55E00", "#009E73") * len(shaps), shaps.items()):
        mean, error = (shap[variable].values[:count] for variable in ("attribution", "error"))
        for frame in np.argsort(-mean, kind="stable")[:k]:
            # The outline keeps a frame visible when it is thinner than a pixel.
            options = {"color": style.EMOTION_COLORS["surprised"], "alpha": 0.55, "lw": 1, "zorder": 0}
            axes.axvspan(edges[frame], edges[frame + 1], **options)
        axes.stairs(mean + error, edges, baseline=mean - error, fill=True, color=color, alpha=0.3, lw=0)
        axes.stairs(mean, edges, baseline=None, color=color, lw=1.2 if count < 200 else 0.9)
        axes.axhline(0, color="black", lw=0.6)
        # Bands may leave the panel: a single huge draw would otherwise flatten the curve.
        low, high = np.min(mean, initial=0), np.max(mean, initial=0)
        if high > low:
            axes.set_ylim(low - 0.15 * (high - low), high + 0.15 * (high - low))
        axes.set_title(f"{baseline} baseline ± 1 standard error", color=color, fontsize=10)
        axes.set_ylabel(f"attribution\n({scale})")
    panels[-1].set(xlabel="time (s)", xlim=(0, edges[-1]))
    figure.align_ylabels(panels)
    target_p, predicted_p = float(first["target_probability"]), float(first["probability"])
    title = (
        f"{name and name + ': '}target {first['target'].item()}, p = {target_p:.2f}; predicted "
        f"{first['predicted'].item()}, p = {predicted_p:.2f}; yellow: top {min(k, count)} frames"
    )
    panels[0].set_title(title, parse_math=False)  # a file name may contain a dollar sign
    return figure
