"""Executed notebooks as HTML pages that need no network, and the index page of a run."""

import copy
import html
import json
import re
from pathlib import Path

from nbformat.v4 import new_output


def title_of(notebook) -> str:
    """Return the first heading of a notebook, "" if it has none."""
    text = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    match = re.search(r"^# +(.+)$", text, re.MULTILINE)
    return match[1].strip() if match else ""


def to_html(notebook, title: str) -> str:
    """Convert a notebook to one HTML page that needs no network: embedded images, no external scripts.

    Formulas remain LaTeX source, since MathJax would have to be fetched. The alt text of an image is the heading above
    it.
    """
    from nbconvert import HTMLExporter

    scripts = ("mathjax", "require_js", "jquery", "mermaid_js", "mermaid_layout_elk_js", "widget_renderer")
    no_urls = {f"{name}_url": "" for name in scripts}
    exporter = HTMLExporter(template_name="lab", embed_images=True, language_code="en", **no_urls)
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "code" and cell.source.startswith("widgets.") and not cell.outputs:
            text = "(Sliders need a running notebook: make lab, then Run All Cells.)"
            cell.outputs = [new_output("stream", text=text)]
    body, _ = exporter.from_notebook_node(notebook, resources={"metadata": {"name": title}})
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
    heading, pieces = title, re.split(r"(<h[1-6][^>]*>.*?</h[1-6]>|<img\b[^>]*>)", page, flags=re.DOTALL)
    for i, piece in enumerate(pieces):
        if re.match(r"<h[1-6]", piece):
            heading = html.unescape(re.sub(r"<[^>]+>", "", piece)).replace("¶", "").strip() or heading
        elif piece.startswith("<img"):
            image = re.sub(r"\salt=\"(No description has been provided for this image)?\"", "", piece)
            if not re.search(r"\salt=", image):
                pieces[i] = image.replace("<img", f'<img alt="Figure: {html.escape(heading, quote=True)}"', 1)
    return "".join(pieces)


def index(folder: Path, results: list, given: dict) -> str:
    """Return the HTML page of a run: its parameters, and for each notebook its figures, a link and its duration."""
    parts = []
    for result in results:
        link = html.escape(result.out.with_suffix(".html").name)
        name, title = result.out.stem, html.escape(result.title)
        figures = sorted((folder / "figures").glob(f"{name[:2]}_*.png"))
        pictures = {html.escape(f"figures/{f.name}"): html.escape(f.stem[3:].replace("_", " ")) for f in figures}
        images = "".join(
            f'<figure><a href="{path}"><img src="{path}" alt="{title}"></a><figcaption>{caption}</figcaption></figure>'
            for path, caption in pictures.items()
        )
        state = f'<strong class="bad">failed: {html.escape(result.error)}</strong>' if result.error else "done"
        parts.append(
            f'<section><h2><a href="{link}">{title}</a></h2><p>{state}, {result.seconds:.0f} s · '
            f'<a href="{html.escape(result.out.name)}">notebook</a></p>'
            f'<div class="figures">{images}</div></section>'
        )
    provenance = [json.loads(p.read_text()) for p in sorted(folder.glob("*.json"))]
    data = "".join(
        f'<li><a href="data/{html.escape(p.name)}">{html.escape(p.name)}</a></li>'
        for p in sorted((folder / "data").glob("[!.]*"))
    )
    settings = html.escape(
        ", ".join(f"{name} = {value}" for name, value in given.items()) or "bundled corpus and model"
    )
    details = html.escape(json.dumps(provenance[0] if provenance else {"parameters": given}, indent=1))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>{html.escape(folder.name)}</title><style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 70rem; margin: 2rem auto; padding: 0 1rem;
  color: #222 }}
.figures {{ display: flex; flex-wrap: wrap; gap: 1rem }}
.figures img {{ height: 11rem; border: 1px solid #ccc }} figure {{ margin: 0 }} figcaption {{ color: #555 }}
a {{ color: #0b57a4 }} .bad {{ color: #a40000 }} pre {{ background: #f5f5f5; padding: 1rem; overflow: auto }}
</style></head><body><main><h1>What the neurons of a speech model do</h1><p>{settings} ({html.escape(folder.name)})</p>
{"".join(parts)}
<h2>Data</h2><ul>{data or "<li>none saved</li>"}</ul>
<h2>How it was made</h2><pre>{details}</pre></main></body></html>
"""
