"""Derivative images of cases of the catalogue."""

from __future__ import annotations

import warnings

import numpy as np

from integrators.errors import GradientWarning
from pathtracer.bench.subjects import load_subject
from pathtracer.verify.estimate import Gradient
from pathtracer.verify.motion import Motion
from pathtracer.verify.subject import load_estimator, subject_of


def derivative_image(case: str, estimator: str, spp: int, seed: int) -> np.ndarray:
    """What an estimator returns for a case and a seed, (height, width, channels); its warnings are not of interest."""
    scene, motion = load_subject(case)
    subject = subject_of(scene)
    bound = Motion.parse(motion).bind(subject.scene, subject.params)
    gradient = Gradient(bound, subject.sensor, load_estimator(subject, estimator)[1], 4, 5)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", GradientWarning)
        return gradient.gradient_image(spp, seed)
