"""Lines along which textures jump."""

from pathlib import Path

import drjit as dr
import mitsuba as mi
import numpy as np
import pytest

from integrators.boundary.silhouettes import Silhouettes
from integrators.boundary.texture_lines import Grid, cut, jumping_textures, merge

SQUARE = np.array([[[0, 0], [1, 0], [1, 1]], [[0, 0], [1, 1], [0, 1]]], dtype=np.float64)


def length(uv: np.ndarray, triangle: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    ends = [np.einsum("nk,nkc->nc", b, uv[triangle]) for b in (start, end)]
    return float(np.linalg.norm(ends[1] - ends[0], axis=1).sum())


def test_grid_lines_are_cut_to_the_triangles() -> None:
    triangle, start, end = cut(SQUARE, Grid(np.eye(3), (4, 2)))
    keep, sides = merge(triangle, start, end)
    # three inner lines of length 1 across the width, one along it; the border of the square is its own edges
    assert length(SQUARE, triangle[keep], start[keep], end[keep]) == pytest.approx(4)
    assert len(sides) == 4


def test_lines_shared_by_two_grids_count_once() -> None:
    pieces = [cut(SQUARE, Grid(np.eye(3), cells)) for cells in ((4, 1), (2, 1), (4, 1))]
    triangle, start, end = (np.concatenate(piece) for piece in zip(*pieces, strict=True))
    keep, _ = merge(triangle, start, end)
    assert length(SQUARE, triangle[keep], start[keep], end[keep]) == pytest.approx(3)


def test_too_many_lines_are_refused() -> None:
    with pytest.raises(ValueError, match="segments"):
        cut(SQUARE, Grid(np.eye(3), (10_000_000, 1)))


@pytest.mark.parametrize(("filter_type", "count"), [("nearest", 1), ("bilinear", 0)])
def test_the_filter_of_a_bitmap_is_found_out(filter_type: str, count: int) -> None:
    texels = mi.TensorXf(np.random.default_rng(0).random((5, 7, 3)).astype(np.float32))
    texture = {"type": "bitmap", "data": texels, "raw": True, "filter_type": filter_type}
    assert len(jumping_textures(mi.load_dict({"type": "diffuse", "reflectance": texture}))) == count


@pytest.mark.parametrize(("filter_type", "count"), [("nearest", 1), ("bilinear", 0)])
def test_texels_that_are_all_alike_may_come_to_differ(filter_type: str, count: int) -> None:
    texels = mi.TensorXf(np.ones((16, 16, 1), dtype=np.float32))
    texture = {"type": "bitmap", "data": texels, "raw": True, "filter_type": filter_type}
    mask = mi.load_dict({"type": "mask", "opacity": texture, "bsdf": {"type": "diffuse"}})
    params = mi.traverse(mask)
    dr.enable_grad(params["opacity.data"])
    with dr.suspend_grad():  # as the tables are made
        assert len(jumping_textures(mask)) == count
    assert dr.grad_enabled(params["opacity.data"])
    assert (np.array(params["opacity.data"]) == 1).all()


def test_texels_that_end_at_a_diagonal_make_it_a_candidate() -> None:
    """A line along an edge of the mesh is left to that edge, which then counts although the faces lie in one plane."""
    checks = {"type": "diffuse", "reflectance": {"type": "checkerboard"}}
    plain = Silhouettes(mi.load_dict({"type": "scene", "cube": {"type": "cube"}}))
    scene = mi.load_dict({"type": "scene", "cube": {"type": "cube", "bsdf": checks}})
    curves = Silhouettes(scene)
    assert plain.topology.lines.size == 0
    assert curves.topology.lines.size > 0
    assert curves.topology.lines.sides.size == 24  # the four sides of six faces


@pytest.mark.parametrize(("filter_type", "count"), [("nearest", 1), ("bilinear", 0)])
def test_texels_of_eight_bits_and_strips_of_texels_are_looked_at_as_well(
    filter_type: str, count: int, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    path = tmp_path / "texels.png"
    mi.Bitmap(rng.integers(0, 255, (8, 8, 3), dtype=np.uint8)).write(str(path))
    strip = {"data": mi.TensorXf(rng.uniform(size=(1, 8, 1)).astype(np.float32)), "raw": True}
    for texels in ({"filename": str(path)}, strip):
        texture = {"type": "bitmap", "filter_type": filter_type, **texels}
        bsdf = mi.load_dict({"type": "diffuse", "reflectance": texture})
        before = np.array(mi.traverse(bsdf)["reflectance.data"])
        assert len(jumping_textures(bsdf)) == count
        np.testing.assert_array_equal(mi.traverse(bsdf)["reflectance.data"], before)
