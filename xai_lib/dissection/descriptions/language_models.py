"""What texts have in common, said in a sentence: by counting, or by a language model here or at an endpoint.

A summariser is called with a list of texts and gives a str. A language model also answers `ask(system, user)`, always
alike, and from a folder of earlier answers where it has been asked the same before; what it cannot answer is a
BadAnswer, never a guess. All texts reach it as data between marks, and what it says is data too.
"""

import hashlib
import json
import os
import re
import time
from pathlib import Path

import numpy as np
import pandas as pd
from tqdm.auto import tqdm

from ...models import checkpoints
from .captioning import generated
from .vocabulary import BadAnswer, counts, each, prompt, sentence, terms


class Contrastive:
    """Sentences from the words that texts use more than others do, offline: "loud (+3.1), fast (+2.2)".

    Parameters
    ----------
    background : list of str
        All texts there are: what is usual among them, and what texts are compared with where no others are given.
    least, most : as in `sentence`.
    """

    def __init__(self, background, *, least=1.96, most=3):
        self.words, self.options = counts(pd.Series(list(background), dtype=object)), {"least": least, "most": most}

    def __call__(self, texts, low=None) -> str:
        def count(texts):
            found = counts(pd.Series(list(texts), dtype=object)).sum("clip")
            return found.reindex(word=self.words["word"].values, fill_value=0)

        high, usual = count(texts), self.words.sum("clip")
        other = (usual - high).clip(0) if low is None else count(low)
        return sentence(high.copy(data=terms(high, other, usual)), **self.options)


class _Asked:
    """What the language models share: cached answers, and calling one with texts to summarise them."""

    def __init__(self, name, cache, **options):
        self.name, self.options, self.cache = str(name), options, cache and Path(cache).expanduser()

    def ask(self, system, user) -> str:
        """The answer to a request. BadAnswer where it is empty, cut off or broken; that is not kept."""
        # Half of a surrogate pair cannot be sent or read.
        system, user = (part.encode("utf-8", "replace").decode() for part in (system, user))
        asked = {"model": self.name, "system": system, "user": user, **self.options}
        key = hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()
        path = self.cache and self.cache / f"{key}.json"
        if path and path.is_file():
            return json.loads(path.read_text(encoding="utf-8"))["answer"]
        try:
            answer = self._answer(system, user)
        except BadAnswer as error:
            raise BadAnswer(f"{self.name}: {error}; it was asked: {user[:300]!r}") from error
        if path:
            path.parent.mkdir(parents=True, exist_ok=True)
            part = path.with_name(f".{os.getpid()}-{path.name}")
            part.write_text(json.dumps({"asked": asked, "answer": answer}), encoding="utf-8")
            os.replace(part, path)  # whole or absent, wherever it is killed
        return answer

    def __call__(self, texts) -> str:
        return self.ask(*prompt("summary", captions=_listed(texts)))


class LLM(_Asked):
    """A chat model of transformers in this process, by hub id or folder, the likeliest word at every step.

    Parameters
    ----------
    most : int
        Tokens of an answer; one that is longer counts as broken.
    cache : path, optional
        Folder in which answers are kept.
    """

    def __init__(self, model, *, most=256, device="auto", cache=None):
        from transformers import AutoModelForCausalLM, AutoTokenizer

        from .encoders import _open

        self.device = checkpoints.device(device)
        self.network, self.tokenizer = _open(model, AutoModelForCausalLM, AutoTokenizer, self.device, "auto")
        if self.tokenizer.chat_template is None:
            raise ValueError(
                f"{model} has no chat template: take a model that was trained to answer (-Instruct, -chat)"
            )
        super().__init__(model, cache, most=most, weights=_mark(self.network))

    def _answer(self, system, user):
        chat = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        options = {"add_generation_prompt": True, "return_dict": True, "return_tensors": "pt"}
        inputs = self.tokenizer.apply_chat_template(chat, **options).to(self.device)
        return generated(self.network, self.tokenizer, inputs, self.options["most"])


