"""What `import xai_lib` costs, against the import of torchaudio that its check saves."""

from __future__ import annotations

import subprocess
import sys

import pytest


@pytest.mark.parametrize("path", ["ours", "import torchaudio"])
def test_bench_import(measure, path):
    code = "import xai_lib" if path == "ours" else path
    measure(lambda: subprocess.run([sys.executable, "-c", code], check=True), row="import of xai_lib", path=path)
