"""Plumbing of `make bench`: each row times our path against others of equal answers, and counts FLOPs and memory.

    @pytest.mark.parametrize("path", ["ours", "Captum"])
    def test_bench_sweep(measure, path):
        measure({"ours": ..., "Captum": ...}[path], row="sweep, 12 layers", path=path, same=np.asarray)

The rows are put together at the end: seconds (the median, or the quickest where paths were timed in turns), how many
times faster, how many times fewer FLOPs, and the peak of what torch allocates, the model not counted. With the fixture `threads` a row is timed with all and with one.
"""

from __future__ import annotations

from contextlib import nullcontext
from itertools import accumulate
from pathlib import Path
from time import perf_counter

import numpy as np
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

ALL = torch.get_num_threads()
COLUMNS = ("what", "against", "threads", "ours, s", "other, s", "times faster")
COLUMNS += ("ours, GFLOP", "other, GFLOP", "fewer FLOPs", "ours, peak MB", "other, peak MB", "asked")


def pytest_collection_modifyitems(items):
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("bench")


@pytest.fixture(scope="session")
def model():
    """WavLM base in shape, 12 layers of 768 neurons, with random weights."""
    from transformers import WavLMConfig, WavLMForSequenceClassification

    from xai_lib import models

    torch.manual_seed(0)
    network, labels = WavLMForSequenceClassification(WavLMConfig(num_labels=8)), [str(i) for i in range(8)]
    told = {"name": "base", "trained": "not trained: a benchmark", "preprocessor": {}, "device": "cpu"}
    return models.Model(network, labels=labels, **told)


@pytest.fixture(scope="session")
def noise(make_clips, tmp_path_factory):
    """noise(seconds): a corpus of one clip."""

    def make(seconds):
        length = round(16_000 * seconds)
        folder = tmp_path_factory.mktemp("noise")
        return make_clips(folder, 1, lengths=length, level=0.1, names="noise.wav", subtype="PCM_16")

    return make


@pytest.fixture(params=dict.fromkeys([ALL, 1]), ids="{} threads".format)
def threads(request):
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(ALL)


class Untracked(nullcontext):
    """Counts FLOPs where the input of a module is a leaf, as with Captum: without asking which module they are of."""

    parents = frozenset({"Global"})


def count(function) -> tuple:
    """What `function()` returns, its FLOPs, and the most bytes that torch's allocations in it held at once."""
    counter, memory = FlopCounterMode(display=False), torch.profiler.profile(profile_memory=True)
    counter.mod_tracker = Untracked()
    with memory, counter:
        found = function()
    events = [event for event in memory.profiler.kineto_results.events() if event.name() == "[memory]"]
    sizes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return found, int(counter.get_total_flops()), max(accumulate(sizes), default=0)


@pytest.fixture(scope="session")
def counted():
    """{row: {path: (FLOPs, bytes, the part of the answer that all paths share)}}: counted once, timed by thread."""
    return {}


@pytest.fixture
def measure(benchmark, counted):
    """measure(function, row=..., path="ours"): count FLOPs and memory of `function()`, then time it.

    Where `same` makes an array of what the function returns, that of all paths must be equal. `times`: how many times
    as long the whole of it takes, where only a part of the other path is run. `timed`: false on the device "meta",
    where FLOPs are counted and nothing is computed. `asked`, {column: how much at least} (of memory: at most), stands
    beside what is measured; FLOPs, which are the same everywhere, must keep to it.
    """

    def run(function, *, row, path="ours", rounds=3, times=1, same=None, timed=True, asked=None):
        known = counted.setdefault(row, {})
        if path not in known:  # also the warm-up
            found, flops, peak = count(function)
            known[path] = flops, peak, None if same is None else np.asarray(same(found))
        flops, peak, answer = known[path]
        for *_, other in known.values():
            if answer is not None:
                assert answer.shape == other.shape and np.abs(answer - other).max() <= 1e-4 * np.abs(other).max() > 0
        least = (asked or {}).get("fewer FLOPs", 0) * known["ours"][0] if "ours" in known and path != "ours" else 0
        assert flops * times >= least, f"{row}: not {asked['fewer FLOPs']} times fewer FLOPs"
        benchmark.group = row
        benchmark.extra_info.update(
            path=path, threads=torch.get_num_threads(), flops=flops, peak=peak, times=times, timed=timed
        )
        benchmark.extra_info["asked"] = ", ".join(f"{name} {size}" for name, size in (asked or {}).items()) or "–"
        return benchmark.pedantic(function if timed else lambda: None, rounds=rounds, iterations=1)

    return run


in_turns: list[dict] = []  # records like pytest-benchmark's, of what was timed in turns


@pytest.fixture
def measure_in_turns():
    """measure_in_turns({path: function}, row=...): time functions of equal answers in turns, the quickest of each.

    For ratios near 1: other work on the machine only ever slows, and slows one turn as likely as another.
    """

    def run(functions, *, row, turns=7, asked=None):
        counts = {path: count(function) for path, function in functions.items()}  # also the warm-up
        answers = [np.asarray(answer) for answer, _, _ in counts.values()]
        for answer in answers:
            np.testing.assert_allclose(answer, answers[0], rtol=0, atol=1e-4 * np.abs(answers[0]).max())

        quickest = dict.fromkeys(functions, float("inf"))
        for _ in range(turns):
            for path, function in functions.items():
                start = perf_counter()
                function()
                quickest[path] = min(quickest[path], perf_counter() - start)

        for path, (_, flops, peak) in counts.items():
            about = {"path": path, "threads": torch.get_num_threads(), "flops": flops, "peak": peak, "times": 1}
            about |= {"timed": True, "asked": asked or "–"}
            in_turns.append({"group": row, "extra_info": about, "stats": {"median": quickest[path]}})

    return run


def table(benchmarks) -> list[str]:
    """Markdown rows from pytest-benchmark's records: each other path against ours, by group and number of threads."""
    groups: dict = {}
    for record in benchmarks:
        info = record["extra_info"]
        seconds = record["stats"]["median"] * info["times"] if info["timed"] else float("nan")
        found = seconds, info["flops"] * info["times"], info["peak"], info["asked"]
        groups.setdefault((record["group"], info["threads"]), {})[info["path"]] = found
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for (row, threads), paths in groups.items():
        seconds, flops, peak, _ = paths.get("ours", (float("nan"), 0, 0, "–"))
        for path, (other_seconds, other_flops, other_peak, asked) in sorted(paths.items()):
            if path != "ours" or len(paths) == 1:
                fewer = f"{other_flops / flops:.1f}" if flops else "–"
                lines.append(
                    f"| {row} | {path} | {threads} | {seconds:.3f} | {other_seconds:.3f} "
                    f"| {other_seconds / seconds:.2f} | {flops / 1e9:.2f} | {other_flops / 1e9:.2f} | {fewer} "
                    f"| {peak / 1e6:.0f} | {other_peak / 1e6:.0f} | {asked} |"
                )
    return lines


def pytest_terminal_summary(terminalreporter, config):
    session = getattr(config, "_benchmarksession", None)
    records = [
        {"group": b.group, "extra_info": b.extra_info, "stats": {"median": b.stats.median}}
        for b in getattr(session, "benchmarks", [])
        if b and "path" in b.extra_info and not b.has_error
    ]
    records += in_turns
    if records:
        terminalreporter.write_sep("=", "performance")
        for line in table(records):
            terminalreporter.write_line(line)
