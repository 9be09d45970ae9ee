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


def test_every_requirement_is_pinned():
    assert [pin for pin in PINS if not re.fullmatch(r"[\w.-]+==[\w.]+", pin)] == []


def test_environment_yml_has_the_same_pins():
    text = (ROOT / "environment.yml").read_text()
    assert re.findall(r"^      - (.+)$", text, re.MULTILINE) == PINS
    assert "- python=3.11" in text


def test_pyproject_has_the_same_pins():
    extras = PROJECT["optional-dependencies"]
    assert sorted(
        PROJECT["dependencies"] + extras["test"] + extras["browser"] + extras["train"] + extras["text"]
    ) == sorted(PINS)


def test_the_pair_in_the_error_message_is_the_pinned_one():
    assert {f"{name}=={version}" for name, version in torch_pair.PAIR.items()} <= set(PINS)


@pytest.mark.parametrize(
    "file",
    sorted(path for folder in ("xai_lib", "tests", "data/recipes") for path in (ROOT / folder).rglob("*.py")),
    ids=lambda file: str(file.relative_to(ROOT)),
)
def test_what_is_imported_is_listed(file):
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


def test_every_folder_of_the_library_is_packaged():
    """setuptools finds packages by their `__init__.py`, and by the one pattern that it is given."""
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    assert tool["packages"]["find"]["include"] == ["xai_lib*"]
    folders = {path.parent for path in (ROOT / "xai_lib").rglob("*.py")}
    assert folders == {path.parent for path in (ROOT / "xai_lib").rglob("__init__.py")}


def test_what_the_notebooks_and_the_readme_import_is_listed():
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


def test_import_is_light():
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
def test_broken_torchaudio_is_named_in_one_sentence(tmp_path, failure):
    (tmp_path / "torchaudio").mkdir()
    (tmp_path / "torchaudio" / "__init__.py").write_text(f"raise {failure}")
    out = run("from xai_lib.models import torch_pair; torch_pair.check()", tmp_path)
    last = out.stderr.strip().splitlines()[-1]
    assert out.returncode != 0 and last.startswith("ImportError: torchaudio cannot be loaded")
    assert all(f"{name}=={version}" in last for name, version in torch_pair.PAIR.items())


def test_absent_torchaudio_is_no_error(tmp_path):
    hide = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torchaudio' else real(name, *a)\n"
        "sys.modules['torchaudio'] = None\nfrom xai_lib.models import torch_pair; torch_pair.check(); print('fine')"
    )
    out = run(hide)
    assert out.stdout.strip() == "fine", out.stderr


@pytest.mark.parametrize("wrong", ["2.14.1+cpu", "2.15.0"])
def test_another_torch_version_makes_it_try(monkeypatch, wrong):
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


def test_imports_point_down():
    out = subprocess.run(
        [sys.executable, "-c", "from importlinter.cli import lint_imports_command as lint; lint()", "--no-cache"],
        capture_output=True,
        text=True,
        cwd=ROOT,
    )
    assert out.returncode == 0 and "Contracts: 1 kept, 0 broken" in out.stdout, out.stdout + out.stderr


def test_the_map_lists_every_room():
    """And there are 22 at most at the top."""
    text = (ROOT / "xai_lib" / "README.md").read_text()
    listed = set(re.findall(r"^\| `([\w./]+)` \|", text, re.MULTILINE))
    rooms = {path.name + "/" for path in (ROOT / "xai_lib").iterdir() if (path / "__init__.py").exists()}
    rooms |= {path.name for path in (ROOT / "xai_lib").glob("[!_]*.py")}
    assert listed == rooms and len(rooms) <= 22
