"""A caption for each clip: measured, from a classifier's tags, or from a model that hears and writes.

A captioner is called with clips and gives a Series of str by clip, "caption". A clip that cannot be read, or about which
nothing was said, is NaN and named in a warning.
"""

import re

import numpy as np
import pandas as pd

from ... import audio
from ...corpora import as_clips
from ...models import checkpoints
from .encoders import _measured, _open, ranks
from .vocabulary import BadAnswer, each, lexicon, prompt

NOTHING = "an ordinary voice"


def captions(table, reference, *, speakers=None, noun="voice") -> pd.Series:
    """A caption per clip, from what was measured: "a very loud, high-pitched, fast voice".

    A feature is said when it lies in the lower or upper third of the reference clips, with "very" in the outer
    tenth; what lies between is left unsaid, and a clip without any is "an ordinary voice". A clip that sounds without
    any pitch is "unpitched". Parameters as in `ranks`; of clips that are not all speech, `noun` is "sound".
    """
    words, placed = lexicon(), ranks(table, reference, speakers=speakers)
    sounds = table["level_db"].notna()
    said = [_caption(row, words, noun, sounds[clip]) for clip, row in placed.iterrows()]
    return pd.Series(said, table.index, dtype=object, name="caption")


class Acoustics:
    """Captions measured from the sound, offline: see `captions`.

    Parameters
    ----------
    reference : DataFrame
        The clips that others are ranked among, or their `corpora.features_table`.
    """

    def __init__(self, reference, *, noun="voice"):
        self.reference, self.noun = _measured(reference), noun

    def __call__(self, clips) -> pd.Series:
        clips = as_clips(clips)
        table = _measured(clips)
        written = captions(table, self.reference, noun=self.noun)

        def written_of(clip):
            if clip not in table.index or np.isnan(table["level_db"][clip]):
                raise BadAnswer(f"there is no sound in {clips.loc[clip].get('path', clip)}, or it cannot be read")
            return written[clip]

        return each(written_of, zip(clips.index, clips.index), "clips").rename("caption")


class Tagger:
    """The names that an audio classifier of transformers, by hub id or folder, gives a clip: "dog, wind".

    The `top` likeliest, likeliest first, of those whose probability is `floor` or more. Never tag with the model whose
    neurons are to be described: that would be its own opinion of itself.
    """

    def __init__(self, model, *, top=3, floor=0.1, device="auto"):
        from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

        self.top, self.floor, self.device = top, floor, checkpoints.device(device)
        self.network, self.extractor = _open(model, AutoModelForAudioClassification, AutoFeatureExtractor, self.device)

    def probabilities(self, waveform) -> pd.Series:
        """Probability of each label; of a model with several labels a clip they do not sum to 1."""
        import torch

        rate = self.extractor.sampling_rate
        inputs = self.extractor(waveform, sampling_rate=rate, return_tensors="pt").to(self.device)
        with torch.inference_mode():
            logits = self.network(**inputs).logits[0].float()
        several = self.network.config.problem_type == "multi_label_classification"
        found = (logits.sigmoid() if several else logits.softmax(-1)).cpu().numpy()
        return pd.Series(found, [self.network.config.id2label[i] for i in range(len(found))])

    def _say(self, waveform) -> str:
        likely = self.probabilities(waveform).sort_values(ascending=False, kind="stable")[: self.top]
        likely = likely[likely >= self.floor]
        if not len(likely):
            raise BadAnswer(f"no tag has a probability of {self.floor:g} or more")
        return ", ".join(map(str, likely.index))

    def __call__(self, clips) -> pd.Series:
        return _heard(self._say, clips, self.extractor.sampling_rate)


class AudioLanguageModel:
    """What a model that hears and writes, such as Qwen2-Audio, by hub id or folder, answers to `ask` about a clip.

    The likeliest word is taken at every step, so the same clip is always described alike. It hears as much of a clip as
    its processor passes on: Qwen2-Audio 30 seconds.

    Parameters
    ----------
    ask : str, optional
        The request; unless told it is data/prompts/describe.txt.
    most : int
        Tokens of an answer; one that is longer counts as broken.
    """

    def __init__(self, model="Qwen/Qwen2-Audio-7B-Instruct", *, ask=None, most=128, device="auto"):
        from transformers import AutoModelForMultimodalLM, AutoProcessor

        self.ask, self.most, self.device = ask or prompt("describe")[-1], most, checkpoints.device(device)
        self.network, self.processor = _open(model, AutoModelForMultimodalLM, AutoProcessor, self.device, "auto")
        self.sample_rate = self.processor.feature_extractor.sampling_rate

    def _say(self, waveform) -> str:
        content = [{"type": "audio", "audio": waveform}, {"type": "text", "text": self.ask}]
        chat = [{"role": "user", "content": content}]
        text = self.processor.apply_chat_template(chat, add_generation_prompt=True, tokenize=False)
        options = {"sampling_rate": self.sample_rate, "return_tensors": "pt"}
        inputs = self.processor(text=[text], audio=[waveform], **options).to(self.device, self.network.dtype)
        return generated(self.network, self.processor.tokenizer, inputs, self.most)

    def __call__(self, clips) -> pd.Series:
        return _heard(self._say, clips, self.sample_rate)


def generated(network, tokenizer, inputs, most) -> str:
    """The likeliest answer of a language model, token by token; BadAnswer where it is empty or longer than `most`."""
    import torch

    asked, reads = inputs["input_ids"].shape[1], network.config.get_text_config().max_position_embeddings
    if asked + most > reads:
        raise BadAnswer(f"a request of {asked} tokens and an answer of {most} are more than the {reads} it reads")
    with torch.inference_mode():
        tokens = network.generate(
            **inputs, do_sample=False, temperature=None, top_p=None, top_k=None, max_new_tokens=most
        )
    new = tokens[0, asked:]
    ends = network.generation_config.eos_token_id
    ends = {tokenizer.eos_token_id, *(ends if isinstance(ends, list) else [ends])}
    answer = tokenizer.decode(new, skip_special_tokens=True).strip()
    if not answer:
        raise BadAnswer("the answer is empty")
    if len(new) == most and new[-1].item() not in ends:
        raise BadAnswer(f"the answer is cut off after {most} tokens: {answer!r}")
    return answer


def _heard(say, clips, sample_rate) -> pd.Series:
    """What is said of each clip."""
    clips = as_clips(clips)
    found = each(lambda wave: say(wave), audio.stream(clips, sample_rate, skipped={}), "clips")
    return found.reindex(clips.index).rename("caption")


def _caption(row, words, noun, sounds) -> str:
    """One clip's caption from its ranks."""
    said = []
    for name, place in row.items():
        if np.isnan(place):
            said += [words.loc[name, "missing"]] if sounds and words.loc[name, "missing"] else []
        elif place <= 1 / 3 or place >= 2 / 3:
            word = words.loc[name, "low" if place < 0.5 else "high"]
            said.append(f"very {word}" if place <= 0.1 or place >= 0.9 else word)
    if not said:
        return NOTHING.replace("voice", noun)
    return f"{'an' if re.match('[aeiou]', said[0]) else 'a'} {', '.join(said)} {noun}"
