"""The catalogue: small scenes with one phenomenon each, and what every estimator is expected to make of them.

A case names a scene of `scenes/catalogue`, what moves in it, and which phenomena (keys of `integrators.PHENOMENA`) its
derivative consists of. An estimator that handles all of them must pass the check; one that does not must be caught: it
fails or refuses. Deviations from that rule are listed in `EXCEPTIONS`, with the size of the bias where there is one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from integrators import ESTIMATORS

from .comparison import Comparison
from .statistics import Verdict


@dataclass(frozen=True)
class Case:
    """One line of the catalogue.

    Attributes:
        id: name, unique.
        scene: file of `scenes/catalogue`, without suffix.
        motion: text of a `Motion`.
        needs: phenomena that the derivative consists of.
        defines: values of the scene's defaults.
        settings: fields of `comparison.Settings` that differ from the default.
        quick: whether it belongs to the subset of the default test run.
    """

    id: str
    scene: str
    motion: str
    needs: frozenset[str]
    defines: dict[str, str] = field(default_factory=dict, hash=False)
    settings: dict[str, float] = field(default_factory=dict, hash=False)
    quick: bool = False


@dataclass(frozen=True)
class Expectation:
    """What the check must say of one estimator on one case.

    Attributes:
        verdicts: the verdicts that are right.
        bias: known slope minus one, where the estimator is known to be off by that much.
        reason: why, in a few words.
    """

    verdicts: frozenset[Verdict]
    bias: float | None = None
    reason: str = ""

    def __str__(self) -> str:
        words = "/".join(sorted(map(str, self.verdicts)))
        size = "" if self.bias is None else f", slope {1 + self.bias:.2f}"
        return f"{words}{size}{f' ({self.reason})' if self.reason else ''}"

    @property
    def word(self) -> str:
        """In one word: right, caught (fails or refuses), refuses, wrong."""
        return {PASS: "right", CAUGHT: "caught", RAISES: "refuses"}.get(self.verdicts, "wrong")

    def agrees(self, found: Comparison) -> bool:
        """Whether a comparison came out as it should: its verdict, and the slope of a known bias within 0.1."""
        if found.verdict not in self.verdicts:
            return False
        if self.bias is None or found.verdict is Verdict.UNSUPPORTED:
            return True
        low, high = found.slope_interval()
        return low - 0.1 <= 1 + self.bias <= high + 0.1


PASS = frozenset({Verdict.PASS})
CAUGHT = frozenset({Verdict.FAIL, Verdict.UNSUPPORTED})
RAISES = frozenset({Verdict.UNSUPPORTED})

_I, _P, _C = "interior", "primary", "camera"
_AREA, _ENV, _DELTA = "shadow-area", "shadow-environment", "shadow-delta"


def _case(id: str, scene: str, motion: str, *needs: str, quick: bool = False, **defines: object) -> Case:
    settings = {k[1:]: float(v) for k, v in defines.items() if k.startswith("_")}  # type: ignore[arg-type]
    texts = {k: str(v) for k, v in defines.items() if not k.startswith("_")}
    return Case(id, scene, motion, frozenset(needs), texts, settings, quick)


_MOVE = "object.vertex_positions translate:1,0.4,0.2"
_POSE = "object.to_world translate:1,0.4,0.2"

#: The tiles of `materials`, row by row.
_TILES = (
    *("diffuse", "conductor", "roughconductor", "plastic"),
    *("roughplastic", "principled", "dielectric", "roughdielectric"),
    *("mask", "blend", "bumpy", "textured"),
)


def _tile(motion: str) -> dict[str, Any]:
    """The crop of `materials` that shows the tile in question: samples elsewhere would say nothing."""
    row, column = divmod(_TILES.index(motion.split(".")[0].removeprefix("tile-")), 4)
    return {"crop_x": 6 * column, "crop_y": 8 * row, "crop_width": 6, "crop_height": 8}


#: Settings of the material with which the parameter shows: at the others' the derivative drowns in its noise.
_STRONGER: dict[str, dict[str, Any]] = {"principled-anisotropic": {"roughness": 0.3, "metallic": 0.9, "max_depth": 2}}

CASES: tuple[Case, ...] = (
    # --- silhouettes that the camera sees
    _case("mesh-closed-moves", "mesh", _MOVE, _I, _P),
    _case("mesh-closed-turns", "mesh", "object.vertex_positions rotate:y", _I, _P),
    _case("mesh-closed-grows", "mesh", "object.vertex_positions scale", _I, _P),
    _case("mesh-closed-deforms", "mesh", "object.vertex_positions random:3", _I, _P),
    _case("mesh-approaches", "mesh", "object.vertex_positions translate:z", _I, _P),
    _case("mesh-open-moves", "mesh", _MOVE, _I, _P, mesh="quad.ply"),
    _case("mesh-bowl-turns", "mesh", "object.vertex_positions rotate:x", _I, _P, mesh="bowl.ply", max_depth=1),
    _case("limb-moves", "limb", _POSE, _I, _P),
    _case("limb-camera", "limb", "camera.to_world translate:x", _I, _P, _C),
    _case("lit-ball-moves", "lit-ball", _MOVE, _I, _P, quick=True),
    _case("terminator-moves", "terminator", _MOVE, _I, _P, quick=True),
    _case("terminator-camera", "terminator", "camera.to_world translate:x", _I, _P, _C),
    _case("mesh-smooth-moves", "mesh", _MOVE, _I, _P, mesh="sphere-fine.ply", flat="false"),
    _case("mesh-smooth-coarse-moves", "mesh", _MOVE, _I, _P, mesh="sphere.ply", flat="false"),
    _case("mesh-flat-sphere-moves", "mesh", _MOVE, _I, _P, quick=True, mesh="sphere.ply"),
    _case("mesh-flat-fine-sphere-moves", "mesh", _MOVE, _I, _P, mesh="sphere-fine.ply"),
    _case(
        "mesh-smooth-coarse-stretches",
        "mesh",
        "object.vertex_positions scale:x",
        _I,
        _P,
        mesh="sphere.ply",
        flat="false",
    ),
    _case(
        "mesh-smooth-coarse-camera", "mesh", "camera.to_world translate:x", _I, _P, _C, mesh="sphere.ply", flat="false"
    ),
    _case("mesh-seamed-cube-moves", "shape", _MOVE, _I, _P, quick=True),
    _case("mesh-seamed-cube-turns", "shape", "object.vertex_positions rotate:y", _I, _P),
    _case("sphere-moves", "shape", _POSE, _I, _P, shape="sphere", quick=True),
    _case("sphere-grows", "shape", "object.to_world scale", _I, _P, shape="sphere"),
    _case("cylinder-moves", "shape", _POSE, _P, shape="cylinder", max_depth=1),
    _case("disk-turns", "shape", "object.to_world rotate:y", _I, _P, shape="disk"),
    _case("rectangle-moves", "shape", _POSE, _I, _P, shape="rectangle"),
    _case("bspline-curve-moves", "curve", "object.control_points translate:0.3,1,0", _P, max_depth=1),
    _case(
        "linear-curve-moves", "curve", "object.control_points translate:0.3,1,0", _P, max_depth=1, curve="linearcurve"
    ),
    _case("leaves-frame", "mesh", _MOVE, _I, _P, shift=1.1),
    _case("leaves-frame-sphere", "shape", _POSE, _I, _P, shape="sphere", shift=1.15),
    _case("occluder-in-front-moves", "pair", "other.to_world translate:x", _P),
    _case("occluded-body-moves", "pair", "object.vertex_positions translate:x", _P),
    _case("intersecting-bodies", "pair", "other.to_world translate:z", _P, offset=0),
    _case("intersecting-bodies-camera", "pair", "camera.to_world translate:x", _P, _C, offset=0),
    _case("sunk-sphere-moves", "contact", _POSE, _I, _P, _DELTA),
    _case("sunk-sphere-small", "contact", _POSE, _I, _P, _DELTA, fov=3, target="0.084, 0, 0.505"),
    _case("sunk-cube-moves", "contact", _MOVE, _I, _P, _DELTA, shape="cube"),
    _case(
        "standing-cube-moves",
        "contact",
        "object.vertex_positions translate:1,0,0.4",
        _I,
        _P,
        _DELTA,
        shape="cube",
        height=0.55,
    ),
    _case("gaussian-filter", "mesh", _MOVE, _I, _P, rfilter="gaussian", border="true"),
    _case("gaussian-filter-no-border", "mesh", _MOVE, _I, _P, rfilter="gaussian"),
    _case("cropped-film", "mesh", _MOVE, _I, _P, size=32, crop_width=20, crop_height=16, crop_x=9, crop_y=10),
    _case(
        "cropped-gaussian",
        "shape",
        _POSE,
        _I,
        _P,
        shape="sphere",
        rfilter="gaussian",
        border="true",
        size=32,
        crop_width=20,
        crop_height=16,
        crop_x=3,
        crop_y=6,
    ),
    _case("seen-lamp-moves", "lamp", _POSE, _I, _P),
    _case("seen-sphere-lamp-moves", "lamp", _POSE, _I, _P, shape="sphere"),
    # --- cut-outs
    _case("cut-out-moves", "mask", _POSE, _I, _P),
    _case("soft-cut-out-texels", "mask", "object.bsdf.opacity.data", _I, filter="bilinear", cut="soft.exr"),
    # --- the camera
    _case("camera-plane-moves", "plane", "camera.to_world translate:x", _I, quick=True),
    _case("camera-plane-turns", "plane", "camera.to_world rotate:y", _I),
    _case("camera-plane-zooms", "plane", "camera.x_fov", _I),
    _case("camera-plane-principal-point", "plane", "camera.principal_point_offset_x", _I),
    _case("camera-sky-turns", "backdrop", "camera.to_world rotate:y", _I, quick=True),
    _case("mirror-sky-turns", "backdrop", "mirror.to_world rotate:y", _I, mirror_z=-1),
    _case("perspective-moves", "camera-perspective", "camera.to_world translate:1,0.3,0", _P, _C, quick=True),
    _case("perspective-approaches", "camera-perspective", "camera.to_world translate:z", _P, _C),
    _case("perspective-turns", "camera-perspective", "camera.to_world rotate:y", _P, _C),
    _case("perspective-zooms", "camera-perspective", "camera.x_fov", _P, _C),
    _case("perspective-principal-point", "camera-perspective", "camera.principal_point_offset_y", _P, _C),
    _case("perspective-creases", "mesh", "camera.to_world translate:x", _I, _P, _C),
    _case(
        "perspective-gaussian",
        "camera-perspective",
        "camera.to_world rotate:z",
        _P,
        _C,
        rfilter="gaussian",
        border="true",
    ),
    _case("orthographic-moves", "camera-orthographic", "camera.to_world translate:1,0.3,0", _P, _C),
    _case("orthographic-turns", "camera-orthographic", "camera.to_world rotate:y@0,0,0", _P, _C),
    _case("thinlens-moves", "camera-thinlens", "camera.to_world translate:1,0.3,0", _P, _C),
    _case("thinlens-turns", "camera-thinlens", "camera.to_world rotate:y", _P, _C),
    # --- shadows: occluder, receiver, light, camera alone
    *(
        _case(f"shadow-{light}-{who}", f"shadow-{light}", motion, _I, need, *more, quick=f"{light}-{who}" in quick)
        for quick in [{"point-occluder", "area-receiver"}]
        for light, need in (
            ("area", _AREA),
            ("environment", _ENV),
            ("point", _DELTA),
            ("spot", _DELTA),
            ("directional", _DELTA),
        )
        for who, motion, more in (
            ("occluder", "blocker.vertex_positions translate:1,0.2,0.3", ()),
            ("receiver", "floor.to_world translate:y", ()),
            (
                "light",
                {
                    "area": "lamp.to_world translate:x",
                    "environment": "sky.to_world rotate:y",
                    "point": "lamp.position translate:x",
                    "spot": "lamp.to_world translate:x",
                    "directional": "lamp.to_world rotate:z",
                }[light],
                (),
            ),
            ("camera", "camera.to_world rotate:x", (_C,) if need == _DELTA else ()),
        )
        if (light, who) != ("environment", "light")  # its own line below
    ),
    _case("shadow-environment-light", "shadow-environment", "sky.to_world rotate:x", _I),
    _case(
        "shadow-point-both",
        "shadow-point",
        "blocker.vertex_positions translate:x + lamp.position translate:0.3,1,0",
        _I,
        _DELTA,
    ),
    _case("self-shadow-turns", "self-shadow", "object.vertex_positions rotate:y", _I, _P, _AREA),
    # --- further along the path
    _case("indirect-occluder", "box", "blocker.to_world translate:x", _I, "indirect"),
    _case("fold-box-moves", "fold", "wall.vertex_positions translate:0.3,0,1", _I, _P, _AREA, "indirect"),
    _case("fold-camera", "fold", "camera.to_world translate:y", _I, _P, _C, _AREA, "indirect"),
    _case("indirect-room-grows", "box", "room.vertex_positions scale", _I, "indirect", _AREA),
    _case("rough-mirror", "mirror", "object.to_world translate:x", _I, _ENV, mirror="rough"),
    _case("perfect-mirror", "mirror", "object.to_world translate:x", "specular-chain"),
    _case("perfect-mirror-turns", "mirror", "mirror.to_world rotate:y", "specular-chain"),
    _case("perfect-mirror-camera", "mirror", "camera.to_world rotate:y", "specular-chain"),
    _case("ball-mirror", "ball-mirror", "object.vertex_positions translate:1,0.3,0.2", "specular-chain"),
    _case(  # behind the ray from the middle of the ball
        "ball-mirror-beyond",
        "ball-mirror",
        "ball.to_world translate:x",
        _P,
        "specular-chain",
        x=0.3,
        y=2.2,
        z=-0.6,
    ),
    _case("ball-mirror-moves", "ball-mirror", "ball.to_world translate:x", _P, "specular-chain"),
    _case("ball-mirror-limb", "ball-mirror-limb", _POSE, "specular-chain"),
    _case("limb-mirror-moves", "limb-mirror", _POSE, _I, "specular-chain"),
    _case("sunk-mirror-moves", "sunk-mirror", "ball.to_world translate:0.2,1,0.4", "specular-chain"),
    _case("two-mirrors", "two-mirrors", "object.vertex_positions translate:1,0.2,0.4", "specular-chain"),
    _case("glass-pane", "glass", "object.to_world translate:x", "specular-chain"),
    _case(  # pixels so small that rays are shifted by a part of one where they go on behind the pane
        "glass-pane-small",
        "glass",
        "object.to_world translate:x",
        "specular-chain",
        quick=True,
        fov=2,
        turn=40,
        radius=0.04,
    ),
    _case("glass-block", "glass", "object.to_world translate:x", "specular-chain", pane="cube", glass="dielectric"),
    _case(
        "glass-block-turns",
        "glass",
        "pane.vertex_positions rotate:y",
        "specular-chain",
        pane="cube",
        glass="dielectric",
    ),
    _case(
        "frosted-glass",
        "glass",
        "object.to_world translate:x",
        _I,
        _ENV,
        "indirect",
        pane="cube",
        glass="roughdielectric",
    ),
    # --- what the camera meets first, in further channels
    _case("aovs-mesh-moves", "aovs", _MOVE, _I, _P, "aovs", quick=True),
    _case("aovs-sphere-moves", "aovs", _POSE, _I, _P, "aovs", shape="sphere", further=""),
    _case("aovs-sunk-cube-moves", "aovs", _MOVE, _I, _P, "aovs", depth=-0.2),
    _case("aovs-camera-turns", "aovs", "camera.to_world rotate:y", _I, _P, _C, "aovs"),
    _case("aovs-gaussian-filter", "aovs", _MOVE, _I, _P, "aovs", rfilter="gaussian", border="true"),
    _case("aovs-wall-alone", "aovs", "wall.bsdf.brdf_0.reflectance.value value:1,0.5,0.2", _I, "aovs", depth=9),
    # --- lights, nothing hidden
    _case("point-intensity", "lights", "point.intensity.value", _I, quick=True),
    _case("point-position", "lights", "point.position translate:x", _I),
    _case("spot-intensity", "lights", "spot.intensity.value", _I),
    _case("spot-turns", "lights", "spot.to_world rotate:z", _I),
    _case("directional-irradiance", "lights", "sun.irradiance.value", _I),
    _case("directional-turns", "lights", "sun.to_world rotate:z", _I),
    _case("environment-texels", "lights", "sky.data", _I),
    _case("environment-scale", "lights", "sky.scale", _I),
    _case("environment-turns", "lights", "sky.to_world rotate:z", _I),
    _case("area-radiance", "lamp-floor", "lamp.emitter.radiance.value value:1,0.5,0.2", _I),
    _case("area-moves", "lamp-floor", "lamp.to_world translate:x", _I, quick=True),
    _case("area-turns", "lamp-floor", "lamp.to_world rotate:x", _I),
    _case("sphere-lamp-moves", "lamp-floor", "lamp.to_world translate:x", _I, shape="sphere"),
    _case("disk-lamp-grows", "lamp-floor", "lamp.to_world scale", _I, shape="disk"),
    _case("seen-lamp-radiance", "lamp", "object.emitter.radiance.value", _I),
    # --- materials
    *(
        _case(id, "materials", motion, _I, **{**_tile(motion), **_STRONGER.get(id, {})})
        for id, motion in (
            ("diffuse-reflectance", "tile-diffuse.bsdf.reflectance.value value:1,0.5,0.2"),
            ("conductor-reflectance", "tile-conductor.bsdf.specular_reflectance.value"),
            ("roughconductor-alpha", "tile-roughconductor.bsdf.alpha.value"),
            ("roughconductor-eta", "tile-roughconductor.bsdf.eta.value"),
            ("roughconductor-reflectance", "tile-roughconductor.bsdf.specular_reflectance.value"),
            ("plastic-diffuse", "tile-plastic.bsdf.diffuse_reflectance.value"),
            ("plastic-specular", "tile-plastic.bsdf.specular_reflectance.value"),
            ("roughplastic-alpha", "tile-roughplastic.bsdf.alpha"),
            ("roughplastic-diffuse", "tile-roughplastic.bsdf.diffuse_reflectance.value"),
            ("principled-base-color", "tile-principled.bsdf.base_color.value"),
            ("principled-roughness", "tile-principled.bsdf.roughness.value"),
            ("principled-metallic", "tile-principled.bsdf.metallic.value"),
            ("principled-specular", "tile-principled.bsdf.specular"),
            ("principled-clearcoat", "tile-principled.bsdf.clearcoat.value"),
            ("principled-clearcoat-gloss", "tile-principled.bsdf.clearcoat_gloss.value"),
            ("principled-anisotropic", "tile-principled.bsdf.anisotropic.value"),
            ("principled-sheen", "tile-principled.bsdf.sheen.value"),
            ("dielectric-transmittance", "tile-dielectric.bsdf.specular_transmittance.value"),
            ("roughdielectric-alpha", "tile-roughdielectric.bsdf.alpha.value"),
            ("roughdielectric-eta", "tile-roughdielectric.bsdf.eta"),
            ("mask-opacity", "tile-mask.bsdf.opacity.value"),
            ("blend-weight", "tile-blend.bsdf.weight.value"),
            ("normal-map-texels", "tile-bumpy.bsdf.normalmap.data"),
            ("texture-texels", "tile-textured.bsdf.reflectance.data"),
        )
    ),
)

#: Cases that no estimator can do because Mitsuba has no derivative there: all must refuse.
REFUSED: dict[str, str] = {
    "roughplastic-alpha": "Mitsuba tabulates the transmittance of a roughplastic without derivatives",
}

#: Slope of the interior term alone, measured, where it is not zero: it is what estimators with no other term give.
INTERIOR_SLOPES: dict[str, float] = {
    "fold-box-moves": 0.63,
    "fold-camera": 0.61,
    "frosted-glass": -0.50,
    "indirect-room-grows": 0.57,
    "limb-camera": 0.47,
    "limb-mirror-moves": 0.49,
    "limb-moves": 0.47,
    "lit-ball-moves": 0.43,
    "mesh-closed-deforms": 0.07,
    "rough-mirror": -0.80,
    "self-shadow-turns": 0.14,
    "sunk-sphere-small": 0.16,
    "shadow-area-camera": 0.28,
    "shadow-area-light": 0.09,
    "shadow-area-receiver": 0.10,
    "shadow-point-both": 0.09,
    "shadow-point-camera": 0.16,
    "shadow-point-receiver": 0.05,
    "shadow-spot-camera": 0.32,
    "shadow-spot-light": 0.13,
    "shadow-spot-receiver": 0.13,
    "terminator-camera": 0.42,
    "terminator-moves": 0.35,
}

#: Estimators that declare a bias: how far off they may be, by fields of `comparison.Settings`.
DECLARED: dict[str, dict[str, float]] = {"warped_area": {"tolerance": 0.05}}

_CURVES = Expectation(RAISES, reason="warped_area does not know the silhouettes of curves")

#: (estimator, case id) -> what differs from the rules.
EXCEPTIONS: dict[tuple[str, str], Expectation] = {
    ("warped_area", "intersecting-bodies"): Expectation(
        frozenset({Verdict.FAIL}), -0.977, "neither body moves as the curve does along which they interpenetrate"
    ),
    ("warped_area", "bspline-curve-moves"): _CURVES,
    ("warped_area", "linear-curve-moves"): _CURVES,
}


def expectation(estimator: str, case: Case) -> Expectation:
    """What the check must say of an estimator of the table on a case."""
    special = EXCEPTIONS.get((estimator, case.id))
    if special is not None:
        return special
    if case.id in REFUSED:
        return Expectation(RAISES, reason=REFUSED[case.id])
    handles = ESTIMATORS[estimator].handles
    missing = case.needs - handles
    if not missing:
        return Expectation(PASS)
    bias = INTERIOR_SLOPES.get(case.id, 0.0) - 1 if handles <= {"interior", "aovs"} else None
    return Expectation(CAUGHT, bias, f"leaves out {', '.join(sorted(missing))}")


def settings_for(estimator: str, case: Case) -> dict[str, float]:
    """Fields of `check.Settings` with which a case is to be checked for an estimator."""
    return {**DECLARED.get(estimator, {}), **case.settings}


def catalogue_folder() -> Path:
    """The folder of the catalogue's scenes, in a checkout or in an installed wheel.

    Raises:
        InputError: the installation has none.
    """
    from pathtracer.scenes.bundled import root

    return root() / "catalogue"


def find_case(id: str) -> Case:
    """The case called `id`.

    Raises:
        UsageError: there is none, with the nearest names.
    """
    from pathtracer.errors import UsageError, nearest_names

    cases = {case.id: case for case in CASES}
    if id not in cases:
        raise UsageError(f"the catalogue has no case {id!r}", nearest=nearest_names(id, cases))
    return cases[id]
