"""The warped-area estimator against finite differences and its own identities, forward and backward."""

from __future__ import annotations

import warnings

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.derivatives import derivative_image
from helpers.glowing_scenes import T, glowing

from integrators import UnsupportedGradient
from integrators.errors import GradientWarning
from pathtracer.verify import check_catalogue
from pathtracer.verify.check import compare
from pathtracer.verify.comparison import Settings
from pathtracer.verify.motion import Motion
from pathtracer.verify.reference import Reference
from pathtracer.verify.statistics import Verdict

# Blocks of a tiny image hold a few silhouette pixels each: their margin is relative to the strongest block
SETTINGS = Settings(tolerance=0.05, block_tolerance=0.15, budget=600, spp=256, reference_spp=512, blocks=2, looks=6)


def check(scene: dict, motion: str, depth: int = 1, settings: Settings = SETTINGS, **properties):
    """Compare warped_area with finite differences of `path` along one motion."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    base = mi.load_dict({"type": "path", "max_depth": depth})
    estimator = mi.load_dict({"type": "warped_area", "max_depth": depth} | properties)
    reference = Reference(bound, loaded.sensors()[0], base)
    return compare(bound, loaded.sensors()[0], estimator, "warped_area", reference, settings)


def test_no_sample_outweighs_all_others_where_rays_meet_the_next_face_at_an_edge() -> None:
    """Seed 1020 has a ray that starts on an edge of the cube and meets it at no distance; it gave 3000."""
    assert np.abs(derivative_image("mesh-closed-turns", "warped_area", 256, 1020)).max() < 10


slow = pytest.mark.slow
MOTIONS = [
    pytest.param("cube", "gaussian", "shape.vertex_positions translate:x", marks=slow),
    pytest.param("sphere", "gaussian", "shape.to_world translate:x", marks=slow),
    pytest.param("cube", "gaussian", "sensor.to_world translate:x", marks=slow),
    pytest.param("cube", "box", "sensor.to_world translate:x", marks=slow),
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


def slope(
    scene: dict, motion: str, step: float, depth: int = 1, repeats: int = 6, spp: int = 256
) -> tuple[float, float]:
    """Gradient over finite difference, weighted with the latter, and its standard error; a fixed amount of work."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    primal = mi.load_dict({"type": "path", "max_depth": depth})
    estimator = mi.load_dict({"type": "warped_area", "max_depth": depth})
    differences, gradients = [], []
    for k in range(repeats):
        seed = dr.opaque(mi.UInt32, k)
        ends = []
        for sign in (1, -1):
            bound.apply(sign * step)
            ends.append(np.asarray(mi.render(loaded, integrator=primal, seed=seed, spp=512), dtype=np.float64))
        differences.append((ends[0] - ends[1]) / (2 * step))
        with bound.attached(forward=True):
            image = estimator.render_forward(loaded, bound.params, seed=seed + 1000, spp=256)
            gradients.append(np.asarray(image, dtype=np.float64))
    # Weights from the other half of the differences: noise in common would attenuate the slope
    f = np.array(differences)
    weights = np.stack([np.mean(np.delete(f, k, axis=0), axis=0) for k in range(repeats)])
    below = np.sum(f * weights, (1, 2, 3))
    above = np.sum(np.array(gradients) * np.mean(f, axis=0), (1, 2, 3))
    value = above.mean() / below.mean()
    spread = np.hypot(above.std(ddof=1) / above.mean(), below.std(ddof=1) / below.mean()) / np.sqrt(repeats)
    return float(value), float(abs(value * spread))


@pytest.mark.parametrize(
    ("kind", "motion", "step"),
    [("cube", "sensor.to_world rotate:y", 0.01), ("sphere", "shape.to_world translate:x", 0.02)],
)
def test_primary_visibility_is_within_five_percent_of_finite_differences(kind: str, motion: str, step: float) -> None:
    value, error = slope(glowing(kind), motion, step)
    assert error < 0.025
    assert abs(value - 1) < 0.05, f"{value:.3f} ± {error:.3f}"


def assert_adjoint(scene: mi.Scene, motion: str, **props: object) -> None:
    bound = Motion.parse(motion).bind(scene, mi.traverse(scene))
    integrator = mi.load_dict({"type": "warped_area", **props})
    adjoint = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)
    with bound.attached(forward=True):
        tangent = np.asarray(integrator.render_forward(scene, bound.params, seed=3, spp=32), dtype=np.float64)
    with bound.attached(forward=False) as theta:
        integrator.render_backward(scene, bound.params, mi.TensorXf(adjoint), seed=3, spp=32)
        dr.enqueue(dr.ADMode.Backward, *[bound.params[key] for key in set(bound.motion.keys)])
        dr.traverse(dr.ADMode.Backward)
        gradient = dr.grad(theta)[0]
    assert gradient == pytest.approx(float((tangent * adjoint).sum()), rel=1e-3)


