"""How time and memory grow with samples, pixels, triangles, parameters, depth and views."""

from __future__ import annotations

from typing import Any

import numpy as np

from .worker import Clock, peak_memory

#: axis -> (sizes of the quick suite, further sizes of the full one, estimator, what is measured)
AXES: dict[str, tuple[tuple[int, ...], tuple[int, ...], str, str]] = {
    "samples": ((64, 256, 1024), (4096,), "edge_sampling", "samples per pixel; a moving cube, 24 x 24 pixels"),
    "pixels": ((1024, 4096, 16384), (65536,), "edge_sampling", "pixels; a moving cube, 16 samples each"),
    "triangles": ((1000, 10000, 100000), (1000000,), "edge_sampling", "triangles of a moving sphere"),
    "parameters": ((256, 4096, 65536), (1048576,), "path_replay", "texels of an albedo texture"),
    "depth": ((2, 4, 8), (16, 32), "path_replay", "path depth in a closed room, its wall's colour"),
    "views": ((4, 16, 64), (256,), "path_replay", "views of 32 x 32 pixels that a step compares with their pictures"),
}


def run_axis(axis: str, sizes: list[int], estimator: str, repeats: int, seed: int) -> dict[str, Any]:
    """Time of later gradients (backward mode) and peak memory for each size, ascending.

    Returns:
        sizes; first, wall, cpu: seconds of the first and of later gradients; memory: MiB above the program itself.
    """
    base = peak_memory()
    result: dict[str, list[float]] = {"first": [], "wall": [], "cpu": [], "memory": []}
    for size in sizes:
        if axis == "views":
            clocks = _steps(size, estimator, repeats, seed)
        else:
            clocks = _gradients(axis, size, estimator, repeats, seed)
        result["first"].append(clocks[0].wall)
        result["wall"].append(float(np.median([c.wall for c in clocks[1:]])))
        result["cpu"].append(float(np.median([c.cpu for c in clocks[1:]])))
        result["memory"].append(peak_memory() - base)
    return {"sizes": sizes, **result}


def _gradients(axis: str, size: int, estimator: str, repeats: int, seed: int) -> list[Clock]:
    """The first and `repeats` later gradients of one picture."""
    import drjit as dr
    import mitsuba as mi

    scene, key, spp = _build(axis, size)
    params = mi.traverse(scene)
    integrator = mi.load_dict({"type": estimator, "max_depth": size if axis == "depth" else 3, "rr_depth": 1000})
    width, height = (int(v) for v in scene.sensors()[0].film().crop_size())
    adjoint = dr.full(mi.TensorXf, 1 / (width * height), (height, width, 3))
    start = type(params[key])(params[key])
    clocks = []
    for k in range(repeats + 1):
        leaf = type(start)(start)
        dr.enable_grad(leaf)
        params[key] = leaf
        params.update()
        with Clock() as clock:
            integrator.render_backward(
                scene, params, adjoint, scene.sensors()[0], seed=dr.opaque(mi.UInt32, seed + k), spp=spp
            )
            dr.eval(dr.grad(leaf))
        clocks.append(clock)
        params[key] = start
        params.update()
    return clocks


def _steps(views: int, estimator: str, repeats: int, seed: int) -> list[Clock]:
    """The first and `repeats` later steps over so many views, each with a camera of its own."""
    import pathtracer as pt
    from pathtracer.capture import View
    from pathtracer.inverse.objective import Objective
    from pathtracer.scenes import Scene

    from .subjects import around, convex

    scene = Scene.from_dict(convex("cube", 32))
    target = np.full((32, 32, 3), 0.5, dtype=np.float32)
    pictures = [View(str(k), target, sensor=around(k, views, 32)) for k in range(views)]
    problem = pt.Problem(
        scene, pictures, [pt.Parameter("object.bsdf.brdf_0.reflectance.value")], "l2", estimator, spp=4
    )
    objective = Objective(problem, seed)
    clocks = []
    for step in range(repeats + 1):
        with Clock() as clock:
            objective.evaluate(objective.start, step)
        clocks.append(clock)
    return clocks


def exponent(sizes: list[float], values: list[float]) -> float:
    """Slope of log(value) over log(size) between the two largest sizes: what further growth will cost."""
    if len(sizes) < 2 or min(values[-2:]) <= 0:
        return float("nan")
    return float(np.log(values[-1] / values[-2]) / np.log(sizes[-1] / sizes[-2]))


def _build(axis: str, size: int) -> tuple[Any, str, int]:
    """Scene, attached parameter and samples per pixel."""
    import mitsuba as mi

    from .subjects import convex

    if axis in ("samples", "pixels"):
        side = 24 if axis == "samples" else round(size**0.5)
        scene = mi.load_dict(convex("cube", side), optimize=False)
        return scene, "object.vertex_positions", size if axis == "samples" else 16
    if axis == "triangles":
        description = convex("cube", 24)
        description["object"] = _sphere(size, description["object"]["bsdf"])
        return mi.load_dict(description, optimize=False), "object.vertex_positions", 64
    if axis == "parameters":
        side = round(size**0.5)
        description = convex("cube", 64)
        texture = mi.Bitmap(np.full((side, side, 3), 0.5, dtype=np.float32))
        reflectance = {"type": "bitmap", "bitmap": texture, "raw": True}
        description["object"] = {"type": "cube", "bsdf": {"type": "diffuse", "reflectance": reflectance}}
        return mi.load_dict(description, optimize=False), "object.bsdf.reflectance.data", 64
    description = mi.cornell_box()
    description["sensor"]["film"].update(width=32, height=32)
    return mi.load_dict(description, optimize=False), "red.reflectance.value", 64


def _sphere(triangles: int, bsdf: dict[str, Any]) -> Any:
    """A sphere of about so many triangles, as a mesh."""
    import mitsuba as mi

    rows = max(4, round((triangles / 4) ** 0.5))
    columns = 2 * rows
    theta, phi = np.meshgrid(np.linspace(0, np.pi, rows + 1), np.arange(columns) * 2 * np.pi / columns, indexing="ij")
    points = np.stack([np.sin(theta) * np.cos(phi), np.cos(theta), np.sin(theta) * np.sin(phi)], axis=-1) * 0.9
    i, j = np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij")
    a, b = i * columns + j, i * columns + (j + 1) % columns
    c, d = a + columns, b + columns
    faces = np.concatenate([np.stack([a, b, c], -1).reshape(-1, 3), np.stack([b, d, c], -1).reshape(-1, 3)])
    properties = mi.Properties()
    properties["bsdf"] = mi.load_dict(bsdf)
    mesh = mi.Mesh("sphere", points.reshape(-1, 3).shape[0], len(faces), props=properties)
    values = mi.traverse(mesh)
    values["vertex_positions"] = mi.Float(points.astype(np.float32).ravel())
    values["faces"] = mi.UInt32(faces.astype(np.uint32).ravel())
    values.update()
    return mesh
