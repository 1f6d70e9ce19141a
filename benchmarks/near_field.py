"""The radius within which light between surfaces is left out of derivatives (`near`), swept.

    python benchmarks/near_field.py [--estimator edge_sampling] [--spp 512]

Scene `fold` of the catalogue: a box against a floor, depth 3. Per motion and radius, in pixels: the variance of one
derivative image times its samples (summed over pixels, eight images), the slope against finite differences with its
95 % interval, and the largest difference of a block of 4 x 4 pixels over the strongest block.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

MOTIONS = ("wall.vertex_positions translate:0.3,0,1", "camera.to_world translate:y")
RADII = (0.0, 0.1, 0.25, 0.5, 1.0, 2.0, 4.0)


def spread(motion: str, estimator: str, spp: int) -> float:
    """Variance of a derivative image, summed over pixels and channels, times its samples per pixel."""
    from pathtracer.bench.subjects import load_subject
    from pathtracer.verify import Motion
    from pathtracer.verify.estimate import Gradient
    from pathtracer.verify.subject import load_estimator, subject_of

    subject = subject_of(load_subject("fold-camera")[0])
    bound = Motion.parse(motion).bind(subject.scene, subject.params)
    gradient = Gradient(bound, subject.sensor, load_estimator(subject, estimator)[1], 8, 1)
    gradient.gradient_image(spp, 1)
    images = [gradient.gradient_image(spp, 100 + k) for k in range(8)]
    return float(np.var(images, axis=0, ddof=1).sum()) * spp


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--estimator", default="edge_sampling")
    parser.add_argument("--spp", type=int, default=512)
    parser.add_argument("--budget", type=float, default=30.0, help="seconds of each check")
    arguments = parser.parse_args()
    from pathtracer.verify import check_gradients
    from pathtracer.verify.catalogue import catalogue_folder

    print("| motion | near, pixels | variance x samples | slope [95 %] | block |\n| --- | ---: | ---: | ---: | ---: |")
    for motion in MOTIONS:
        for radius in RADII:
            name = f"{arguments.estimator}:near={radius}"
            variance = spread(motion, name, arguments.spp)
            scene = catalogue_folder() / "fold.xml"
            # a tolerance that is never met: the whole budget goes into the interval
            report = check_gradients(
                scene, motion, name, tolerance=0.002, budget=arguments.budget, diagnosis=False, backward=False
            )
            found = report.comparisons[0]
            low, high = found.slope_interval()
            print(
                f"| {motion} | {radius:g} | {variance:.3g} | {found.slope:.3f} [{low:.3f}, {high:.3f}] "
                f"| {found.worst_block:.2f} |",
                flush=True,
            )


if __name__ == "__main__":
    main()
