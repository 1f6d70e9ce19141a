"""Many views: one recording for all lenses and poses, memory that does not grow with the steps."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from pathtracer.capture import View
from pathtracer.capture.cameras import Camera
from pathtracer.inverse import Problem
from pathtracer.inverse.objective import Objective
from pathtracer.scenes import load_scene


def resident() -> float:
    """Megabytes of memory that the process holds."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 2**20


@pytest.mark.slow
@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_hundred_views_replay_one_recording_in_memory_that_stays(repository):
    folder, size, count = repository / "scenes" / "capture", 96, 100
    sys.path.insert(0, str(folder))
    try:
        import make
    finally:
        sys.path.remove(str(folder))
    rng = np.random.default_rng(0)
    views = []
    for k in range(count):
        camera = make.cameras()[k % 24]
        f = camera.fx * size / camera.width * rng.uniform(0.98, 1.02)
        own = Camera(size, size, f, f, size / 2, size / 2 + rng.normal(), camera.to_world)
        views.append(View(str(k), rng.random((size, size, 3), dtype=np.float32), sensor=own.sensor()))
    keys = ["paint.base_color.data", "paint.roughness.value", "sky.data"]
    objective = Objective(Problem(load_scene(folder / "scene.xml"), views, keys, spp=2), batch=4)
    held = []
    for step in range(3 * count // 4):
        objective.evaluate(objective.start, step)
        if (step + 1) % (count // 4) == 0:
            held.append(resident())
    assert objective.recordings == 1
    # the first round keeps a picture of every view (11 MB here); later ones keep nothing more
    assert held[2] - held[0] < 20, held
