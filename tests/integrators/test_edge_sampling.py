"""Edge sampling: closed forms, forward against backward, budgets and refusals."""

from __future__ import annotations

import warnings
from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.moving_scenes import (
    LIGHTS,
    Subject,
    area_light,
    ball,
    camera,
    cube,
    diffuse,
    mover,
    point_light,
    rgb,
    room,
    sun,
    translate,
)

from integrators import GradientWarning, UnsupportedGradient

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


# ------------------------------------------------------------------------------- what counts, and what does not


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


@pytest.mark.parametrize("light", ["area", "sun", "sky"])
def test_shadow_rays_that_leave_the_scene_do_not_reach_the_film(light: str) -> None:
    """They have no film position; the box filter does not look at it, other filters do."""
    lamp = {"type": "constant"} if light == "sky" else LIGHTS[light]()
    film = {"rfilter": {"type": "gaussian"}}
    subject = Subject(room(lamp, cube(), film=film), mover("occluder", light, "cube"))
    image = subject.forward(1, spp=16, max_depth=3)
    assert np.isfinite(image).all() and np.any(image)


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
