"""The table at the end of `make bench`."""

from __future__ import annotations

import importlib.util
from pathlib import Path


def test_bench_table_computes_ratios():
    """The benchmark table gives times and FLOPs of other paths, repetitions included, as ratios to ours."""
    spec = importlib.util.spec_from_file_location("bench_conftest", Path(__file__).parents[1] / "bench" / "conftest.py")
    bench = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(bench)

    def record(path, median, flops, times=1, *, threads=1):
        about = {"path": path, "threads": threads, "flops": flops, "peak": 2e6, "times": times, "timed": True}
        about["asked"] = "fewer FLOPs 3" if path == "captum" else "–"
        return {"group": "sweep", "extra_info": about, "stats": {"median": median}}

    groups = [("captum", 6, 8e9, 2), ("ours", 4, 4e9)]
    found = bench.table([record(*one, threads=threads) for threads in (4, 1) for one in groups])
    assert found[2:] == [
        "| sweep | captum | 4 | 4.000 | 12.000 | 3.00 | 4.00 | 16.00 | 4.0 | 2 | 2 | fewer FLOPs 3 |",
        "| sweep | captum | 1 | 4.000 | 12.000 | 3.00 | 4.00 | 16.00 | 4.0 | 2 | 2 | fewer FLOPs 3 |",
    ]
    assert bench.table([record("ours", 4, 0)])[2:] == [
        "| sweep | ours | 1 | 4.000 | 4.000 | 1.00 | 0.00 | 0.00 | – | 2 | 2 | – |"
    ]
