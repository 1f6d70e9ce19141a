"""Which term of an estimator is wrong? Fit the reference with the terms, each taken alone.

    minimise ‖ f − Σ_t c_t g_t ‖²      c_t = 1 where a term is right; a residual that no c removes is a term that is
    missing.

Products of an image with itself are taken between different replicates, so that noise does not count as signal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from .estimate import Gradient
from .motion import BoundMotion
from .reference import Reference
from .subject import Subject, load_estimator

#: Properties that switch one term off, with the value that does so; the first set that an estimator has is used.
SWITCHES: tuple[dict[str, Any], ...] = (
    {"interior": False, "primary": False, "shadow": False, "indirect": False},
    {"sppc": 0, "sppp": 0, "sppi": 0},
)
_NAMES = {"sppc": "interior", "sppp": "primary", "sppi": "indirect"}


@dataclass(frozen=True)
class Diagnosis:
    """What the fit found.

    Attributes:
        factors: by term, what it would have to be multiplied with.
        unexplained: share of the reference's energy that no mixture of the terms gives.
    """

    factors: dict[str, float]
    unexplained: float

    def sentence(self) -> str:
        """The suspicion in words."""
        if self.unexplained > 0.05:
            return f"no mixture of its terms gives the reference ({self.unexplained:.0%} is left): a term is missing"
        wrong = {t: c for t, c in self.factors.items() if abs(c - 1) > 0.02}
        if not wrong:
            return ""
        worst = max(wrong, key=lambda t: abs(wrong[t] - 1))
        return f"suspicious term: {worst}, which is right only when multiplied by {wrong[worst]:.2f}"


def terms_of(estimator: Any) -> dict[str, dict[str, Any]]:
    """The terms an estimator has, each with the properties that leave only it on."""
    for switches in SWITCHES:
        present = [name for name in switches if hasattr(estimator, name)]
        if present:
            return {
                _NAMES.get(name, name): {other: switches[other] for other in present if other != name}
                for name in present
            }
    return {}


def diagnose(
    subject: Subject, bound: BoundMotion, spec: Any, reference: Reference, spp: int, replicates: int = 4, seed: int = 0
) -> Diagnosis | None:
    """Fit the reference with the terms of an estimator; None when it has no switches or no term gives anything."""
    _, whole = load_estimator(subject, spec)
    images: dict[str, np.ndarray] = {}
    for number, (term, off) in enumerate(terms_of(whole).items()):
        _, alone = load_estimator(subject, spec, **off)
        terms = getattr(alone, "derivative_terms", None)  # Mitsuba's estimators have switches, too, but not this
        if terms is not None and not terms(subject.params):  # in this scene the term has nothing to do
            continue
        gradient = Gradient(bound, subject.sensor, alone, replicates, seed + 31 * number)
        gradient.grow(spp)
        if np.any(gradient.images):
            images[term] = _blur(gradient.images)
    if not images:
        return None
    target = _blur(reference.images)
    names = list(images)
    gram = np.array([[_product(images[a], images[b], a == b) for b in names] for a in names])
    right = np.array([_product(images[a], target, False) for a in names])
    factors = np.linalg.lstsq(gram, right, rcond=1e-3)[0]
    energy = _product(target, target, True)
    left = energy - 2 * float(factors @ right) + float(factors @ gram @ factors)
    share = max(left / energy, 0.0) if energy > 0 else 0.0
    return Diagnosis(dict(zip(names, map(float, factors), strict=True)), share)


def _product(a: np.ndarray, b: np.ndarray, same: bool) -> float:
    """⟨E a, E b⟩ from replicates; for an image with itself only products of different replicates count."""
    sums = a.sum(0).ravel() @ b.sum(0).ravel()
    if not same:
        return float(sums / (a.shape[0] * b.shape[0]))
    own = sum(float(x.ravel() @ x.ravel()) for x in a)
    return float((sums - own) / (a.shape[0] * (a.shape[0] - 1)))


def _blur(images: np.ndarray) -> np.ndarray:
    """A pixel of blur: what differs only in which of two neighbours gets a sample is no difference."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(gaussian_filter(images, sigma=(0, 1, 1, 0)))