def test_forward_and_backward_are_adjoint_when_object_and_camera_move() -> None:
    scene = mi.load_dict(glowing("cube"), optimize=False)
    assert_adjoint(scene, "shape.vertex_positions rotate:y + sensor.to_world translate:x", max_depth=1)


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


@pytest.mark.parametrize(
    ("name", "value"),
    [("warp_rays", 2), ("warp_pairs", 0), ("warp_width", 0.0), ("warp_share", -1.0), ("warp_depth", -1)],
)
def test_values_that_would_leave_rings_without_silhouettes_are_refused(name: str, value: float) -> None:
    with pytest.raises(Exception, match=f"{name} is {value}, .* expected"):
        mi.load_dict({"type": "warped_area", name: value})


def test_hidden_emitters_are_refused() -> None:
    with pytest.raises(UnsupportedGradient, match="hidden emitters"):
        moved(glowing("sphere"), max_depth=1, hide_emitters=True)


def test_shadows_that_are_left_out_are_announced() -> None:
    scene = glowing("sphere") | {"lamp": {"type": "point", "position": [0, 3, 1], "intensity": 5.0}}
    with pytest.warns(GradientWarning) as caught:
        moved(scene, max_depth=2, warp_depth=0)
    assert {w.message.code for w in caught if isinstance(w.message, GradientWarning)} == {"delta-shadow", "warp-depth"}


def announced(scene: dict, motion: str = "shape.to_world translate:x", **properties) -> dict[str, str]:
    """Codes and remedies of what is said before any sample of a derivative is drawn."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    integrator = mi.load_dict({"type": "warped_area"} | properties)
    with warnings.catch_warnings(record=True) as caught, bound.attached(forward=True):
        warnings.simplefilter("always")
        integrator.say_what_is_missing(loaded, loaded.sensors()[0])
    return {w.message.code: w.message.remedy for w in caught if isinstance(w.message, GradientWarning)}


def test_what_hybrid_adds_is_named_as_the_remedy() -> None:
    scene = glowing("sphere") | {"lamp": {"type": "point", "position": [0, 3, 1], "intensity": 5.0}}
    scene["wall"]["bsdf"] = {"type": "conductor"}
    scene["wall"]["to_world"] = T().scale(3)  # through the middle of the sphere
    found = announced(scene, max_depth=2)
    assert set(found) >= {"delta-shadow", "specular-visibility", "crossing"}
    assert all("hybrid" in found[code] for code in ("delta-shadow", "specular-visibility", "crossing"))
    assert not set(announced(scene, max_depth=2, hybrid=True)) & {"delta-shadow", "specular-visibility", "crossing"}
    deeper = announced(scene, max_depth=3, hybrid=True)
    assert "hybrid" not in deeper["delta-shadow"]


def under_a_lamp() -> dict:
    """A floor that the camera sees with the hard shadow of a cube, and the cube itself."""
    scene = glowing("cube", "box")
    del scene["shape"]["emitter"]
    scene["wall"] = {"type": "rectangle", "to_world": T().translate([0, -0.9, 0]).rotate([1, 0, 0], -90).scale(4)}
    return scene | {"lamp": {"type": "point", "position": [0.4, 4, 1], "intensity": 40.0}}


def test_forward_and_backward_of_hybrid_are_adjoint_when_occluder_and_camera_move() -> None:
    scene = mi.load_dict(under_a_lamp(), optimize=False)
    motion = "shape.vertex_positions translate:x + sensor.to_world translate:x"
    assert_adjoint(scene, motion, max_depth=2, hybrid=True)


@pytest.mark.slow
@pytest.mark.parametrize(
    "motion",
    ["shape.vertex_positions translate:x", "wall.to_world translate:y", "lamp.position translate:x",
     "sensor.to_world translate:x", "sensor.to_world rotate:y"],
)  # fmt: skip
def test_hybrid_follows_the_hard_shadow_whatever_moves(motion: str) -> None:
    """Each alone: the velocity of the shadow's edge relative to the film's is another in every one of them."""
    result = check(under_a_lamp(), motion, depth=2, hybrid=True)
    assert result.verdict is Verdict.PASS, result.reason


@pytest.mark.slow
@pytest.mark.parametrize(
    "case", ["shadow-spot-camera", "perfect-mirror-camera", "glass-block", "intersecting-bodies-camera"]
)
def test_hybrid_passes_what_a_warp_alone_leaves_out(case: str) -> None:
    (row,) = check_catalogue(case, "warped_area:hybrid=true", tolerance=0.05, budget=180).comparisons
    assert row.verdict is Verdict.PASS, row.reason
