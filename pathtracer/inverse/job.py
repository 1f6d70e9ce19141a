"""Job files: an inverse problem written down, so that it can be run again.

    [scene]
    file = "scene.xml"
    [views]
    images = ["photo.exr"]
    [[parameter]]
    key = "red.reflectance.value"

Relative paths start at the job file's folder. An unknown key, a wrong type or an impossible value is an error that
names its place in the file and the nearest key.
"""

from __future__ import annotations

import difflib
import sys
from pathlib import Path
from typing import Any, Literal

import pydantic
import tomli_w
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from ..errors import InputError, UsageError
from .losses import LOSSES
from .priors import KINDS as PRIORS
from .solvers import SOLVERS
from .solvers.adam import VARIANTS
from .spaces import SPACE_NAMES

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Numbers = float | list[Any]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


class SceneTable(_Table):
    """`[scene]`: the XML file, values of its `<default>`s, the folder that its files must lie in."""

    file: str
    defines: dict[str, str | int | float | bool] = Field(default_factory=dict)
    root: str | None = None
    sanitize: bool = False


#: Where views come from: pictures with the scene's own cameras, or files with cameras of their own.
SOURCES = ("images", "transforms", "colmap", "file")


class ViewTable(_Table):
    """One picture of `views.images` with its own settings."""

    file: str
    name: str | None = None
    mask: str | None = None
    sensor: int | None = None
    camera: dict[str, Any] | None = None
    lit: str | list[str] | None = None
    exposure: float | None = None
    white_balance: list[float] | None = Field(default=None, min_length=3, max_length=3)
    crop: list[int] | None = Field(default=None, min_length=4, max_length=4)
    color: Literal["auto", "linear", "srgb"] | None = None
    sanitize: bool | None = None
    holdout: bool | None = None


class ViewsTable(_Table):
    """`[views]`: what was observed, from one of the sources `images`, `transforms`, `colmap` and `file`."""

    images: str | list[str | ViewTable] | None = None
    transforms: str | None = None
    colmap: str | None = None
    file: str | None = None
    image_folder: str | None = None
    convention: Literal["opengl", "opencv", "mitsuba"] | None = None
    matrices: Literal["camera-to-world", "world-to-camera"] | None = None
    world: Literal["stored", "original"] | None = None
    mask: str | None = None
    masks: str | None = None
    color: Literal["auto", "linear", "srgb"] = "auto"
    alpha: Literal["mask", "black", "ignore"] = "mask"
    exposure: float = 1.0
    white_balance: list[float] = Field(default=[1.0, 1.0, 1.0], min_length=3, max_length=3)
    sensor: int | list[int] = 0
    lit: list[str] | None = None
    holdout: list[str | int] = Field(default_factory=list)
    holdout_every: int = Field(default=0, ge=0)
    crop: list[int] | None = Field(default=None, min_length=4, max_length=4)
    downscale: int = Field(default=1, ge=1)
    saturated: Literal["keep", "mask"] = "keep"
    resize: list[int] | None = Field(default=None, min_length=2, max_length=2)
    sanitize: bool = False
    batch: int = Field(default=0, ge=0)

    @model_validator(mode="after")
    def _one_source(self) -> ViewsTable:
        named = [name for name in SOURCES if getattr(self, name) is not None]
        if len(named) != 1:
            raise ValueError(f"one of {', '.join(SOURCES)} was expected, not {' and '.join(named) or 'none'}")
        only = {"convention": "transforms", "matrices": "transforms", "world": "transforms", "image_folder": "colmap"}
        for key, source in only.items():
            if getattr(self, key) is not None and named[0] != source:
                raise ValueError(f"{key} goes with {source}, not with {named[0]}")
        return self


class PriorTable(_Table):
    """`prior` of a parameter: what is known of it besides the images."""

    kind: str
    weight: float = Field(gt=0)
    edge: float | None = Field(default=None, gt=0)
    mean: float | None = None
    sigma: float | None = Field(default=None, gt=0)

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        return str(_one_of(value, PRIORS))


