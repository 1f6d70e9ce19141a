"""Recovered values come back in the user's own XML, and stock Mitsuba shows the same image."""

from __future__ import annotations

from pathlib import Path

import mitsuba as mi
import numpy as np
import pytest
from lxml import etree

from pathtracer.errors import InputError, UsageError
from pathtracer.scenes import Scene, load_scene
from pathtracer.scenes.export import export_scene, verify_export
from pathtracer.scenes.parameters import as_array

#: One object of every kind that can be written back, all of them in view and lit.
EVERYTHING = """<?xml version="1.0" encoding="utf-8"?>
<!-- first comment -->
<scene version="3.0.0">
    <default name="res" value="24"/>
    <default name="level" value="0.6"/>
    <integrator type="path">
        <integer name="max_depth" value="4"/>
    </integrator>
    <sensor type="perspective" id="camera">
        <string name="focal_length" value="50mm"/>
        <transform name="to_world">
            <lookat origin="0, 1, 9" target="0, 0, 0" up="0, 1, 0"/>
        </transform>
        <film type="hdrfilm">
            <integer name="width" value="$res"/>
            <integer name="height" value="$res"/>
            <rfilter type="box"/>
        </film>
    </sensor>
    <include filename="parts/materials.xml"/>
    <texture type="bitmap" id="wood">
        <string name="filename" value="wood.png"/>
    </texture>
    <!-- the floor -->
    <shape type="rectangle">
        <transform name="to_world">
            <rotate x="1" angle="-90"/>
            <scale value="6"/>
            <translate y="-1.5"/>
        </transform>
        <bsdf type="diffuse">
            <ref id="wood" name="reflectance"/>
        </bsdf>
    </shape>
    <shape type="cube" id="box">
        <transform name="to_world">
            <scale value="0.7"/>
            <translate x="-2"/>
        </transform>
        <bsdf type="mask">
            <float name="opacity" value="0.8"/>
            <bsdf type="roughplastic">
                <rgb name="diffuse_reflectance" value="0.2, 0.5, 0.3"/>
            </bsdf>
        </bsdf>
    </shape>
    <shape type="sphere" id="ball">
        <point name="center" x="0" y="0" z="0"/>
        <float name="radius" value="0.8"/>
        <ref id="shiny"/>
    </shape>
    <shape type="obj" id="mesh">
        <string name="filename" value="meshes/tri.obj"/>
        <transform name="to_world">
            <translate x="1.2" y="-0.5"/>
        </transform>
        <ref id="two"/>
    </shape>
    <shape type="sphere" id="bulb">
        <point name="center" x="0" y="3" z="1"/>
        <float name="radius" value="0.3"/>
        <emitter type="area">
            <spectrum name="radiance" value="400:4, 550:9, 700:12"/>
        </emitter>
    </shape>
    <emitter type="point" id="lamp">
        <transform name="to_world">
            <translate x="2" y="3" z="4"/>
        </transform>
        <rgb name="intensity" value="5, 4, 3"/>
    </emitter>
    <emitter type="spot" id="spot">
        <transform name="to_world">
            <lookat origin="-3, 4, 4" target="0, 0, 0" up="0, 1, 0"/>
        </transform>
        <float name="intensity" value="9"/>
    </emitter>
    <emitter type="directional" id="sun">
        <vector name="direction" x="0.3" y="-1" z="-0.5"/>
        <float name="irradiance" value="0.7"/>
    </emitter>
    <emitter type="envmap" id="sky">
        <string name="filename" value="sky.exr"/>
    </emitter>
</scene>
"""

MATERIALS = """<scene version="3.0.0">
    <bsdf type="roughconductor" id="shiny">
        <string name="material" value="Au"/>
        <float name="alpha" value="0.3"/>
    </bsdf>
    <bsdf type="twosided" id="two">
        <bsdf type="principled">
            <rgb name="base_color" value="0.4, 0.2, $level"/> <!-- keep me -->
            <float name="roughness" value="0.4"/>
        </bsdf>
    </bsdf>
</scene>
"""

OBJ = """v -1 -1 0
v 1 -1 0
v 1 1 0.4
v -1 1 0
vt 0 0
vt 1 0
vt 1 1
vt 0 1
f 1/1 2/2 3/3
f 1/1 3/3 4/4
"""


