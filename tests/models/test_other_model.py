"""All notebooks on a model of another kind than the bundled one: group norm over time, as wavlm-base, and a fitted head."""

from __future__ import annotations

import pytest

from xai_lib import corpora, heads, models
from xai_lib.workbook import command_line


@pytest.fixture(scope="module")
def fitted(tiny_folder, tmp_path_factory):
    encoder = models.load(tiny_folder("base"), device="cpu", allow_untrained_head=True)
    clips = corpora.load("sample").query("split == 'train'")
    folder = tmp_path_factory.mktemp("fitted") / "head"
    heads.fit(encoder, corpora.balanced(clips, 64), folder, folds=4)
    return folder


@pytest.mark.full
@pytest.mark.parametrize("number", ["01", "02", "03", "04", "05", "06"])
def test_notebook_runs_on_another_model(fitted, tmp_path, capsys, number):
    """Each of notebooks 01 to 06 runs on a small WavLM with a fitted head, and saves a figure."""
    options = ["--only", number, "--workers", "1", "--results", str(tmp_path), "max_clips=16", "k=3"]
    status = command_line.main([*options, f"model={fitted}", "emotion=sad"])
    assert status == 0, capsys.readouterr().err
    assert list((tmp_path / "latest" / "figures").glob(f"{number}_*.png")), "no figure was saved"
