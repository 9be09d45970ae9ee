"""Speech mask of a waveform and acoustic features per encoder frame; `reading` makes waveforms of files.

Each frame is a frame of the encoders: with the defaults, frame i is the samples 320 i to 320 i + 399 at
16 kHz (25 ms every 20 ms), so row i of a feature and frame i of a WavLM layer describe the same moment.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from scipy import ndimage, signal

from . import pitch
from .reading import SAMPLE_RATE

HOP = 320  # step between encoder frames, in samples
SPAN = 400  # width of one
OFFSET = 1e-4  # of full scale: a larger mean counts as a DC offset
FEATURES = ("rms", "envelope", "zcr", "centroid", "f0")


def n_frames(n_samples: int, *, hop: int = HOP, span: int = SPAN) -> int:
    """Return the number of encoder frames in `n_samples`; raise ValueError if not even one fits."""
    if n_samples < span:
        raise ValueError(f"{n_samples} samples are shorter than one frame of {span}: use a longer clip")
    return (n_samples - span) // hop + 1


def frame_times(n: int, sample_rate: int = SAMPLE_RATE, *, hop: int = HOP, span: int = SPAN) -> np.ndarray:
    """Return the centres of frames 0 to n - 1, in seconds."""
    return (np.arange(n) * hop + span / 2) / sample_rate


def _finite(waveform) -> torch.Tensor:
    """Return the waveform as a tensor; raise ValueError if it contains NaN or infinite samples."""
    samples = torch.as_tensor(waveform)
    if not torch.isfinite(samples).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    return samples


def _windows(samples, width, hop, span) -> torch.Tensor:
    """Return windows of `width` samples about each frame's centre, zeros beyond the clip: [..., frame, width]."""
    count = n_frames(samples.shape[-1], hop=hop, span=span)
    pad_before = (width - span) // 2
    pad_after = max((count - 1) * hop + span + width - span - pad_before - samples.shape[-1], 0)
    samples = torch.nn.functional.pad(samples, (max(pad_before, 0), pad_after))[..., max(-pad_before, 0) :]
    return samples.unfold(-1, width, hop)[..., :count, :]


def grid(sample_rate: int) -> dict[str, int]:
    """Return the encoder frames at another rate: `hop` and `span`, 20 ms and 25 ms, in samples."""
    return {"hop": round(HOP / SAMPLE_RATE * sample_rate), "span": round(SPAN / SAMPLE_RATE * sample_rate)}


def without_offset(waveform: np.ndarray | torch.Tensor) -> np.ndarray | torch.Tensor:
    """Return the waveform [..., time] minus its mean, where that is a DC offset: more than 0.0001 of full scale.

    Cheap sound cards add one. It is inaudible, but it would raise the level of pauses to that of speech and remove the
    zero crossings. Samples that are exactly 0 are taken as padding: they are not counted and stay 0.
    """
    recorded = waveform != 0
    count = recorded.sum(-1)
    mean = waveform.sum(-1) / (count + (count == 0))
    offset = (mean * (abs(mean) > OFFSET))[..., None] * recorded
    offset = offset.to(waveform.dtype) if torch.is_tensor(waveform) else offset.astype(waveform.dtype)
    return waveform - offset


def speech_mask(
    waveform: np.ndarray | torch.Tensor,
    sample_rate: int = SAMPLE_RATE,
    *,
    hop: int | None = None,
    span: int | None = None,
) -> np.ndarray:
    """Return a mask of the frames of a waveform [..., time] that contain speech, bool [..., frame].

    A frame is speech if its level is within 30 dB of the clip's loud frames (95th percentile) and at least 10 dB above
    the clip's quietest tenth, where the clip has quiet frames at all. Gaps up to 160 ms inside (closures of stops) are
    filled, and islands of less than 60 ms (clicks) dropped. A clip whose loudest frame is under -70 dBFS, digital
    silence included, is False throughout. A DC offset is ignored (`without_offset`). Frames are those of `grid` by
    default; `hop` and `span` are their step and width in samples. Raises ValueError if the clip is shorter than one
    frame or contains NaN.
    """
    hop = hop or grid(sample_rate)["hop"]
    span = span or grid(sample_rate)["span"]
    samples = without_offset(_finite(waveform).detach().cpu().float())

    level = 10 * (_windows(samples, span, hop, span).square().mean(-1) + 1e-12).log10().numpy()
    loud, quiet = np.percentile(level, [95, 10], axis=-1, keepdims=True)
    is_speech = level > np.maximum(loud - 30, np.minimum(quiet + 10, loud - 15))

    seconds = hop / sample_rate  # of a frame
    leading_axes = (1,) * (level.ndim - 1)
    gap = np.ones((*leading_axes, max(round(0.16 / seconds), 1) + 1), bool)
    island = np.ones((*leading_axes, max(round(0.06 / seconds), 1)), bool)
    margin = gap.shape[-1]
    padded = np.pad(is_speech, [(0, 0)] * (level.ndim - 1) + [(margin, margin)])  # erosion shortens the ends
    without_islands = ndimage.binary_opening(padded, island)
    smooth = ndimage.binary_closing(without_islands, gap)[..., margin:-margin]
    is_audible = level.max(axis=-1, keepdims=True) > -70
    return smooth & is_audible


