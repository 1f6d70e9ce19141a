"""What is said about a parameter: what it is, its bounds, what its derivative needs, and who has it."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import numpy as np
import pytest

from integrators import ESTIMATORS, PHENOMENA
from pathtracer.errors import UsageError
from pathtracer.scenes import Scene, load_scene
from pathtracer.scenes.parameters import as_array


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("parameters")
    random = np.random.default_rng(0)
    mi.Bitmap(random.integers(0, 255, (4, 5, 3), dtype=np.uint8)).write(str(place / "wood.png"))
    mi.Bitmap(random.uniform(0, 1, (4, 8, 3)).astype(np.float16)).write(str(place / "half.exr"))
    mi.Bitmap(random.uniform(0.1, 1, (4, 8, 3)).astype(np.float32)).write(str(place / "sky.exr"))
    (place / "scene.xml").write_text(
        """<scene version="3.0.0">
    <integrator type="path"><integer name="max_depth" value="5"/><integer name="rr_depth" value="7"/></integrator>
    <sensor type="perspective" id="camera">
        <transform name="to_world"><lookat origin="0, 0, 12" target="0, 0, 0" up="0, 1, 0"/></transform>
        <film type="hdrfilm"><integer name="width" value="16"/>
        <integer name="height" value="8"/></film></sensor>
    <bsdf type="diffuse" id="unused"/>
    <texture type="bitmap" id="wood"><string name="filename" value="wood.png"/></texture>
    <shape type="cube" id="cube"><bsdf type="roughconductor"><float name="alpha" value="0.2"/></bsdf></shape>
    <shape type="rectangle"><bsdf type="diffuse"><ref id="wood" name="reflectance"/></bsdf>
        <transform name="to_world"><translate x="-3"/></transform></shape>
    <shape type="sphere" id="glass"><bsdf type="dielectric"/></shape>
    <shape type="sphere" id="frosted"><bsdf type="roughdielectric"/></shape>
    <shape type="rectangle"><bsdf type="diffuse"><texture type="bitmap" name="reflectance">
        <string name="filename" value="half.exr"/></texture></bsdf>
        <transform name="to_world"><translate x="3"/></transform></shape>
    <shape type="sphere"><bsdf type="diffuse"/></shape>
    <shape type="sphere" id="bulb"><emitter type="area"/></shape>
    <emitter type="point" id="lamp"/>
    <emitter type="directional" id="sun"/>
    <emitter type="envmap" id="sky"><string name="filename" value="sky.exr"/></emitter>
