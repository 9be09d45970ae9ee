"""Encoders of texts and sounds, and the fit of captions or sounds to descriptions of concepts.

A text encoder is called with a list of texts and returns an array [text, dim]. Encoders of sound and text have `text`,
the same, and `sound`, which is called with clips and returns their index and an array [clip, dim] in the same space.
Rows have norm 1, or are all 0 where nothing is known.
"""

from __future__ import annotations

import math
import re
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
import pandas as pd
import xarray as xr

from ... import audio, corpora
from ...corpora import emotion_profiles
from ...models import checkpoints
from .vocabulary import STOP, WORD, as_texts, lexicon


def match(
    texts: pd.Series, concepts: pd.Series | Mapping | Iterable[str], encoder: Callable | None = None
) -> xr.DataArray:
    """Return how well each text fits each concept's description: cosine of their vectors, [clip, concept].

    Parameters
    ----------
    texts, concepts : Series of str
        Captions by clip, descriptions by name.
    encoder : callable, optional
        Any text encoder, with cosines from −1 to 1 (default: `tfidf` of `texts`, with cosines from 0 to 1).

    Raises
    ------
    ValueError
        A text is missing, or (TF-IDF) no text contains a word that counts.
    """
    texts = as_texts(texts)
    concepts = _named_descriptions(concepts)
    encoder = encoder or tfidf(texts)
    return _cosines(texts.index, encoder(list(texts)), concepts, encoder)


def match_sound(clips, concepts: pd.Series | Mapping | Iterable[str], encoder) -> xr.DataArray:
    """Return how well the sound of each clip fits each concept's description: cosine from −1 to 1, [clip, concept].

    `encoder` encodes sound and text: a `CLAP` or an `AcousticSpace`. Clips that cannot be read are named in a warning
    and left out.
    """
    index, vectors = encoder.sound(clips)
    return _cosines(index, vectors, _named_descriptions(concepts), encoder.text)


def _named_descriptions(concepts) -> pd.Series:
    """Return descriptions by name; a word without a description describes itself."""
    if isinstance(concepts, (pd.Series, dict)):
        return as_texts(concepts)
    return as_texts({word: word for word in concepts})


