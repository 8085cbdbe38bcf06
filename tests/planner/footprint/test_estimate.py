from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from autoquant.errors import InputError
from autoquant.planner.budget import Budget
from autoquant.planner.footprint.estimate import Estimate, estimate, excess_bytes, mean_bits
from autoquant.planner.footprint.option import Arrangement, Option
from autoquant.planner.footprint.prediction import Predictor
from autoquant.planner.footprint.report import as_data
from autoquant.planner.footprint.request import request_for
from autoquant.planner.footprint.shape_list import read_shape_list
from autoquant.planner.footprint.shapes import ModelShapes
from autoquant.planner.footprint.weights import component_bytes
from autoquant.planner.measurement import GIB
from autoquant.search_spaces.levers import Offload
from autoquant.search_spaces.scheme import Choice, Override
from tests.planner.footprint.pipelines import MODELS

MODES: tuple[Offload, ...] = (
    "none",
    "model",
    "group_block_stream",
    "group_block",
    "group_leaf_stream",
    "group_leaf",
    "sequential",
    "group_leaf_disk",
)


def budget(vram: float, ram: float | None = None) -> Budget:
    return Budget(vram_gb=vram, ram_gb=ram)


def qwen_on_a_5090() -> Estimate:
    qwen = read_shape_list(MODELS / "qwen-image.json")
    return estimate(qwen, request_for(qwen), budget(32, 60))


def streamed_qwen_ram_gb() -> float:
    qwen = read_shape_list(MODELS / "qwen-image.json")
    streamed = Option({}, Arrangement("group_leaf_stream"))
    return Predictor(qwen, request_for(qwen)).predict(streamed).ram_bytes / GIB


def test_qwen_image_on_32_gb_with_60_gb_of_ram() -> None:
    """The card and machine of a log of fifteen attempts."""
    result = qwen_on_a_5090()
    unquantized = next(row for row in result.rows if not row.option.choices)
    assert unquantized.prediction.weights.allocated / GIB == pytest.approx(53.7, abs=0.1)
    assert unquantized.verdict == "fits with offload"
    assert unquantized.option.arrangement.offload == "group_leaf"
    assert streamed_qwen_ram_gb() > 60
    kept = [row for row in result.rows if row.verdict == "fits"]
    assert kept
    assert all(excess_bytes(row.prediction, result.budget) <= 0 for row in kept)
    nf4 = next(
        row for row in kept if "bitsandbytes:nf4 everywhere" in row.option.label(result.request)
    )
    assert nf4.option.arrangement.offload == "none"


def test_layers_in_a_wider_precision_count_with_their_own_bits(flux: ModelShapes) -> None:
    first_blocks = tuple(f"transformer_blocks.{n}" for n in range(6))
    wider = Override(scheme="torchao:int8wo", layers=first_blocks)
    mixed = Choice(scheme="torchao:int4wo", overrides=(wider,))
    kept = Choice(scheme="torchao:int4wo", exclusions=first_blocks)
    sizes, bits = [], []
    for choice in (Choice(scheme="torchao:int4wo"), mixed, kept):
        sizes.append(component_bytes(flux.components["transformer"], choice, "bfloat16"))
        bits.append(mean_bits(flux, {"transformer": choice}, request_for(flux)))
    # int8 costs four bits a weight, bfloat16 twelve; scales take a little of each.
    assert (sizes[1] - sizes[0]) / (sizes[2] - sizes[0]) == pytest.approx(1 / 3, rel=0.05)
    assert (bits[1] - bits[0]) / (bits[2] - bits[0]) == pytest.approx(1 / 3)


def test_rows_are_ranked_by_verdict_then_by_bits(model: ModelShapes) -> None:
    rows = estimate(model, request_for(model), budget(12, 32)).rows
    order = {"fits": 0, "fits with offload": 1, "does not fit": 2}
    assert [order[row.verdict] for row in rows] == sorted(order[row.verdict] for row in rows)
    for verdict in ("fits", "fits with offload"):
        bits = [row.bits for row in rows if row.verdict == verdict]
        assert bits == sorted(bits, reverse=True)


def test_what_does_not_fit_names_what_does(flux: ModelShapes) -> None:
    result = estimate(flux, request_for(flux), budget(16, 24))
    unquantized = next(row for row in result.rows if not row.option.choices)
    assert unquantized.verdict == "does not fit"
    assert unquantized.nearest is not None
    predicted = Predictor(flux, result.request).predict(unquantized.nearest)
    assert excess_bytes(predicted, result.budget) <= 0


def test_nothing_fits_a_card_of_one_gb(flux: ModelShapes) -> None:
    result = estimate(flux, request_for(flux), budget(1))
    assert not result.fits
    assert all(row.nearest is None for row in result.rows)


def test_offload_moves_weights_to_ram(flux: ModelShapes) -> None:
    predictor = Predictor(flux, request_for(flux))
    by_mode = {mode: predictor.predict(Option({}, Arrangement(mode))) for mode in MODES}
    denoising = [by_mode[mode].stages["denoising"].reserved for mode in MODES]
    assert denoising == sorted(denoising, reverse=True)
    whole = by_mode["none"].weights.allocated
    assert by_mode["none"].ram_bytes == by_mode["group_leaf_disk"].ram_bytes == 0
    for mode in ("model", "group_leaf", "sequential"):
        assert by_mode[mode].ram_bytes == pytest.approx(whole, abs=4096)
    transformer = 22.17 * GIB
    assert by_mode["model"].stages["denoising"].allocated > transformer
    assert by_mode["none"].load_ram_bytes == pytest.approx(transformer, rel=0.001)


