"""Captioners: a caption for each clip from measured features, a classifier's tags, or an audio language model.

A captioner is called with clips and returns a Series of str by clip, "caption". A clip that cannot be read, or that
gets no caption, is NaN and named in a warning.
"""

from __future__ import annotations

import re

import numpy as np
import pandas as pd

from ... import audio
from ...corpora import as_clips
from ...models import checkpoints
from .encoders import _features_table, _load, ranks
from .vocabulary import BadAnswer, each, lexicon, prompt

NOTHING = "an ordinary voice"


def captions(
    table: pd.DataFrame, reference: pd.DataFrame, *, speakers: pd.Series | None = None, noun: str = "voice"
) -> pd.Series:
    """Return a caption per clip from its measured features: "a very loud, high-pitched, fast voice".

    A feature is mentioned when it lies in the lower or upper third of the reference clips, with "very" in the outer
    tenth; values between are not mentioned, and a clip without any is "an ordinary voice". A clip that has sound but no
    pitch is "unpitched". Parameters as in `ranks`; for clips that are not all speech, set `noun` to "sound".
    """
    words = lexicon()
    has_sound = table["level_db"].notna()
    clip_ranks = ranks(table, reference, speakers=speakers)
    texts = [_caption(row, words, noun, has_sound[clip]) for clip, row in clip_ranks.iterrows()]
    return pd.Series(texts, table.index, dtype=object, name="caption")


class Acoustics:
    """Captioner that measures features of the sound, offline: see `captions`.

    Parameters
    ----------
    reference : DataFrame
        Clips among which others are ranked, or their `corpora.features_table`.
    """

    def __init__(self, reference: pd.DataFrame, *, noun: str = "voice"):
        self.reference = _features_table(reference)
        self.noun = noun

    def __call__(self, clips) -> pd.Series:
        clips = as_clips(clips)
        table = _features_table(clips)
        texts = captions(table, self.reference, noun=self.noun)

        def caption_of(clip):
            if clip not in table.index or np.isnan(table["level_db"][clip]):
                raise BadAnswer(f"{clips.loc[clip].get('path', clip)} contains no sound or cannot be read")
            return texts[clip]

        return each(caption_of, zip(clips.index, clips.index), "clips").rename("caption")