def tfidf(texts: Iterable[str]) -> Callable:
    """Return a TF-IDF text encoder that weights words by their rarity among `texts` (sklearn's smoothed IDF).

    Words that occur in none of `texts` are ignored, and "very loud" counts as "loud" twice.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def expand_very(text):
        return re.sub(rf"\bvery ({WORD})", r"\1 \1", text.lower())

    vectorizer = TfidfVectorizer(token_pattern=WORD, stop_words=STOP, preprocessor=expand_very)
    try:
        vectorizer.fit(texts)
    except ValueError as error:  # sklearn's "empty vocabulary"
        raise ValueError("no text contains a word that can be matched: check that the clips were captioned") from error
    return lambda texts: vectorizer.transform(texts).toarray()


class AcousticSpace:
    """Encoder of sounds and adjectives: one dim for each feature of the lexicon, one for the lack of pitch.

    The vector of a sound holds the ranks of its measured values among those of the reference clips, from −1 to 1, 0
    where nothing could be measured. The vector of a text holds the words of the lexicon in it: 1 for "loud", −1 for
    "quiet", doubled after "very", with the sign reversed after "not".

    Parameters
    ----------
    reference : DataFrame
        Clips, or their `corpora.features_table`.
    """

    def __init__(self, reference: pd.DataFrame):
        self.reference = _features_table(reference)
        self.lexicon = lexicon()
        self.missing = self.lexicon["missing"][self.lexicon["missing"] != ""]

    def sound(self, clips) -> tuple[pd.Index, np.ndarray]:
        """Return the index and vectors of clips, or of their `corpora.features_table`."""
        table = _features_table(clips)
        scores = 2 * ranks(table, self.reference).fillna(0.5) - 1
        for name, word in self.missing.items():
            usually_missing = _is_missing(self.reference, name).mean()
            scores[word] = (_is_missing(table, name) - usually_missing).fillna(0)
        return table.index, _unit_norm(scores.to_numpy())

    def text(self, texts: Sequence[str]) -> np.ndarray:
        """Return the vectors of texts."""
        word_vectors = self._word_vectors()
        pattern = re.compile(rf"\b(not )?(very )?({'|'.join(word_vectors)})\b")
        vectors = np.zeros((len(texts), len(self.lexicon) + len(self.missing)))
        for row, text in enumerate(texts):
            for negation, very, word in pattern.findall(text.lower()):
                if negation:
                    vectors[row] -= word_vectors[word]
                elif very:
                    vectors[row] += 2 * word_vectors[word]
                else:
                    vectors[row] += word_vectors[word]
        return _unit_norm(vectors)

    __call__ = text

    def _word_vectors(self) -> dict[str, np.ndarray]:
        """Return the vector of each word: 1 or −1 in the dim of its feature."""
        dims = np.eye(len(self.lexicon) + len(self.missing))
        vectors = {}
        for dim, row in zip(dims, self.lexicon.itertuples()):
            vectors[row.low] = -dim
            vectors[row.high] = dim
        for dim, word in zip(dims[len(self.lexicon) :], self.missing):
            vectors[word] = dim
        return vectors


class SentenceTransformer:
    """Text encoder of the package sentence-transformers, by hub id or folder: `pip install sentence-transformers`."""

    def __init__(
        self, model: str = "sentence-transformers/all-MiniLM-L12-v2", *, device: str = "auto", batch: int = 32
    ):
        try:
            from sentence_transformers import SentenceTransformer as Package
        except ImportError as error:
            raise ImportError(f"this encoder needs sentence-transformers ({error}): pip install '.[text]'") from error
        device_name = str(checkpoints.device(device))
        self.model = checkpoints.read(Package, checkpoints.folder(model), device=device_name)
        self.batch = batch

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        return _unit_norm(self.model.encode(list(texts), batch_size=self.batch, show_progress_bar=False))


class _TokenEncoder:
    """Base class of the encoders that read texts by a tokenizer, `batch` texts at a time.

    Subclasses set `tokenizer`, `longest` (tokens that the model reads), `batch` and `device`.
    """

    def _embed(self, inputs):
        """Return the vectors [text, dim] of tokenized texts, a tensor."""
        raise NotImplementedError

    def _encode(self, texts) -> np.ndarray:
        """Return the vectors of texts; those that are too long are cut, and a warning counts them."""
        import torch

        texts = list(texts)
        n_cut = sum(len(ids) > self.longest for ids in self.tokenizer(texts, verbose=False)["input_ids"])
        if n_cut:
            warnings.warn(
                f"{n_cut} of {len(texts)} texts were cut to the {self.longest} tokens that the model reads",
                stacklevel=3,
            )
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        batches = []
        for start in range(0, len(texts), self.batch):
            inputs = self.tokenizer(texts[start : start + self.batch], **options).to(self.device)
            with torch.inference_mode():
                batches.append(self._embed(inputs).cpu().numpy())
        has_text = np.array([bool(text.strip()) for text in texts])
        return _unit_norm(np.concatenate(batches)) * has_text[:, None]


class CLIPText(_TokenEncoder):
    """Text tower of a CLIP model, by hub id or folder; a warning says how many texts were cut to its maximum length."""

    def __init__(self, model: str = "openai/clip-vit-base-patch32", *, device: str = "auto", batch: int = 32):
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.device = checkpoints.device(device)
        self.batch = batch
        self.network, self.tokenizer = _load(model, CLIPTextModelWithProjection, AutoTokenizer, self.device)
        self.longest = self.network.config.max_position_embeddings

    def __call__(self, texts: Iterable[str]) -> np.ndarray:
        return self._encode(texts)

    def _embed(self, inputs):
        return self.network(**inputs).text_embeds


class CLAP(_TokenEncoder):
    """CLAP model, by hub id or folder: encodes texts, and clips at the rate that it was trained at (48 kHz).

    A clip longer than the model's input (10 s) is cut into equal parts, and its vector is the mean of theirs; the
    model's own processor would take a part drawn at random.
    """

    def __init__(self, model: str = "laion/clap-htsat-unfused", *, device: str = "auto", batch: int = 32):
        from transformers import AutoProcessor, ClapModel

        self.device = checkpoints.device(device)
        self.batch = batch
        self.network, self.processor = _load(model, ClapModel, AutoProcessor, self.device)
        self.tokenizer = self.processor.tokenizer
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        positions = self.network.config.text_config
        self.longest = positions.max_position_embeddings - positions.pad_token_id - 1  # RoBERTa's begin after the pad

    def text(self, texts: Iterable[str]) -> np.ndarray:
        """Return the vectors of texts."""
        return self._encode(texts)

    __call__ = text

    def _embed(self, inputs):
        return self.network.get_text_features(**inputs).pooler_output

    def sound(self, clips) -> tuple[pd.Index, np.ndarray]:
        """Return the index and vectors of clips, resampled; unreadable clips are named in a warning and left out."""
        import torch

        index = []
        vectors = []
        extractor = self.processor.feature_extractor
        for clip, waveform in audio.stream(clips, self.sample_rate, skipped={}):
            n_parts = math.ceil(len(waveform) / extractor.nb_max_samples)
            parts = np.array_split(waveform, n_parts)
            inputs = extractor(parts, sampling_rate=self.sample_rate, return_tensors="pt")
            with torch.inference_mode():
                embeddings = self.network.get_audio_features(**inputs.to(self.device)).pooler_output
            index.append(clip)
            vectors.append(_unit_norm(embeddings.cpu().numpy()).mean(0))
        return pd.Index(index), _unit_norm(np.array(vectors))


def ranks(table: pd.DataFrame, reference: pd.DataFrame, *, speakers: pd.Series | None = None) -> pd.DataFrame:
    """Return the rank of each measured value among those of the reference clips, 0 to 1; NaN where none was measured.

    Parameters
    ----------
    table, reference : DataFrame
        As returned by `corpora.features_table`. The reference holds the training clips, among which test clips are
        ranked.
    speakers : Series, optional
        Speaker of each clip of both tables. If present, each speaker's mean over the clips of a table is subtracted
        first ("loud" then means loud for this speaker); default: values are used as measured.
    """
    names = list(lexicon().index)
    table = table.reindex(columns=names)
    reference = reference.reindex(columns=names)
    if speakers is not None:
        speaker_table = speakers.to_frame("speaker")
        table = emotion_profiles.centred(table, speaker_table)
        reference = emotion_profiles.centred(reference, speaker_table)

    result = pd.DataFrame(np.nan, index=table.index, columns=names)
    for name in names:
        values = table[name].to_numpy()
        ordered = np.sort(reference[name].dropna())
        if len(ordered):
            n_below = np.searchsorted(ordered, values)
            n_up_to = np.searchsorted(ordered, values, side="right")
            rank = (n_below + n_up_to) / 2 / len(ordered)
            result[name] = np.where(np.isnan(values), np.nan, rank)
    return result


def _cosines(index, vectors, concepts, encoder) -> xr.DataArray:
    """Compute the cosines between vectors of norm 1 and the concepts' descriptions."""
    coords = {"clip": np.asarray(index), "concept": concepts.index.to_numpy().astype(str)}
    return xr.DataArray(vectors @ encoder(list(concepts)).T, dims=("clip", "concept"), coords=coords)


def _features_table(clips) -> pd.DataFrame:
    """Return the `corpora.features_table` of clips; return `clips` if it is such a table already."""
    are_features = isinstance(clips, pd.DataFrame) and not {"path", "audio"} & set(clips)
    return clips if are_features else corpora.features_table(clips, skipped={})


def _is_missing(table, name) -> pd.Series:
    """Return 1 where a clip with sound lacks a feature, 0 where it has it, NaN where nothing was measured."""
    return table[name].isna().astype(float).where(table["level_db"].notna())


def _unit_norm(vectors) -> np.ndarray:
    """Scale rows to norm 1; rows of 0 stay 0."""
    vectors = np.asarray(vectors, float)
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)


def _load(model, network_class, processor_class, device, dtype="float32"):
    """Load a network and its tokenizer or processor from one checkpoint; dtype "auto" is the saved precision."""
    folder = checkpoints.folder(model)
    network = checkpoints.read(network_class.from_pretrained, folder, dtype=dtype).eval().to(device)
    processor = checkpoints.read(processor_class.from_pretrained, folder)
    return network, processor
