"""Notebooks in a real JupyterLab: Run All, no error anywhere, and a slider that answers to the keyboard."""

from __future__ import annotations

import os
import re
import time
from pathlib import Path

import nbformat
import pytest
from nbformat.v4 import new_code_cell, new_notebook

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
PATIENCE = 300  # seconds in which a kernel that has nothing to do and its page can finish, on any machine
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


def kernel_state(page, lab, name) -> str:
    """What the server says of a notebook's kernel: "busy", "idle", "starting", or "none" where it has none."""
    for session in page.request.get(f"{lab}/api/sessions", timeout=0).json():
        if session["path"] == name and session["kernel"]["connections"]:
            return session["kernel"]["execution_state"]
    return "none"


def wait_until(page, lab, name, condition, what):
    """Wait until `condition()` holds: as long as the kernel works, however slow the machine.

    A kernel that has had nothing to do for PATIENCE seconds while `condition()` does not hold will not bring it about.
    """
    last_work = time.monotonic()
    while not condition():
        if kernel_state(page, lab, name) in ("busy", "starting"):
            last_work = time.monotonic()
        idle = time.monotonic() - last_work
        assert idle < PATIENCE, f"{name}: {what}: not so, and the kernel has had nothing to do for {idle:.0f} s"
        page.wait_for_timeout(100)


def run_all(page, lab, name):
    """Open a notebook, Run All, wait until the kernel has done every cell."""
    page.goto(f"{lab}/lab/tree/{name}?reset")
    panel = ".jp-NotebookPanel:not(.lm-mod-hidden)"
    notebook = page.locator(f"{panel} .jp-Notebook")
    wait_until(page, lab, name, lambda: notebook.count() > 0, "the page shows it")
    idle = page.locator(f"{panel} .jp-Notebook-ExecutionIndicator[data-status=idle]")

    def is_ready():
        # The page says idle before there is a kernel, and asks which to use if told to run: ask the server as well.
        return kernel_state(page, lab, name) == "idle" and idle.count() > 0

    wait_until(page, lab, name, is_ready, "a kernel is ready")

    def has_started():
        return page.evaluate(f"{PROMPTS}.some(p => /[0-9*]/.test(p))")

    # Even so the page may drop what it is sent first: ask again, while nothing has started.
    asked = None

    def ask_and_see():
        nonlocal asked
        if has_started():
            return True
        if asked is None or time.monotonic() - asked > 5:
            asked = time.monotonic()
            page.get_by_role("menuitem", name="Run", exact=True).click()
            page.get_by_text("Run All Cells", exact=True).click()
        return False

    wait_until(page, lab, name, ask_and_see, "Run All has started something")

    def is_done():
        waiting = page.evaluate(f"{PROMPTS}.some(p => p.includes('*'))")
        return not waiting and is_ready()

    wait_until(page, lab, name, is_done, "every cell is done")


def cell_errors(page) -> list[str]:
    return page.locator(
        ".jp-OutputArea-output[data-mime-type='application/vnd.jupyter.stderr'] pre:has-text('Error'), "
        "[data-mime-type='application/vnd.jupyter.error']"
    ).all_inner_texts()


def pictures(panel) -> str:
    """What the panel has drawn: its pictures alone, since the slider's own number changes at once."""
    return panel.evaluate("e => [...e.querySelectorAll('img')].map(i => i.src).join()")


@pytest.fixture
def page(chromium, request, tmp_path):
    """A window; it is photographed at the end, as the only witness of what went wrong."""
    page = chromium.new_page(viewport={"width": 1280, "height": 1000})
    page.set_default_timeout(1000 * PATIENCE)  # of one click or look; for what a kernel computes there is `wait_until`
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


def test_panel_answers_keyboard(page, lab, desk):
    """In JupyterLab a panel follows its slider by keyboard and its dropdown, and recovers from an error."""
    write(desk / "panel.ipynb", PANEL, "print('after')")
    errors = console_errors(page)
    run_all(page, lab, "panel.ipynb")
    enabled = page.locator(".noUi-target:not([disabled])")  # not while it is drawing

    def shows(text, within=page):
        seen = within.get_by_text(text)

        def is_shown():
            return seen.count() > 0 and enabled.count() > 0

        wait_until(page, lab, "panel.ipynb", is_shown, f"the panel shows {text!r}, and its slider may be moved")

    shows("drawn layer 2 for angry")
    page.locator(".noUi-handle").first.focus()
    page.keyboard.press("ArrowRight")
    shows("drawn layer 3 for angry")
    assert page.locator(".jp-OutputArea img").count() == 1
    page.keyboard.press("ArrowRight")  # the slider has kept the focus
    shows("ValueError: layer 4 <b>is missing</b>", within=page.get_by_role("alert"))
    page.keyboard.press("ArrowRight")
    shows("drawn layer 5 for angry")
    page.locator(".widget-dropdown select").select_option("sad")
    shows("drawn layer 5 for sad")
    assert page.locator(".jp-OutputArea [role=alert]").count() == 0
    assert cell_errors(page) == [] and errors == []


def test_harness_detects_errors(page, lab, desk):
    """The harness detects errors in the browser's console and in cells."""
    script = "from IPython.display import display, Javascript\ndisplay(Javascript('console.error(\"seen\")'))"
    write(desk / "wrong.ipynb", script, "1/0")
    errors = console_errors(page)
    run_all(page, lab, "wrong.ipynb")
    assert any("seen" in error for error in errors)
    assert any("ZeroDivisionError" in error for error in cell_errors(page))


@pytest.mark.full
@pytest.mark.parametrize(
    "path",
    [path for path in sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb")) if path.name[:2] in CHOSEN],
    ids=lambda path: path.stem,
)
def test_notebook_runs_without_errors(page, lab, desk, path):
    """A notebook runs in JupyterLab without errors, and its first slider redraws the panel by keyboard."""
    errors = console_errors(page)
    run_all(page, lab, path.name)
    assert cell_errors(page) == []
    handle = page.locator(".noUi-handle").first
    panel = page.locator(".jp-OutputArea-output:has(.noUi-handle)").first
    disabled = panel.locator(".noUi-target[disabled]")

    def shows_other_pictures_than(before):
        def condition():
            return pictures(panel) not in ("", before) and disabled.count() == 0

        wait_until(page, lab, path.name, condition, "the panel shows other pictures")

    wait_until(page, lab, path.name, lambda: handle.count() > 0, "the panel has a slider")
    handle.scroll_into_view_if_needed()
    shows_other_pictures_than("")
    before = pictures(panel)
    handle.focus()
    value = handle.get_attribute("aria-valuenow")
    for key in ("ArrowRight", "ArrowLeft"):  # at its end already, it can only go back
        handle.press(key)
        if handle.get_attribute("aria-valuenow") != value:
            break
    assert handle.get_attribute("aria-valuenow") != value
    shows_other_pictures_than(before)
    assert panel.get_by_role("alert").count() == 0
    assert errors == []
