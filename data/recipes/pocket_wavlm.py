"""Train the bundled WavLM: `make pocket REAL=~/corpora`, a folder that holds ravdess/ and librispeech/.

Training speakers: RAVDESS actors 1–16, sample voices 1–16, synthetic voices drawn for this, and people who read in
LibriSpeech. The epoch is chosen on RAVDESS actors 17–18; actors 19–20 and sample voices 17–24 are reported at the end.
Killed and started again, it goes on after the last epoch.
"""

from __future__ import annotations

import argparse
import functools
import json
import os
import tempfile
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import pocket_recordings
import pocket_speech
import pocket_teacher
import prosody
import torch
from pocket_wavlm_card import write_card
from pocket_wavlm_settings import (
    ARCHITECTURE,
    BANDS,
    EVERYTHING,
    FIT,
    HOP,
    LEARN,
    LISTEN,
    PROCESSES,
    RATE,
    READ_AT,
    SHARPNESS,
    SMOOTHING,
    SPAN,
    STEP,
    WINDOW,
)
from pocket_windows import Speech
from torch.nn import functional
from training import fit
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForSequenceClassification
from transformers.models.wavlm.modeling_wavlm import _compute_mask_indices

from xai_lib import audio, corpora, statistics
from xai_lib.workbook import seed_everything

DATA = Path(__file__).resolve().parents[1]


def untrained() -> WavLMForSequenceClassification:
    """The network before the first step."""
    names = dict(enumerate(corpora.EMOTIONS))
    config = WavLMConfig(**ARCHITECTURE, id2label=names, label2id={v: k for k, v in names.items()})
    network = WavLMForSequenceClassification(config)
    tune(network.wavlm.feature_extractor.conv_layers[0].conv)
    return network


@torch.no_grad()
def tune(conv: torch.nn.Conv1d) -> None:
    """Start the first convolution as a bank of 40 mel-spaced filters, each in four phases, and four constants.

    Half-rectified by what follows, the phases add up to a magnitude; the constants, after layer norm, tell the level.
    """
    centre = torch.from_numpy(librosa.mel_frequencies(40, fmin=90, fmax=7200)).float().repeat(4)
    phase = torch.arange(4).repeat_interleave(40) * np.pi / 2
    time = (torch.arange(320) - 160) / RATE
    shape = torch.hann_window(320) / 160
    conv.weight[:160, 0] = shape * torch.cos(2 * np.pi * centre[:, None] * time + phase[:, None])
    conv.weight[:160, 0] *= 300 * (centre[:, None] / 1000) ** 0.7  # speech to about 1, its slope evened out
    conv.weight[160:] = 0
    conv.bias[:160] = 0
    conv.bias[160:] = torch.tensor([0.5, -0.5, 2.0, -2.0])


class Readers(torch.nn.Module):
    """What training alone needs: linear readers of log-mel bands, F0 and the factors of synthetic speech."""

    def __init__(self):
        super().__init__()
        width = ARCHITECTURE["hidden_size"]
        self.bands, self.hidden = torch.nn.Linear(width, BANDS), torch.nn.Linear(width, BANDS)
        self.pitch = torch.nn.Linear(width, 2)  # octaves above 180 Hz, and whether voiced
        self.factors = torch.nn.Linear(ARCHITECTURE["classifier_proj_size"], len(prosody.FACTORS))
        mel = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=BANDS, fmin=60, fmax=7600, norm=None)
        self.register_buffer("mel", torch.from_numpy(mel))
        self.register_buffer("shape", torch.hann_window(SPAN))

    def truth(self, x: torch.Tensor) -> torch.Tensor:
        """Log-mel bands [clip, frame, band] in units of 10 dB."""
        power = torch.stft(x, 512, HOP, SPAN, self.shape, center=False, return_complex=True).abs() ** 2
        return torch.log10(self.mel @ power + 1e-5).transpose(1, 2)


@torch.no_grad()
def _hide(share: float, clips: int, frames: int) -> torch.Tensor:
    """Which frames the transformer does not see: spans of 200 ms."""
    found = torch.zeros(clips, frames, dtype=torch.bool)
    if share:
        found |= torch.from_numpy(_compute_mask_indices((clips, frames), share, 10))
    return found


