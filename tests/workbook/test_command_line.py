"""The runner, on small notebooks made here."""

from __future__ import annotations

import re
from pathlib import Path

import nbformat
import pytest
from matplotlib import pyplot as plt
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from xai_lib.workbook import command_line, parameters

pytestmark = pytest.mark.heavy

ROOT = Path(__file__).resolve().parents[2]
DRAW = """import os, pathlib, json
from matplotlib import pyplot as plt
from IPython.display import Audio, display
folder = pathlib.Path(os.environ["XAI_RUN_DIR"], "figures"); folder.mkdir(parents=True, exist_ok=True)
fig, ax = plt.subplots(figsize=(1, 1)); fig.savefig(folder / "01_curve.png")
display(Audio([0.0, 0.1] * 50, rate=8000))
import ipywidgets; display(ipywidgets.IntSlider())
print("k is", k, type(k).__name__, os.environ["OMP_NUM_THREADS"])"""


def write(folder, name, *cells):
    head = [
        new_markdown_cell(f"# {name} & <one> question\n\n$x^2$"),
        new_code_cell("corpus = 'sample'\nk = 20", metadata={"tags": ["parameters"]}),
    ]
    nbformat.write(new_notebook(cells=head + [new_code_cell(cell) for cell in cells]), folder / f"{name}.ipynb")


@pytest.fixture
def books(tmp_path):
    folder = tmp_path / "notebooks"
    folder.mkdir()
    write(folder, "01_good", DRAW)
    write(folder, "02_bad", "print('before')", "raise ValueError('layer 14 out of range: 0–12')", "print('after')")
    write(folder, "03_good", "print('third')")
    return folder


def call(books, tmp_path, *more):
    return command_line.main([*more, "--notebooks", str(books), "--results", str(tmp_path / "results")])


@pytest.fixture
def clean(monkeypatch):
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)


