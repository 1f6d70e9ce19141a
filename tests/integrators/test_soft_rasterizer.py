"""SoftRasterizer: exact derivatives of its own image, the limit of hard edges, refusals."""

from __future__ import annotations

import numpy as np
import pytest
from helpers.raster_scenes import backward_number, box_scene, forward_image, load, own_difference

from integrators import GradientWarning, UnsupportedGradient

SOFT = {"sigma": 1e-2, "gamma": 5e-2}


def _plugin(**properties):
    import mitsuba as mi

    return mi.load_dict({"type": "soft_rasterizer", **properties})


def _lamp(kind):
    import mitsuba as mi

    T = mi.ScalarTransform4f
    rgb = {"type": "rgb", "value": [9, 8, 7]}
    return {
        "point": None,
        "spot": {"type": "spot", "to_world": T().look_at([1, 3, 2], [0, 0, 0], [0, 1, 0]), "intensity": rgb},
        "directional": {"type": "directional", "to_world": T().look_at([1, 3, 2], [0, 0, 0], [0, 1, 0])},
        "area": {
            "type": "rectangle",
            "to_world": T().look_at([1, 3, 2], [0, 0, 0], [0, 1, 0]).scale(0.4),
            "emitter": {"type": "area", "radiance": rgb},
        },
    }[kind]


CASES = [
    ("point", "object.vertex_positions translate:1,0.4,0.2"),
    ("point", "object.vertex_positions rotate:y"),
    ("point", "camera.to_world translate:x"),
    ("point", "camera.to_world rotate:z"),
    ("point", "floor.to_world translate:y"),
    ("point", "lamp.position translate:x"),
    ("point", "lamp.intensity.value"),
    ("point", "object.bsdf.reflectance.value"),
    ("point", "sky.radiance.value"),
    ("spot", "lamp.to_world rotate:z@1,3,2"),
    ("directional", "lamp.to_world rotate:z"),
    ("area", "lamp.to_world translate:x"),
    ("area", "lamp.emitter.radiance.value"),
]


@pytest.mark.parametrize(("light", "motion"), CASES)
def test_derivatives_are_differences_of_its_own_image_in_both_modes(light, motion):
    scene, params = load(box_scene(light=_lamp(light)))
    plugin = _plugin(**SOFT)
    forward = forward_image(plugin, scene, params, motion)
    # A kink of the distance (its nearest side changes) costs a difference an error of first order in the step, the
    # rounding of float32 one of inverse order
    differences = [own_difference(plugin, scene, params, motion, step) for step in (4e-4, 1.6e-3)]
    errors = [np.linalg.norm(forward - d) / np.linalg.norm(d) for d in differences]
    assert min(errors) < 0.02, errors
    adjoint = np.random.default_rng(1).standard_normal(forward.shape)
    backward = backward_number(plugin, scene, params, motion, adjoint)
    assert backward == pytest.approx(float(np.sum(adjoint * forward)), rel=1e-3, abs=1e-3 * np.linalg.norm(forward))


@pytest.mark.parametrize("properties", [{"silhouette": True}, {"background": "softmax"}, {"supersampling": 2}])
def test_every_kind_of_image_has_exact_derivatives(properties):
    scene, params = load(box_scene())
    plugin = _plugin(**SOFT, **properties)
    motion = "camera.to_world translate:1,0.5,0"
    forward = forward_image(plugin, scene, params, motion)
    difference = own_difference(plugin, scene, params, motion, 8e-4)
    assert np.linalg.norm(forward - difference) < 0.02 * np.linalg.norm(difference)


def test_alpha_of_the_film_is_the_soft_silhouette_and_has_a_gradient():
    description = box_scene(pixel_format="rgba")
    del description["floor"]
    scene, params = load(description)
    plugin, motion = _plugin(**SOFT), "object.vertex_positions translate:x"
    image = np.array(plugin.render(scene))
    silhouette = np.array(_plugin(**SOFT, silhouette=True).render(scene))
    np.testing.assert_allclose(image[..., 3], silhouette[..., 0], atol=1e-6)
    assert 0.05 < image[..., 3].mean() < 0.95
    forward = forward_image(plugin, scene, params, motion)
    difference = own_difference(plugin, scene, params, motion, 8e-4)
    assert np.linalg.norm((forward - difference)[..., 3]) < 0.01 * np.linalg.norm(difference[..., 3])