def loss(module: torch.nn.ModuleDict, batch: dict, *, plan: dict, device: str) -> tuple[torch.Tensor, dict]:
    """The sum of what `plan["weights"]` names, and each part of it."""
    batch = {name: tensor.to(device) for name, tensor in batch.items()}
    network, readers = module["network"], module["readers"]
    bands = readers.truth(batch["clean"])
    frames = min(bands.shape[1], batch["f0"].shape[1])
    hidden = _hide(plan["hidden"], len(bands), batch["f0"].shape[1]).to(device)
    out = network.wavlm(batch["x"], mask_time_indices=hidden, output_hidden_states=True)
    projected = network.projector(out.last_hidden_state)
    by_frame = network.classifier(projected)  # averaged over frames, these are the network's logits
    bands, hidden, voiced = bands[:, :frames], hidden[:, :frames], batch["f0"][:, :frames] > 0
    parts = {"emotion": _emotion(by_frame.mean(dim=1), batch["label"], batch["weight"])}

    heard = out.hidden_states[READ_AT][:, :frames]
    pitch = readers.pitch(heard)
    octaves = torch.log2(batch["f0"][:, :frames].clamp_min(50) / 180)
    off = _mean(functional.smooth_l1_loss(pitch[..., 0], octaves, beta=0.1, reduction="none")[voiced & ~hidden])
    sung = functional.binary_cross_entropy_with_logits(pitch[..., 1][~hidden], voiced[~hidden].float())
    parts["bands"] = (readers.bands(heard) - bands)[~hidden].square().mean() + 2 * off + 0.5 * sung
    if plan["weights"]["hidden"]:
        parts["hidden"] = (readers.hidden(out.last_hidden_state[:, :frames]) - bands)[hidden].square().mean()

    known = batch["factors"].isfinite().all(dim=1)
    parts["factors"] = _mean((readers.factors(projected.mean(dim=1)) - batch["factors"])[known].square())
    judged = batch["scores"].isfinite().all(dim=2).all(dim=1)
    if plan["weights"]["frames"]:
        ours, theirs = by_frame[judged], SHARPNESS * batch["scores"][judged]
        ours, theirs = (x - x.mean(dim=2, keepdim=True) for x in (ours, theirs))
        near, far = (functional.avg_pool1d(x.transpose(1, 2), WINDOW, STEP) for x in (ours, theirs))
        parts["frames"] = (near - far).square().mean() / far.var()
        ours, theirs = ours.mean(dim=1), theirs.mean(dim=1)
        parts["clips"] = (ours - theirs).square().mean() / theirs.var()
    total = sum(plan["weights"][name] * part for name, part in parts.items())
    return total, {name: part.item() for name, part in parts.items()}


def _mean(values: torch.Tensor) -> torch.Tensor:
    """The mean, 0 of nothing: now and then a batch has no clip of a kind."""
    return values.sum() / max(1, values.numel())


