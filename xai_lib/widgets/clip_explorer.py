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
    """Explorer of clips: filters by emotion, sex, speaker and intensity, where known, and a slider over the matches.

    Shows waveform, spectrogram, F0 and a player at the recorded level (clips are not equalised in loudness), and, with
    a `model`, its three most probable classes. `emotion` is the initial filter, if some clip has it.
    """

    def __init__(self, clips, *, model=None, emotion=None, sample_rate=None):
        if isinstance(clips, pd.DataFrame) and clips.empty:
            raise ValueError("there are no clips to explore: clips is empty; pass at least one")
        clips = as_clips(clips, sample_rate)
        self.clips, self.model, self._choices = clips, model, {}
        self.sample_rate = model.sample_rate if model else audio.SAMPLE_RATE
        titles = {"label": "Emotion", "sex": "Sex", "speaker": "Speaker", "intensity": "Intensity"}
        for column, title in titles.items():
            known = set(clips[column].dropna().astype(str)) if column in clips else set()
            if known:
                options = [ANY, *ordered(known)]
                value = emotion if column == "label" and emotion in known else ANY
                self._choices[column] = ipywidgets.Dropdown(options=options, value=value, description=title)
        self._number = ipywidgets.IntSlider(1, 1, max(len(self.matching()), 1), description="Clip")
        for choice in self._choices.values():  # before the panel's own observer, which redraws
            choice.observe(lambda _: setattr(self._number, "max", max(len(self.matching()), 1)), names="value")
        super().__init__("Clips", {**self._choices, "clip": self._number}, height=560)

    def matching(self):
        """Return the clips that match the controls."""
        filters = {column: choice.value for column, choice in self._choices.items() if choice.value != ANY}
        return self.clips[(self.clips[list(filters)].astype(str) == pd.Series(filters, dtype=object)).all(axis=1)]

    def draw(self, clip, **choices):
        """Return figure, player and text of the clip of this number; raise ValueError if none matches."""
        matching = self.matching()
        if matching.empty:
            filters = ", ".join(value for value in choices.values() if value != ANY)
            raise ValueError(f"no clip matches {filters}: set one of the controls to “{ANY}”")
        row = matching.iloc[min(clip, len(matching)) - 1]
        source = audio.sources(matching).loc[row.name]
        waveform = audio.read(source, self.sample_rate)
        metadata = ", ".join(str(row[name]) for name in self._choices if row.notna()[name])
        name = re.split(r"[\\/]", str(source))[-1]
        text = f"clip {min(clip, len(matching))} of {len(matching)}: {name}"
        if self.model is not None:
            top_classes = (
                self.model.predict(matching.loc[[row.name]])
                .iloc[0]
                .drop("label", errors="ignore")
                .astype(float)
                .nlargest(3)
            )
            text += "; predicted: " + ", ".join(f"{label} {p:.0%}" for label, p in top_classes.items())
        figure = plot(emotion_profiles.frames(waveform, self.sample_rate), title=metadata or name)
        player = Audio(waveform.clip(-1, 1), rate=self.sample_rate, normalize=False)
        return [figure, player, ipywidgets.HTML(html.escape(text))]
