"""What one option needs, stage by stage, from shapes alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import chain

from autoquant.planner.footprint.activations import decoder_tape, denoiser_tape, encoder_tapes
from autoquant.planner.footprint.allocator import reserved_for
from autoquant.planner.footprint.family import decoder_of, denoiser_of, encoders_of
from autoquant.planner.footprint.layers import eligible_layers
from autoquant.planner.footprint.memory import NOTHING, Memory, one_after_another, total
from autoquant.planner.footprint.offload import (
    Sizes,
    is_moved_in_blocks,
    resident_sizes,
    setting_up_bytes,
    waiting_bytes,
)
from autoquant.planner.footprint.option import Option
from autoquant.planner.footprint.request import Request
from autoquant.planner.footprint.shapes import ComponentShapes, ModelShapes
from autoquant.planner.footprint.tape import Tape
from autoquant.planner.footprint.tiling import tiled_decoder_tape
from autoquant.planner.footprint.weights import (
    JOINT,
    component_bytes,
    held_parts,
    quantized_parts,
)
from autoquant.search_spaces.levers import Offload
from autoquant.search_spaces.scheme import Choice

ENCODING, DENOISING, DECODING = "text_encoding", "denoising", "vae_decoding"
STAGES = (ENCODING, DENOISING, DECODING)


@dataclass(frozen=True)
class Prediction:
    """What one option needs.

    Attributes:
        weights: All components after their choices, wherever they lie.
        load: Peak on the accelerator while loading.
        load_ram_bytes: Peak in RAM while loading.
        stages: Peak on the accelerator by stage.
        ram_bytes: Weights that wait in RAM while running.
    """

    weights: Memory
    load: Memory
    load_ram_bytes: int
    stages: Mapping[str, Memory]
    ram_bytes: int

    @property
    def peak(self) -> Memory:
        """The most of any moment."""
        moments = [self.load, *self.stages.values()]
        return Memory(
            max(moment.allocated for moment in moments), max(moment.reserved for moment in moments)
        )

    @property
    def peak_ram_bytes(self) -> int:
        """The most RAM of any moment."""
        return max(self.load_ram_bytes, self.ram_bytes)


class Predictor:
    """Predicts options of one pipeline for one request; what options share is computed once.

    Args:
        model: Its shapes.
        request: The pipeline call.
        traced: What each stage allocates, if that was traced; replaces the closed forms.
    """

    def __init__(
        self,
        model: ModelShapes,
        request: Request,
        traced: Mapping[str, list[Tape]] | None = None,
    ) -> None:
        self._model = model
        self._request = request
        self._traced = traced or {}
        self._held: dict[tuple[str, Choice], Memory] = {}
        self._running: dict[tuple[str, Choice, Offload], Memory] = {}
        self._largest: dict[tuple[str, Choice], int] = {}

    def predict(self, option: Option) -> Prediction:
        """Predict one option.

        Raises:
            BackendUnavailable: The storage of a scheme is not known.
        """
        held = {
            name: self._component(component, option.choice(name))
            for name, component in self._model.components.items()
        }
        weights = total(held.values())
        offload = option.arrangement.offload
        return Prediction(
            weights=weights,
            load=weights if offload == "none" else NOTHING,
            load_ram_bytes=self._load_ram(option, held),
            stages=self._stages(option, held),
            ram_bytes=waiting_bytes(self._sizes(option), offload),
        )

    def _component(self, component: ComponentShapes, choice: Choice) -> Memory:
        key = (component.name, choice)
        if key not in self._held:
            dtype = self._request.compute_dtype
            sizes = chain.from_iterable(held_parts(component, choice, dtype).values())
            self._held[key] = Memory(component_bytes(component, choice, dtype), reserved_for(sizes))
        return self._held[key]

    def _stages(self, option: Option, held: Mapping[str, Memory]) -> dict[str, Memory]:
        tiled = option.arrangement.vae_tiling
        unpacked = self._unpacked(option)
        if option.arrangement.offload == "none":
            resident = total(held.values())
            return {
                name: resident + beside + unpacked[name]
                for name, beside in self._beside[tiled].items()
            }
        return {
            stage: max(
                (
                    resident + beside + unpacked[stage]
                    for beside, resident in zip(
                        self._alone[tiled][stage], self._resident(stage, option), strict=True
                    )
                ),
                key=lambda memory: memory.reserved,
            )
            for stage in STAGES
        }

    def _unpacked(self, option: Option) -> dict[str, Memory]:
        """The one weight at a time that is written out in the compute dtype to be multiplied."""
        parts = {
            ENCODING: list(encoders_of(self._model).values()),
            DENOISING: [part for part in [denoiser_of(self._model)] if part],
            DECODING: [],
        }
        return {
            stage: _rounded_up(
                max((self._largest_quantized(part, option) for part in components), default=0)
            )
            for stage, components in parts.items()
        }

    def _largest_quantized(self, component: ComponentShapes, option: Option) -> int:
        choice = option.choice(component.name)
        key = (component.name, choice)
        if key not in self._largest:
            layers = eligible_layers(component)
            quantized = quantized_parts(component, choice, self._request.compute_dtype)
            elements = (
                sum(layers[part].elements for part in path.split(JOINT)) for path in quantized
            )
            self._largest[key] = max(elements, default=0) * self._request.itemsize
        return self._largest[key]

    def _resident(self, stage: str, option: Option) -> list[Memory]:
        """What of the weights lies on the accelerator, for each tape of a stage."""
        names = {
            ENCODING: list(encoders_of(self._model)),
            DENOISING: [part.name for part in [denoiser_of(self._model)] if part],
            DECODING: [part.name for part in [decoder_of(self._model)] if part],
        }[stage]
        return [self._resident_part(name, option) for name in names] or [NOTHING]

    def _resident_part(self, name: str, option: Option) -> Memory:
        component = self._model.components[name]
        choice, offload = option.choice(name), option.arrangement.offload
        key = (name, choice, offload)
        if key not in self._running:
            sizes = resident_sizes(
                held_parts(component, choice, self._request.compute_dtype),
                offload,
                in_blocks=is_moved_in_blocks(component.library, name),
            )
            self._running[key] = Memory(sum(sizes), reserved_for(sizes))
        return self._running[key]

    def _sizes(self, option: Option) -> list[Sizes]:
        return [
            held_parts(component, option.choice(name), self._request.compute_dtype)
            for name, component in self._model.components.items()
        ]

    def _load_ram(self, option: Option, held: Mapping[str, Memory]) -> int:
        """Each component is read and quantized in RAM, the largest first, before it moves on."""
        offload = option.arrangement.offload
        before = {
            name: self._component(component, Choice()).allocated
            for name, component in self._model.components.items()
        }
        waiting = peak = 0
        for name in sorted(before, key=lambda name: -before[name]):
            peak = max(peak, waiting + before[name])
            waiting += held[name].allocated if offload != "none" else 0
        if offload == "none":
            return peak
        moved = [
            is_moved_in_blocks(component.library, name)
            for name, component in self._model.components.items()
        ]
        return max(peak, setting_up_bytes([*zip(self._sizes(option), moved, strict=True)], offload))

    @cached_property
    def _tapes(self) -> dict[bool, dict[str, list[Tape]]]:
        """What each stage allocates beside the weights, without and with VAE tiling."""
        encoding = list(encoder_tapes(self._model, self._request).values())
        plain = {
            ENCODING: encoding or [Tape(self._request.itemsize)],
            DENOISING: [denoiser_tape(self._model, self._request)],
            DECODING: [decoder_tape(self._model, self._request)],
            **self._traced,
        }
        tiled = [tiled_decoder_tape(self._model, self._request)]
        return {False: plain, True: {**plain, DECODING: tiled}}

    @cached_property
    def _beside(self) -> dict[bool, dict[str, Memory]]:
        """The same in bytes, stage after stage in one process."""
        return {key: one_after_another(tapes) for key, tapes in self._tapes.items()}

    @cached_property
    def _alone(self) -> dict[bool, dict[str, list[Memory]]]:
        """The same for each part, the allocator's cache given back before it, as offload does."""
        return {
            key: {
                stage: [one_after_another({stage: [tape]})[stage] for tape in parts]
                for stage, parts in tapes.items()
            }
            for key, tapes in self._tapes.items()
        }


def _rounded_up(n_bytes: int) -> Memory:
    return Memory(n_bytes, reserved_for([n_bytes]) if n_bytes else 0)
