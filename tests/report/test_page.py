"""The page holds everything itself, escapes what it is given, and reads well in a real browser."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import replace
from html import escape as html_escape

import numpy as np
import pytest

from pathtracer.report import ParameterReport, ReportData, ViewReport, WarningReport, render_page, write_page
from pathtracer.report.figures import loss_figure, parameter_figure, wants_log
from pathtracer.report.page import MAX_PICTURED_VIEWS, duration, number

HOSTILE = """<script>document.title='taken'</script><img src=x onerror="document.title='taken'">'"${7*7}{{7*7}} & é"""


def picture(offset: float = 0.0, n: int = 24) -> np.ndarray:
    y, x = np.mgrid[:n, :n] / n
    return (np.stack([x, y, 0.5 + 0 * x], -1) + offset * np.sin(9 * y)[..., None]).clip(0).astype(np.float32)


def example(name: str = "cornell-box", views: int = 2) -> ReportData:
    """A finished run with everything that a page can show, named `name`."""
    steps = np.arange(60)
    fade = np.exp(-steps / 10)
    course = np.array([0.63, 0.065, 0.05]) + (0.8 - np.array([0.63, 0.065, 0.05])) * fade[:, None]
    loss = fade**2 + 1e-4
    texture = picture(n=16)
    return ReportData(
        title=name,
        status="converged",
        steps=steps,
        loss=loss,
        loss_error=0.05 * loss,
        wall=steps * 0.2,
        views=[
            ViewReport(f"{name} {i}", picture(), picture(0.5), picture(0.01 * i), holdout=i == 1) for i in range(views)
        ],
        parameters=[
            ParameterReport(
                f"{name}.reflectance.value",
                course[-1],
                course[0],
                np.full(3, 0.002),
                np.array([0.63, 0.065, 0.05]),
                steps,
                course,
                "color",
                "logit",
            ),
            ParameterReport("sphere.bsdf.alpha.value", np.array([0.2])),
            ParameterReport(f"{name}.data", texture, np.full_like(texture, 0.5), truth=texture, kind="texture"),
        ],
        warnings=[WarningReport(f"shadow edges of {name} are ignored", "visibility", "use edge_sampling", 3)],
        notes=[f"{name} was taken as sRGB"],
        timings={"compile": 2.5, "run": 90.0},
        facts={"seed": "0", "scene": name},
        job=f"[scene]\nfile = '{name}'\n",
    )


def test_the_page_asks_the_network_for_nothing():
    html = render_page(example())
    links = re.findall(r"""(?:src|href|xlink:href|action|data)\s*=\s*["']([^"']+)""", html) + re.findall(
        r"url\(([^)]*)\)", html
    )
    assert all(link.startswith(("data:image/png;base64,", "#")) for link in links), links
    assert "@import" not in html and "default-src 'none'" in html


def test_every_part_is_on_the_page():
    html = render_page(example())
    for text in (
        "Recovered values",
        "± 0.002",
        "standard error",
        "truth",
        "difference",
        "held out",
        "What to do:",
        "use edge_sampling",
        "taken as sRGB",
        "2.5 s",
        "1 min 30 s",
        "Textures and environments",
        "Job file as it was run",
    ):
        assert text in html, text
    assert html.count("<svg") >= 3, "loss curve, parameter curve, swatches"


def test_hostile_names_are_escaped_everywhere():
    html = render_page(example(HOSTILE))
    assert "<script>document" not in html and "<img src=x" not in html
    assert "49" not in re.sub(r"data:image/png;base64,[^\"]*|<svg.*?</svg>", "", html, flags=re.DOTALL)
    assert html.count("&lt;script&gt;") >= 7


def test_a_run_without_steps_truth_or_errors_makes_a_page_and_says_what_is_missing():
    data = ReportData("bare", views=[ViewReport("a", picture())], parameters=[ParameterReport("k", np.array([0.5]))])
    html = render_page(data)
    assert "No standard errors" in html and "off by" not in html and "Loss</h2>" not in html


def test_many_views_are_limited_to_the_held_out_and_the_worst():
    html = render_page(example(views=MAX_PICTURED_VIEWS + 5))
    assert html.count('class="target"') == MAX_PICTURED_VIEWS
    assert f"5 of {MAX_PICTURED_VIEWS + 5} views are shown as numbers only" in html
    assert "cornell-box 1 <span" in html, "the held-out view is among them"


def test_vertices_are_one_row_of_how_far_they_went():
    start = np.random.default_rng(0).normal(size=(30, 3))
    data = example()
    data.parameters = [
        ParameterReport("body.vertex_positions", start + np.array([0, 0, 0.5]), start, space="large-steps")
    ]
    html = render_page(data)
    assert "30 points" in html and "moved by 0.5 on average, 0.5 at most" in html and "more numbers" not in html


def test_the_fall_of_a_loss_is_not_read_into_its_noise():
    data = example()
    data.loss[-1], data.loss_error[-1] = 1e-7, 1e-3
    html = render_page(data)
    assert "loss fell by a factor of more than" in html and "<b>1,000</b>" in html


