"""Notebooks 01-04 on real recordings, through the same runner."""

from __future__ import annotations

import pytest

from xai_lib.workbook import command_line


@pytest.mark.full
@pytest.mark.real
@pytest.mark.parametrize("number", ["01", "02", "03", "04"])
def test_notebook_runs_on_real_recordings(real, tmp_path, capsys, number):
    """Notebooks 01 to 04 run without error on recordings of RAVDESS, and save a figure."""
    status = command_line.main(
        [
            "--only",
            number,
            "--workers",
            "1",
            "--results",
            str(tmp_path),
            "corpus=ravdess",
            f"root={real / 'ravdess'}",
            "max_clips=16",
            "k=5",
        ]
    )
    assert status == 0, capsys.readouterr().err
    assert list((tmp_path / "latest" / "figures").glob(f"{number}_*.png")), "no figure was saved"
