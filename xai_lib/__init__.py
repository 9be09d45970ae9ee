"""Explanations of the neurons of speech-emotion models: the library behind the workbook."""

import importlib

__version__ = "0.1.0"

# The public modules and packages; README.md of this folder describes each.
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

ALIASES = {"heads": "activations.classifier_heads"}  # modules inside a package that are offered at the top level too


def __getattr__(name):
    """Import a package when it is first used."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f".{ALIASES.get(name, name)}", __name__)
