"""Edge sampling: closed forms, finite differences with who moves alone, forward against backward, refusals."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators import GradientWarning, UnsupportedGradient

Motion = tuple[str, Callable[[Any, mi.Float], Any]]


def rgb(*value: float) -> dict[str, Any]:
    return {"type": "rgb", "value": list(value)}


def diffuse(*value: float) -> dict[str, Any]:
    return {"type": "twosided", "inner": {"type": "diffuse", "reflectance": rgb(*value)}}


def look(origin: list[float], target: list[float], up: list[float]) -> Any:
    return mi.ScalarTransform4f().look_at(origin, target, up)


def camera(size: int = 20, origin: tuple[float, ...] = (1, -4, 3), **more: Any) -> dict[str, Any]:
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "component_format": "float32"}
    film |= {"rfilter": {"type": "box"}} | more.pop("film", {})
    to_world = look(list(origin), [0, 0, 0.4], [0, 0, 1])
    return {"type": "perspective", "fov": 45, "to_world": to_world, "film": film, **more}


def translate(*axis: float) -> Callable[[Any, mi.Float], Any]:
    """A motion by θ along an axis, for transforms, points and vertex buffers."""

    def move(base: Any, θ: mi.Float) -> Any:
        v = mi.Vector3f(*axis) * θ
        if isinstance(base, mi.Float):
            return dr.ravel(mi.Point3f(dr.unravel(mi.Point3f, base) + v))
        if isinstance(base, mi.Point3f):
            return mi.Point3f(base + v)
        return mi.Transform4f().translate(v) @ mi.Transform4f(base)

    return move


def turn(*axis: float) -> Callable[[Any, mi.Float], Any]:
    """A rotation by θ radians about an axis through the origin."""

    def move(base: Any, θ: mi.Float) -> Any:
        rotation = mi.Transform4f().rotate(list(axis), θ * 180 / dr.pi)
        if isinstance(base, mi.Float):
            return dr.ravel(mi.Point3f(rotation @ dr.unravel(mi.Point3f, base)))
        return rotation @ mi.Transform4f(base)

    return move


class Subject:
    """A scene in which one parameter moves."""

    def __init__(self, scene: dict[str, Any], motion: Motion) -> None:
        self.scene = mi.load_dict({"type": "scene", **scene}, optimize=False)
        self.params = mi.traverse(self.scene)
        self.key, self.move = motion
        value = self.params[self.key]
        self.base = type(value)(value)

    def set(self, θ: mi.Float) -> None:
        self.params[self.key] = self.move(self.base, θ)
        self.params.update()

    def difference(
        self, depth: int, ε: float, passes: int, spp: int = 256, integrator: str = "path", **props: Any
    ) -> np.ndarray:
        """(passes, H, W, 3) central differences with equal seeds."""
        path = mi.load_dict({"type": integrator, "max_depth": depth, "rr_depth": 100, **props})
        sides = []
        for θ in (ε, -ε):
            self.set(mi.Float(θ))
            images = [mi.render(self.scene, integrator=path, seed=i, spp=spp) for i in range(passes)]
            sides.append(np.array(images, dtype=np.float64))
        self.set(mi.Float(0))
        return (sides[0] - sides[1]) / (2 * ε)

    def forward(self, passes: int, spp: int = 64, **props: Any) -> np.ndarray:
        """(passes, H, W, 3) derivative images."""
        integrator = mi.load_dict({"type": "edge_sampling", "rr_depth": 100, **props})
        images = []
        for i in range(passes):
            θ = mi.Float(0)
            dr.enable_grad(θ)
            self.set(θ)
            dr.forward(θ, dr.ADFlag.ClearEdges)
            images.append(np.array(integrator.render_forward(self.scene, self.params, seed=i, spp=spp)))
        self.set(mi.Float(0))
        return np.array(images, dtype=np.float64)

    def backward(self, grad: np.ndarray, seed: int = 0, spp: int = 64, **props: Any) -> float:
        """d<grad, image>/dθ."""
        integrator = mi.load_dict({"type": "edge_sampling", "rr_depth": 100, **props})
        θ = mi.Float(0)
        dr.enable_grad(θ)
        self.set(θ)
        integrator.render_backward(self.scene, self.params, mi.TensorXf(grad), seed=seed, spp=spp)
        result = dr.grad(θ)[0]
        self.set(mi.Float(0))
        return float(result)


def assert_slope_is_one(reference: np.ndarray, estimate: np.ndarray, tolerance: float = 0.03, blur: int = 4) -> None:
    """The regression slope of estimate on reference is 1, up to a tolerance and three of its standard errors.

    Both are given as independent replicates. The reference is averaged over blocks of pixels; noise in it biases the
    slope towards zero, so its norm is estimated without bias from pairs of different replicates.
    """
    block = lambda x: (
        x.reshape(len(x), x.shape[1] // blur, blur, x.shape[2] // blur, blur, 3).mean((2, 4)).reshape(len(x), -1)
    )
    f, g = block(reference), block(estimate)
    n = len(f)
    norm = ((f.sum(0) ** 2).sum() - (f**2).sum()) / (n * (n - 1))
    slopes = g @ f.mean(0) / norm
    error = slopes.std(ddof=1) / np.sqrt(len(slopes))
    from_reference = (f @ g.mean(0) / norm).std(ddof=1) / np.sqrt(n)
    assert error + from_reference < 0.03, "too noisy to judge"
    assert abs(slopes.mean() - 1) < tolerance + 3 * np.hypot(error, from_reference)


# ------------------------------------------------------------------------------------------------ closed forms


def emitter_before_nothing(**film: Any) -> dict[str, Any]:
    """A bright square, edges at x = ±0.33 and y = ±0.41, seen by an orthographic camera of pixel size 1/8."""
    size = {"width": 16, "height": 16, "rfilter": {"type": "box"}, "pixel_format": "rgb"} | film
    to_world = mi.ScalarTransform4f().look_at([0, 0, 3], [0, 0, 0], [0, 1, 0])
    square = mi.ScalarTransform4f().scale([0.33, 0.41, 1])
    return {
        "camera": {"type": "orthographic", "to_world": to_world, "film": {"type": "hdrfilm", **size}},
        "square": {"type": "rectangle", "to_world": square, "emitter": {"type": "area", "radiance": rgb(2, 3, 5)}},
    }


def test_a_sliding_bright_square_changes_pixels_by_the_length_of_its_edge_in_them() -> None:
    subject = Subject(emitter_before_nothing(), ("square.to_world", translate(1, 0, 0)))
    g = subject.forward(4, spp=16, max_depth=1).mean(0)[..., 1]
    rows = np.clip(0.41 * 8 - np.abs(np.arange(16) - 8 + 0.5) + 0.5, 0, 1)  # length of the edge in a row, in pixels
    expected = np.zeros((16, 16))
    # The camera looks against z with x to the left: column 5 holds x = 0.33 (2.64 pixels left of the middle)
    for column, sign in ((5, 1), (10, -1)):
        expected[:, column] = sign * 3 * 8 * rows
    if np.sum(g[:, 5]) < 0:
        expected = expected[:, ::-1]
    np.testing.assert_allclose(g, expected, atol=0.03 * 24)


@pytest.mark.parametrize("rfilter", ["box", "gaussian"])
@pytest.mark.parametrize("border", [False, True])
def test_growth_of_a_bright_square_is_its_perimeter_whatever_the_filter(rfilter: str, border: bool) -> None:
    film = {"rfilter": {"type": rfilter}, "sample_border": border}
    grow = lambda base, θ: mi.Transform4f(base) @ mi.Transform4f().scale([1 + θ, 1 + θ, 1])
    subject = Subject(emitter_before_nothing(**film), ("square.to_world", grow))
    total = subject.forward(2, spp=16, max_depth=1).mean(0)[..., 2].sum()
    assert total == pytest.approx(5 * 2 * (2 * 0.33 * 8) * (2 * 0.41 * 8), rel=0.01)


def test_a_crop_sees_the_same_derivative_as_the_whole_film() -> None:
    motion = ("square.to_world", translate(0.3, 1, 0))
    crop = {"crop_width": 7, "crop_height": 9, "crop_offset_x": 3, "crop_offset_y": 6}
    whole = Subject(emitter_before_nothing(), motion).forward(4, spp=32, max_depth=1).mean(0)
    part = Subject(emitter_before_nothing(**crop), motion).forward(4, spp=64, max_depth=1).mean(0)
    np.testing.assert_allclose(part, whole[6:15, 3:10], atol=0.04 * 40)


def test_coverage_has_the_derivative_of_the_outline() -> None:
    subject = Subject(emitter_before_nothing(pixel_format="rgba"), ("square.to_world", translate(1, 0, 0)))
    g = subject.forward(2, spp=16, max_depth=1).mean(0)
    np.testing.assert_allclose(g[..., 3] * 2, g[..., 0], atol=0.02 * 16)


# ------------------------------------------------------------------------------------- finite differences


def room(light: dict[str, Any], occluder: dict[str, Any], **more: Any) -> dict[str, Any]:
    floor = {"type": "rectangle", "to_world": mi.ScalarTransform4f().scale(2), "bsdf": diffuse(0.8, 0.8, 0.8)}
    return {"camera": camera(**more), "light": light, "occluder": occluder, "floor": floor}


def cube() -> dict[str, Any]:
    to_world = mi.ScalarTransform4f().translate([0, 0, 0.9]).rotate([0.6, 0.8, 0], 30).scale(0.35)
    return {"type": "cube", "to_world": to_world, "bsdf": diffuse(0.6, 0.4, 0.3)}


def ball() -> dict[str, Any]:
    return {"type": "sphere", "center": [0, 0, 0.9], "radius": 0.45, "bsdf": diffuse(0.6, 0.4, 0.3)}


def point_light() -> dict[str, Any]:
    return {"type": "point", "position": [0.8, 0.5, 3], "intensity": rgb(20, 20, 20)}


def area_light() -> dict[str, Any]:
    to_world = look([0.8, 0.5, 3], [0, 0, 0], [0, 1, 0]) @ mi.ScalarTransform4f().scale(0.4)
    return {"type": "rectangle", "to_world": to_world, "emitter": {"type": "area", "radiance": rgb(30, 30, 30)}}


def sun() -> dict[str, Any]:
    return {"type": "directional", "to_world": look([0.8, 0.5, 2], [0, 0, 0], [0, 1, 0]), "irradiance": rgb(2, 2, 2)}


LIGHTS = {"point": point_light, "area": area_light, "sun": sun}
OCCLUDERS = {"cube": cube, "ball": ball}


def mover(who: str, light: str, occluder: str) -> Motion:
    if who == "light":
        return {
            "point": ("light.position", translate(1, 0.3, 0)),
            "area": ("light.to_world", translate(1, 0.3, 0)),
            "sun": ("light.to_world", turn(0, 1, 0)),
        }[light]
    if who == "occluder":
        key = "occluder.vertex_positions" if occluder == "cube" else "occluder.to_world"
        return key, translate(1, 0.2, 0.4)
    return (f"{who}.to_world", translate(0, 0, 1))


@pytest.mark.parametrize("light", ["area", "sun", "sky"])
def test_shadow_rays_that_leave_the_scene_do_not_reach_the_film(light: str) -> None:
    """They have no film position; the box filter does not look at it, other filters do."""
    lamp = {"type": "constant"} if light == "sky" else LIGHTS[light]()
    film = {"rfilter": {"type": "gaussian"}}
    subject = Subject(room(lamp, cube(), film=film), mover("occluder", light, "cube"))
    image = subject.forward(1, spp=16, max_depth=3)
    assert np.isfinite(image).all() and np.any(image)


@pytest.mark.parametrize("who", ["occluder", "floor", "light", "camera"])
@pytest.mark.parametrize(("light", "occluder"), [("point", "cube"), ("sun", "ball"), ("area", "ball")])
def test_direct_light_has_the_slope_of_finite_differences(light: str, occluder: str, who: str) -> None:
    subject = Subject(room(LIGHTS[light](), OCCLUDERS[occluder]()), mover(who, light, occluder))
    reference = subject.difference(2, 1e-2, 12)
    assert_slope_is_one(reference, subject.forward(4, max_depth=2))


@pytest.mark.parametrize(
    "who", ["light", *(pytest.param(w, marks=pytest.mark.slow) for w in ("occluder", "wall", "camera"))]
)
def test_indirect_light_has_the_slope_of_finite_differences(who: str) -> None:
    scene = room(point_light(), cube())
    to_world = mi.ScalarTransform4f().translate([-1.5, 0, 1.6]).rotate([0, 1, 0], 90).scale(1.4)
    scene["wall"] = {"type": "rectangle", "to_world": to_world, "bsdf": diffuse(0.9, 0.8, 0.7)}
    motion = ("wall.to_world", translate(1, 0, 0)) if who == "wall" else mover(who, "point", "cube")
    subject = Subject(scene, motion)
    assert_slope_is_one(subject.difference(3, 1e-2, 16), subject.forward(8, max_depth=3))


@pytest.mark.parametrize("integrator", ["path_replay", "edge_sampling"])
def test_only_the_first_segment_looks_through_hidden_emitters(integrator: str) -> None:
    from integrators.boundary.stream import Stream

    subject = Subject(room(area_light(), ball(), size=8), mover("floor", "area", "ball"))
    estimator = mi.load_dict({"type": integrator, "max_depth": 3, "hide_emitters": True})
    lamp = next(e for e in subject.scene.emitters())
    y = lamp.get_shape().sample_position(0, mi.Point2f(0.5))
    ray = mi.Ray3f(y.p + y.n * 0.1, -y.n)
    numbers = Stream(1, mi.UInt32(0))
    seen = [estimator.radiance(subject.scene, numbers, mi.RayDifferential3f(ray), depth)[0] for depth in (0, 1)]
    bright = [float(np.max(np.array(L))) for L in seen]
    assert bright[1] > 10 * max(bright[0], 1e-3)


@pytest.mark.slow
def test_light_that_only_bounces_reveals_the_shadow_of_an_unseen_occluder() -> None:
    """The camera looks at a wall; what moves is behind it, between a light and the floor that lights the wall."""
    scene = room(area_light(), ball(), origin=(0.4, -3, 0.6), size=8)
    to_world = mi.ScalarTransform4f().translate([-1.2, 0, 1.3]).rotate([0, 1, 0], 90).scale(1.2)
    scene["wall"] = {"type": "rectangle", "to_world": to_world, "bsdf": diffuse(0.9, 0.8, 0.7)}
    scene["camera"]["to_world"] = look([-0.3, 0, 1.4], [-1.2, 0, 1.4], [0, 0, 1])
    subject = Subject(scene, mover("occluder", "area", "ball"))
    reference = subject.difference(3, 2e-2, 16, spp=16384)
    assert_slope_is_one(reference, subject.forward(16, max_depth=3, spp=16384))


SENSORS: dict[str, dict[str, Any]] = {
    "orthographic": {"type": "orthographic"},
    "thinlens": {"type": "thinlens", "aperture_radius": 0.2, "focus_distance": 4.0},
}


@pytest.mark.parametrize("kind", ["orthographic", "thinlens"])
@pytest.mark.parametrize("who", ["occluder", "camera"])
def test_other_cameras_have_the_slope_of_finite_differences(kind: str, who: str) -> None:
    scene = room(point_light(), cube())
    scene["camera"] |= SENSORS[kind]
    if kind == "orthographic":
        del scene["camera"]["fov"]
        scene["camera"]["to_world"] = scene["camera"]["to_world"] @ mi.ScalarTransform4f().scale([1.5, 1.5, 1])
    motion = mover(who, "point", "cube") if who == "occluder" else ("camera.to_world", translate(1, 0, 0.3))
    subject = Subject(scene, motion)
    assert_slope_is_one(subject.difference(2, 1e-2, 12), subject.forward(4, max_depth=2))


@pytest.mark.parametrize("kind", ["bsplinecurve", "linearcurve"])
def test_curves_and_their_shadows_have_the_slope_of_finite_differences(kind: str, tmp_path: Any) -> None:
    points = [
        (-1.2, -0.7, 0.8, 0.2),
        (-0.5, -0.3, 0.7, 0.25),
        (0, 0.4, 0.9, 0.2),
        (0.4, -0.2, 0.8, 0.2),
        (1, 0.4, 1, 0.3),
    ]
    (tmp_path / "curve.txt").write_text("\n".join(" ".join(map(str, point)) for point in points))
    curve = {"type": kind, "filename": str(tmp_path / "curve.txt"), "bsdf": {"type": "diffuse"}}
    move = lambda base, θ: dr.ravel(mi.Point4f(dr.unravel(mi.Point4f, base) + θ * mi.Vector4f(1, 0.3, 0.4, 0.2)))
    # The shading of a moving linear curve is not differentiated by Mitsuba: compare what the boundary alone explains
    black = {"type": "diffuse", "reflectance": rgb(0, 0, 0)}
    subject = Subject(room(sun(), curve | {"bsdf": black}), ("occluder.control_points", move))
    assert_slope_is_one(subject.difference(2, 1e-2, 12), subject.forward(4, max_depth=2))


@pytest.mark.parametrize("who", ["occluder", "camera"])
@pytest.mark.parametrize("texture", ["checkerboard", "nearest", "cut-out"])
def test_jumping_textures_have_the_slope_of_finite_differences(texture: str, who: str) -> None:
    texels = np.zeros((6, 6, 1), dtype=np.float32)
    texels[1:5, 1:3] = texels[2:4, 3:6] = 1
    bitmap = {"type": "bitmap", "data": mi.TensorXf(texels), "raw": True, "filter_type": "nearest"}
    bsdf = {
        "checkerboard": {"type": "diffuse", "reflectance": {"type": "checkerboard"}},
        "nearest": {"type": "diffuse", "reflectance": bitmap},
        "cut-out": {"type": "mask", "opacity": bitmap, "card": {"type": "diffuse"}},
    }[texture]
    to_world = mi.ScalarTransform4f().rotate([0, 0, 1], 20).scale(1.2)
    card = {"type": "rectangle", "to_world": to_world, "bsdf": bsdf}
    scene = {"camera": camera(), "light": {"type": "constant"}, "occluder": card}
    motion = (f"{who}.to_world", translate(1, 0.3, 0.2))
    subject = Subject(scene, motion)
    reference = subject.difference(3, 1e-2, 12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # shadows behind the mask, of which there are none here
        assert_slope_is_one(reference, subject.forward(4, max_depth=3))


def masked_card(opacity: np.ndarray, filter_type: str) -> dict[str, Any]:
    texels = mi.TensorXf(opacity.astype(np.float32)[..., None])
    opacity = {"type": "bitmap", "data": texels, "raw": True, "filter_type": filter_type}
    to_world = mi.ScalarTransform4f().translate([0, 0, 0.8]).rotate([0.6, 0.8, 0], 20).scale(0.6)
    bsdf = {"type": "mask", "opacity": opacity, "card": diffuse(0.6, 0.4, 0.3)}
    return {"type": "rectangle", "to_world": to_world, "bsdf": bsdf}


@pytest.mark.parametrize("who", ["occluder", "camera", "floor", "light"])
def test_shadows_seen_through_a_cut_out_have_the_slope_of_finite_differences(who: str) -> None:
    opacity = np.zeros((6, 6))
    opacity[1:5, 1:3] = opacity[2:4, 3:6] = 1
    subject = Subject(room(point_light(), masked_card(opacity, "nearest")), mover(who, "point", "card"))
    # Mitsuba's own path tracer counts the opacity of a mask twice
    reference = subject.difference(3, 1e-2, 12, integrator="path_replay")
    assert_slope_is_one(reference, subject.forward(4, max_depth=3))


@pytest.mark.parametrize("who", ["camera", "floor"])
def test_what_lies_behind_a_half_transparent_surface_slides_along_the_camera_ray(who: str) -> None:
    rng = np.random.default_rng(1)
    scene = room({"type": "constant"}, masked_card(0.1 + 0.8 * rng.random((6, 6)), "bilinear"))
    texels = mi.TensorXf(rng.random((6, 6, 3)).astype(np.float32))
    scene["floor"]["bsdf"] = {"type": "diffuse", "reflectance": {"type": "bitmap", "data": texels, "raw": True}}
    subject = Subject(scene, (f"{who}.to_world", translate(1, 0.3, 0.2)))
    reference = subject.difference(2, 1e-2, 12, integrator="path_replay")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)  # shadows of the mask, which do not reach depth 2
        assert_slope_is_one(reference, subject.forward(4, max_depth=2))


def test_soft_shadows_of_a_mask_are_warned_of() -> None:
    scene = room(area_light(), masked_card(np.eye(6), "nearest"), size=8)
    with pytest.warns(GradientWarning) as caught:
        Subject(scene, mover("floor", "area", "card")).forward(1, max_depth=2)
    assert {w.message.code for w in caught} == {"mask-shadow"}  # type: ignore[union-attr]


def rough_ball(size: int = 128) -> mi.Mesh:
    """A sphere whose vertices are off by a thousandth of its radius: its outline is full of hidden folds."""
    rng = np.random.default_rng(2)
    θ, φ = np.meshgrid(np.linspace(0, np.pi, size), np.linspace(0, 2 * np.pi, 2 * size, endpoint=False), indexing="ij")
    θ[1:-1] += rng.normal(0, 0.2 * np.pi / size, θ[1:-1].shape)
    r = 0.45 * (1 + rng.normal(0, 1e-3, θ.shape))
    r[0], r[-1] = 0.45, 0.45
    points = np.stack([r * np.sin(θ) * np.cos(φ), r * np.sin(θ) * np.sin(φ), r * np.cos(θ) + 0.9], axis=-1)
    i, j = np.meshgrid(np.arange(size - 1), np.arange(2 * size), indexing="ij")
    at = lambda a, b: (a * 2 * size + b % (2 * size)).ravel()
    quad = [at(i, j), at(i + 1, j), at(i + 1, j + 1), at(i, j + 1)]
    faces = np.concatenate([np.stack([quad[0], quad[1], quad[2]], 1), np.stack([quad[0], quad[2], quad[3]], 1)])
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(diffuse(0.6, 0.4, 0.3))
    mesh = mi.Mesh("ball", size * 2 * size, len(faces), has_vertex_normals=True, props=properties)
    parameters = mi.traverse(mesh)
    parameters["vertex_positions"] = points.astype(np.float32).ravel()
    parameters["faces"] = faces.astype(np.uint32).ravel()
    parameters.update()
    return mesh


@pytest.mark.parametrize("who", ["camera", pytest.param("floor", marks=pytest.mark.slow)])
def test_an_outline_full_of_folds_counts_once(who: str) -> None:
    subject = Subject(room(sun(), rough_ball()), (f"{who}.to_world", translate(1, 0.3, 0.4)))
    reference = subject.difference(2, 1e-2, 12)
    assert_slope_is_one(reference, subject.forward(4, max_depth=2))


def projector() -> dict[str, Any]:
    texels = mi.TensorXf(np.random.default_rng(4).random((4, 4, 3)).astype(np.float32))
    image = {"type": "bitmap", "data": texels, "raw": True}
    to_world = look([0.8, 0.5, 3], [0, 0, 0.3], [0, 1, 0])
    return {"type": "projector", "to_world": to_world, "irradiance": image, "fov": 40, "scale": 30}


def sky_map() -> dict[str, Any]:
    texels = np.random.default_rng(4).random((8, 16, 3)).astype(np.float32) * 0.5
    texels[2, 3] += 8
    to_world = mi.ScalarTransform4f().rotate([1, 0, 0], 90)
    return {"type": "envmap", "bitmap": mi.Bitmap(texels), "to_world": to_world}


@pytest.mark.parametrize(
    ("light", "key"),
    [
        ("projector", "light.to_world"),
        pytest.param("projector", "floor.to_world", marks=pytest.mark.slow),
        pytest.param("projector", "camera.to_world", marks=pytest.mark.slow),
        pytest.param("sky", "occluder.to_world", marks=pytest.mark.slow),
    ],
)
def test_images_as_lights_have_the_slope_of_finite_differences(light: str, key: str) -> None:
    """A projector's light ends at the frame of its image; an environment map is brighter here and there."""
    lights = {"projector": projector, "sky": sky_map}
    subject = Subject(room(lights[light](), ball()), (key, translate(1, 0.3, 0.4)))
    reference = subject.difference(2, 1e-2, 16)
    assert_slope_is_one(reference, subject.forward(8, spp=128 if light == "sky" else 64, max_depth=2))


