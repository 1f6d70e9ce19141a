"""The interior derivative of path replay against finite differences and closed forms, forward and backward."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest
from helpers.derivatives import derivative_image

from integrators import UnsupportedGradient
from integrators.errors import GradientWarning
from pathtracer.verify.check import compare
from pathtracer.verify.comparison import Settings
from pathtracer.verify.motion import Motion
from pathtracer.verify.reference import Reference
from pathtracer.verify.statistics import Verdict

SETTINGS = Settings(budget=40, spp=32, reference_spp=64)


def T() -> mi.ScalarTransform4f:
    """The identity, to chain transforms on."""
    return mi.ScalarTransform4f()


def noise(low: float, high: float, shape: tuple[int, ...], seed: int = 1) -> mi.Bitmap:
    return mi.Bitmap((low + (high - low) * np.random.default_rng(seed).random(shape)).astype(np.float32))


def smooth_sky() -> mi.Bitmap:
    """An environment without kinks, (32, 64, 3), so that finite differences may take large steps."""
    v, u = np.meshgrid(np.linspace(0, np.pi, 32), np.linspace(0, 2 * np.pi, 64, endpoint=False), indexing="ij")
    return mi.Bitmap(np.stack([1.1 + np.sin(v) * np.cos(u + k) for k in range(3)], axis=-1).astype(np.float32))


def texture(low: float = 0.2, high: float = 0.8) -> dict:
    return {"type": "bitmap", "bitmap": noise(low, high, (4, 4, 3)), "raw": True}


def camera(size: int = 12, **properties) -> dict:
    film = {"type": "hdrfilm", "width": size, "height": size, "pixel_format": "rgb", "component_format": "float32"}
    look = T().look_at([0, -0.5, 4], [0, 0, 0], [0, 1, 0])
    film |= {"rfilter": {"type": properties.pop("rfilter", "box")}}
    return {"type": "perspective", "fov": 35, "film": film, "to_world": look} | properties


def light(kind: str) -> dict:
    """A light that the camera does not see."""
    area = {"type": "area", "radiance": 10.0}
    return {
        "point": {"type": "point", "position": [0.5, 0.7, 2.0], "intensity": 8.0},
        "spot": {
            "type": "spot", "intensity": 8.0, "cutoff_angle": 60, "beam_width": 20,
            "to_world": T().look_at([0.5, 0.7, 2.0], [0, 0, 0], [0, 1, 0]),
        },
        "directional": {"type": "directional", "direction": [0.3, 0.2, -1]},
        "rectangle": {
            "type": "rectangle", "emitter": area,
            "to_world": T().translate([2.5, 1.5, 3.5]).rotate([1, 0, 0], 180).scale(0.5),
        },
        "sphere": {"type": "sphere", "center": [2.5, 1.5, 3.5], "radius": 0.5, "emitter": area},
        "constant": {"type": "constant", "radiance": 0.5},
        "envmap": {"type": "envmap", "bitmap": smooth_sky()},
    }[kind]  # fmt: skip


def wall_scene(kind: str = "point", **more) -> dict:
    """A textured wall that fills the view and a light in front of it: nothing is discontinuous."""
    wall = {"type": "rectangle", "to_world": T().scale(4), "bsdf": {"type": "diffuse", "reflectance": texture()}}
    return {"type": "scene", "sensor": camera(), "wall": wall, "light": light(kind)} | more


def smooth_wall() -> dict:
    """The front of a cube, which has vertex normals."""
    return {
        "type": "cube",
        "to_world": T().translate([0, 0, -4]).scale(4),
        "bsdf": {"type": "roughconductor", "alpha": 0.4},
    }


def ball_scene(bsdf: dict) -> dict:
    """A ball of the material under test in front of a textured wall, lit by an area light and the environment."""
    wall = {"type": "rectangle", "to_world": T().translate([0, 0, -2]).scale(6)}
    return {
        "type": "scene", "sensor": camera(), "ball": {"type": "sphere", "bsdf": bsdf},
        "wall": wall | {"bsdf": {"type": "diffuse", "reflectance": texture()}},
        "light": {
            "type": "rectangle", "to_world": T().translate([1, 2, 3]).rotate([1, 0, 0], 150),
            "emitter": {"type": "area", "radiance": 6.0},
        },
        "sky": {"type": "constant", "radiance": 0.3},
    }  # fmt: skip


def mirror_scene(bsdf: dict) -> dict:
    """A textured wall behind the camera, seen in a specular surface that fills the view."""
    wall = {"type": "rectangle", "to_world": T().translate([4, 0, 6]).rotate([0, 1, 0], 200).scale(12)}
    return {
        "type": "scene", "sensor": camera(fov=20),
        "mirror": {"type": "rectangle", "to_world": T().rotate([0, 1, 0], 20).scale(3), "bsdf": bsdf},
        "wall": wall | {"bsdf": {"type": "diffuse", "reflectance": texture()}},
        "light": {"type": "point", "position": [1, 0.7, 4.0], "intensity": 18.0},
    }  # fmt: skip


def check(scene: dict, motion: str, depth: int = 3, settings: Settings = SETTINGS, **properties):
    """Compare path_replay with finite differences of `path` along one motion."""
    loaded = mi.load_dict(scene, optimize=False)
    bound = Motion.parse(motion).bind(loaded, mi.traverse(loaded))
    base = mi.load_dict({"type": "path", "max_depth": depth})
    estimator = mi.load_dict({"type": "path_replay", "max_depth": depth} | properties)
    reference = Reference(bound, loaded.sensors()[0], base)
    return compare(bound, loaded.sensors()[0], estimator, "path_replay", reference, settings)


def rgb(*values: float) -> dict:
    return {"type": "rgb", "value": list(values)}


MOTIONS = {
    "camera over a wall, point light": (lambda: wall_scene(), "sensor.to_world translate:x"),
    "camera turning": (lambda: wall_scene(), "sensor.to_world rotate:z"),
    "point light": (lambda: wall_scene(), "light.position translate:z"),
    "spot light turning": (lambda: wall_scene("spot"), "light.to_world rotate:x"),
    "directional light turning": (lambda: wall_scene("directional"), "light.to_world rotate:x"),
    "receiver out of its plane": (lambda: wall_scene(), "wall.to_world translate:z"),
    "area light": (lambda: wall_scene("rectangle"), "light.to_world translate:x"),
    "sphere light": (lambda: wall_scene("sphere"), "light.to_world translate:z"),
    "environment turning": (lambda: wall_scene("envmap"), "light.to_world rotate:y"),
    "camera before the sky": (
        lambda: {"type": "scene", "sensor": camera(), "light": light("envmap")},
        "sensor.to_world rotate:y",
    ),
    "vertex normals": (lambda: wall_scene(wall=smooth_wall()), "wall.vertex_normals random"),
}


@pytest.mark.parametrize("name", MOTIONS)
def test_motion_without_discontinuities_agrees_with_finite_differences(name: str) -> None:
    scene, motion = MOTIONS[name]
    result = check(scene(), motion)
    assert result.verdict is Verdict.PASS, result.reason


SPECULAR = {
    "mirror turning": ({"type": "conductor"}, "mirror.to_world rotate:y"),
    "camera before a mirror": ({"type": "conductor"}, "sensor.to_world translate:x"),
    "what a mirror shows": ({"type": "conductor"}, "wall.to_world translate:x"),
}


@pytest.mark.parametrize("name", SPECULAR)
def test_motion_seen_in_a_perfect_mirror_agrees_with_finite_differences(name: str) -> None:
    bsdf, motion = SPECULAR[name]
    result = check(mirror_scene(bsdf), motion)
    assert result.verdict is Verdict.PASS, result.reason
    assert any("specular-motion" in note for note in result.notes)  # caustics are not followed, and it says so


LOBES = {
    "conductor reflectance": (
        {"type": "conductor", "specular_reflectance": rgb(0.7, 0.7, 0.7)}, "specular_reflectance.value"),
    "dielectric transmittance": (
        {"type": "dielectric", "specular_transmittance": rgb(0.7, 0.7, 0.7)}, "specular_transmittance.value"),
    "plastic coat": (
        {"type": "plastic", "diffuse_reflectance": rgb(0.3, 0.2, 0.1), "specular_reflectance": rgb(0.7, 0.7, 0.7)},
        "specular_reflectance.value"),
    "mask opacity": (
        {"type": "mask", "opacity": 0.4, "nested": {"type": "diffuse", "reflectance": rgb(0.5, 0.2, 0.1)}},
        "opacity.value"),
}  # fmt: skip


@pytest.mark.parametrize("name", [pytest.param(n, marks=pytest.mark.slow) if "plastic" in n else n for n in LOBES])
def test_delta_and_null_lobes_agree_with_finite_differences(name: str) -> None:
    bsdf, key = LOBES[name]
    settings = Settings(budget=40, spp=64, reference_spp=128, tolerance=0.05, block_tolerance=0.2)
    result = check(ball_scene(bsdf), f"ball.bsdf.{key}", depth=4, settings=settings)
    assert result.verdict is Verdict.PASS, result.reason


@pytest.mark.parametrize("around", ["nothing", "twosided", "mask"])
def test_share_of_a_mirror_in_a_blend_matches_its_closed_form(around: str) -> None:
    """A surface seen along its normal under a sky of 1, with the share 1 - w of a mirror R and w of a paint a.

    Mitsuba mixes value and density of the paint, a/π and 1/π, into the weight of the mirror's lobe, so that the surface
    shows L(w) = (1 - w) ((1 - w) R + w a/π) / ((1 - w) + w/π) + w a.
    """
    R, a, w, opacity = 0.9, 0.2, 0.4, 0.5

    def shown(w: float) -> float:
        return (1 - w) * ((1 - w) * R + w * a / np.pi) / ((1 - w) + w / np.pi) + w * a

    bsdf = {
        "type": "blendbsdf", "weight": w,
        "mirror": {"type": "conductor", "material": "none", "specular_reflectance": rgb(R, R, R)},
        "paint": {"type": "diffuse", "reflectance": rgb(a, a, a)},
    }  # fmt: skip
    wrapped = {
        "nothing": ("", bsdf),
        "twosided": (".brdf_0", {"type": "twosided", "nested": bsdf}),
        "mask": (".nested_bsdf", {"type": "mask", "opacity": opacity, "nested": bsdf}),
    }
    path, bsdf = wrapped[around]
    scene = mi.load_dict({
        "type": "scene", "sensor": camera(4, fov=1, to_world=T().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])),
        "wall": {"type": "rectangle", "bsdf": bsdf}, "sky": {"type": "constant", "radiance": 1.0},
    }, optimize=False)  # fmt: skip
    integrator = mi.load_dict({"type": "path_replay", "max_depth": 3})
    bound = Motion.parse(f"wall.bsdf{path}.weight.value").bind(scene, mi.traverse(scene))
    with bound.attached(forward=True):
        derivative = np.array(integrator.render_forward(scene, bound.params, seed=0, spp=4096))
    exact = (shown(w + 1e-4) - shown(w - 1e-4)) / 2e-4 * (opacity if around == "mask" else 1)
    assert np.mean(derivative) == pytest.approx(exact, rel=0.02)


def test_furnace_matches_its_closed_form() -> None:
    """Inside a cube that emits Le and reflects ρ, L = Le / (1 − ρ) and dL/dρ = Le / (1 − ρ)².

    (Mitsuba samples a sphere's light wrongly from points on it that rounding puts outside: up to 2 % on a GPU.)
    """
    rho, emitted = 0.5, 0.8
    scene = mi.load_dict({
        "type": "scene",
        "sensor": camera(4, to_world=T()),
        "ball": {
            "type": "cube", "flip_normals": True, "bsdf": {"type": "diffuse", "reflectance": rgb(rho, rho, rho)},
            "emitter": {"type": "area", "radiance": emitted},
        },
    })  # fmt: skip
    params = mi.traverse(scene)
    key = "ball.bsdf.reflectance.value"
    integrator = mi.load_dict({"type": "path_replay", "max_depth": 60, "rr_depth": 100})
    image = np.asarray(integrator.render(scene, seed=0, spp=64))
    assert np.mean(image) == pytest.approx(emitted / (1 - rho), rel=2e-3)

    dr.enable_grad(params[key])
    params.update()
    integrator.render_backward(scene, params, dr.full(mi.TensorXf, 1 / 16, (4, 4, 3)), seed=1, spp=64)
    assert np.allclose(np.asarray(dr.grad(params[key])).ravel(), emitted / (1 - rho) ** 2, rtol=2e-2)


def test_forward_and_backward_are_adjoint_when_everything_moves_at_once() -> None:
    scene = mi.load_dict(wall_scene("rectangle"), optimize=False)
    motion = "sensor.to_world translate:x + wall.to_world rotate:x + light.to_world translate:y"
    bound = Motion.parse(motion).bind(scene, mi.traverse(scene))
    integrator = mi.load_dict({"type": "path_replay", "max_depth": 3})
    adjoint = np.random.default_rng(0).random((12, 12, 3)).astype(np.float32)
    with bound.attached(forward=True):
        tangent = np.asarray(integrator.render_forward(scene, bound.params, seed=3, spp=32), dtype=np.float64)
    with bound.attached(forward=False) as theta:
        integrator.render_backward(scene, bound.params, mi.TensorXf(adjoint), seed=3, spp=32)
        moving = [bound.params[key] for key in set(bound.motion.keys)]
        dr.enqueue(dr.ADMode.Backward, *moving)
        dr.traverse(dr.ADMode.Backward)
        gradient = dr.grad(theta)[0]
    assert gradient == pytest.approx(float((tangent * adjoint).sum()), rel=1e-4)


def test_every_budget_is_its_own() -> None:
    scene = mi.load_dict(wall_scene(), optimize=False)
    integrator = mi.load_dict({"type": "path_replay", "primal_spp": 3, "interior_spp": 5})
    used = []
    prepare = integrator.prepare
    integrator.prepare = lambda sensor, seed, spp, aovs: used.append(spp) or prepare(sensor, seed, spp, aovs)
    params = mi.traverse(scene)
    key = "wall.bsdf.reflectance.data"
    dr.enable_grad(params[key])
    params.update()
    image = mi.render(scene, params, integrator=integrator, spp=64)
    dr.backward(dr.mean(image))
    assert used[-1] == 5 and set(used[:-1]) <= {3}
    assert np.isfinite(np.asarray(dr.grad(params[key]))).all()


def test_many_samples_are_split_into_launches() -> None:
    scene = mi.load_dict(wall_scene(), optimize=False)
    integrator = mi.load_dict({"type": "path_replay"})
    launches = integrator.passes(scene.sensors()[0], 7, 1500, image=True)
    assert [spp for _, spp in launches] == [500, 500, 500]
    assert launches[0][0] == 7 and len({int(np.asarray(seed).item()) for seed, _ in launches}) == 3
    assert integrator.passes(scene.sensors()[0], 7, 1500) == [(7, 1500)]  # a small derivative
    assert [spp for _, spp in integrator.passes(scene.sensors()[0], 7, 10000)] == [3334, 3334, 3334]


def test_several_launches_are_averaged_in_both_modes(monkeypatch) -> None:
    from integrators import base

    scene = mi.load_dict(wall_scene(), optimize=False)
    params = mi.traverse(scene)
    integrator = mi.load_dict({"type": "path_replay", "max_depth": 2})
    bound = Motion.parse("light.intensity.value").bind(scene, params)

    def derivatives() -> tuple[float, float]:
        with bound.attached(forward=True):
            forward = float(np.mean(np.array(integrator.render_forward(scene, params, seed=1, spp=64))))
        with bound.attached(forward=False) as theta:
            adjoint = dr.full(mi.TensorXf, 1 / (12 * 12 * 3), (12, 12, 3))
            integrator.render_backward(scene, params, adjoint, seed=1, spp=64)
            return forward, float(np.array(dr.grad(theta)).item())

    once = derivatives()
    monkeypatch.setattr(base, "PASS_SPP", 16)
    monkeypatch.setattr(base, "DERIVATIVE_SPP", 16)
    assert len(integrator.passes(scene.sensors()[0], 1, 64)) == 4
    # Only the place within the pixel is random, which the mean hardly notices
    np.testing.assert_allclose(derivatives(), once, rtol=0.01)


def test_no_sample_outweighs_all_others_at_the_limb_of_a_sphere() -> None:
    """Seed 903 has a ray that meets the sphere at a cosine of 2e-7; it gave 3 million, and its pixel 124."""
    assert np.abs(derivative_image("cropped-gaussian", "path_replay", 512, 903)).max() < 20


def test_a_single_kind_of_sample_is_dropped_and_counted_when_it_is_not_finite() -> None:
    pixels = np.full((4, 4, 3), 0.5, dtype=np.float32)
    scene_dict = wall_scene("constant")
    scene_dict["light"] = {"type": "envmap", "bitmap": mi.Bitmap(np.ones((4, 8, 3), dtype=np.float32))}
    scene_dict["wall"]["bsdf"]["reflectance"] = {"type": "bitmap", "bitmap": mi.Bitmap(pixels), "raw": True}
    scene = mi.load_dict(scene_dict, optimize=False)
    params = mi.traverse(scene)
    key = "wall.bsdf.reflectance.data"
    data = np.array(params[key])
    data[1, 2] = np.nan
    theta = mi.Float(0)
    dr.enable_grad(theta)
    params[key] = mi.TensorXf(data) + theta
    params.update()
    dr.forward(theta, dr.ADFlag.ClearEdges)
    integrator = mi.load_dict({"type": "path_replay", "max_depth": 2})
    derivative = np.asarray(integrator.render_forward(scene, params, seed=0, spp=16))
    assert np.isfinite(derivative).all()
    assert int(np.asarray(integrator.dropped).item()) > 0


def test_what_mitsuba_tabulates_is_refused_with_the_reason() -> None:
    scene = mi.load_dict(ball_scene({"type": "roughplastic", "alpha": 0.2}), optimize=False)
    params = mi.traverse(scene)
    dr.enable_grad(params["ball.bsdf.alpha"])
    params.update()
    with pytest.raises(UnsupportedGradient, match=r"ball\.bsdf\.alpha: Mitsuba tabulates"):
        mi.load_dict({"type": "path_replay"}).render_forward(scene, params, spp=1)


def test_motion_before_smooth_glass_warns_of_caustics() -> None:
    scene = mi.load_dict(mirror_scene({"type": "conductor"}), optimize=False)
    bound = Motion.parse("mirror.to_world translate:z").bind(scene, mi.traverse(scene))
    with bound.attached(forward=True), pytest.warns(GradientWarning, match="specular-motion"):
        mi.load_dict({"type": "path_replay"}).render_forward(scene, bound.params, spp=1)


def test_a_stock_mitsuba_script_renders_and_differentiates_from_xml(tmp_path, repository) -> None:
    (tmp_path / "scene.xml").write_text(
        textwrap.dedent("""
        <scene version="3.0.0">
            <integrator type="path_replay"><integer name="max_depth" value="3"/></integrator>
            <sensor type="perspective"><transform name="to_world"><lookat origin="0,0,4" target="0,0,0" up="0,1,0"/>
            </transform><film type="hdrfilm"><integer name="width" value="4"/><integer name="height" value="4"/></film>
            </sensor>
            <shape type="sphere" id="ball"><bsdf type="diffuse" id="clay"><rgb name="reflectance" value="0.5"/></bsdf>
            </shape>
            <emitter type="constant"/>
        </scene>""")
    )
    script = textwrap.dedent("""
        from pathtracer.runtime import activate
        activate()                      # finds LLVM; a stock script may set DRJIT_LIBLLVM_PATH instead
        import drjit as dr, mitsuba as mi, integrators
        integrators.register()
        scene = mi.load_file("scene.xml", optimize=False)
        params = mi.traverse(scene)
        key = next(k for k in params.keys() if k.endswith("reflectance.value"))
        dr.enable_grad(params[key]); params.update()
        dr.backward(dr.mean(mi.render(scene, params, spp=16)))
        assert dr.all(dr.grad(params[key]) > 0, axis=None)
        mi.set_variant("llvm_ad_mono" if "llvm" in mi.variant() else "cuda_ad_mono")
        assert "PathReplay" in str(mi.load_dict({"type": "path_replay"}))
        mi.set_variant(mi.variant().replace("mono", "spectral"))
        scene = mi.load_file("scene.xml", optimize=False)
        params = mi.traverse(scene)
        theta = mi.Float(0)
        dr.enable_grad(theta)
        params[key] = params[key] + theta
        params.update()
        dr.forward(theta, dr.ADFlag.ClearEdges)
        integrator = mi.load_dict({"type": "path_replay"})
        tangent = integrator.render_forward(scene, params, spp=4)
        assert dr.all(dr.sum(tangent, axis=2) > 0, axis=None)
        # takes integrators of the present variant only
        assert dr.all(dr.mean(mi.render(scene, integrator=integrator, spp=4)) > 0)
    """)
    environment = os.environ | {"PYTHONPATH": str(repository)}
    subprocess.run([sys.executable, "-c", script], cwd=tmp_path, check=True, timeout=120, env=environment)


@pytest.mark.parametrize("key", ["copy.to_world", "sun.to_world", "sun.sun_direction"])
def test_poses_that_mitsuba_does_not_track_are_refused(key: str) -> None:
    scene = mi.load_dict({
        "type": "scene", "sensor": camera(4), "sun": {"type": "sunsky", "sun_direction": [0.3, 0.4, 0.85]},
        "group": {"type": "shapegroup", "wall": {"type": "rectangle"}},
        "copy": {"type": "instance", "group": {"type": "ref", "id": "group"}},
    }, optimize=False)  # fmt: skip
    bound = Motion.parse(f"{key} {'value' if 'direction' in key else 'rotate:y'}").bind(scene, mi.traverse(scene))
    integrator = mi.load_dict({"type": "path_replay"})
    with bound.attached(forward=True), pytest.raises(UnsupportedGradient, match=key):
        integrator.render_forward(scene, bound.params, spp=1)


def test_an_instanced_mirror_has_its_derivative() -> None:
    """A mirror of reflectance R under a sky of 1 shows R: the derivative is one."""
    scene = mi.load_dict({
        "type": "scene", "sensor": camera(4, fov=1), "sky": {"type": "constant", "radiance": 1.0},
        "group": {
            "type": "shapegroup",
            "ball": {
                "type": "sphere",
                "bsdf": {"type": "conductor", "material": "none", "specular_reflectance": rgb(0.5, 0.5, 0.5)},
            },
        },
        "copy": {"type": "instance", "group": {"type": "ref", "id": "group"}},
    }, optimize=False)  # fmt: skip
    bound = Motion.parse("group.ball.bsdf.specular_reflectance.value").bind(scene, mi.traverse(scene))
    integrator = mi.load_dict({"type": "path_replay"})
    with bound.attached(forward=True):
        derivative = np.array(integrator.render_forward(scene, bound.params, spp=4))
    np.testing.assert_allclose(derivative, 1, rtol=1e-4)
