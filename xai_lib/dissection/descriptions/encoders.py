"""Encoders of texts and sounds, and the fit of captions or sounds to descriptions of concepts.

A text encoder is called with a list of texts and returns an array [text, dim]. Encoders of sound and text have `text`,
the same, and `sound`, which is called with clips and returns their index and an array [clip, dim] in the same space.
Rows have norm 1, or are all 0 where nothing is known.
"""

import re
import warnings

import numpy as np
import pandas as pd
import xarray as xr

from ... import audio, corpora
from ...corpora import emotion_profiles
from ...models import checkpoints
from .vocabulary import STOP, WORD, as_texts, lexicon


def match(texts, concepts, encoder=None) -> xr.DataArray:
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
    texts, concepts = as_texts(texts), _named_descriptions(concepts)
    encoder = encoder or tfidf(texts)
    return _cosines(texts.index, encoder(list(texts)), concepts, encoder)


def match_sound(clips, concepts, encoder) -> xr.DataArray:
    """Return how well the sound of each clip fits each concept's description: cosine from −1 to 1, [clip, concept].

    `encoder` encodes sound and text: a `CLAP` or an `AcousticSpace`. Clips that cannot be read are named in a warning
    and left out.
    """
    index, vectors = encoder.sound(clips)
    return _cosines(index, vectors, _named_descriptions(concepts), encoder.text)


def _named_descriptions(concepts) -> pd.Series:
    """Return descriptions by name; a word without a description describes itself."""
    has_names = isinstance(concepts, (pd.Series, dict))
    return as_texts(concepts if has_names else dict(zip(concepts, concepts)))


def tfidf(texts):
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

    def __init__(self, reference):
        self.reference, self.lexicon = _features_table(reference), lexicon()
        self.missing = self.lexicon["missing"][self.lexicon["missing"] != ""]

    def sound(self, clips):
        """Return the index and vectors of clips, or of their `corpora.features_table`."""
        table = _features_table(clips)
        scores = 2 * ranks(table, self.reference).fillna(0.5) - 1
        for name, word in self.missing.items():
            is_missing, reference_missing = (_is_missing(t, name) for t in (table, self.reference))
            scores[word] = (is_missing - reference_missing.mean()).fillna(0)
        return table.index, _unit_norm(scores.to_numpy())

    def text(self, texts):
        """Return the vectors of texts."""
        dims = {word: (i, sign) for i, row in enumerate(self.lexicon.itertuples()) for word, sign in _signed_words(row)}
        dims |= {word: (len(self.lexicon) + i, 1) for i, word in enumerate(self.missing)}
        vectors = np.zeros((len(texts), len(self.lexicon) + len(self.missing)))
        for row, text in zip(vectors, texts):
            for negation, very, word in re.findall(rf"\b(not )?(very )?({'|'.join(dims)})\b", text.lower()):
                i, sign = dims[word]
                row[i] += sign * (-1 if negation else 1) * (2 if very and not negation else 1)
        return _unit_norm(vectors)

    __call__ = text


class SentenceTransformer:
    """Text encoder of the package sentence-transformers, by hub id or folder: `pip install sentence-transformers`."""

    def __init__(self, model="sentence-transformers/all-MiniLM-L12-v2", *, device="auto", batch=32):
        try:
            from sentence_transformers import SentenceTransformer as Package
        except ImportError as error:
            raise ImportError(f"this encoder needs sentence-transformers ({error}): pip install '.[text]'") from error
        device_name = str(checkpoints.device(device))
        self.model, self.batch = checkpoints.read(Package, checkpoints.folder(model), device=device_name), batch

    def __call__(self, texts):
        return _unit_norm(self.model.encode(list(texts), batch_size=self.batch, show_progress_bar=False))


class CLIPText:
    """Text tower of a CLIP model, by hub id or folder; a warning says how many texts were cut to its maximum length."""

    def __init__(self, model="openai/clip-vit-base-patch32", *, device="auto", batch=32):
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.device, self.batch = checkpoints.device(device), batch
        self.network, self.tokenizer = _load(model, CLIPTextModelWithProjection, AutoTokenizer, self.device)
        self.longest = self.network.config.max_position_embeddings

    def __call__(self, texts):
        return _encode_texts(self, self.tokenizer, texts, lambda inputs: self.network(**inputs).text_embeds)


