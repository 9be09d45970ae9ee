"""The table at the end of `make bench`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_ratios():
    spec = importlib.util.spec_from_file_location("bench_conftest", Path(__file__).parent / "bench" / "conftest.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def record(path, median, flops):
        return {"group": "sweep", "extra_info": {"path": path, "flops": flops}, "stats": {"median": median}}

    lines = bench.table([record("captum", 3.0, 10e9), record("ours", 0.5, 4e9)])
    assert lines[2:] == ["| sweep | captum | 0.500 | 3.000 | 6.0 | 4.00 | 10.00 | 2.5 |"]
