"""Summarisers: what texts have in common, from word counts or from a language model (local or at an endpoint).

A summariser is called with a list of texts and returns a str. A language model also answers `ask(system, user)`,
deterministically, and from a cache folder if the same request was answered before; a request without a usable answer
raises BadAnswer, never a guess. All texts are passed to it as delimited data, and its answers are data too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ...models import checkpoints
from .captioning import generated
from .vocabulary import BadAnswer, counts, each, prompt, sentence, terms


class Contrastive:
    """Offline summariser that lists the words texts use more than others do: "loud (+3.1), fast (+2.2)".

    Parameters
    ----------
    background : list of str
        All texts: the prior of the word counts, and by default the texts to compare with.
    min_z, max_words : as in `sentence`.
    """

    def __init__(self, background: Iterable[str], *, min_z: float = 1.96, max_words: int = 3):
        self.words = counts(pd.Series(list(background), dtype=object))
        self.options = {"min_z": min_z, "max_words": max_words}

    def __call__(self, texts: Iterable[str], low: Iterable[str] | None = None) -> str:
        background = self.words.sum("clip")
        high_counts = self._count(texts)
        if low is None:
            low_counts = (background - high_counts).clip(0)
        else:
            low_counts = self._count(low)
        z = high_counts.copy(data=terms(high_counts, low_counts, background))
        return sentence(z, **self.options)

    def _count(self, texts):
        """Return how many of the texts contain each word of the background, [word]."""
        totals = counts(pd.Series(list(texts), dtype=object)).sum("clip")
        return totals.reindex(word=self.words["word"].values, fill_value=0)


class _CachedLanguageModel:
    """Base class of the language models: cached answers, and summaries of texts when called."""

    def __init__(self, name, cache, **options):
        self.name = str(name)
        self.options = options
        self.cache = cache and Path(cache).expanduser()

    def ask(self, system: str, user: str) -> str:
        """Return the answer to a request; raise BadAnswer, and cache nothing, if it is empty, cut off or malformed."""
        system = _encodable(system)
        user = _encodable(user)
        request = {"model": self.name, "system": system, "user": user, **self.options}
        key = hashlib.sha256(json.dumps(request, sort_keys=True).encode()).hexdigest()
        path = self.cache and self.cache / f"{key}.json"
        if path and path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["answer"]
        try:
            answer = self._answer(system, user)
        except BadAnswer as error:
            raise BadAnswer(f"{self.name}: {error}; the request was: {user[:300]!r}") from error
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{os.getpid()}-{path.name}")
            part.write_text(json.dumps({"asked": request, "answer": answer}), encoding="utf-8")
            os.replace(part, path)  # atomic: the file is complete or absent, even if the process is killed
        return answer

    def __call__(self, texts: Iterable[str]) -> str:
        return self.ask(*prompt("summary", captions=_json_lines(texts)))


class LLM(_CachedLanguageModel):
    """Chat model of transformers in this process, by hub id or folder, with greedy decoding.

    Parameters
    ----------
    max_tokens : int
        Maximum number of tokens of an answer; a longer one is rejected (BadAnswer).
    cache : path, optional
        Folder in which answers are stored.
    """

    def __init__(
        self, model: str, *, max_tokens: int = 256, device: str = "auto", cache: str | os.PathLike | None = None
    ):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from .encoders import _load

        self.device = checkpoints.device(device)
        self.network, self.tokenizer = _load(model, AutoModelForCausalLM, AutoTokenizer, self.device, "auto")
        if self.tokenizer.chat_template is None:
            raise ValueError(f"{model} has no chat template: use an instruction-tuned model (-Instruct, -chat)")
        super().__init__(model, cache, max_tokens=max_tokens, weights=_weights_hash(self.network))

    def _answer(self, system, user):
        chat = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self.tokenizer.apply_chat_template(chat, **options).to(self.device)
        return generated(self.network, self.tokenizer, inputs, self.options["max_tokens"])


class Endpoint(_CachedLanguageModel):
    """Chat model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, `transformers serve`.

    Parameters
    ----------
    base_url : str
        Such as "http://localhost:8000/v1"; without a path, "/v1" is meant.
    model : str
        The name under which the server knows it.
    timeout, retries : float, int
        Seconds to wait for an answer; number of retries if the server cannot be reached, is busy (429) or fails (5xx).
    api_key : str, optional
        Key of the server. What the environment holds for OpenAI (`OPENAI_API_KEY` and the like) is not sent to it.
    cache : path, optional
        Folder in which answers are stored.
    """

    def __init__(
        self,
        base_url: str,
        model: str,
        *,
        max_tokens: int = 256,
        seed: int = 0,
        timeout: float = 60,
        retries: int = 4,
        api_key: str | None = None,
        cache: str | os.PathLike | None = None,
    ):
        from openai import OpenAI

        url = _chat_url(base_url)
        with _without_openai_variables():
            self.client = OpenAI(base_url=url, api_key=api_key or "none", timeout=timeout, max_retries=retries)
        self.model = model
        super().__init__(f"{model} at {base_url}", cache, max_tokens=max_tokens, seed=seed)

    def _answer(self, system, user):
        reply = self._request([{"role": "system", "content": system}, {"role": "user", "content": user}])
        try:
            choice = reply.choices[0]
            answer = choice.message.content
            finish_reason = choice.finish_reason
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise BadAnswer(f"the server's answer is not a chat completion: {str(reply)[:200]}") from error
        if not isinstance(answer, str) or not answer.strip():
            raise BadAnswer("the answer is empty")
        if finish_reason == "length":
            raise BadAnswer(f"the answer is cut off after {self.options['max_tokens']} tokens: {answer[:200]!r}")
        return answer.strip()

    def _request(self, chat):
        """Return the server's reply to a chat, which may be anything."""
        import openai

        options = {"seed": self.options["seed"], "max_tokens": self.options["max_tokens"]}
        try:
            return self.client.chat.completions.create(messages=chat, model=self.model, temperature=0, **options)
        except openai.APIConnectionError as error:  # also where it does not answer in time
            tries = f"{self.client.max_retries + 1} tries" if self.client.max_retries else "one try"
            cause = error.__cause__ or error
            raise ConnectionError(f"no answer from {self.name} after {tries}: {cause!r:.200}") from error
        except openai.APIStatusError as error:
            reason = error.response.text[:200]
            if error.status_code in (401, 403, 404, 429):  # every other request would fail too
                raise ConnectionError(f"{self.name} answers {error.status_code}: {reason}") from error
            raise BadAnswer(f"the server refuses the request ({error.status_code}): {reason}") from error
        except ValueError as error:  # no JSON
            raise BadAnswer(f"the server's answer is not a chat completion ({error!r:.200})") from error


