"""Words for sounds: captions of clips, summaries of captions, concepts, and how well one fits the other.

Captions and terms are offline by default and use the words of the lexicon ``data/concepts/acoustics.csv`` and nothing
else, so the same sound is always described alike, and each word stands for a measured quantity. Larger describers have
the same form: a captioner, a summariser, an encoder. All they say is data; `shown` is how it gets into a page.
"""

from .captioning import NOTHING, Acoustics, AudioLanguageModel, Tagger, captions
from .encoders import CLAP, AcousticSpace, CLIPText, SentenceTransformer, match, match_sound, ranks, tfidf
from .language_models import LLM, Contrastive, Endpoint, choose, is_adjective, summaries, yes_no
from .vocabulary import CONCEPTS, WORD, BadAnswer, concepts, counts, lexicon, prompt, sentence, shipped, shown, terms

__all__ = [
    "CLAP",
    "CONCEPTS",
    "LLM",
    "NOTHING",
    "WORD",
    "AcousticSpace",
    "Acoustics",
    "AudioLanguageModel",
    "BadAnswer",
    "CLIPText",
    "Contrastive",
    "Endpoint",
    "SentenceTransformer",
    "Tagger",
    "captions",
    "choose",
    "concepts",
    "counts",
    "is_adjective",
    "lexicon",
    "match",
    "match_sound",
    "prompt",
    "ranks",
    "sentence",
    "shipped",
    "shown",
    "summaries",
    "terms",
    "tfidf",
    "yes_no",
]
