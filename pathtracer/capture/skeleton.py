"""A scene to begin with: the cameras of a capture, something where they look, and light from all sides.

    files = write_project(capture, Path("project"), mesh=None)   # views.toml, scene.xml, cameras.xml, job.toml

The scene renders at once and the job runs at once; both are made to be edited.
"""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.sax.saxutils import escape, quoteattr

import numpy as np

from pathtracer.capture.cameras import Camera
from pathtracer.capture.layout import Layout, clip_range, layout
from pathtracer.capture.shots import Capture
from pathtracer.capture.views_file import relative, write_views_file
from pathtracer.errors import InputError, UsageError

#: Mesh kinds that Mitsuba reads.
MESHES = (".ply", ".obj", ".serialized")
#: Long side of the film of a camera in the scene file; the job renders at the size of the pictures.
_PREVIEW = 512


@dataclass(frozen=True)
class Project:
    """What was written.

    Attributes:
        views: the views file.
        scene: the scene.
        job: the job.
        where: how the cameras stand.
    """

    views: Path
    scene: Path
    job: Path
    where: Layout


def write_project(
    capture: Capture,
    folder: Path,
    mesh: Path | None = None,
    holdout_every: int = 0,
    downscale: int = 1,
    alpha: bool = False,
) -> Project:
    """Write views.toml, scene.xml and job.toml.

    Args:
        capture: photographs and cameras.
        folder: where to; created when absent.
        mesh: an object in the world of the cameras, instead of a placeholder; it is copied.
        holdout_every: hold out views 0, n, 2n, ...
        downscale: pixels that the job averages.
        alpha: whether the pictures are cut out.
    Raises:
        UsageError: a mesh of another kind. InputError: a mesh that is absent. StorageFault: the folder is read-only.
    """
    where = layout(capture.cameras, capture.points)
    views, scene, job = (folder / name for name in ("views.toml", "scene.xml", "job.toml"))
    name = None
    if mesh is not None:
        name = _copy_mesh(mesh, folder)
    header = f"Cameras of {capture.source}, written by pathtracer import.\nPaths start at this file's folder."
    write_views_file(capture, views, header)
    _write(scene, _scene(capture, where, name))
    _write(job, _job(capture, holdout_every, downscale, alpha))
    return Project(views, scene, job, where)


def _write(path: Path, text: str) -> None:
    from pathtracer.capture.images import atomic_path

    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def _copy_mesh(mesh: Path, folder: Path) -> str:
    from pathtracer.capture.images import atomic_path
    from pathtracer.errors import nearest_names

    if mesh.suffix.lower() not in MESHES:
        raise UsageError(f"is no mesh that is read here ({', '.join(MESHES)})", mesh)
    if not mesh.is_file():
        names = [p.name for p in mesh.parent.iterdir()] if mesh.parent.is_dir() else []
        raise InputError("no such file", mesh, nearest=nearest_names(mesh.name, names))
    target = folder / mesh.name
    if not (target.exists() and target.samefile(mesh)):
        with atomic_path(target) as temporary:
            shutil.copyfile(mesh, temporary)
    return mesh.name


def _numbers(values: object) -> str:
    return ", ".join(f"{float(v):.9g}" for v in np.ravel(np.asarray(values)))


def _scene(capture: Capture, where: Layout, mesh: str | None) -> str:
    near, far = clip_range(where)
    sensors = [_sensor(k, shot.name, shot.camera, near, far) for k, shot in enumerate(capture.shots)]
    if mesh is None:
        shape = f"""
    <!-- A placeholder where the cameras look, half as wide as what they see: put the object here. -->
    <shape type="sphere" id="object">
        <point name="center" value="{_numbers(where.focus)}"/>
        <float name="radius" value="{where.radius:.6g}"/>
        <ref id="material"/>
    </shape>"""
    else:
        kind = Path(mesh).suffix.lower().removeprefix(".")
        shape = f"""
    <shape type="{kind}" id="object">
        <string name="filename" value={quoteattr(mesh)}/>
        <ref id="material"/>
    </shape>"""
    turn = _sky_turn(where.up)
    return f"""<!-- Written by pathtracer import from {_comment(str(capture.source))}, to be edited.

     The world is that of the cameras: they look at ({_numbers(where.focus)}) from a distance of
     {where.distance:.4g}. Sensor k is the camera of the k-th picture (pathtracer render scene.xml -s k); job.toml
     renders at the size of the pictures. -->
<scene version="3.0.0">
    <integrator type="path">
        <integer name="max_depth" value="6"/>
        <boolean name="hide_emitters" value="true"/>
    </integrator>

    <bsdf type="principled" id="paint">
        <rgb name="base_color" value="0.5, 0.5, 0.5"/>
        <float name="roughness" value="0.5"/>
        <float name="specular" value="0.5"/>
    </bsdf>

    <!-- Both sides of every face: meshes come with normals of either direction. -->
    <bsdf type="twosided" id="material">
        <ref id="paint"/>
    </bsdf>
{shape}

    <!-- Light from all sides; for an environment map that can be recovered:
         <emitter type="envmap" id="sky"> <string name="filename" value="sky.exr"/> {turn} </emitter> -->
    <emitter type="constant" id="sky">
        <rgb name="radiance" value="1, 1, 1"/>
    </emitter>

{"".join(sensors)}</scene>
"""