</scene>"""
    )
    return place


@pytest.fixture(scope="module")
def scene(folder: Path) -> Scene:
    return load_scene(folder / "scene.xml")


def test_keys_are_mitsubas_own_and_the_same_in_every_process(scene: Scene, folder: Path) -> None:
    stock = mi.traverse(mi.load_file(str(folder / "scene.xml"), optimize=False))
    # Objects without id are called after their memory address there, and a bitmap loses its id.
    named = {key for key in stock.keys() if not key.startswith("object_")}  # noqa: SIM118
    ours = [key for key in scene.params.keys() if not key.startswith(("rectangle", "sphere", "wood"))]  # noqa: SIM118
    assert named == set(ours)
    assert "rectangle.to_world" in scene.params and "rectangle_1.to_world" in scene.params
    assert "sphere.bsdf.reflectance.value" in scene.params and "wood.data" in scene.params


@pytest.mark.parametrize(
    ("key", "kind", "owner", "bounds", "space", "moves"),
    [
        ("wood.data", "texture", "bitmap", (0, 1), "logit", False),
        ("sky.data", "envmap", "envmap", (0, None), "log", False),
        ("sky.scale", "scalar", "envmap", (0, None), "log", False),
        ("cube.vertex_positions", "positions", "cube", (None, None), "large-steps", True),
        ("cube.vertex_normals", "normals", "cube", (None, None), "identity", False),
        ("cube.bsdf.alpha.value", "scalar", "roughconductor", (0.001, 1), "logit", False),
        ("frosted.bsdf.eta", "scalar", "roughdielectric", (1.0001, 4), "box", False),
        ("rectangle.to_world", "transform", "rectangle", (None, None), "pose", True),
        ("camera.to_world", "transform", "perspective", (None, None), "pose", True),
        ("camera.x_fov", "scalar", "perspective", (1, 179), "box", True),
        ("sun.to_world", "transform", "directional", (None, None), "direction", True),
        ("sky.to_world", "transform", "envmap", (None, None), "pose", False),
        ("lamp.position", "vector", "point", (None, None), "identity", True),
        ("lamp.intensity.value", "scalar", "point", (0, None), "log", False),
        ("bulb.emitter.radiance.value", "scalar", "area", (0, None), "log", False),
        ("sphere.bsdf.reflectance.value", "scalar", "diffuse", (0, 1), "logit", False),
    ],
)
def test_a_parameter_has_its_kind_bounds_and_space(
    scene: Scene, key: str, kind: str, owner: str, bounds: tuple[float | None, float | None], space: str, moves: bool
) -> None:
    info = scene.parameters()[key]
    assert (info.kind, info.owner, info.bounds, info.space) == (kind, owner, bounds, space)
    assert info.differentiable and info.discontinuous == moves
    assert info.needs >= {"interior"} and info.needs <= set(PHENOMENA)


def test_what_a_derivative_needs_follows_from_what_moves(scene: Scene) -> None:
    infos = scene.parameters()
    everything = {
        "interior",
        "primary",
        "indirect",
        "shadow-area",
        "shadow-delta",
        "shadow-environment",
        "specular-chain",
    }
    assert infos["cube.vertex_positions"].needs == everything
    assert infos["camera.to_world"].needs == {"interior", "camera", "specular-chain"}
    assert infos["lamp.position"].needs == {"interior", "shadow-delta"}
    assert infos["wood.data"].needs == {"interior"}


def test_every_estimator_answers_for_every_parameter(scene: Scene) -> None:
    for info in scene.parameters().values():
        answers = info.estimators()
        assert set(answers) == set(ESTIMATORS)
        for name, why in answers.items():
            if info.differentiable:
                assert bool(why) == bool(info.needs - ESTIMATORS[name].handles), (info.key, name, why)
    moved = scene.parameters()["cube.vertex_positions"].estimators()["path_replay"]
    assert moved.startswith("leaves out primary, shadow-area")


def test_what_cannot_be_differentiated_says_why(scene: Scene) -> None:
    infos = scene.parameters()
    for key, reason in {
        "glass.bsdf.eta": "smooth dielectric",
        "cube.faces": "indices",
        "camera.near_clip": "setting",
        "camera.film.size": "setting",
    }.items():
        assert not infos[key].differentiable and reason in infos[key].reason
        with pytest.raises(UsageError, match="cannot be differentiated") as caught:
            scene.make_differentiable(key)
        assert caught.value.exit_code == 2
    assert "nothing in the scene uses it" in infos["unused.reflectance.value"].note


def test_select_takes_keys_and_globs_and_names_the_nearest(scene: Scene) -> None:
    assert scene.select("lamp.position") == ["lamp.position"]
    assert scene.select("*.vertex_positions") == ["cube.vertex_positions"]
    with pytest.raises(UsageError, match=r"unknown parameter 'lamp\.positoin'; did you mean 'lamp\.position'"):
        scene.select("lamp.positoin")
    with pytest.raises(UsageError, match="glob that matches no parameter"):
        scene.select("nothing.*")


@pytest.mark.parametrize(("key", "bits"), [("wood.data", "8-bit"), ("rectangle_1.bsdf.reflectance.data", "16-bit")])
def test_textures_of_few_bits_become_float_without_changing_the_image(folder: Path, key: str, bits: str) -> None:
    scene = load_scene(folder / "scene.xml")
    scene.params["lamp.position"] = mi.Point3f(0, 0.5, 6)  # a changed value is carried over
    scene.params.update()
    before = scene.render(16, seed=3)
    assert scene.parameters()[key].stored == bits
    assert scene.make_differentiable(key) == key
    assert type(scene.params[key]) is mi.TensorXf and not scene.parameters()[key].stored
    assert scene.warnings == [f"{key}: the {bits} texture was reloaded as float"]
    assert before.mean() > 0.01
    np.testing.assert_allclose(scene.render(16, seed=3), before, atol=2e-3 * before.max())


def test_a_grey_value_becomes_a_colour_without_changing_the_image(folder: Path) -> None:
    scene = load_scene(folder / "scene.xml")
    before = scene.render(4, seed=1)
    for key in ("sphere.bsdf.reflectance.value", "bulb.emitter.radiance.value"):
        scene.make_color(key)
        assert as_array(scene.params[key]).shape == (3,) and scene.parameters()[key].kind == "color"
    np.testing.assert_allclose(scene.render(4, seed=1), before, rtol=1e-4, atol=1e-5)
    with pytest.raises(UsageError, match="which has no colour"):
        scene.make_color("cube.bsdf.alpha.value")


def test_render_averages_passes_and_estimators_inherit_the_depths(scene: Scene) -> None:
    image = scene.render(600, seed=2)
    assert image.shape == (8, 16, 3) and image.dtype == np.float32
    assert scene.default_integrator() == {"max_depth": 5, "rr_depth": 7, "hide_emitters": False}
    reference = scene.render(600, seed=9, integrator="path")
    assert abs(image.mean() - reference.mean()) < 0.02 * reference.mean()


def test_a_sensor_that_does_not_exist_is_named(scene: Scene) -> None:
    with pytest.raises(UsageError, match="sensor 3 does not exist: the scene has 1"):
        scene.sensor(3)


def test_the_bundled_cornell_box_has_the_parameters_that_it_promises(repository: Path) -> None:
    scene = load_scene(repository / "scenes" / "cornell-box" / "scene.xml", res=16, spp=4)
    assert not scene.warnings
    for key in ("red", "green", "white"):
        assert scene.parameters()[f"{key}.reflectance.value"].kind == "color"
    assert scene.parameters()["light.emitter.radiance.value"].bounds == (0, None)
    image = scene.render(16)
    assert image.shape == (16, 16, 3) and 0.05 < image.mean() < 1
