"""What `import xai_lib` costs, against the import of torchaudio that its check saves."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("path", ["ours", "import torchaudio"])
def test_import_is_timed_against_torchaudio(measure, path):
    """Importing `xai_lib` succeeds in a new process, and is timed against an import of torchaudio."""
    code = "import xai_lib" if path == "ours" else path
    measure(lambda: subprocess.run([sys.executable, "-c", code], check=True), row="import of xai_lib", path=path)
