"""Notebooks in a real JupyterLab: Run All, no error anywhere, and a slider that answers to the keyboard."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import TimeoutError

ROOT = Path(__file__).resolve().parents[2]
# Which notebooks are run here; the others run under nbval, and the explorers of all share widgets.Panel. Each
# costs half a minute or more here: sweep, time axis with players, and dissection cards are the three kinds.
CHOSEN = ("03", "04", "05")
IGNORED = (  # said by JupyterLab or Chromium themselves, on notebooks of any content
    r"favicon",
    r"net::ERR_INTERNET_DISCONNECTED|net::ERR_NAME_NOT_RESOLVED",  # Lab's own look-ups, offline
    r"Loading failed for .*news",
    r"WebSocket is closed before the connection is established",
    r"/lsp/status",
    r"AudioContext was not allowed to start",
    r"api/kernels/.*404",  # Lab asks after the kernel of a page that was closed
)
PROMPTS = "[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].map(p => p.textContent)"
PANEL = """import ipywidgets
from matplotlib import pyplot as plt
from xai_lib.widgets import Panel

class Lines(Panel):
    def draw(self, layer, emotion):
        figure, axes = plt.subplots(figsize=(4, 2))
        axes.bar(range(layer), range(layer))
        if layer == 4:
            raise ValueError("layer 4 <b>is missing</b>")
        return [figure, ipywidgets.HTML(f"drawn layer {layer} for {emotion}")]

Lines("Lines", {"layer": ipywidgets.IntSlider(2, 0, 5),
                "emotion": ipywidgets.Dropdown(options=["angry", "sad"])})"""


def console_errors(page) -> list[str]:
    """What the page complains about from now on."""
    errors: list[str] = []

    def note(text):
        if not any(re.search(pattern, text) for pattern in IGNORED):
            errors.append(text)

    page.on(
        "console",
        lambda message: note(f"{message.text} ({message.location.get('url')})") if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: note(str(error)))
    return errors


def run_all(page, lab, name, *, timeout=150_000):
    """Open a notebook, Run All, wait until the kernel has done every cell."""
    page.goto(f"{lab}/lab/tree/{name}?reset", timeout=60_000)
    idle = ".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook-ExecutionIndicator[data-status=idle]"
    page.wait_for_selector(".jp-NotebookPanel:not(.lm-mod-hidden) .jp-Notebook", timeout=60_000)
    page.wait_for_selector(idle, state="attached", timeout=60_000)
    # The page says idle before there is a kernel, and asks which to use if told to run: ask the server.
    end = time.monotonic() + 60
    while not any(
        session["path"] == name and session["kernel"]["execution_state"] == "idle" and session["kernel"]["connections"]
        for session in page.request.get(f"{lab}/api/sessions").json()
    ):
        assert time.monotonic() < end, f"{name}: no kernel came up within a minute"
        page.wait_for_timeout(200)
    # Even so it may drop what it is sent first: ask again.
    for _ in range(5):
        page.wait_for_timeout(300)
        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.get_by_text("Run All Cells", exact=True).click()
        try:
            page.wait_for_function(f"() => {PROMPTS}.some(p => /[0-9*]/.test(p))", timeout=5_000)
            break
        except TimeoutError:
            continue
    else:
        pytest.fail(f"{name}: Run All started nothing")
    page.wait_for_function(f"() => !{PROMPTS}.some(p => p.includes('*'))", timeout=timeout)
    page.wait_for_selector(idle, state="attached", timeout=timeout)


def cell_errors(page) -> list[str]:
    return page.locator(
        ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'] pre:has-text('Error'), "
        "[data-mime-type='application/vnd.jupyter.error']"
    ).all_inner_texts()


def pictures(panel) -> str:
    """What the panel has drawn: its pictures alone, since the slider's own number changes at once."""
    return panel.evaluate("e => [...e.querySelectorAll('img')].map(i => i.src).join()")


def changed(page, panel, before, *, timeout=60):
    """Wait until other pictures are shown and the controls may be moved again."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        if pictures(panel) not in ("", before) and panel.locator(".noUi-target[disabled]").count() == 0:
            return
        page.wait_for_timeout(100)
    pytest.fail(f"the panel did not change within {timeout} s")


@pytest.fixture
def page(chromium, request, tmp_path):
    """A window; it is photographed at the end, as the only witness of what went wrong."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    yield page
    folder = ROOT / "results" / "screenshots" if os.environ.get("CI") else tmp_path
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"{request.node.name.replace('[', '-').rstrip(']')}.png"
    page.screenshot(path=path)
    request.node.add_report_section("teardown", "screenshot", str(path))
    page.close()


def write(path, *cells):
    """A notebook of these code cells."""
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    nbformat.write(new_notebook(cells=[new_code_cell(cell) for cell in cells], metadata=kernel), path)


def test_a_panel(page, lab, desk):
    write(desk / "panel.ipynb", PANEL, "print('after')")
    errors = console_errors(page)
    run_all(page, lab, "panel.ipynb")
    page.get_by_text("drawn layer 2 for angry").wait_for()
    ready = page.locator(".noUi-target:not([disabled])")  # not while it is drawing
    handle = page.locator(".noUi-handle").first
    ready.wait_for()
    handle.focus()
    page.keyboard.press("ArrowRight")
    page.get_by_text("drawn layer 3 for angry").wait_for()
    assert page.locator(".jp-OutputArea img").count() == 1
    ready.wait_for()
    page.keyboard.press("ArrowRight")  # the slider has kept the focus
    page.get_by_role("alert").get_by_text("ValueError: layer 4 <b>is missing</b>").wait_for()
    ready.wait_for()
    page.keyboard.press("ArrowRight")
    page.get_by_text("drawn layer 5 for angry").wait_for()
    page.locator(".widget-dropdown select").select_option("sad")
    page.get_by_text("drawn layer 5 for sad").wait_for()
    assert page.locator(".jp-OutputArea [role=alert]").count() == 0
    assert cell_errors(page) == [] and errors == []


def test_the_harness_sees_errors(page, lab, desk):
    script = "from IPython.display import display, Javascript\ndisplay(Javascript('console.error(\"seen\")'))"
    write(desk / "wrong.ipynb", script, "1/0")
    errors = console_errors(page)
    run_all(page, lab, "wrong.ipynb")
    assert any("seen" in error for error in errors)
    assert any("ZeroDivisionError" in error for error in cell_errors(page))


@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if path.name[:2] in CHOSEN],
    ids=lambda path: path.stem,
)
def test_notebook(page, lab, desk, path):
    errors = console_errors(page)
    run_all(page, lab, path.name)
    assert cell_errors(page) == []
    handle = page.locator(".noUi-handle").first
    handle.scroll_into_view_if_needed()
    handle.wait_for()
    panel = page.locator(".jp-OutputArea-output:has(.noUi-handle)").first
    changed(page, panel, "", timeout=60)
    before = pictures(panel)
    handle.focus()
    at = handle.get_attribute("aria-valuenow")
    for key in ("ArrowRight", "ArrowLeft"):  # at its end already, it can only go back
        handle.press(key)
        if handle.get_attribute("aria-valuenow") != at:
            break
    assert handle.get_attribute("aria-valuenow") != at
    changed(page, panel, before)
    assert panel.get_by_role("alert").count() == 0
    assert errors == []
