"""The model card of the pocket model: where its weights come from, what it can and cannot tell apart."""

from __future__ import annotations

import hashlib
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import pandas as pd
from sklearn.metrics import precision_recall_fscore_support

from xai_lib import corpora, statistics

CARD = """---
license: cc-by-nc-sa-4.0
library_name: transformers
pipeline_tag: audio-classification
---
# pocket-wavlm

A WavLM for emotion recognition with {parameters:.2f} M parameters, small enough to travel with the workbook. Trained from scratch in
{minutes:.0f} minutes on {where} (after some ten minutes in which speech and teachers are prepared), seed {seed}, by
`data/recipes/pocket_wavlm.py` (its settings: `data/recipes/pocket_wavlm_settings.py`). Raw audio at 16 kHz goes in as it is (`do_normalize: false`), so the
model hears how loud a clip is.

```python
import soundfile, torch
from transformers import AutoModelForAudioClassification

network = AutoModelForAudioClassification.from_pretrained("data/pocket-wavlm").eval()
wave, rate = soundfile.read("clip.wav", dtype="float32")  # mono, 16 kHz: resample others
logits = network(torch.from_numpy(wave)[None]).logits[0]
print(network.config.id2label[logits.argmax().item()])
```

One clip at a time: zeros that pad a batch are heard, and change what the model says. `models.load("pocket")` of the workbook does all this.

| part | speakers | clips | UAR | chance |
|---|---|---|---|---|
| training | RAVDESS actors 1–16, each with {voices} voices | {n_train} | | |
| training | sample voices 1–16, {n_voices} more synthetic voices | {n_synthetic} | | |
| without labels | {n_readers} readers of LibriSpeech | {n_read} | | |
| choosing the epoch | RAVDESS actors 17–18 | {n_choose} | {uar_choose:.3f} | 0.125 |
| **reported** | RAVDESS actors 19–20 | {n_ravdess} | **{uar_ravdess:.3f}** | 0.125 |
| **reported** | sample voices 17–24 | {n_sample} | **{uar_sample:.3f}** | 0.125 |

UAR is the mean recall over the eight emotions. Actors {by_actor}; sample voices {by_voice} (mean {mean:.2f}, 95 % t interval over the eight
{low:.2f}–{high:.2f}). Two actors say little about the next one.

What was done to choose: method and settings by learning from actors 1–14 and testing on 15–18, so that what 17–18 say here is
too kind; sample voices 17–24 were watched on the way. An earlier model, with a UAR of 0.531, had been reported on 19–20; nothing was chosen by that.
RAVDESS actors 21–24
took no part in anything: they are left for you.

## How it was trained

1. **Listening** ({listen} epochs): log-mel bands and F0 are read from layer 2, hidden frames are guessed from the last one, and
   synthetic speech is recognised. No emotion of a recording is named.
2. **Learning** ({learn} epochs): emotions, from the labels, and frame by frame from teachers: ridge regressions on random convolutions of
   log-mel bands and F0 (`data/recipes/pocket_teacher.py`). Every training actor is judged by teachers who have not heard that actor; those
   judgements have a UAR of {teacher_training:.3f} on actors 1–16 and {teacher_choosing:.3f} on 17–18. They judge LibriSpeech, too.

Recordings are heard with {voices} voices: the actor's own, and others that Praat made of it (vocal tract, F0, tempo). The
weights are a running average over steps, of the epoch that did best on actors 17–18: {epoch} of the {learn} of learning.

![losses, and UAR of actors 17–18, by epoch](training.png)

The loss of emotions is of synthetic speech alone up to the line.

## What it takes for what

RAVDESS actors 19–20, rows true, columns predicted:

{confusion_ravdess}

{classes_ravdess}

Sample voices 17–24:

{confusion_sample}

{classes_sample}

## Limits

It is a model to try methods on, not one to rely on: it was trained on {n_train} acted recordings of two sentences and on synthetic speech, and
on unseen people it is often wrong. It hears the level: recordings ten times quieter than RAVDESS (20 dB) are recognised much worse. What it does with speech that is not acted is not known.

## Which recordings

`recordings.csv` holds fingerprints of the recordings that it was trained on, and of those that chose its epoch (`data/README.md`): from them the
workbook knows a copy under any name, and does not take its speaker for one whom the model has not heard.

## Licence

RAVDESS (Livingstone and Russo 2018, *PLoS ONE* 13(5) e0196391; Zenodo record 1188976) is CC BY-NC-SA 4.0. The weights were trained on it and
carry [the same licence](https://creativecommons.org/licenses/by-nc-sa/4.0/): name the source, no commercial use, share alike. LibriSpeech
(Panayotov et al. 2015, ICASSP) is [CC BY 4.0](https://creativecommons.org/licenses/by/4.0/): name it too. The synthetic voices are ours (CC0).
espeak-ng and Praat, which spoke and altered voices, are programs under the GPL; that does not reach what they put out. No recording is in
this folder.

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


def _classes(scores: pd.DataFrame) -> str:
    """Recall, precision and F1 of each emotion, in Markdown."""
    found = precision_recall_fscore_support(
        scores["label"], scores["predicted"], labels=list(corpora.EMOTIONS), zero_division=0
    )
    lines = ["| | recall | precision | F1 |", "|---|---|---|---|"]
    rows = zip(corpora.EMOTIONS, found[1], found[0], found[2])
    return "\n".join(lines + [f"| {name} | " + " | ".join(f"{x:.2f}" for x in row) + " |" for name, *row in rows])


def _curves(path: Path, histories: dict) -> None:
    """What fell and what rose while training, both parts in one line of epochs."""
    table = pd.concat([pd.DataFrame(h.curve) for h in histories.values()], ignore_index=True)
    table.index += 1
    start = len(histories["listen"].curve)
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
    names = {"emotion": "emotion", "bands": "bands and F0", "frames": "teachers, frames", "clips": "teachers, clips"}
    for name, said in names.items():
        left.plot(table.index, table[name], label=said)
    left.set(xlabel="epoch", ylabel="loss", yscale="log")
    left.set_yticks([0.5, 1, 2, 5], ["0.5", "1", "2", "5"], minor=False)
    left.minorticks_off()
    right.plot(table.index, table["uar"], label="UAR, actors 17–18")
    right.axhline(1 / 8, color="grey", ls=":", label="chance")
    right.set(xlabel="epoch", ylim=(0, 1), xlim=left.get_xlim())
    for axes in (left, right):
        axes.axvline(start + 0.5, color="grey", lw=0.8)
        axes.text(start + 0.7, axes.get_ylim()[1], "learning", va="top", color="grey", fontsize="small")
        axes.legend(frameon=False, fontsize="small")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _by_speaker(scores: pd.DataFrame) -> pd.Series:
    """UAR of each speaker, by number."""
    found = {speaker: statistics.uar(part["label"], part["predicted"]) for speaker, part in scores.groupby("speaker")}
    return pd.Series({int(speaker.split("-")[1]): value for speaker, value in found.items()})


def write_card(
    folder: Path, network, tables: dict, histories: dict, table: pd.DataFrame, seed: int, where: str
) -> None:
    """README.md and training.png beside the weights; `table` is what was trained on, of `pocket_teacher.teach`."""
    _curves(folder / "training.png", histories)
    actors, voices = _by_speaker(tables["ravdess"]), _by_speaker(tables["sample"])
    mean, low, high = statistics.interval(voices)
    heard = table[table["variant"] == 0]
    sizes = heard["source"].value_counts()
    text = CARD.format(
        parameters=sum(p.numel() for p in network.parameters()) / 1e6,
        minutes=sum(history.seconds for history in histories.values()) / 60,
        seed=seed,
        where=where,
        by_actor=", ".join(f"{speaker} {value:.2f}" for speaker, value in actors.items()),
        by_voice=", ".join(f"{speaker} {value:.2f}" for speaker, value in voices.items()),
        mean=mean,
        low=low,
        high=high,
        voices=1 + int(table["variant"].max()),
        n_train=int(((heard["source"] == "ravdess") & (heard["actor"] <= 16)).sum()),
        n_voices=heard.loc[heard["source"] == "synthetic", "speaker"].nunique(),
        n_synthetic=int(sizes["sample"] + sizes["synthetic"]),
        n_readers=heard.loc[heard["source"] == "librispeech", "speaker"].nunique(),
        n_read=int(sizes["librispeech"]),
        epoch=histories["learn"].epoch,
        digest=hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest(),
        **{name: len(history.curve) for name, history in histories.items()},
        **{f"teacher_{k}": v for k, v in table.attrs["uar"].items()},
        **{f"n_{k}": len(v) for k, v in tables.items()},
        **{f"uar_{k}": statistics.uar(v["label"], v["predicted"]) for k, v in tables.items()},
        **{f"confusion_{k}": _table(v) for k, v in tables.items()},
        **{f"classes_{k}": _classes(v) for k, v in tables.items()},
    )
    (folder / "README.md").write_text(text)
