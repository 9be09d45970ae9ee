import html
import re

import ipywidgets
import pandas as pd
from IPython.display import Audio

from .. import audio
from ..corpora import as_clips, emotion_profiles
from ..corpora.filenames import ordered
from ..plots.clip import clip as plot
from .panel import Panel

ANY = "any"


class ClipExplorer(Panel):
    """Choose by emotion, sex, speaker and intensity, where `clips` know them, then step through the clips that match.

    Shows waveform, spectrogram, F0 and a player at the recorded level (clips are not made equally loud), and what the
    model says of the clip where a model was given. `emotion` is chosen at first, if some clip has it.
    """

    def __init__(self, clips, *, model=None, emotion=None, sample_rate=None):
        if isinstance(clips, pd.DataFrame) and clips.empty:
            raise ValueError("there are no clips to explore: the selection is empty")
        clips = as_clips(clips, sample_rate)
        self.clips, self.model, self._choices = clips, model, {}
        self.sample_rate = model.sample_rate if model else audio.SAMPLE_RATE
        titles = {"label": "Emotion", "sex": "Sex", "speaker": "Speaker", "intensity": "Intensity"}
        for column, title in titles.items():
            known = set(clips[column].dropna().astype(str)) if column in clips else set()
            if known:
                options = [ANY, *ordered(known)]
                first = emotion if column == "label" and emotion in known else ANY
                self._choices[column] = ipywidgets.Dropdown(options=options, value=first, description=title)
        self._number = ipywidgets.IntSlider(1, 1, max(len(self.chosen()), 1), description="Clip")
        for choice in self._choices.values():  # before the panel's own observer, which draws
            choice.observe(lambda _: setattr(self._number, "max", max(len(self.chosen()), 1)), names="value")
        super().__init__("Clips", {**self._choices, "clip": self._number}, height=560)

    def chosen(self):
        """The clips that match the controls."""
        asked = {column: choice.value for column, choice in self._choices.items() if choice.value != ANY}
        return self.clips[(self.clips[list(asked)].astype(str) == pd.Series(asked, dtype=object)).all(axis=1)]

    def draw(self, clip, **choices):
        found = self.chosen()
        if found.empty:
            asked = ", ".join(value for value in choices.values() if value != ANY)
            raise ValueError(f"no clip is {asked}: set one of the controls to “{ANY}”")
        row = found.iloc[min(clip, len(found)) - 1]
        source = audio.sources(found).loc[row.name]
        waveform = audio.read(source, self.sample_rate)
        said = ", ".join(str(row[name]) for name in self._choices if row.notna()[name])
        name = re.split(r"[\\/]", str(source))[-1]
        text = f"clip {min(clip, len(found))} of {len(found)}: {name}"
        if self.model is not None:
            best = (
                self.model.predict(found.loc[[row.name]])
                .iloc[0]
                .drop("label", errors="ignore")
                .astype(float)
                .nlargest(3)
            )
            text += "; the model says " + ", ".join(f"{label} {p:.0%}" for label, p in best.items())
        figure = plot(emotion_profiles.frames(waveform, self.sample_rate), title=said or name)
        player = Audio(waveform.clip(-1, 1), rate=self.sample_rate, normalize=False)
        return [figure, player, ipywidgets.HTML(html.escape(text))]
