"""The examples in docstrings of the functions that are used most."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path

import pytest

FUNCTIONS = (
    "ablation.effects:summary",
    "ablation.selection:select",
    "ablation.sweeping:sweep",
    "activations.exemplars:exemplars",
    "activations.extraction:activations",
    "attribution.gradients:grad_x_activation",
    "attribution.gradientshap:gradient_shap",
    "attribution.ranking:top_neurons",
    "corpora.loading:as_clips",
    "corpora.loading:load",
    "corpora.sampling:balanced",
    "corpora.sampling:split",
    "dissection.describing:describe",
    "edits:edit",
    "execution:cascade",
    "hooks:capture",
    "hooks:edit",
    "models.loading:load",
    "models.model:Model.predict",
    "pruning.evaluation:evaluate",
    "pruning.weights:prune",
    "statistics.intervals:over_speakers",
)
ROOT = Path(__file__).parents[1]


def examples_of(name):
    """The examples in a docstring, by its function, "module:function", below `xai_lib`."""
    module, path = name.split(":")
    documented = importlib.import_module(f"xai_lib.{module}")
    for part in path.split("."):
        documented = getattr(documented, part)
    return doctest.DocTestParser().get_doctest(documented.__doc__, {}, name, None, 0)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_example_prints_what_its_docstring_says(name):
    """The examples of a docstring run as they stand, and return what is written there."""
    examples = examples_of(name)
    said = []
    results = doctest.DocTestRunner(verbose=False, optionflags=doctest.NORMALIZE_WHITESPACE).run(
        examples, out=said.append
    )
    assert results.attempted >= 2, "there are no examples"
    assert results.failed == 0, "".join(said)


def test_examples_are_all_run():
    """No docstring has examples that are not run here."""
    n_examples = sum(path.read_text(encoding="utf-8").count("    >>> ") for path in ROOT.glob("xai_lib/**/*.py"))
    assert n_examples == sum(len(examples_of(name).examples) for name in FUNCTIONS)


def test_examples_that_are_wrong_fail():
    """An example whose output is not what is written there is found."""
    wrong = doctest.DocTestParser().get_doctest(">>> 1 + 1\n3\n", {}, "wrong", None, 0)
    assert doctest.DocTestRunner(verbose=False).run(wrong, out=lambda text: None).failed == 1
