"""FLUX.1-dev on a card with 12 GB: find the settings, keep them, draw with them.

    python examples/flux_dev_12gb.py                    the pipeline of the hub
    python examples/flux_dev_12gb.py DIR --vram 0.01    another Flux pipeline, another budget

The prediction (docs/flux.md) is that without offload only 2 bits fit, which few images survive, and
that 4 to 6 bits fit with model offload. So what waits for what is left open, and what is looked for
is the least loss.
"""

from __future__ import annotations

import argparse

from autoquant import WorkloadRequest, autoquant

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
parser.add_argument("model", nargs="?", default="black-forest-labs/FLUX.1-dev")
parser.add_argument("--vram", type=float, default=12, help="GiB for a call, weights included")
parser.add_argument("--out", default="autoquant-out/flux-dev-12gb")
parser.add_argument("--size", type=int, default=1024, help="pixels a side")
parser.add_argument("--steps", type=int, default=28)
parser.add_argument("--trials", type=int, default=40)


def main() -> None:
    arguments = parser.parse_args()
    plan = autoquant(
        arguments.model,
        vram_gb=arguments.vram,
        workload=WorkloadRequest(
            height=arguments.size,
            width=arguments.size,
            steps=arguments.steps,
            guidance_scale=3.5,
        ),
        trials=arguments.trials,
        out=arguments.out,
    )
    print(plan)
    pipe = plan.load()
    prompt = "a red bicycle leaning against a blue wooden door"
    size = {"height": arguments.size, "width": arguments.size}
    image = pipe(prompt, num_inference_steps=arguments.steps, guidance_scale=3.5, **size).images[0]
    image.save(f"{arguments.out}/first.png")


if __name__ == "__main__":
    main()
