"""Run the notebooks: `python -m xai_lib.workbook`, which is what `make run` calls.

Parameters come from the environment (CORPUS, ROOT, FILES, MODEL, EMOTION, LAYER, NEURON, K, MAX_CLIPS, BATCH, DEVICE,
SEED, PROFILE) or as name=value; each run has its own folder under results/, and `results/latest` points to the newest.
"""

from __future__ import annotations

import argparse
import html
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import nbformat
import PIL.Image
from nbformat import NotebookNode
from tqdm.auto import tqdm

from ..corpora.filenames import KNOWN
from ..models.checkpoints import BUNDLED
from . import html_pages
from .notebook import ROOT
from .parameters import DEFAULTS, check, folder_name

if TYPE_CHECKING:
    from nbclient import NotebookClient

LONGEST_SOCKET = 90  # maximum characters of the folder; systems allow 104 or 108 for the full name
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


@dataclass(frozen=True)
class Execution:
    """An executed notebook: where it was written, its title, its duration, and what went wrong, if anything."""

    notebook: NotebookNode
    out: Path
    title: str
    seconds: float
    error: str | None  # a message with the cell's number


def parameters(environ: Mapping[str, str], pairs: Sequence[str] = ()) -> dict:
    """Return the parameters set by the environment and by name=value `pairs`, typed; ValueError if one is wrong."""
    raw_values = {}
    for name in DEFAULTS:
        if environ.get(name.upper()):
            raw_values[name] = environ[name.upper()]
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not name=value")
        raw_values[name.lower()] = value
    typed = {name: value for name, value in check(raw_values).items() if name in raw_values}
    for name in ("corpus", "root", "files", "model"):
        if typed.get(name):
            typed[name] = _absolute(name, typed[name])
    return typed


def _absolute(name: str, value: str) -> str:
    """Return the value of a parameter as an absolute path if it is a path, since kernels start in another folder."""
    # Bundled names take precedence over folders of the same name.
    bundled_names = {"corpus": {"sample", *KNOWN}, "model": {*BUNDLED.values()}}
    if value.lower() in bundled_names.get(name, ()):
        return value
    path = Path(value).expanduser()
    if name in {"root", "files"} or path.exists():
        return str(path.absolute())
    return value


def execute(
    path: Path, out: Path, *, values: Mapping, env: Mapping[str, str], tick: Callable[[], None] = lambda: None
) -> Execution:
    """Execute one notebook with the parameters `values` and write it to `out`, partial if a cell fails.

    `tick` is called after each cell.
    """
    from nbclient.exceptions import CellExecutionError

    start = time.monotonic()
    error = None
    notebook = _read(path, values)
    started_cells = [0]  # their numbers
    with tempfile.TemporaryDirectory(prefix="xai-", dir=_folder_of_sockets()) as sockets:
        client = _client(notebook, path.parent, sockets)
        client.on_cell_start = lambda cell, cell_index: started_cells.append(cell_index + 1)
        client.on_cell_executed = lambda **_: tick()
        try:
            client.execute(env=env)
        except CellExecutionError as failure:
            message = re.sub(r"\x1b\[[0-9;]*m", "", str(failure.evalue)).strip().split("\n")[0]
            error = f"{path.name}, cell {started_cells[-1]}: {failure.ename}: {message}"
        except Exception as failure:  # a dead kernel or a time-out: this notebook has failed, the others go on
            error = f"{path.name}, cell {started_cells[-1]}: {type(failure).__name__}: {failure}"
    tidy(notebook)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out)
    title = html_pages.title_of(notebook) or path.stem
    return Execution(notebook, out, title, time.monotonic() - start, error)


def _read(path: Path, values: Mapping) -> NotebookNode:
    """Return a notebook with the parameters `values` and without outputs."""
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook

    if values:
        notebook = parameterize_notebook(
            load_notebook_node(str(path)), values, kernel_name="python3", language="python"
        )
    else:
        notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = dict(KERNEL)
    for cell in notebook.cells:  # a cell that is not reached must not show outputs of other parameters
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    return notebook


