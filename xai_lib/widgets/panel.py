"""The frame around every explorer: controls, an output, a word on what is happening, errors in a sentence."""

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
    """Controls, by the name that `draw` knows them by, above an output that is redrawn when one of them changes.

    Subclasses override `draw`. Setting `panel.controls["layer"].value = 3` redraws at once, in a notebook as in a test
    without one; `panel.shown` then holds what was drawn, `panel.figure` the last figure and `panel.error` the sentence
    if drawing failed. `height` is the output's least, in pixels, so that the page does not jump; `cache` is how many
    drawings are kept.
    """

    def __init__(self, title: str, controls: dict[str, ipywidgets.Widget], *, height: int = 360, cache: int = 64):
        self.controls, self.status = dict(controls), ipywidgets.HTML()
        self.output = ipywidgets.Output(layout={"min_height": f"{height}px"})
        self.shown, self.figure, self.error = [], None, None
        self._cache, self._keep, self._busy = OrderedDict(), cache, False
        for name, control in self.controls.items():
            control.description = control.description or name
            control.tooltip = getattr(control, "tooltip", None) or f"{title}: {control.description}"
            control.style.description_width = "initial"
            if isinstance(control, (ipywidgets.IntSlider, ipywidgets.FloatSlider, ipywidgets.SelectionSlider)):
                control.continuous_update = False
                control.layout.min_width = "320px"
            control.observe(self._changed, names="value")
        bar = ipywidgets.HBox(list(self.controls.values()), layout={"flex_flow": "row wrap"})
        super().__init__([ipywidgets.HTML(f"<b>{html.escape(title)}</b>"), bar, self.status, self.output])
        self.redraw()

    def draw(self, **values):
        """Return what to show for these values: a figure, or a list of figures, tables, players, HTML."""
        raise NotImplementedError(f"{type(self).__name__} must override draw(**values)")

    @property
    def values(self) -> dict:
        """The controls' values by name."""
        return {name: control.value for name, control in self.controls.items()}

    def _changed(self, _change) -> None:
        if not self._busy:  # draw may itself set a control (say, a neuron's range after the layer)
            self.redraw()

    def redraw(self) -> None:
        """Draw for the present values, from the cache where it was drawn before."""
        self._busy = True
        usable = {name: control.disabled for name, control in self.controls.items()}
        try:
            if self._key() not in self._cache:
                self._say("working …")
                for control in self.controls.values():
                    control.disabled = True
            try:
                self.shown, self.error = self._drawn(), None
            except Exception as error:  # shown in words: outside the panel it would only reach a log that nobody sees
                log.exception("%s could not draw %s", type(self).__name__, self.values)
                self.shown, self.error = [], f"{type(error).__name__}: {_sentence(error)}"
            self._say(self.error or "", alert=self.error is not None)
            self.figure = next((item for item in self.shown if isinstance(item, Figure)), self.figure)
            # In one assignment: redirecting display() needs an exchange of messages, and a client can lose its place.
            self.output.outputs = tuple(_output(item) for item in self.shown)
        finally:
            for name, control in self.controls.items():
                control.disabled = usable[name]
            self._busy = False

    def _key(self) -> tuple:
        return tuple((name, repr(value)) for name, value in self.values.items())

    def _drawn(self) -> list:
        """What `draw` returned for these values, now or before, as a list; figures are closed."""
        if self._key() not in self._cache:
            before = set(plt.get_fignums())
            try:
                result = self.draw(**self.values)
            finally:
                for number in set(plt.get_fignums()) - before:
                    plt.close(number)
            # What was drawn belongs to the values as they are now, should draw have changed one.
            shown = result if isinstance(result, (list, tuple)) else [result]
            self._cache[self._key()] = [item for item in shown if item is not None]
            while len(self._cache) > self._keep:
                self._cache.popitem(last=False)
        self._cache.move_to_end(self._key())
        return self._cache[self._key()]

    def _say(self, text: str, *, alert: bool = False) -> None:
        """A line that screen readers announce; text is escaped."""
        role = 'role="alert" style="color:#a40000"' if alert else 'role="status" style="color:#555"'
        self.status.value = f"<span {role}>{html.escape(text)}</span>"


def _sentence(error: Exception) -> str:
    """The error's message; a KeyError's without the quotes that str() puts around it."""
    return str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)


def _output(item) -> dict:
    """A figure, widget, table, player or text as a display output."""
    if isinstance(item, Figure):
        png = io.BytesIO()
        item.savefig(png, format="png", bbox_inches="tight")
        data = {"image/png": base64.b64encode(png.getvalue()).decode(), "text/plain": "figure"}
    elif isinstance(item, ipywidgets.Widget):
        data = item._repr_mimebundle_()
    else:
        data = {"text/plain": str(item)} | ({"text/html": item._repr_html_()} if hasattr(item, "_repr_html_") else {})
    return {"output_type": "display_data", "data": data, "metadata": {}}
