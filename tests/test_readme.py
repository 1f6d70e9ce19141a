"""What the README shows runs as printed."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np


def test_the_python_example_recovers_the_red_wall(repository: Path, tmp_path: Path) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- python example -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "scenes").symlink_to(repository / "scenes")
    script = found.group(1) + "\nprint(*result.values['red.reflectance.value'])\n"
    environment = os.environ | {"PYTHONPATH": str(repository)}
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    red = np.array(done.stdout.splitlines()[-1].split(), dtype=float)
    assert np.allclose(red, [0.62, 0.09, 0.07], atol=0.03)
    assert (tmp_path / "runs" / "two-walls").is_dir()
