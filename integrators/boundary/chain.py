"""Chains of perfectly specular bounces between the camera and what it sees, as part of the camera.

A chain is a sequence of events (which flat face or curved shape; reflection or refraction). For a given chain a film
position u determines one ray (o, d) behind the last bounce, differentiably. Which chains a picture shows is found by
tracing film positions through all events; that is done on the host, in `prepare_scene`.
"""

from __future__ import annotations

import drjit as dr
import mitsuba as mi
import numpy as np

from ..specular_chain import lobe_number
from .camera import FilmMap
from .device import upload
from .film import FilmSplat
from .limits import Limit
from .silhouettes import Silhouettes
from .tables import MESH

#: Film positions that are traced to find the chains, and the most chains that are followed, the widest first.
PROBES, MOST = 1 << 14, 32
#: Film positions kept of each chain, for Newton's method to start from.
STARTS = 32
#: No face, no shape.
NONE = 0xFFFFFFFF
#: Sine of the angle below which two faces count as one plane.
FLAT = 1e-3
_KINDS = (mi.BSDFFlags.DeltaReflection, mi.BSDFFlags.DeltaTransmission, mi.BSDFFlags.Null)
REFLECTION, TRANSMISSION, NULL = range(3)


class ChainTables:
    """The chains that a film shows; on the device, in arrays of fixed size, for recorded steps.

    Args:
        scene: the scene at its current parameters.
        curves: its curves.
        sensor: the camera.
        bounces: longest chain.

    Attributes:
        size: number of chains.
        curved: whether one of them has a bounce off a curved surface, which may show a point more than once.
        dropped: how many chains there are beyond `MOST`.
        seen: (chains,) from how many of the traced film positions each is seen.
    """

    def __init__(self, scene: mi.Scene, curves: Silhouettes, sensor: mi.Sensor, bounces: int) -> None:
        self.bounces = bounces
        film = FilmSplat(sensor)
        with dr.suspend_grad():
            rows, start, rays = _probe(scene, curves, FilmMap(sensor), film, bounces)
        found = _chains(rows)
        self.dropped = max(0, len(found) - MOST)
        found = found[:MOST]
        self.size = len(found)
        self.curved = any((chain[: 4 * n].reshape(n, 4)[:, 1] == NONE).any() for chain, n, _ in found)
        padded = 1 << (max(1, self.size) - 1).bit_length()
        table = np.full((padded, bounces, 4), NONE, dtype=np.uint32)
        length, starts = np.zeros(padded, np.uint32), np.zeros((padded, STARTS, 8), np.float32)
        seen = np.zeros(padded, np.uint32)
        for k, (chain, n, member) in enumerate(found):
            table[k, :n] = chain[: 4 * n].reshape(n, 4)
            length[k], seen[k] = n, len(member)
            # the probe nearest to the middle of those that see this chain
            middle = start[member].mean(axis=0)
            central = member[np.argmin(((start[member] - middle) ** 2).sum(axis=1))]
            kept = np.append(central, member[np.linspace(0, len(member) - 1, STARTS - 1).astype(int)])
            starts[k] = np.concatenate([start[kept], rays[n - 1][kept]], axis=1)
        self.padded = padded
        self.shape, self.face, self.kind, self.lobe = (upload(mi.UInt32, table[..., i].ravel()) for i in range(4))
        self.length, self.seen = upload(mi.UInt32, length), upload(mi.UInt32, seen)
        self.starts = upload(mi.Float, starts.ravel())

    def limits(self) -> list[Limit]:
        """What these chains leave out."""
        found: list[Limit] = []
        if self.curved:
            found.append(
                (
                    "specular-curved",
                    "where a curved mirror or lens shows a silhouette more than once, one of its images is followed",
                    "compare with finite_difference",
                )
            )
        if self.dropped:
            found.append(
                (
                    "specular-many",
                    f"the picture shows {self.size + self.dropped} ways through flat specular faces; silhouettes seen "
                    f"along {self.dropped} of them are left out of the derivative",
                    "model the surface with fewer faces or with vertex normals, or use finite_difference",
                )
            )
        return found

    def kept(self, chain: mi.UInt32, k: mi.UInt32 | int) -> tuple[mi.Point2f, mi.Point3f, mi.Vector3f]:
        """The k-th kept film position that sees the chain, and the ray behind it; the first one is the most central."""
        at = (chain * STARTS + k) * 8
        x = [dr.gather(mi.Float, self.starts, at + i) for i in range(8)]
        return mi.Point2f(*x[:2]), mi.Point3f(*x[2:5]), mi.Vector3f(*x[5:])

    @dr.syntax
    def start(self, chain: mi.UInt32, p: mi.Point3f) -> mi.Point2f:
        """The kept film position whose ray behind the chain points best towards p.

        A curved mirror turns rays by any angle: from one start alone, much of what it shows lies behind its ray.
        """
        u, best = mi.Point2f(0), mi.Float(-2)
        k = mi.UInt32(0)
        while dr.hint(k < STARTS, label="Starts"):
            at, o, d = self.kept(chain, k)
            fit = dr.dot(dr.normalize(mi.Vector3f(p - o)), d)
            better = fit > best
            u = mi.Point2f(dr.select(better, at, u))
            best = dr.select(better, fit, best)
            k += 1
        return u

    def _fits(
        self, curves: Silhouettes, entry: mi.UInt32, number: mi.UInt32, si: mi.SurfaceInteraction3f, active: mi.Bool
    ) -> mi.Bool:
        """Whether a hit is on the shape, and in the plane, of an event."""
        at = lambda array: dr.gather(mi.UInt32, array, entry, active)
        fits = active & (number == at(self.shape))
        face = at(self.face)
        flat = fits & (face != NONE)
        if curves.has_edges:
            corner = lambda i: dr.gather(mi.UInt32, curves.topology.faces, 3 * face + i, flat)
            a, b, c = (dr.detach(curves.vertex(corner(i), flat)) for i in range(3))
            n = dr.normalize(dr.cross(mi.Vector3f(b - a), mi.Vector3f(c - a)))
            tilted = dr.norm(dr.cross(n, dr.detach(si.n))) > FLAT
            away = mi.Vector3f(dr.detach(si.p) - a)
            fits &= ~(flat & (tilted | (dr.abs(dr.dot(n, away)) > FLAT * dr.norm(away))))
        return fits

    @dr.syntax
    def follow(
        self, scene: mi.Scene, curves: Silhouettes, chain: mi.UInt32, ray: mi.Ray3f, active: mi.Bool
    ) -> tuple[mi.Ray3f, mi.Spectrum, mi.Bool]:
        """Rays behind the chain, detached, with its throughput; and whether the rays went through all its events."""
        ctx = mi.BSDFContext()
        o, d = mi.Point3f(ray.o), mi.Vector3f(ray.d)
        wavelengths = ray.wavelengths
        W = mi.Spectrum(1)
        k, length = mi.UInt32(0), dr.gather(mi.UInt32, self.length, chain)
        fits = mi.Bool(active)
        going = fits & (length > 0)
        while dr.hint(going, label="Specular chain"):
            onward = mi.Ray3f(o, d, 0.0, wavelengths)
            pi = scene.ray_intersect_preliminary(onward, coherent=False, active=going)
            si = pi.compute_surface_interaction(onward, mi.RayFlags.All, going)
            entry = chain * self.bounces + k
            going &= si.is_valid()
            going &= self._fits(curves, entry, dr.reinterpret_array(mi.UInt32, pi.shape), si, going)
            lobe = lobe_number(dr.gather(mi.UInt32, self.lobe, entry, going))
            bs, weight = si.bsdf().sample(ctx, si, lobe, mi.Point2f(0.5), going)
            going &= event(bs) == dr.gather(mi.UInt32, self.kind, entry, going)
            fits &= going
            W = dr.select(going, W * weight * bs.pdf, W)
            after = si.spawn_ray(si.to_world(bs.wo))
            o, d = mi.Point3f(dr.select(going, after.o, o)), dr.select(going, after.d, d)
            k += 1
            going &= k < length
        return mi.Ray3f(o, d, 0.0, wavelengths), W, fits

    def attached(
        self, scene: mi.Scene, chain: mi.UInt32, ray: mi.Ray3f, active: mi.Bool
    ) -> tuple[mi.Point3f, mi.Vector3f]:
        """Origin and direction behind the chain, for rays that are known to go through it, with derivatives.

        Args:
            ray: attached camera rays.
        """
        ctx = mi.BSDFContext()
        current = mi.Ray3f(ray)
        length = dr.gather(mi.UInt32, self.length, chain)
        for k in range(self.bounces):
            here = active & (length > k)
            pi = scene.ray_intersect_preliminary(dr.detach(current), coherent=False, active=here)
            si = pi.compute_surface_interaction(current, mi.RayFlags.All, here)
            lobe = lobe_number(dr.gather(mi.UInt32, self.lobe, chain * self.bounces + k, here))
            bs, _ = si.bsdf().sample(ctx, si, lobe, mi.Point2f(0.5), here)
            after = si.spawn_ray(si.to_world(bs.wo))
            current.o = mi.Point3f(dr.select(here, after.o, current.o))
            current.d = dr.select(here, after.d, current.d)
        return mi.Point3f(current.o), current.d


