"""A problem: a scene, what was observed of it, what is unknown, and how a render is compared with an observation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..capture import View
from ..errors import UsageError
from .arrays import to_device
from .estimators import check_estimator, load_estimator
from .lighting import Switchboard, find_emitters, require_light
from .losses import Loss, make_loss
from .parameters import Parameter, resolve
from .prepared_views import PreparedView, prepare_views
from .rendering import PASS_SAMPLES, Samples
from .view_unknowns import GAINS, describe, is_view_key, key_of, resolve_views

if TYPE_CHECKING:
    from ..scenes import Scene
    from .unknowns import Unknown


class Problem:
    """What is to be found, from what.

    The loss of a problem is the weighted mean over its views of each view's mean loss over its pixels (weighted by the
    view's mask) and channels.

    Args:
        scene: the scene; its parameters are changed while solving and hold the result afterwards.
        views: what was observed; views with `holdout` are rendered at the end but not fitted.
        parameters: what is unknown; keys, globs or `Parameter`s.
        loss: name or `Loss`.
        estimator: name of the gradient estimator (`integrators.ESTIMATORS`), or a Mitsuba dictionary.
        spp: samples per pixel of the adjoint pass; the primal takes `primal_spp` or as many.
        view_weights: share of each fitted view, default equal.
        strict: take a gradient that is known to lack a part for an error instead of a warning.
    Raises:
        UsageError: unknown names, parameters that nothing can differentiate.
        InputError: views that do not fit the scene, a scene without light.
    """

    def __init__(
        self,
        scene: Scene,
        views: Sequence[View] | View,
        parameters: Sequence[Parameter | str] | Parameter | str,
        loss: str | Loss = "l2",
        estimator: str | Mapping[str, Any] = "path_replay",
        spp: int = 16,
        primal_spp: int | None = None,
        view_weights: Sequence[float] | None = None,
        strict: bool = False,
    ) -> None:
        self.scene = scene
        self.views = [views] if isinstance(views, View) else list(views)
        requests = [parameters] if isinstance(parameters, str | Parameter) else list(parameters)
        self.loss = make_loss(loss)
        self.spp, self.primal_spp = spp, primal_spp or spp
        if min(self.spp, self.primal_spp) < 1:
            raise UsageError(f"spp is {min(self.spp, self.primal_spp)}, at least 1 was expected", where="estimator")
        self.estimator = {"type": estimator} if isinstance(estimator, str) else dict(estimator)
        asked = [Parameter(p) if isinstance(p, str) else p for p in requests]
        of_views = [p for p in asked if is_view_key(scene, p.key)]
        of_scene = [p for p in asked if p not in of_views]
        self.unknowns: list[Unknown] = resolve(scene, of_scene) if of_scene or not of_views else []
        self.unknowns += resolve_views(scene, self.views, of_views)
        #: what is known about every parameter of the scene and of the views
        self.infos = {**scene.parameters(), **describe(self.views)}
        self._parts = frozenset(k for u in self.unknowns for k in u.keys) - set(scene.params.keys())
        self._of_views: dict[str, Any] = {}
        check_estimator(self.estimator, [k for u in self.unknowns for k in u.keys], self.infos, strict)
        self.integrator = load_estimator(scene, self.estimator)
        self.emitters = find_emitters(scene)
        self._check_light(self.emitters)
        self.lights = Switchboard(scene, self.emitters)
        fitted = [v for v in self.views if not v.holdout]
        if not fitted:
            raise UsageError("no view to fit", remedy="give at least one image that is not held out")
        weights = np.ones(len(fitted)) if view_weights is None else np.asarray(view_weights, float)
        if weights.shape != (len(fitted),) or not np.all(weights >= 0) or not weights.sum() > 0:
            raise UsageError(f"{len(fitted)} view weights >= 0, not all zero, were expected", where="loss")
        parts = iter(weights / weights.sum())
        shares = [0.0 if v.holdout else float(next(parts)) for v in self.views]
        prepared = prepare_views(scene, self.views, shares, self.loss, self.lights)
        self.fitted = [p for p in prepared if not p.view.holdout]
        self.heldout = [p for p in prepared if p.view.holdout]
        self._check_cameras()

    # -- the latent vector ------------------------------------------------------------------------------------------

    @property
    def start(self) -> np.ndarray:
        """Latent start (n,), float64."""
        return np.concatenate([u.start for u in self.unknowns])

    @property
    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """Latent bounds (n,), (n,)."""
        return np.concatenate([u.lower for u in self.unknowns]), np.concatenate([u.upper for u in self.unknowns])

    @property
    def rates(self) -> np.ndarray:
        """Latent step sizes (n,) for first-order solvers."""
        return np.concatenate([np.full(u.start.size, u.rate) for u in self.unknowns])

    @property
    def first_order(self) -> str:
        """What only first-order solvers know how to handle, "" when there is nothing of it."""
        found = [
            ("smoothed gradients", any(u.filter is not None for u in self.unknowns)),
            ("priors", any(u.priors for u in self.unknowns)),
            ("parameters that wait", any(u.freeze_until for u in self.unknowns)),
        ]
        return ", ".join(what for what, there in found if there)

    def penalty(self, latent: np.ndarray) -> tuple[float, np.ndarray]:
        """What the priors add to the loss, and its gradient (n,)."""
        parts = [u.penalty(x) for u, x in zip(self.unknowns, self.split(latent), strict=True)]
        return sum(value for value, _ in parts), np.concatenate([gradient for _, gradient in parts])

    def split(self, latent: np.ndarray) -> list[np.ndarray]:
        """The piece of each unknown."""
        return np.split(latent, np.cumsum([u.start.size for u in self.unknowns])[:-1])

    def values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """Scene values by key."""
        return {k: v for k, v in self._all_values(latent).items() if k not in self._parts}

    def view_values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        """Values of what is unknown about views, by key (see `view_unknowns`)."""
        return {k: v for k, v in self._all_values(latent).items() if k in self._parts}

    def _all_values(self, latent: np.ndarray) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for unknown, piece in zip(self.unknowns, self.split(latent), strict=True):
            found.update(unknown.values(piece))
        return found

    @property
    def parts(self) -> frozenset[str]:
        """Keys of what is unknown about views."""
        return self._parts

    @property
    def gains_unknown(self) -> bool:
        """Whether an exposure or white balance is to be found."""
        return any(k.rsplit(".", 1)[-1] in GAINS for k in self._parts)

    # -- rendering --------------------------------------------------------------------------------------------------

    def set_latent(
        self, latent: np.ndarray, lit: frozenset[str] | None = None, active: frozenset[int] | None = None
    ) -> list[Any]:
        """Write latent numbers into the scene, differentiably.

        Args:
            latent: (n,).
            lit: prefixes of the emitters that shine; None means all.
            active: indices of the unknowns that carry derivatives; None means all.
        Returns:
            The Dr.Jit leaf of each unknown: its gradient is there after an adjoint pass. `release` them afterwards.
        """
        import drjit as dr
        import mitsuba as mi

        leaves = []
        attached: dict[str, Any] = {}
        for number, (unknown, piece) in enumerate(zip(self.unknowns, self.split(latent), strict=True)):
            leaf = to_device(unknown.prepare(np.clip(piece, unknown.lower, unknown.upper)), mi.Float)
            if active is None or number in active:
                dr.enable_grad(leaf)
            leaves.append(leaf)
            (self._of_views if unknown.keys[0] in self._parts else attached).update(unknown.attach(leaf))
        for key, value in self.lights.apply(self.lights.select(None) if lit is None else lit, attached).items():
            self.scene.params[key] = value
        self.scene.params.update()
        return leaves

    def release(self, leaves: Sequence[Any]) -> None:
        """Cut the scene from the leaves of `set_latent`; what it computed from them keeps its values.

        Virtual calls look at every object of the process: a scene that still hangs on its leaves stops the forward
        mode of every other scene.
        """
        import drjit as dr

        dr.clear_grad(leaves)
        dr.enqueue(dr.ADMode.Forward, leaves)
        dr.traverse(dr.ADMode.Forward, flags=dr.ADFlag.ClearEdges)
        for key in (k for u in self.unknowns for k in u.keys if k not in self._parts):
            dr.disable_grad(self.scene.params[key])

    def settle(self, latent: np.ndarray) -> None:
        """Write latent numbers into the scene for good: no gradients, all lights on."""
        from .arrays import to_scene

        self.lights.restore()
        for key, value in self.values(latent).items():
            self.scene.params[key] = to_scene(value, self.scene.params[key])
        self.scene.params.update()

    def aim(self, prepared: PreparedView) -> None:
        """Set the camera of a view."""
        if prepared.window is not None:
            self.aim(prepared.window.base)
            prepared.window.aim(prepared.sensor)
        elif prepared.pose is not None:
            import drjit as dr
            import mitsuba as mi

            params = mi.traverse(prepared.sensor)
            # numbers, not NumPy's memory: see `to_device`
            matrix = mi.Matrix4f(*prepared.pose.tolist())
            dr.make_opaque(matrix)
            own = {part: self._of_views.get(key_of(prepared.view, part)) for part in ("to_world", "x_fov")}
            params["to_world"] = mi.Transform4f(matrix) if own["to_world"] is None else own["to_world"]
            for key, value in prepared.lens.items():
                params[key] = dr.opaque(mi.Float, value) if own.get(key) is None else own[key]
            params.update()

    def gain(self, prepared: PreparedView) -> Any:
        """(1, 1, C) factors on the render of a view, differentiable after `set_latent` where they are unknown."""
        import drjit as dr
        import mitsuba as mi

        exposure, balance = (self._of_views.get(key_of(prepared.view, part)) for part in GAINS)
        if exposure is None and balance is None:
            return prepared.target.exposure
        fixed = [float(g) for g in prepared.view.white_balance]
        if exposure is None:
            exposure = mi.Float(prepared.view.exposure)
        color = exposure * (mi.Color3f(*fixed) if balance is None else balance)
        channels = int(prepared.target.exposure.shape[-1])
        flat = dr.ravel(mi.Color3f(color)) if channels >= 3 else mi.Float(color[0])
        if channels == 4:
            flat = dr.concat((flat, mi.Float(1)))
        gain = mi.TensorXf(flat, (1, 1, channels))
        dr.eval(gain)
        return gain

    def render(self, prepared: PreparedView, latent: np.ndarray, spp: int, seed: int) -> np.ndarray:
        """The picture of a view at `latent`, exposure included: (H, W, 3) float32."""
        import drjit as dr

        with dr.suspend_grad():
            self.set_latent(latent, prepared.lit)
            self.aim(prepared)
            image = self.scene.render(spp=spp, seed=seed, sensor=prepared.sensor, integrator=self.integrator)
            gain = np.array(self.gain(prepared), np.float32).ravel()[:3]
        return image * gain

    def plan(self, prepared: PreparedView, spp: int | None = None, limit: int = PASS_SAMPLES) -> Samples:
        """The samples of one step of a view, in passes of at most `limit`."""
        adjoint = spp or self.spp
        primal = max(2, round(adjoint * self.primal_spp / self.spp))
        return Samples.plan(primal, adjoint, prepared.pixels, limit)

    # -- checks -----------------------------------------------------------------------------------------------------

    def _check_light(self, emitters: list[Any]) -> None:
        keys = {k for u in self.unknowns for k in u.keys}
        if not any(s in keys for e in emitters for s in (*e.strengths, e.prefix + ".data")):
            require_light(self.scene, emitters)  # a light that is itself unknown has a positive start already
        elif not emitters:
            require_light(self.scene, emitters)

    def _check_cameras(self) -> None:
        """Refuse a camera of the scene that no fitted view looks through: its gradient would be zero."""
        import mitsuba as mi

        sensors = list(self.scene.mi.sensors())
        used = {v.view.sensor for v in self.fitted if isinstance(v.view.sensor, int)}
        for key in [k for u in self.unknowns for k in u.keys if k not in self._parts]:
            owner = self.scene.params.properties[key][2]
            if not isinstance(owner, mi.Sensor) or any(owner == sensors[k] for k in used):
                continue
            own = [v.view for v in self.fitted if not isinstance(v.view.sensor, int)]
            remedy = None
            if own:
                remedy = f'for the camera of a view, name "{key_of(own[0], key.rsplit(".", 1)[-1])}", or "views.*"'
            raise UsageError(
                "no fitted view is taken by this camera of the scene"
                + (f": {len(own)} of {len(self.fitted)} carry cameras of their own" if own else ""),
                where=key,
                remedy=remedy,
            )
