"""The warped-area estimator against finite differences and its own identities, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import warnings

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.derivatives import derivative_image

from integrators import UnsupportedGradient
from integrators.contours import Contours
from integrators.errors import GradientWarning
from integrators.warp import Kernel, direction_score, film_field, ring_centres
from integrators.warped_film import FilmLines, FilmPoints, PixelLevel
from pathtracer.verify import check_catalogue
from pathtracer.verify.check import compare
from pathtracer.verify.comparison import Settings
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion
from pathtracer.verify.reference import Reference
from pathtracer.verify.statistics import Verdict

# Blocks of a tiny image hold a few silhouette pixels each: their margin is relative to the strongest block
SETTINGS = Settings(tolerance=0.05, block_tolerance=0.15, budget=600, spp=256, reference_spp=512, blocks=2, looks=6)


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
    """(W5) holds for every number of auxiliary rays, extrapolated or not."""
    for rays, debias, even in ((3, False, False), (6, False, False), (6, True, False), (6, False, True)):
        kernel = Kernel(rays=rays, debias=debias)
        lanes = 200_000
        rings = kernel.rings(lanes, dr.arange(mi.UInt32, lanes), even)
        x = rings.centre
        velocity = mi.Vector2f(2 * x.x + x.y, 3 * x.y - x.x)
        mean, divergence = kernel.mean(rings, rings.slope * rings.centre, velocity)
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - 5) < 4 * error < 0.1
        assert np.isfinite(np.asarray(mean)).all()


def test_centres_for_the_velocity_alone_have_the_same_density_and_equal_weights() -> None:
    lanes = 200_000
    moments = []
    for even in (False, True):
        rings = Kernel(rays=6).rings(lanes, dr.arange(mi.UInt32, lanes), even)
        r, share = np.asarray(dr.norm(rings.centre), dtype=np.float64), np.asarray(rings.share, dtype=np.float64)
        moments.append([np.mean(share * r**k) for k in (0, 1, 2, 4)])
        assert (np.ptp(share) == 0) == even
    exact = [15 * (2 / 3 / (k + 2) - 1 / (k + 3) + 1 / 3 / (k + 5)) for k in (0, 1, 2, 4)]
    np.testing.assert_allclose(moments, [exact, exact], rtol=0.01)


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


def test_no_sample_outweighs_all_others_where_rays_meet_the_next_face_at_an_edge() -> None:
    """Seed 1020 has a ray that starts on an edge of the cube and meets it at no distance; it gave 3000."""
    assert np.abs(derivative_image("mesh-closed-turns", "warped_area", 256, 1020)).max() < 10


def test_divergence_on_directions_counts_the_turning_tangent_plane() -> None:
    """The part of a constant vector a across ω has the divergence −2 a·ω; a rotation has none."""
    lanes, radius = 200_000, 0.05
    rings = Kernel(rays=6).rings(lanes, dr.arange(mi.UInt32, lanes))
    d, a = dr.normalize(mi.Vector3f(0.3, -0.5, 0.8)), mi.Vector3f(1, 2, -0.5)
    centre = ring_centres(d, radius, rings)
    score = direction_score(d, centre, radius, rings)
    for velocity, exact in ((a - centre * dr.dot(a, centre), -2 * dr.dot(a, d)[0]), (dr.cross(a, centre), 0.0)):
        _, divergence = Kernel(rays=6).mean(rings, score, mi.Vector3f(velocity))
        values = np.asarray(divergence, dtype=np.float64)
        error = values.std() / np.sqrt(lanes)
        assert abs(values.mean() - exact) < 4 * error + 2e-3 * abs(exact) + 5e-4


def test_field_of_parallel_rays_is_finite_beside_an_infinite_background() -> None:
    scene = glowing("cube")
    scene["sensor"]["type"] = "orthographic"
    del scene["sensor"]["fov"], scene["wall"]
    scene["sky"] = {"type": "constant"}
    points = np.array([[1.0, 1.0], [6.0, 6.0]])
    assert np.isfinite(field_at(scene, "sensor.to_world rotate:y", points, 200, 0.5)).all()


def test_a_straight_edge_through_the_middle_always_has_ring_points_on_both_sides() -> None:
    rings = Kernel(rays=6).rings(50_000, dr.arange(mi.UInt32, 50_000))
    x = dr.gather(mi.Vector2f, rings.centre, rings.ring) + rings.offset
    for angle in np.linspace(0, np.pi, 7):
        side = np.asarray(x.x * np.cos(angle) + x.y * np.sin(angle)) > 0
        found = side.reshape(-1, rings.size)
        assert (found.any(axis=1) & ~found.all(axis=1)).all()


def field_at(scene: dict, motion: str, points: np.ndarray, copies: int, width: float, **kernel) -> np.ndarray:
    """Mean film velocity of the warp at film positions (n, 2), pixels per unit of the motion."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    sensor = loaded.sensors()[0]
    u = np.repeat(points, copies, axis=0).astype(np.float32)
    with bound.attached(forward=True):
        contours = Contours(loaded)
        contours.refresh()
        place = FilmPoints(mi.Point2f(u.T), mi.Float(0), mi.Float(0), mi.Point2f(0.5))
        seed = dr.arange(mi.UInt32, len(u))
        shift, _ = film_field(loaded, contours, Kernel(**{"rays": 6} | kernel), mi.Float(width), seed, sensor, place)
        tangent = dr.forward_to(shift, flags=dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad)
        return np.asarray(tangent, dtype=np.float64).T.reshape(len(points), copies, 2).mean(axis=1)