def _sky_turn(up: object) -> str:
    """The rotation that points an environment map's pole (y) along the mean up direction of the cameras."""
    from scipy.spatial.transform import Rotation

    turn, _ = Rotation.align_vectors(np.reshape(np.asarray(up), (1, 3)), [[0, 1, 0]])
    vector = turn.as_rotvec(degrees=True)
    angle = float(np.linalg.norm(vector))
    if angle < 1e-6:
        return ""
    x, y, z = vector / angle
    return f'<transform name="to_world"> <rotate x="{x:.4f}" y="{y:.4f}" z="{z:.4f}" angle="{angle:.2f}"/> </transform>'


def _sensor(index: int, name: str, camera: Camera, near: float, far: float) -> str:
    # previews of large photographs stay small: a scene that takes a minute to render is no start
    scale = min(1.0, _PREVIEW / max(camera.width, camera.height))
    small = camera.resized(max(1, round(camera.width * scale)), max(1, round(camera.height * scale)))
    s = small if small.square else _squared(small)
    d = s.sensor(near, far)
    return f"""    <sensor type="perspective" id="camera-{index:03d}"> <!-- {_comment(name)} -->
        <string name="fov_axis" value="x"/>
        <float name="fov" value="{d["fov"]:.9g}"/>
        <float name="principal_point_offset_x" value="{d["principal_point_offset_x"]:.9g}"/>
        <float name="principal_point_offset_y" value="{d["principal_point_offset_y"]:.9g}"/>
        <float name="near_clip" value="{near:g}"/>
        <float name="far_clip" value="{far:g}"/>
        <transform name="to_world">
            <matrix value="{" ".join(f"{float(v):.9g}" for v in s.to_world.ravel())}"/>
        </transform>
        <sampler type="independent">
            <integer name="sample_count" value="32"/>
        </sampler>
        <film type="hdrfilm">
            <integer name="width" value="{s.width}"/>
            <integer name="height" value="{s.height}"/>
            <string name="pixel_format" value="rgb"/>
            <string name="component_format" value="float32"/>
            <rfilter type="box"/>
        </film>
    </sensor>
"""


def _squared(camera: Camera) -> Camera:
    """The same view on nearly the same film with square pixels."""
    height = max(1, round(camera.height * camera.fx / camera.fy))
    resized = camera.resized(camera.width, height)
    return Camera(
        resized.width, height, resized.fx, resized.fx, resized.cx, resized.cy, camera.to_world
    )  # what rounding the height left is less than half a pixel at the edge


def _comment(text: str) -> str:
    """Text that ends no XML comment."""
    return escape(text).replace("--", "- -")


def _job(capture: Capture, holdout_every: int, downscale: int, alpha: bool) -> str:
    source = _comment(str(capture.source))
    masked = alpha or any(shot.mask for shot in capture.shots)
    silhouette = (
        """
# "mask": pixels outside the object have no weight. "black": they are black, so that silhouettes count (the scene hides
# its emitters); then take the estimator "edge_sampling".
alpha = "mask"
"""
        if masked
        else ""
    )
    return f"""# Written by pathtracer import from {source}, to be edited.
#
#   pathtracer estimate job.toml

[scene]
file = "scene.xml"

[views]
file = "views.toml"
holdout_every = {holdout_every}
downscale = {downscale}
batch = {min(4, len(capture.shots))}                # views a step
{silhouette}
# What is unknown: `pathtracer params scene.xml` lists what can be.
[[parameter]]
key = "paint.base_color.value"

[[parameter]]
key = "paint.roughness.value"

# The light from all sides. Brighter light on darker paint gives the same pictures: fix one when their scale matters.
[[parameter]]
key = "sky.radiance.value"

[estimator]
name = "path_replay"
spp = 8

[solver]
iterations = 100
"""


__all__ = ["MESHES", "Project", "relative", "write_project"]
