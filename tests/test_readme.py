"""What the README shows runs as printed."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np


def test_the_python_example_recovers_the_red_wall(repository: Path, tmp_path: Path, monkeypatch) -> None:
    text = (repository / "README.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- python example -->\n```python\n(.*?)```", text, re.DOTALL)
    assert found is not None
    (tmp_path / "scenes").symlink_to(repository / "scenes")
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec(found.group(1), names)
    assert np.allclose(names["result"].values["red.reflectance.value"], [0.62, 0.09, 0.07], atol=0.03)
    assert (tmp_path / "runs" / "two-walls").is_dir()