def limb(radius: float, distance: float, pixels: float, fov: float, n: int) -> tuple[np.ndarray, float]:
    """Film positions on the limb of a centred sphere, and the limb's radius in pixels."""
    r = np.tan(np.arcsin(radius / distance)) / np.tan(np.radians(fov / 2)) * pixels / 2
    angles = 2 * np.pi * np.arange(n) / n
    return pixels / 2 + r * np.stack([np.cos(angles), np.sin(angles)], axis=1), r


def facing() -> dict:
    """A sphere of radius 0.8 at distance 4, its limb a circle in the middle of the film."""
    scene = glowing("sphere")
    scene["sensor"]["to_world"] = T().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])
    scene["wall"]["to_world"] = T().translate([0, 0, -2]).scale(8)
    scene["shape"] = {"type": "sphere", "radius": 0.8}
    return scene


def test_field_on_the_limb_of_a_sphere_converges_to_the_closed_form_with_the_square_of_the_width() -> None:
    """The limb of a growing sphere moves by d/dR [f tan asin(R/D)] = f D² (D² − R²)^(−3/2) pixels per unit."""
    R, D, n = 0.8, 4.0, 16
    points, r = limb(R, D, 12, 40, n)
    focal = 6 / np.tan(np.radians(20))
    exact = focal * D**2 / (D**2 - R**2) ** 1.5 * R  # θ is relative growth
    out = (points - 6) / r
    errors = []
    for width in (1.0, 0.5):
        v = (field_at(facing(), "shape.to_world scale", points, 4000, width) * out).sum(axis=1)
        errors.append(v.mean() / exact - 1)
    assert abs(errors[1]) < 0.02
    assert abs(errors[1]) < 0.5 * abs(errors[0])


@pytest.mark.parametrize("turn", ["rotate:y", "rotate:z"])
def test_a_sphere_that_turns_about_itself_does_not_move_its_limb(turn: str) -> None:
    points, r = limb(0.8, 4.0, 12, 40, 8)
    v = field_at(facing(), f"shape.to_world {turn}", points, 1000, 0.25)
    out = (points - 6) / r
    assert np.abs((v * out).sum(axis=1)).max() < 1e-3 * r


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
