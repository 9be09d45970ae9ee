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


def test_a_run(books, tmp_path, capsys, clean):
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


def test_pages_need_no_network_and_are_accessible(books, tmp_path, clean):
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
def test_wrong_parameters_stop_before_anything_runs(books, tmp_path, capsys, pair, word):
    assert call(books, tmp_path, pair) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ") and word in said and len(said.strip().splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_environment_becomes_typed_parameters():
    given = command_line.parameters({"CORPUS": "ravdess", "K": "50", "LAYER": "3", "EMOTION": "", "PATH": "/bin"})
    assert given == {"corpus": "ravdess", "k": 50, "layer": 3}
    with pytest.raises(ValueError, match="max_clips"):
        command_line.parameters({"MAX_CLIPS": "few"})


def test_paths_are_absolute_for_the_kernels(tmp_path, monkeypatch):
    (tmp_path / "mine").mkdir()
    monkeypatch.chdir(tmp_path)
    given = command_line.parameters({"CORPUS": "mine", "FILES": "mine/*.wav", "MODEL": "pocket"})
    assert given == {"corpus": str(tmp_path / "mine"), "files": str(tmp_path / "mine" / "*.wav"), "model": "pocket"}


def test_what_a_failed_run_did_not_reach_shows_nothing(books, tmp_path, clean):
    stored = nbformat.read(books / "02_bad.ipynb", as_version=4)
    stored.cells[-1].update(outputs=[nbformat.v4.new_output("stream", text="of another run")], execution_count=9)
    nbformat.write(stored, books / "02_bad.ipynb")
    assert call(books, tmp_path) == 1
    last = nbformat.read(tmp_path / "results" / "latest" / "02_bad.ipynb", as_version=4).cells[-1]
    assert last.outputs == [] and last.execution_count is None


def test_refresh_renews_outputs_in_place_but_not_those_of_a_failure(books, tmp_path, capsys, clean):
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


def test_a_dead_kernel_is_a_failure_of_that_notebook(tmp_path, capsys, clean):
    write(tmp_path, "01_dies", "import os; os._exit(1)")
    assert call(tmp_path, tmp_path) == 1
    assert "01_dies.ipynb, cell 3: DeadKernelError" in capsys.readouterr().err


def test_only_takes_parameters_after_it_and_refuses_unknown_numbers(books, tmp_path, capsys, clean):
    assert call(books, tmp_path, "--only", "01", "k=7") == 0
    assert "k is 7" in (tmp_path / "results" / "latest" / "01_good.ipynb").read_text()
    assert command_line.main(["--notebooks", str(books), "--only", "01", "k=0"]) == 2
    assert command_line.main(["--notebooks", str(books), "--only", "01", "09"]) == 2
    assert "no notebooks numbered 09" in capsys.readouterr().err


def test_the_same_error_is_said_once(tmp_path, capsys, clean):
    for name in ("01_a", "02_b"):
        write(tmp_path, name, "raise ValueError('unknown emotion: known are sad, happy')")
    assert call(tmp_path, tmp_path) == 1
    err = capsys.readouterr().err
    assert err.count("unknown emotion: known are sad, happy") == 1
    assert "error: 01_a.ipynb, cell 3, 02_b.ipynb, cell 3: ValueError" in err or "cell 2" in err


def test_no_notebooks(tmp_path, capsys):
    assert call(tmp_path, tmp_path) == 2 and "no notebooks" in capsys.readouterr().err


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")), ids=lambda path: path.stem)
def test_the_parameters_are_the_same_in_every_notebook(path):
    tagged = [cell for cell in nbformat.read(path, as_version=4).cells if "parameters" in cell.metadata.get("tags", [])]
    assert len(tagged) == 1
    values = {}
    exec(tagged[0].source, values)
    values.pop("__builtins__")
    assert values == parameters.DEFAULTS and list(values) == list(parameters.DEFAULTS)