@pytest.fixture
def everything(tmp_path: Path) -> Path:
    """A scene with one of everything, in its own folder."""
    folder = tmp_path / "scene"
    (folder / "parts").mkdir(parents=True)
    (folder / "meshes").mkdir()
    (folder / "everything.xml").write_text(EVERYTHING)
    (folder / "parts" / "materials.xml").write_text(MATERIALS)
    (folder / "meshes" / "tri.obj").write_text(OBJ)
    random = np.random.default_rng(1)
    mi.Bitmap(random.integers(20, 235, (4, 5, 3), dtype=np.uint8)).write(str(folder / "wood.png"))
    mi.Bitmap(random.uniform(0.1, 1.0, (4, 8, 3)).astype(np.float32)).write(str(folder / "sky.exr"))
    return folder / "everything.xml"


def changed(scene: Scene) -> dict[str, np.ndarray]:
    """Another value for every parameter that has a continuous one."""
    random = np.random.default_rng(2)
    values = {}
    for key, info in scene.parameters().items():
        if info.kind in ("setting", "faces", "normals") or not info.differentiable:
            continue
        if info.role == "spec_trans":  # a twosided material takes no transmission
            continue
        value = as_array(scene.params[key])
        assert value is not None
        if info.kind == "transform":
            value = value.copy()
            value[:3, 3] += random.uniform(-0.1, 0.1, 3)
        elif info.kind == "positions":
            value = value + 0.1
        elif info.kind == "envmap":
            value = 0.8 * value[:, 1:-1] + 0.05
        elif info.kind != "texcoords":
            value = 0.8 * value + 0.05
        values[key] = value
    return values


def differentiable(path: Path, **defines: object) -> Scene:
    scene = load_scene(path, **defines)
    for key, info in scene.parameters().items():
        if info.stored:
            scene.make_differentiable(key)
    return scene


def test_every_kind_of_parameter_survives_the_way_through_xml(everything: Path, tmp_path: Path) -> None:
    scene = differentiable(everything, level=0.7)
    values = changed(scene)
    kinds = {scene.parameters()[key].kind for key in values}
    assert kinds >= {"color", "scalar", "texture", "envmap", "positions", "texcoords", "transform", "vector"}
    check = verify_export(scene, export_scene(scene, values, tmp_path / "out"), values)
    assert check.brightness > 0.05
    assert check.agrees
    again = load_scene(tmp_path / "out" / "everything.xml")
    assert set(again.params.keys()) == set(scene.params.keys())
    for key, value in values.items():
        found = as_array(again.params[key])
        found = found[:, 1:-1] if scene.parameters()[key].kind == "envmap" else found
        np.testing.assert_allclose(found, value, rtol=2e-6, atol=2e-6, err_msg=key)


def test_verification_rejects_an_export_that_lost_a_parameter(everything: Path, tmp_path: Path) -> None:
    scene = differentiable(everything)
    path = export_scene(scene, {}, tmp_path / "out")
    assert verify_export(scene, path).agrees
    scene.params["sky.scale"] = 0.0  # as for a picture in which only some lights are lit
    scene.params.update()
    assert verify_export(scene, path, {}).agrees
    with pytest.raises(InputError, match="shows another image than ours"):
        verify_export(scene, path, {"ball.to_world": np.eye(4)})


def test_export_keeps_comments_ids_defaults_and_the_rest_of_the_text(everything: Path, tmp_path: Path) -> None:
    scene = load_scene(everything, level=0.9)
    path = export_scene(
        scene, {"lamp.intensity.value": [1, 2, 3], "two.brdf_0.roughness.value": 0.25}, tmp_path / "out"
    )
    before, after = everything.read_text().splitlines(), path.read_text().splitlines()
    different = [(a, b) for a, b in zip(before, after, strict=True) if a != b]
    assert different == [
        ('    <default name="level" value="0.6"/>', '    <default name="level" value="0.9"/>'),
        ('        <rgb name="intensity" value="5, 4, 3"/>', '        <rgb name="intensity" value="1.0, 2.0, 3.0"/>'),
    ]
    materials = (tmp_path / "out" / "parts" / "materials.xml").read_text()
    assert '<float name="roughness" value="0.25"/>' in materials
    assert "$level" in materials and "<!-- keep me -->" in materials


