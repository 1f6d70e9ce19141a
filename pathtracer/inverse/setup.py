"""From a job to a problem: loads the scene and the pictures, starts the parameters, makes the estimation."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..capture import Views, load_views
from ..capture.colmap import read_colmap
from ..capture.transforms import read_transforms
from ..capture.views_file import read_views_file
from ..errors import UsageError
from .estimation import Estimation
from .job import Job, ViewsTable, ViewTable
from .losses import make_loss
from .parameters import Parameter
from .problem import Problem

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from .result import Step

#: Options of `[estimator]` that are properties of the Mitsuba plugin.
_PLUGIN = (
    *("interior_spp", "primary_spp", "shadow_spp", "indirect_spp"),
    *("split", "hybrid", "near", "max_depth", "rr_depth"),
)


def build_problem(job: Job, folder: Path) -> tuple[Problem, list[str]]:
    """The problem of a job, and sentences about what was assumed on the way.

    Args:
        job: the job.
        folder: where its relative paths start.
    Raises:
        UsageError, InputError: see `Problem`, `load_scene`, `load_views`.
    """
    from ..scenes import load_scene

    table = job.scene
    root = None if table.root is None else folder / table.root
    defines: dict[str, Any] = dict(table.defines)
    scene = load_scene(folder / table.file, root=root, sanitize=table.sanitize, **defines)
    views = read_views(job.views, folder)
    e = job.estimator
    estimator = {"type": e.name, **e.model_dump(include=set(_PLUGIN), exclude_none=True)}
    options = job.loss.model_dump(include={"delta", "levels"}, exclude_none=True)
    problem = Problem(
        scene,
        views,
        [_parameter(p) for p in job.parameter],
        loss=make_loss(job.loss.kind, **options),
        estimator=estimator,
        spp=e.spp,
        primal_spp=e.primal_spp,
        view_weights=job.loss.weights,
        strict=e.strict,
    )
    return problem, list(views.notes)


def read_views(table: ViewsTable, folder: Path) -> Views:
    """The views of a job, from pictures, `transforms.json`, COLMAP or a views file.

    Args:
        table: `[views]`.
        folder: where its relative paths start.
    Raises:
        UsageError, InputError: see `load_views`, `read_transforms`, `read_colmap`, `read_views_file`.
    """
    v = table
    images: Any = v.images
    notes: list[str] = []
    convention = None
    if v.transforms is not None:
        masks = None if v.masks is None else folder / v.masks
        convention = v.convention or "opengl"
        matrices = v.matrices or "camera-to-world"
        capture = read_transforms(folder / v.transforms, convention, matrices, v.world or "stored", masks)
        images, notes = capture.entries(), capture.notes
    elif v.colmap is not None:
        pictures = None if v.image_folder is None else folder / v.image_folder
        capture = read_colmap(folder / v.colmap, pictures, None if v.masks is None else folder / v.masks)
        images, notes = capture.entries(), capture.notes
    elif v.file is not None:
        _, images = read_views_file(folder / v.file)
    elif not isinstance(images, str):
        images = [i.model_dump(exclude_none=True) if isinstance(i, ViewTable) else i for i in images]
    views = load_views(
        images,
        root=folder,
        mask=v.mask,
        masks=v.masks,
        color=v.color,
        alpha=v.alpha,
        exposure=v.exposure,
        white_balance=v.white_balance,
        sensor=v.sensor,
        lit=v.lit,
        holdout=v.holdout,
        holdout_every=v.holdout_every,
        saturated=v.saturated,
        crop=v.crop,
        downscale=v.downscale,
        resize=None if v.resize is None else (v.resize[0], v.resize[1]),
        sanitize=v.sanitize,
        convention=convention,
        matrices=v.matrices or "camera-to-world",
    )
    views.notes[:0] = [n for n in notes if n not in views.notes]
    return views


def build_estimation(
    job: Job, problem: Problem, state: Mapping[str, np.ndarray] | None = None, history: Sequence[Step] = ()
) -> Estimation:
    """The estimation of a job, from its start or from a checkpoint with the steps that led to it."""
    if job.run.deterministic and job.solver.seconds is not None:
        raise UsageError(
            "a time limit makes the course of a run depend on the machine",
            where="solver.seconds",
            remedy="limit `iterations` in deterministic runs",
        )
    return Estimation(
        problem,
        job.solver.name,
        seed=job.run.seed,
        batch=job.views.batch,
        state=state,
        history=history,
        **job.solver.options(),
    )


def _parameter(table: Any) -> Parameter:
    fields = table.model_dump(exclude_none=True)
    if "bounds" in fields:
        fields["bounds"] = tuple(fields["bounds"])
    return Parameter(**fields)
