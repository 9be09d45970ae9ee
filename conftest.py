"""Environment of all tests and of the notebooks that nbval runs; set before torch or the hub is imported."""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from pathlib import Path

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


def pytest_addoption(parser):
    parser.addoption("--device", default="cpu", help="device of the tests: cpu or cuda")


def pytest_configure(config):
    if not config.pluginmanager.hasplugin("nbval"):
        return
    from nbval.plugin import IPyNbCell

    compare = IPyNbCell.compare_outputs

    def without_widgets(cell, test, ref, skip_compare=None):
        """Live widgets, progress bars among them, are in no stored output: compare the rest."""
        live = [output for output in test if WIDGET not in output.get("data", {})]
        return compare(cell, live, ref, skip_compare)

    if compare.__name__ != "without_widgets":
        IPyNbCell.compare_outputs = without_widgets


def pytest_collectstart(collector):
    if hasattr(collector, "skip_compare"):  # an nbval notebook: pictures and markup differ between machines
        collector.skip_compare += ("text/html", "image/png", "image/svg+xml", WIDGET)
