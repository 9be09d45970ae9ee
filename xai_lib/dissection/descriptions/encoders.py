"""Texts and sounds as vectors, and how well captions or sounds fit the descriptions of concepts.

A text encoder is called with a list of texts and gives an array [text, dim]; those that also hear have `text`, the
same, and `sound`, which is called with clips and gives their index and an array [clip, dim] of the same space. Rows are
of norm 1, or all 0 where nothing is known.
"""

import re
import warnings

import numpy as np
import pandas as pd
import xarray as xr

from ... import audio, corpora
from ...corpora import emotion_profiles
from ...models import checkpoints
from .vocabulary import STOP, WORD, lexicon, told


def match(texts, concepts, encoder=None) -> xr.DataArray:
    """How well each text fits each concept's description: cosine of their vectors, [clip, concept].

    Parameters
    ----------
    texts, concepts : Series of str
        Captions by clip, descriptions by name.
    encoder : callable, optional
        Any text encoder; its cosines are from −1 to 1. Unless told it is `tfidf` of `texts`, and they are 0 to 1.

    Raises
    ------
    ValueError
        A text is missing, or (TF-IDF) no text says anything.
    """
    texts, concepts = told(texts), _named(concepts)
    encoder = encoder or tfidf(texts)
    return _fit(texts.index, encoder(list(texts)), concepts, encoder)


def match_sound(clips, concepts, encoder) -> xr.DataArray:
    """How well the sound of each clip fits each concept's description: cosine from −1 to 1, [clip, concept].

    `encoder` hears and reads: a `CLAP` or an `AcousticSpace`. Clips that cannot be read are named and left out.
    """
    index, heard = encoder.sound(clips)
    return _fit(index, heard, _named(concepts), encoder.text)


def _named(concepts) -> pd.Series:
    """Descriptions by name; of words without one, each is its own."""
    named = isinstance(concepts, (pd.Series, dict))
    return told(concepts if named else dict(zip(concepts, concepts)))


def tfidf(texts):
    """A text encoder: TF-IDF, words weighted by how rare they are among `texts` (sklearn's smoothed IDF).

    Words that none of `texts` uses do not count, and "very loud" counts as "loud" twice.
    """
    from sklearn.feature_extraction.text import TfidfVectorizer

    def strong(text):
        return re.sub(rf"\bvery ({WORD})", r"\1 \1", text.lower())

    vectorizer = TfidfVectorizer(token_pattern=WORD, stop_words=STOP, preprocessor=strong)
    try:
        vectorizer.fit(texts)
    except ValueError as error:  # sklearn's "empty vocabulary"
        raise ValueError("not one of the texts says anything that could be matched: were they captioned?") from error
    return lambda others: vectorizer.transform(others).toarray()


class AcousticSpace:
    """A space shared by sounds and adjectives: one dim for each feature of the lexicon, one for the lack of pitch.

    A sound is where its measured values rank among those of the reference clips, from −1 to 1, 0 where nothing could be
    measured. A text is the words of the lexicon that it uses: 1 for "loud", −1 for "quiet", twice that after "very",
    and the other way round after "not".

    Parameters
    ----------
    reference : DataFrame
        Clips, or their `corpora.features_table`.
    """

    def __init__(self, reference):
        self.reference, self.lexicon = _measured(reference), lexicon()
        self.missing = self.lexicon["missing"][self.lexicon["missing"] != ""]

    def sound(self, clips):
        """Vectors of clips, or of their `corpora.features_table`."""
        table = _measured(clips)
        placed = 2 * ranks(table, self.reference).fillna(0.5) - 1
        for name, word in self.missing.items():
            lacks, usual = (_lacks(t, name) for t in (table, self.reference))
            placed[word] = (lacks - usual.mean()).fillna(0)
        return table.index, _unit(placed.to_numpy())

    def text(self, texts):
        """Vectors of texts."""
        place = {word: (i, sign) for i, row in enumerate(self.lexicon.itertuples()) for word, sign in _ends(row)}
        place |= {word: (len(self.lexicon) + i, 1) for i, word in enumerate(self.missing)}
        out = np.zeros((len(texts), len(self.lexicon) + len(self.missing)))
        for row, text in zip(out, texts):
            for denied, strong, word in re.findall(rf"\b(not )?(very )?({'|'.join(place)})\b", text.lower()):
                i, sign = place[word]
                row[i] += sign * (-1 if denied else 1) * (2 if strong and not denied else 1)
        return _unit(out)

    __call__ = text


class SentenceTransformer:
    """A text encoder of the package sentence-transformers, by hub id or folder: `pip install sentence-transformers`."""

    def __init__(self, model="sentence-transformers/all-MiniLM-L12-v2", *, device="auto", batch=32):
        try:
            from sentence_transformers import SentenceTransformer as Package
        except ImportError as error:
            raise ImportError(f"this encoder needs sentence-transformers ({error}): pip install '.[text]'") from error
        where = str(checkpoints.device(device))
        self.model, self.batch = checkpoints._read(Package, checkpoints.folder(model), device=where), batch

    def __call__(self, texts):
        return _unit(self.model.encode(list(texts), batch_size=self.batch, show_progress_bar=False))


class CLIPText:
    """The text tower of a CLIP model, by hub id or folder; a warning says how many texts were cut to what it can read."""

    def __init__(self, model="openai/clip-vit-base-patch32", *, device="auto", batch=32):
        from transformers import AutoTokenizer, CLIPTextModelWithProjection

        self.device, self.batch = checkpoints.device(device), batch
        self.network, self.tokenizer = _open(model, CLIPTextModelWithProjection, AutoTokenizer, self.device)
        self.longest = self.network.config.max_position_embeddings

    def __call__(self, texts):
        return _read_texts(self, self.tokenizer, texts, lambda inputs: self.network(**inputs).text_embeds)


