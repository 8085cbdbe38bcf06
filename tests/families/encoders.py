"""Text encoders of the real classes, a few thousand random weights each."""

from __future__ import annotations

from typing import Any

import torch

WIDTH = 64


def clip(*, projection: bool = False) -> Any:
    import transformers

    torch.manual_seed(1)
    config = transformers.CLIPTextConfig(
        vocab_size=514,
        hidden_size=WIDTH,
        intermediate_size=2 * WIDTH,
        projection_dim=WIDTH,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=77,
        bos_token_id=512,
        eos_token_id=513,
        pad_token_id=513,
    )
    kind = "CLIPTextModelWithProjection" if projection else "CLIPTextModel"
    return getattr(transformers, kind)(config)


def t5(width: int = WIDTH) -> Any:
    from transformers import T5Config, T5EncoderModel

    torch.manual_seed(2)
    return T5EncoderModel(T5Config(**_t5(width)))


def umt5() -> Any:
    from transformers import UMT5Config, UMT5EncoderModel

    torch.manual_seed(3)
    return UMT5EncoderModel(UMT5Config(**_t5(WIDTH)))


def _t5(width: int) -> dict[str, Any]:
    return {
        "vocab_size": 64,
        "d_model": width,
        "d_kv": 32,
        "d_ff": 2 * width,
        "num_layers": 2,
        "num_heads": 2,
        "feed_forward_proj": "gated-gelu",
        "dropout_rate": 0.0,
    }


def _decoder(**changes: Any) -> dict[str, Any]:
    return {
        "vocab_size": 320,
        "hidden_size": WIDTH,
        "intermediate_size": 2 * WIDTH,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "num_key_value_heads": 2,
        "head_dim": 32,
        "max_position_embeddings": 4096,
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        **changes,
    }


def gemma2() -> Any:
    from transformers import Gemma2Config, Gemma2Model

    torch.manual_seed(4)
    return Gemma2Model(Gemma2Config(**_decoder(query_pre_attn_scalar=32)))


def qwen3(*, layers: int = 3, head: bool = False) -> Any:
    import transformers

    torch.manual_seed(5)
    config = transformers.Qwen3Config(**_decoder(num_hidden_layers=layers))
    return (transformers.Qwen3ForCausalLM if head else transformers.Qwen3Model)(config)


def qwen2_5_vl() -> Any:
    from transformers import Qwen2_5_VLConfig, Qwen2_5_VLForConditionalGeneration

    torch.manual_seed(6)
    return Qwen2_5_VLForConditionalGeneration(Qwen2_5_VLConfig(**_text_and_vision()))


def qwen3_vl() -> Any:
    from transformers import Qwen3VLConfig, Qwen3VLModel

    torch.manual_seed(12)
    configs = _text_and_vision(deepstack_visual_indexes=[0], num_position_embeddings=16)
    return Qwen3VLModel(Qwen3VLConfig(**configs))


def _text_and_vision(**vision: Any) -> dict[str, Any]:
    text = _decoder(
        rope_parameters={"rope_type": "default", "rope_theta": 1e6, "mrope_section": [4, 6, 6]}
    )
    usual = {
        "depth": 1,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_heads": 2,
        "out_hidden_size": WIDTH,
    }
    return {"text_config": text, "vision_config": usual | vision}


def glm() -> Any:
    from transformers import GlmConfig, GlmModel

    torch.manual_seed(7)
    return GlmModel(GlmConfig(**_decoder()))


def mistral3() -> Any:
    from transformers import Mistral3Config, Mistral3ForConditionalGeneration

    torch.manual_seed(9)
    # The pipeline reads the hidden states after 10, 20 and 30 layers.
    text = _decoder(model_type="mistral", num_hidden_layers=30)
    vision = {
        "model_type": "pixtral",
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 16,
        "image_size": 32,
        "patch_size": 16,
    }
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))


def chatglm() -> Any:
    from diffusers.pipelines.kolors import ChatGLMModel
    from diffusers.pipelines.kolors.text_encoder import ChatGLMConfig

    torch.manual_seed(10)
    model = ChatGLMModel(
        ChatGLMConfig(
            num_layers=2,
            padded_vocab_size=64,
            original_rope=True,
            hidden_size=WIDTH,
            ffn_hidden_size=2 * WIDTH,
            kv_channels=32,
            num_attention_heads=2,
            seq_length=256,
            add_qkv_bias=True,
            multi_query_attention=True,
            multi_query_group_num=1,
        )
    )
    with torch.no_grad():  # left empty by the constructor
        for name, weight in model.named_parameters():
            weight.normal_(std=0.1).add_(1.0 if "norm" in name else 0.0)
    return model


def bert() -> Any:
    from transformers import BertConfig, BertModel

    torch.manual_seed(8)
    return BertModel(
        BertConfig(
            vocab_size=128,
            hidden_size=WIDTH,
            intermediate_size=2 * WIDTH,
            num_hidden_layers=2,
            num_attention_heads=2,
        )
    )
