"""Write what the neurons of the bundled models respond to: descriptions/<model>.csv and .json.

python data/recipes/describe_pocket.py ~/corpora/esc10    # pocket-wavlm from the sample corpus, pocket-ast from ESC-10; minutes

Words and concepts are written from the clips that the model was trained on, and tested on those that it was not.
"""

import hashlib
import json
import sys
from pathlib import Path

import numpy as np

DATA = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(DATA.parent))

from xai_lib import corpora, dissection, models
from xai_lib.dissection import descriptions, open_concepts
from xai_lib.workbook import inputs

PARTS = ("attention", "ffn_hidden", "ffn_out")
LISTS = {"pocket-wavlm": "emotions", "pocket-ast": "esc10"}
SEED, EXEMPLARS = 0, 2


def table(model, clips, concept_list, noun, frames="all"):
    """A row for each neuron, from clips with a column `split`."""
    train, test = (clips[clips["split"] == side] for side in ("train", "test"))
    measured = corpora.features_table(clips)
    captions = descriptions.captions(measured, measured.loc[train.index], noun=noun)
    heard = dissection.activations(model, train, PARTS, frames=frames)["activation"]
    held = dissection.activations(model, test, PARTS, frames=frames)["activation"]
    described = dissection.describe(heard, captions, draws=1, seed=SEED)
    foretold = dissection.predictivity(held, described, captions, seed=SEED)
    auroc = open_concepts.predictivity_auroc(held, described, captions, draws=1, seed=SEED)["auroc"]
    named = dissection.identify(
        heard, concepts=descriptions.concepts(concept_list), captions=captions.loc[train.index], seed=SEED
    )
    said = open_concepts.adjectives(described["z"])
    words, names = said["adjective"].values, np.array([Path(path).stem for path in train["path"][heard["clip"].values]])
    strongest = heard.values.argsort(axis=0, kind="stable")[::-1][:EXEMPLARS]
    out = heard["unit"].to_index().to_frame(index=False)
    out["description"] = [descriptions.sentence(z) for z in described["z"].transpose("unit", "word")]
    out["adjectives"] = [" ".join(words[row]) for row in said.transpose("unit", "adjective").values]
    for name, values in {"rho": foretold["rho"], "rho_q": foretold["q"], "auroc": auroc}.items():
        out[name] = values.values
    out["concept"] = named["name"].values
    out["concept_score"], out["concept_p"], out["concept_q"] = (named[name].values for name in ("best", "p", "q"))
    out["exemplars"] = [" ".join(names[rows]) for rows in strongest.T]
    for name in ("rho_q", "concept_p", "concept_q"):
        out[name] = np.ceil(out[name] * 1e4) / 1e4  # up: a q is never 0
    return out.round({"rho": 2, "auroc": 2, "concept_score": 2})


def main(esc10):
    """Both models."""
    for name, concept_list in LISTS.items():
        speech = name == "pocket-wavlm"
        model = models.load(DATA / name, device="cpu")
        corpus = corpora.load("sample") if speech else corpora.load("esc-10", root=esc10)
        clips = inputs.split(corpus, model)
        frames = "speech" if speech else "all"
        found = table(model, clips, concept_list, "voice" if speech else "sound", frames)
        file = DATA / "descriptions" / f"{name}.csv"
        file.parent.mkdir(exist_ok=True)
        found.to_csv(file, index=False, float_format="%.6g")
        about = {
            "model": name,
            "weights_sha256": hashlib.sha256((DATA / name / "model.safetensors").read_bytes()).hexdigest(),
            "made_by": "data/recipes/describe_pocket.py",
            "corpus": "sample" if speech else "esc-10",
            "written_from": {"clips": int((clips["split"] == "train").sum()), "of": _whom(clips, "train")},
            "tested_on": {"clips": int((clips["split"] == "test").sum()), "of": _whom(clips, "test")},
            "pool": "mean",
            "frames": frames,
            "captioner": "measured acoustics",
            "concepts": concept_list,
            "method": "DB, cosine",
            "seed": SEED,
        }
        file.with_suffix(".json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
        print(f"{file.name}: {len(found)} neurons, {file.stat().st_size / 1e6:.2f} MB")


def _whom(clips, side):
    """How many speakers are on one side, or recordings and of which folds."""
    rows = clips[clips["split"] == side]
    count = f"{rows['speaker'].nunique()} {'recordings' if 'fold' in rows else 'speakers'}"
    return count + (f", folds {' '.join(sorted(rows['fold'].unique()))}" if "fold" in rows else "")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    main(sys.argv[1])