def features(
    waveform: torch.Tensor,
    sample_rate: int = SAMPLE_RATE,
    *,
    names: Sequence[str] = FEATURES,
    hop: int = HOP,
    span: int = SPAN,
    frame_length: int | None = None,
    f0_range: tuple[float, float] = pitch.RANGE,
) -> dict[str, torch.Tensor]:
    """Compute acoustic features of each encoder frame, on the tensor's device.

    Parameters
    ----------
    waveform : tensor [time] or [batch, time]
        Clips of a batch have equal length: padding would count as silence. An offset is kept: see `without_offset`.
    names : sequence of str
        Members of `FEATURES`.
    hop, span : int
        Step and width of the encoder's frames, in samples.
    frame_length : int, optional
        Samples of the analysis window about each frame's centre, zeros beyond the clip's ends; default: the frame
        itself. For F0 it is always 64 ms, nearly four periods of 60 Hz.
    f0_range : (float, float)
        Hz.

    Returns
    -------
    dict of tensors [frame] or [batch, frame]
        ``rms``, root mean square; ``envelope``, the largest absolute sample; ``zcr``, zero crossings per sample;
        ``centroid``, Hz, NaN where the window is all zeros; ``f0`` (`pitch.f0`), Hz, NaN where unvoiced. All but F0 and
        ZCR are differentiable.

    Raises
    ------
    ValueError
        A clip is shorter than one frame or contains NaN, or a name is unknown.

    Notes
    -----
    Compared with librosa 0.11 on the same windows: RMS and envelope agree within 1e-6 (relative), ZCR exactly, the
    centroid within 0.01 Hz in frames above -60 dBFS. Compared with ``librosa.pyin`` where both say voiced in real
    speech: median difference under 0.5 %, 95 % of frames within 5 %, under 1 % of frames an octave off. F0 of a steady
    sound: median error under 0.2 %.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ValueError(f"unknown features {unknown}: expected some of {list(FEATURES)}")
    samples = _finite(waveform)
    if not samples.is_floating_point():
        samples = samples.float()
    samples = samples.to(torch.promote_types(samples.dtype, torch.float32))

    windows = _windows(samples, frame_length or span, hop, span)
    result = {}
    for name in names:
        if name == "rms":  # the floor keeps the gradient of the root finite at silence
            result[name] = windows.square().mean(-1).clamp_min(torch.finfo(samples.dtype).tiny).sqrt()
        elif name == "envelope":
            result[name] = windows.abs().amax(-1)
        elif name == "zcr":
            result[name] = _zero_crossing_rate(windows)
        elif name == "centroid":
            result[name] = _spectral_centroid(windows, sample_rate)
        else:
            long_windows = _windows(samples.detach(), round(0.064 * sample_rate), hop, span)
            result[name] = pitch.f0(long_windows, sample_rate, f0_range)
    return result


def _zero_crossing_rate(windows) -> torch.Tensor:
    """Compute the zero crossings per sample of windows [..., frame, time]: [..., frame]."""
    is_positive = torch.where(windows.abs() <= 1e-10, 0.0, windows) >= 0  # librosa's threshold
    crossings = is_positive[..., 1:] != is_positive[..., :-1]
    return crossings.sum(-1).to(windows.dtype) / windows.shape[-1]


def _spectral_centroid(windows, sample_rate) -> torch.Tensor:
    """Compute the spectral centroid in Hz of windows [..., frame, time]: [..., frame], NaN where all are zeros."""
    width = windows.shape[-1]
    options = {"dtype": windows.dtype, "device": windows.device}
    spectrum = torch.fft.rfft(windows * torch.hann_window(width, **options)).abs()
    hertz = torch.fft.rfftfreq(width, 1 / sample_rate, **options)
    total = spectrum.sum(-1)
    centroid = (spectrum * hertz).sum(-1) / total.clamp_min(1e-30)
    return torch.where(total > 0, centroid, torch.nan)


def rhythm(envelope: np.ndarray, step: float = HOP / SAMPLE_RATE) -> float:
    """Return the regularity of the beat of an envelope [frame]: its highest autocorrelation peak at lags of 1/8 to 2 s.

    It is 1 if each beat equals the one before, near 0 if nothing recurs, and NaN if half the clip is shorter than
    that. Changes slower than about half a second are removed beforehand, modulations of under 3 % count as none, and
    the square root of the envelope is used, so that one loud burst does not outweigh the others.
    """
    root = np.sqrt(np.asarray(envelope, float))
    modulation = root - ndimage.gaussian_filter1d(root, 0.5 / step)
    lags = range(round(0.125 / step) - 1, min(round(2 / step), len(modulation) // 2) + 2)
    if len(lags) < 5:
        return np.nan
    power_floor = (0.03 * root.mean()) ** 2 + 1e-12
    correlations = []
    for lag in lags:
        early = modulation[:-lag]
        late = modulation[lag:]
        power = np.sqrt((early @ early) * (late @ late)) + len(late) * power_floor
        correlations.append(early @ late / power)
    peaks, _ = signal.find_peaks(correlations)
    return float(max(np.array(correlations)[peaks], default=0.0))
