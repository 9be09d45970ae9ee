"""The sections of the golden arrays: each is a function that gives {name of a result: result}."""

import warnings

import torch

from . import adapter, attributing, drawing, editing, made, naming, sounds, store

FUNCTIONS = (
    drawing.seeds,
    drawing.clips,
    drawing.who,
    drawing.tests,
    drawing.sound,
    attributing.gradients,
    attributing.shap,
    attributing.deletion,
    attributing.segment,
    attributing.exhaustive,
    attributing.contrast,
    attributing.activity,
    attributing.course,
    attributing.probing,
    attributing.head,
    attributing.decoding,
    editing.edit,
    editing.null,
    editing.donor,
    editing.sweep,
    editing.sets,
    editing.effect,
    editing.invert,
    editing.chosen,
    editing.prune,
    naming.words,
    naming.describe,
    naming.claim,
    naming.identify,
    naming.similarity,
    naming.nothing,
    made.speakers,
    made.differing,
    sounds.ast,
    sounds.files,
    sounds.opened,
)
SECTIONS = {function.__name__: function for function in FUNCTIONS}


def found(section) -> dict:
    """The results of a section as of today's code, on one thread, by their old names: {name: Dataset}."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # few clips, and speakers that the encoder was trained on
            results = SECTIONS[section]()
    finally:
        torch.set_num_threads(threads)
    return adapter.old_names(section, {name: store.plain(result) for name, result in results.items()})
