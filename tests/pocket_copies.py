"""Copies of the bundled model with other heads."""

from __future__ import annotations

import json
import shutil

from safetensors.torch import load_file, save_file

from xai_lib.models import checkpoints


def head_of(size):
    """The first outputs of the head, as weights for `changed`."""
    return lambda state: {key: state[key][:size].clone() for key in ("classifier.weight", "classifier.bias")}


OTHER_HEADS = {
    "several labels": ({"problem_type": "multi_label_classification"}, None),
    "numbers": (
        {"problem_type": "regression", "id2label": {"0": "arousal", "1": "dominance", "2": "valence"}, "label2id": {}},
        head_of(3),
    ),
    "one number": ({"problem_type": "regression", "id2label": {"0": "valence"}, "label2id": {}}, head_of(1)),
    "one label": ({"problem_type": "single_label_classification"}, None),
    "of two": ({"id2label": {"0": "calm", "1": "angry"}, "label2id": {}}, head_of(2)),
}


def changed(folder, config=None, weights=None):
    """Copy the bundled model to a folder, with changes of its settings, and of its weights by a function of them."""
    shutil.copytree(checkpoints.POCKET, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | (config or {})))
    if weights is not None:
        state = load_file(folder / "model.safetensors")
        save_file({**state, **weights(state)}, folder / "model.safetensors", metadata={"format": "pt"})
    return folder