class ParameterTable(_Table):
    """`[[parameter]]`: what is unknown."""

    key: str
    space: str | None = None
    bounds: list[float] | None = Field(default=None, min_length=2, max_length=2)
    init: Numbers | None = None
    lr: float | None = Field(default=None, gt=0)
    group: str | None = None
    truth: Numbers | Literal["scene"] | None = None
    factor: float | None = None
    prior: PriorTable | list[PriorTable] | None = None
    smooth: float | None = Field(default=None, ge=0)
    freeze_until: int | None = Field(default=None, ge=0)

    @field_validator("space")
    @classmethod
    def _known_space(cls, value: str | None) -> str | None:
        return _one_of(value, SPACE_NAMES)


class LossTable(_Table):
    """`[loss]`: how a render is compared with a picture."""

    kind: str = "l2"
    delta: float | None = Field(default=None, gt=0)
    levels: int | None = Field(default=None, ge=1)
    weights: list[float] | None = None

    @field_validator("kind")
    @classmethod
    def _known_kind(cls, value: str) -> str:
        return str(_one_of(value, LOSSES))


class EstimatorTable(_Table):
    """`[estimator]`: who computes gradients, with how many samples per pixel."""

    name: str = "path_replay"
    spp: int = Field(default=16, ge=1)
    primal_spp: int | None = Field(default=None, ge=1)
    interior_spp: int | None = Field(default=None, ge=1)
    primary_spp: int | None = Field(default=None, ge=1)
    shadow_spp: int | None = Field(default=None, ge=1)
    indirect_spp: int | None = Field(default=None, ge=1)
    split: Literal["equal", "auto"] | None = None
    hybrid: bool | None = None
    near: float | None = Field(default=None, ge=0)
    max_depth: int | None = None
    rr_depth: int | None = None
    strict: bool = False


class SolverTable(_Table):
    """`[solver]`: who moves the parameters, and for how long."""

    name: str = "auto"
    iterations: int | None = Field(default=None, ge=1)
    seconds: float | None = Field(default=None, gt=0)
    rate: float | None = Field(default=None, gt=0)
    decay: float | None = Field(default=None, ge=0, lt=1)
    beta1: float | None = Field(default=None, ge=0, lt=1)
    beta2: float | None = Field(default=None, ge=0, lt=1)
    stop: Literal["auto", "never"] | None = None
    variant: str | None = None
    tiles: int | None = Field(default=None, ge=0)
    tile_size: int | None = Field(default=None, ge=1)
    focus: float | None = Field(default=None, ge=0, lt=1)
    precision: float | None = Field(default=None, gt=0)
    coarse: Literal["auto", "never", "always"] | None = None
    smoothness: float | None = Field(default=None, ge=0)

    @field_validator("variant")
    @classmethod
    def _known_variant(cls, value: str | None) -> str | None:
        return _one_of(value, VARIANTS)

    @field_validator("name")
    @classmethod
    def _known_name(cls, value: str) -> str:
        return str(_one_of(value, ["auto", *SOLVERS]))

    def options(self) -> dict[str, Any]:
        """What was set, for `make_solver`."""
        return self.model_dump(exclude={"name"}, exclude_none=True)


class RunTable(_Table):
    """`[run]`: folder, seed, checkpoints every so many steps, how many are kept."""

    out: str | None = None
    seed: int = Field(default=0, ge=0)
    checkpoint: int = Field(default=50, ge=1)
    keep: int = Field(default=2, ge=2)
    deterministic: bool = False


class ReportTable(_Table):
    """`[report]`: samples per pixel of its pictures (0: no report), export of the scene, files for TensorBoard."""

    spp: int = Field(default=64, ge=0)
    export: bool = True
    tensorboard: bool = False