class CLAP:
    """CLAP model, by hub id or folder: encodes texts, and clips at the rate that it was trained at (48 kHz).

    A clip longer than the model's input (10 s) is cut into equal parts, and its vector is the mean of theirs; the
    model's own processor would take a part drawn at random.
    """

    def __init__(self, model="laion/clap-htsat-unfused", *, device="auto", batch=32):
        from transformers import AutoProcessor, ClapModel

        self.device, self.batch = checkpoints.device(device), batch
        self.network, self.processor = _load(model, ClapModel, AutoProcessor, self.device)
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        positions = self.network.config.text_config
        self.longest = positions.max_position_embeddings - positions.pad_token_id - 1  # RoBERTa's begin after the pad

    def text(self, texts):
        """Return the vectors of texts."""
        embed = self.network.get_text_features
        return _encode_texts(self, self.processor.tokenizer, texts, lambda inputs: embed(**inputs).pooler_output)

    __call__ = text

    def sound(self, clips):
        """Return the index and vectors of clips, resampled; unreadable clips are named in a warning and left out."""
        import torch

        index, vectors, max_samples = [], [], self.processor.feature_extractor.nb_max_samples
        for clip, waveform in audio.stream(clips, self.sample_rate, skipped={}):
            parts = np.array_split(waveform, -(-len(waveform) // max_samples))
            inputs = self.processor.feature_extractor(parts, sampling_rate=self.sample_rate, return_tensors="pt")
            with torch.inference_mode():
                embeddings = self.network.get_audio_features(**inputs.to(self.device)).pooler_output
            index.append(clip)
            vectors.append(_unit_norm(embeddings.cpu().numpy()).mean(0))
        return pd.Index(index), _unit_norm(np.array(vectors))


def ranks(table, reference, *, speakers=None) -> pd.DataFrame:
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
    table, reference = (t.reindex(columns=names) for t in (table, reference))
    if speakers is not None:
        table, reference = (emotion_profiles.centred(t, speakers.to_frame("speaker")) for t in (table, reference))
    result = pd.DataFrame(np.nan, index=table.index, columns=names)
    for name in names:
        ordered, values = np.sort(reference[name].dropna()), table[name].to_numpy()
        if len(ordered):
            position = (np.searchsorted(ordered, values) + np.searchsorted(ordered, values, side="right")) / 2
            result[name] = np.where(np.isnan(values), np.nan, position / len(ordered))
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


def _signed_words(row):
    """Return the words for low and high values of a feature, with their sign."""
    return (row.low, -1), (row.high, 1)


def _unit_norm(vectors) -> np.ndarray:
    """Scale rows to norm 1; rows of 0 stay 0."""
    vectors = np.asarray(vectors, float)
    norm = np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors / np.where(norm > 0, norm, 1)


def _load(model, network_class, processor_class, device, dtype="float32"):
    """Load a network and its tokenizer or processor from one checkpoint; dtype "auto" is the saved precision."""
    folder = checkpoints.folder(model)
    network = checkpoints.read(network_class.from_pretrained, folder, dtype=dtype)
    return network.eval().to(device), checkpoints.read(processor_class.from_pretrained, folder)


def _encode_texts(encoder, tokenizer, texts, embed) -> np.ndarray:
    """Return the vectors of texts, in batches; texts that are too long are cut, and a warning counts them."""
    import torch

    texts, batches = list(texts), []
    n_cut = sum(len(ids) > encoder.longest for ids in tokenizer(texts, verbose=False)["input_ids"])
    if n_cut:
        warnings.warn(
            f"{n_cut} of {len(texts)} texts were cut to the {encoder.longest} tokens that the model reads", stacklevel=3
        )
    for i in range(0, len(texts), encoder.batch):
        options = {"padding": True, "truncation": True, "max_length": encoder.longest, "return_tensors": "pt"}
        inputs = tokenizer(texts[i : i + encoder.batch], **options).to(encoder.device)
        with torch.inference_mode():
            batches.append(embed(inputs).cpu().numpy())
    return _unit_norm(np.concatenate(batches)) * np.array([[bool(text.strip())] for text in texts])