def _emotion(logits: torch.Tensor, label: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Cross-entropy with smoothed labels; unlabelled clips have no weight."""
    weight = torch.where(label < 0, 0.0, weight)
    each = functional.cross_entropy(logits, label.clamp_min(0), reduction="none", label_smoothing=SMOOTHING)
    return (each * weight).sum() / weight.sum().clamp_min(1e-6)


@torch.inference_mode()
def scores(network: WavLMForSequenceClassification, clips: pd.DataFrame) -> pd.DataFrame:
    """Speaker, true and predicted emotion of each clip, heard whole."""
    network.eval()
    rows = []
    for index, wave in audio.stream(clips, RATE):
        label = network(torch.from_numpy(wave)[None].to(network.device)).logits.argmax().item()
        rows.append((clips["speaker"][index], clips["label"][index], corpora.EMOTIONS[label]))
    return pd.DataFrame(rows, columns=["speaker", "label", "predicted"])


def train(rank: int | None, given: argparse.Namespace, processes: int) -> tuple:
    """Listen, then learn, as one of `processes` that share every batch; returns the network and the two histories.

    Rank None only reads what the processes have done.
    """
    if rank is not None and processes > 1:
        torch.set_num_threads(1)
        meeting = f"file://{given.meeting}"
        torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=processes)
    seed_everything(given.seed)
    module = torch.nn.ModuleDict({"network": untrained(), "readers": Readers()}).to(given.device)
    taught = pd.read_pickle(given.speech / "taught.pkl")
    speech = Speech(taught, given.speech)
    real = corpora.load("ravdess", root=given.ravdess)
    choosing = real[real["actor"].isin((17, 18))]

    def uar(average: torch.nn.ModuleDict) -> dict:
        table = scores(average["network"], choosing)
        return {"uar": statistics.uar(table["label"], table["predicted"])}

    histories = {}
    for name, plan in (("listen", LISTEN), ("learn", LEARN)):
        plan = {**plan, "epochs": given.epochs or plan["epochs"], "steps": given.steps or plan["steps"]}
        histories[name] = fit(
            module,
            functools.partial(speech.batches, plan, processes),
            functools.partial(loss, plan=plan, device=given.device),
            **{key: plan[key] for key in ("steps", "epochs", "learning_rate")},
            **FIT,
            checkpoint=given.checkpoint.with_name(f"{given.checkpoint.name}-{name}.pt"),
            settings={**EVERYTHING, "plan": plan, "speech": taught.attrs["made"]},
            seed=given.seed,
            after=uar if name == "learn" else None,
            best="uar" if name == "learn" else None,
        )
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()
    return module["network"], histories


def main() -> None:
    data = Path(os.environ["XAI_REAL_DATA"]) if os.environ.get("XAI_REAL_DATA") else None
    results = DATA.parent / "results"
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ravdess", help="folder with Actor_01 … Actor_20 (default: where corpora.load looks)")
    options.add_argument(
        "--librispeech",
        type=Path,
        default=data / "librispeech" if data else None,
        help="folder with .flac files, an hour or more (default: librispeech in the folder XAI_REAL_DATA)",
    )
    options.add_argument("--out", type=Path, default=DATA / "pocket-wavlm", help="folder for weights and card")
    options.add_argument("--speech", type=Path, default=results / "pocket-speech", help="folder for what is prepared")
    options.add_argument(
        "--checkpoint", type=Path, default=results / "pocket-wavlm", help="how the names of the two checkpoints begin"
    )
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--epochs", type=int, help="of listening, and of learning (for trials)")
    options.add_argument("--steps", type=int, help="of an epoch (for trials)")
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.librispeech is None:
        options.error(
            "LibriSpeech is needed (an hour will do): name its folder with --librispeech, or set XAI_REAL_DATA to the "
            "folder that holds librispeech/"
        )
    try:
        table = pocket_speech.prepare(given.ravdess, given.librispeech, given.speech)
        table = pocket_teacher.teach(table, given.speech)
    except (FileNotFoundError, ValueError) as error:
        options.error(str(error))
    processes = 1 if given.device != "cpu" else PROCESSES
    if processes > 1:
        with tempfile.TemporaryDirectory() as folder:
            given.meeting = Path(folder) / "meeting"
            torch.multiprocessing.spawn(train, (given, processes), nprocs=processes)
    network, histories = train(None if processes > 1 else 0, given, processes)
    sample, real = corpora.load("sample"), corpora.load("ravdess", root=given.ravdess)
    parts = {"choose": (17, 18), "ravdess": (19, 20)}
    tables = {name: scores(network, real[real["actor"].isin(actors)]) for name, actors in parts.items()}
    tables["sample"] = scores(network, sample[sample["split"] == "test"])
    metrics = {f"uar_{name}": round(float(statistics.uar(t["label"], t["predicted"])), 4) for name, t in tables.items()}
    trained = table[(table["source"] != "synthetic") & ~table["speaker"].isin(tables["choose"]["speaker"])]
    network.config.update(
        {
            "xai_train_speakers": sorted(set(trained["speaker"])),
            "xai_selection_speakers": sorted(set(tables["choose"]["speaker"])),
            "xai_metrics": {**metrics, "seed": given.seed},
        }
    )
    network.to("cpu").save_pretrained(given.out)
    Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=RATE).save_pretrained(given.out)
    where = "a GPU" if processes == 1 else f"{processes} cores"
    write_card(given.out, network, tables, histories, table, given.seed, where)
    pocket_recordings.write_wavlm(given.out, given.ravdess, given.librispeech)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
