"""The image as a linear function of an environment map's texels, in one tracing pass.

    I_p = Σ_t B_pt x_t      p: pixel, t: texel of the map, per colour channel

Every path ends, if at all, in a direction of the environment; instead of looking up the map there, its throughput is
scattered to the four texels that Mitsuba's bilinear lookup would mix. Directions are drawn uniformly over the sphere
and from the material, combined by the power heuristic (Veach and Guibas 1995): nothing depends on what the map holds,
so that B serves every map.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi
import numpy as np
from mitsuba.python.ad.integrators.common import mis_weight

#: Samples of one launch.
_LAUNCH = 1 << 20
#: Points of the tabulated reconstruction filter.
_TABLE = 256


def basis_bytes(pixels: int, texels: int) -> int:
    """Memory of one basis in bytes."""
    return pixels * texels * 3 * 4


def environment_basis(
    scene: mi.Scene,
    sensor: mi.Sensor,
    shape: tuple[int, int],
    seed: int,
    spp: int,
    max_depth: int,
    rr_depth: int,
    hide_emitters: bool = False,
) -> np.ndarray:
    """One Monte Carlo estimate of B.

    Args:
        scene: with an environment map as its environment; what the map holds does not matter.
        sensor: whose picture it is; any reconstruction filter without negative lobes.
        shape: (rows, columns) of the map without its pad columns.
        seed: of this estimate.
        spp: samples per pixel.
        max_depth, rr_depth, hide_emitters: of the path tracer, as in Mitsuba.
    Returns:
        (P, T, 3) float32: radiance of each pixel per unit of each texel (rows x columns, row by row).
    """
    width, height = (int(n) for n in sensor.film().crop_size())
    pixels, texels = width * height, shape[0] * shape[1]
    target = dr.zeros(mi.Float, pixels * texels * 3)
    share = max(1, min(spp, _LAUNCH // pixels))
    launches = -(-spp // share)
    for k in range(launches):
        _trace(
            scene, sensor, shape, int(mi.sample_tea_32(seed, k)[0]), share, max_depth, rr_depth, hide_emitters, target
        )
    return np.array(target).reshape(pixels, texels, 3) / np.float32(launches * share)


def _trace(
    scene: Any,
    sensor: Any,
    shape: tuple[int, int],
    seed: int,
    spp: int,
    max_depth: int,
    rr_depth: int,
    hide_emitters: bool,
    target: Any,
) -> None:
    camera = Camera(sensor, seed, spp)
    environment = scene.environment()
    values = mi.traverse(environment)
    inverse = mi.Transform4f(values["to_world"].matrix).inverse()
    scale = mi.Float(values["scale"])
    weight = camera.weight * scale
    _walk(
        scene,
        camera.sampler,
        camera.ray,
        weight,
        camera.pixel,
        inverse,
        shape,
        max_depth,
        rr_depth,
        hide_emitters,
        target,
    )
    dr.eval(target)


def _profile(rfilter: Any) -> tuple[np.ndarray, np.ndarray]:
    x = np.linspace(-float(rfilter.radius()), float(rfilter.radius()), _TABLE * 2 + 1)
    return x, np.array(rfilter.eval(mi.Float(x.astype(np.float32))), np.float64)


def has_no_lobes(rfilter: Any) -> bool:
    """Whether a reconstruction filter is nowhere negative, so that positions can be drawn from it."""
    if rfilter.is_box_filter():
        return True
    _, h = _profile(rfilter)
    return bool(h.min() >= -1e-6 * h.max())


class Camera:
    """Camera rays of all pixels, a lane for every sample.

    Args:
        sensor: any; its reconstruction filter has no negative lobes.
        seed: of the sampler.
        spp: samples per pixel.
    Attributes:
        sampler: for the rest of the paths.
        pixels: their number.
        pixel: index of the pixel of each lane.
        stratum, stride: where the sample's share of [0, 1) begins among those of its pixel, and how long it is.
        ray: differential-free camera rays.
        weight: (3,) sensor response over the density of the film position.
    """

    def __init__(self, sensor: Any, seed: int, spp: int) -> None:
        film = sensor.film()
        width, height = (int(n) for n in film.crop_size())
        self.pixels = width * height
        lanes = self.pixels * spp
        self.sampler = sampler = mi.load_dict({"type": "independent", "sample_count": spp})
        sampler.seed(dr.opaque(mi.UInt32, seed), lanes)
        lane, per_pixel = dr.arange(mi.UInt32, lanes), dr.opaque(mi.UInt32, spp)
        self.pixel = pixel = lane // per_pixel
        self.stride = 1 / mi.Float(per_pixel)
        self.stratum = mi.Float(lane - pixel * per_pixel) * self.stride
        corner = mi.Point2f(mi.Float(pixel % width), mi.Float(pixel // width))
        offset, weight = _filter_sample(film.rfilter(), corner, sampler.next_2d(), width, height)
        crop = mi.Vector2f(*(float(v) for v in film.crop_offset()))
        size = mi.Vector2f(*(float(v) for v in film.size()))
        place = mi.Point2f((corner + offset + crop) / size)
        aperture = sampler.next_2d() if sensor.needs_aperture_sample() else mi.Point2f(0.5)
        ray, response = sensor.sample_ray(sensor.shutter_open(), 0.5, place, aperture)
        self.ray = mi.Ray3f(ray)
        self.weight = mi.Color3f(response) * weight


def _filter_sample(rfilter: Any, corner: Any, u: Any, width: int, height: int) -> tuple[Any, Any]:
    """A film position relative to the pixel's corner, distributed as the filter, and its weight.

    The film divides by the weights of the samples that it gets: what falls beside it is left out.
    """
    if rfilter.is_box_filter():
        return u, mi.Float(1)
    radius = float(rfilter.radius())
    x, h = _profile(rfilter)
    if not has_no_lobes(rfilter):
        raise ValueError("a reconstruction filter with negative lobes")
    mass = np.concatenate([[0.0], np.cumsum(0.5 * (h[1:] + h[:-1]))])
    mass /= mass[-1]
    inverse = mi.Float(np.interp(np.linspace(0, 1, _TABLE + 1), mass, x).astype(np.float32))
    forward = mi.Float(mass.astype(np.float32))

    def draw(v: Any) -> Any:
        t = v * _TABLE
        k = dr.minimum(mi.UInt32(t), _TABLE - 1)
        return dr.lerp(dr.gather(mi.Float, inverse, k), dr.gather(mi.Float, inverse, k + 1), t - mi.Float(k))

    def below(v: Any) -> Any:
        t = dr.clip((v + radius) / (2 * radius), 0, 1) * (2 * _TABLE)
        k = dr.minimum(mi.UInt32(t), 2 * _TABLE - 1)
        return dr.lerp(dr.gather(mi.Float, forward, k), dr.gather(mi.Float, forward, k + 1), t - mi.Float(k))

    centre = corner + 0.5
    place = mi.Point2f(centre.x + draw(u.x), centre.y + draw(u.y))
    inside = (place.x >= 0) & (place.x < width) & (place.y >= 0) & (place.y < height)
    share = (below(width - centre.x) - below(-centre.x)) * (below(height - centre.y) - below(-centre.y))
    return place - corner, dr.select(inside, 1 / share, 0)


def _scatter(
    target: Any, direction: Any, value: Any, pixel: Any, inverse: Any, shape: tuple[int, int], on: Any
) -> None:
    """Add to the four texels that a lookup in `direction` mixes (envmap.cpp, `eval_spectrum`)."""
    rows, columns = shape
    v = inverse @ mi.Vector3f(direction)
    u = dr.atan2(v.x, -v.z) * dr.inv_two_pi
    x = (u - dr.floor(u)) * columns - 0.5
    y = dr.safe_acos(v.y) * dr.inv_pi * (rows - 1)
    left, top = dr.floor(x), dr.minimum(dr.floor(y), max(rows - 2, 0))
    fx, fy = x - left, y - top
    column = mi.Int32(left)
    for dx, wx in ((0, 1 - fx), (1, fx)):
        c = column + dx
        c = mi.UInt32(dr.select(c < 0, c + columns, dr.select(c >= columns, c - columns, c)))
        for dy, wy in ((0, 1 - fy), (1, fy)):
            r = dr.minimum(mi.UInt32(top) + dy, rows - 1)
            index = (pixel * (rows * columns) + r * columns + c) * 3
            w = wx * wy
            for channel in range(3):
                dr.scatter_reduce(dr.ReduceOp.Add, target, value[channel] * w, index + channel, on)


@dr.syntax
def _walk(
    scene: Any,
    sampler: Any,
    ray: Any,
    weight: Any,
    pixel: Any,
    inverse: Any,
    shape: tuple[int, int],
    max_depth: int,
    rr_depth: int,
    hide_emitters: bool,
    target: Any,
) -> None:
    ctx = mi.BSDFContext()
    density = mi.Float(1 / (4 * np.pi))  # of directions over the sphere
    β = mi.Spectrum(1)
    η = mi.Float(1)
    depth = mi.UInt32(0)
    active = dr.max(weight) > 0
    pdf_prev = mi.Float(1)
    delta_prev = mi.Bool(True)
    while dr.hint(active, max_iterations=max_depth, label="Environment basis"):
        si = scene.ray_intersect(ray, ray_flags=mi.RayFlags.All, coherent=depth == 0, active=active)
        escaped = active & ~si.is_valid()
        if dr.hint(hide_emitters, mode="scalar"):
            escaped &= depth > 0
        mis = dr.select(delta_prev, 1, mis_weight(pdf_prev, density))
        found = mi.Color3f(β) * weight * mis
        _scatter(target, ray.d, found, pixel, inverse, shape, escaped & dr.all(dr.isfinite(found)))

        bsdf = si.bsdf(ray)
        active_next = active & si.is_valid() & (depth + 1 < max_depth)
        u = sampler.next_2d()
        direction = mi.warp.square_to_uniform_sphere(u)
        active_em = active_next & mi.has_flag(bsdf.flags(), mi.BSDFFlags.Smooth)
        wo = si.to_local(direction)
        value, pdf, bs, bsdf_weight = bsdf.eval_pdf_sample(
            ctx, si, wo, sampler.next_1d(), sampler.next_2d(), active_next
        )
        active_em &= dr.max(value) > 0
        active_em &= ~scene.ray_test(si.spawn_ray(direction), coherent=False, active=active_em)
        found = mi.Color3f(β * value) * weight * (mis_weight(density, pdf) / density)
        _scatter(target, direction, found, pixel, inverse, shape, active_em & dr.all(dr.isfinite(found)))

        ray = si.spawn_ray(si.to_world(bs.wo))
        η *= bs.eta
        β *= bsdf_weight
        pdf_prev = bs.pdf
        delta_prev = mi.has_flag(bs.sampled_type, mi.BSDFFlags.Delta)
        β_max = dr.max(β)
        active_next &= β_max != 0
        rr_prob = dr.minimum(β_max * η**2, 0.95)
        rr_active = depth >= rr_depth
        β[rr_active] *= dr.rcp(rr_prob)
        active_next &= ~rr_active | (sampler.next_1d() < rr_prob)
        depth[si.is_valid()] += 1
        active = active_next
