"""Who teaches the bundled WavLM: ridge regression on random convolutions of speech, a listener without training.

With a thousand recordings a network that learns its own features learns the speakers; thousands of fixed random features
and a ridge on top do not. So the network is shown, frame by frame, what such a regression makes of a clip. Whom a
teacher has heard he judges too well: every training actor is judged by teachers who have not heard that actor.

References
----------
Dempster, Petitjean and Webb (2020), ROCKET: exceptionally fast and accurate time series classification using random
convolutional kernels, Data Min Knowl Discov 34. Hinton, Vinyals and Dean (2015), Distilling the knowledge in a neural
network, arXiv:1503.02531.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import joblib
import librosa
import numpy as np
import pandas as pd
import torch
from pocket_speech import write
from pocket_wavlm_settings import HOP, RATE, SPAN, TEACHER
from scipy.fft import dct
from threadpoolctl import threadpool_limits
from tqdm.auto import tqdm

from xai_lib import corpora

_MEL = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=40, fmin=60, fmax=7600, norm=None)


def inputs(wave: np.ndarray, f0: np.ndarray) -> np.ndarray:
    """[frame, 36]: every other log-mel band, 13 cepstral coefficients, level, whether voiced, log F0 (bridged)."""
    power = np.abs(librosa.stft(wave, n_fft=512, hop_length=HOP, win_length=SPAN, center=False)) ** 2
    bands = np.log10(_MEL @ power + 1e-6).T
    f0 = np.pad(f0.astype(float), (0, max(0, len(bands) - len(f0))))[: len(bands)]
    voiced, pitch = f0 > 0, np.zeros(len(bands))
    if voiced.sum() > 2:
        pitch = np.interp(np.arange(len(f0)), np.flatnonzero(voiced), np.log2(f0[voiced] / 180))
    cepstrum = dct(bands, norm="ortho")[:, 1:14]
    return np.c_[bands[:, ::2], cepstrum, bands.mean(axis=1), voiced, pitch].astype(np.float32)


def bank(seed: int, width: int = 36) -> list[tuple]:
    """Random kernels: (dilation, weights [kernel, input, tap], bias [kernel]) for each dilation."""
    rng, count, taps = np.random.default_rng([9, seed]), TEACHER["kernels"], TEACHER["taps"]
    found = []
    for dilation in TEACHER["dilations"]:
        weights = np.zeros((count, width, taps), np.float32)
        for kernel in weights:
            heard = rng.choice(width, int(2 ** rng.uniform(0, np.log2(TEACHER["inputs"]))), replace=False)
            drawn = rng.normal(size=(len(heard), taps))
            drawn -= drawn.mean(axis=1, keepdims=True) * (rng.random() < TEACHER["balanced"])
            kernel[heard] = drawn / np.sqrt(drawn.size)
        bias = torch.from_numpy(rng.normal(size=count).astype(np.float32) * TEACHER["bias"])
        found.append((dilation, torch.from_numpy(weights), bias))
    return found


@torch.inference_mode()
def responses(x: np.ndarray, kernels: list[tuple]) -> torch.Tensor:
    """[frame, feature] in 0 to 1; a clip's features are their mean over frames."""
    x = torch.from_numpy(np.ascontiguousarray(x.T))[None]
    convolve, reach = torch.nn.functional.conv1d, TEACHER["taps"] // 2
    heard = [convolve(x, weights, bias, padding=reach * d, dilation=d)[0] for d, weights, bias in kernels]
    return torch.sigmoid(TEACHER["slope"] * torch.cat(heard)).T