def test_main_writes_results_despite_failure(books, tmp_path, capsys, clean):
    """A run writes notebooks, pages, figures and an index; one notebook's error is reported and the others go on."""
    assert call(books, tmp_path, "k=50") == 1
    said = capsys.readouterr().err
    folder = (tmp_path / "results" / "latest").resolve()
    assert f"02_bad.ipynb, cell 5: ValueError: layer 14 out of range: 0–12\n       partial output: {folder}" in said
    cells = nbformat.read(folder / "02_bad.ipynb", as_version=4).cells
    assert "before" in str(cells) and "after" not in str([cell.get("outputs") for cell in cells])
    good = nbformat.read(folder / "01_good.ipynb", as_version=4)
    threads = max(1, command_line._cores() // min(2, command_line._cores()))
    assert f"k is 50 int {threads}" in str(good.cells) and command_line.WIDGET not in str(good)
    assert "third" in (folder / "03_good.html").read_text()
    assert sorted(p.name for p in folder.iterdir()) == [
        "01_good.html",
        "01_good.ipynb",
        "02_bad.html",
        "02_bad.ipynb",
        "03_good.html",
        "03_good.ipynb",
        "figures",
        "index.html",
    ]
    page = (folder / "index.html").read_text()
    assert 'src="figures/01_curve.png"' in page and "failed" in page and "01_good &amp; &lt;one&gt; question" in page
    assert folder.name in (tmp_path / "results" / "index.html").read_text()


def test_main_writes_offline_accessible_pages(books, tmp_path, clean):
    """Pages of a run load nothing from the network, and have a title, a language and alternative texts."""
    assert call(books, tmp_path, "--only", "01", "03") == 0
    for page in (tmp_path / "results" / "latest").glob("*.html"):
        text = page.read_text()
        assert re.findall(r'(?:src|href)="(?:https?:)?//[^"]+', text) == [], page.name
        assert not re.search(r"@import|import\(|cdnjs|unpkg|jsdelivr", text), page.name
        assert all(re.search(r'\balt="[^"]+"', image) for image in re.findall(r"<img[^>]*>", text))
        assert '<html lang="en"' in text and "<title>" in text
    text = (tmp_path / "results" / "latest" / "01_good.html").read_text()
    assert "data:image/png;base64" in text and "<audio" in text and "data:audio/wav;base64" in text


@pytest.mark.parametrize(
    "pair,word",
    [("colour=red", "unknown parameter colour"), ("k=many", "k must be a whole number"), ("k", "not name=value")],
)
def test_main_refuses_wrong_parameters(books, tmp_path, capsys, pair, word):
    """A wrong parameter gives one line of error and exit status 2, before any result is written."""
    assert call(books, tmp_path, pair) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and word in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_parameters_are_typed():
    """Parameters from the environment are typed; empty and unrelated variables are ignored, wrong values refused."""
    given = command_line.parameters({"CORPUS": "ravdess", "K": "50", "LAYER": "3", "EMOTION": "", "PATH": "/bin"})
    assert given == {"corpus": "ravdess", "k": 50, "layer": 3}
    with pytest.raises(ValueError, match="max_clips"):
        command_line.parameters({"MAX_CLIPS": "few"})


def test_parameters_make_paths_absolute(tmp_path, monkeypatch):
    """Folders and globs become absolute paths, and the name of a bundled model stays as it is."""
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    given = command_line.parameters({"CORPUS": "mine", "FILES": "mine/*.wav", "MODEL": "pocket"})
    assert given == {"corpus": str(tmp_path / "mine"), "files": str(tmp_path / "mine" / "*.wav"), "model": "pocket"}


def test_main_clears_cells_not_reached(books, tmp_path, clean):
    """Cells that a failed run did not reach show no outputs and no execution count of an earlier run."""
    stored = nbformat.read(books / "02_bad.ipynb", as_version=4)
    stored.cells[-1].update(outputs=[nbformat.v4.new_output("stream", text="of another run")], execution_count=9)
    nbformat.write(stored, books / "02_bad.ipynb")
    assert call(books, tmp_path) == 1
    last = nbformat.read(tmp_path / "results" / "latest" / "02_bad.ipynb", as_version=4).cells[-1]
    assert last.outputs == [] and last.execution_count is None


def test_main_refresh_keeps_outputs_of_failure(books, tmp_path, capsys, clean):
    """`--refresh` renews outputs and thumbnails in place, but not those of a notebook that fails."""
    before = (books / "02_bad.ipynb").read_text()
    assert call(books, tmp_path, "--refresh") == 1
    good = nbformat.read(books / "01_good.ipynb", as_version=4)
    assert "k is 20" in str(good.cells) and good.cells[-1].execution_count == 2
    assert (
        command_line.WIDGET not in str(good)
        and "widgets" not in good.metadata
        and good.metadata.kernelspec.name == "python3"
    )
    assert (books / "02_bad.ipynb").read_text() == before
    assert not (tmp_path / "results").exists()
    assert (
        max(plt.imread(tmp_path / "docs" / "01.png").shape[:2]) <= 960 and not (tmp_path / "docs" / "02.png").exists()
    )


def test_main_reports_dead_kernel(tmp_path, capsys, clean):
    """A kernel that dies is reported as a failure of its notebook, with the cell."""
    write(tmp_path, "01_dies", "import os; os._exit(1)")
    assert call(tmp_path, tmp_path) == 1
    assert "01_dies.ipynb, cell 3: DeadKernelError" in capsys.readouterr().err


def test_main_only_accepts_parameters(books, tmp_path, capsys, clean):
    """`--only` may be followed by parameters, and refuses numbers that no notebook has."""
    assert call(books, tmp_path, "--only", "01", "k=7") == 0
    assert "k is 7" in (tmp_path / "results" / "latest" / "01_good.ipynb").read_text()
    assert command_line.main(["--notebooks", str(books), "--only", "01", "k=0"]) == 2
    assert command_line.main(["--notebooks", str(books), "--only", "01", "09"]) == 2
    assert "no notebooks numbered 09" in capsys.readouterr().err


def test_main_prints_common_error_once(tmp_path, capsys, clean):
    """An error common to several notebooks is printed once."""
    for name in ("01_a", "02_b"):
        write(tmp_path, name, "raise ValueError('unknown emotion: known are sad, happy')")
    assert call(tmp_path, tmp_path) == 1
    err = capsys.readouterr().err
    assert err.count("unknown emotion: known are sad, happy") == 1
    assert "error: 01_a.ipynb, cell 3, 02_b.ipynb, cell 3: ValueError" in err


def test_main_refuses_folder_without_notebooks(tmp_path, capsys):
    """A folder without notebooks gives an error and exit status 2."""
    assert call(tmp_path, tmp_path) == 2 and "no notebooks" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_share_default_parameters(path):
    """Each notebook has one cell of parameters, equal to `parameters.DEFAULTS` in names, values and order."""
    tagged = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    exec(tagged[0].source, values)
    values.pop("__builtins__")
    assert values == parameters.DEFAULTS and list(values) == list(parameters.DEFAULTS)
