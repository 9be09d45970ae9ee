"""Train the bundled WavLM on the sample corpus and RAVDESS: `make pocket ARGS="--ravdess ~/ravdess"`.

Training speakers: sample voices 1–16 and RAVDESS actors 1–16. The epoch is chosen on RAVDESS actors 17–18; actors
19–20 and sample voices 17–24 are reported once, at the end. Killed and started again, it goes on after the last epoch.
"""

from __future__ import annotations

import argparse
import copy
import json
import time
from pathlib import Path

import librosa
import numpy as np
import pandas as pd
import torch
from pocket_card import write_card
from tqdm.auto import tqdm
from transformers import Wav2Vec2FeatureExtractor, WavLMConfig, WavLMForSequenceClassification

from xai_lib import audio, corpora, statistics
from xai_lib.workbook import seed_everything

HERE = Path(__file__).resolve().parent
RATE = 16_000
EPOCHS, BATCH, LEARNING_RATE, WEIGHT_DECAY, SMOOTHING, AVERAGE = 40, 16, 8e-4, 0.02, 0.05, 0.998
LISTEN_AT, LISTEN = 2, 1.0  # layer from which log-mel bands are read while training, and the weight of that loss
SECONDS = (1.8, 2.2, 2.8)  # of a training window; clips are read whole when the model is used
GAIN_DB, SPEED, NOISE_DB = 6.0, (0.9, 1.1), (12.0, 45.0)
ARCHITECTURE = {
    "hidden_size": 144,
    "num_hidden_layers": 6,
    "num_attention_heads": 6,
    "intermediate_size": 576,
    "conv_dim": (164, 144),
    "conv_kernel": (320, 2),  # sees 400 samples every 320, as the usual seven layers do, at a fifth of their cost
    "conv_stride": (80, 4),
    "feat_extract_norm": "layer",  # with do_normalize=False the model hears how loud a clip is
    "conv_bias": True,
    "do_stable_layer_norm": True,
    "num_conv_pos_embeddings": 32,
    "num_conv_pos_embedding_groups": 16,
    "classifier_proj_size": 64,
    "num_buckets": 64,
    "max_bucket_distance": 200,
    "layerdrop": 0.0,
    "mask_time_prob": 0.0,
    "hidden_dropout": 0.1,
    "attention_dropout": 0.0,
    "activation_dropout": 0.0,
    "feat_proj_dropout": 0.0,
}


def speakers(ravdess: str | None) -> dict[str, pd.DataFrame]:
    """The clips of each part; no speaker is in two."""
    sample = corpora.load("sample")
    real = corpora.load("ravdess", root=ravdess)
    return {
        "train": pd.concat([sample[sample["actor"] <= 16], real[real["actor"] <= 16]], ignore_index=True),
        "choose": real[real["actor"].isin((17, 18))],
        "ravdess": real[real["actor"].isin((19, 20))],
        "sample": sample[sample["actor"] >= 17],
    }


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


class Listener(torch.nn.Module):
    """What training alone needs: reads log-mel bands from a middle layer, so that the ear learns to hear early."""

    def __init__(self, width: int, bands: int = 40):
        super().__init__()
        self.linear = torch.nn.Linear(width, bands)
        mel = librosa.filters.mel(sr=RATE, n_fft=512, n_mels=bands, fmin=60, fmax=7600, norm=None)
        self.register_buffer("mel", torch.from_numpy(mel))
        self.register_buffer("shape", torch.hann_window(400))

    def forward(self, x: torch.Tensor, hidden: torch.Tensor) -> torch.Tensor:
        """Mean squared error of the bands, in units of 10 dB."""
        power = torch.stft(x, 512, 320, 400, self.shape, center=False, return_complex=True).abs() ** 2
        bands = torch.log10(self.mel @ power + 1e-5).transpose(1, 2)
        frames = min(bands.shape[1], hidden.shape[1])  # the last frame lacks a few samples
        return torch.nn.functional.mse_loss(self.linear(hidden[:, :frames]), bands[:, :frames])


def window(wave: np.ndarray, speech: tuple[int, int], length: int, rng: np.random.Generator) -> np.ndarray:
    """One augmented window of `length` samples that holds the speech, or as much of it as fits."""
    speed = rng.uniform(*SPEED)
    need = int(length * speed) + 1
    start, end = speech
    low, high = sorted((end - need, start))
    begin = int(rng.integers(low, high + 1))
    padded = np.pad(wave, (max(0, -begin), max(0, begin + need - len(wave))))
    part = padded[max(0, begin) :][:need]
    part = np.interp(np.arange(length) * speed, np.arange(len(part)), part).astype(np.float32)
    part *= 10 ** (rng.normal(0, GAIN_DB / 2) / 20)
    level = np.sqrt(np.mean(part**2)) + 1e-6
    noise = rng.standard_normal(length).astype(np.float32)
    if rng.random() < 0.5:
        noise = np.cumsum(noise - noise.mean()).astype(np.float32)
        noise = noise - np.convolve(noise, np.ones(64) / 64, mode="same").astype(np.float32)
        noise /= noise.std() + 1e-9
    return part + noise * level * 10 ** (-rng.uniform(*NOISE_DB) / 20)


@torch.inference_mode()
def scores(network, clips: pd.DataFrame, device: str) -> pd.DataFrame:
    """Speaker, true and predicted emotion of each clip, heard whole."""
    network.eval()
    rows = []
    for index, wave in audio.stream(clips, RATE):
        label = network(torch.from_numpy(wave)[None].to(device)).logits.argmax().item()
        rows.append((clips["speaker"][index], clips["label"][index], corpora.EMOTIONS[label]))
    return pd.DataFrame(rows, columns=["speaker", "label", "predicted"])


