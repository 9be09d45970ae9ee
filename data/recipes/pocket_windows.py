"""Batches of speech for the bundled WavLM: windows of the prepared clips, never twice the same."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import prosody
import torch
from pocket_wavlm_settings import AS_RECORDED, AUGMENT, HOP, RATE, SECONDS, SPAN

from xai_lib import audio, corpora


class Speech:
    """The prepared clips, and batches of them."""

    def __init__(self, table: pd.DataFrame, folder: Path):
        files = {name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in ("waves", "f0", "scores")}
        self.waves, self.f0, self.scores = files["waves"], files["f0"], files["scores"]
        heard = table[(table["source"] != "ravdess") | (table["actor"] <= 16)].reset_index(drop=True)
        factors = heard[list(prosody.FACTORS)]
        self.factors = ((factors - factors.mean()) / factors.std().clip(1e-6)).to_numpy(np.float32)
        emotions = {name: number for number, name in enumerate(corpora.EMOTIONS)}
        self.labels = heard["label"].map(emotions).fillna(-1).to_numpy(int)
        self.rows = heard.to_dict("records")
        source = heard["source"].replace({"sample": "synthetic"})
        self.pools = {name: np.flatnonzero(source == name) for name in ("synthetic", "librispeech")}
        real = (source == "ravdess").to_numpy()
        self.pools["ravdess"] = [
            np.flatnonzero(real & (heard["variant"] == 0)),
            np.flatnonzero(real & (heard["variant"] > 0)),
        ]

    def batches(self, plan: dict, processes: int, rng: np.random.Generator):
        """The batches of an epoch: what `loss` takes."""
        for _ in range(plan["steps"]):
            length, rows = int(RATE * rng.choice(SECONDS)), []
            for source, count in plan["batch"].items():
                for _ in range(count // processes):
                    pool = self.pools[source]
                    pool = pool[int(rng.random() >= AS_RECORDED)] if source == "ravdess" else pool
                    rows.append(pool[rng.integers(len(pool))])
            windows = [self.window(self.rows[row], length, rng) for row in rows]
            names = ("x", "clean", "f0", "scores")
            batch = {name: torch.from_numpy(np.stack(found)) for name, found in zip(names, zip(*windows))}
            weight = [
                plan["label_weight"][source] for source, n in plan["batch"].items() for _ in range(n // processes)
            ]
            batch["label"] = torch.from_numpy(self.labels[rows])
            batch["weight"] = torch.tensor(weight) * torch.where(batch["label"] == 0, 2.0, 1.0)  # half as many clips
            batch["factors"] = torch.from_numpy(self.factors[rows])
            yield batch

    def window(self, row: dict, length: int, rng: np.random.Generator) -> tuple:
        """An augmented window of `length` samples that holds the speech, or as much of it as fits.

        Returns the samples, the same without room and noise, F0 (Hz, 0 unvoiced) and the teachers' scores by frame.
        """
        speed = 1 + AUGMENT["speed"] * rng.uniform(-1, 1)
        need = int(length * speed) + 1
        low, high = sorted((row["last"] - need, row["first"]))
        begin = int(rng.integers(low - RATE // 10, high + RATE // 10 + 1))
        whole = self.waves[row["start"] : row["start"] + row["length"]]
        part = whole[max(0, begin) : max(0, begin + need)].astype(np.float32) / 32767
        edge = whole[: RATE // 10].astype(np.float32) / 32767  # silence as it was where the clip was recorded
        before = max(0, -begin)
        after = max(0, need - before - len(part))
        edge = np.r_[edge, edge[::-1]]
        part = np.r_[np.resize(edge, before), part, np.resize(edge, after)][:need]
        judged = row["score_length"] > 0
        gain = row["gain"] * 10 ** (rng.normal(0, AUGMENT["judged_gain_db" if judged else "gain_db"]) / 20)
        clean = (np.interp(np.arange(length) * speed, np.arange(need), part) * gain).astype(np.float32)
        at = np.arange((length - SPAN) // HOP + 1) * HOP * speed + begin  # where frames begin in the clip
        f0 = self._frames(self.f0, row["f0_start"], audio.n_frames(row["length"]), at + SPAN * (speed - 1) / 2) * speed
        scores = np.full((len(at), len(corpora.EMOTIONS)), np.nan, np.float32)
        if judged:
            scores = self._frames(self.scores, row["score_start"], row["score_length"], at - row["score_first"])
        return self._dirty(clean, rng), clean, f0, scores

    @staticmethod
    def _frames(values: np.ndarray, start: int, count: int, at: np.ndarray) -> np.ndarray:
        """The frames nearest to samples `at` of a clip, 0 outside."""
        frame = np.round(at / HOP).astype(int)
        found = np.asarray(values[start + frame.clip(0, count - 1)], np.float32)
        found[(frame < 0) | (frame >= count)] = 0
        return found

    @staticmethod
    def _dirty(x: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Now and then a room, now and then white or low noise."""
        if rng.random() < AUGMENT["room"]:
            tail = rng.standard_normal(int(RATE * rng.uniform(0.05, 0.35)))
            tail *= np.exp(-6.9 * np.arange(len(tail)) / len(tail))
            tail *= rng.uniform(0.1, 0.5) / np.sqrt(np.sum(tail**2))
            tail[0] = 1
            size = 2 ** int(np.ceil(np.log2(len(x) + len(tail))))
            x = np.fft.irfft(np.fft.rfft(x, size) * np.fft.rfft(tail, size), size)[: len(x)].astype(np.float32)
        if rng.random() < AUGMENT["noise"]:
            noise = rng.standard_normal(len(x))
            if rng.random() < 0.5:
                noise = np.cumsum(noise - noise.mean())
                noise -= np.convolve(noise, np.ones(64) / 64, mode="same")
            noise *= np.sqrt(np.mean(x**2)) / (noise.std() + 1e-9)
            x = x + (noise * 10 ** (-rng.uniform(*AUGMENT["noise_db"]) / 20)).astype(np.float32)
        return x
