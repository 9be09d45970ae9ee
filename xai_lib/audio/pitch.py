"""Fundamental frequency of framed sound."""

import math

import torch

RANGE = (60.0, 800.0)
VOICING = 0.4  # depth of d' (0 a perfect tone, 1 noise) up to which a window counts as voiced
CANDIDATES = 8
JUMP, SWITCH, SLOPE = 0.5, 0.14, 0.06  # prices in d': an octave between neighbours, voiced or not, an octave of lag


@torch.no_grad()
def f0(windows, sample_rate, f0_range=RANGE):
    """F0 in Hz of each window [..., frame], NaN where unvoiced: dips of YIN's d', then the cheapest path through them.

    Parameters
    ----------
    windows : tensor [..., frame, time]
        Overlapping windows of a clip, each at least twice the longest period.

    References
    ----------
    de Cheveigné and Kawahara (2002), YIN, a fundamental frequency estimator, JASA 111(4). Boersma (1993), Accurate
    short-term analysis of the fundamental frequency, IFA Proceedings 17 (the path).
    """
    length = windows.shape[-1]
    low, high = max(int(sample_rate / f0_range[1]), 2), math.ceil(sample_rate / f0_range[0])
    if high > length // 2:
        raise ValueError(f"{f0_range[0]} Hz needs windows of {2 * high} samples or more: raise f0_range[0]")
    frames = windows.reshape(-1, *windows.shape[-2:]).double()  # d' is a difference of large sums
    lags = torch.arange(high + 2, device=frames.device)
    summed = torch.nn.functional.pad(frames.square().cumsum(-1), (1, 0))
    kept = length - (high + 1)  # samples compared, the same for all lags
    head = torch.fft.rfft(frames[..., :kept], 2 * length)
    cross = torch.fft.irfft(head.conj() * torch.fft.rfft(frames, 2 * length))[..., : high + 2]
    energy = summed[..., lags + kept] - summed[..., lags]
    difference = (energy[..., :1] + energy - 2 * cross).clamp_min(0)
    mean = difference.cumsum(-1) / lags.clamp_min(1)
    d = torch.where(mean > 1e-12, difference / mean.clamp_min(1e-12), 1.0)
    d[..., 0] = 1.0

    left, centre, right = d[..., low - 1 : high], d[..., low : high + 1], d[..., low + 1 : high + 2]
    dip = (centre <= left) & (centre < right)
    bend = (left + right - 2 * centre).clamp_min(1e-12)
    shift = ((left - right) / (2 * bend)).clamp(-0.5, 0.5)
    depth = centre - (left - right).square() / (8 * bend)
    tau = lags[low : high + 1] + shift
    # A dip repeats at every multiple of the period: a small price on long lags makes the first of equals win.
    cost = torch.where(dip, depth.clamp_min(0) + SLOPE * torch.log2(tau / low), torch.inf)
    cost, which = cost.topk(min(CANDIDATES, cost.shape[-1]), largest=False)
    pitch = torch.log2(sample_rate / tau.gather(-1, which))
    level = summed[..., -1]
    silent = level <= level.amax(-1, keepdim=True) * 10**-4.5  # 45 dB under the loudest window
    cost = torch.where(silent[..., None], torch.inf, cost)
    free = VOICING + SLOPE * math.log2(sample_rate / 200 / low)  # a voiced frame at 200 Hz pays as much at the limit
    cost = torch.cat([cost, torch.full_like(cost[..., :1], free)], -1)  # last state: unvoiced

    total, back = cost[:, 0], []
    for t in range(1, cost.shape[1]):
        step = JUMP * (pitch[:, t - 1, :, None] - pitch[:, t, None, :]).abs()
        step = torch.nn.functional.pad(step, (0, 1, 0, 1), value=SWITCH)
        step[:, -1, -1] = 0
        best, origin = (total[..., None] + step).min(1)
        total = best + cost[:, t]
        back.append(origin)
    state = [total.argmin(-1)]
    for origin in reversed(back):
        state.append(origin.gather(-1, state[-1][:, None])[:, 0])
    state = torch.stack(state[::-1], 1)[..., None]
    path = torch.cat([2**pitch, torch.full_like(pitch[..., :1], torch.nan)], -1).gather(-1, state)[..., 0]
    return path.reshape(windows.shape[:-1]).to(windows.dtype)
