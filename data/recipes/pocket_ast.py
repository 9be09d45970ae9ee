"""Train the bundled AST on ESC-10: `python data/recipes/pocket_ast.py --esc10 ~/esc10`.

Trained on folds 1–4 for a fixed number of epochs; fold 5 is reported once, at the end. The settings were chosen before,
by training on three of folds 1–4 and listening to the fourth. Killed and started again, it goes on after the last epoch.
"""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import joblib
import numpy as np
import pandas as pd
import pocket_recordings
import soxr
import torch
from pocket_ast_card import write_card
from training import History, fit
from transformers import ASTConfig, ASTFeatureExtractor, ASTForAudioClassification

from xai_lib import audio
from xai_lib.workbook import fingerprint, seed_everything

DATA = Path(__file__).resolve().parents[1]
RATE, SAMPLES = 16_000, 80_000
BANDS, FRAMES = 64, 498  # mel bands; frames of 10 ms in five seconds
ARCHITECTURE = {
    "hidden_size": 128,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "intermediate_size": 512,
    "patch_size": 16,
    "frequency_stride": 8,
    "time_stride": 8,
    "num_mel_bins": BANDS,
    "max_length": FRAMES,
}
FIT = {"learning_rate": 1e-3, "weight_decay": 0.05, "average": 0.99}
AUGMENT = {
    "speeds": (0.8, 0.9, 1.0, 1.12, 1.25),  # one of these, pitch and all
    "bands": 2,  # the spectrum moves up or down by at most so many
    "gain_db": 3.0,  # standard deviation of the level
    "colour_db": 3.0,  # and of five points of a smooth filter: another microphone, another room
    "mixtures": 0.5,  # share of the examples that are two clips at once
    "patches": 0.15,  # share of the patches that is heard
    "smoothing": 0.1,  # of the labels
}
EPOCHS, BATCH = 100, 16
FLOOR = float(np.finfo(np.float32).eps)  # the extractor's least power: digital silence


def corpus(folder: Path) -> pd.DataFrame:
    """The clips of ESC-10: path, label, fold and recording (that a clip was cut from)."""
    rows = []
    for path in sorted(Path(folder).expanduser().glob("[0-9][0-9][0-9] - */*.ogg")):
        fold, recording, _ = path.stem.split("-")
        rows.append((path, path.parent.name.partition(" - ")[2].lower(), int(fold), recording))
    if not rows:
        raise FileNotFoundError(
            f"{folder} is not ESC-10, or not there: it has no clips such as '001 - Dog bark/1-100032-A.ogg'"
        )
    return pd.DataFrame(rows, columns=["path", "label", "fold", "recording"])


def powers(waves: list[np.ndarray]) -> np.ndarray:
    """Mel power above the floor at each speed, [speed, clip, frame, band]; it adds up when sounds do."""
    extract = ASTFeatureExtractor(num_mel_bins=BANDS, max_length=FRAMES, do_normalize=False)
    found = np.empty((len(AUGMENT["speeds"]), len(waves), FRAMES, BANDS), np.float32)
    for row, speed in zip(found, AUGMENT["speeds"]):
        for clip, wave in zip(row, waves):
            played = soxr.resample(wave, RATE * speed, RATE, quality="HQ")
            played = np.resize(played, SAMPLES)  # what has become too short begins anew
            clip[:] = np.exp(extract(played, sampling_rate=RATE)["input_values"][0])
    return np.maximum(found - FLOOR, 0)


