"""Image files with a thread count of 1, where Mitsuba alone would wait for ever."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

SCRIPT = """
import sys
import numpy as np
from pathtracer.capture import read_image, write_image
from pathtracer.runtime import activate
activate(threads=1)
import drjit as dr
image = np.random.default_rng(0).random((64, 64, 3), dtype=np.float32)
write_image(sys.argv[1], image)
assert np.array_equal(read_image(sys.argv[1])[0], image)
assert dr.thread_count() == 1
"""


def test_exr_files_are_written_and_read_with_one_thread(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", SCRIPT, str(tmp_path / "a.exr")], check=True, timeout=120)
