"""Time of path_replay against Mitsuba's own integrators, paired in one run.

    python benchmarks/speed.py [--rounds 15] [--resolution 128] [--spp 16] [-o speed.json]

Rows: the primal image against `path`, a gradient step against `prb` (materials and lights, as in most inverse
problems; and a moving mesh), what a step takes besides its kernels (`pt.Estimation`, which replays a recording, against
a plain script that traces `prb` every time), and the time to the first gradient (tracing and compiling included, kernel
cache empty).
Every round measures all contenders one after the other in alternating order; a ratio below 1 means that path_replay is
faster. Ratios are medians over rounds with their quartiles, since machines are noisy.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

RESULTS = Path(__file__).with_name("results")


def scene_and_params(resolution: int):
    """The bundled Cornell box and the parameters of a usual inverse problem."""
    from pathtracer.scenes import load_scene

    scene = load_scene(Path(__file__).parents[1] / "scenes" / "cornell-box" / "scene.xml", res=resolution)
    return scene.mi, scene.params


def timed(action: Callable[[], object]) -> float:
    """Seconds that `action` and all the kernels that it launches need."""
    import drjit as dr

    dr.sync_thread()
    start = time.perf_counter()
    dr.eval(action())
    dr.sync_thread()
    return time.perf_counter() - start


def gradient_step(mi_scene, params, keys, integrator, spp: int, seed: int) -> None:
    """One step of an optimisation: primal image, squared loss, gradient of `keys`."""
    import drjit as dr
    import mitsuba as mi

    for key in keys:
        params[key] = dr.detach(params[key])
        dr.enable_grad(params[key])
    params.update()
    image = mi.render(mi_scene, params, integrator=integrator, spp=spp, seed=2 * seed, seed_grad=2 * seed + 1)
    dr.backward(dr.mean(dr.square(image - 0.5)))
    dr.eval([dr.grad(params[key]) for key in keys])


def paired(contenders: dict[str, Callable[[int], object]], rounds: int) -> dict[str, list[float]]:
    """Times of every contender over `rounds`, in alternating order, after two warm-up rounds."""
    times: dict[str, list[float]] = {name: [] for name in contenders}
    for round_ in range(rounds + 2):
        order = list(contenders) if round_ % 2 else list(contenders)[::-1]
        for name in order:
            seconds = timed(lambda name=name, round_=round_: contenders[name](round_ + 1))
            if round_ >= 2:
                times[name].append(seconds)
    return times


def summary(ours: list[float], theirs: list[float]) -> dict[str, float]:
    """Median times in milliseconds, and the median ratio of each round with its quartiles."""
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return {
        "ours_ms": 1e3 * statistics.median(ours),
        "theirs_ms": 1e3 * statistics.median(theirs),
        "ratio": middle,
        "ratio_low": low,
        "ratio_high": high,
    }


def overheads(action: Callable[[int], object], rounds: int) -> list[float]:
    """Seconds of every call that its kernels do not account for, after three warm-up calls."""
    import drjit as dr

    found = []
    with dr.scoped_set_flag(dr.JitFlag.KernelHistory, True):
        for round_ in range(rounds + 3):
            dr.sync_thread()
            dr.kernel_history_clear()
            seconds = timed(lambda round_=round_: action(round_ + 1))
            kernels = 1e-3 * sum(k["execution_time"] for k in dr.kernel_history())
            if round_ >= 3:
                found.append(seconds - kernels)
    return found


def estimation_step(keys: list[str], spp: int) -> Callable[[int], object]:
    """One step of `pt.Estimation` with Adam on the bundled Cornell box."""
    import pathtracer as pt

    folder = Path(__file__).parents[1] / "scenes" / "cornell-box"
    problem = pt.Problem(pt.load_scene(folder / "scene.xml"), pt.load_views(folder / "reference.exr"), keys, spp=spp)
    run = pt.Estimation(problem, "adam")

    def step(_: int) -> None:
        run.step()

    return step


FIRST = """
import sys, time
from pathlib import Path
sys.path[:0] = {path!r}
from pathtracer.runtime import activate
activate()
import mitsuba as mi
from benchmarks.speed import gradient_step, scene_and_params
scene, params = scene_and_params({resolution})
integrator = mi.load_dict({{"type": {name!r}, "max_depth": 6}})
start = time.perf_counter()
gradient_step(scene, params, {keys!r}, integrator, {spp}, 1)
print(time.perf_counter() - start)
"""


def first_gradient(name: str, keys: list[str], resolution: int, spp: int) -> float:
    """Seconds to the first gradient in a new process with an empty kernel cache."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as cache:
        code = FIRST.format(path=[str(root)], resolution=resolution, name=name, keys=keys, spp=spp)
        environment = {**os.environ, "DRJIT_CACHE_DIR": cache}
        done = subprocess.run(
            [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, cwd=root
        )
    return float(done.stdout.split()[-1])


def measure(rounds: int, resolution: int, spp: int) -> dict[str, dict[str, float]]:
    """All rows of the table."""
    import mitsuba as mi

    scene, params = scene_and_params(resolution)
    load = {name: mi.load_dict({"type": name, "max_depth": 6}) for name in ("path", "prb", "path_replay")}
    rows = {}

    def primal(name: str) -> Callable[[int], object]:
        return lambda seed: mi.render(scene, integrator=load[name], spp=spp, seed=seed)

    times = paired({"path_replay": primal("path_replay"), "path": primal("path")}, rounds)
    rows["primal image, against path"] = summary(times["path_replay"], times["path"])

    problems = {
        "materials and light": [k for k in params.keys() if k.endswith(("reflectance.value", "radiance.value"))],  # noqa: SIM118
        "moving mesh": [next(k for k in params.keys() if k.endswith("vertex_positions"))],  # noqa: SIM118
    }
    for problem, keys in problems.items():

        def step(name: str, keys: list[str] = keys) -> Callable[[int], object]:
            return lambda seed: gradient_step(scene, params, keys, load[name], spp, seed)

        times = paired({"path_replay": step("path_replay"), "prb": step("prb")}, rounds)
        rows[f"gradient step, {problem}, against prb"] = summary(times["path_replay"], times["prb"])

    keys = problems["materials and light"]
    ours = overheads(estimation_step(keys, spp), rounds)
    theirs = overheads(lambda seed: gradient_step(scene, params, keys, load["prb"], spp, seed), rounds)
    rows["a step besides its kernels, against prb in a plain script"] = summary(ours, theirs)

    ours, theirs = [], []
    for _ in range(5):
        ours.append(first_gradient("path_replay", keys, resolution, spp))
        theirs.append(first_gradient("prb", keys, resolution, spp))
    rows["first gradient (new process, no kernel cache), against prb"] = summary(ours, theirs)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--resolution", type=int, default=128)
    parser.add_argument("--spp", type=int, default=16)
    parser.add_argument("-o", "--output", type=Path, default=RESULTS / "speed.json")
    options = parser.parse_args()

    from pathtracer.runtime import activate

    variant = activate()
    rows = measure(options.rounds, options.resolution, options.spp)
    import drjit
    import mitsuba

    record = {
        "variant": variant,
        "processor": platform.processor() or platform.machine(),
        "cores": os.cpu_count(),
        "mitsuba": mitsuba.__version__,
        "drjit": drjit.__version__,
        "resolution": options.resolution,
        "spp": options.spp,
        "rounds": options.rounds,
        "rows": rows,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    options.output.write_text(json.dumps(record, indent=2) + "\n")
    print(f"{'':62s}{'ours':>10s}{'theirs':>10s}{'ratio':>8s}  (quartiles)")
    for name, row in rows.items():
        quartiles = f"({row['ratio_low']:.2f}-{row['ratio_high']:.2f})"
        print(f"{name:62s}{row['ours_ms']:8.1f}ms{row['theirs_ms']:8.1f}ms{row['ratio']:8.2f}  {quartiles}")


if __name__ == "__main__":
    main()
