"""The warped-area estimator against finite differences and its own identities, forward and backward."""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators import UnsupportedGradient
from integrators.errors import GradientWarning
from integrators.warp import Kernel
from pathtracer.verify.check import Settings, compare
from pathtracer.verify.motion import Motion
from pathtracer.verify.reference import Reference
from pathtracer.verify.statistics import Verdict

# Blocks of a tiny image hold a few silhouette pixels each: their margin is relative to the strongest block
SETTINGS = Settings(tolerance=0.05, block_tolerance=0.15, budget=200, spp=256, reference_spp=512, blocks=2, looks=4)


def T() -> mi.ScalarTransform4f:
    """The identity, to chain transforms on."""
    return mi.ScalarTransform4f()


def texture() -> dict:
    pixels = 0.5 + np.random.default_rng(1).random((4, 4, 3)).astype(np.float32)
    return {"type": "area", "radiance": {"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": True}}


SHAPES = {
    "cube": lambda: {"type": "cube", "to_world": T().rotate([0, 1, 0], 30).scale(0.6)},
    "sphere": lambda: {"type": "sphere", "radius": 0.8},
    "rectangle": lambda: {"type": "rectangle", "to_world": T().rotate([0, 1, 0], 30).scale(0.8)},
    "disk": lambda: {"type": "disk", "to_world": T().rotate([0, 1, 0], 30).scale(0.8)},
    "cylinder": lambda: {"type": "cylinder", "p0": [-0.5, -0.3, 0], "p1": [0.6, 0.4, 0.2], "radius": 0.4},
}


def glowing(kind: str, rfilter: str = "gaussian") -> dict:
    """A glowing textured object before a glowing wall: visibility from the camera and nothing else."""
    return {
        "type": "scene",
        "sensor": {
            "type": "perspective", "fov": 40, "to_world": T().look_at([0.6, 1.2, 4], [0, 0, 0], [0, 1, 0]),
            "film": {
                "type": "hdrfilm", "width": 12, "height": 12, "pixel_format": "rgb", "component_format": "float32",
                "rfilter": {"type": rfilter},
            },
        },
        "shape": SHAPES[kind]() | {"emitter": texture()},
        "wall": {
            "type": "rectangle", "to_world": T().translate([0, 0, -2]).scale(6),
            "emitter": {"type": "area", "radiance": {"type": "rgb", "value": [0.2, 0.3, 0.4]}},
        },
    }  # fmt: skip