def test_a_value_given_through_a_default_is_replaced_in_its_element(everything: Path, tmp_path: Path) -> None:
    scene = load_scene(everything)
    export_scene(scene, {"two.brdf_0.base_color.value": [0.1, 0.2, 0.3]}, tmp_path / "out")
    assert (
        '<rgb name="base_color" value="0.1, 0.2, 0.3"/>' in (tmp_path / "out" / "parts" / "materials.xml").read_text()
    )
    assert '<default name="level" value="0.6"/>' in (tmp_path / "out" / "everything.xml").read_text()


def test_the_export_stands_alone_when_files_lie_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "shared").mkdir()
    (tmp_path / "scene").mkdir()
    (tmp_path / "shared" / "tri.obj").write_text(OBJ)
    path = tmp_path / "scene" / "s.xml"
    path.write_text(
        '<scene version="3.0.0"><sensor type="perspective"><film type="hdrfilm"><integer name="width" value="8"/>'
        '<integer name="height" value="8"/></film></sensor><emitter type="constant"/>'
        '<shape type="obj"><string name="filename" value="../shared/tri.obj"/></shape></scene>'
    )
    scene = load_scene(path, root=tmp_path)
    exported = export_scene(scene, {}, tmp_path / "out")
    (tmp_path / "shared" / "tri.obj").unlink()
    assert (tmp_path / "out" / "meshes" / "tri.obj").is_file()
    assert load_scene(exported).render(1).shape == (8, 8, 3)


def test_a_default_material_and_a_grey_default_are_written_where_the_file_has_nothing(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="3.0.0">\n    <emitter type="constant"/>\n    <shape type="sphere" id="a"/>\n'
        '    <shape type="sphere" id="b">\n        <bsdf type="diffuse"/>\n    </shape>\n</scene>\n'
    )
    scene = load_scene(path)
    assert scene.make_color("b.bsdf.reflectance.value") == "b.bsdf.reflectance.value"
    values = {"a.bsdf.reflectance.value": 0.1, "b.bsdf.reflectance.value": [0.1, 0.2, 0.3]}
    exported = export_scene(scene, values, tmp_path / "out")
    again = load_scene(exported)
    np.testing.assert_allclose(as_array(again.params["b.bsdf.reflectance.value"]), [0.1, 0.2, 0.3], rtol=1e-6)
    np.testing.assert_allclose(as_array(again.params["a.bsdf.reflectance.value"]), 0.1, rtol=1e-6)


def test_our_estimators_become_the_path_tracer_in_an_export(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="3.0.0"><integrator type="path_replay"><integer name="max_depth" value="3"/>'
        '<integer name="interior_spp" value="4"/></integrator><emitter type="constant"/></scene>'
    )
    root = etree.parse(str(export_scene(load_scene(path), {}, tmp_path / "out"))).getroot()
    assert root.find("integrator").get("type") == "path"
    assert [child.get("name") for child in root.find("integrator")] == ["max_depth"]


def test_ids_are_written_on_request_so_that_stock_mitsuba_uses_our_keys(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="3.0.0"><emitter type="constant"/><shape type="sphere"/><shape type="sphere"/></scene>'
    )
    scene = load_scene(path)
    exported = export_scene(scene, {}, tmp_path / "out", keep_ids=False)
    stock = mi.traverse(mi.load_file(str(exported), optimize=False))
    assert set(stock.keys()) == set(scene.params.keys())


def test_a_scene_from_a_dictionary_is_exported_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    description = mi.cornell_box()
    description["sensor"]["film"]["width"] = description["sensor"]["film"]["height"] = 16
    scene = Scene.from_dict(description)
    values = {"red.reflectance.value": np.array([0.5, 0.4, 0.3])}
    monkeypatch.chdir(tmp_path)  # a relative path, as of a run folder
    check = verify_export(scene, export_scene(scene, values, "out"), values)
    assert check.agrees and check.brightness > 0