class Tagger:
    """Captioner that lists the labels of a transformers audio classifier, by hub id or folder: "dog, wind".

    The caption holds the `top` most probable labels, in descending order, whose probability is at least `floor`. Do not
    tag with the model whose neurons are to be described: the descriptions would be circular.
    """

    def __init__(self, model: str, *, top: int = 3, floor: float = 0.1, device: str = "auto"):
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        self.top = top
        self.floor = floor
        self.device = checkpoints.device(device)
        self.network, self.extractor = _load(model, AutoModelForAudioClassification, AutoFeatureExtractor, self.device)

    def probabilities(self, waveform: np.ndarray) -> pd.Series:
        """Return the probability of each label; those of a multi-label model do not sum to 1."""
        import torch

        rate = self.extractor.sampling_rate
        inputs = self.extractor(waveform, sampling_rate=rate, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            logits = self.network(**inputs).logits[0].float()
        if self.network.config.problem_type == "multi_label_classification":
            probabilities = logits.sigmoid()
        else:
            probabilities = logits.softmax(-1)
        labels = [self.network.config.id2label[i] for i in range(len(probabilities))]
        return pd.Series(probabilities.cpu().numpy(), labels)

    def _describe(self, waveform) -> str:
        likely = self.probabilities(waveform).sort_values(ascending=False, kind="stable")[: self.top]
        likely = likely[likely >= self.floor]
        if not len(likely):
            raise BadAnswer(f"no tag has a probability of {self.floor:g} or more")
        return ", ".join(likely.index.astype(str))

    def __call__(self, clips) -> pd.Series:
        return _caption_clips(self._describe, clips, self.extractor.sampling_rate)


class AudioLanguageModel:
    """Captioner that prompts an audio language model, such as Qwen2-Audio, by hub id or folder, with `ask` and a clip.

    Decoding is greedy, so the same clip always gets the same caption. The model receives as much of a clip as its
    processor passes on: 30 seconds for Qwen2-Audio.

    Parameters
    ----------
    ask : str, optional
        The request (default: data/prompts/describe.txt).
    max_tokens : int
        Maximum number of tokens of an answer; a longer one is rejected (BadAnswer).
    """

    def __init__(
        self,
        model: str = "Qwen/Qwen2-Audio-7B-Instruct",
        *,
        ask: str | None = None,
        max_tokens: int = 128,
        device: str = "auto",
    ):
        from transformers import AutoModelForMultimodalLM, AutoProcessor

        self.ask = ask or prompt("describe")[-1]
        self.max_tokens = max_tokens
        self.device = checkpoints.device(device)
        self.network, self.processor = _load(model, AutoModelForMultimodalLM, AutoProcessor, self.device, "auto")
        self.sample_rate = self.processor.feature_extractor.sampling_rate

    def _describe(self, waveform) -> str:
        content = [{"type": "audio", "audio": waveform}, {"type": "text", "text": self.ask}]
        chat = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        options = {"sampling_rate": self.sample_rate, "return_tensors": "pt"}
        inputs = self.processor(text=[text], audio=[waveform], **options).to(self.device, self.network.dtype)
        return generated(self.network, self.processor.tokenizer, inputs, self.max_tokens)

    def __call__(self, clips) -> pd.Series:
        return _caption_clips(self._describe, clips, self.sample_rate)


def generated(network, tokenizer, inputs, max_tokens: int) -> str:
    """Return the greedy answer of a language model; raise BadAnswer if it is empty or longer than `max_tokens`."""
    import torch

    n_prompt = inputs["input_ids"].shape[1]
    limit = network.config.get_text_config().max_position_embeddings
    if n_prompt + max_tokens > limit:
        raise BadAnswer(
            f"a prompt of {n_prompt} tokens and an answer of {max_tokens} exceed the model's context of {limit} tokens"
        )
    with torch.inference_mode():
        tokens = network.generate(
            **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=max_tokens
        )
    new_tokens = tokens[0, n_prompt:]
    answer = tokenizer.decode(new_tokens, skip_special_tokens=True).strip()
    if not answer:
        raise BadAnswer("the answer is empty")
    end_tokens = np.append(network.generation_config.eos_token_id, tokenizer.eos_token_id)  # the former may be a list
    if len(new_tokens) == max_tokens and new_tokens[-1].item() not in end_tokens:
        raise BadAnswer(f"the answer is cut off after {max_tokens} tokens: {answer!r}")
    return answer


def _caption_clips(describe, clips, sample_rate) -> pd.Series:
    """Return the caption of each clip, from a function of its waveform."""
    clips = as_clips(clips)
    texts = each(describe, audio.stream(clips, sample_rate, skipped={}), "clips")
    return texts.reindex(clips.index).rename("caption")


def _caption(row, words, noun, has_sound) -> str:
    """Return the caption of one clip from its ranks."""
    terms = [_term(rank, words.loc[name], has_sound) for name, rank in row.items()]
    terms = [term for term in terms if term]
    if not terms:
        return NOTHING.replace("voice", noun)
    article = "an" if re.match("[aeiou]", terms[0]) else "a"
    return f"{article} {', '.join(terms)} {noun}"


def _term(rank, words, has_sound) -> str:
    """Return how a caption mentions the rank of one feature, "" where it does not."""
    if np.isnan(rank):
        return words["missing"] if has_sound else ""
    if 1 / 3 < rank < 2 / 3:
        return ""
    word = words["low"] if rank < 0.5 else words["high"]
    if rank <= 0.1 or rank >= 0.9:
        return f"very {word}"
    return word
