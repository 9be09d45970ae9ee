"""Base class of all explorers: controls, an output, a status line, errors as one sentence."""

from __future__ import annotations

import base64
import html
import io
import logging
from collections import OrderedDict

import ipywidgets
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

log = logging.getLogger(__name__)


class Panel(ipywidgets.VBox):
    """Controls, named as the parameters of `draw`, above an output that is redrawn when one of them changes.

    Subclasses override `draw`. Setting `panel.controls["layer"].value = 3` redraws at once, also outside a notebook;
    `panel.shown` then holds what was drawn, `panel.figure` the last figure and `panel.error` the message if drawing
    failed. `height` is the output's minimum height in pixels, so that the page does not jump; `cache` is the number of
    drawings that are kept.
    """

    def __init__(self, title: str, controls: dict[str, ipywidgets.Widget], *, height: int = 360, cache: int = 64):
        self.controls = dict(controls)
        self.status = ipywidgets.HTML()
        self.output = ipywidgets.Output(layout={"min_height": f"{height}px"})
        self.shown: list = []
        self.figure: Figure | None = None
        self.error: str | None = None
        self._cache: OrderedDict[tuple, list] = OrderedDict()
        self._cache_size = cache
        self._busy = False
        for name, control in self.controls.items():
            control.description = control.description or name
            control.tooltip = getattr(control, "tooltip", None) or f"{title}: {control.description}"
            control.style.description_width = "initial"
            if isinstance(control, (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.SelectionSlider)):
                control.continuous_update = False
                control.layout.min_width = "320px"
            control.observe(self._on_change, names="value")
        bar = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HTML(f"<b>{html.escape(title)}</b>"), bar, self.status, self.output])
        self.redraw()

    def draw(self, **values) -> object:
        """Return the output for these values: a figure, or a list of figures, tables, players, HTML."""
        raise NotImplementedError(f"{type(self).__name__} must override draw(**values)")

    @property
    def values(self) -> dict:
        """Values of the controls by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _on_change(self, _change) -> None:
        """Redraw, unless a drawing is in progress."""
        if not self._busy:  # draw may itself set a control (say, a neuron's range after the layer)
            self.redraw()

    def redraw(self) -> None:
        """Draw for the current values, from the cache if they were drawn before."""
        self._busy = True
        disabled = {name: control.disabled for name, control in self.controls.items()}
        try:
            if self._key() not in self._cache:
                self._set_status("working …")
                for control in self.controls.values():
                    control.disabled = True
            self._update_shown()
            self._set_status(self.error or "", alert=self.error is not None)
            # In one assignment: redirecting display() exchanges messages, which may arrive at the wrong place.
            self.output.outputs = tuple(_output(item) for item in self.shown)
        finally:
            for name, control in self.controls.items():
                control.disabled = disabled[name]
            self._busy = False

    def _update_shown(self) -> None:
        """Set `shown` and `figure` to what is drawn for the current values, or `error` to the message of a failure."""
        try:
            self.shown = self._cached_drawing()
            self.error = None
        except Exception as error:  # shown in the panel: elsewhere it would only reach a log that nobody reads
            log.exception("%s could not draw %s", type(self).__name__, self.values)
            self.shown = []
            self.error = f"{type(error).__name__}: {_error_message(error)}"
        figures = [item for item in self.shown if isinstance(item, Figure)]
        if figures:
            self.figure = figures[0]

    def _key(self) -> tuple:
        """Return the cache key of the current values."""
        return tuple((name, repr(value)) for name, value in self.values.items())

    def _cached_drawing(self) -> list:
        """Return the output of `draw` for the current values, cached or new, as a list; figures are closed."""
        if self._key() not in self._cache:
            items = self._new_drawing()
            self._cache[self._key()] = items  # the key is taken after drawing, since draw may have changed a value
            while len(self._cache) > self._cache_size:
                self._cache.popitem(last=False)
        self._cache.move_to_end(self._key())
        return self._cache[self._key()]

    def _new_drawing(self) -> list:
        """Return the output of `draw` for the current values as a list, and close its figures."""
        open_figures = set(plt.get_fignums())
        try:
            result = self.draw(**self.values)
        finally:
            for number in set(plt.get_fignums()) - open_figures:
                plt.close(number)
        items = result if isinstance(result, (list, tuple)) else [result]
        return [item for item in items if item is not None]

    def _set_status(self, text: str, *, alert: bool = False) -> None:
        """Set the status line, which screen readers announce; text is escaped."""
        role = 'role="alert" style="color:#a40000"' if alert else 'role="status" style="color:#555"'
        self.status.value = f"<span {role}>{html.escape(text)}</span>"


def _error_message(error: Exception) -> str:
    """Return the error's message; a KeyError's without the quotes that str() puts around it."""
    if isinstance(error, KeyError) and error.args:
        return str(error.args[0])
    return str(error)


def _output(item: object) -> dict:
    """Return a figure, widget, table, player or text as a display output."""
    if isinstance(item, Figure):
        png = io.BytesIO()
        item.savefig(png, format="png", bbox_inches="tight")
        data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "figure"}
    elif isinstance(item, ipywidgets.Widget):
        data = item._repr_mimebundle_()
    else:
        data = {"text/plain": str(item)}
        if hasattr(item, "_repr_html_"):
            data["text/html"] = item._repr_html_()
    return {"output_type": "display_data", "data": data, "metadata": {}}
