"""The word-level vocabulary and the two tokenizers of the demo pipeline."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast
from world import BACKGROUNDS, COLORS, RADII, SHAPES

MAX_TOKENS = 16
PAD, UNKNOWN, BOS, EOS = "<pad>", "<unk>", "<bos>", "<eos>"
PAD_ID, UNKNOWN_ID, BOS_ID, EOS_ID = range(4)
VOCABULARY = [
    *(PAD, UNKNOWN, BOS, EOS),
    *("a", "an", "on", "background", "of", "left", "right", "above", "below"),
    *RADII,
    *COLORS,
    *BACKGROUNDS,
    *SHAPES,
]


def build_tokenizer(*, add_bos: bool) -> PreTrainedTokenizerFast:
    """Build one tokenizer; CLIP's starts a text with a marker, T5's does not."""
    tokenizer = Tokenizer(
        models.WordLevel({word: i for i, word in enumerate(VOCABULARY)}, unk_token=UNKNOWN)
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A {EOS}" if add_bos else f"$A {EOS}",
        special_tokens=[(BOS, BOS_ID), (EOS, EOS_ID)],
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BOS,
        eos_token=EOS,
        model_max_length=MAX_TOKENS,
    )


def token_ids(tokenizer: PreTrainedTokenizerFast, captions: Sequence[str]) -> torch.Tensor:
    """Tokenize captions exactly as FluxPipeline does: padded and cut to a fixed length."""
    encoded = tokenizer(
        list(captions),
        padding="max_length",
        truncation=True,
        max_length=MAX_TOKENS,
        return_tensors="pt",
    )
    ids: torch.Tensor = encoded.input_ids
    return ids