def _chat_url(base_url: str) -> str:
    """Return the address below which a server answers "/chat/completions"; ValueError if it is no http address."""
    if not isinstance(base_url, str) or not base_url.startswith(("http://", "https://")):
        raise ValueError(f"base_url must be an address such as 'http://localhost:8000/v1', not {base_url!r}")
    url = base_url.rstrip("/").removesuffix("/chat/completions")
    has_path = bool(urlsplit(url).path)
    return url if has_path else f"{url}/v1"


@contextmanager
def _without_openai_variables() -> Iterator[None]:
    """Hide what the environment holds for OpenAI: its client would send organisation and headers to any server."""
    hidden = {name: value for name, value in os.environ.items() if name.startswith("OPENAI_")}
    for name in hidden:
        del os.environ[name]
    try:
        yield
    finally:
        os.environ.update(hidden)


def summaries(summariser, texts: Mapping) -> pd.Series:
    """Return the summary of each list of texts, {key: texts}; NaN without an answer, and a warning names those."""
    items = tqdm(texts.items(), total=len(texts), unit="summary", leave=False, delay=2)
    return each(summariser, items, "summaries").rename("summary")


def yes_no(llm, question: str) -> bool | None:
    """Ask a language model a question; return True for "yes", False for "no", None for any other answer."""
    answer = _require_language_model(llm).ask(*prompt("yes_no", question=question))
    return {"yes": True, "no": False}.get(_normalized(answer))


def is_adjective(llm, word: str) -> bool | None:
    """Ask a language model whether a word is an adjective of sound; return True, False, or None as `yes_no` does."""
    return yes_no(llm, prompt("adjective", word=word)[-1])


def choose(llm, description: str, concepts: pd.Series | Sequence[str], k: int = 1) -> list[str | None]:
    """Return the `k` concepts of a list that a language model assigns to a description, best first (ICL).

    A name that is not on the list, or is repeated, becomes None; all become None if the answer does not have `k` lines.
    Names must match exactly, up to case and quotes; similar names are not accepted.
    """
    if isinstance(concepts, pd.Series):
        concepts = concepts.index
    names = [str(name) for name in concepts]
    request = prompt("choose", concepts="\n".join(names), description=_json_lines([description]), k=k)
    lines = [line for line in _require_language_model(llm).ask(*request).splitlines() if line.strip()]
    if len(lines) != k:
        return [None] * k
    remaining = {_normalized(name): name for name in names}
    choices = []
    for line in lines:
        answer = re.sub(r"^\s*(?:\d+[.)]|[-*•])\s+", "", line)  # without a bullet or number
        choices.append(remaining.pop(_normalized(answer), None))
    return choices


def _encodable(text) -> str:
    """Return a text with "?" for each half of a surrogate pair, which cannot be encoded."""
    return text.encode("utf-8", "replace").decode()


def _normalized(text) -> str:
    """Return an answer without surrounding quotes and full stop, in lower case."""
    return text.strip().strip("\"'“”‘’`*").rstrip(".").strip("\"'“”‘’`*").casefold()


def _require_language_model(llm):
    """Return the language model; raise ValueError if it is None."""
    if llm is None:
        raise ValueError(
            "llm is None, but in-context choice and yes/no questions need a language model: pass an LLM or an Endpoint"
        )
    return llm


def _json_lines(texts) -> str:
    """Return texts as JSON strings, one per line, so that no text can imitate the end of the list."""
    return "\n".join(json.dumps(str(text), ensure_ascii=False) for text in texts)


def _weights_hash(network) -> str:
    """Return a short hash of a network's weights, so that networks of the same name do not share cached answers."""
    sums = np.array([parameter.detach().double().sum().item() for parameter in network.parameters()])
    return hashlib.sha256(sums.tobytes()).hexdigest()[:16]
