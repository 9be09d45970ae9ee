"""The lists of dependencies agree, what is imported is listed, and a broken torchaudio is named."""

from __future__ import annotations

import ast
import json
import os
import re
import subprocess
import sys
import tomllib
from importlib import metadata, util
from pathlib import Path

import pytest

import xai_lib

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINS = [line for line in (ROOT / "requirements.txt").read_text().splitlines() if line and not line.startswith("#")]
PACKAGES = metadata.packages_distributions()  # {module: the distributions that it may come from}


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
    assert {f"{name}=={version}" for name, version in xai_lib.PAIR.items()} <= set(PINS)


@pytest.mark.parametrize(
    "file",
    sorted([*(ROOT / "xai_lib").rglob("*.py"), *(ROOT / "tests").rglob("*.py")]),
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
            if top in {"xai_lib", "tests"} or [*ROOT.glob(f"*/{top}.py"), *ROOT.glob(f"*/{top}/__init__.py")]:
                continue
            owners = {plain(name) for name in PACKAGES.get(top, [top])}
            assert owners & (NAMES | extras), f"{file.name} imports {top}, which no list of dependencies names"


def test_only_the_library_is_packaged():
    tool = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    folders = {str(p.parent.relative_to(ROOT)).replace(os.sep, ".") for p in (ROOT / "xai_lib").rglob("__init__.py")}
    assert set(tool["packages"]) == folders


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
    assert all(util.find_spec(f"xai_lib.{name}") for name in xai_lib.__all__)


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
    out = run("import xai_lib", tmp_path)
    last = out.stderr.strip().splitlines()[-1]
    assert out.returncode != 0 and last.startswith("ImportError: torchaudio cannot be loaded")
    assert all(f"{name}=={version}" in last for name, version in xai_lib.PAIR.items())


def test_absent_torchaudio_is_no_error(tmp_path):
    hide = (
        "import sys, importlib.util as u; real = u.find_spec\n"
        "u.find_spec = lambda name, *a: None if name == 'torchaudio' else real(name, *a)\n"
        "sys.modules['torchaudio'] = None\nimport xai_lib; print(xai_lib.__version__)"
    )
    out = run(hide)
    assert out.stdout.strip() == xai_lib.__version__, out.stderr


@pytest.mark.parametrize("wrong", ["2.14.1+cpu", "2.15.0"])
def test_another_torch_version_makes_it_try(monkeypatch, wrong):
    real = metadata.version
    monkeypatch.setattr(xai_lib.metadata, "version", lambda name: wrong if name == "torch" else real(name))
    tried = []

    def refuse(name):
        tried.append(name)
        raise OSError("libtorch_cuda.so: cannot open")

    monkeypatch.setattr(xai_lib.importlib, "import_module", refuse)
    with pytest.raises(ImportError, match="libtorch_cuda.so"):
        xai_lib._check_torchaudio()
    assert tried == ["torchaudio"]


def test_the_map_lists_every_file_and_arrows_only_point_up():
    rows = re.findall(r"^\| ((?:`[\w./]+`(?:, )?)+) \|", (ROOT / "xai_lib" / "README.md").read_text(), re.MULTILINE)
    order = [name.removesuffix(".py").strip("/") for row in rows for name in re.findall(r"`([\w./]+)`", row)]
    files = {path.stem for path in (ROOT / "xai_lib").glob("[!_]*.py")} | {"plots", "widgets"}
    assert set(order) == files and len(order) == len(files)
    for path in (ROOT / "xai_lib").rglob("*.py"):
        inside = path.relative_to(ROOT / "xai_lib").parts[0].removesuffix(".py")
        if inside == "__init__":
            continue
        own = 1 if inside in ("plots", "widgets") else 0  # dots that stay within the folder
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ImportFrom) and node.level == 1 + own:
                used = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
                later = [name for name in used if name in files and order.index(name) > order.index(inside)]
                assert later == [], f"{path.name} uses {later}, which stand below it in the map"
