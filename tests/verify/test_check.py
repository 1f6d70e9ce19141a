"""`check_gradients` and `pathtracer check`: right gradients pass, wrong ones are found and named."""

from __future__ import annotations

import json

import numpy as np
import pytest
from verify.biased import register_biased
from verify.scenes import catalogue_scene

from pathtracer.errors import UsageError
from pathtracer.verify import Verdict, check_gradients
from pathtracer.verify.catalogue import catalogue_folder

SMOOTH = "camera.to_world translate:x"


@pytest.fixture(scope="module", autouse=True)
def biased(variant):
    register_biased()


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """A cache for references that several tests use."""
    return tmp_path_factory.mktemp("references")


@pytest.fixture(scope="module")
def plane():
    return catalogue_scene("plane")


def test_right_estimator_passes(plane, shared):
    report = check_gradients(plane, SMOOTH, "path_replay", cache=shared)
    (row,) = report.comparisons
    assert row.verdict is Verdict.PASS and report.exit_code == 0, row.reason
    low, high = row.slope_interval()
    assert low < 1 < high and high - low < 0.06
    assert row.backward == pytest.approx(1, abs=0.02)


def test_five_percent_bias_fails_and_the_term_is_named(plane, shared):
    report = check_gradients(plane, SMOOTH, ["biased_scale", "path_replay"], cache=shared)
    wrong, right = report.comparisons
    assert (wrong.verdict, right.verdict) == (Verdict.FAIL, Verdict.PASS)
    assert report.exit_code == 1
    assert wrong.slope == pytest.approx(1.05, abs=0.015)
    assert wrong.terms["interior"] == pytest.approx(1 / 1.05, abs=0.015)
    assert "suspicious term: interior" in wrong.reason
    assert wrong.reason.startswith("camera.to_world translate:x")
    assert wrong.remedy == "use path_replay, which passes here"


def test_backward_mode_that_disagrees_with_forward_mode_fails(plane, shared):
    (row,) = check_gradients(plane, SMOOTH, "biased_backward", cache=shared, diagnosis=False).comparisons
    assert row.verdict is Verdict.FAIL
    assert {"backward", "adjoint"} <= {t.name for t in row.decisive}
    assert "slope" not in {t.name for t in row.decisive}


def test_errors_that_cancel_over_the_image_are_found_in_blocks(plane, shared):
    key = "lamp.intensity.value"
    (row,) = check_gradients(plane, key, "biased_cancelling", cache=shared, backward=False, diagnosis=False).comparisons
    assert row.verdict is Verdict.FAIL
    assert any(t.name.startswith("block") for t in row.decisive)


def test_gradient_that_is_not_finite_fails_with_its_pixels_counted(plane, shared):
    (row,) = check_gradients(plane, SMOOTH, "biased_nan", cache=shared, backward=False, diagnosis=False).comparisons
    assert row.verdict is Verdict.FAIL and "not finite in 1 pixels" in row.reason


def test_missing_visibility_is_found_with_a_remedy():
    scene = catalogue_scene("mesh")
    (row,) = check_gradients(scene, "object.vertex_positions", "path_replay", cache=False).comparisons
    assert row.verdict is Verdict.FAIL
    assert "zero although the image changes" in row.reason
    assert row.remedy.startswith("use ") and "path_replay" not in row.remedy


def test_starved_check_is_inconclusive_with_exit_code_6():
    scene = catalogue_scene("box")
    report = check_gradients(  # the first look is always completed
        scene, "room.bsdf.reflectance.value", "path_replay", budget=1e-3, spp=1, reference_spp=1, cache=False
    )
    assert report.comparisons[0].verdict is Verdict.INCONCLUSIVE
    assert report.exit_code == 6
    assert "--budget" in report.comparisons[0].reason


def test_parameter_without_effect_passes_as_zero(plane):
    """A derivative that is zero, said to be zero, is right."""
    scene = catalogue_scene("shadow-point")
    key = "blocker.bsdf.brdf_0.reflectance.value"
    assert key in scene.params
    (row,) = check_gradients(scene, key, "path_replay", cache=False).comparisons
    assert row.verdict is Verdict.PASS, row.reason


def test_a_black_picture_is_said_to_be_black_and_costs_no_budget():
    scene = {
        "type": "scene",
        "integrator": {"type": "path", "max_depth": 2},
        "camera": {"type": "perspective", "film": {"type": "hdrfilm", "width": 16, "height": 16}},
        "ball": {"type": "sphere", "center": [0, 0, 4]},
        "lamp": {"type": "point", "position": [0, 0, 9]},
    }
    report = check_gradients(scene, "ball.to_world translate:x", "edge_sampling", budget=30)
    found = report.comparisons[0]
    assert found.verdict is Verdict.INCONCLUSIVE
    assert "the image is black" in found.reason and found.seconds < 25