def check(scene: dict, motion: str, depth: int = 1, settings: Settings = SETTINGS, **properties):
    """Compare warped_area with finite differences of `path` along one motion."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    base = mi.load_dict({"type": "path", "max_depth": depth})
    estimator = mi.load_dict({"type": "warped_area", "max_depth": depth} | properties)
    reference = Reference(bound, loaded.sensors()[0], base)
    return compare(bound, loaded.sensors()[0], estimator, "warped_area", reference, settings)


def test_divergence_of_a_linear_field_is_its_trace() -> None:
    """(W4) holds for every number of auxiliary rays, also when weights favour one of them."""
    for rays in (3, 6):
        kernel = Kernel(rays=rays, reach=10.0, exponent=3.0)
        lanes = 200_000
        _, centre, rest, offset = kernel.pattern(lanes, dr.arange(mi.UInt32, lanes))
        x = centre + offset
        velocity = mi.Vector2f(2 * x.x + x.y, 3 * x.y - x.x)
        mean, divergence = kernel.mean(dr.ones(mi.Float, dr.width(x)), 4 * centre / rest, velocity)
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - 5) < 4 * error < 0.1
        assert np.isfinite(np.asarray(mean)).all()


def test_a_straight_edge_through_the_middle_always_has_ring_points_on_both_sides() -> None:
    kernel = Kernel(rays=6, reach=10.0, exponent=3.0)
    _, centre, _, offset = kernel.pattern(50_000, dr.arange(mi.UInt32, 50_000))
    for angle in np.linspace(0, np.pi, 7):
        side = np.asarray((centre + offset).x * np.cos(angle) + (centre + offset).y * np.sin(angle)) > 0
        found = side.reshape(-1, kernel.rays)
        assert (found.any(axis=1) & ~found.all(axis=1)).all()


slow = pytest.mark.slow
MOTIONS = [
    pytest.param("cube", "gaussian", "shape.vertex_positions translate:x", marks=slow),
    pytest.param("sphere", "gaussian", "shape.to_world translate:x", marks=slow),
    ("cube", "box", "sensor.to_world translate:x"),
    pytest.param("cube", "gaussian", "sensor.to_world translate:x", marks=slow),
    pytest.param("cube", "gaussian", "sensor.to_world rotate:y", marks=slow),
    pytest.param("cube", "box", "shape.vertex_positions rotate:y", marks=slow),
    pytest.param("sphere", "box", "shape.to_world translate:x", marks=slow),
    pytest.param("sphere", "gaussian", "shape.to_world rotate:z", marks=slow),
    pytest.param("sphere", "gaussian", "shape.to_world scale", marks=slow),
    pytest.param("rectangle", "gaussian", "shape.to_world rotate:y", marks=slow),
    pytest.param("disk", "gaussian", "shape.to_world translate:x", marks=slow),
    pytest.param("cylinder", "gaussian", "shape.to_world rotate:z", marks=slow),
]


@pytest.mark.parametrize(("kind", "rfilter", "motion"), MOTIONS)
def test_primary_visibility_agrees_with_finite_differences(kind: str, rfilter: str, motion: str) -> None:
    result = check(glowing(kind, rfilter), motion)
    assert result.verdict is Verdict.PASS, result.reason


def test_forward_and_backward_are_adjoint_when_object_and_camera_move() -> None:
    scene = mi.load_dict(glowing("cube"), optimize=False)
    motion = "shape.vertex_positions rotate:y + sensor.to_world translate:x"
    bound = Motion.parse(motion).bind(scene, mi.traverse(scene))
    integrator = mi.load_dict({"type": "warped_area", "max_depth": 1})
    adjoint = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)
    with bound.attached(forward=True):
        tangent = np.asarray(integrator.render_forward(scene, bound.params, seed=3, spp=32), dtype=np.float64)
    with bound.attached(forward=False) as theta:
        integrator.render_backward(scene, bound.params, mi.TensorXf(adjoint), seed=3, spp=32)
        dr.enqueue(dr.ADMode.Backward, *[bound.params[key] for key in set(bound.motion.keys)])
        dr.traverse(dr.ADMode.Backward)
        gradient = dr.grad(theta)[0]
    assert gradient == pytest.approx(float((tangent * adjoint).sum()), rel=1e-3)


def test_what_stays_still_is_left_to_path_replay() -> None:
    scene = mi.load_dict(glowing("sphere"), optimize=False)
    params = mi.traverse(scene)
    key = "wall.emitter.radiance.value"
    images = []
    for name in ("warped_area", "path_replay"):
        bound = Motion.parse(f"{key} value").bind(scene, params)
        with bound.attached(forward=True):
            integrator = mi.load_dict({"type": name, "max_depth": 1})
            images.append(np.asarray(integrator.render_forward(scene, params, seed=1, spp=8)))
    np.testing.assert_allclose(images[0], images[1], rtol=1e-5)


def moved(scene: dict, motion: str = "shape.to_world translate:x", **properties) -> None:
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    with bound.attached(forward=True):
        mi.load_dict({"type": "warped_area"} | properties).render_forward(loaded, bound.params, seed=0, spp=1)


def test_a_shape_without_known_silhouettes_is_refused() -> None:
    scene = glowing("sphere")
    scene["tube"] = {
        "type": "sdfgrid",
        "grid": mi.TensorXf(np.linspace(-1, 1, 8, dtype=np.float32).reshape(2, 2, 2, 1)),
    }
    with pytest.raises(UnsupportedGradient, match="silhouettes"):
        moved(scene, max_depth=1)


def test_hidden_emitters_are_refused() -> None:
    with pytest.raises(UnsupportedGradient, match="hidden emitters"):
        moved(glowing("sphere"), max_depth=1, hide_emitters=True)


def test_shadows_that_are_left_out_are_announced() -> None:
    scene = glowing("sphere") | {"lamp": {"type": "point", "position": [0, 3, 1], "intensity": 5.0}}
    with pytest.warns(GradientWarning) as caught:
        moved(scene, max_depth=2)
    assert {w.message.code for w in caught if isinstance(w.message, GradientWarning)} == {"delta-shadow", "warp-depth"}
