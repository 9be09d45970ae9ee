"""Descriptions of sounds: captions of clips, summaries of captions, concepts, and the fit between them.

Captions and terms are computed offline by default, with only the words of the lexicon ``data/concepts/acoustics.csv``:
the same sound always gets the same description, and each word stands for a measured quantity. Larger models have the
same interface: a captioner, a summariser, an encoder. Their output is untrusted data; `escape_html` escapes it for
HTML.
"""

from .captioning import NOTHING, Acoustics, AudioLanguageModel, Tagger, captions
from .encoders import CLAP, AcousticSpace, CLIPText, SentenceTransformer, match, match_sound, ranks, tfidf
from .language_models import LLM, Contrastive, Endpoint, choose, is_adjective, summaries, yes_no
from .vocabulary import (
    CONCEPTS,
    WORD,
    BadAnswer,
    bundled_descriptions,
    concepts,
    counts,
    escape_html,
    lexicon,
    prompt,
    sentence,
    terms,
)

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
    "bundled_descriptions",
    "escape_html",
    "summaries",
    "terms",
    "tfidf",
    "yes_no",
]
