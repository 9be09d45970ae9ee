"""Tiny models that read, hear and write, from configurations: tokens are bytes, answers are set in the weights."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path

import torch

WRITTEN = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:\t"


def tokenizer(folder, *extra, end=False):
    """A tokenizer of bytes with <pad>, <end> and `extra` tokens; `end` puts <end> after every text."""
    from transformers import PreTrainedTokenizerFast
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    special = ["<pad>", "<end>", *extra]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    parts = [{"Sequence": {"id": "A", "type_id": 0}}, {"SpecialToken": {"id": "<end>", "type_id": 0}}]
    known = {"<end>": {"id": "<end>", "ids": [1], "tokens": ["<end>"]}}
    after = {"type": "TemplateProcessing", "single": parts, "pair": parts, "special_tokens": known} if end else None
    bytewise = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    words = {word: i for i, word in enumerate([*special, *bytes_to_unicode().values()])}
    made = {
        "version": "1.0",
        "added_tokens": [{"id": i, "content": word, **plain} for i, word in enumerate(special)],
        "pre_tokenizer": bytewise,
        "post_processor": after,
        "decoder": bytewise,
        "model": {"type": "BPE", "vocab": words, "merges": []},
    }
    file = Path(folder) / "tokenizer.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(made))
    made = PreTrainedTokenizerFast(tokenizer_file=str(file), pad_token="<pad>", eos_token="<end>")
    made.save_pretrained(folder)
    return made


def chat(folder, answer, *, ends=True, reads=8192):
    """A Llama that answers everything with `answer`, in which each letter has one follower; or never ends."""
    from transformers import LlamaConfig, LlamaForCausalLM

    words = tokenizer(folder)
    words.chat_template = WRITTEN
    words.save_pretrained(folder)
    size = len(words)
    config = LlamaConfig(
        vocab_size=size,
        hidden_size=size + size % 2,
        intermediate_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        max_position_embeddings=reads,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    network = LlamaForCausalLM(config)
    path = words("\t" + answer)["input_ids"] + ([1] if ends else [])
    with torch.no_grad():  # nothing but the last token is read, and it says what comes next
        network.model.embed_tokens.weight.copy_(torch.eye(size, config.hidden_size))
        network.model.layers[0].self_attn.o_proj.weight.zero_()
        network.model.layers[0].mlp.down_proj.weight.zero_()
        network.lm_head.weight.zero_()
        for now, then in pairwise(path):
            network.lm_head.weight[then, now] = 1
    network.generation_config.update(do_sample=True, temperature=1.5)  # as chat models do; greedy has to be asked for
    network.save_pretrained(folder)
    return str(folder)


def clip(folder):
    """A CLIP that reads 20 tokens, in half precision."""
    from transformers import CLIPTextConfig, CLIPTextModelWithProjection

    words = tokenizer(folder, end=True)
    size = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
    tokens = {"vocab_size": len(words), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 1}
    torch.manual_seed(0)
    config = CLIPTextConfig(**size, **tokens, projection_dim=8, max_position_embeddings=20)
    CLIPTextModelWithProjection(config).half().save_pretrained(folder)
    return folder


def audio_language_model(folder):
    """A Qwen2-Audio of 20 mel bands and 2 s; a third of its tokens end its answer."""
    from transformers import (
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        Qwen2AudioProcessor,
        WhisperFeatureExtractor,
    )

    marks = ("<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>", "<|im_start|>", "<|im_end|>")
    words = tokenizer(folder, *marks)
    ears = {"d_model": 16, "encoder_attention_heads": 2, "encoder_ffn_dim": 16, "encoder_layers": 1, "num_mel_bins": 20}
    text = {"vocab_size": len(words), "hidden_size": 32, "intermediate_size": 32, "num_hidden_layers": 2}
    text |= {"num_attention_heads": 2, "num_key_value_heads": 2, "max_position_embeddings": 2048, "bos_token_id": None}
    config = Qwen2AudioConfig(
        audio_config={"model_type": "qwen2_audio_encoder", "max_source_positions": 100, **ears},
        text_config={"model_type": "qwen2", "pad_token_id": 0, "eos_token_id": 1, **text},
        audio_token_index=2,
    )
    torch.manual_seed(0)
    network = Qwen2AudioForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    network.generation_config.eos_token_id = [1, *range(8, len(words), 3)]
    network.generation_config.update(do_sample=True, temperature=2.0)
    network.save_pretrained(folder)
    Qwen2AudioProcessor(WhisperFeatureExtractor(feature_size=20, chunk_length=2), words).save_pretrained(folder)
    return folder
