"""SoftRasterizer: triangles with soft edges, blended by depth (Liu, Li, Chen, Li 2019).

    D_ij = sigmoid(± d_ij² / σ)                            influence of triangle j on pixel i             (E1)
    w_ij = D_ij exp(z_ij / γ) / Σ_k D_ik exp(z_ik / γ)                       blending weights              (E2)
    A_i  = 1 − Π_j (1 − D_ij)                                                soft silhouette               (E3)
    I_i  = A_i Σ_j w_ij C_ij + (1 − A_i) C_b                                 colour                        (E4)

d is the distance on the film from the pixel to the triangle's outline in units of half the larger side of the film
(+ inside, − outside), z = (far − depth) / (far − near) over the corners of the scene, C the Lambertian colour of the
nearest point of the triangle (`raster/shading.py`). The paper's own blending, with the background as one more term
exp(ε / γ) of the softmax instead of (E4), is `background = softmax`: at small γ an object is drawn over every pixel
that any of its triangles reaches, and its colours hold no gradient of the outline.

The derivatives are exact for this image, without noise; the image is not that of a path tracer: no shadows, no
interreflection, soft edges. A baseline and a control, and a help from far away, because a pixel feels triangles that do
not cover it.

Derivative by two passes, in bounded memory: with the mean M_i = Σ w C and the normaliser B_i known,

    dM_i = Σ_j [(C_ij − M_i) dw̃_ij + w_ij dC_ij],    dA_i = −(1 − A_i) Σ_j d log(1 − D_ij)                (E5)

with w̃ the weights over the fixed B_i: sums over independent (pixel, triangle) pairs.
Derivation: docs/theory/soft_rasterizer.md.
"""

from __future__ import annotations

from typing import Any

import drjit as dr
import mitsuba as mi

from .raster.base import Rasterizer, pixel_centres
from .raster.shading import Shading, surface_point
from .raster.triangles import Row, Triangles

#: (pixel, triangle) pairs of one launch of the derivative.
MAX_LANES = 1 << 21
#: ε of (E2): the depth of the background, as in the authors' program.
BACKGROUND = 1e-3


