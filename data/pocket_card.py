"""The model card of the pocket model: where its weights come from, what it can and cannot tell apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from xai_lib import corpora, statistics

CARD = """---
license: cc-by-nc-sa-4.0
library_name: transformers
pipeline_tag: audio-classification
---
# pocket-wavlm

A WavLM for emotion recognition with {parameters:.2f} M parameters, small enough to travel with the workbook. Trained from scratch, {epochs}
epochs in {minutes:.0f} minutes, seed {seed}, by `data/train_pocket.py`; no pre-training. Raw audio at 16 kHz goes in as it is
(`do_normalize: false`), so the model hears how loud a clip is.

| part | speakers | clips | UAR | chance |
|---|---|---|---|---|
| training | RAVDESS actors 1–16, sample voices 1–16 | | | |
| choosing the epoch | RAVDESS actors 17–18 | 120 | {chosen:.3f} | 0.125 |
| **reported** | RAVDESS actors 19–20 | {n_ravdess} | **{uar_ravdess:.3f}** | 0.125 |
| **reported** | sample voices 17–24 | {n_sample} | **{uar_sample:.3f}** | 0.125 |

UAR (mean recall over the eight emotions) by speaker: {by_speaker}.
Nobody here has heard RAVDESS actors 21–24: they are left for you.

![loss, accuracy and UAR by epoch](training.png)

RAVDESS actors 19–20, rows true, columns predicted:

{confusion_ravdess}

Sample voices 17–24:

{confusion_sample}

## Limits

It is a model to try methods on, not one to rely on: it was trained on {n_real} acted recordings and 480 synthetic clips, and on
unseen people it is often wrong. What it does with speech that is not acted, or not these two sentences, is not known.

## Licence

RAVDESS (Livingstone and Russo 2018, *PLoS ONE* 13(5) e0196391; Zenodo record 1188976) is CC BY-NC-SA 4.0. The weights were trained on it and
carry the same licence: name the source, no commercial use, share alike. No recording is in this folder.

`model.safetensors` sha256 `{digest}`
"""


def _table(scores: pd.DataFrame) -> str:
    """Confusion matrix in Markdown."""
    counts = pd.crosstab(scores["label"], scores["predicted"]).reindex(
        index=corpora.EMOTIONS, columns=corpora.EMOTIONS, fill_value=0
    )
    lines = ["| | " + " | ".join(counts.columns) + " |", "|---" * (len(counts) + 1) + "|"]
    return "\n".join(
        lines + [f"| {name} | " + " | ".join(map(str, row)) + " |" for name, row in zip(counts.index, counts.values)]
    )


def write_card(folder: Path, tables: dict, state: dict, given) -> None:
    """README.md and training.png beside the weights."""
    loss, accuracy, uar = np.array(state["curve"]).T
    figure, (left, right) = plt.subplots(1, 2, figsize=(8, 2.8), layout="constrained")
    epochs = np.arange(1, len(loss) + 1)
    left.plot(epochs, loss)
    left.set(xlabel="epoch", ylabel="training loss")
    right.plot(epochs, accuracy, label="accuracy, training windows")
    right.plot(epochs, uar, label="UAR, actors 17–18")
    right.axhline(1 / 8, color="grey", ls=":", label="chance")
    right.set(xlabel="epoch", ylim=(0, 1))
    right.legend(frameon=False, fontsize="small")
    figure.savefig(folder / "training.png", dpi=110)
    plt.close(figure)
    everyone = pd.concat(tables.values())
    by_speaker = ", ".join(
        f"{name} {statistics.uar(part['label'], part['predicted']):.2f}" for name, part in everyone.groupby("speaker")
    )
    weights = (folder / "model.safetensors").read_bytes()
    text = CARD.format(
        parameters=sum(v.numel() for v in state["weights"].values()) / 1e6,
        epochs=len(loss),
        minutes=state["seconds"] / 60,
        seed=given.seed,
        chosen=state["best"],
        by_speaker=by_speaker,
        n_real=960,
        digest=hashlib.sha256(weights).hexdigest(),
        **{f"n_{k}": len(v) for k, v in tables.items()},
        **{f"uar_{k}": statistics.uar(v["label"], v["predicted"]) for k, v in tables.items()},
        **{f"confusion_{k}": _table(v) for k, v in tables.items()},
    )
    (folder / "README.md").write_text(text)
