"""Executed notebooks as HTML pages that need no network, and the index page of a run."""

from __future__ import annotations

import copy
import html
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from nbformat.v4 import new_output

if TYPE_CHECKING:
    from nbformat import NotebookNode

    from .command_line import Execution


def title_of(notebook: NotebookNode) -> str:
    """Return the first heading of a notebook, "" if it has none."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    match = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def to_html(notebook: NotebookNode, title: str) -> str:
    """Convert a notebook to one HTML page that needs no network: embedded images, no external scripts.

    Formulas remain LaTeX source, since MathJax would have to be fetched. The alt text of an image is the heading above
    it.
    """
    from nbconvert import HTMLExporter

    scripts = ("mathjax", "require_js", "jquery", "mermaid_js", "mermaid_layout_elk_js", "widget_renderer")
    no_urls = {f"{name}_url": "" for name in scripts}
    exporter = HTMLExporter(template_name="lab", embed_images=True, language_code="en", **no_urls)
    page_notebook = copy.deepcopy(notebook)
    for cell in page_notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("widgets.") and not cell.outputs:
            text = "(Sliders need a running notebook: make lab, then Run All Cells.)"
            cell.outputs = [new_output("stream", text=text)]
    body, _ = exporter.from_notebook_node(page_notebook, resources={"metadata": {"name": title}})
    # The template still links scripts and style sheets of content-delivery networks: remove them.
    external = (
        r"<script\b[^>]*\bsrc=\"(https?:)?(//[^\"]*)?\"[^>]*>\s*</script>",
        r"<script\b[^>]*>(?:(?!</script>).)*?(cdnjs|unpkg|jsdelivr|MathJax|mermaid).*?</script>",
        r"<link\b[^>]*href=\"https?:[^>]*>",
    )
    for pattern in external:
        body = re.sub(pattern, "", body, flags=re.DOTALL)
    return _alt_texts(body, title)


def _alt_texts(page: str, title: str) -> str:
    """Give each image without a useful alt text the last heading before it."""
    heading = title
    pieces = re.split(r"(<h[1-6][^>]*>.*?</h[1-6]>|<img\b[^>]*>)", page, flags=re.DOTALL)
    for i, piece in enumerate(pieces):
        if re.match(r"<h[1-6]", piece):
            heading = html.unescape(re.sub(r"<[^>]+>", "", piece)).replace("¶", "").strip() or heading
        elif piece.startswith("<img"):
            image = re.sub(r"\salt=\"(No description has been provided for this image)?\"", "", piece)
            if not re.search(r"\salt=", image):
                pieces[i] = image.replace("<img", f'<img alt="Figure: {html.escape(heading, quote=True)}"', 1)
    return "".join(pieces)


def index(folder: Path, executions: Sequence[Execution], values: Mapping) -> str:
    """Return the HTML page of a run: its parameters, and for each notebook its figures, a link and its duration."""
    sections = "".join(_section(folder, execution) for execution in executions)
    links = ""
    for path in sorted((folder / "data").glob("[!.]*")):
        name = html.escape(path.name)
        links += f'<li><a href="data/{name}">{name}</a></li>'
    settings = ", ".join(f"{name} = {value}" for name, value in values.items()) or "bundled corpus and model"
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(folder.name)}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }}
.figures {{ display: flex; flex-wrap: wrap; gap: 1rem }}
.figures img {{ height: 11rem; border: 1px solid #ccc }} figure {{ margin: 0 }} figcaption {{ color: #555 }}
a {{ color: #0b57a4 }} .bad {{ color: #a40000 }} pre {{ background: #f5f5f5; padding: 1rem; overflow: auto }}
</style></head><body><main><h1>What the neurons of a speech model do</h1>
<p>{html.escape(settings)} ({html.escape(folder.name)})</p>
{sections}
<h2>Data</h2><ul>{links or "<li>none saved</li>"}</ul>
<h2>How it was made</h2><pre>{html.escape(_provenance(folder, values))}</pre></main></body></html>
"""


def _section(folder: Path, execution: Execution) -> str:
    """Return the section of one notebook: title and link, whether it failed, duration and figures."""
    title = html.escape(execution.title)
    page = html.escape(execution.out.with_suffix(".html").name)
    notebook = html.escape(execution.out.name)
    state = "done"
    if execution.error:
        state = f'<strong class="bad">failed: {html.escape(execution.error)}</strong>'
    figures = ""
    for path in sorted((folder / "figures").glob(f"{execution.out.stem[:2]}_*.png")):
        link = html.escape(f"figures/{path.name}")
        caption = html.escape(path.stem[3:].replace("_", " "))
        figures += (
            f'<figure><a href="{link}"><img src="{link}" alt="{title}"></a><figcaption>{caption}</figcaption></figure>'
        )
    return (
        f'<section><h2><a href="{page}">{title}</a></h2><p>{state}, {execution.seconds:.0f} s · '
        f'<a href="{notebook}">notebook</a></p><div class="figures">{figures}</div></section>'
    )


def _provenance(folder: Path, values: Mapping) -> str:
    """Return as JSON how the run was made: what its first notebook stored, or else the parameters."""
    files = sorted(folder.glob("*.json"))
    provenance = json.loads(files[0].read_text()) if files else {"parameters": values}
    return json.dumps(provenance, indent=1)
