"""Run the notebooks: `python -m xai_lib.workbook`, which is what `make run` calls.

Parameters come from the environment (CORPUS, ROOT, FILES, MODEL, EMOTION, LAYER, NEURON, K, MAX_CLIPS, BATCH, DEVICE,
SEED, PROFILE) or as name=value; each run has its own folder under results/, and `results/latest` points to the newest.
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

LONGEST_SOCKET = 90  # maximum characters of the folder; systems allow 104 or 108 for the full name
WIDGET = "application/vnd.jupyter.widget-view+json"
KERNEL = {"display_name": "Python 3 (ipykernel)", "language": "python", "name": "python3"}


def parameters(environ: dict, pairs: list[str] = ()) -> dict:
    """Return the parameters set by the environment and by name=value `pairs`, typed; ValueError if one is wrong."""
    raw_values = {name: environ[name.upper()] for name in DEFAULTS if environ.get(name.upper())}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"{pair!r} is not name=value")
        raw_values[name.lower()] = value
    typed = {name: value for name, value in check(raw_values).items() if name in raw_values}
    # Bundled names take precedence over folders of the same name.
    bundled_names = {"corpus": {"sample", *KNOWN}, "model": {*BUNDLED.values()}}
    for name in ("corpus", "root", "files", "model"):  # kernels start in another folder, so paths are made absolute
        value = typed.get(name)
        if value and value.lower() in bundled_names.get(name, ()):
            continue
        if value and (name in {"root", "files"} or Path(value).expanduser().exists()):
            typed[name] = str(Path(value).expanduser().absolute())
    return typed


def execute(path: Path, out: Path, *, given: dict, env: dict, tick=lambda: None) -> SimpleNamespace:
    """Execute one notebook with parameters and write it to `out`, partial if a cell fails.

    Returns a namespace: `notebook`, `out`, `title`, `seconds` and `error` (a message with the cell's number, or None).
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
    for cell in notebook.cells:  # a cell that is not reached must not show outputs of other parameters
        if cell.cell_type == "code":
            cell.update(outputs=[], execution_count=None)
    started = [0]  # numbers of the cells
    with tempfile.TemporaryDirectory(prefix="xai-", dir=_folder_of_sockets()) as sockets:
        config = Config()
        # Sockets in a private folder: no races for ports, and no other user can read them.
        if os.name == "posix" and len(sockets) <= LONGEST_SOCKET:
            config.KernelManager.update(transport="ipc", ip=f"{sockets}/kernel")
        client = NotebookClient(
            notebook,
            config=config,
            timeout=None,
            startup_timeout=3600,  # generous for slow machines; a kernel that dies is noticed at once anyway
            iopub_timeout=600,  # by default nbclient drops outputs that arrive more than four seconds after the reply
            record_timing=False,
            resources={"metadata": {"path": str(path.parent)}},
            on_cell_start=lambda cell, cell_index: started.append(cell_index + 1),
            on_cell_executed=lambda **_: tick(),
        )
        try:
            client.execute(env=env)
        except CellExecutionError as failure:
            message = re.sub(r"\x1b\[[0-9;]*m", "", str(failure.evalue)).strip().split("\n")[0]
            error = f"{path.name}, cell {started[-1]}: {failure.ename}: {message}"
        except Exception as failure:  # a dead kernel or a time-out: this notebook has failed, the others go on
            error = f"{path.name}, cell {started[-1]}: {type(failure).__name__}: {failure}"
    tidy(notebook)
    out.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(notebook, out)
    title, seconds = html_pages.title_of(notebook) or path.stem, time.monotonic() - start
    return SimpleNamespace(notebook=notebook, out=out, title=title, error=error, seconds=seconds)


def _folder_of_sockets() -> str | None:
    """Return the folder for kernels' sockets: None (the default), or /tmp if the default has too long a name."""
    default = tempfile.gettempdir()  # long on some clusters
    is_too_long = len(default) + len("/xai-12345678") > LONGEST_SOCKET
    return "/tmp" if is_too_long and os.access("/tmp", os.W_OK) else None  # noqa: S108


def tidy(notebook) -> None:
    """Remove outputs that cannot be shown later (live widgets, progress bars) and metadata specific to the machine."""
    notebook.metadata["kernelspec"] = dict(KERNEL)
    notebook.metadata["language_info"] = {"name": "python", "file_extension": ".py", "mimetype": "text/x-python"}
    for key in ("widgets", "papermill"):
        notebook.metadata.pop(key, None)
    for cell in notebook.cells:
        cell.metadata.pop("execution", None)
        if cell.cell_type == "code":
            cell.outputs = [output for output in cell.outputs if WIDGET not in output.get("data", {})]


def side_by_side(jobs: list[tuple[Path, Path]], *, given: dict, env: dict, workers: int) -> list[SimpleNamespace]:
    """Execute notebooks in `workers` threads (each kernel is its own process) under one progress bar."""
    n_cells = sum(sum(c.cell_type == "code" for c in nbformat.read(path, as_version=4).cells) for path, _ in jobs)
    n_cells += len(jobs) if given else 0  # papermill adds a cell with the parameters
    threads = env.get("OMP_NUM_THREADS") or str(max(1, _cores() // workers))
    env = {**env, "OMP_NUM_THREADS": threads, "TQDM_DISABLE": "1"}
    results, lock = {}, threading.Lock()
    with tqdm(total=n_cells, unit="cell", desc="notebooks", disable=None) as bar, ThreadPoolExecutor(workers) as pool:

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
    runs = sorted((p.parent.name for p in results.glob("*/index.html") if not p.parent.is_symlink()), reverse=True)
    rows = "".join(f'<li><a href="{html.escape(name)}/index.html">{html.escape(name)}</a></li>' for name in runs)
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


def main(argv: list[str] | None = None) -> int:
    """Run from the command line; return exit status 0, 1 if a notebook failed, 2 if a parameter is wrong."""
    parser = argparse.ArgumentParser(prog="python -m xai_lib.workbook", description=__doc__.split("\n\n")[0])
    parser.add_argument("pairs", nargs="*", metavar="name=value", help=f"one of {', '.join(DEFAULTS)}")
    parser.add_argument("--only", nargs="+", default=[], metavar="01", help="numbers of the notebooks to run")
    parser.add_argument("--notebooks", type=Path, default=notebook.ROOT / "notebooks")
    parser.add_argument("--results", type=Path, default=notebook.ROOT / "results")
    parser.add_argument("--workers", type=int, default=min(2, _cores()), help="notebooks at a time")
    parser.add_argument("--refresh", action="store_true", help="rerun on the defaults and store the outputs in place")
    options = parser.parse_intermixed_args(argv)
    options.pairs += [word for word in options.only if "=" in word]  # --only 03 k=50: argparse takes both as numbers
    options.only = [word for word in options.only if "=" not in word]
    paths = sorted(options.notebooks.glob("[0-9][0-9]_*.ipynb"))
    paths = [path for path in paths if not options.only or path.name[:2] in options.only]
    try:
        values = {} if options.refresh else parameters(os.environ, options.pairs)
        missing = set(options.only) - {path.name[:2] for path in paths}
        if missing or not paths:
            names = f"numbered {', '.join(sorted(missing))} " if missing else "such as 01_name.ipynb "
            raise ValueError(f"no notebooks {names}in {options.notebooks}")
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    python_path = os.pathsep.join(filter(None, [str(notebook.ROOT), os.environ.get("PYTHONPATH")]))
    env = {**os.environ, "PYTHONPATH": python_path}
    if options.refresh:
        with tempfile.TemporaryDirectory() as scratch:
            jobs, env = [(path, Path(scratch) / path.name) for path in paths], {**env, "XAI_RUN_DIR": scratch}
            results = side_by_side(jobs, given={}, env=env, workers=options.workers)
            for path, result in zip(paths, results):
                if not result.error:  # a notebook that fails keeps its stored outputs
                    nbformat.write(result.notebook, path)
                    _thumbnail(path, Path(scratch) / "figures", result.notebook.metadata.get("thumbnail", "*"))
    else:
        while (folder := options.results.absolute() / folder_name(check(values))).exists():
            time.sleep(0.2)  # another run with these parameters was started within this second
        try:
            folder.mkdir(parents=True)
        except OSError as error:
            reason = f"{error.strerror}: name another folder with --results"
            print(f"error: results cannot be written to {options.results} ({reason})", file=sys.stderr)
            return 2
        settings = ", ".join(f"{name}={value!r}" for name, value in values.items())
        print(f"{folder}\n{settings or 'bundled corpus and model'}", file=sys.stderr)
        jobs, env = [(path, folder / path.name) for path in paths], {**env, "XAI_RUN_DIR": str(folder)}
        results = side_by_side(jobs, given=values, env=env, workers=options.workers)
        for result in results:
            result.out.with_suffix(".html").write_text(
                html_pages.to_html(result.notebook, result.title), encoding="utf-8"
            )
        (folder / "index.html").write_text(html_pages.index(folder, results, values), encoding="utf-8")
        _update_index(options.results, folder)
        print(f"results: {folder / 'index.html'}", file=sys.stderr)
    failed: dict[str, list] = {}
    for result in filter(lambda result: result.error, results):  # a message common to several notebooks is printed once
        failed.setdefault(result.error.split(": ", 1)[1], []).append(result)
    for message, failures in failed.items():
        print(f"error: {', '.join(failure.error.split(': ')[0] for failure in failures)}: {message}", file=sys.stderr)
        if not options.refresh:
            print(f"       partial output: {', '.join(str(failure.out) for failure in failures)}", file=sys.stderr)
    return int(bool(failed))
