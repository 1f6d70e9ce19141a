"""The PyTorch function: values, shapes, gradients against finite differences, and the documented training loop."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from pathtracer.errors import EnvironmentFault, UsageError
from pathtracer.scenes import Scene, load_scene

KEY, LAMP, POSE = "wall.bsdf.reflectance.data", "lamp.intensity.value", "wall.to_world"


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch", reason='needs PyTorch: pip install "pathtracer[torch]"', exc_type=ImportError)


@pytest.fixture
def scene(repository: Path) -> Scene:
    return load_scene(repository / "scenes" / "painted-wall" / "scene.xml", res=8)


def test_without_pytorch_the_function_says_what_to_install(scene, monkeypatch):
    from pathtracer.pytorch import TorchRender

    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(EnvironmentFault, match=r"pip install .pathtracer\[torch\]"):
        TorchRender(scene, KEY)


def test_the_picture_is_that_of_the_scene(torch, scene, variant):
    from pathtracer.pytorch import TorchRender

    render = TorchRender(scene, [KEY, LAMP], spp=256)
    assert render.shapes == {KEY: (16, 16, 3), LAMP: (3,)}
    image = render({KEY: 0.5 * render.value(KEY)}, seed=3)
    assert image.shape == (8, 8, 3) and image.dtype == torch.float32
    own = load_scene(scene.path, res=8)
    expected = 0.5 * own.render(spp=1024)
    np.testing.assert_allclose(image.numpy().mean(axis=(0, 1)), expected.mean(axis=(0, 1)), rtol=0.03)
    np.testing.assert_allclose(image.numpy(), expected, atol=0.1)
    a, b = render({}, seed=3), render({}, seed=3)
    # the order of sums on a GPU is not fixed
    assert torch.equal(a, b) if "llvm" in variant else torch.allclose(a, b)
    assert not torch.allclose(render({}), render({}))


def test_gradients_agree_with_finite_differences(torch, scene):
    from pathtracer.pytorch import TorchRender

    render = TorchRender(scene, [KEY, LAMP], spp=512)
    goal = torch.rand(8, 8, 3, generator=torch.Generator().manual_seed(0))
    rng = torch.Generator().manual_seed(1)
    directions = {k: torch.rand(shape, generator=rng) for k, shape in render.shapes.items()}

    start = {k: render.value(k) for k in render.keys}

    def loss(offset: float, key: str, seed: int):
        at = start[key].clone().requires_grad_()
        given = start | {key: at + offset * directions[key]}
        return (render(given, seed=seed) * goal).sum(), at

    for key in (KEY, LAMP):
        slopes = []
        for seed in range(4):
            value, at = loss(0.0, key, seed)
            value.backward()
            slopes.append(float((at.grad * directions[key]).sum()))
        # the picture is linear in either, so that large steps are exact and the same noise is on both sides
        up, down = (loss(e, key, 7)[0].item() for e in (0.05, -0.05))
        assert (up - down) / 0.1 == pytest.approx(np.mean(slopes), rel=0.02)


def test_environment_maps_come_without_their_pad_columns(torch):
    import mitsuba as mi

    from pathtracer.pytorch import TorchRender

    texels = np.random.default_rng(0).uniform(0.5, 1.5, (4, 8, 3)).astype(np.float32)
    film = {"type": "hdrfilm", "width": 8, "height": 8, "pixel_format": "rgb"}
    scene = Scene.from_dict(
        {
            "type": "scene",
            "sensor": {"type": "perspective", "film": film},
            "sky": {"type": "envmap", "bitmap": mi.Bitmap(texels)},
        }
    )
    render = TorchRender(scene, "sky.data", spp=4)
    value = render.value("sky.data")
    np.testing.assert_allclose(value.numpy(), texels, rtol=1e-3)
    value.requires_grad_()
    render({"sky.data": 2 * value}, seed=1).sum().backward()
    stored = np.array(scene.params["sky.data"])
    np.testing.assert_allclose(stored, 2 * np.concatenate([texels[:, -1:], texels, texels[:, :1]], 1), rtol=1e-3)
    assert float(value.grad.sum()) > 0


def test_a_pose_moves_what_is_seen_and_its_missing_part_is_named(torch, scene):
    from pathtracer.pytorch import TorchRender

    with pytest.warns(UserWarning, match="visibility-left-out"):
        render = TorchRender(scene, POSE, spp=64)
    pose = render.value(POSE).requires_grad_()
    render({POSE: pose}, seed=1).sum().backward()
    assert pose.grad.shape == (4, 4) and float(pose.grad.abs().sum()) > 0


def test_wrong_keys_and_shapes_are_refused_with_both_sides(torch, scene):
    from pathtracer.pytorch import TorchRender

    render = TorchRender(scene, KEY, spp=4)
    with pytest.raises(UsageError, match="not among the keys"):
        render({LAMP: torch.ones(3)})
    with pytest.raises(UsageError, match=r"\(3,\), \(16, 16, 3\) was expected"):
        render({KEY: torch.ones(3)})
    with pytest.raises(UsageError, match="reflectance"):
        TorchRender(scene, "wall.bsdf.reflectanse.data")


@pytest.mark.slow
def test_the_documented_network_learns_the_texture(torch, repository, monkeypatch, capsys):
    text = (repository / "docs" / "pytorch.md").read_text()
    code = re.search(r"<!-- pytorch example -->\n```python\n(.*?)```", text, re.DOTALL)
    assert code is not None
    monkeypatch.chdir(repository)
    torch.manual_seed(0)
    found: dict[str, object] = {}
    exec(code[1], found)  # the document's own program
    print(capsys.readouterr().out)
    assert found["error"] < 0.05