def test_masked_pixels_count_for_nothing_in_the_errors():
    target, result = picture(), picture()
    result[0] += 100
    mask = np.ones(target.shape[:2], np.float32)
    mask[0] = 0
    view = ViewReport("m", target, result=result, mask=mask)
    assert view.error() == 0 and view.psnr() is None
    assert ViewReport("m", target, result=result).error() > 10


def test_the_page_appears_whole_and_replaces_the_old_one(tmp_path):
    path = tmp_path / "report.html"
    path.write_text("old")
    write_page(example(), path, refresh=10)
    text = path.read_text(encoding="utf-8")
    assert text.rstrip().endswith("</html>") and 'http-equiv="refresh"' in text
    assert [p.name for p in tmp_path.iterdir()] == ["report.html"]


def test_loss_is_logarithmic_only_when_it_spans_decades():
    assert wants_log(np.array([1.0, 1e-3])) and not wants_log(np.array([1.0, 0.9]))
    assert not wants_log(np.array([1.0, 0.0])) and not wants_log(np.array([np.nan]))
    svg = loss_figure(example())
    assert "logarithmic" in svg and "currentColor" in svg and "mathdefault" not in svg


def test_a_parameter_without_a_course_has_no_curve():
    assert parameter_figure(ParameterReport("k", np.array([0.5]))) is None


def test_a_pose_is_drawn_as_degrees_and_as_lengths():
    course = np.array([[0, 0, 0, 0, 0, 0], [-7.2, 6, -7.4, 0.08, -0.07, -0.06]])
    pose = ParameterReport("box.vertex_positions", course[-1], space="pose", steps=np.arange(2), course=course)
    svg = parameter_figure(pose)  # warnings are errors: nothing is squeezed to nothing
    assert svg is not None and "rotation [°]" in svg and "translation" in svg
    assert svg.count('id="axes_') == 2


def test_a_loss_that_ends_in_noise_about_zero_shows_its_fall():
    loss = np.array([1e-2, 1e-3, 1e-5, -2e-5, 1e-5])
    svg = loss_figure(replace(example(), steps=np.arange(5), loss=loss, loss_error=np.full(5, 2e-5)))
    assert "symmetric log" in svg and ">0.001<" in svg


def test_numbers_have_the_digits_that_their_error_leaves():
    assert number(0.63012, 0.0012) == "0.6301"
    assert number(17.0149, 0.2) == "17.01"
    assert number(1234567.0, 1e4) == "1.235e+06"
    assert number(0.5) == "0.5" and number(float("nan")) == "nan"
    assert (duration(0.012), duration(61), duration(7300)) == ("12 ms", "1 min 1 s", "2 h 1 min")


@pytest.fixture(scope="module")
def chromium() -> str:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("needs a browser: apt-get install chromium")
    return program


def browse(chromium: str, page, profile, *options: str) -> str:
    """Load the page without a window and return what the options print."""
    command = [chromium, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"]
    command += ["--disable-dev-shm-usage"]  # containers have little of it
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync", "--hide-scrollbars"]
    command += [f"--user-data-dir={profile}", *options, page.as_uri()]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout


def test_a_browser_shows_the_page_on_a_phone_without_sideways_scrolling_and_runs_no_foreign_script(chromium, tmp_path):
    # a window has at least 500 columns, a frame may have a phone's 390
    frame = tmp_path / "phone.html"
    frame.write_text(
        f"""<!doctype html><meta charset="utf-8"><iframe style="width: 390px; height: 800px; border: 0" onload="
        const d = this.contentDocument, e = d.documentElement;
        const broken = [...d.images].filter(i => !i.naturalWidth).length;
        document.body.dataset.probe = [d.title.startsWith('taken'), e.scrollWidth, broken,
        d.querySelectorAll('figure.wide:not([hidden])').length,
        [...d.querySelectorAll('table.plain')].filter(t => t.offsetWidth > t.parentElement.clientWidth).length
        ].join(' ');
        " srcdoc="{html_escape(render_page(example(HOSTILE)))}"></iframe>""",
        encoding="utf-8",
    )
    dom = browse(chromium, frame, tmp_path / "profile", "--dump-dom")
    match = re.search(r'data-probe="(\w+) (\d+) (\d+) (\d+) (\d+)"', dom)
    assert match is not None, dom[:500]
    taken, width, broken, sliders, cut = match.groups()
    assert taken == "false"
    assert int(width) == 390, f"the page is {width} columns wide on a phone of 390"
    assert int(cut) == 0, "a table of facts has columns that a phone does not show"
    assert int(broken) == 0 and int(sliders) == 2


def test_a_browser_draws_the_page_dark_in_dark_mode(chromium, tmp_path):
    import imageio.v3 as iio

    page = write_page(example(), tmp_path / "report.html")
    for scheme, dark in ((1, False), (0, True)):
        shot = tmp_path / f"{scheme}.png"
        options = (f"--blink-settings=preferredColorScheme={scheme}", f"--screenshot={shot}", "--window-size=800,1200")
        browse(chromium, page, tmp_path / f"profile-{scheme}", *options)
        pixels = iio.imread(shot)[..., :3]
        corner = pixels[2, 2].mean()
        assert (corner < 60) == dark, "the page's background"
        assert pixels.std() > 10, "something is drawn"