class SoftRasterizer(Rasterizer):
    """Mitsuba plugin `soft_rasterizer`.

    Properties:
        sigma: sharpness of the edges, in squared halves of the film's larger side (default 1e-4).
        gamma: sharpness of the choice of the nearest triangle (default 1e-2). A nearer triangle is drawn as far as
            √(σ Δz / γ) beyond its outline, because nothing is cut off: keep σ well below γ.
        supersampling: parts of a pixel along each axis whose mean is its value (default 1).
        light_divisions: points along each edge of a triangle of an area light (default 2).
        background: "silhouette" (E4, default) or "softmax" (the paper's).
        silhouette: the image is the soft silhouette A in every channel (default false).
        hide_emitters: a constant environment is not seen directly.

    Raises (when rendered):
        UnsupportedGradient: see `raster.base.Rasterizer`.
    """

    name = "soft_rasterizer"

    def __init__(self, props: mi.Properties) -> None:
        super().__init__(props)
        self.sigma = float(props.get("sigma", 1e-4))
        self.gamma = float(props.get("gamma", 1e-2))
        self.supersampling = int(props.get("supersampling", 1))
        self.silhouette = bool(props.get("silhouette", False))
        self.softmax = {"silhouette": False, "softmax": True}.get(str(props.get("background", "silhouette")))
        if self.softmax is None:
            raise ValueError("soft_rasterizer: background is 'silhouette' or 'softmax'")
        if self.sigma <= 0 or self.gamma <= 0 or self.supersampling < 1:
            raise ValueError("soft_rasterizer: sigma and gamma must be positive, supersampling at least 1")

    # -------------------------------------------------------------- the image

    def draw(self, scene: mi.Scene, sensor: mi.Sensor) -> mi.TensorXf:
        triangles, shading = self.prepare_scene(scene, sensor)
        mean, silhouette, _ = self._blend(triangles, shading, sensor)
        return self._tensor(sensor, self._over(mean, silhouette, self.background(shading)), silhouette)

    def _over(self, mean: mi.Color3f, silhouette: mi.Float, back: mi.Color3f) -> mi.Color3f:
        return mean if self.softmax else mi.Color3f(mean * silhouette + back * (1 - silhouette))

    def _blend(
        self, triangles: Triangles, shading: Shading, sensor: mi.Sensor
    ) -> tuple[mi.Color3f, mi.Float, mi.Float]:
        """M, silhouette and log B (see the module) of every part of a pixel; nothing is differentiated."""
        with dr.suspend_grad():
            q = pixel_centres(sensor, self.supersampling)
            back = self.background(shading)
            index = dr.zeros(mi.UInt32, dr.width(q))
            first = 1.0 if self.softmax else 0.0  # the background as a term of the softmax
            most = dr.full(
                mi.Float, BACKGROUND / self.gamma if self.softmax else -1e30, dr.width(q)
            )  # largest exponent
            total = dr.full(mi.Float, first, dr.width(q))  # Σ exp(exponent − most)
            color = mi.Color3f(back) * first + dr.zeros(mi.Color3f, dr.width(q))
            clear = dr.zeros(mi.Float, dr.width(q))  # log Π (1 − D)
            count = dr.opaque(mi.UInt32, triangles.count)
            near, far = triangles.depth_range(triangles.table) if triangles.count else (mi.Float(0), mi.Float(1))
            far = dr.maximum(far, near + 1e-6)

            def more(index: Any, most: Any, total: Any, color: Any, clear: Any) -> Any:
                return index < count

            def add(index: Any, most: Any, total: Any, color: Any, clear: Any) -> Any:
                row = triangles.row(triangles.table, index)
                exponent, outside, c = self._fragment(row, shading, q, near, far, mi.Bool(True))
                larger = dr.maximum(most, exponent)
                old, new = dr.exp(most - larger), dr.exp(exponent - larger)
                return index + 1, larger, total * old + new, color * old + c * new, clear + outside

            if triangles.count:
                _, most, total, color, clear = dr.while_loop((index, most, total, color, clear), more, add)
            total = dr.maximum(total, 1e-30)
            mean, silhouette, log_total = color / total, 1 - dr.exp(clear), most + dr.log(total)
            dr.eval(mean, silhouette, log_total)
            return mean, silhouette, log_total

    def _fragment(
        self, row: Row, shading: Shading, q: mi.Point2f, near: mi.Float, far: mi.Float, active: mi.Bool
    ) -> tuple[mi.Float, mi.Float, mi.Color3f]:
        """One triangle at one film position: log of its weight before normalisation, log(1 − D), colour."""
        size = _halves_per_pixel(self._film_side)
        weights, solid = row.barycentrics(q)
        inside = solid & (weights[0] >= 0) & (weights[1] >= 0) & (weights[2] >= 0)
        square = dr.minimum(
            dr.minimum(_segment(q, row.film[0], row.film[1]), _segment(q, row.film[1], row.film[2])),
            _segment(q, row.film[2], row.film[0]),
        )
        x = dr.select(inside, 1.0, -1.0) * square * (dr.square(size) / self.sigma)
        # log sigmoid(x) and log(1 − sigmoid(x)) without cancellation
        tail = dr.log(1 + dr.exp(-dr.abs(x)))
        covered, outside = dr.minimum(x, 0) - tail, dr.minimum(-x, 0) - tail
        clamped = [dr.clip(w, 0, 1) for w in weights]
        rest = dr.maximum(clamped[0] + clamped[1] + clamped[2], 1e-8)
        in_space = row.in_space([c / rest for c in clamped])
        depth = sum((w * z for w, z in zip(in_space, row.depth, strict=True)), mi.Float(0))
        point = surface_point(row, in_space)
        color = shading.color(row, point, mi.Vector3f(self._eye(point)), active)
        exponent = covered + (far - depth) / (far - near) / self.gamma
        # A triangle seen from its side covers nothing
        return dr.select(solid, exponent, -1e30), dr.select(solid, outside, 0), color

    def _eye(self, point: Any) -> mi.Vector3f:
        return mi.Vector3f(-self._direction if self._parallel else self._origin - point.p)

    def prepare_scene(self, scene: mi.Scene, sensor: mi.Sensor) -> tuple[Triangles, Shading]:
        with dr.suspend_grad():
            to_world = sensor.world_transform()
            self._origin = mi.Point3f(to_world @ mi.Point3f(0, 0, 0))
            self._direction = mi.Vector3f(to_world @ mi.Vector3f(0, 0, 1))
            self._parallel = sensor.class_name() == "OrthographicCamera"
            self._film_side = max(int(v) for v in sensor.film().size())
        return super().prepare_scene(scene, sensor)

    def _tensor(self, sensor: mi.Sensor, color: mi.Color3f, silhouette: mi.Float) -> mi.TensorXf:
        height, width, channels = self.film_shape(sensor)
        values = [silhouette] * 3 if self.silhouette else [color.x, color.y, color.z]
        values = [*values, silhouette][:channels]
        pixels = height * width
        pixel = dr.arange(mi.UInt32, dr.width(color)) % dr.opaque(mi.UInt32, pixels)
        flat = dr.zeros(mi.Float, pixels * channels)
        for k, value in enumerate(values):
            dr.scatter_add(flat, value / self.supersampling**2, pixel * channels + k)
        return mi.TensorXf(flat, shape=(height, width, channels))

    # -------------------------------------------------------------- its derivatives

    def render_forward(
        self, scene: mi.Scene, params: Any, sensor: int | mi.Sensor = 0, seed: Any = 0, spp: int = 0
    ) -> mi.TensorXf:
        """The derivative image along the tangents that `params` carry; `seed` and `spp` are ignored."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        self.require(scene, params)
        triangles, shading = self.prepare_scene(scene, sensor)
        flags = dr.ADFlag.ClearEdges | dr.ADFlag.AllowNoGrad
        dr.forward_to(triangles.table, flags=flags)
        tangent = dr.grad(triangles.table)
        dr.eval(tangent)
        primal = self._blend(triangles, shading, sensor)
        color, silhouette = dr.zeros(mi.Color3f, dr.width(primal[1])), dr.zeros(mi.Float, dr.width(primal[1]))
        for pixel, δcolor, δsilhouette in self._pairs(scene, sensor, triangles, primal, tangent):
            dr.forward_to(δcolor, δsilhouette, flags=flags)
            for total, part in ((color.x, δcolor.x), (color.y, δcolor.y), (color.z, δcolor.z)):
                dr.scatter_add(total, dr.grad(part), pixel)
            dr.scatter_add(silhouette, dr.grad(δsilhouette), pixel)
            dr.eval(color, silhouette)
        return self._tensor(sensor, color, silhouette)

    def render_backward(
        self,
        scene: mi.Scene,
        params: Any,
        grad_in: mi.TensorXf,
        sensor: int | mi.Sensor = 0,
        seed: Any = 0,
        spp: int = 0,
    ) -> None:
        """Accumulate the gradient of <grad_in, image> into the attached parameters; `seed` and `spp` are ignored."""
        sensor = scene.sensors()[sensor] if isinstance(sensor, int) else sensor
        self.require(scene, params)
        triangles, shading = self.prepare_scene(scene, sensor)
        primal = self._blend(triangles, shading, sensor)
        height, width, channels = self.film_shape(sensor)
        pixel = dr.arange(mi.UInt32, dr.width(primal[1])) % dr.opaque(mi.UInt32, height * width)
        adjoint = [
            dr.gather(mi.Float, grad_in.array, pixel * channels + k) / self.supersampling**2 for k in range(channels)
        ]
        none = dr.zeros(mi.Float, dr.width(pixel))
        alpha = adjoint[3] if channels == 4 else none
        if self.silhouette:
            adjoint, alpha = [none, none, none], adjoint[0] + adjoint[1] + adjoint[2] + alpha
        dr.eval(adjoint, alpha)
        leaf = dr.detach(triangles.table)
        dr.enable_grad(leaf)
        for part, δcolor, δsilhouette in self._pairs(scene, sensor, triangles, primal, leaf=leaf):
            value = δsilhouette * dr.gather(mi.Float, alpha, part)
            for k, channel in enumerate((δcolor.x, δcolor.y, δcolor.z)):
                value += channel * dr.gather(mi.Float, adjoint[k], part)
            if dr.grad_enabled(value):
                dr.backward_from(value, flags=dr.ADFlag.ClearInterior)
            dr.eval(dr.grad(leaf))
        if dr.grad_enabled(triangles.table):
            dr.backward_from(triangles.table * dr.grad(leaf), flags=dr.ADFlag.ClearInterior)

    def _pairs(
        self,
        scene: mi.Scene,
        sensor: mi.Sensor,
        triangles: Triangles,
        primal: tuple[mi.Color3f, mi.Float, mi.Float],
        tangent: mi.Float | None = None,
        leaf: mi.Float | None = None,
    ) -> Any:
        """Surrogates whose derivatives add up to those of colour and silhouette (E4), launch by launch.

        Args:
            tangent: derivatives of the table, for forward mode.
            leaf: copy of the table that collects gradients, for backward mode.

        Yields:
            index of the part of a pixel, attached colour, attached silhouette; the sum of their derivatives over all
            entries with one index is the derivative there.
        """
        means, silhouette, log_total = primal
        parts = dr.width(silhouette)
        q = pixel_centres(sensor, self.supersampling)
        every = dr.arange(mi.UInt32, parts)
        # The background: its own weight does not move, its colour may
        shading = Shading(scene, triangles, self.name, self.light_divisions)
        back = self.background(shading)
        yield (
            every,
            back * (dr.exp(BACKGROUND / self.gamma - log_total) if self.softmax else 1 - silhouette),
            mi.Float(0),
        )
        share = max(1, MAX_LANES // parts)
        for start in range(0, triangles.count, share):
            table = leaf
            if tangent is not None:
                table = dr.detach(triangles.table)
                dr.enable_grad(table)
                dr.set_grad(table, tangent)
            shading = Shading(scene, triangles, self.name, self.light_divisions)
            number = min(share, triangles.count - start)
            lane = dr.arange(mi.UInt32, number * parts)
            index = lane // dr.opaque(mi.UInt32, parts) + dr.opaque(mi.UInt32, start)
            part = lane % dr.opaque(mi.UInt32, parts)
            row = triangles.row(table, index)
            near, far = triangles.depth_range(table)
            far = dr.maximum(far, near + 1e-6)
            here = dr.gather(mi.Point2f, q, part)
            exponent, outside, c = self._fragment(row, shading, here, near, far, mi.Bool(True))
            weight = dr.exp(exponent - dr.gather(mi.Float, log_total, part))
            mean = dr.gather(mi.Color3f, means, part)
            δcolor = weight * (dr.detach(c) - mean) + dr.detach(weight) * c
            covered = dr.gather(mi.Float, silhouette, part)
            δsilhouette = (covered - 1) * outside
            if not self.softmax:
                δcolor = covered * δcolor + (mean - dr.detach(back)) * δsilhouette
            yield part, mi.Color3f(δcolor), δsilhouette

    def to_string(self) -> str:
        return f"SoftRasterizer[sigma = {self.sigma}, gamma = {self.gamma}, supersampling = {self.supersampling}]"


def _halves_per_pixel(side: int) -> mi.Float:
    """Halves of the film's larger side per pixel."""
    return dr.opaque(mi.Float, 2.0 / side)


def _segment(q: mi.Point2f, a: mi.Point2f, b: mi.Point2f) -> mi.Float:
    """Squared distance of a film position from a segment, in pixels."""
    along = b - a
    length = dr.squared_norm(along)
    t = dr.clip(dr.dot(q - a, along) / dr.maximum(length, 1e-12), 0, 1)
    return dr.squared_norm(q - a - along * t)
