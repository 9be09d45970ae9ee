"""Plumbing of `make bench`: each row times our path against another of equal answers, and counts FLOPs.

    @pytest.mark.parametrize("path", ["ours", "captum"])
    def test_bench_sweep(measure, path):
        measure({"ours": ..., "captum": ...}[path], row="sweep, 12 layers", path=path)

The rows are put together at the end: seconds (median), how many times faster, and how many times fewer FLOPs.
"""

from __future__ import annotations

from pathlib import Path

import pytest


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("bench")


@pytest.fixture
def measure(benchmark):
    """measure(function, row=..., path="ours", rounds=3): time `function()` and count its FLOPs."""

    def run(function, *, row: str, path: str = "ours", rounds: int = 3):
        from torch.utils.flop_counter import FlopCounterMode

        with FlopCounterMode(display=False) as counter:
            function()  # also the warm-up
        benchmark.group = row
        benchmark.extra_info.update(path=path, flops=int(counter.get_total_flops()))
        return benchmark.pedantic(function, rounds=rounds, iterations=1)

    return run


def table(benchmarks) -> list[str]:
    """Markdown rows from pytest-benchmark's records: the other path over ours, by group."""
    groups: dict = {}
    for record in benchmarks:
        groups.setdefault(record["group"], {})[record["extra_info"]["path"]] = (
            record["stats"]["median"],
            record["extra_info"]["flops"],
        )
    lines = [
        "| what | against | ours, s | other, s | times faster | ours, GFLOP | other, GFLOP | fewer FLOPs |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row, paths in groups.items():
        seconds, flops = paths.get("ours", (float("nan"), 0))
        for path, (other_seconds, other_flops) in sorted(paths.items()):
            if path != "ours" or len(paths) == 1:
                fewer = f"{other_flops / flops:.1f}" if flops else "–"
                lines.append(
                    f"| {row} | {path} | {seconds:.3f} | {other_seconds:.3f} | {other_seconds / seconds:.1f} "
                    f"| {flops / 1e9:.2f} | {other_flops / 1e9:.2f} | {fewer} |"
                )
    return lines


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    records = [
        {"group": b.group, "extra_info": b.extra_info, "stats": {"median": b.stats.median}}
        for b in getattr(session, "benchmarks", [])
        if b and "path" in b.extra_info and not b.has_error
    ]
    if records:
        terminalreporter.write_sep("=", "performance")
        for line in table(records):
            terminalreporter.write_line(line)