def test_derivatives_do_not_depend_on_how_the_pairs_are_divided_into_launches(monkeypatch):
    import sys

    scene, params = load(box_scene(light=_lamp("area")))
    plugin, motion = _plugin(**SOFT), "lamp.to_world translate:x + object.vertex_positions rotate:y"
    whole = forward_image(plugin, scene, params, motion)
    adjoint = np.random.default_rng(1).standard_normal(whole.shape)
    backward = backward_number(plugin, scene, params, motion, adjoint)
    monkeypatch.setattr(sys.modules["integrators.soft_rasterizer"], "MAX_LANES", 3 * 20 * 20)
    np.testing.assert_allclose(forward_image(plugin, scene, params, motion), whole, atol=1e-4)
    assert backward_number(plugin, scene, params, motion, adjoint) == pytest.approx(backward, rel=1e-4)


def test_with_hard_edges_it_draws_what_a_path_tracer_draws_without_shadows():
    import mitsuba as mi

    description = box_scene(size=32)
    del description["floor"]  # its own shadow and the light that it would reflect
    description["object"]["bsdf"] = {"type": "twosided", "bsdf": description["object"]["bsdf"]}
    scene, _ = load(description)
    truth = np.array(mi.render(scene, spp=64, seed=1))
    image = np.array(_plugin(sigma=1e-8, gamma=1e-4, supersampling=4).render(scene))
    assert np.abs(image - truth).mean() < 0.01 * truth.mean()


def test_soft_edges_feel_an_object_that_does_not_yet_overlap():
    description = box_scene()
    del description["floor"]
    scene, params = load(description)
    motion = "object.vertex_positions translate:x"
    hard, soft = (forward_image(_plugin(sigma=s), scene, params, motion) for s in (1e-5, 1e-2))
    assert np.mean(np.abs(soft).sum(-1) > 1e-3) > 2 * np.mean(np.abs(hard).sum(-1) > 1e-3)


def test_shadows_have_no_part_in_the_image_so_their_gradient_is_zero():
    description = box_scene()
    scene, params = load(description)
    # seen from above the shadow only: the object is out of the frame
    import mitsuba as mi

    params["camera.to_world"] = mi.Transform4f().look_at([0, 0.5, 1.6], [0, -1.3, 2.6], [0, 1, 0])
    params.update()
    forward = forward_image(_plugin(), scene, params, "object.vertex_positions translate:x")
    assert np.abs(forward).max() == 0


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"object": {"type": "sphere"}}, "not a Sphere"),
        ({"sky": {"type": "envmap", "bitmap": None}}, "EnvironmentMapEmitter"),
        ({"object": {"type": "cube", "bsdf": {"type": "mask", "bsdf": {"type": "diffuse"}}}}, "cut-outs"),
        ({"camera": {"type": "thinlens", "aperture_radius": 0.1, "focus_distance": 3.0}}, "ThinLensCamera"),
    ],
)
@pytest.mark.parametrize("name", ["soft_rasterizer", "opendr"])
def test_what_cannot_be_drawn_is_refused_with_a_remedy(name, change, words):
    import mitsuba as mi

    if "sky" in change:
        change = {"sky": {"type": "envmap", "bitmap": mi.Bitmap(np.ones((4, 8, 3), dtype=np.float32))}}
    scene, _ = load({**box_scene(), **change})
    with pytest.raises(UnsupportedGradient, match=rf"{words}.*; .*edge_sampling"):
        mi.load_dict({"type": name}).render(scene)


@pytest.mark.parametrize("name", ["soft_rasterizer", "opendr"])
def test_a_parameter_that_the_image_does_not_depend_on_is_refused(name):
    import drjit as dr
    import mitsuba as mi

    description = box_scene()
    description["object"]["bsdf"] = {"type": "roughconductor", "alpha": 0.2}
    scene, params = load(description)
    dr.enable_grad(params["object.bsdf.alpha.value"])
    with (
        pytest.warns(GradientWarning, match="lambertian-only"),
        pytest.raises(UnsupportedGradient, match=r"alpha.*does not depend"),
    ):
        mi.load_dict({"type": name}).render_forward(scene, params)
