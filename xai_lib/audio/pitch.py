"""Fundamental frequency (F0) of framed sound."""

import math

import torch

RANGE = (60.0, 800.0)
VOICING = 0.4  # depth of d' (0 a perfect tone, 1 noise) up to which a window counts as voiced
CANDIDATES = 8  # dips per window that the path can take
JUMP, SWITCH, SLOPE = 0.5, 0.14, 0.06  # costs in d': a jump by an octave, a change of voicing, an octave of lag


@torch.no_grad()
def f0(windows, sample_rate, f0_range=RANGE):
    """Estimate F0 in Hz of each window [..., frame], NaN where unvoiced: the cheapest path through dips of YIN's d'.

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
        raise ValueError(f"an F0 of {f0_range[0]} Hz needs windows of {2 * high} samples or more: raise f0_range[0]")
    frames = windows.reshape(-1, *windows.shape[-2:]).double()  # d' is a difference of large sums
    lags = torch.arange(high + 2, device=frames.device)
    cumulative_energy = torch.nn.functional.pad(frames.square().cumsum(-1), (1, 0))
    n_compared = length - (high + 1)  # samples, the same for all lags
    spectrum = torch.fft.rfft(frames[..., :n_compared], 2 * length)
    cross = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(frames, 2 * length))[..., : high + 2]
    energy = cumulative_energy[..., lags + n_compared] - cumulative_energy[..., lags]
    difference = (energy[..., :1] + energy - 2 * cross).clamp_min(0)
    mean = difference.cumsum(-1) / lags.clamp_min(1)
    d_prime = torch.where(mean > 1e-12, difference / mean.clamp_min(1e-12), 1.0)
    d_prime[..., 0] = 1.0

    before, centre, after = (
        d_prime[..., low - 1 : high],
        d_prime[..., low : high + 1],
        d_prime[..., low + 1 : high + 2],
    )
    dip = (centre <= before) & (centre < after)
    bend = (before + after - 2 * centre).clamp_min(1e-12)
    shift = ((before - after) / (2 * bend)).clamp(-0.5, 0.5)
    depth = centre - (before - after).square() / (8 * bend)
    tau = lags[low : high + 1] + shift
    # A dip repeats at every multiple of the period: a small cost of long lags makes the first of equal dips win.
    cost = torch.where(dip, depth.clamp_min(0) + SLOPE * torch.log2(tau / low), torch.inf)
    cost, candidates = cost.topk(min(CANDIDATES, cost.shape[-1]), largest=False)
    pitch = torch.log2(sample_rate / tau.gather(-1, candidates))
    level = cumulative_energy[..., -1]
    silent = level <= level.amax(-1, keepdim=True) * 10**-4.5  # 45 dB below the loudest window
    cost = torch.where(silent[..., None], torch.inf, cost)
    unvoiced_cost = VOICING + SLOPE * math.log2(sample_rate / 200 / low)  # as of 200 Hz at the voicing limit
    cost = torch.cat([cost, torch.full_like(cost[..., :1], unvoiced_cost)], -1)  # last state: unvoiced

    total, backpointers = cost[:, 0], []
    for frame in range(1, cost.shape[1]):
        step = JUMP * (pitch[:, frame - 1, :, None] - pitch[:, frame, None, :]).abs()
        step = torch.nn.functional.pad(step, (0, 1, 0, 1), value=SWITCH)
        step[:, -1, -1] = 0
        best, origin = (total[..., None] + step).min(1)
        total = best + cost[:, frame]
        backpointers.append(origin)
    states = [total.argmin(-1)]
    for origin in reversed(backpointers):
        states.append(origin.gather(-1, states[-1][:, None])[:, 0])
    states = torch.stack(states[::-1], 1)[..., None]
    path = torch.cat([2**pitch, torch.full_like(pitch[..., :1], torch.nan)], -1).gather(-1, states)[..., 0]
    return path.reshape(windows.shape[:-1]).to(windows.dtype)
