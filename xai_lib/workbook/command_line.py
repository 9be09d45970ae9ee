"""Run the notebooks: `python -m xai_lib.workbook`, which is what `make run` calls.

Parameters come from the environment (CORPUS, ROOT, FILES, MODEL, EMOTION, LAYER, NEURON, K, MAX_CLIPS, BATCH, DEVICE,
SEED, PROFILE) or as name=value; each run has a folder of its own under results/, and `results/latest` points to it.
"""

import argparse
import html
import os
import re
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from types import SimpleNamespace

import nbformat
import PIL.Image
from tqdm.auto import tqdm

from ..corpora.filenames import KNOWN
from ..models.checkpoints import BUNDLED
from . import html_pages, notebook
from .parameters import DEFAULTS, check, folder_name

LONGEST_SOCKET = 90  # characters of the folder; systems allow 104 or 108 for the whole name
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def parameters(environ: dict, pairs: list[str] = ()) -> dict:
    """The parameters that the environment and name=value `pairs` set, typed; ValueError if one is wrong."""
    given = {name: environ[name.upper()] for name in DEFAULTS if environ.get(name.upper())}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not name=value")
        given[name.lower()] = value
    typed = {name: value for name, value in check(given).items() if name in given}
    known = {"corpus": {"sample", *KNOWN}, "model": {*BUNDLED.values()}}  # names come before folders called so
    for name in ("corpus", "root", "files", "model"):  # kernels start elsewhere: say where paths lie
        value = typed.get(name)
        if value and value.lower() in known.get(name, ()):
            continue
        if value and (name in {"root", "files"} or Path(value).expanduser().exists()):
            typed[name] = str(Path(value).expanduser().absolute())
    return typed


def execute(path: Path, out: Path, *, given: dict, env: dict, tick=lambda: None) -> SimpleNamespace:
    """Execute one notebook with parameters and write it to `out`, partial if a cell fails.

    It returns `notebook`, `out`, `title`, `seconds` and `error` (a sentence with the cell's number, or None).
    """
    from nbclient import NotebookClient
    from nbclient.exceptions import CellExecutionError
    from papermill.iorw import load_notebook_node
    from papermill.parameterize import parameterize_notebook
    from traitlets.config import Config

    start, error = time.monotonic(), None
    if given:
        notebook = parameterize_notebook(load_notebook_node(str(path)), given, kernel_name="python3", language="python")
    else:
        notebook = nbformat.read(path, as_version=4)
    notebook.metadata["kernelspec"] = dict(KERNEL)
    for cell in notebook.cells:  # what is not reached must not show what other parameters gave
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    begun = [0]  # cells, by their numbers
    with tempfile.TemporaryDirectory(prefix="xai-", dir=_folder_of_sockets()) as sockets:
        config = Config()
        if (
            os.name == "posix" and len(sockets) <= LONGEST_SOCKET
        ):  # sockets in a folder of its own: no ports to race for, none that others can read
            config.KernelManager.update(transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(
            notebook,
            config=config,
            timeout=None,
            startup_timeout=3600,  # a kernel that dies is noticed at once; a slow machine must not miss this
            iopub_timeout=600,  # outputs that come after the reply: nbclient would drop them after four seconds
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: begun.append(cell_index + 1),
            on_cell_executed=lambda **_: tick(),
        )
        try:
            client.execute(env=env)
        except CellExecutionError as failed:
            says = re.sub(r"\x1b\[[0-9;]*m", "", str(failed.evalue)).strip().split("\n")[0]
            error = f"{path.name}, cell {begun[-1]}: {failed.ename}: {says}"
        except Exception as failed:  # a dead kernel, a time-out: this notebook has failed, the others go on
            error = f"{path.name}, cell {begun[-1]}: {type(failed).__name__}: {failed}"
    tidy(notebook)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out)
    title, seconds = html_pages.title_of(notebook) or path.stem, time.monotonic() - start
    return SimpleNamespace(notebook=notebook, out=out, title=title, error=error, seconds=seconds)


def _folder_of_sockets() -> str | None:
    """Where kernels' sockets lie: None, the usual place, or /tmp where that has too long a name, as clusters give it."""
    usual = tempfile.gettempdir()
    is_too_long = len(usual) + len("/xai-12345678") > LONGEST_SOCKET
    return "/tmp" if is_too_long and os.access("/tmp", os.W_OK) else None  # noqa: S108