def augmented(power: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One clip that begins elsewhere, is a little higher or lower, louder or softer, and recorded otherwise."""
    bands = np.arange(BANDS)
    step = rng.integers(-AUGMENT["bands"], AUGMENT["bands"] + 1)
    power = np.roll(power, rng.integers(FRAMES), axis=0)[:, np.clip(bands + step, 0, BANDS - 1)]
    colour = np.interp(bands, np.linspace(0, BANDS - 1, 5), rng.normal(0, AUGMENT["colour_db"], 5))
    return power * 10 ** ((rng.normal(0, AUGMENT["gain_db"]) + colour) / 10)


def batches(power: np.ndarray, truth: np.ndarray, extract: ASTFeatureExtractor, rng: np.random.Generator):
    """The batches of an epoch: input and wanted probabilities, [clip, label]."""
    speeds, clips = power.shape[:2]
    for rows in rng.permutation(clips)[: clips // BATCH * BATCH].reshape(-1, BATCH):
        inputs, wanted = [], []
        for i in rows:
            x, y = augmented(power[rng.integers(speeds), i], rng), truth[i]
            if rng.random() < AUGMENT["mixtures"]:
                j, share = rng.integers(clips), rng.random()
                other = augmented(power[rng.integers(speeds), j], rng)
                x = share * x + (1 - share) * other * x.mean() / max(other.mean(), FLOOR)  # as loud as the first
                y = share * y + (1 - share) * truth[j]
            inputs.append(extract.normalize(np.log(x + FLOOR)))
            wanted.append(y)
        yield torch.from_numpy(np.float32(inputs)), torch.from_numpy(np.float32(wanted))


def untrained(labels: list[str], inputs: torch.Tensor) -> ASTForAudioClassification:
    """The network before the first step; `inputs`, [clip, frame, band], are what it will see.

    A few hundred clips do not teach a transformer to see. So its patch filters start as the principal components of the
    patches, each of unit variance, its position embeddings as sines of band and time, and its attention near the
    identity (Trockman and Kolter 2023, Mimetic Initialization of Self-Attention Layers).
    """
    names = dict(enumerate(labels))
    config = ASTConfig(**ARCHITECTURE, id2label=names, label2id={name: i for i, name in names.items()})
    network = ASTForAudioClassification(config)
    body = network.audio_spectrogram_transformer
    embeddings, width, size = body.embeddings, config.hidden_size, config.patch_size
    bands, times = embeddings.get_shape(config)
    patches = unfolded(inputs, size, config.frequency_stride, 2 * size).reshape(-1, size * size)
    variance, component = torch.linalg.eigh(torch.cov(patches.T, correction=0))  # in rising order
    variance, component = variance.flip(0)[:width], component.flip(1)[:, :width]
    filters = (component / torch.sqrt(variance + 1e-3 * variance[0])).T
    with torch.no_grad():
        embeddings.patch_embeddings.projection.weight[:] = filters.reshape(-1, 1, size, size)
        embeddings.patch_embeddings.projection.bias[:] = -filters @ patches.mean(0)
        sines = _sines(bands, width // 2).repeat_interleave(times, 0), _sines(times, width // 2).repeat(bands, 1)
        embeddings.position_embeddings[0, 2:] = 0.5 * torch.cat(sines, 1)
        for token in (embeddings.cls_token, embeddings.distillation_token):
            token.normal_(0, 0.5)
        for layer in body.layers:
            _mimic(layer.attention)
    return network


def _mimic(attention: torch.nn.Module) -> None:
    """Start near what trained transformers come to: a token attends to its like, and is lessened by what it finds."""
    width, head = attention.o_proj.weight.shape[0], attention.head_dim
    noise = torch.randn(attention.num_attention_heads + 1, width, width) / width**0.5
    for i, start in enumerate(0.7 * noise[:-1] + 0.7 * torch.eye(width)):
        left, size, right = torch.linalg.svd(start)
        attention.q_proj.weight[i * head : (i + 1) * head] = (left * size.sqrt())[:, :head].T
        attention.k_proj.weight[i * head : (i + 1) * head] = (size.sqrt()[:, None] * right)[:head]
    left, size, right = torch.linalg.svd(0.4 * noise[-1] - 0.4 * torch.eye(width))
    attention.v_proj.weight[:] = size.sqrt()[:, None] * right
    attention.o_proj.weight[:] = left * size.sqrt()


def unfolded(inputs: torch.Tensor, size: int, across: int, along: int) -> torch.Tensor:
    """The patches of inputs, [clip, band, time, size, size], one every `across` bands and `along` frames."""
    return inputs.transpose(1, 2).unfold(1, size, across).unfold(2, size, along)


def _sines(places: int, width: int) -> torch.Tensor:
    """Sines and cosines of the place, [place, width]."""
    angle = torch.arange(places)[:, None] * 100 ** -(torch.arange(width // 2) / (width // 2))
    return torch.cat([angle.sin(), angle.cos()], 1)


def logits(network: ASTForAudioClassification, inputs: torch.Tensor, share: float) -> torch.Tensor:
    """What the network says of a random share of each clip's patches: faster, and harder to learn by heart."""
    body, config = network.audio_spectrogram_transformer, network.config
    embeddings = body.embeddings
    patches = unfolded(inputs, config.patch_size, config.frequency_stride, config.time_stride)
    clips, bands, times = patches.shape[:3]
    kept = torch.rand(clips, bands * times, device=inputs.device).argsort(1)[:, : int(share * bands * times)]
    patches = patches[torch.arange(clips)[:, None], kept // times, kept % times].flatten(2)
    projection, places = embeddings.patch_embeddings.projection, embeddings.position_embeddings[0]
    tokens = torch.nn.functional.linear(patches, projection.weight.flatten(1), projection.bias) + places[kept + 2]
    special = torch.cat([embeddings.cls_token, embeddings.distillation_token], 1) + places[:2]
    hidden = torch.cat([special.expand(clips, -1, -1), tokens], 1)
    for layer in body.layers:
        hidden = layer(hidden)
    return network.classifier(body.layernorm(hidden)[:, :2].mean(1))


def train(
    clips: pd.DataFrame, device: str, seed: int, epochs: int, checkpoint: Path
) -> tuple[ASTForAudioClassification, ASTFeatureExtractor, History]:
    """The network, what it hears through, and how the training went."""
    torch.set_num_threads(1)  # sums depend on how many threads share them
    labels = list(dict.fromkeys(clips["label"]))
    truth = np.eye(len(labels), dtype=np.float32)[[labels.index(label) for label in clips["label"]]]
    power = powers([wave for _, wave in audio.stream(clips, RATE)])
    plain = np.log(power[AUGMENT["speeds"].index(1.0)] + FLOOR)
    extract = ASTFeatureExtractor(
        num_mel_bins=BANDS,
        max_length=FRAMES,
        mean=round(float(plain.mean(dtype=float)), 4),
        std=round(float(plain.std(dtype=float)), 4),
    )
    seed_everything(seed)
    network = untrained(labels, torch.from_numpy(extract.normalize(plain))).to(device)

    def loss(network, batch):
        inputs, wanted = (tensor.to(device) for tensor in batch)
        said = logits(network, inputs, AUGMENT["patches"])
        value = torch.nn.functional.cross_entropy(said, wanted, label_smoothing=AUGMENT["smoothing"])
        return value, {"accuracy": (said.argmax(1) == wanted.argmax(1)).float().mean().item()}

    history = fit(
        network,
        lambda rng: batches(power, truth, extract, rng),
        loss,
        steps=len(clips) // BATCH,
        epochs=epochs,
        seed=seed,
        checkpoint=checkpoint,
        settings={"architecture": ARCHITECTURE, "augment": AUGMENT, "batch": BATCH, "clips": fingerprint(clips)},
        **FIT,
    )
    return network.cpu(), extract, history


@torch.inference_mode()
def scores(network, extract, clips: pd.DataFrame) -> pd.DataFrame:
    """True and predicted label and recording of each clip."""
    said = [
        network(**extract(wave, sampling_rate=RATE, return_tensors="pt")).logits.argmax().item()
        for _, wave in audio.stream(clips, RATE)
    ]
    names = network.config.id2label
    return clips[["label", "recording"]].assign(predicted=[names[i] for i in said])


def main() -> None:
    real = os.environ.get("XAI_REAL_DATA")
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument(
        "--esc10",
        type=Path,
        default=Path(real) / "esc10" if real else None,
        help="folder with '001 - Dog bark' … '010 - Fire crackling' (default: esc10 in the folder XAI_REAL_DATA)",
    )
    options.add_argument("--out", type=Path, default=DATA / "pocket-ast")
    options.add_argument(
        "--checkpoint", type=Path, default=DATA.parent / "results" / "pocket-ast", help="how its name begins"
    )
    options.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    options.add_argument("--epochs", type=int, default=EPOCHS)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    if given.esc10 is None:
        options.error(
            "ESC-10 is needed: name its folder with --esc10, or set XAI_REAL_DATA to the folder that holds esc10/"
        )
    try:
        clips = corpus(given.esc10)
    except FileNotFoundError as error:
        options.error(str(error))
    work = []
    for fold in (5, 1, 2, 3, 4):  # the one that is kept, and four that tell how much luck was in it
        rest = clips[(clips["fold"] != fold) & (clips["fold"] <= 4)]
        checkpoint = given.checkpoint.with_name(f"{given.checkpoint.name}-without-{fold}.pt")
        work.append(joblib.delayed(train)(rest, given.device, given.seed, given.epochs, checkpoint))
    found = joblib.Parallel(len(work) if given.device == "cpu" else 1)(work)
    tables = [scores(*one[:2], clips[clips["fold"] == fold]) for one, fold in zip(found, (5, 1, 2, 3, 4))]
    (network, extract, history), table = found[0], tables[0]
    others = [(one["label"] == one["predicted"]).mean() for one in tables[1:]]
    accuracy = round(float((table["label"] == table["predicted"]).mean()), 4)
    network.config.update(
        {
            "xai_train_speakers": [f"esc10-fold-{fold}" for fold in (1, 2, 3, 4)],
            "xai_metrics": {"accuracy_fold5": accuracy, "seed": given.seed},
        }
    )
    network.save_pretrained(given.out)
    extract.save_pretrained(given.out)
    write_card(given.out, network, table, history, given.seed, others)
    pocket_recordings.write_ast(given.out, given.esc10)
    print(json.dumps(network.config.xai_metrics))


if __name__ == "__main__":
    main()