def test_an_edge_across_a_seam_counts_once() -> None:
    """Mitsuba's cube (24 vertices) and the same cube with eight have the same derivative."""
    corners = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], dtype=np.float32) * 0.5
    quads = [(0, 2, 3, 1), (4, 5, 7, 6), (0, 1, 5, 4), (2, 6, 7, 3), (0, 4, 6, 2), (1, 3, 7, 5)]
    faces = np.array([t for a, b, c, d in quads for t in ((a, b, c), (a, c, d))])
    properties = mi.Properties()
    properties["mesh_bsdf"] = mi.load_dict(diffuse(0.6, 0.4, 0.3))
    welded = mi.Mesh("welded", 8, 12, props=properties)
    welded_params = mi.traverse(welded)
    welded_params["vertex_positions"] = corners.ravel()
    welded_params["faces"] = faces.ravel()
    welded_params.update()
    seamed = {"type": "cube", "to_world": mi.ScalarTransform4f().scale(0.5), "bsdf": diffuse(0.6, 0.4, 0.3)}
    images = []
    for shape in (welded, seamed):
        scene = {"camera": camera(), "sky": {"type": "constant"}, "shape": shape}
        key = "shape.vertex_positions"
        subject = Subject(scene, (key, translate(0, 0, 1)))
        images.append(subject.forward(4, max_depth=2, interior=False).mean(0))
    difference = np.abs(images[0] - images[1]).sum()
    assert difference < 0.05 * np.abs(images[0]).sum()