#: What is rarer: wrapped and combined materials, spectra with ids, aliases, instances, media, other cameras and lights.
RARE = """<scene version="3.0.0">
    <integrator type="aov"><string name="aovs" value="dd:depth"/>
        <integrator type="volpath" name="image"><integer name="max_depth" value="5"/></integrator></integrator>
    <sensor type="thinlens"><float name="aperture_radius" value="0.05"/><float name="focus_distance" value="9"/>
        <transform name="to_world"><lookat origin="0,2,10" target="0,0,0" up="0,1,0"/></transform>
        <film type="hdrfilm"><integer name="width" value="16"/><integer name="height" value="16"/></film></sensor>
    <sensor type="orthographic"><transform name="to_world"><lookat origin="0,2,10" target="0,0,0" up="0,1,0"/>
        </transform>
        <film type="hdrfilm"><integer name="width" value="8"/><integer name="height" value="8"/></film></sensor>
    <bsdf type="twosided" id="both"><bsdf type="diffuse"/>
        <bsdf type="conductor"><string name="material" value="Cu"/></bsdf></bsdf>
    <bsdf type="normalmap" id="bumpy"><texture type="bitmap" name="normalmap"><boolean name="raw" value="true"/>
        <string name="filename" value="wood.png"/></texture>
        <bsdf type="roughconductor"><float name="alpha_u" value="0.2"/><float name="alpha_v" value="0.3"/></bsdf></bsdf>
    <bsdf type="diffuse" id="check"><texture type="checkerboard" name="reflectance">
        <rgb name="color0" value="0.1,0.2,0.3"/><float name="color1" value="0.7"/></texture></bsdf>
    <alias id="check" as="squares"/>
    <bsdf type="roughdielectric" id="frost"><string name="int_ior" value="water"/></bsdf>
    <bsdf type="blendbsdf" id="blend"><float name="weight" value="0.4"/><bsdf type="plastic"/><ref id="check"/></bsdf>
    <spectrum type="d65" id="day"><float name="scale" value="2"/></spectrum>
    <shape type="obj" id="mesh"><string name="filename" value="meshes/tri.obj"/>
        <boolean name="face_normals" value="true"/><boolean name="flip_normals" value="true"/>
        <transform name="to_world"><translate x="2" y="1"/></transform><ref id="both"/></shape>
    <shape type="rectangle"><transform name="to_world"><rotate x="1" angle="-90"/><scale value="8"/>
        <translate y="-2"/></transform><ref id="squares"/></shape>
    <shape type="disk"><transform name="to_world"><translate y="2"/></transform><ref id="bumpy"/></shape>
    <shape type="cylinder"><point name="p0" x="-3" y="1" z="0"/><point name="p1" x="-3" y="3" z="0"/>
        <float name="radius" value="0.4"/><ref id="blend"/></shape>
    <shape type="shapegroup" id="group"><shape type="sphere" id="inner"><ref id="frost"/></shape></shape>
    <shape type="instance" id="copy"><ref id="group"/><transform name="to_world"><translate x="-2"/></transform></shape>
    <shape type="cube" id="fog"><bsdf type="null"/>
        <medium name="interior" type="homogeneous"><rgb name="sigma_t" value="1, 1, 1"/>
            <rgb name="albedo" value="0.8, 0.7, 0.6"/>
            <phase type="hg"><float name="g" value="0.3"/></phase></medium></shape>
    <emitter type="spot"><transform name="to_world"><lookat origin="0,6,6" target="0,0,0" up="0,1,0"/></transform>
        <ref id="day" name="intensity"/></emitter>
    <emitter type="projector"><transform name="to_world"><lookat origin="0,6,6" target="0,0,0" up="0,1,0"/></transform>
        <texture type="bitmap" name="irradiance"><string name="filename" value="wood.png"/></texture></emitter>
    <emitter type="constant"><spectrum name="radiance" value="0.2"/></emitter>
</scene>
"""