def test_streams_copy_weights_into_powers_of_two(flux: ModelShapes) -> None:
    """Users saw 50 GB of RAM with group offload of FLUX.1-dev."""
    streamed = Predictor(flux, request_for(flux)).predict(
        Option({}, Arrangement("group_block_stream"))
    )
    assert 1.2 < streamed.ram_bytes / streamed.weights.allocated < 2
    assert 45 * GIB < streamed.load_ram_bytes < 70 * GIB


def test_tiling_bounds_decoding(flux: ModelShapes) -> None:
    large = Predictor(flux, request_for(flux, 2048, 2048, 2))
    whole, tiled = (
        large.predict(Option({}, Arrangement(vae_tiling=tiled))).stages["vae_decoding"].allocated
        for tiled in (False, True)
    )
    assert tiled < whole - 10 * GIB


def test_the_data_has_bands_around_every_number_and_no_latency() -> None:
    data = as_data(qwen_on_a_5090(), "autoquant suggest x --vram 32")
    assert data["latency_s"] is None
    assert data["measure_with"] == "autoquant suggest x --vram 32"
    option = data["options"][0]
    assert set(option["stages"]) == {"text_encoding", "denoising", "vae_decoding"}
    ranges = [option["ram"]["load_gb"], option["ram"]["run_gb"]]
    for memory in (
        option["weights"],
        option["load_peak"],
        option["peak"],
        *option["stages"].values(),
    ):
        ranges += [memory["allocated_gb"], memory["reserved_gb"]]
    assert all(found["low"] <= found["predicted"] <= found["high"] for found in ranges)


@pytest.mark.parametrize(("height", "batch"), [(0, 1), (1024, 0), (10**6, 1), (1024, 10**6)])
def test_sizes_that_cannot_be_meant_are_refused(flux: ModelShapes, height: int, batch: int) -> None:
    with pytest.raises(InputError, match="must be between 1 and"):
        request_for(flux, height, 1024, batch)


PROBE = (
    "import sys; sys.argv = ['autoquant', *sys.argv[1:]]\n"
    "import autoquant.cli\n"
    "try: autoquant.cli.main()\n"
    "except SystemExit as end: code = end.code\n"
    "heavy = {'torch', 'diffusers', 'transformers', 'optuna', 'numpy'} & set(sys.modules)\n"
    "sys.exit(f'loads {heavy}' if heavy else code)"
)


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROBE, "estimate", *arguments],
        capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_the_command_is_light_and_prints_a_table(flux_directory: Path) -> None:
    done = run(str(flux_directory), "--vram", "24")
    assert done.returncode == 0, done.stderr
    assert "FluxPipeline at 1024x1024" in done.stdout
    assert f"autoquant suggest {flux_directory} --vram 24" in " ".join(done.stdout.split())
    assert "nothing was measured" in done.stdout


def test_the_demo_is_estimated_for_what_it_draws() -> None:
    done = run("demo", "--vram", "1", "--json")
    assert done.returncode == 0, done.stderr
    asked = json.loads(done.stdout)["request"]
    assert (asked["height"], asked["width"], asked["text_tokens"]) == (64, 64, 16)


def test_the_command_writes_json(flux_directory: Path) -> None:
    done = run(str(flux_directory), "--vram", "24", "--scheme", "torchao:int8wo", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["schema"] == "autoquant.estimate/1"


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        (("no/such/model/here", "--vram", "8"), 2, "No model at 'no/such/model/here'"),
        ((str(MODELS / "flux.1-dev.json"), "--vram", "0"), 2, "vram_gb must be a finite number"),
        ((str(MODELS / "flux.1-dev.json"), "--vram", "8", "--ram", "-1"), 2, ": ram_gb must be"),
        ((str(MODELS / "flux.1-dev.json"), "--vram", "8", "--dtype", "int8"), 2, "compute_dtype"),
        ((str(MODELS / "flux.1-dev.json"), "--vram", "8", "--height", "0"), 2, "height must be"),
        ((str(MODELS / "flux.1-dev.json"), "--vram", "8", "--scheme", "x:y"), 2, "'x:y' stores"),
        ((str(MODELS), "--vram", "8"), 2, "is no diffusers pipeline"),
    ],
)
def test_wrong_input_is_one_line(arguments: tuple[str, ...], status: int, message: str) -> None:
    done = run(*arguments)
    assert done.returncode == status, done.stderr
    assert message in done.stderr
    assert re.fullmatch(r"autoquant: [^\n]+\n", done.stderr)
    assert done.stdout == ""


def test_nothing_fits_is_exit_status_3(flux_directory: Path) -> None:
    done = run(str(flux_directory), "--vram", "1")
    assert done.returncode == 3, done.stderr
    assert "nothing fits; the smallest" in " ".join(done.stdout.split())