# ------------------------------------------------------------------------------- forward against backward


@pytest.mark.parametrize("who", ["occluder", "floor", "light", "camera"])
def test_backward_is_the_transpose_of_forward(who: str) -> None:
    subject = Subject(room(area_light(), ball(), size=8), mover(who, "area", "ball"))
    grad = np.random.default_rng(3).normal(size=(8, 8, 3)).astype(np.float32)
    forward = float((subject.forward(1, max_depth=4)[0] * grad).sum())
    assert subject.backward(grad, max_depth=4) == pytest.approx(forward, rel=2e-3, abs=0.05)


def test_render_differentiates_several_parameters_at_once() -> None:
    subject = Subject(room(point_light(), cube(), size=8), mover("light", "point", "cube"))
    integrator = mi.load_dict({"type": "edge_sampling", "max_depth": 3})
    params = subject.params
    keys = {"light.position": translate(1, 0.3, 0), "occluder.vertex_positions": translate(0, 1, 0)}
    θ = {key: mi.Float(0) for key in keys}
    base = {key: type(params[key])(params[key]) for key in keys}
    for key, move in keys.items():
        dr.enable_grad(θ[key])
        params[key] = move(base[key], θ[key])
    params.update()
    image = mi.render(subject.scene, params, integrator=integrator, spp=32, seed=5, seed_grad=6)
    dr.backward(dr.sum(image * image, axis=None))
    together = {key: dr.grad(θ[key])[0] for key in keys}
    for key, value in base.items():
        params[key] = value
    params.update()
    for key, move in keys.items():
        one = Subject(room(point_light(), cube(), size=8), (key, move))
        alone = one.backward(2 * np.array(dr.detach(image)), seed=6, spp=32, max_depth=3)
        assert together[key] == pytest.approx(alone, rel=1e-2)


