"""The lists of dependencies agree, what is imported is listed, and a broken torchaudio is named."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest

import xai_lib
from xai_lib.models import torch_pair

ROOT = Path(__file__).resolve().parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
# {module: the distributions that it may come from}. The wheel of parselmouth does not say which module it brings.
PACKAGES = {**metadata.packages_distributions(), "parselmouth": ["praat-parselmouth"]}


def plain(name):
    return re.sub(r"[-_.]+", "-", name).lower()


NAMES = {plain(re.split(r"[=<>\[ ]", pin)[0]) for pin in PINS}


def test_requirements_are_pinned_exactly():
    """Every line of `requirements.txt` pins one exact version."""
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


def test_environment_yml_equals_requirements():
    """`environment.yml` has the pins of `requirements.txt`, in the same order, and Python 3.11."""
    text = (ROOT / "environment.yml").read_text()
    assert re.findall(r"^      - (.+)$", text, re.MULTILINE) == PINS
    assert "- python=3.11" in text


def test_pyproject_equals_requirements():
    """The dependencies and extras of `pyproject.toml` together are the pins of `requirements.txt`."""
    extras = PROJECT["optional-dependencies"]
    assert sorted(
        PROJECT["dependencies"] + extras["test"] + extras["browser"] + extras["train"] + extras["text"]
    ) == sorted(PINS)


def test_torch_pair_equals_requirements():
    """The versions in the error message of `torch_pair` are those pinned in `requirements.txt`."""
    assert {f"{name}=={version}" for name, version in torch_pair.PAIR.items()} <= set(PINS)


@pytest.mark.parametrize(
    "file",
    sorted(path for folder in ("xai_lib", "tests", "data/recipes") for path in (ROOT / folder).rglob("*.py")),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_requirements_list_every_import(file):
    """Every third-party import of the library, the tests and the recipes is in a list of dependencies."""
    extras = {
        plain(re.split(r"[=<>\[ ]", name)[0]) for names in PROJECT["optional-dependencies"].values() for name in names
    }
    for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
        modules = (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module]
            if isinstance(node, ast.ImportFrom) and not node.level
            else []
        )
        for top in {module.split(".")[0] for module in modules} - set(sys.stdlib_module_names):
            if top in {"xai_lib", "tests"} or [
                *ROOT.glob(f"*/{top}.py"),
                *ROOT.glob(f"*/{top}/__init__.py"),
                *ROOT.glob(f"data/recipes/{top}.py"),
            ]:
                continue
            owners = {plain(name) for name in PACKAGES.get(top, [top])}
            assert owners & (NAMES | extras), f"{file.name} imports {top}, which no list of dependencies names"


def test_pyproject_packages_every_folder():
    """Setuptools packages `xai_lib*`, and each folder of the library with Python files has an `__init__.py`."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tool["packages"]["find"]["include"] == ["xai_lib*"]
    folders = {path.parent for path in (ROOT / "xai_lib").rglob("*.py")}
    assert folders == {path.parent for path in (ROOT / "xai_lib").rglob("__init__.py")}


def test_xai_lib_exports_what_notebooks_import():
    """`xai_lib.__all__` is sorted, resolves, and has all that README and notebooks import from the package."""
    used = set()
    cells = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    for path in (ROOT / "notebooks").glob("*.ipynb"):
        cells += [
            "".join(cell["source"]) for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"
        ]
    for node in (node for cell in cells for node in ast.walk(ast.parse(cell))):
        if isinstance(node, ast.ImportFrom) and node.module == "xai_lib":
            used |= {alias.name for alias in node.names}
    assert used <= set(xai_lib.__all__) and xai_lib.__all__ == sorted(xai_lib.__all__)
    assert all(getattr(xai_lib, name) for name in xai_lib.__all__)


def run(code, *path):
    env = {**os.environ, "PYTHONPATH": os.pathsep.join([*map(str, path), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=env)


def test_xai_lib_imports_no_torch():
    """Importing `xai_lib` imports neither torch, nor transformers, nor torchaudio."""
    out = run("import sys, xai_lib; print({'torch', 'transformers', 'torchaudio'} & set(sys.modules))")
    assert out.stdout.strip() == "set()", out.stderr


@pytest.mark.parametrize(
    "failure",
    [
        "OSError('Could not load this library: lib.so')",
        "RuntimeError('CUDA 13.0, not 13.2')",
        "ImportError('undefined symbol')",
    ],
)
def test_torch_pair_reports_broken_torchaudio(tmp_path, failure):
    """If torchaudio cannot be loaded, the last line of the error says so and names the tested pair of versions."""
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(f"raise {failure}")
    out = run("from xai_lib.models import torch_pair; torch_pair.check()", tmp_path)
    last = out.stderr.strip().splitlines()[-1]
    assert out.returncode != 0 and last.startswith("ImportError: torchaudio cannot be loaded")
    assert all(f"{name}=={version}" in last for name, version in torch_pair.PAIR.items())


def test_torch_pair_accepts_absent_torchaudio(tmp_path):
    """`torch_pair.check` raises no error where torchaudio is not installed."""
    hide = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torchaudio' else real(name, *a)\n"
        "sys.modules['torchaudio'] = None\nfrom xai_lib.models import torch_pair; torch_pair.check(); print('fine')"
    )
    out = run(hide)
    assert out.stdout.strip() == "fine", out.stderr


@pytest.mark.parametrize("wrong", ["2.14.1+cpu", "2.15.0"])
def test_torch_pair_imports_torchaudio_with_untested_torch(monkeypatch, wrong):
    """With an untested torch version, `torch_pair.check` imports torchaudio and passes on the reason of a failure."""
    real = metadata.version
    monkeypatch.setattr(torch_pair.metadata, "version", lambda name: wrong if name == "torch" else real(name))
    tried = []

    def refuse(name):
        tried.append(name)
        raise OSError("libtorch_cuda.so: cannot open")

    monkeypatch.setattr(torch_pair.importlib, "import_module", refuse)
    with pytest.raises(ImportError, match="libtorch_cuda.so"):
        torch_pair.check()
    assert tried == ["torchaudio"]


def test_xai_lib_imports_follow_layers():
    """Import-linter finds that no package of the library imports one of a layer above it."""
    out = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert out.returncode == 0 and "Contracts: 1 kept, 0 broken" in out.stdout, out.stdout + out.stderr


def test_library_map_lists_every_package():
    """`xai_lib/README.md` lists every top-level package and module of the library, at most 22."""
    text = (ROOT / "xai_lib" / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w./]+)` \|", text, re.MULTILINE))
    rooms = {path.name + "/" for path in (ROOT / "xai_lib").iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name for path in (ROOT / "xai_lib").glob("[!_]*.py")}
    assert listed == rooms and len(rooms) <= 22
