"""Normal equations of noisy images: A = ½ (J1ᵀ W J2 + J2ᵀ W J1), b = J̄ᵀ W r, and how far their noise lets one see.

J1 and J2 are derivative images of independent seeds: a single noisy J would enlarge JᵀWJ by its own variance, steps
would shrink and errors would look far too small. r, the residual, comes from renders of further seeds.

Pixels are independent where the reconstruction filter is a box; their contributions to b and to each eigenvalue of A
then give the noise of both (`tile` sums neighbours first where it is not).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

Array = np.ndarray
#: An eigenvalue of A counts as more than noise from so many standard deviations on.
SIGNIFICANT = 3.0
#: A single pixel determines an answer to this share at most, as far as its residual is concerned.
MOST_LEVERAGE = 0.9
#: The noise of one pixel's derivative makes up this share of a number's square at most, else the pixel weighs less.
MOST_NOISE = 0.05
#: Noise alone moves a number by at most this share of its reach in one step.
_WANDER = 0.3


@dataclass(frozen=True)
class Layout:
    """Where the rows of stacked arrays lie.

    Attributes:
        shapes: (H, W) of each view.
        blur: standard deviation (pixels) of a Gaussian through which residual and derivatives are seen, 0 for none.
        tile: side (pixels) of the squares whose noise counts as independent.
    """

    shapes: tuple[tuple[int, int], ...]
    blur: float = 0.0
    tile: int = 1

    def filter(self, rows: Array) -> Array:
        """Blur (..., P, C) arrays view by view; the operator is its own adjoint."""
        if self.blur <= 0:
            return rows
        from scipy.ndimage import gaussian_filter

        result = np.empty_like(rows)
        start = 0
        for height, width in self.shapes:
            piece = rows[..., start : start + height * width, :]
            image = piece.reshape(*piece.shape[:-2], height, width, piece.shape[-1])
            sigma = (0.0,) * (piece.ndim - 2) + (self.blur, self.blur, 0.0)
            seen = gaussian_filter(image, sigma, mode="constant", truncate=3.0)
            result[..., start : start + height * width, :] = seen.reshape(piece.shape)
            start += height * width
        return result

    def clusters(self, rows: Array) -> Array:
        """(..., P) contributions of pixels, summed over tiles: (..., G)."""
        if self.tile <= 1:
            return rows
        pieces = []
        start = 0
        for height, width in self.shapes:
            image = rows[..., start : start + height * width].reshape(*rows.shape[:-1], height, width)
            sums = np.add.reduceat(image, np.arange(0, height, self.tile), axis=-2)
            sums = np.add.reduceat(sums, np.arange(0, width, self.tile), axis=-1)
            pieces.append(sums.reshape(*rows.shape[:-1], -1))
            start += height * width
        return np.concatenate(pieces, axis=-1)


@dataclass
class Normal:
    """The normal equations at one point.

    Attributes:
        A: (n, n) symmetric, unbiased, so possibly not quite positive.
        b: (n,) half the gradient of the loss.
        noise: (n, n) covariance of b from all Monte Carlo noise.
        renders: (n, n) the part of it that more renders take away; the rest comes with the derivative images.
        parts: (n, G) what each pixel or tile adds to b; their squares add up to `spread`.
        spread: (n, n) covariance of b from everything that the residual shows: renders, observation, model.
        values, vectors: eigenvalues of A in units of `reach`, ascending, and their vectors (columns).
        fuzz: (n,) standard deviation of each eigenvalue.
        inflation: how much larger J·J is than J1·J2, the median over the numbers: 1 without noise.
    """

    A: Array
    b: Array
    noise: Array
    spread: Array
    reach: Array
    values: Array = field(init=False)
    vectors: Array = field(init=False)
    fuzz: Array = field(default_factory=lambda: np.zeros(0))
    inflation: float = 1.0
    renders: Array = field(default_factory=lambda: np.zeros((0, 0)))
    parts: Array = field(default_factory=lambda: np.zeros((0, 0)))

    def __post_init__(self) -> None:
        self.values, self.vectors = np.linalg.eigh(self.A * np.outer(self.reach, self.reach))

    @property
    def known(self) -> Array:
        """(n,) which eigenvectors the images say anything about."""
        return (self.values > SIGNIFICANT * self.fuzz) & (self.values > 1e-9 * max(float(self.values[-1]), 0.0))

    def damped(self, damping: float, wander: float = _WANDER, hold: float = 0.0) -> Array:
        """A positive definite A (n, n): noise and unseen directions are held back, and `damping` times its diagonal.

        Args:
            hold: directions to which the images respond less than by this share of the largest response move less.
        """
        s, V = self.reach, self.vectors
        jitter = np.sqrt(np.clip(np.einsum("ie,ij,je->e", V, self.noise * np.outer(s, s), V), 0, None))
        top = max(float(self.values[-1]), float(self.fuzz.max(initial=0.0)), 1e-30)
        ridge = jitter / wander + np.where(self.known, 0.0, 2 * self.fuzz) + max(hold, 1e-9) * top
        H = (V * (np.clip(self.values, 0, None) + ridge)) @ V.T
        H = H / np.outer(s, s)
        diagonal = np.clip(np.diag(self.A), 0, None) + 1e-6 * top / s**2
        return H + damping * np.diag(diagonal)

    def step(self, damping: float, low: Array, high: Array, wander: float = _WANDER, hold: float = 0.0) -> Array:
        """The step (n,) that minimises the damped model within low <= step <= high.

        Noise alone takes it about `wander` times the numbers' reach at most.
        """
        from scipy.linalg import cholesky, solve_triangular
        from scipy.optimize import lsq_linear

        L = cholesky(self.damped(damping, wander, hold), lower=True)
        free = high - low > 1e-12
        step = np.where(free, 0.0, 0.5 * (low + high))
        if not np.any(free):
            return step
        rhs = -solve_triangular(L, self.b, lower=True) - L.T[:, ~free] @ step[~free]
        solution = lsq_linear(L.T[:, free], rhs, bounds=(low[free], high[free]), method="bvls", tol=1e-12)
        step[free] = np.clip(solution.x, low[free], high[free])
        return step

    def predicted(self, step: Array) -> float:
        """Change of the loss that the model expects of a step."""
        return float(2 * self.b @ step + step @ self.A @ step)

    def covariance(self, inverse: Array) -> Array:
        """(n, n) of the answer, from `spread`; wide enough for 95 % of answers to lie within 1.96 standard errors.

        Where few pixels decide, their residuals tell a variance badly. Its degrees of freedom are those of a sum of
        squares whose fourth moments are what they are seen to be (Satterthwaite 1946), at most: twice the number of
        pixels that matter, and thrice if their noise were normal. Student's quantile then stands for the normal one.
        """
        from scipy.stats import t

        squares = (inverse @ self.parts) ** 2
        total = squares.sum(axis=1)
        matter = total**2 / np.maximum((squares**2).sum(axis=1), 1e-300)
        wider = np.where(total > 0, t.ppf(0.975, 2 * np.maximum(matter, 1.0)) / 1.96, 1.0)
        return np.asarray(inverse @ self.spread @ inverse) * np.outer(wider, wider)

    def inverse(self, pinned: Array | None = None) -> tuple[Array, Array]:
        """Inverse of A over what the images determine, and the directions that they do not.

        Args:
            pinned: (n,) numbers that are held where they are.
        Returns:
            (n, n) pseudo-inverse, zero in rows of pinned numbers; (k, n) undetermined unit directions in units of
            `reach`.
        """
        n = len(self.b)
        free = np.ones(n, bool) if pinned is None else ~pinned
        inverse, s = np.zeros((n, n)), self.reach
        if not np.any(free):
            return inverse, np.zeros((0, n))
        index = np.flatnonzero(free)
        values, vectors = np.linalg.eigh((self.A * np.outer(s, s))[np.ix_(index, index)])
        # noise of the eigenvalues of a part: seen through the eigenvectors of the whole
        full = np.zeros((n, len(index)))
        full[index] = vectors
        share = (self.vectors.T @ full) ** 2
        fuzz = np.sqrt(share.T @ self.fuzz**2)
        known = (values > SIGNIFICANT * fuzz) & (values > 1e-9 * max(float(values[-1]), 0.0))
        part = vectors[:, known] / values[known] @ vectors[:, known].T
        inverse[np.ix_(index, index)] = part * np.outer(s[index], s[index])
        return inverse, full[:, ~known].T


def build(
    J1: Array,
    J2: Array,
    a: Array,
    b: Array,
    target: Array,
    weight: Array,
    reach: Array,
    layout: Layout,
    crossed: bool = False,
    lean: bool = False,
) -> Normal:
    """The normal equations.

    Args:
        J1, J2: (n, P, C) derivative images of independent seeds.
        a, b: (P, C) renders of two further seeds.
        target, weight: (P, C).
        reach: (n,) latent change that counts as large.
        crossed: a shares its noise with J1, and b with J2: then each is paired with the other.
        lean: whether `spread` accounts for pixels that the answer leans on; wants J of little noise.
    """
    n = len(J1)
    # with noise of its own in J, a residual is smaller where J is trusted: such answers would look far too sure
    root = np.sqrt(weight if crossed else weight * trust(J1, J2, weight)[:, None])
    F1, F2 = layout.filter(J1 * root), layout.filter(J2 * root)
    Z = 0.5 * (F1 + F2)
    r = layout.filter((0.5 * (a + b) - target) * root)
    flat1, flat2 = F1.reshape(n, -1), F2.reshape(n, -1)
    cross = flat1 @ flat2.T
    A = 0.5 * (cross + cross.T)
    ra, rb = ((layout.filter((x - target) * root) if crossed else r) for x in (a, b))
    gradient = 0.5 * (flat1 @ rb.ravel() + flat2 @ ra.ravel())
    back = layout.filter(Z) * root if layout.blur else Z * root
    from_renders = layout.clusters(np.einsum("npc,pc->np", back, 0.5 * (a - b)))
    if layout.blur:
        residual_seen = layout.filter(r) * root
        from_columns = layout.clusters(np.einsum("npc,pc->np", 0.5 * (J1 - J2), residual_seen))
    else:
        from_columns = layout.clusters(np.einsum("npc,pc->np", 0.5 * (F1 - F2), r))
    noise = from_renders @ from_renders.T + from_columns @ from_columns.T
    normal = Normal(A, gradient, noise, np.zeros((n, n)), reach, renders=from_renders @ from_renders.T)
    E = normal.vectors * reach[:, None]
    G1, G2 = np.tensordot(E.T, F1, axes=1), np.tensordot(E.T, F2, axes=1)
    # E[(½(F1² - F2²))²] is the variance of F1 F2; the scatter of F1 F2 itself would count signal as noise
    q = layout.clusters(0.5 * (G1 * G1 - G2 * G2).sum(axis=2))
    normal.fuzz = np.sqrt((q * q).sum(axis=1))
    own = 0.5 * (np.einsum("ij,ij->i", flat1, flat1) + np.einsum("ij,ij->i", flat2, flat2))
    signal = np.diag(A)
    lit = own > 0
    ratios = own[lit] / np.clip(signal[lit], 1e-3 * own[lit], None)
    normal.inflation = float(np.median(ratios)) if ratios.size else 1.0
    normal.parts = _parts(normal, F1, F2, ra, rb, layout, lean)
    normal.spread = normal.parts @ normal.parts.T
    return normal


def trust(J1: Array, J2: Array, weight: Array) -> Array:
    """Factor (P,) on the weights: below 1 where a pixel's derivative is so noisy that it would rule all others.

    Such noise has heavy tails: of a moving camera, near a line where two surfaces meet, the light between them changes
    at a rate of one over their distance. It knows nothing of the residual, so it does not move the answer.
    """
    noise = 0.25 * np.einsum("npc,npc,pc->np", J1 - J2, J1 - J2, weight)
    product = np.einsum("npc,npc,pc->np", np.abs(J1), np.abs(J2), weight)
    factor = np.ones(noise.shape[1])
    for _ in range(2):  # the noise of the worst makes up a part of the whole at first
        # a number that is nothing but noise everywhere singles no pixel out
        others = ((product + noise) @ factor)[:, None] - noise * factor
        share = (noise / np.maximum(others, 1e-30)).max(axis=0, initial=0.0)
        factor = (MOST_NOISE / np.maximum(share, MOST_NOISE)) ** 2
    return np.asarray(factor)


def _parts(normal: Normal, F1: Array, F2: Array, ra: Array, rb: Array, layout: Layout, lean: bool) -> Array:
    """What each pixel adds to b (n, G), whatever the cause: the scatter of b.

    A pixel that the answer leans on draws it near: its residual is smaller than its error, by I - H with H its
    leverage. Dividing by it (HC3, MacKinnon and White 1985) makes up for that; without it, where few pixels of a
    highlight determine a roughness, 95 % intervals held the truth in 82 % of cases.
    """
    if lean:
        inverse, _ = normal.inverse()
        Z = 0.5 * (F1 + F2)
        leverage = np.einsum("npc,nm,mpd->pcd", Z, inverse, Z, optimize=True)
        values, vectors = np.linalg.eigh(0.5 * (leverage + leverage.transpose(0, 2, 1)))
        more = 1 / (1 - np.clip(values, 0, MOST_LEVERAGE))
        ra, rb = (np.einsum("pce,pe,pde,pd->pc", vectors, more, vectors, r, optimize=True) for r in (ra, rb))
    from_all = layout.clusters(0.5 * (np.einsum("npc,pc->np", F1, rb) + np.einsum("npc,pc->np", F2, ra)))
    return np.asarray(from_all - from_all.mean(axis=1, keepdims=True))


def loss(a: Array, b: Array, target: Array, weight: Array, layout: Layout) -> tuple[float, float]:
    """Loss from two independent renders, unbiased, and its Monte Carlo standard error."""
    root = np.sqrt(weight)
    Fa, Fb = layout.filter((a - target) * root), layout.filter((b - target) * root)
    value = float((Fa * Fb).sum())
    slope = layout.filter(0.5 * (Fa + Fb)) * root
    first = layout.clusters((slope * (a - b)).sum(axis=1))
    # what is left where the residual is zero: the product of two noises; d⁴/4 overestimates σ⁴ by 3 for normal noise
    second = layout.clusters((weight * (a - b) ** 2 / 2).sum(axis=1)) / np.sqrt(3)
    if layout.blur:
        second = second / np.sqrt(4 * np.pi * max(layout.blur, 0.3) ** 2)
    return value, float(np.sqrt(first @ first + second @ second))
