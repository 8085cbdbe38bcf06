"""FLUX.1-dev on a card with 12, 16 or 24 GB: find the settings, keep them, draw with them.

    python examples/flux_dev.py --vram 16                 the pipeline of the hub
    python examples/flux_dev.py --vram 24 --no-offload    no search among what waits for weights
    python examples/flux_dev.py DIR --vram 0.01           another Flux pipeline, another budget

What is predicted (docs/flux.md): on 12 GB only 2 bits fit without offload, which few images
survive, and 4 to 6 bits with model offload. On 16 GB 4 bits everywhere fit, hardly, and 8 bits with
model offload. On 24 GB 8 bits everywhere fit without.
"""

from __future__ import annotations

import argparse

from autoquant import WorkloadRequest, autoquant

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model", nargs="?", default="black-forest-labs/FLUX.1-dev")
parser.add_argument(
    "--vram", type=float, required=True, help="GiB for a call, weights included: 12, 16, 24 …"
)
parser.add_argument("--latency", type=float, help="seconds for a call; a call with offload waits")
parser.add_argument("--no-offload", action="store_true", help="weights stay on the card")
parser.add_argument("--out", help="default: autoquant-out/flux-dev-<VRAM>gb")
parser.add_argument("--size", type=int, default=1024, help="pixels a side")
parser.add_argument("--steps", type=int, default=28)
parser.add_argument("--trials", type=int, default=40)


def main() -> None:
    arguments = parser.parse_args()
    out = arguments.out or f"autoquant-out/flux-dev-{arguments.vram:g}gb"
    plan = autoquant(
        arguments.model,
        vram_gb=arguments.vram,
        latency_s=arguments.latency,
        workload=WorkloadRequest(
            height=arguments.size,
            width=arguments.size,
            steps=arguments.steps,
            guidance_scale=3.5,
        ),
        levers={"offload": ["none"]} if arguments.no_offload else None,
        trials=arguments.trials,
        out=out,
    )
    print(plan)
    pipe = plan.load()
    prompt = "a red bicycle leaning against a blue wooden door"
    size = {"height": arguments.size, "width": arguments.size}
    image = pipe(prompt, num_inference_steps=arguments.steps, guidance_scale=3.5, **size).images[0]
    image.save(f"{out}/first.png")


if __name__ == "__main__":
    main()
