"""What the bundled WavLM hears while it is trained: recordings, the same with other voices, and synthetic speech.

All of it is prepared once, into three files that the processes of a training share. Needs espeak-ng.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import parselmouth
import prosody
import synthesis
import torch
from parselmouth.praat import call
from pocket_wavlm_settings import HOP, RATE, SPEECH
from tqdm.auto import tqdm

from xai_lib import audio, corpora
from xai_lib.workbook import fingerprint


def voice(number: int) -> tuple:
    """A voice like the sample corpus's 24 (`prosody.VOICES`), drawn at random; odd numbers are male."""
    rng = np.random.default_rng([77, number])
    base, spread, size = ((112, (82, 155), (99, 4.5)), (205, (160, 260), (113, 5.0)))[number % 2 == 0]
    scale = int(np.clip(rng.normal(*size), 88, 125))
    f0 = float(np.clip(base * 2 ** rng.normal(0, 0.24), *spread))
    formants, strengths = rng.normal(100, 3.5, 3).round(), rng.uniform(72, 115, 4)
    words, width, voicing = rng.uniform(148, 184), rng.uniform(84, 150), rng.uniform(80, 120)
    return f0, float(words), scale, tuple(map(int, formants)), tuple(map(int, strengths)), int(width), int(voicing)


def altered(wave: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The recording as somebody else might have said it, as loud as it was: Praat's "Change gender"."""
    sound = parselmouth.Sound(wave.astype(np.float64), RATE)
    median = call(sound.to_pitch(0.01, 75, 700), "Get quantile", 0, 0, 0.5, "Hertz")
    formants = rng.uniform(*SPEECH["formants"])
    moved = rng.uniform(-1, 1) * SPEECH["semitones"] + 12 * np.log2(formants) * rng.uniform(0, 1.6)
    pitch = median * 2 ** (moved / 12) if np.isfinite(median) else 0  # 0 leaves it; whispers have no median
    spread, tempo = (np.exp(rng.uniform(-1, 1) * SPEECH[name]) for name in ("range", "tempo"))
    new = call(sound, "Change gender", 75, 700, formants, pitch, spread, 1 / tempo).values[0]
    new *= np.sqrt(np.mean(wave**2) / (np.mean(new**2) + 1e-12))
    return (new / max(1.0, np.abs(new).max() / 0.99)).astype(np.float32)


def _clip(wave: np.ndarray, **told) -> dict:
    """One clip: its samples, F0 by frame (0 unvoiced) and the samples between which there is speech."""
    f0 = audio.features(torch.from_numpy(wave)[None], RATE)["f0"][0].numpy()
    frames = np.flatnonzero(audio.speech_mask(wave, RATE))
    first, last = (frames[0] * HOP, frames[-1] * HOP + 400) if len(frames) else (0, len(wave))
    samples = np.round(wave.clip(-1, 1) * 32767).astype(np.int16)
    f0 = np.nan_to_num(f0).astype(np.float16)
    return {"gain": 1.0, "variant": 0, **told, "first": first, "last": min(last, len(wave)), "wave": samples, "f0": f0}


def _recording(row: dict, source: str, others: int) -> list[dict]:
    torch.set_num_threads(1)
    wave = audio.read(row["path"])
    told = {"source": source, "label": row["label"], "speaker": row["speaker"], "actor": row["actor"]}
    clips, rng = [_clip(wave, **told)], np.random.default_rng([5, *map(ord, Path(row["path"]).stem)])
    for variant in range(1, others + 1):
        gain = 10 ** (rng.normal(0, SPEECH["gain_db"]) / 20)
        clips.append(_clip(altered(wave, rng), **told, gain=gain, variant=variant))
    return clips


def _synthetic(number: int) -> list[dict]:
    torch.set_num_threads(1)
    actor, clips = 1000 + number, []
    prosody.VOICES[actor] = voice(number)
    for emotion in prosody.EMOTIONS:
        for intensity in prosody.INTENSITY if emotion != "neutral" else ("normal",):
            for statement in prosody.STATEMENTS:
                factors = prosody.factors(actor, emotion, intensity, statement)
                key = (actor, prosody.EMOTIONS.index(emotion), list(prosody.INTENSITY).index(intensity), statement)
                samples, _ = synthesis.clip(actor, statement, factors, key)
                told = {"source": "synthetic", "label": emotion, "speaker": f"synthetic-{number}", "actor": actor}
                clips.append(_clip(samples.astype(np.float32) / 32767, **told, **factors))
    return clips


def _read(path: Path) -> list[dict]:
    torch.set_num_threads(1)
    wave, rng = audio.read(path), np.random.default_rng([6, *map(ord, path.stem)])
    long, step = (int(seconds * RATE) for seconds in SPEECH["read"])
    told = {"source": "librispeech", "speaker": f"librispeech-{path.stem.split('-')[0]}"}
    starts = range(0, max(1, len(wave) - 2 * RATE), step)
    gains = 10 ** (rng.normal(*SPEECH["read_gain_db"], len(starts)) / 20)
    return [_clip(wave[start : start + long], **told, gain=gain) for start, gain in zip(starts, gains)]


def write(path: Path, save, *given) -> None:
    """`save(file, *given)`, beside the path and then into place, so that a kill leaves the old or the new file."""
    part = path.with_name(path.name + ".part")
    with part.open("wb") as file:
        save(file, *given)
    os.replace(part, path)


def _made_of(real: pd.DataFrame, sample: pd.DataFrame, pieces: list[Path]) -> str:
    """What the prepared speech depends on: settings, recordings, and the code and the program that alter them."""
    code = [Path(file).read_bytes() for file in (__file__, prosody.__file__, synthesis.__file__)]
    read = sorted(f"{path.name} {path.stat().st_size}" for path in pieces)
    digests = [hashlib.sha256(data).hexdigest()[:16] for data in (b"".join(code), "\n".join(read).encode())]
    corpus = fingerprint(real), fingerprint(sample)
    return json.dumps({"settings": SPEECH, "corpora": corpus, "code": digests, "praat": parselmouth.PRAAT_VERSION})


def prepare(ravdess: Path | None, librispeech: Path, folder: Path, *, jobs: int = -1) -> pd.DataFrame:
    """Write `waves.npy`, `f0.npy` and `clips.pkl` to `folder`, unless they are there already.

    Returns
    -------
    DataFrame
        A row per clip: source, label, speaker, actor, variant (0 as recorded), gain to be heard with, where its samples
        (`start`, `length`) and frames of F0 (`f0_start`) lie in the files, `first` and `last` sample of speech, and
        the factors that synthetic speech was made with.

    Raises
    ------
    FileNotFoundError
        No FLAC files under `librispeech`, no RAVDESS, or no espeak-ng.
    ValueError
        Actors are missing, or `folder` was prepared from other recordings, or with other settings or code.
    """
    pieces = sorted(Path(librispeech).expanduser().rglob("*.flac"))
    if not pieces:
        raise FileNotFoundError(f"{librispeech} has no .flac files: name a folder of LibriSpeech with --librispeech")
    real, sample = corpora.load("ravdess", root=ravdess), corpora.load("sample")
    missing = sorted({*range(1, 21)} - {*real["actor"]})
    if missing:
        raise ValueError(f"RAVDESS lacks actors {missing}: 1–16 are trained on, 17–18 choose, 19–20 are reported")
    real, sample = real[real["actor"] <= 18], sample[sample["split"] == "train"]  # 19 and 20 are heard at the end
    done, made = folder / "clips.pkl", _made_of(real, sample, pieces)
    if done.exists():
        table = pd.read_pickle(done)
        if table.attrs["made"] != made:
            raise ValueError(
                f"{folder} was prepared from other recordings, or with other settings or code: move it away"
            )
        return table
    synthesis.espeak()  # fail here, in one line, rather than in a worker
    work = [joblib.delayed(_read)(path) for path in pieces]
    for row in real.to_dict("records"):
        work.append(joblib.delayed(_recording)(row, "ravdess", SPEECH["altered"] if row["actor"] <= 16 else 0))
    for row in sample.to_dict("records"):
        work.append(joblib.delayed(_recording)(row, "sample", 0))
    work += [joblib.delayed(_synthetic)(number) for number in range(1, SPEECH["synthetic"] + 1)]
    results = joblib.Parallel(jobs, return_as="generator")(work)
    clips = [clip for found in tqdm(results, "preparing speech", len(work)) for clip in found]
    waves, f0 = ([clip.pop(name) for clip in clips] for name in ("wave", "f0"))
    table = pd.DataFrame(clips)
    table["length"] = [len(wave) for wave in waves]
    table["start"] = table["length"].cumsum() - table["length"]
    table["f0_start"] = np.cumsum([0, *map(len, f0)])[:-1]
    table.attrs["made"] = made
    folder.mkdir(parents=True, exist_ok=True)
    write(folder / "waves.npy", np.save, np.concatenate(waves))
    write(folder / "f0.npy", np.save, np.concatenate(f0))
    write(done, lambda file: table.to_pickle(file))
    return table