def test_a_failure_does_not_draw_a_precise_reference_of_an_earlier_run_anew(plane, tmp_path):
    options = {"cache": tmp_path, "backward": False, "diagnosis": False}
    (before,) = check_gradients(plane, SMOOTH, "path_replay", **options).comparisons
    (file,) = tmp_path.glob("*.npz")
    with np.load(file) as data:
        kept = dict(data)
    kept["spp"] = np.array(int(60 / kept["rate"]))  # a minute of work, by its word
    np.savez(file, **kept)
    (row,) = check_gradients(plane, SMOOTH, "biased_scale", **options).comparisons
    assert row.verdict is Verdict.FAIL and row.seconds < 20
    assert row.epsilon == before.epsilon and row.reference_spp < 1.5 * kept["spp"]
    assert row.spp >= 2 * before.spp  # the estimator's own are doubled all the same


def test_same_seed_gives_the_same_report(plane):
    options = {"cache": False, "seed": 7, "backward": False}
    first, second = (check_gradients(plane, SMOOTH, "path_replay", **options) for _ in range(2))
    a, b = first.comparisons[0], second.comparisons[0]
    assert a.slope == pytest.approx(b.slope, rel=1e-4)
    assert a.spp == b.spp


def test_reference_is_kept_on_disk_and_used_again(plane, tmp_path):
    first = check_gradients(plane, SMOOTH, "path_replay", cache=tmp_path, backward=False)
    (file,) = tmp_path.iterdir()
    stamp = file.stat().st_mtime_ns
    second = check_gradients(plane, SMOOTH, "path_replay", cache=tmp_path, backward=False)
    assert file.stat().st_mtime_ns == stamp
    np.testing.assert_allclose(first.comparisons[0].reference, second.comparisons[0].reference)
    file.write_bytes(file.read_bytes()[:100])  # cut short: computed again, not trusted
    third = check_gradients(plane, SMOOTH, "path_replay", cache=tmp_path, backward=False)
    assert third.passed


def test_changed_parameter_is_another_reference(tmp_path):
    scene = catalogue_scene("plane")
    check_gradients(scene, "lamp.intensity.value", "path_replay", cache=tmp_path, backward=False)
    scene.params["lamp.position"] = scene.params["lamp.position"] + 0.1
    scene.params.update()
    check_gradients(scene, "lamp.intensity.value", "path_replay", cache=tmp_path, backward=False)
    assert len(list(tmp_path.iterdir())) == 2


def test_mitsuba_scenes_and_dictionaries_are_accepted(plane):
    assert check_gradients(plane.mi, "lamp.intensity.value", "prb", cache=False, backward=False).passed


@pytest.mark.parametrize(
    ("motion", "estimator", "says"),
    [
        ("lamp.intensity", "path_replay", "did you mean"),
        ("lamp.intensity.value", "path_replai", "did you mean 'path_replay'"),
        ("lamp.intensity.value", "prb:spp", "not property=value"),
        ("*.nothing", "path_replay", "matches no parameter"),
        ("lamp.intensity.value", "warped_area:hybird=true", "no property 'hybird'"),
        ("lamp.intensity.value", "edge_sampling:near=-1", "near is -1.0, a number of pixels"),
    ],
)
def test_wrong_names_are_usage_errors_with_the_nearest(plane, motion, estimator, says):
    with pytest.raises(UsageError, match=says):
        check_gradients(plane, motion, estimator, cache=False)


def test_large_image_is_checked_at_a_smaller_size_and_left_as_it_was():
    scene = catalogue_scene("mesh", size=200, crop_width=200, crop_height=200)
    report = check_gradients(
        scene, "object.bsdf.brdf_0.reflectance.value", "path_replay", cache=False, resolution=24, backward=False
    )
    (row,) = report.comparisons
    assert row.verdict is Verdict.PASS, row.reason
    assert row.gradient.shape == (24, 24, 3)
    assert row.notes == ["the image of 200 x 200 pixels was checked at 24 x 24"]
    assert list(scene.sensor(0).film().size()) == [200, 200]


@pytest.mark.parametrize("opacity", [0.4, 1.0])
def test_reference_shows_a_mask_with_its_opacity_once(opacity):
    """A white card lit by a lamp shows its opacity: Mitsuba's `path` would show the square of it."""
    import mitsuba as mi

    from pathtracer.scenes import Scene
    from pathtracer.verify.subject import subject_of

    look = mi.ScalarTransform4f().look_at([0, 0, 4], [0, 0, 0], [0, 1, 0])
    film = {"type": "hdrfilm", "width": 4, "height": 4, "rfilter": {"type": "box"}}
    card = {"type": "mask", "opacity": opacity, "nested": {"type": "diffuse", "reflectance": 1.0}}
    scene = Scene.from_dict({
        "type": "scene",
        "sensor": {"type": "perspective", "fov": 5, "to_world": look, "film": film},
        "card": {"type": "rectangle", "bsdf": card},
        "lamp": {"type": "point", "position": [0, 0, 2], "intensity": 4 * np.pi},
    })  # fmt: skip
    image = np.array(subject_of(scene).base().render(scene.mi, scene.sensor(0), seed=1, spp=512))
    assert np.mean(image[..., :3]) == pytest.approx(opacity, rel=0.05)


