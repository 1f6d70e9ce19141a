"""Warped area with a box filter: lines around pixels instead of a divergence, less the level of the pixel."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import mitsuba as mi
import numpy as np
import pytest
from helpers.glowing_scenes import T, glowing

from integrators.warped_film import FilmLines, PixelLevel
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion


def test_the_two_sides_of_a_pixel_draw_the_same_numbers() -> None:
    scene = mi.load_dict(glowing("sphere", "box"), optimize=False)
    lines = FilmLines(scene.sensors()[0], mi.UInt32(3), 8, True)
    u = np.asarray(lines.points.u)[:, : 13 * 12 * 4].reshape(2, 12, 13, 4)  # x = const: rows, lines, samples
    assert np.ptp(u[1], axis=1).max() < 1e-5
    assert len(np.unique(u[1][:, 0].round(5))) == 12 * 4


def test_the_level_of_a_pixel_is_the_mean_of_the_other_half() -> None:
    film = mi.load_dict(
        {"type": "hdrfilm", "width": 9, "height": 7, "crop_width": 3, "crop_height": 2, "crop_offset_x": 4}
        | {"crop_offset_y": 1, "rfilter": {"type": "box"}}
    )
    values = np.random.default_rng(0).random((3, 6, 2, 3)).astype(np.float32)  # channels, pixels, halves, samples
    level = PixelLevel(film, mi.Spectrum(values.reshape(3, -1)))
    others = np.asarray(level.of_others()).reshape(values.shape)
    np.testing.assert_allclose(others, np.broadcast_to(values.mean(-1)[:, :, ::-1, None], values.shape), rtol=1e-5)
    at = np.asarray(level.at(mi.Point2f([4, 6, 5, 3, 7, 5], [1, 1, 2, 1, 2, 0])))
    np.testing.assert_allclose(at[:, :3], values.mean((-1, -2))[:, [0, 2, 4]], rtol=1e-5)
    assert not at[:, 3:].any()


@pytest.mark.parametrize("spp", [1, 2, 4, 16])
def test_the_level_of_a_pixel_leaves_no_bias_at_few_samples(spp: int) -> None:
    """The edge of a glowing rectangle, two of eight columns of an orthographic film half covered: ±4 per unit."""
    film = {"type": "hdrfilm", "width": 8, "height": 8, "rfilter": {"type": "box"}, "pixel_format": "rgb"}
    look = T().look_at([0, 0, 3], [0, 0, 0], [0, 1, 0])
    scene = mi.load_dict(
        {
            "type": "scene",
            "sensor": {"type": "orthographic", "to_world": look, "film": film},
            "card": {
                "type": "rectangle", "to_world": T().scale([0.625, 3, 1]),
                "emitter": {"type": "area", "radiance": 1.0},
            },
        }
    )  # fmt: skip
    bound = Motion.parse("card.to_world translate:x").bind(scene, mi.traverse(scene))
    gradient = Gradient(bound, scene.sensors()[0], mi.load_dict({"type": "warped_area", "max_depth": 1}), 1, 0)
    images = np.array([gradient.gradient_image(spp, seed)[..., 0].mean(0) for seed in range(24 * max(1, 16 // spp))])
    edges = np.sort(images.mean(0))
    errors = images.std(0).max() / np.sqrt(len(images))
    np.testing.assert_allclose(edges[[0, -1]], [-4, 4], atol=4 * errors + 0.02)
    assert errors < 0.2


def test_lines_of_the_film_have_wavelengths_of_their_own(repository) -> None:
    """A card in a spectral variant: its edges give 4 per unit and radiance, less by the filter's spread."""
    script = textwrap.dedent("""
        import sys
        from pathtracer.runtime import activate
        activate(sys.argv[1])
        import drjit as dr, mitsuba as mi, numpy as np, integrators
        integrators.register()
        T = mi.ScalarTransform4f
        colour = {"type": "rgb", "value": [1.0, 0.5, 0.2]}
        for rfilter, share in (("box", 1), ("gaussian", 0.7977)):
            film = {"type": "hdrfilm", "width": 8, "height": 8, "rfilter": {"type": rfilter}, "pixel_format": "rgb"}
            look = T().look_at([0, 0, 3], [0, 0, 0], [0, 1, 0])
            scene = mi.load_dict({
                "type": "scene", "sensor": {"type": "orthographic", "to_world": look, "film": film},
                "card": {
                    "type": "rectangle", "to_world": T().scale([0.625, 3, 1]),
                    "emitter": {"type": "area", "radiance": colour},
                },
            })
            params = mi.traverse(scene)
            θ = mi.Float(0)
            dr.enable_grad(θ)
            params["card.to_world"] = mi.Transform4f().translate([θ, 0, 0]) @ params["card.to_world"]
            params.update()
            dr.forward(θ, dr.ADFlag.ClearEdges)
            integrator = mi.load_dict({"type": "warped_area", "max_depth": 1})
            draw = lambda seed: np.array(integrator.render_forward(scene, params, seed=seed, spp=256))[2:6].mean(0)
            images = [draw(seed) for seed in range(8)]
            sides, error = np.mean(images, 0)[[1, 6]] / share, np.std(images, 0)[[1, 6]] / 8**0.5
            expected = np.outer([-4, 4], [1, 0.5, 0.2])
            assert (error < 0.1).all() and (np.abs(sides - expected) < 4 * error + 0.02).all(), (rfilter, sides, error)
    """)
    variant = mi.variant().replace("rgb", "spectral")
    environment = os.environ | {"PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", script, variant], check=True, timeout=120, env=environment)