def _client(notebook: NotebookNode, folder: Path, sockets: str) -> NotebookClient:
    """Return a client that executes a notebook in a folder, with the kernel's sockets in a private folder."""
    from nbclient import NotebookClient
    from traitlets.config import Config

    config = Config()
    # Sockets in a private folder: no races for ports, and no other user can read them.
    if os.name == "posix" and len(sockets) <= LONGEST_SOCKET:
        config.KernelManager.update(transport="ipc", ip=f"{sockets}/kernel")
    return NotebookClient(
        notebook,
        config=config,
        timeout=None,
        startup_timeout=3600,  # generous for slow machines; a kernel that dies is noticed at once anyway
        iopub_timeout=600,  # by default nbclient drops outputs that arrive more than four seconds after the reply
        record_timing=False,
        resources={"metadata": {"path": str(folder)}},
    )


def _folder_of_sockets() -> str | None:
    """Return the folder for kernels' sockets: None (the default), or /tmp if the default has too long a name."""
    default = tempfile.gettempdir()  # long on some clusters
    is_too_long = len(default) + len("/xai-12345678") > LONGEST_SOCKET
    return "/tmp" if is_too_long and os.access("/tmp", os.W_OK) else None  # noqa: S108


def tidy(notebook: NotebookNode) -> None:
    """Remove outputs that cannot be shown later (live widgets, progress bars) and metadata specific to the machine."""
    notebook.metadata["kernelspec"] = dict(KERNEL)
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    for key in ("widgets", "papermill"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def side_by_side(
    paths: Sequence[Path], folder: Path, *, values: Mapping, env: Mapping[str, str], workers: int
) -> list[Execution]:
    """Execute notebooks in `workers` threads (each kernel is its own process) under one progress bar.

    They are written to `folder`, which their kernels know as XAI_RUN_DIR.
    """
    threads = env.get("OMP_NUM_THREADS") or str(max(1, _cores() // workers))
    kernel_env = {**env, "XAI_RUN_DIR": str(folder), "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    lock = threading.Lock()
    executions = {}
    with (
        tqdm(total=_count_cells(paths, values), unit="cell", desc="notebooks", disable=None) as bar,
        ThreadPoolExecutor(workers) as pool,
    ):

        def tick():
            with lock:
                bar.update()

        futures = {}
        for path in paths:
            future = pool.submit(execute, path, folder / path.name, values=values, env=kernel_env, tick=tick)
            futures[future] = path
        try:
            for future in as_completed(futures):
                execution = future.result()
                executions[futures[future]] = execution
                state = "FAILED" if execution.error else "done"
                bar.write(f"{state:6} {execution.seconds:4.0f} s  {execution.out.name}")
        except KeyboardInterrupt:
            bar.close()
            print("interrupted; kernels end with this process", file=sys.stderr)
            os._exit(130)
    return [executions[path] for path in paths]


def _count_cells(paths: Sequence[Path], values: Mapping) -> int:
    """Return the number of code cells that are executed."""
    count = 0
    for path in paths:
        cells = nbformat.read(path, as_version=4).cells
        count += sum(cell.cell_type == "code" for cell in cells)
        if values:
            count += 1  # papermill adds a cell with the parameters
    return count


def _cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _update_index(results: Path, folder: Path) -> None:
    """Point results/latest to the newest run (a text file if links are not allowed) and list all runs in index.html."""
    latest = results / "latest"
    try:
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name, target_is_directory=True)
    except OSError:
        latest.write_text(folder.name)
    runs = [page.parent.name for page in results.glob("*/index.html") if not page.parent.is_symlink()]
    rows = ""
    for name in sorted(runs, reverse=True):
        rows += f'<li><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></li>'
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Runs</title>'
    page = f"{head}<h1>Runs, newest first</h1><ul>{rows}</ul></html>\n"
    (results / "index.html").write_text(page, encoding="utf-8")


def _thumbnail(path: Path, figures: Path, name: str) -> None:
    """Write docs/<number>.png, a small copy for the README of the figure that the notebook's metadata name."""
    sources = sorted(figures.glob(f"{path.name[:2]}_{name}.png"))
    if sources:
        thumbnail = path.parent.parent / "docs" / f"{path.name[:2]}.png"
        thumbnail.parent.mkdir(exist_ok=True)
        image = PIL.Image.open(sources[0])
        image.thumbnail((960, 960))
        image.save(thumbnail, optimize=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run from the command line; return exit status 0, 1 if a notebook failed, 2 if a parameter is wrong."""
    options = _options(argv)
    try:
        values = {} if options.refresh else parameters(os.environ, options.pairs)
        paths = _notebooks(options.notebooks, options.only)
        folder = None if options.refresh else _new_folder(options.results, values)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if options.refresh:
        executions = _refresh(paths, options.workers)
    else:
        executions = _run(paths, folder, values, options.workers)
    _print_failures(executions, name_files=not options.refresh)
    return int(any(execution.error for execution in executions))


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m xai_lib.workbook", description=__doc__.split("\n\n")[0])
    parser.add_argument("pairs", nargs="*", metavar="name=value", help=f"one of {', '.join(DEFAULTS)}")
    parser.add_argument("--only", nargs="+", default=[], metavar="01", help="numbers of the notebooks to run")
    parser.add_argument("--notebooks", type=Path, default=ROOT / "notebooks")
    parser.add_argument("--results", type=Path, default=ROOT / "results")
    parser.add_argument("--workers", type=int, default=min(2, _cores()), help="notebooks at a time")
    parser.add_argument("--refresh", action="store_true", help="rerun on the defaults and store the outputs in place")
    options = parser.parse_intermixed_args(argv)
    options.pairs += [word for word in options.only if "=" in word]  # --only 03 k=50: argparse takes both as numbers
    options.only = [word for word in options.only if "=" not in word]
    return options


def _kernel_environment() -> dict[str, str]:
    """Return the environment of the kernels, which find the library first."""
    python_path = str(ROOT)
    if os.environ.get("PYTHONPATH"):
        python_path += os.pathsep + os.environ["PYTHONPATH"]
    return {**os.environ, "PYTHONPATH": python_path}


def _notebooks(folder: Path, numbers: Sequence[str]) -> list[Path]:
    """Return the notebooks of a folder with these numbers (default: all); raise ValueError if there are none."""
    paths = sorted(folder.glob("[0-9][0-9]_*.ipynb"))
    if numbers:
        paths = [path for path in paths if path.name[:2] in numbers]
    missing = set(numbers) - {path.name[:2] for path in paths}
    if missing:
        raise ValueError(f"no notebooks numbered {', '.join(sorted(missing))} in {folder}")
    if not paths:
        raise ValueError(f"no notebooks such as 01_name.ipynb in {folder}")
    return paths


def _refresh(paths: Sequence[Path], workers: int) -> list[Execution]:
    """Execute notebooks on the defaults and store outputs and thumbnails in place."""
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        executions = side_by_side(paths, scratch, values={}, env=_kernel_environment(), workers=workers)
        for path, execution in zip(paths, executions):
            if not execution.error:  # a notebook that fails keeps its stored outputs
                nbformat.write(execution.notebook, path)
                _thumbnail(path, scratch / "figures", execution.notebook.metadata.get("thumbnail", "*"))
    return executions


def _new_folder(results: Path, values: dict) -> Path:
    """Make the folder of a run; raise ValueError if it cannot be written."""
    while (folder := results.absolute() / folder_name(check(values))).exists():
        time.sleep(0.2)  # another run with these parameters was started within this second
    try:
        folder.mkdir(parents=True)
    except OSError as error:
        reason = f"{error.strerror}: name another folder with --results"
        raise ValueError(f"results cannot be written to {results} ({reason})") from error
    return folder


def _run(paths: Sequence[Path], folder: Path, values: dict, workers: int) -> list[Execution]:
    """Execute notebooks with parameters and write them, their pages and an index to `folder`."""
    settings = ", ".join(f"{name}={value!r}" for name, value in values.items())
    print(f"{folder}\n{settings or 'bundled corpus and model'}", file=sys.stderr)
    executions = side_by_side(paths, folder, values=values, env=_kernel_environment(), workers=workers)
    for execution in executions:
        page = html_pages.to_html(execution.notebook, execution.title)
        execution.out.with_suffix(".html").write_text(page, encoding="utf-8")
    (folder / "index.html").write_text(html_pages.index(folder, executions, values), encoding="utf-8")
    _update_index(folder.parent, folder)
    print(f"results: {folder / 'index.html'}", file=sys.stderr)
    return executions


def _print_failures(executions: Sequence[Execution], *, name_files: bool) -> None:
    """Print each error once, with the cells of all notebooks that have it, and perhaps their partial files."""
    failures_by_message: dict[str, list[Execution]] = {}
    for execution in executions:
        if execution.error:
            message = execution.error.split(": ", 1)[1]
            failures_by_message.setdefault(message, []).append(execution)
    for message, failures in failures_by_message.items():
        cells = ", ".join(failure.error.split(": ")[0] for failure in failures)
        print(f"error: {cells}: {message}", file=sys.stderr)
        if name_files:
            files = ", ".join(str(failure.out) for failure in failures)
            print(f"       partial output: {files}", file=sys.stderr)
