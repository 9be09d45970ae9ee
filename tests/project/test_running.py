"""How the tests themselves run: they end, and say what happened, when a worker, a kernel or the time gives out."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import librosa
import librosa_cache
import nbformat
import psutil
import pytest
from nbformat.v4 import new_code_cell, new_notebook

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
PYTEST = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--color=no"]
PLAIN = ["-p", "no:nbval", "-p", "no:benchmark", "-p", "no:hypothesispytest", "-p", "no:anyio"]  # starts sooner
SIDE_BY_SIDE = [*PLAIN, "-n", "2", "--dist", "loadfile", "--max-worker-restart=0"]
CACHE = """from pathlib import Path

def fill():
    pass

def files():
    return sorted(Path(__file__).parents[1].glob("*.nbi"))
"""
LIMIT = [sys.executable, str(ROOT / "tests" / "limit.py")]


@pytest.fixture
def project(tmp_path):
    """A project with this project's root conftest.py, and a cache of compiled functions that needs no filling."""
    (tmp_path / "tests").mkdir()
    shutil.copy(ROOT / "conftest.py", tmp_path)
    (tmp_path / "tests" / "librosa_cache.py").write_text(CACHE)
    (tmp_path / "known.nbi").touch()
    return tmp_path


def run(command, folder) -> tuple[int, str]:
    """Exit status and all that is said."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        list(map(str, command)), cwd=folder, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return done.returncode, done.stdout


def test_conftest_fails_run_of_killed_worker(project):
    """If a worker is killed during a test, the run ends, fails, and names the test and the worker."""
    kill = "def test_dies():\n    import os, signal\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (project / "test_dies.py").write_text(kill)
    for number in range(5):
        (project / f"test_{number}.py").write_text("def test_passes():\n    pass\n")
    status, said = run([*PYTEST, *SIDE_BY_SIDE], project)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "crashed while running 'test_dies.py::test_dies'" in said
    assert "died (Not properly terminated): what no worker had begun by then was not run" in said


def test_conftest_fails_run_of_worker_killed_between_tests(project):
    """A worker killed between two tests, which is in no test's report, fails the run and is reported."""
    kill = "import os, signal\n\ndef pytest_runtest_logfinish():\n    os.kill(os.getpid(), signal.SIGKILL)\n"
    (project / "test_passes.py").write_text("def test_passes():\n    pass\n")
    (project / "kills.py").write_text(kill)
    worker = "import os\n\nif 'PYTEST_XDIST_WORKER' in os.environ:\n    pytest_plugins = ['kills']\n"
    (project / "conftest.py").write_text(worker + (project / "conftest.py").read_text().split("annotations\n", 1)[1])
    status, said = run([*PYTEST, *SIDE_BY_SIDE], project)
    assert status != pytest.ExitCode.OK
    assert "died (Not properly terminated)" in said


def test_conftest_names_functions_compiled_by_workers(project):
    """A function of librosa that a worker compiles fails the run and is named; one compiled before is not."""
    compiles = "def test_compiles():\n    open('stray.nbi', 'w').close()\n"
    (project / "test_compiles.py").write_text(compiles)
    status, said = run([*PYTEST, *SIDE_BY_SIDE], project)
    assert status == pytest.ExitCode.TESTS_FAILED and "1 passed" in said
    assert "stray.nbi was compiled by a worker" in said and "known.nbi" not in said


def test_conftest_fails_cells_of_dead_kernel(project):
    """If a kernel dies under nbval, its cell and the next one fail, and the report says that it died."""
    cells = [new_code_cell("import os\nos._exit(1)"), new_code_cell("1 + 1")]
    nbformat.write(new_notebook(cells=cells), project / "dies.ipynb")
    status, said = run([*PYTEST, "--nbval-lax", "--nbval-current-env", "dies.ipynb"], project)
    assert status == pytest.ExitCode.TESTS_FAILED
    assert "the kernel died" in said and "2 failed" in said


def test_limit_returns_status_of_command(tmp_path):
    """`limit.py` passes on the output and the exit status of the command."""
    assert run([*LIMIT, "10", sys.executable, "-c", "print('done'); raise SystemExit(3)"], tmp_path) == (3, "done\n")


def test_limit_kills_descendants_on_sigterm(project):
    """On SIGTERM, `limit.py` kills even orphaned processes that ignore SIGTERM, and the running test is named."""
    (project / "test_sleeps.py").write_text(
        "def test_sleeps():\n    import subprocess, sys, time\n"
        "    code = ('import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); '\n"
        "            'print(flush=True); time.sleep(9999)')\n"
        "    child = subprocess.Popen([sys.executable, '-c', code], start_new_session=True, stdout=subprocess.PIPE)\n"
        "    child.stdout.readline()\n"
        "    open('child', 'w').write(str(child.pid))\n"
        "    time.sleep(9999)\n"
    )
    command = [*LIMIT, "1000", *PYTEST, *SIDE_BY_SIDE]
    process = subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    while not (project / "child").is_file() or not (project / "child").read_text():
        assert process.poll() is None, process.stdout.read()
        time.sleep(0.1)
    child = psutil.Process(int((project / "child").read_text()))
    os.killpg(process.pid, signal.SIGTERM)  # to pytest and its worker as well, as the command `timeout` does
    said, _ = process.communicate()
    assert process.returncode == 128 + signal.SIGTERM
    assert "told to stop (SIGTERM)" in said
    assert "was running when the run ended: test_sleeps.py::test_sleeps" in said and "Traceback" not in said
    assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE


def test_limit_ends_command_after_timeout(tmp_path):
    """When the time is up, `limit.py` ends the command, says so, and exits with status 124."""
    status, said = run([*LIMIT, "0.02", sys.executable, "-c", "import time; time.sleep(9999)"], tmp_path)
    assert status == 124 and "not done within 0.02 minutes" in said


@pytest.mark.parametrize("status", [-signal.SIGSEGV, 1])
def test_librosa_cache_deletes_only_broken_files(monkeypatch, tmp_path, status):
    """`fill` deletes a cache that crashes a process and tries again; after any other error it keeps it and raises."""
    monkeypatch.setattr(librosa, "__file__", str(tmp_path / "__init__.py"))
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "broken.nbi").touch()
    monkeypatch.setattr(librosa_cache, "call", lambda: status if librosa_cache.files() else 0)
    if status < 0:
        librosa_cache.fill()
        assert librosa_cache.files() == []
    else:
        with pytest.raises(RuntimeError, match="exit status 1"):
            librosa_cache.fill()
        assert len(librosa_cache.files()) == 1