def tidy(notebook) -> None:
    """Drop what cannot be shown later (live widgets, progress bars) and what differs between machines."""
    notebook.metadata["kernelspec"] = dict(KERNEL)
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    for extra in ("widgets", "papermill"):
        notebook.metadata.pop(extra, None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def side_by_side(jobs: list[tuple[Path, Path]], *, given: dict, env: dict, workers: int) -> list[SimpleNamespace]:
    """Execute notebooks in `workers` threads (each kernel is a process of its own) under one bar."""
    cells = sum(sum(c.cell_type == "code" for c in nbformat.read(path, as_version=4).cells) for path, _ in jobs)
    cells += len(jobs) if given else 0  # papermill adds a cell with the parameters
    threads = env.get("OMP_NUM_THREADS") or str(max(1, _cores() // workers))
    env = {**env, "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    results, lock = {}, threading.Lock()
    with tqdm(total=cells, unit="cell", desc="notebooks", disable=None) as bar, ThreadPoolExecutor(workers) as pool:

        def tick():
            with lock:
                bar.update()

        futures = {pool.submit(execute, path, out, given=given, env=env, tick=tick): path for path, out in jobs}
        try:
            for future in as_completed(futures):
                result = results[futures[future]] = future.result()
                bar.write(f"{'FAILED' if result.error else 'done':6} {result.seconds:4.0f} s  {result.out.name}")
        except KeyboardInterrupt:
            bar.close()
            print("interrupted; kernels end with this process", file=sys.stderr)
            os._exit(130)
    return [results[path] for path, _ in jobs]


def _cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _point(results: Path, folder: Path) -> None:
    """results/latest -> the newest run; a text file with its name where links are not allowed."""
    latest = results / "latest"
    try:
        latest.unlink(missing_ok=True)
        latest.symlink_to(folder.name, target_is_directory=True)
    except OSError:
        latest.write_text(folder.name)
    runs = sorted((p.parent.name for p in results.glob("*/index.html") if not p.parent.is_symlink()), reverse=True)
    rows = "".join(f'<li><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></li>' for name in runs)
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Runs</title>'
    page = f"{head}<h1>Runs, newest first</h1><ul>{rows}</ul></html>\n"
    (results / "index.html").write_text(page, encoding="utf-8")


def _thumbnail(path: Path, figures: Path, name: str) -> None:
    """docs/<number>.png, a copy for the README of the figure that the notebook's metadata name."""
    found = sorted(figures.glob(f"{path.name[:2]}_{name}.png"))
    if found:
        small = path.parent.parent / "docs" / f"{path.name[:2]}.png"
        small.parent.mkdir(exist_ok=True)
        image = PIL.Image.open(found[0])
        image.thumbnail((960, 960))
        image.save(small, optimize=True)


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; status 1: a notebook failed, 2: a parameter is wrong."""
    ask = argparse.ArgumentParser(prog="python -m xai_lib.workbook", description=__doc__.split("\n\n")[0])
    ask.add_argument("pairs", nargs="*", metavar="name=value", help=f"one of {', '.join(DEFAULTS)}")
    ask.add_argument("--only", nargs="+", default=[], metavar="01", help="numbers of the notebooks to run")
    ask.add_argument("--notebooks", type=Path, default=notebook.ROOT / "notebooks")
    ask.add_argument("--results", type=Path, default=notebook.ROOT / "results")
    ask.add_argument("--workers", type=int, default=min(2, _cores()), help="notebooks at a time")
    ask.add_argument("--refresh", action="store_true", help="renew the stored outputs in place, on the defaults")
    options = ask.parse_intermixed_args(argv)
    options.pairs += [word for word in options.only if "=" in word]  # --only 03 k=50: argparse takes both for it
    options.only = [word for word in options.only if "=" not in word]
    paths = sorted(options.notebooks.glob("[0-9][0-9]_*.ipynb"))
    paths = [path for path in paths if not options.only or path.name[:2] in options.only]
    try:
        given = {} if options.refresh else parameters(os.environ, options.pairs)
        lacking = set(options.only) - {path.name[:2] for path in paths}
        if lacking or not paths:
            which = f"numbered {', '.join(sorted(lacking))} " if lacking else "such as 01_name.ipynb "
            raise ValueError(f"no notebooks {which}in {options.notebooks}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    path = os.pathsep.join(filter(None, [str(notebook.ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": path}
    if options.refresh:
        with tempfile.TemporaryDirectory() as scratch:
            jobs, env = [(path, Path(scratch) / path.name) for path in paths], {**env, "XAI_RUN_DIR": scratch}
            done = side_by_side(jobs, given={}, env=env, workers=options.workers)
            for path, result in zip(paths, done):
                if not result.error:  # a notebook that fails keeps its stored outputs
                    nbformat.write(result.notebook, path)
                    _thumbnail(path, Path(scratch) / "figures", result.notebook.metadata.get("thumbnail", "*"))
    else:
        while (folder := options.results.absolute() / folder_name(check(given))).exists():
            time.sleep(0.2)  # the same run was started in this very second
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            reason = f"{error.strerror}: name another folder with --results"
            print(f"error: results cannot be written to {options.results} ({reason})", file=sys.stderr)
            return 2
        asked = ", ".join(f"{name}={value!r}" for name, value in given.items())
        print(f"{folder}\n{asked or 'bundled corpus and model'}", file=sys.stderr)
        jobs, env = [(path, folder / path.name) for path in paths], {**env, "XAI_RUN_DIR": str(folder)}
        done = side_by_side(jobs, given=given, env=env, workers=options.workers)
        for result in done:
            result.out.with_suffix(".html").write_text(
                html_pages.to_html(result.notebook, result.title), encoding="utf-8"
            )
        (folder / "index.html").write_text(html_pages.index(folder, done, given), encoding="utf-8")
        _point(options.results, folder)
        print(f"results: {folder / 'index.html'}", file=sys.stderr)
    failed: dict[str, list] = {}
    for result in filter(lambda result: result.error, done):  # the same sentence from all notebooks is said once
        failed.setdefault(result.error.split(": ", 1)[1], []).append(result)
    for says, results in failed.items():
        print(f"error: {', '.join(result.error.split(': ')[0] for result in results)}: {says}", file=sys.stderr)
        if not options.refresh:
            print(f"       as far as it got: {', '.join(str(result.out) for result in results)}", file=sys.stderr)
    return int(bool(failed))