def event(bs: mi.BSDFSample3f) -> mi.UInt32:
    """The kind of a sampled lobe: REFLECTION, TRANSMISSION, NULL, or NONE of them."""
    kind = mi.UInt32(NONE)
    for number, flag in enumerate(_KINDS):
        kind = dr.select(mi.has_flag(bs.sampled_type, flag), number, kind)
    return kind


def _probe(
    scene: mi.Scene, curves: Silhouettes, camera: FilmMap, film: FilmSplat, bounces: int
) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Trace film positions through specular surfaces, their lobes at random.

    Returns:
        (probes, bounces, 4) shape, face of a flat one, kind of event, which lobe was asked for; `NONE` where the chain
        has ended; the film positions (probes, 2); and behind each bounce origins and directions (probes, 6).
    """
    number = dr.arange(mi.UInt32, PROBES)
    # Roberts's additive sequence: even, and the same at every call
    fraction = lambda x: x - dr.floor(x)
    x = mi.Float(fraction(mi.Float64(number) * 0.7548776662466927 + 0.5))
    y = mi.Float(fraction(mi.Float64(number) * 0.5698402909980532 + 0.5))
    u = mi.Point2f(film.low + mi.Vector2f(x, y) * (film.high - film.low))
    bits = mi.sample_tea_32(number, 7)[0]
    ray, _ = camera.ray(u, mi.Point2f(0) if camera.needs_aperture else None)
    ray = mi.Ray3f(dr.detach(ray))
    ctx = mi.BSDFContext()
    chain = dr.full(mi.Bool, True, PROBES)
    table = np.full((PROBES, bounces, 4), NONE, dtype=np.uint32)
    normals, rays = [], []
    for k in range(bounces):
        pi = scene.ray_intersect_preliminary(ray, coherent=k == 0, active=chain)
        si = pi.compute_surface_interaction(ray, mi.RayFlags.All, chain)
        bsdf = si.bsdf()
        flags = bsdf.flags()
        chain &= si.is_valid() & mi.has_flag(flags, mi.BSDFFlags.Delta)  # null lobes included
        chain &= ~mi.has_flag(flags, mi.BSDFFlags.Smooth) | dr.all(bsdf.eval_null_transmission(si, chain) >= 1)
        lobe = (bits >> k) & 1
        bs, _ = bsdf.sample(ctx, si, lobe_number(lobe), mi.Point2f(0.5), chain)
        kind = event(bs)
        chain &= kind != NONE
        shape = dr.reinterpret_array(mi.UInt32, pi.shape)
        family = dr.gather(mi.UInt32, curves.topology.shape_family, shape, chain)
        face = dr.gather(mi.UInt32, curves.topology.shape_offset, shape, chain) + pi.prim_index
        flat = (family == MESH) & (dr.norm(dr.cross(si.n, si.sh_frame.n)) < FLAT)
        ray = mi.Ray3f(si.spawn_ray(si.to_world(bs.wo)))
        dr.eval(ray, chain, shape, face, kind, lobe, si.n, si.p)
        on = np.array(chain)
        table[on, k, 0], table[on, k, 2] = np.array(shape)[on], np.array(kind)[on]
        table[on, k, 1] = np.where(np.array(flat), np.array(face), NONE)[on]
        table[on, k, 3] = np.array(lobe)[on]
        normals.append((np.array(si.n).T, np.array(si.p).T))
        rays.append(np.concatenate([np.array(ray.o), np.array(ray.d)]).T)
    _one_face_of_each_plane(table, normals)
    return table, np.array(u).T, rays


def _one_face_of_each_plane(table: np.ndarray, normals: list[tuple[np.ndarray, np.ndarray]]) -> None:
    """Let all faces of a shape that lie in one plane be called by one of them."""
    known: dict[int, list[tuple[int, np.ndarray, float, float]]] = {}
    for k, (n, p) in enumerate(normals):
        flat = np.flatnonzero(table[:, k, 1] != NONE)
        faces, first, inverse = np.unique(table[flat, k, 1], return_index=True, return_inverse=True)
        names = np.array(faces)
        for j, i in enumerate(flat[first]):
            planes = known.setdefault(int(table[i, k, 0]), [])
            offset, scale = float(n[i] @ p[i]), float(np.abs(p[i]).max()) + 1e-6
            for face, normal, height, size in planes:
                if np.abs(normal - n[i]).max() < FLAT and abs(height - offset) < FLAT * max(size, scale):
                    names[j] = face
                    break
            else:
                planes.append((int(faces[j]), n[i], offset, scale))
        table[flat, k, 1] = names[inverse.ravel()]


def _chains(table: np.ndarray) -> list[tuple[np.ndarray, int, np.ndarray]]:
    """Every chain that a probe went through or began with, as (its events, their number, its probes), widest first.

    Lobes that are asked for do not tell chains apart, kinds of events do. Chains end with a bounce that turns the ray:
    what is behind a surface that lets it pass straight on is seen by all terms.
    """
    found = []
    for n in range(1, table.shape[1] + 1):
        turns = (table[:, n - 1, 2] != NONE) & (table[:, n - 1, 2] != NULL)
        members = np.flatnonzero(turns)
        if not len(members):
            continue
        keys = table[members, :n, :3].reshape(len(members), -1)
        _, first, inverse = np.unique(keys, axis=0, return_index=True, return_inverse=True)
        inverse = inverse.ravel()
        for group in range(len(first)):
            found.append((table[members[first[group]]].ravel(), n, members[inverse == group]))
    return sorted(found, key=lambda chain: -len(chain[2]))