class CLAP:
    """A CLAP model, by hub id or folder, which reads texts and hears clips at the rate it was trained at (48 kHz).

    A clip longer than the model hears at once (10 s) is cut into equal parts and its vector is their mean's: the
    model's own way is to hear a part drawn at random.
    """

    def __init__(self, model="laion/clap-htsat-unfused", *, device="auto", batch=32):
        from transformers import AutoProcessor, ClapModel

        self.device, self.batch = checkpoints.device(device), batch
        self.network, self.processor = _open(model, ClapModel, AutoProcessor, self.device)
        self.sample_rate = self.processor.feature_extractor.sampling_rate
        positions = self.network.config.text_config
        self.longest = positions.max_position_embeddings - positions.pad_token_id - 1  # RoBERTa's begin after the pad

    def text(self, texts):
        """Vectors of texts."""
        read = self.network.get_text_features
        return _read_texts(self, self.processor.tokenizer, texts, lambda inputs: read(**inputs).pooler_output)

    __call__ = text

    def sound(self, clips):
        """Vectors of clips, resampled; those that cannot be read are named in a warning and left out."""
        import torch

        index, out, most = [], [], self.processor.feature_extractor.nb_max_samples
        for key, wave in audio.stream(clips, self.sample_rate, skipped={}):
            parts = np.array_split(wave, -(-len(wave) // most))
            inputs = self.processor.feature_extractor(parts, sampling_rate=self.sample_rate, return_tensors="pt")
            with torch.inference_mode():
                found = self.network.get_audio_features(**inputs.to(self.device)).pooler_output
            index.append(key)
            out.append(_unit(found.cpu().numpy()).mean(0))
        return pd.Index(index), _unit(np.array(out))


def ranks(table, reference, *, speakers=None) -> pd.DataFrame:
    """Where each measured value lies among those of the reference clips, 0 to 1; NaN where nothing could be measured.

    Parameters
    ----------
    table, reference : DataFrame
        Of `corpora.features_table`. The reference are the training clips: a test clip is ranked among them.
    speakers : Series, optional
        Speaker of each clip of both tables. Given, values are first taken relative to their speaker's mean over the
        clips at hand ("loud" then means loud for this speaker); otherwise they are taken as they are.
    """
    names = list(lexicon().index)
    table, reference = (t.reindex(columns=names) for t in (table, reference))
    if speakers is not None:
        table, reference = (emotion_profiles.centred(t, speakers.to_frame("speaker")) for t in (table, reference))
    out = pd.DataFrame(np.nan, index=table.index, columns=names)
    for name in names:
        known, values = np.sort(reference[name].dropna()), table[name].to_numpy()
        if len(known):
            place = (np.searchsorted(known, values) + np.searchsorted(known, values, side="right")) / 2
            out[name] = np.where(np.isnan(values), np.nan, place / len(known))
    return out


def _fit(index, vectors, concepts, encoder) -> xr.DataArray:
    """Cosines of vectors of norm 1 and the concepts' descriptions."""
    coords = {"clip": np.asarray(index), "concept": concepts.index.to_numpy().astype(str)}
    return xr.DataArray(vectors @ encoder(list(concepts)).T, dims=("clip", "concept"), coords=coords)


def _measured(clips) -> pd.DataFrame:
    """Clips' `corpora.features_table`, of which there may be one already."""
    are_features = isinstance(clips, pd.DataFrame) and not {"path", "audio"} & set(clips)
    return clips if are_features else corpora.features_table(clips, skipped={})


def _lacks(table, name) -> pd.Series:
    """1 where a clip that sounds lacks a feature, 0 where it has it, NaN where nothing was measured."""
    return table[name].isna().astype(float).where(table["level_db"].notna())


def _ends(row):
    """The words of either end of a feature, with their sign."""
    return (row.low, -1), (row.high, 1)


def _unit(x) -> np.ndarray:
    """Rows of norm 1; rows of 0 stay."""
    x = np.asarray(x, float)
    norm = np.linalg.norm(x, axis=-1, keepdims=True)
    return x / np.where(norm > 0, norm, 1)


def _open(model, network, reader, device, dtype="float32"):
    """A network and what prepares its input, of one checkpoint; "auto" is the precision that it was saved in."""
    folder = checkpoints.folder(model)
    opened = checkpoints._read(network.from_pretrained, folder, dtype=dtype)
    return opened.eval().to(device), checkpoints._read(reader.from_pretrained, folder)


def _read_texts(self, tokenizer, texts, embed) -> np.ndarray:
    """Vectors of texts in batches; texts longer than the model reads are cut, and counted in a warning."""
    import torch

    texts, out = list(texts), []
    long = sum(len(ids) > self.longest for ids in tokenizer(texts, verbose=False)["input_ids"])
    if long:
        warnings.warn(f"{long} of {len(texts)} texts were cut to the {self.longest} tokens that are read", stacklevel=3)
    for i in range(0, len(texts), self.batch):
        options = {"padding": True, "truncation": True, "max_length": self.longest, "return_tensors": "pt"}
        inputs = tokenizer(texts[i : i + self.batch], **options).to(self.device)
        with torch.inference_mode():
            out.append(embed(inputs).cpu().numpy())
    return _unit(np.concatenate(out)) * np.array([[bool(text.strip())] for text in texts])
