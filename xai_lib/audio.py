"""Sound files to waveforms, where the speech is, and acoustic features per encoder frame.

Every frame here is a frame of the encoders: with the defaults, frame i is the samples 320 i to 320 i + 399 at
16 kHz (25 ms every 20 ms), so row i of a feature and frame i of a WavLM layer describe the same moment.
"""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pandas as pd
import soundfile
import soxr
import torch
from scipy import ndimage, signal
from tqdm.auto import tqdm

from . import pitch

SAMPLE_RATE = 16000
HOP, SPAN = 320, 400  # step and width of an encoder frame, in samples
FEATURES = ("rms", "envelope", "zcr", "centroid", "f0")
SUFFIXES = (".wav", ".flac", ".ogg", ".oga", ".opus", ".mp3", ".aif", ".aiff", ".au", ".w64", ".caf")


class BadClip(ValueError):
    """A clip that cannot be used; the message names the file and says why."""


def read(path, sample_rate=SAMPLE_RATE) -> np.ndarray:
    """Read a sound file as mono float32 at `sample_rate`.

    Any format of libsndfile (wav, flac, ogg, opus, mp3, aiff, ...), rate, sample width and channel count:
    channels are averaged, and the rate is changed with soxr's HQ filter (what librosa calls ``soxr_hq``).

    Returns
    -------
    array of shape [time], float32; full scale is 1.

    Raises
    ------
    BadClip
        The file is missing, unreadable or empty, or holds NaN or infinite samples.
    """
    path = Path(path)
    if not path.is_file():
        raise BadClip(f"{path}: {'is a folder, not a sound file' if path.is_dir() else 'no such file'}")
    if path.stat().st_size == 0:
        raise BadClip(f"{path}: empty, 0 bytes")
    try:
        samples, rate = soundfile.read(path, dtype="float32", always_2d=True)
    except soundfile.LibsndfileError as error:
        raise BadClip(
            f"{path}: cannot be read as sound ({error.error_string.rstrip('.')}); "
            "wav, flac, ogg and mp3 can, so convert it to one of those"
        ) from error
    if len(samples) == 0:
        raise BadClip(f"{path}: empty, it holds no samples")
    bad = int((~np.isfinite(samples)).any(axis=1).sum())
    if bad:
        raise BadClip(f"{path}: {bad} of {len(samples)} samples are NaN or infinite")
    waveform = samples.mean(axis=1)
    if rate != sample_rate:
        waveform = soxr.resample(waveform, rate, sample_rate, quality="HQ")
    if len(waveform) == 0:
        raise BadClip(f"{path}: empty, its {len(samples)} samples are none at {sample_rate} Hz")
    return np.ascontiguousarray(waveform, dtype=np.float32)


def stream(clips, sample_rate=SAMPLE_RATE, *, shortest=SPAN, skipped=None):
    """Read the clips of a corpus one by one, with a progress bar.

    Parameters
    ----------
    clips : DataFrame
        Needs the column `path`.
    shortest : int
        Clips of fewer samples, at `sample_rate`, are refused: 400 is one encoder frame.
    skipped : dict, optional
        Takes {index: reason} for each clip that is unreadable, empty, too short, constant (digital silence)
        or holds NaN; a warning counts them at the end. Without it the first such clip raises.

    Yields
    ------
    (index, waveform) : index of the clip in `clips`, float32 array [time].

    Raises
    ------
    BadClip
        No `skipped` was given and a clip is bad.
    ValueError
        `clips` has no rows, or not one of them could be used.
    """
    if len(clips) == 0:
        raise ValueError("there are no clips to read: the selection is empty")
    bad = {}
    for index, path in tqdm(clips["path"].items(), total=len(clips), unit="clip", leave=False, delay=2):
        try:
            waveform = read(path, sample_rate)
            if len(waveform) < shortest:
                raise BadClip(
                    f"{path}: {len(waveform)} samples at {sample_rate} Hz, shorter than the {shortest} needed"
                )
            if np.ptp(waveform) == 0:
                raise BadClip(f"{path}: silent, all samples are {waveform[0]:g}")
        except BadClip as error:
            if skipped is None:
                raise
            bad[index] = skipped[index] = str(error)
            continue
        yield index, waveform
    if bad:
        message = f"{len(bad)} of {len(clips)} clips were skipped, e.g. {next(iter(bad.values()))}"
        if len(bad) == len(clips):
            raise ValueError(f"not one clip could be used: {message}")
        warnings.warn(message, stacklevel=2)


