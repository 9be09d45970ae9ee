from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import ipywidgets
import pandas as pd
from IPython.display import Audio

from .. import audio, plots
from ..corpora import as_clips, emotion_profiles
from ..corpora.filenames import ordered
from .panel import Panel

if TYPE_CHECKING:
    from ..models import Model

ANY = "any"
_FILTERS = {"label": "Emotion", "sex": "Sex", "speaker": "Speaker", "intensity": "Intensity"}  # titles by column


class ClipExplorer(Panel):
    """Explorer of clips: filters by emotion, sex, speaker and intensity, where known, and a slider over the matches.

    Shows waveform, spectrogram, F0 and a player at the recorded level (clips are not equalised in loudness), and, with
    a `model`, its three most probable classes. `emotion` is the initial filter, if some clip has it.
    """

    def __init__(
        self, clips, *, model: Model | None = None, emotion: str | None = None, sample_rate: int | None = None
    ):
        if isinstance(clips, pd.DataFrame) and clips.empty:
            raise ValueError("there are no clips to explore: clips is empty; pass at least one")
        self.clips = as_clips(clips, sample_rate)
        self.model = model
        self.sample_rate = model.sample_rate if model else audio.SAMPLE_RATE
        self._choices = self._make_choices(emotion)
        self._number = ipywidgets.IntSlider(1, 1, max(len(self.matching()), 1), description="Clip")
        for choice in self._choices.values():  # before the panel's own observer, which redraws
            choice.observe(self._limit_number, names="value")
        super().__init__("Clips", {**self._choices, "clip": self._number}, height=560)

    def _make_choices(self, emotion):
        """Return a drop-down list for each column that is known of some clip."""
        choices = {}
        for column, title in _FILTERS.items():
            if column not in self.clips or self.clips[column].isna().all():
                continue
            known = set(self.clips[column].dropna().astype(str))
            value = emotion if column == "label" and emotion in known else ANY
            choices[column] = ipywidgets.Dropdown(options=[ANY, *ordered(known)], value=value, description=title)
        return choices

    def _limit_number(self, _change) -> None:
        """Limit the slider to the number of clips that match."""
        self._number.max = max(len(self.matching()), 1)

    def matching(self) -> pd.DataFrame:
        """Return the clips that match the controls."""
        matching = self.clips
        for column, choice in self._choices.items():
            if choice.value != ANY:
                matching = matching[matching[column].astype(str) == choice.value]
        return matching

    def draw(self, clip: int, **choices: str) -> list:
        """Return figure, player and text of the clip of this number; raise ValueError if none matches."""
        matching = self.matching()
        if matching.empty:
            filters = ", ".join(value for value in choices.values() if value != ANY)
            raise ValueError(f"no clip matches {filters}: set one of the controls to “{ANY}”")
        number = min(clip, len(matching))
        row = matching.iloc[number - 1]
        source = audio.sources(matching).loc[row.name]
        waveform = audio.read(source, self.sample_rate)
        name = re.split(r"[\\/]", str(source))[-1]
        text = f"clip {number} of {len(matching)}: {name}"
        if self.model is not None:
            text += f"; predicted: {self._prediction(matching.loc[[row.name]])}"

        metadata = ", ".join(str(row[column]) for column in self._choices if pd.notna(row[column]))
        figure = plots.clip(emotion_profiles.frames(waveform, self.sample_rate), title=metadata or name)
        player = Audio(waveform.clip(-1, 1), rate=self.sample_rate, normalize=False)
        return [figure, player, ipywidgets.HTML(html.escape(text))]

    def _prediction(self, clip):
        """Return the three most probable classes of one clip, with their probabilities, as text."""
        probabilities = self.model.predict(clip).iloc[0].drop("label", errors="ignore").astype(float)
        return ", ".join(f"{label} {p:.0%}" for label, p in probabilities.nlargest(3).items())
