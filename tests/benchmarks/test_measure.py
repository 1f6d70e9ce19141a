"""Measurements: right numbers for synthetic estimators, processes that fail alone, one real row."""

from __future__ import annotations

import numpy as np
import pytest

from pathtracer.bench import suites
from pathtracer.bench.measure import score
from pathtracer.bench.scaling import exponent
from pathtracer.bench.subjects import load_subject
from pathtracer.bench.worker import call


def _images(mean, noise, count, seed):
    return mean + noise * np.random.default_rng(seed).standard_normal((count, *mean.shape))


@pytest.fixture
def truth():
    from scipy.ndimage import gaussian_filter

    pilot = gaussian_filter(np.random.default_rng(1).standard_normal((16, 16, 3)), (2, 2, 0)) * 20
    f = _images(pilot, 0.02, 8, 2)
    return {"images": f, "corrections": np.zeros_like(f), "pilot": _images(pilot, 0.2, 1, 3)[0]}


def _answer(images, wall=0.5, fixed=False):
    return {"images": images, "wall": [wall] * len(images), "cpu": [2 * wall] * len(images), "fixed": fixed}


def test_an_unbiased_estimator_has_slope_1_and_its_variance_as_error(truth):
    mean = truth["images"].mean(0)
    found = score(_answer(_images(mean, 0.5, 16, 5)), truth)
    assert found["slope_low"] < 1 < found["slope_high"] and found["bias"] == 0
    expected = 0.25 / np.mean(mean**2)
    assert found["mse"] == pytest.approx(expected, rel=0.05)
    assert found["efficiency"] == pytest.approx(1 / (found["mse"] * 0.5))
    assert found["mse_error"] < 0.1 * expected


def test_a_biased_estimator_is_seen_in_slope_and_error(truth):
    mean = truth["images"].mean(0)
    found = score(_answer(_images(0.7 * mean, 0.1, 16, 5)), truth)
    assert found["slope"] == pytest.approx(0.7, abs=0.01) and found["slope_high"] < 0.72
    assert found["bias"] == pytest.approx(0.3, abs=0.02) and found["mse"] > 0.08


def test_a_deterministic_estimator_has_no_variance(truth):
    mean = truth["images"].mean(0)
    found = score(_answer(np.stack([0.9 * mean] * 2), fixed=True), truth)
    assert found["variance"] == 0 and found["bias"] == pytest.approx(0.1, abs=0.01)
    assert found["slope"] == pytest.approx(0.9, abs=0.01)


def test_exponents_are_those_between_the_two_largest_sizes():
    assert exponent([1, 10, 100], [5, 5, 500]) == pytest.approx(2)


@pytest.mark.parametrize(
    ("name", "rows"), [("estimator", suites.estimator_rows), ("experiment", suites.experiment_rows)]
)
def test_every_subject_exists_and_no_row_is_measured_twice_in_a_table(name, rows):
    found = rows()
    keys = [(r.tag, r.subject, r.label or r.estimator) for r in found]
    assert len(set(keys)) == len(keys)
    for subject in {r.subject for r in found if r.quick}:
        if "convex:" in subject and "cube" not in subject:
            continue  # a mesh that is not part of the project
        scene, motion = load_subject(subject)
        from pathtracer.verify import Motion

        assert Motion.parse(motion).bind(scene.mi, scene.params).scale > 0


def test_a_measurement_that_fails_or_hangs_ends_its_own_row_only():
    arguments = {"subject": "sphere-moves", "estimator": "opendr", "seconds": 0.1, "replicates": 2, "seed": 0}
    refused = call("measure:gradients", arguments, 120, fresh=False)
    assert refused["refused"] and "Sphere" in refused["failure"]
    hung = call("measure:calibration", {"seed": 0}, 0.2)
    assert not hung["refused"] and "longer than" in hung["failure"]


def test_one_row_from_the_reference_to_the_score():
    subject = "mesh-seamed-cube-moves"
    truth = call("measure:reference", {"subject": subject, "spp": 64, "seed": 0}, 300, fresh=False)
    arguments = {
        "subject": subject,
        "estimator": "edge_sampling",
        "seconds": 0.1,
        "replicates": 4,
        "seed": 3,
        "spp": 16,
    }
    answer = call("measure:gradients", arguments, 300, fresh=False)
    found = score(answer, truth)
    assert 0.8 < found["slope"] < 1.2
    assert answer["first"] > 0 and answer["memory"] >= 0 and found["efficiency_cpu"] > 0


@pytest.mark.slow
def test_rasterisers_recover_a_silhouette_and_nothing_else():
    from pathtracer.bench.control import summary

    def share(task, estimator):
        arguments = {"task": task, "estimator": estimator, "starts": 2, "steps": 8, "spp": 64, "seed": 0}
        return summary(call("control:pose_runs", arguments, 600, fresh=False))

    for name in ("opendr", "soft_rasterizer:sigma=0.001"):
        assert share("silhouette", name)["final"] < 0.3
        for task in ("shadow", "reflection"):
            assert share(task, name)["final"] == 1.0
    assert share("shadow", "edge_sampling")["solved"] == 2
