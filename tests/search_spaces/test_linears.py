from __future__ import annotations

import torch
from torch import nn

from autoquant.search_spaces.linears import dtype_sensitive, linears, plain_linears


class ReadsDtypes(nn.Module):
    """Reads dtypes in the ways that transformers and diffusers do."""

    def __init__(self):
        super().__init__()
        self.direct = nn.Linear(64, 64)
        self.behind = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        self.plain = nn.Linear(64, 64)

    def forward(self, x):
        x = self.direct(x.to(self.direct.weight.dtype))
        x = self.behind(x.to(next(iter(self.behind.parameters())).dtype))
        return self.plain(x)


class SparesInt8(nn.Module):
    """Reads a dtype, but has a branch of its own for int8."""

    def __init__(self):
        super().__init__()
        self.wo = nn.Linear(64, 64)

    def forward(self, x):
        if self.wo.weight.dtype != torch.int8:
            x = x.to(self.wo.weight.dtype)
        return self.wo(x)


class KeepsFloat32(nn.Module):
    """Names what stays in float32, as pretrained models do."""

    _keep_in_fp32_modules = ("time_embedder",)

    def __init__(self):
        super().__init__()
        self.time_embedder = nn.Sequential(nn.Linear(64, 64))
        self.time_embedder_2 = nn.Linear(64, 64)


def test_layers_whose_dtype_is_read_are_found():
    found = dtype_sensitive(nn.ModuleDict({"a": ReadsDtypes(), "b": SparesInt8()}))
    assert found.layers == {"a.direct", "a.behind.0", "a.behind.1", "b.wo"}
    assert found.tolerate_int8 == {"b.wo"}


def test_layers_kept_in_float32_are_found_by_whole_names():
    assert dtype_sensitive(KeepsFloat32()).layers == {"time_embedder.0"}


def test_a_class_without_source_reads_no_dtype():
    namespace = {"nn": nn}
    exec("class Typed(nn.Module):\n    def forward(self, x):\n        return x", namespace)
    assert dtype_sensitive(namespace["Typed"]()).layers == frozenset()


def test_t5_needs_no_list_of_classes(build):
    found = dtype_sensitive(build("t5"))
    assert found.layers == found.tolerate_int8
    assert sorted(path.rpartition(".")[2] for path in found.layers) == ["wo", "wo"]


def test_models_that_read_no_dtype_have_no_sensitive_layer(build):
    assert not dtype_sensitive(build("flux")).layers
    assert not dtype_sensitive(build("clip")).layers


def test_layers_that_cannot_gain_or_are_not_called_are_not_plain():
    module = nn.ModuleDict(
        {
            "attention": nn.MultiheadAttention(64, 4),
            "narrow": nn.Linear(8, 1024),
            "small": nn.Linear(64, 8),
            "float8": nn.Linear(64, 64).to(torch.float8_e4m3fn),
            "good": nn.Linear(64, 64),
        }
    )
    assert list(plain_linears(module)) == ["good"]
    assert "attention.out_proj" in linears(module)


def test_a_weight_that_is_used_as_a_matrix_is_left_alone():
    class Pool(nn.Module):
        def __init__(self):
            super().__init__()
            self.called = nn.Linear(64, 64)
            self.asked = nn.Linear(64, 64)
            self.read = nn.Linear(64, 64)

        def forward(self, inputs):
            known = isinstance(self.asked.weight, torch.Tensor) and self.asked.weight.shape
            hidden = self.called(self.asked(inputs)) if known else inputs
            return nn.functional.linear(hidden, self.read.weight)

    module = nn.Sequential(Pool())
    assert list(plain_linears(module)) == ["0.called", "0.asked"]


def test_the_attention_pool_of_hunyuan_dit_is_left_alone():
    from diffusers.models.embeddings import HunyuanDiTAttentionPool

    pool = HunyuanDiTAttentionPool(16, 64, 4)
    assert not plain_linears(pool)


def test_the_time_embedder_of_z_image_casts_its_input():
    from diffusers.models.transformers.transformer_z_image import TimestepEmbedder

    assert dtype_sensitive(TimestepEmbedder(64)).layers == {"mlp.0"}
