"""Fundamental frequency (F0) of framed sound."""

from __future__ import annotations

import math

import torch

RANGE = (60.0, 800.0)
VOICING = 0.4  # depth of d' (0 a perfect tone, 1 noise) up to which a window counts as voiced
CANDIDATES = 8  # dips per window that the path can take
JUMP = 0.5  # cost, in d', of a jump by an octave
SWITCH = 0.14  # of a change of voicing
SLOPE = 0.06  # of an octave of lag


@torch.no_grad()
def f0(windows: torch.Tensor, sample_rate: int, f0_range: tuple[float, float] = RANGE) -> torch.Tensor:
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
    shortest = max(int(sample_rate / f0_range[1]), 2)
    longest = math.ceil(sample_rate / f0_range[0])
    if longest > windows.shape[-1] // 2:
        raise ValueError(f"an F0 of {f0_range[0]} Hz needs windows of {2 * longest} samples or more: raise f0_range[0]")
    frames = windows.reshape(-1, *windows.shape[-2:]).double()  # d' is a difference of large sums

    d_prime = _normalised_difference(frames, longest + 2)
    cost, period = _dips(d_prime, shortest, longest)
    pitch = torch.log2(sample_rate / period)

    energy = frames.square().cumsum(-1)[..., -1]
    is_silent = energy <= energy.amax(-1, keepdim=True) * 10**-4.5  # 45 dB below the loudest window
    cost = torch.where(is_silent[..., None], torch.inf, cost)
    unvoiced_cost = VOICING + SLOPE * math.log2(sample_rate / 200 / shortest)  # as of 200 Hz at the voicing limit
    cost = torch.cat([cost, torch.full_like(cost[..., :1], unvoiced_cost)], -1)  # last state: unvoiced

    states = _cheapest_path(cost, pitch)[..., None]
    hertz = torch.cat([2**pitch, torch.full_like(pitch[..., :1], torch.nan)], -1)
    return hertz.gather(-1, states)[..., 0].reshape(windows.shape[:-1]).to(windows.dtype)


def _normalised_difference(frames, n_lags) -> torch.Tensor:
    """Compute YIN's d' at the lags 0 to `n_lags` − 1, [clip, frame, lag], from windows [clip, frame, time]."""
    length = frames.shape[-1]
    lags = torch.arange(n_lags, device=frames.device)
    n_compared = length - (n_lags - 1)  # samples, the same for all lags

    spectrum = torch.fft.rfft(frames[..., :n_compared], 2 * length)
    cross = torch.fft.irfft(spectrum.conj() * torch.fft.rfft(frames, 2 * length))[..., :n_lags]
    cumulative_energy = torch.nn.functional.pad(frames.square().cumsum(-1), (1, 0))
    energy = cumulative_energy[..., lags + n_compared] - cumulative_energy[..., lags]
    difference = (energy[..., :1] + energy - 2 * cross).clamp_min(0)

    mean = difference.cumsum(-1) / lags.clamp_min(1)
    d_prime = torch.where(mean > 1e-12, difference / mean.clamp_min(1e-12), 1.0)
    d_prime[..., 0] = 1.0
    return d_prime


def _dips(d_prime, shortest, longest) -> tuple[torch.Tensor, torch.Tensor]:
    """Find the deepest dips of d' at lags from `shortest` to `longest`: cost and period, [clip, frame, candidate].

    The period, in samples, is that of the parabola through a dip and its neighbours. Where a window has fewer dips, the
    cost of the others is infinite.
    """
    before = d_prime[..., shortest - 1 : longest]
    centre = d_prime[..., shortest : longest + 1]
    after = d_prime[..., shortest + 1 : longest + 2]
    is_dip = (centre <= before) & (centre < after)

    bend = (before + after - 2 * centre).clamp_min(1e-12)
    shift = ((before - after) / (2 * bend)).clamp(-0.5, 0.5)
    depth = centre - (before - after).square() / (8 * bend)
    period = torch.arange(shortest, longest + 1, device=d_prime.device) + shift

    # A dip repeats at every multiple of the period: a small cost of long lags makes the first of equal dips win.
    cost = torch.where(is_dip, depth.clamp_min(0) + SLOPE * torch.log2(period / shortest), torch.inf)
    cost, candidates = cost.topk(min(CANDIDATES, cost.shape[-1]), largest=False)
    return cost, period.gather(-1, candidates)


def _cheapest_path(cost, pitch) -> torch.Tensor:
    """Find the cheapest path through the states of all frames, [clip, frame], by the Viterbi algorithm.

    The cost [clip, frame, state] is that of a state itself; the last state is unvoiced, the others have a `pitch`
    [clip, frame, state] in octaves. Steps between frames cost by their jump of pitch, or the change of voicing.
    """
    total = cost[:, 0]
    backpointers = []
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
    return torch.stack(states[::-1], 1)