# --------------------------------------------------------------------------------------- budgets and refusals


def test_boundary_terms_cost_nothing_while_nothing_moves() -> None:
    scale = lambda base, θ: base * (1 + θ)
    subject = Subject(room(point_light(), cube(), size=8), ("light.intensity.value", scale))
    g = subject.forward(1, max_depth=3)
    boundary = subject.forward(1, max_depth=3, interior=False)
    assert np.abs(boundary).max() == 0
    assert np.abs(g).max() > 0


def test_terms_can_be_switched_off_and_add_up() -> None:
    subject = Subject(room(point_light(), cube(), size=8), mover("occluder", "point", "cube"))
    names = ("interior", "primary", "shadow", "indirect")
    parts = [subject.forward(1, max_depth=3, **{n: n == name for n in names})[0] for name in names]
    np.testing.assert_allclose(sum(parts), subject.forward(1, max_depth=3)[0], atol=1e-3)


def field() -> dict[str, Any]:
    grid = np.fromfunction(lambda x, y, z, c: 0.3 - np.hypot(x - 1, y - 1), (3, 3, 3, 1))
    return {"type": "sdfgrid", "grid": mi.TensorXf(grid.astype(np.float32))}


def test_a_shape_without_known_silhouettes_is_refused() -> None:
    scene = room(point_light(), cube(), size=8)
    scene["field"] = field()
    subject = Subject(scene, mover("occluder", "point", "cube"))
    with pytest.raises(UnsupportedGradient, match="SDFGrid"):
        subject.forward(1, max_depth=2)
    subject = Subject(scene, ("light.intensity.value", lambda base, θ: base * (1 + θ)))
    assert np.abs(subject.forward(1, max_depth=2)).max() > 0


