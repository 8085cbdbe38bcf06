"""Real tokenizers over a handful of characters, built in code."""

from __future__ import annotations

import io
from tempfile import NamedTemporaryFile
from typing import Any

# What Qwen's, Mistral's and GLM's templates do, cut down: roles between marks.
CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def _bytes() -> list[str]:
    from tokenizers import pre_tokenizers

    return sorted(pre_tokenizers.ByteLevel.alphabet())


def clip() -> Any:
    from transformers import CLIPTokenizer

    pieces = [*_bytes(), *(f"{byte}</w>" for byte in _bytes()), "<|startoftext|>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=77)


def t5() -> Any:
    from transformers import T5TokenizerFast

    pieces = ["\u2581", *"abcdefghijklmnopqrstuvwxyz0123456789.,!?'-"]
    scored = [(special, 0.0) for special in ("<pad>", "</s>", "<unk>")]
    scored += [(piece, -float(number)) for number, piece in enumerate(pieces, 1)]
    return T5TokenizerFast(vocab=scored, extra_ids=0, model_max_length=64)


def qwen() -> Any:
    from transformers import Qwen2Tokenizer

    pieces = [*_bytes(), "<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Qwen2Tokenizer(vocab=vocabulary, merges=[], model_max_length=128)
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def glm() -> Any:
    """Puts two marks before every text, so that none is empty, as ChatGLM's tokenizers do."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    pieces = [*_bytes(), "[gMASK]", "<sop>", "<|endoftext|>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    marks = [(mark, vocabulary[mark]) for mark in ("[gMASK]", "<sop>")]
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[gMASK] <sop> $A", special_tokens=marks
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token="<|endoftext|>",
        eos_token="<|endoftext|>",
        padding_side="left",
        model_max_length=128,
    )


def mistral() -> Any:
    """Its messages are lists of parts."""
    tokenizer = qwen()
    tokenizer.chat_template = CHAT_TEMPLATE.replace("message.content", "message.content[0].text")
    return tokenizer


def chatglm() -> Any:
    """A SentencePiece model of single letters, in the class that diffusers brings."""
    from diffusers.pipelines.kolors import ChatGLMTokenizer
    from sentencepiece import SentencePieceTrainer

    model = io.BytesIO()
    SentencePieceTrainer.train(
        sentence_iterator=iter(["abcdefghijklmnopqrstuvwxyz 0123456789.,!?"]),
        model_writer=model,
        model_type="char",
        vocab_size=45,
        minloglevel=2,
    )
    with NamedTemporaryFile(suffix=".model", delete=False) as file:
        file.write(model.getvalue())
    return ChatGLMTokenizer(file.name)


def gemma() -> Any:
    from transformers import GemmaTokenizer

    pieces = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "\u2581", *map(chr, range(33, 127))]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return GemmaTokenizer(vocab=vocabulary, merges=[], model_max_length=64)


def bert() -> Any:
    from transformers import BertTokenizer

    letters = "abcdefghijklmnopqrstuvwxyz0123456789.,!?'\"-"
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{x}" for x in letters)]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    return BertTokenizer(vocab=vocabulary, model_max_length=77)