def n_frames(n_samples, *, hop=HOP, span=SPAN) -> int:
    """Number of encoder frames in `n_samples`; raises ValueError when not even one fits."""
    if n_samples < span:
        raise ValueError(f"{n_samples} samples are shorter than one frame of {span}: use a longer clip")
    return (n_samples - span) // hop + 1


def frame_times(n, sample_rate=SAMPLE_RATE, *, hop=HOP, span=SPAN) -> np.ndarray:
    """Centres of frames 0 to n - 1, in seconds."""
    return (np.arange(n) * hop + span / 2) / sample_rate


def _windows(x, width, hop, span):
    """Windows of `width` samples about each frame's centre, zeros beyond the clip: [..., frame, width]."""
    count = n_frames(x.shape[-1], hop=hop, span=span)
    left = (width - span) // 2
    right = max((count - 1) * hop + span + width - span - left - x.shape[-1], 0)
    x = torch.nn.functional.pad(x, (max(left, 0), right))[..., max(-left, 0) :]
    return x.unfold(-1, width, hop)[..., :count, :]


def speech_mask(
    waveform, sample_rate=SAMPLE_RATE, *, range_db=30.0, silence_db=-70.0, hop=None, span=None
) -> np.ndarray:
    """Which frames hold speech.

    A frame is speech if its level is within `range_db` of the clip's loud frames (95th percentile) and stands
    at least 10 dB above the clip's quietest tenth, where the clip has quiet frames at all. Gaps up to 160 ms
    inside (closures of stops) are filled, and islands of less than 60 ms (clicks) dropped. A clip whose
    loudest frame is under `silence_db` dBFS, digital silence included, is False throughout.

    Parameters
    ----------
    waveform : array or tensor [..., time]
    hop, span : int, optional
        Frame step and width in samples; 20 ms and 25 ms of `sample_rate` unless told, the grid of the
        encoders.

    Returns
    -------
    bool array [..., frame]

    Raises
    ------
    ValueError
        The clip is shorter than one frame or holds NaN.
    """
    hop, span = hop or round(HOP / SAMPLE_RATE * sample_rate), span or round(SPAN / SAMPLE_RATE * sample_rate)
    x = torch.as_tensor(waveform).detach().cpu().float()
    if not torch.isfinite(x).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    level = 10 * (_windows(x, span, hop, span).square().mean(-1) + 1e-12).log10().numpy()
    loud, quiet = np.percentile(level, [95, 10], axis=-1, keepdims=True)
    speech = level > np.maximum(loud - range_db, np.minimum(quiet + 10, loud - 15))
    seconds = hop / sample_rate
    ones = (1,) * (level.ndim - 1)
    gap = np.ones((*ones, max(round(0.16 / seconds), 1) + 1), bool)
    island = np.ones((*ones, max(round(0.06 / seconds), 1)), bool)
    edge = gap.shape[-1]
    padded = np.pad(speech, [(0, 0)] * (level.ndim - 1) + [(edge, edge)])  # erosion eats ends
    padded = ndimage.binary_closing(ndimage.binary_opening(padded, island), gap)
    return padded[..., edge:-edge] & (level.max(axis=-1, keepdims=True) > silence_db)