# ------------------------------------------------------------------ the command


def _run(capfd, *arguments):
    from pathtracer.cli.main import main

    code = main(["check", *map(str, arguments)])
    out, err = capfd.readouterr()
    return code, out, err


def test_command_writes_pictures_page_and_json(tmp_path, capfd):
    scene = catalogue_folder() / "plane.xml"
    code, out, _ = _run(
        capfd, scene, "--wrt", "lamp.intensity.value value", "--wrt", "camera.to_world", "--motion", "translate:y",
        "--estimator", "path_replay", "--estimator", "biased_scale", "--json", "--forward-only",
        "-o", tmp_path / "out",
    )  # fmt: skip
    data = json.loads(out)
    assert "error" not in data, data["error"]
    assert code == 1 == data["exit_code"]
    verdicts = {(c["motion"], c["estimator"]): c["verdict"] for c in data["comparisons"]}
    assert set(verdicts.values()) == {"pass", "fail"}
    assert all(v == ("pass" if e == "path_replay" else "fail") for (_, e), v in verdicts.items())
    files = sorted(p.suffix for p in (tmp_path / "out").iterdir())
    assert files == [".html", ".json", ".png", ".png", ".png", ".png"]
    page = (tmp_path / "out" / "check.html").read_text(encoding="utf-8")
    assert page.count("data:image/png") == 4 and "http:" not in page and "https:" not in page


def test_command_prints_a_table_and_the_remedy(capfd):
    scene = catalogue_folder() / "plane.xml"
    code, out, _ = _run(capfd, scene, "--wrt", "camera.to_world translate:x", "--estimator", "biased_scale")
    assert code == 1
    assert "biased_scale" in out and "fail" in out and "suspicious term: interior" in out


def test_command_runs_cases_of_the_catalogue_and_says_whether_they_are_as_expected(capfd, tmp_path):
    arguments = ["catalogue/mesh-closed-moves", "--estimator", "path_replay", "--estimator", "prb", "-o", tmp_path]
    code, out, err = _run(capfd, *arguments, "--json", "--forward-only")
    ours, theirs = json.loads(out)["comparisons"]
    assert ours["verdict"] == theirs["verdict"] == "fail"
    assert (ours["as_expected"], theirs["as_expected"]) == (True, None)
    assert ours["expected"].startswith("fail/unsupported, slope 0.00 (leaves out primary)")
    assert code == 1  # of Mitsuba's integrator nothing is expected, so its failure counts
    assert "mesh-closed-moves path_replay: fail" in err
    assert (tmp_path / "mesh-closed-moves-prb.png").is_file()
    assert "mesh-closed-moves" in (tmp_path / "check.html").read_text(encoding="utf-8")


def test_command_lists_the_catalogue(capfd):
    code, out, _ = _run(capfd, "catalogue/shadow-point-*", "--list")
    assert code == 0
    assert "shadow-point-light" in out and "lamp.position translate:x" in out and "caught" in out
    assert "soft_rasterizer" not in out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["plane.xml", "--wrt", "lamp.intensity.valu"], "lamp.intensity.value"),
        (["plane.xml", "--wrt", "lamp.position", "--motion", "translat:x"], "did you mean 'translate'"),
        (["plane.xml", "--wrt", "lamp.position", "--motion", "translate:w"], "neither an axis nor numbers"),
        (["plane.xml", "--wrt", "lamp.intensity.value", "--motion", "rotate:y"], "value or random"),
        (["plane.xml", "--wrt", "lamp.position", "--estimator", "path_repla"], "did you mean 'path_replay'"),
        (["plane.xml"], "--wrt KEY"),
        (["plane.xml", "--wrt", "lamp.position", "--list"], "only the catalogue has cases"),
        (["catalogue/shadow-pint-light"], "did you mean 'shadow-point-light'"),
        (["catalogue", "--wrt", "lamp.position"], "say themselves what moves"),
        (["plane.xml", "--wrt", "lamp.position", "-o", "out.png"], "name a folder"),
    ],
)
def test_wrong_arguments_are_one_sentence_and_exit_2(capfd, arguments, says):
    first = arguments[0] if arguments[0].startswith("catalogue") else catalogue_folder() / arguments[0]
    code, out, err = _run(capfd, first, *arguments[1:])
    assert code == 2 and not out
    assert says in err
    assert err.startswith("error: ") and err.count("\n") == 1 and "Traceback" not in err
