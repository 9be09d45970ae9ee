"""What the neurons of speech-emotion models do: the library behind the workbook."""

import importlib

__version__ = "0.1.0"

# What is meant to be imported; README.md of this folder says what each is for.
__all__ = [
    "ablation",
    "activations",
    "attribution",
    "audio",
    "corpora",
    "dissection",
    "edits",
    "execution",
    "faithfulness",
    "heads",
    "hooks",
    "models",
    "plots",
    "probing",
    "pruning",
    "results",
    "statistics",
    "targets",
    "widgets",
    "workbook",
]

ELSEWHERE = {"heads": "activations.heads"}  # what users look for at the top


def __getattr__(name):
    """Import a package when it is first asked for."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f".{ELSEWHERE.get(name, name)}", __name__)