def test_a_mirror_is_warned_of() -> None:
    scene = room(point_light(), cube(), size=8)
    scene["floor"]["bsdf"] = {"type": "conductor"}
    subject = Subject(scene, mover("occluder", "point", "cube"))
    with pytest.warns(GradientWarning) as caught:
        subject.forward(1, max_depth=3)
    assert "specular-shadow" in {w.message.code for w in caught}  # type: ignore[union-attr]


def test_different_seeds_give_independent_estimates() -> None:
    subject = Subject(room(area_light(), ball(), size=8), mover("occluder", "area", "ball"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        g = subject.forward(8, spp=8, max_depth=2, interior=False)
    spread = g.std(axis=0).sum() / np.abs(g.mean(0)).sum()
    halves = np.abs(g[:4].mean(0) - g[4:].mean(0)).sum() / np.abs(g.mean(0)).sum()
    assert 0 < halves < 2 * spread


def test_other_live_scenes_do_not_enter() -> None:
    """Dr.Jit's virtual calls look at every shape of the process, also at curves, which cannot be sampled as lights."""
    subject = Subject(room(area_light(), ball(), size=8), mover("floor", "area", "ball"))
    alone = subject.forward(1, max_depth=3)
    other = Subject(room(sun(), field(), size=8), mover("floor", "sun", "ball"))
    np.testing.assert_allclose(subject.forward(1, max_depth=3), alone, atol=1e-4)
    attached = mi.Float(0)
    dr.enable_grad(attached)
    other.set(attached)
    with pytest.raises(UnsupportedGradient, match="another one alive"):
        subject.forward(1, max_depth=3)
    other.set(mi.Float(0))
    np.testing.assert_allclose(subject.forward(1, max_depth=3), alone, atol=1e-4)
