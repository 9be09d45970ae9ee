"""Environment of all tests and of the notebooks that nbval runs; set before torch or the hub is imported."""

from __future__ import annotations

import atexit
import os
import queue
import shutil
import signal
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
WIDGET = "application/vnd.jupyter.widget-view+json"
_cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 1))

os.environ["HF_HUB_OFFLINE"] = "1"  # read once, when huggingface_hub is imported
os.environ["TQDM_DISABLE"] = "1"
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
if (
    "OMP_NUM_THREADS" not in os.environ or "XAI_SHARED_CORES" in os.environ
):  # xdist's workers inherit the first's choice
    os.environ.update(OMP_NUM_THREADS=str(max(1, _cores // _workers)), XAI_SHARED_CORES="1")
os.environ["XAI_RUN_DIR"] = tempfile.mkdtemp(prefix="xai-run-")  # notebooks leave nothing in the checkout
atexit.register(shutil.rmtree, os.environ["XAI_RUN_DIR"], ignore_errors=True)
for _name in (
    "CORPUS",
    "ROOT",
    "FILES",
    "MODEL",
    "EMOTION",
    "LAYER",
    "NEURON",
    "K",
    "MAX_CLIPS",
    "BATCH",
    "DEVICE",
    "SEED",
    "PROFILE",
):
    os.environ.pop(_name, None)  # a user's parameters are no part of a test


ONE_TRY = 0.9  # seconds
running: set[str] = set()  # tests that have begun and not ended, as this process knows of them
troubles: list[str] = []  # what went wrong outside of the tests
compiled: list[Path] = []  # librosa's compiled functions, in the process that starts the workers


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests: cpu or cuda")


def pytest_configure(config):
    if config.pluginmanager.hasplugin("nbval"):
        prepare_nbval()
    if not hasattr(config, "workerinput"):  # asked to stop, it reports what was running, as when it is interrupted
        signal.signal(signal.SIGTERM, interrupt)
    if getattr(config.option, "numprocesses", None):  # this process starts workers
        from tests import librosa_cache

        librosa_cache.fill()
        compiled.extend(librosa_cache.files())


def interrupt(number, frame):
    """Interrupt the run once: a second signal would break off the report of what was running."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    raise KeyboardInterrupt


def prepare_nbval():
    """Leave live widgets out of comparisons, and wait for a kernel as long as it lives."""
    from nbval.kernel import RunningKernel
    from nbval.plugin import IPyNbCell

    compare, get_message = IPyNbCell.compare_outputs, RunningKernel.get_message
    if compare.__name__ == "without_widgets":
        return

    def without_widgets(cell, test, ref, skip_compare=None):
        """Live widgets, progress bars among them, are in no stored output: compare the rest."""
        live = [output for output in test if WIDGET not in output.get("data", {})]
        return compare(cell, live, ref, skip_compare)

    def while_it_lives(kernel, stream, timeout=None):
        """Wait for the next message: nbval waits for some of them 5 seconds, which a slow machine misses."""
        if timeout == ONE_TRY:
            return get_message(kernel, stream, timeout)
        while True:
            try:
                return get_message(kernel, stream, timeout=1)
            except queue.Empty:
                if not kernel.is_alive():
                    raise RuntimeError("the kernel died: see what the cell asks of memory") from None

    def until_it_is_heard(kernel):
        """Ask a new kernel again and again, until an answer comes on the channel of outputs too."""
        heard = False
        while not heard:
            question = kernel.kc.kernel_info()
            kernel.await_reply(question)
            try:
                kernel.await_idle(question, ONE_TRY)
                heard = True
            except queue.Empty:
                continue

    IPyNbCell.compare_outputs = without_widgets
    RunningKernel._ensure_iopub_up = until_it_is_heard
    RunningKernel.get_message = while_it_lives


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # an nbval notebook: pictures and markup differ between machines
        collector.skip_compare += ("text/html", "image/png", "image/svg+xml", WIDGET)


# ---------- reports of a run that is ended from outside, whose workers die, or which compiled side by side


def pytest_runtest_logstart(nodeid):
    running.add(nodeid)


def pytest_runtest_logfinish(nodeid):
    running.discard(nodeid)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node, error):
    if error:
        troubles.append(f"worker {node.gateway.id} died ({error}): what no worker had begun by then was not run")


def pytest_sessionfinish(session):
    if hasattr(session.config, "workerinput"):  # xdist interrupts a worker that takes long to end
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    if compiled:
        from tests import librosa_cache

        for path in sorted({*librosa_cache.files()} - {*compiled}):
            troubles.append(f"{path.name} was compiled by a worker: let tests/librosa_cache.py call that function")
    if troubles and not session.exitstatus:  # also a worker that died between two tests, which is in no report
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter):
    for line in troubles:
        terminalreporter.write_line(line, red=True)
    for nodeid in sorted(running):
        terminalreporter.write_line(f"was running when the run ended: {nodeid}", red=True)