def test_rare_plugins_survive_the_way_through_xml(everything: Path, tmp_path: Path) -> None:
    path = everything.with_name("rare.xml")
    path.write_text(RARE)
    scene = differentiable(path)
    assert set(scene.bindings()) == set(scene.params.keys())
    values = changed(scene)
    # Nothing can differentiate them, but they can be written.
    for key in ("copy.to_world", "fog.interior_medium.albedo.value.value", "thinlens.focus_distance"):
        value = as_array(scene.params[key])
        assert value is not None
        values[key] = 0.95 * value if value.ndim < 2 else value + 0.1 * (np.arange(16) == 3).reshape(4, 4)
    check = verify_export(scene, export_scene(scene, values, tmp_path / "out"), values)
    assert check.agrees and check.brightness > 0.02


def test_a_file_that_is_included_twice_keeps_two_sets_of_values(tmp_path: Path) -> None:
    part = '<scene version="3.0.0"><shape type="sphere"><bsdf type="diffuse"/></shape></scene>'
    (tmp_path / "part.xml").write_text(part)
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="3.0.0">\n<include filename="part.xml"/>\n<include filename="part.xml"/>\n'
        '<emitter type="constant"/></scene>'
    )
    values = {"sphere.bsdf.reflectance.value": 0.25, "sphere_1.bsdf.reflectance.value": 0.75}
    again = load_scene(export_scene(load_scene(path), values, tmp_path / "out"))
    for key, value in values.items():
        np.testing.assert_allclose(as_array(again.params[key]), value)


def test_an_old_scene_with_camel_case_names_is_patched_in_place(tmp_path: Path) -> None:
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="0.6.0"><emitter type="constant"/><shape type="sphere" id="ball">'
        '<transform name="toWorld"><translate x="1"/></transform>'
        '<bsdf type="roughplastic"><rgb name="diffuseReflectance" value="0.1, 0.2, 0.3"/></bsdf></shape></scene>'
    )
    values = {"ball.bsdf.diffuse_reflectance.value": [0.4, 0.5, 0.6], "ball.to_world": np.eye(4)}
    exported = export_scene(load_scene(path), values, tmp_path / "out")
    assert exported.read_text().count('name="diffuseReflectance"') == 1
    assert exported.read_text().count("<transform") == 1
    again = load_scene(exported)
    for key, value in values.items():
        np.testing.assert_allclose(as_array(again.params[key]), value, atol=1e-6)


def test_sanitised_texels_are_exported_in_place_of_the_broken_file(tmp_path: Path) -> None:
    data = np.full((4, 8, 3), 0.5, np.float32)
    data[0, 0] = np.nan
    mi.Bitmap(data).write(str(tmp_path / "sky.exr"))
    path = tmp_path / "s.xml"
    path.write_text(
        '<scene version="3.0.0"><emitter type="envmap"><string name="filename" value="sky.exr"/></emitter></scene>'
    )
    exported = export_scene(load_scene(path, sanitize=True), {}, tmp_path / "out")
    assert not load_scene(exported).warnings


def test_export_refuses_unknown_keys_wrong_shapes_nan_and_its_own_folder(everything: Path, tmp_path: Path) -> None:
    scene = load_scene(everything)
    with pytest.raises(UsageError, match=r"did you mean 'lamp\.intensity\.value'"):
        export_scene(scene, {"lamp.intensty.value": 1}, tmp_path / "out")
    with pytest.raises(UsageError, match=r"has shape \(2,\), but the scene has \(3,\)"):
        export_scene(scene, {"lamp.intensity.value": [1, 2]}, tmp_path / "out")
    with pytest.raises(UsageError, match="1 values that are not finite"):
        export_scene(scene, {"lamp.intensity.value": [1, 2, np.nan]}, tmp_path / "out")
    with pytest.raises(UsageError, match="overwrite the scene itself"):
        export_scene(scene, {}, everything.parent)
    with pytest.raises(UsageError, match="make_differentiable"):
        export_scene(scene, {"wood.data": np.zeros((4, 5, 3))}, tmp_path / "out")


def test_the_third_party_cornell_box_survives_the_way_through_xml(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "third_party" / "cbox.xml"
    if not source.is_file():
        pytest.skip(f"needs {source}")
    scene = load_scene(source, res=24)
    values = changed(scene)
    check = verify_export(scene, export_scene(scene, values, tmp_path / "out"), values)
    assert check.agrees and check.brightness > 0.01