class Job(_Table):
    """A whole job file."""

    scene: SceneTable
    views: ViewsTable
    parameter: list[ParameterTable] = Field(min_length=1)
    loss: LossTable = Field(default_factory=LossTable)
    estimator: EstimatorTable = Field(default_factory=EstimatorTable)
    solver: SolverTable = Field(default_factory=SolverTable)
    run: RunTable = Field(default_factory=RunTable)
    report: ReportTable = Field(default_factory=ReportTable)

    def to_toml(self) -> str:
        """The job as TOML, without what was left at None."""
        return tomli_w.dumps(self.model_dump(exclude_none=True), multiline_strings=False)

    def resolved(self, folder: Path) -> Job:
        """The same job with every path absolute, so that it runs from anywhere."""

        def absolute(text: str | None) -> str | None:
            return None if text is None else str((folder / text).resolve())

        scene = self.scene.model_copy(
            update={"file": absolute(self.scene.file), "root": absolute(self.scene.root)},
        )
        images: Any = self.views.images
        if isinstance(images, str):
            images = absolute(images)
        elif images is not None:
            images = [
                absolute(i)
                if isinstance(i, str)
                else i.model_copy(update={"file": absolute(i.file), "mask": absolute(i.mask)})
                for i in images
            ]
        paths = ("transforms", "colmap", "file", "image_folder", "mask", "masks")
        views = self.views.model_copy(
            update={"images": images, **{name: absolute(getattr(self.views, name)) for name in paths}}
        )
        return self.model_copy(update={"scene": scene, "views": views})


def read_job(path: str | Path) -> Job:
    """The job of a TOML file.

    Raises:
        InputError: the file is absent or unreadable. UsageError: it is not a valid job.
    """
    path = Path(path)
    if path.is_dir():
        raise InputError("is a folder, a job file was expected", where=path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        near = difflib.get_close_matches(path.name, [p.name for p in path.parent.glob("*.toml")], n=1)
        raise InputError("there is no such job file", where=path, nearest=near) from error
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"cannot be read: {error}", where=path) from error
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"is not valid TOML: {error}", where=path) from error
    return make_job(data, path)


def make_job(data: dict[str, Any], where: str | Path = "job") -> Job:
    """The job of a nested dictionary.

    Raises:
        UsageError: unknown key, wrong type, impossible value; with its path and the nearest key.
    """
    try:
        return Job.model_validate(data)
    except pydantic.ValidationError as error:
        raise _explain(error, where) from error


def _explain(error: pydantic.ValidationError, where: str | Path) -> UsageError:
    # a union reports every branch: an unknown key says most, then the deepest place
    entries = error.errors(include_url=False)
    entry = next((e for e in entries if e["type"] == "extra_forbidden"), None) or max(
        entries, key=lambda e: len(e["loc"])
    )
    location = [part for part in entry["loc"] if isinstance(part, int) or _is_key(part)]
    place = _path(location)
    if entry["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        near = difflib.get_close_matches(str(location[-1]), known, n=2, cutoff=0.5)
        remedy = None if near else f"known here: {', '.join(known)}"
        return UsageError(f"unknown key '{place}'", where=where, nearest=near, remedy=remedy)
    if entry["type"] == "missing":
        return UsageError(f"'{place}' is missing", where=where)
    message = entry["msg"].removeprefix("Value error, ")
    message = message[:1].lower() + message[1:]
    given = "" if isinstance(entry["input"], dict) else f", not {entry['input']!r}"
    return UsageError(f"'{place}': {message}{given}", where=where)


def _is_key(part: str) -> bool:
    # names of union branches appear in pydantic's locations
    return (
        part not in ("str", "int", "float", "bool")
        and not part.startswith(("list[", "literal[", "dict["))
        and part not in ("ViewTable", "PriorTable")
    )


def _path(location: list[Any]) -> str:
    text = ""
    for part in location:
        text += f"[{part + 1}]" if isinstance(part, int) else f"{'.' if text else ''}{part}"
    return text


def _keys_at(location: list[Any]) -> list[str]:
    tables: dict[str, type[BaseModel]] = {
        "scene": SceneTable,
        "views": ViewsTable,
        "parameter": ParameterTable,
        "loss": LossTable,
        "estimator": EstimatorTable,
        "solver": SolverTable,
        "run": RunTable,
        "report": ReportTable,
    }
    names = [part for part in location if isinstance(part, str)]
    model: type[BaseModel] = tables[names[0]] if names else Job
    if names[1:] == ["images"]:
        model = ViewTable
    elif names[1:] == ["prior"]:
        model = PriorTable
    return list(model.model_fields)


def _one_of(value: str | None, known: Any) -> str | None:
    if value is None or value in known:
        return value
    near = difflib.get_close_matches(value, list(known), n=1, cutoff=0.5)
    hint = f"; did you mean '{near[0]}'?" if near else ""
    raise ValueError(f"one of {', '.join(known)} was expected{hint}")