def train(parts: dict, device: str, seed: int, epochs: int, checkpoint: Path):
    """Train, keep the running average of the weights that does best on the choosing speakers."""
    clips = parts["train"]
    waves = [wave for _, wave in audio.stream(clips, RATE)]
    marks = [np.flatnonzero(audio.speech_mask(wave, RATE)) * 320 for wave in waves]
    speech = [(m[0], m[-1] + 400) if len(m) else (0, len(w)) for m, w in zip(marks, waves)]
    labels = torch.tensor([corpora.EMOTIONS.index(label) for label in clips["label"]])
    network = untrained().to(device)
    listener = Listener(ARCHITECTURE["hidden_size"]).to(device)
    average = copy.deepcopy(network)
    steps = len(waves) // BATCH
    optimiser = torch.optim.AdamW(
        [*network.parameters(), *listener.parameters()], lr=LEARNING_RATE, weight_decay=WEIGHT_DECAY
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, LEARNING_RATE, total_steps=epochs * steps, pct_start=0.15)
    state = {"epoch": 0, "best": -1.0, "weights": None, "curve": [], "seconds": 0.0}
    if checkpoint.exists():
        kept = torch.load(checkpoint, weights_only=True)
        state = kept["state"]
        for thing, name in (
            (network, "network"),
            (listener, "listener"),
            (average, "average"),
            (optimiser, "optimiser"),
            (schedule, "schedule"),
        ):
            thing.load_state_dict(kept[name])
    weight = torch.tensor([2.0] + [1.0] * 7, device=device)  # neutral has half as many clips
    for epoch in range(state["epoch"], epochs):
        started, losses, right = time.time(), [], 0
        rng = np.random.default_rng([seed, epoch])
        torch.manual_seed(seed * 1000 + epoch)
        np.random.seed(seed * 1000 + epoch)  # transformers draws its masks from numpy
        network.train()
        order = rng.permutation(len(waves))[: steps * BATCH].reshape(steps, BATCH)
        bar = tqdm(order, desc=f"epoch {epoch + 1}/{epochs}", leave=False)
        for rows in bar:
            length = int(RATE * rng.choice(SECONDS))
            batch = np.stack([window(waves[i], speech[i], length, rng) for i in rows])
            truth = labels[rows].to(device)
            x = torch.from_numpy(batch).to(device)
            out = network(x, output_hidden_states=True)
            logits = out.logits
            loss = torch.nn.functional.cross_entropy(logits, truth, weight, label_smoothing=SMOOTHING)
            heard = listener(x, out.hidden_states[LISTEN_AT])
            loss = loss + LISTEN * heard
            optimiser.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
            optimiser.step()
            schedule.step()
            with torch.no_grad():
                for slow, fast in zip(average.parameters(), network.parameters()):
                    slow.lerp_(fast, 1 - min(AVERAGE, (1 + schedule.last_epoch) / (10 + schedule.last_epoch)))
            losses.append((loss.item(), heard.item()))
            right += (logits.argmax(-1) == truth).sum().item()
        table = scores(average, parts["choose"], device)
        uar = statistics.uar(table["label"], table["predicted"])
        if uar >= state["best"]:
            state.update(best=uar, weights={k: v.detach().cpu().clone() for k, v in average.state_dict().items()})
        (loss, heard) = np.mean(losses, axis=0)
        state["curve"].append([float(loss - LISTEN * heard), right / order.size, uar])
        state.update(epoch=epoch + 1, seconds=state["seconds"] + time.time() - started)
        torch.save(
            {
                "state": state,
                "network": network.state_dict(),
                "listener": listener.state_dict(),
                "average": average.state_dict(),
                "optimiser": optimiser.state_dict(),
                "schedule": schedule.state_dict(),
            },
            checkpoint,
        )
        tqdm.write(
            f"epoch {epoch + 1}: loss {loss - LISTEN * heard:.3f}, bands {heard:.3f}, accuracy {right / order.size:.3f}, UAR {uar:.3f}"
        )
    network.load_state_dict(state["weights"])
    return network.eval(), state


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("--ravdess", help="folder with Actor_01 … Actor_20 (default: where corpora.load looks)")
    options.add_argument("--out", type=Path, default=HERE / "pocket-wavlm")
    options.add_argument("--checkpoint", type=Path, help="default: results/pocket-wavlm.pt")
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    checkpoint = given.checkpoint or HERE.parent / "results" / "pocket-wavlm.pt"
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    seed_everything(given.seed)
    parts = speakers(given.ravdess)
    network, state = train(parts, given.device, given.seed, given.epochs, checkpoint)
    tables = {name: scores(network, parts[name], given.device) for name in ("ravdess", "sample")}
    metrics = {f"uar_{name}": round(float(statistics.uar(t["label"], t["predicted"])), 4) for name, t in tables.items()}
    network.config.update(
        {
            "xai_trained_on": sorted(set(parts["train"]["speaker"])),
            "xai_chosen_on": sorted(set(parts["choose"]["speaker"])),
            "xai_metrics": {**metrics, "uar_chosen_on": round(state["best"], 4), "seed": given.seed},
        }
    )
    network.to("cpu").save_pretrained(given.out)
    Wav2Vec2FeatureExtractor(do_normalize=False, sampling_rate=RATE).save_pretrained(given.out)
    write_card(given.out, tables, state, given)
    print(json.dumps(metrics))


if __name__ == "__main__":
    main()