def features(
    waveform,
    sample_rate=SAMPLE_RATE,
    *,
    names=FEATURES,
    hop=HOP,
    span=SPAN,
    frame_length=None,
    f0_length=None,
    f0_range=pitch.RANGE,
    voicing=0.4,
) -> dict[str, torch.Tensor]:
    """Acoustic features of each encoder frame, on the tensor's device.

    Parameters
    ----------
    waveform : tensor [time] or [batch, time]
        Clips of a batch are of equal length: padding is not told from silence.
    names : sequence of str
        Some of "rms", "envelope", "zcr", "centroid", "f0".
    hop, span : int
        Step and width of the encoder's frames, in samples.
    frame_length : int, optional
        Analysis window about each frame's centre, zeros beyond the clip's ends; the frame itself unless told.
    f0_length : int, optional
        The same for F0, where the frame is too short: 64 ms unless told, nearly four periods of 60 Hz.
    voicing : float
        Greatest aperiodicity (0 a perfect tone, 1 noise) that counts as voiced.

    Returns
    -------
    dict of tensors [frame] or [batch, frame]
        ``rms``, root mean square; ``envelope``, the largest absolute sample; ``zcr``, zero crossings per
        sample; ``centroid``, Hz, NaN where the window is all zeros; ``f0``, Hz, NaN where unvoiced. All but
        F0 and ZCR are differentiable.

    Raises
    ------
    ValueError
        A clip is shorter than one frame, holds NaN, or a name is unknown.

    Notes
    -----
    Against librosa 0.11 on the same windows: RMS and envelope agree within 1e-6 (relative), ZCR exactly, the
    centroid within 0.01 Hz in frames above -60 dBFS. Against ``librosa.pyin`` where both say voiced in real
    speech: median difference under 0.5 %, 95 % of frames within 5 %, under 1 % of frames an octave off. F0 of a
    steady sound: median error under 0.2 %.

    References
    ----------
    F0 candidates: de Cheveigné and Kawahara (2002), YIN, JASA 111(4). Path through them: Boersma (1993),
    Accurate short-term analysis of the fundamental frequency, IFA Proceedings 17.
    """
    unknown = [name for name in names if name not in FEATURES]
    if unknown:
        raise ValueError(f"unknown features {unknown}: known are {list(FEATURES)}")
    x = torch.as_tensor(waveform)
    x = (x if x.is_floating_point() else x.float()).to(torch.promote_types(x.dtype, torch.float32))
    if not torch.isfinite(x).all():
        raise ValueError("the waveform holds NaN or infinite samples")
    width = frame_length or span
    windows = _windows(x, width, hop, span)
    result = {}
    for name in names:
        if name == "rms":  # the floor keeps the gradient of the root finite at silence
            result[name] = windows.square().mean(-1).clamp_min(torch.finfo(x.dtype).tiny).sqrt()
        elif name == "envelope":
            result[name] = windows.abs().amax(-1)
        elif name == "zcr":
            positive = torch.where(windows.abs() <= 1e-10, 0.0, windows) >= 0  # librosa's threshold
            result[name] = (positive[..., 1:] != positive[..., :-1]).sum(-1).to(x.dtype) / width
        elif name == "centroid":
            hann = torch.hann_window(width, dtype=x.dtype, device=x.device)
            spectrum = torch.fft.rfft(windows * hann).abs()
            hertz = torch.fft.rfftfreq(width, 1 / sample_rate, device=x.device, dtype=x.dtype)
            total = spectrum.sum(-1)
            centroid = (spectrum * hertz).sum(-1) / total.clamp_min(1e-30)
            result[name] = torch.where(total > 0, centroid, torch.nan)
        else:
            long = _windows(x.detach(), f0_length or round(0.064 * sample_rate), hop, span)
            result[name] = pitch.f0(long, sample_rate, f0_range, voicing)
    return result


def features_table(clips, sample_rate=SAMPLE_RATE, *, device="cpu", skipped=None) -> pd.DataFrame:
    """One row of acoustic numbers per clip, over its speech frames.

    Returns
    -------
    DataFrame indexed like `clips`, without those that went to `skipped` (see `stream`)
        ``level_db`` (dBFS of the mean power), ``f0`` (median, Hz), ``f0_range`` (5th to 95th percentile,
        semitones), ``centroid`` (median, Hz), ``zcr`` (median, crossings per second), ``speech_seconds``, and
        ``rate`` (syllables per second of speech: peaks of the level that stand out by 2 dB, after de Jong and
        Wempe 2009).
    """
    rows = {}
    for index, waveform in stream(clips, sample_rate, skipped=skipped):
        hop, span = round(HOP / SAMPLE_RATE * sample_rate), round(SPAN / SAMPLE_RATE * sample_rate)
        speech = speech_mask(waveform, sample_rate, hop=hop, span=span)
        values = features(torch.as_tensor(waveform, device=device), sample_rate, hop=hop, span=span)
        values = {name: value.cpu().numpy().astype(float) for name, value in values.items()}
        if not speech.any():
            rows[index] = {"speech_seconds": 0.0}
            continue
        level = 20 * np.log10(values["rms"] + 1e-6)
        peaks = signal.find_peaks(ndimage.gaussian_filter1d(level, 1.5), prominence=2)[0]
        f0 = values["f0"][speech & np.isfinite(values["f0"])]
        seconds = speech.sum() * hop / sample_rate
        rows[index] = {
            "level_db": 10 * np.log10(np.mean(values["rms"][speech] ** 2)),
            "f0": np.median(f0) if len(f0) else np.nan,
            "f0_range": 12 * np.log2(np.divide(*np.percentile(f0, [95, 5]))) if len(f0) else np.nan,
            "centroid": np.nanmedian(values["centroid"][speech]),
            "zcr": np.median(values["zcr"][speech]) * sample_rate,
            "speech_seconds": seconds,
            "rate": speech[peaks].sum() / seconds,
        }
    columns = ["level_db", "f0", "f0_range", "centroid", "zcr", "speech_seconds", "rate"]
    return pd.DataFrame.from_dict(rows, orient="index", columns=columns).rename_axis(clips.index.name)
