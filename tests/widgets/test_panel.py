"""Panel without a browser: setting a control draws, errors are sentences, text is escaped."""

from __future__ import annotations

import base64

import ipywidgets
import pytest
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from xai_lib.widgets import Panel


class Lines(Panel):
    """Draws `layer` lines; layer 4 does not exist."""

    def __init__(self, **options):
        self.calls = []
        super().__init__(
            "Lines <b>",
            {
                "layer": ipywidgets.IntSlider(1, 0, 5),
                "emotion": ipywidgets.Dropdown(options=["angry", "sad"], description="Emotion"),
            },
            **options,
        )

    def draw(self, layer, emotion):
        self.calls.append((layer, emotion))
        assert all(control.disabled for control in self.controls.values()) and "working" in self.status.value
        figure, axes = plt.subplots()
        for _ in range(layer):
            axes.plot([0, 1])
        if layer == 4:
            raise KeyError("layer 4 <out of range>")
        return [figure, "text"]


def test_panel_redraws_when_control_is_set():
    """Setting a control redraws the panel; meanwhile controls are disabled, and afterwards figures are closed."""
    panel = Lines()
    assert panel.calls == [(1, "angry")] and len(panel.figure.axes[0].lines) == 1
    panel.controls["layer"].value = 3
    assert len(panel.figure.axes[0].lines) == 3 and panel.shown[1] == "text"
    picture, text = (output["data"] for output in panel.output.outputs)
    assert base64.b64decode(picture["image/png"]).startswith(b"\x89PNG") and text == {"text/plain": "text"}
    panel.controls["emotion"].value = "sad"
    assert panel.calls[-1] == (3, "sad") and panel.status.value.endswith("></span>")
    assert not any(control.disabled for control in panel.controls.values()) and plt.get_fignums() == []


def test_panel_caches_recent_drawings():
    """Drawings are cached, and the least recently used one is dropped when the cache is full."""
    panel = Lines(cache=2)
    first = panel.figure
    panel.controls["layer"].value = 2
    panel.controls["layer"].value = 1
    assert panel.figure is first and len(panel.calls) == 2
    panel.controls["layer"].value = 3  # forgets 2
    panel.controls["layer"].value = 2
    assert len(panel.calls) == 4 and len(panel._cache) == 2


def test_panel_shows_errors(caplog):
    """An error is shown as an escaped alert without traceback, and the panel goes on working."""
    panel = Lines()
    panel.controls["layer"].value = 4
    assert panel.error == "KeyError: layer 4 <out of range>" and panel.shown == []
    assert "layer 4 &lt;out of range&gt;" in panel.status.value and 'role="alert"' in panel.status.value
    assert "Traceback" in caplog.text and "Traceback" not in panel.status.value and plt.get_fignums() == []
    panel.controls["layer"].value = 2
    assert panel.error is None and isinstance(panel.figure, Figure) and "alert" not in panel.status.value


def test_panel_controls_are_labelled():
    """Controls have labels and tooltips, the title is escaped, and a slider does not fire while it is dragged."""
    panel = Lines()
    assert panel.controls["layer"].continuous_update is False
    assert [control.description for control in panel.controls.values()] == ["layer", "Emotion"]
    assert "Lines &lt;b&gt;" in panel.children[0].value and panel.output.layout.min_height == "360px"
    assert all(control.tooltip for control in panel.controls.values())


def test_panel_draw_may_set_control():
    """`draw` may limit another control's range, and the drawing shows the value within that range."""

    class Bound(Panel):
        def draw(self, layer, neuron):
            self.controls["neuron"].max = layer
            return f"{layer} {self.controls['neuron'].value}"

    panel = Bound("x", {"layer": ipywidgets.IntSlider(5, 0, 5), "neuron": ipywidgets.IntSlider(5, 0, 9)})
    panel.controls["layer"].value = 2
    assert panel.shown == ["2 2"]
    panel.controls["layer"].value = 5
    panel.controls["neuron"].value = 4
    assert panel.shown == ["5 4"]


def test_panel_requires_draw():
    """A panel that does not override `draw` shows an error that says so."""
    assert "must override draw" in Panel("x", {}).error


def test_colors_are_fixed_and_distinct():
    """Emotions have fixed colours and other classes distinct ones, whatever is repeated; maps use cividis."""
    from xai_lib.plots import style

    style.use()
    assert plt.rcParams["image.cmap"] == "cividis"
    assert style.colors(["sad", "angry"]) == {name: style.EMOTION_COLORS[name] for name in ("sad", "angry")}
    many = style.colors([f"class {i}" for i in range(20)] + ["angry"])
    assert len(set(many.values())) == 21 and many["angry"] == style.EMOTION_COLORS["angry"]
    assert style.colors(["b", "a"]) == style.colors(["b", "a", "b"])


@pytest.mark.parametrize("n", [0, 1, 100])
def test_colors_accept_any_number(n):
    """Each of 0, 1 or 100 labels gets a colour."""
    from xai_lib.plots import style

    assert len(style.colors(map(str, range(n)))) == n
