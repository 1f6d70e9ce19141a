"""Further channels of a scene file's `aov` integrator in a check."""

from __future__ import annotations

from pathlib import Path

import pytest

from pathtracer.errors import UsageError
from pathtracer.verify import Verdict, check_gradients
from pathtracer.verify.comparison import Comparison
from pathtracer.verify.pictures import picture

SCENE = """<scene version="3.0.0">
  <integrator type="aov"><string name="aovs" value="{aovs}"/>
    <integrator type="path"><integer name="max_depth" value="2"/>
      <boolean name="hide_emitters" value="{hide}"/></integrator>
  </integrator>
  <sensor type="{camera}" id="camera">{lens}
    <transform name="to_world"><lookat origin="0, 0.3, 4" target="0, 0, 0" up="0, 1, 0"/></transform>
    <film type="hdrfilm">
      <integer name="width" value="12"/><integer name="height" value="12"/>
      <string name="pixel_format" value="rgba"/><rfilter type="box"/>
    </film>
  </sensor>
  <shape type="cube" id="box">
    <transform name="to_world"><scale value="0.6"/><rotate y="1" angle="30"/></transform>
  </shape>
  <shape type="rectangle" id="lamp">
    <transform name="to_world"><scale value="0.3"/><translate x="-0.5" y="0.5" z="1.2"/></transform>
    <emitter type="area"><rgb name="radiance" value="3, 2, 1"/></emitter>
  </shape>
  <shape type="sphere" id="ball"><point name="center" x="1" y="0" z="-1"/><float name="radius" value="0.4"/></shape>
  <emitter type="constant"/>
</scene>"""


FOV = '<float name="fov" value="40"/>'
LENSES = {
    "perspective": FOV,
    "thinlens": FOV + '<float name="aperture_radius" value="0.1"/><float name="focus_distance" value="3"/>',
    "orthographic": "",
}


def check(
    folder: Path,
    aovs: str,
    estimator: str = "edge_sampling",
    motion: str = "box.vertex_positions translate:x",
    camera: str = "perspective",
    hide: str = "false",
    tolerance: float = 0.1,
) -> Comparison:
    path = folder / "scene.xml"
    path.write_text(SCENE.format(aovs=aovs, camera=camera, lens=LENSES[camera], hide=hide))
    return check_gradients(path, motion, estimator, tolerance=tolerance, budget=60, cache=False).comparisons[0]


def test_what_has_a_derivative_is_checked_and_the_rest_is_named(tmp_path: Path) -> None:
    row = check(tmp_path, "d:depth,g:geo_normal,n:sh_normal")
    assert row.verdict is Verdict.PASS, row.reason
    assert row.view.shape[-1] == 3 + 1 + 3
    assert any("geo_normal" in note for note in row.notes)


def test_jumps_of_which_no_sample_is_taken_are_refused(tmp_path: Path) -> None:
    row = check(tmp_path, "t:uv")
    assert row.verdict is Verdict.UNSUPPORTED
    assert "the uv of ball jump" in row.reason


@pytest.mark.parametrize(
    ("aovs", "estimator", "says"),
    [
        ("d:depth", "soft_rasterizer", "soft_rasterizer renders no aovs"),
        ("d:depth", "edge_sampling:aovs=n:sh_normal", "only the channels of the scene"),
    ],
)
def test_other_channels_than_the_scenes_are_refused(tmp_path: Path, aovs: str, estimator: str, says: str) -> None:
    with pytest.raises(UsageError, match=says):
        check(tmp_path, aovs, estimator)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("motion", "camera", "hide"),
    [
        ("camera.to_world translate:1,0.3,0", "orthographic", "false"),
        ("camera.to_world rotate:y", "thinlens", "false"),
        ("ball.to_world translate:x", "perspective", "false"),
        ("lamp.to_world translate:x", "perspective", "true"),
    ],
)
def test_channels_follow_cameras_of_every_kind_what_is_behind_and_hidden_lamps(
    motion: str, camera: str, hide: str, tmp_path: Path
) -> None:
    aovs = "d:depth,n:sh_normal,p:position,i:shape_index,a:albedo"
    row = check(tmp_path, aovs, motion=motion, camera=camera, hide=hide, tolerance=0.03)
    assert row.verdict is Verdict.PASS, row.reason


def test_the_picture_shows_the_colours(tmp_path: Path) -> None:
    row = check(tmp_path, "d:depth", tolerance=0.3)
    assert row.aovs == 1
    shown = picture(row, 4)
    assert shown is not None and shown.shape[-1] == 3