class Endpoint(_Asked):
    """A chat model behind an OpenAI-compatible server: vLLM, Ollama, llama.cpp, `transformers serve`.

    Parameters
    ----------
    base_url : str
        Such as "http://localhost:8000/v1". Where HF_HUB_OFFLINE=1 was set, huggingface_hub refuses every address.
    model : str
        The name under which the server knows it.
    timeout, retries, wait : float, int, float
        Seconds for an answer; how often to try again where the server cannot be reached, is busy (429) or fails (5xx);
        seconds before the first of these, twice as long before each further one.
    cache : path, optional
        Folder in which answers are kept.
    """

    def __init__(self, base_url, model, *, most=256, seed=0, timeout=60, retries=4, wait=1.0, api_key=None, cache=None):
        from huggingface_hub import InferenceClient

        # A key from elsewhere (a hub token on this machine) is not for this server.
        self.client = InferenceClient(base_url=base_url, timeout=timeout, api_key=api_key or "none")
        self.model, self.retries, self.wait = model, retries, wait
        super().__init__(f"{model} at {base_url}", cache, most=most, seed=seed)

    def _answer(self, system, user):
        from huggingface_hub.errors import HTTPError

        chat = [{"role": "system", "content": system}, {"role": "user", "content": user}]
        for attempt in range(self.retries + 1):
            try:
                reply = self.client.chat_completion(
                    chat, model=self.model, temperature=0, seed=self.options["seed"], max_tokens=self.options["most"]
                )
                break
            except HTTPError as error:
                status = getattr(getattr(error, "response", None), "status_code", None)
                if attempt < self.retries and (status is None or status == 429 or status >= 500):
                    time.sleep(self.wait * 2**attempt)
                elif status is None:
                    tries = f"{attempt + 1} tries" if attempt else "one try"
                    raise ConnectionError(f"no answer from {self.name} after {tries}: {error!r:.200}") from error
                elif status in (401, 403, 404, 429):  # it would answer nothing else either
                    raise
                else:
                    raise BadAnswer(f"the server refuses ({status}): {str(error)[:200]}") from error
            except (KeyError, TypeError, ValueError) as error:  # no JSON, or JSON of another form
                raise BadAnswer(f"the server's answer is not a chat completion ({error!r:.200})") from error
        try:
            choice = reply.choices[0]
            answer, reason = choice.message.content, choice.finish_reason
        except (AttributeError, IndexError, KeyError, TypeError) as error:
            raise BadAnswer(f"the server's answer is not a chat completion: {str(reply)[:200]}") from error
        if not isinstance(answer, str) or not answer.strip():
            raise BadAnswer("the answer is empty")
        if reason == "length":
            raise BadAnswer(f"the answer is cut off after {self.options['most']} tokens: {answer[:200]!r}")
        return answer.strip()


def summaries(summariser, texts) -> pd.Series:
    """Summary of each list of texts, {key: texts}: NaN where there was no answer, and a warning names those."""
    items = tqdm(texts.items(), total=len(texts), unit="summary", leave=False, delay=2)
    return each(summariser, items, "summaries").rename("summary")


def yes_no(llm, question):
    """True or False as a language model answers a question, None where it says anything but "yes" or "no"."""
    answer = _needed(llm).ask(*prompt("yes_no", question=question))
    return {"yes": True, "no": False}.get(_bare(answer))


def is_adjective(llm, word):
    """Whether a language model counts a word among the adjectives of sound: True, False, or None as in `yes_no`."""
    return yes_no(llm, prompt("adjective", word=word)[-1])


def choose(llm, description, concepts, k=1) -> list:
    """The `k` concepts of a list that a language model finds in a description, best first (ICL).

    A name that is not on the list, or comes again, is None in its place; so is every place where the answer has more
    lines than were asked for, or fewer. No name is taken for another that is like it.
    """
    names = [str(name) for name in (concepts.index if isinstance(concepts, pd.Series) else concepts)]
    asked = prompt("choose", concepts="\n".join(names), description=_listed([description]), k=k)
    lines = [line for line in _needed(llm).ask(*asked).splitlines() if line.strip()]
    if len(lines) != k:
        return [None] * k
    known, found = {_bare(name): name for name in names}, []
    for line in lines:
        found.append(known.pop(_bare(re.sub(r"^\s*(?:\d+[.)]|[-*•])\s+", "", line)), None))
    return found


def _bare(text) -> str:
    """An answer without what goes around it: quotes, a full stop, capitals."""
    return text.strip().strip("\"'“”‘’`*").rstrip(".").strip("\"'“”‘’`*").casefold()


def _needed(llm):
    """The language model, or in words that there is none."""
    if llm is None:
        raise ValueError("in-context choice and yes/no questions need a language model: give an LLM or an Endpoint")
    return llm


def _listed(texts) -> str:
    """Texts as JSON strings, one a line, so that none can look like the end of the list."""
    return "\n".join(json.dumps(str(text), ensure_ascii=False) for text in texts)


def _mark(network) -> str:
    """A short hash of a network's weights, so that answers of another under the same name are not taken for its own."""
    sums = np.array([parameter.detach().double().sum().item() for parameter in network.parameters()])
    return hashlib.sha256(sums.tobytes()).hexdigest()[:16]
