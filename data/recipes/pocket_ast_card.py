"""The model card of the bundled AST: where its weights come from, what it can and cannot tell apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

CARD = """---
license: cc-by-3.0
library_name: transformers
pipeline_tag: audio-classification
---
# pocket-ast

An Audio Spectrogram Transformer for ten everyday sounds with {parameters:.2f} M parameters, small enough to travel with the
workbook: {layers} layers of {width}, {bands} mel bands, patches of {patch} × {patch}, one every {step}. Trained from scratch, {epochs} epochs in
{minutes:.0f} minutes, seed {seed}, by `data/recipes/pocket_ast.py`; no pre-training. It takes five seconds at 16 kHz; the feature extractor
beside it makes the log-mel spectrogram that it was trained on. It is meant for dissecting and pruning a network of sounds.

```python
import soundfile, torch
from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

network = AutoModelForAudioClassification.from_pretrained("data/pocket-ast").eval()
extract = AutoFeatureExtractor.from_pretrained("data/pocket-ast")
wave, rate = soundfile.read("clip.wav", dtype="float32")  # mono, 16 kHz: resample others
logits = network(**extract(wave, sampling_rate=16_000, return_tensors="pt")).logits[0]
print(network.config.id2label[logits.argmax().item()])
```

| part | ESC-10 | clips | accuracy | 95 % interval |
|---|---|---|---|---|
| training | folds 1–4 | 320 | | |
| **reported** | fold 5 | {n} | **{accuracy:.3f}** | {low:.2f}–{high:.2f} |

Chance is 0.1. The interval is Wilson's and takes the {n} clips to be independent; they come from {sources} recordings, so it is rather too narrow.
No recording is in two folds. Settings and number of epochs were chosen by training without fold 2 or fold 4 and testing on it; fold 5 chose
nothing. Trained likewise on three of folds 1–4 and tested on the fourth, a network gets {others} of folds 1 to 4: {mean:.2f} on average. Expect
that of new recordings rather than what one fold says.

![loss and accuracy by epoch](training.png)

In training most of a clip is hidden and half of the clips are mixtures of two, so the curves look worse than the model is.

Fold 5, by class:

{classes}

Rows true, columns predicted:

{confusion}

## Limits

It is a model to try methods on, not one to rely on: it has heard 320 clips, eight of each class in fold 5 are few to judge it by,
and it names one of its ten sounds whatever it hears, speech and silence included. What is longer than five seconds is
cut. What is shorter is padded by the feature extractor with a value that stands for a middling level, not for silence, and that training
did not show: even clips it was trained on are then often misheard. Repeat a short sound until it fills five seconds.

## Which recordings

`recordings.csv` holds fingerprints of the clips that it was trained on (`data/README.md`): from them the workbook knows a copy under any name.

## Data and licence

ESC-10 (K. J. Piczak 2015, ESC: Dataset for Environmental Sound Classification, *Proceedings of the 23rd ACM International Conference on
Multimedia*, 1015–1018, doi:10.1145/2733373.2806390) is [CC BY 3.0](https://creativecommons.org/licenses/by/3.0/), cut from recordings of the Freesound project, whose makers
[its own page](https://github.com/karolpiczak/ESC-10) names. The weights were trained on it and are given away under the same licence: use them for what you like, and name
the source. (The larger ESC-50 forbids commercial use; nothing of it outside ESC-10 was used.) No recording is in this folder.

`model.safetensors` sha256 `{digest}`
"""


def _markdown(table: pd.DataFrame) -> str:
    """A table with its index."""
    lines = ["| | " + " | ".join(table.columns) + " |", "|---" * (table.shape[1] + 1) + "|"]
    return "\n".join(lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in table.T.items()])


def _figure(curve: pd.DataFrame, file: Path) -> None:
    """Loss and accuracy in training; mixtures and left-out patches keep both far from perfect."""
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    epochs = np.arange(1, len(curve) + 1)
    left.plot(epochs, curve["loss"])
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, curve["accuracy"], label="augmented training clips")
    right.axhline(0.1, color="grey", ls=":", label="chance")
    right.set(xlabel="epoch", ylabel="accuracy", ylim=(0, 1))
    right.legend(frameon=False, fontsize="small", loc="center right")
    figure.savefig(file, dpi=110)
    plt.close(figure)


def write_card(folder: Path, network, table: pd.DataFrame, history, seed: int, others: list[float]) -> None:
    """README.md and training.png beside the weights.

    `table` has label, predicted and recording of each clip of fold 5; `others` is the accuracy on each of folds 1–4 of a
    network trained on the rest of them.
    """
    _figure(pd.DataFrame(history.curve), folder / "training.png")
    config = network.config
    labels = [config.id2label[i] for i in range(config.num_labels)]
    right = int((table["label"] == table["predicted"]).sum())
    interval = binomtest(right, len(table)).proportion_ci(method="wilson")
    precision, recall, f1, _ = precision_recall_fscore_support(
        table["label"], table["predicted"], labels=labels, zero_division=0
    )
    classes = pd.DataFrame({"recall": recall, "precision": precision, "F1": f1}, labels).map("{:.2f}".format)
    counts = confusion_matrix(table["label"], table["predicted"], labels=labels)
    text = CARD.format(
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        layers=config.num_hidden_layers,
        width=config.hidden_size,
        bands=config.num_mel_bins,
        patch=config.patch_size,
        step=config.time_stride,
        epochs=len(history.curve),
        minutes=history.seconds / 60,
        seed=seed,
        n=len(table),
        accuracy=right / len(table),
        low=interval.low,
        high=interval.high,
        others=", ".join(f"{value:.2f}" for value in others),
        mean=np.mean(others),
        sources=table["recording"].nunique(),
        classes=_markdown(classes),
        confusion=_markdown(pd.DataFrame(counts, labels, labels)),
        digest=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
    )
    (folder / "README.md").write_text(text)