def ridge(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights [feature, emotion] and constant [emotion]; targets 1 and −1, every emotion of equal weight."""
    mean, deviation = features.mean(axis=0), features.std(axis=0) + 1e-6
    x, y = (features - mean) / deviation, 2.0 * np.eye(len(corpora.EMOTIONS))[labels] - 1
    weight = (1 / np.bincount(labels))[labels][:, None]
    weight *= len(labels) / weight.sum()
    middle = (y * weight).sum(axis=0) / weight.sum()
    gram = x.T @ (x * weight) + TEACHER["ridge"] * np.eye(x.shape[1])
    slope = np.linalg.solve(gram, x.T @ ((y - middle) * weight)) / deviation[:, None]
    return slope.astype(np.float32), (middle - mean @ slope).astype(np.float32)


def _inputs_of(rows: list[dict], folder: Path) -> list[np.ndarray]:
    waves, f0 = (np.load(folder / name, mmap_mode="r") for name in ("waves.npy", "f0.npy"))
    found = []
    for row in rows:
        first = max(0, row["first"] - HOP)
        wave = waves[row["start"] + first : row["start"] + row["last"]].astype(np.float32) / 32767 * row["gain"]
        at = row["f0_start"] + first // HOP
        found.append(inputs(np.pad(wave, (0, max(0, 512 - len(wave)))), f0[at : at + len(wave) // HOP + 1]))
    return found


def _means(chunk: list[np.ndarray], kernels: list) -> list[np.ndarray]:
    torch.set_num_threads(1)
    return [np.stack([responses(x, one).mean(dim=0).numpy() for one in kernels]) for x in chunk]


def _judge(chunk: list[np.ndarray], teachers: list, kernels: list) -> list[np.ndarray]:
    """Scores [frame, emotion] of clips, each by its own teachers; they average to the clip's."""
    torch.set_num_threads(1)
    found = []
    for x, banks in zip(chunk, teachers):
        scores = [responses(x, one).numpy() @ slope + constant for one, (slope, constant) in zip(kernels, banks)]
        found.append(np.mean(scores, axis=0).astype(np.float16))
    return found


def teach(table: pd.DataFrame, folder: Path, *, jobs: int = -1) -> pd.DataFrame:
    """Let the teachers judge all recordings and altered recordings; writes `scores.npy` and `taught.pkl` to `folder`.

    Returns
    -------
    DataFrame
        `table` with `score_start`, `score_length` (frames of `scores.npy`, −1 and 0 where nobody was asked) and
        `score_first`, the sample at which they begin.
    """
    code = hashlib.sha256(Path(__file__).read_bytes()).hexdigest()[:16]
    done, made = folder / "taught.pkl", json.dumps({"teachers": TEACHER, "code": code, "speech": table.attrs["made"]})
    if done.exists():
        taught = pd.read_pickle(done)
        if taught.attrs["made"] != made:
            raise ValueError(f"{done} is of other teachers, or of other speech: move it away")
        return taught
    asked = table[table["source"].isin(["ravdess", "librispeech"])]
    rows = asked[["start", "first", "last", "gain", "f0_start"]].to_dict("records")
    parallel = joblib.Parallel(jobs, return_as="generator")
    kernels = [bank(seed) for seed in range(TEACHER["banks"])]
    pieces = [slice(i, i + 200) for i in range(0, len(rows), 200)]

    def over(call, *lists, name: str, **fixed) -> list:
        calls = (joblib.delayed(call)(*(one[piece] for one in lists), **fixed) for piece in pieces)
        return [found for part in tqdm(parallel(calls), name, len(pieces)) for found in part]

    actor = asked["actor"].fillna(0).to_numpy().astype(int)
    heard = over(_inputs_of, rows, name="log-mel and F0", folder=folder)
    some = np.concatenate([x for x, number in zip(heard[::9], actor[::9]) if number <= 16])
    heard = [(x - some.mean(axis=0)) / some.std(axis=0) for x in heard]
    features = np.stack(over(_means, heard, name="random convolutions", kernels=kernels), axis=1)  # [bank, clip, …]
    labels = np.array([corpora.EMOTIONS.index(label) if isinstance(label, str) else -1 for label in asked["label"]])
    training = (asked["source"] == "ravdess").to_numpy() & (actor <= 16)
    fold = np.where(training, (actor - 1) % TEACHER["folds"], TEACHER["folds"])  # the last: whom nobody has heard
    teachers = []
    for k in tqdm(range(TEACHER["folds"] + 1), desc="teachers"):
        heard_by = training & (fold != k)
        with threadpool_limits(1):  # sums depend on how many threads share them
            teachers.append([ridge(x[heard_by], labels[heard_by]) for x in features])
    scores = over(_judge, heard, [teachers[k] for k in fold], name="judging", kernels=kernels)
    taught = table.assign(score_start=-1, score_length=0, score_first=0)
    lengths = np.array([len(x) for x in scores])
    taught.loc[asked.index, "score_length"] = lengths
    taught.loc[asked.index, "score_start"] = lengths.cumsum() - lengths
    taught.loc[asked.index, "score_first"] = np.maximum(0, asked["first"] - HOP)
    said = np.stack([x.astype(np.float32).mean(axis=0) for x in scores]).argmax(axis=1)
    taught.attrs["made"] = made
    taught.attrs["uar"] = {
        name: float(np.mean([(said[counted & (labels == k)] == k).mean() for k in range(8)]))
        for name, counted in (("training", training & (asked["variant"] == 0).to_numpy()), ("choosing", (actor > 16)))
    }
    write(folder / "scores.npy", np.save, np.concatenate(scores))
    write(done, lambda file: taught.to_pickle(file))
    return taught
