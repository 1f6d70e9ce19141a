"""What well spread numbers are worth to finite differences: variance and time against Mitsuba's `path`.

    python benchmarks/differences.py [case ...] [--spp 128]

Per case of the catalogue: variance per pixel of the difference at a quarter of the checker's step, and processor time,
both as stock over ours (more is better, and below 1 is dearer); 16 replicates, both in one run.
"""

from __future__ import annotations

import argparse
import sys
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

CASES = (
    "mesh-seamed-cube-moves",
    "perspective-moves",
    "sphere-moves",
    "shadow-point-light",
    "shadow-area-occluder",
    "shadow-environment-camera",
    "self-shadow-turns",
    "thinlens-moves",
    "rough-mirror",
    "indirect-room-grows",
    "roughconductor-alpha",
)
REPLICATES = 16


def compared(case: str, spp: int) -> tuple[float, float]:
    """Variance and time of stock differences over those of ours."""
    import mitsuba as mi

    from integrators.finite_difference import central_differences, pass_seeds, render_mean
    from integrators.spread_path import primal_plugin
    from pathtracer.bench.subjects import load_subject
    from pathtracer.bench.worker import Clock
    from pathtracer.verify import Motion
    from pathtracer.verify.reference import RATIO, Reference
    from pathtracer.verify.subject import subject_of

    scene, motion = load_subject(case)
    subject = subject_of(scene)
    bound = Motion.parse(motion).bind(subject.scene, subject.params)
    ours = subject.base()
    step = Reference(bound, subject.sensor, ours).epsilon / RATIO
    stock = mi.load_dict({"type": primal_plugin(subject.scene), **subject.depth, "rr_depth": 1000})

    def render(base: Any, theta: float, seed: int) -> np.ndarray:
        bound.apply(theta)
        return render_mean(subject.scene, subject.sensor, base, spp, seed)

    spreads, times = [], []
    for base in (stock, ours):
        render(base, 0.0, 1)
        with Clock() as clock:
            images = [central_differences(partial(render, base), [step], seed) for seed in pass_seeds(5, REPLICATES)]
        spreads.append(float(np.var(images, axis=0, ddof=1).mean()))
        times.append(clock.cpu)
    bound.restore()
    return spreads[0] / spreads[1], times[0] / times[1]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", default=CASES)
    parser.add_argument("--spp", type=int, default=128, help="samples per pixel of a render")
    arguments = parser.parse_args()
    from pathtracer.runtime import activate

    activate()
    print(f"| case, {arguments.spp} samples | variance, path / ours | time, path / ours |\n| --- | ---: | ---: |")
    for case in arguments.cases:
        variance, time = compared(case, arguments.spp)
        print(f"| {case} | {variance:.2f} | {time:.2f} |", flush=True)


if __name__ == "__main__":
    main()
