"""Edges welded by position."""

import time

import numpy as np
import pytest

from integrators.boundary.topology import build_edges, weld_vertices

CORNERS = np.array([[x, y, z] for z in (0, 1) for y in (0, 1) for x in (0, 1)], dtype=np.float32)
QUADS = [(0, 1, 3, 2), (4, 6, 7, 5), (0, 4, 5, 1), (2, 3, 7, 6), (0, 2, 6, 4), (1, 5, 7, 3)]
TRIANGLES = np.array([t for a, b, c, d in QUADS for t in ((a, b, c), (a, c, d))])


def soup(positions: np.ndarray, faces: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same triangles with vertices of their own."""
    return positions[faces].reshape(-1, 3), np.arange(faces.size).reshape(-1, 3)


def test_a_cube_has_twelve_edges_and_six_diagonals() -> None:
    edges = build_edges(CORNERS, TRIANGLES)
    assert len(edges) == 18
    assert np.all(edges.faces == 2)


def test_seams_do_not_open_edges() -> None:
    edges = build_edges(*soup(CORNERS, TRIANGLES))
    assert len(edges) == 18
    assert np.all(edges.faces == 2)
    assert not edges.uniform.any()


def test_both_copies_of_a_seam_are_remembered_in_the_same_order() -> None:
    positions, faces = soup(CORNERS, TRIANGLES)
    edges = build_edges(positions, faces)
    np.testing.assert_array_equal(positions[edges.start], positions[edges.start_other])
    np.testing.assert_array_equal(positions[edges.end], positions[edges.end_other])
    assert np.all(edges.start != edges.start_other)


def test_cracks_of_round_off_are_closed() -> None:
    positions, faces = soup(CORNERS * 7 + 3, TRIANGLES)
    crumbled = positions + np.random.default_rng(0).uniform(-4e-7, 4e-7, positions.shape)
    assert np.all(build_edges(crumbled, faces).faces == 2)


def test_distinct_points_are_not_welded() -> None:
    positions = np.array([[0, 0, 0], [1e-4, 0, 0], [1, 0, 0]])
    assert list(weld_vertices(positions)) == [0, 1, 2]


def test_coincident_shapes_share_their_edge() -> None:
    left = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0]])
    right = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0]])
    edges = build_edges(np.concatenate([left, right]), np.arange(6).reshape(2, 3), np.array([0, 1]))
    shared = edges.faces == 2
    assert shared.sum() == 1
    assert not edges.uniform[shared]


def test_open_and_non_manifold_edges_are_counted() -> None:
    positions = np.array([[0, 0, 0], [0, 0, 1], [1, 0, 0], [0, 1, 0], [-1, -1, 0]])
    fan = np.array([[0, 1, 2], [0, 1, 3], [0, 1, 4]])
    edges = build_edges(positions, fan)
    assert sorted(edges.faces) == [1] * 6 + [3]


def test_degenerate_faces_and_edges_are_skipped_and_counted() -> None:
    positions = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 0], [2, 0, 0]])
    edges = build_edges(positions, np.array([[0, 1, 2], [0, 3, 1], [0, 1, 4]]))
    assert edges.skipped_faces == 2
    assert len(edges) == 3


def test_smooth_needs_one_smooth_shape_and_shared_vertices() -> None:
    grid = np.array([[0, 0, 0], [1, 0, 0], [1, 1, 0], [0, 1, 0]])
    faces = np.array([[0, 1, 2], [0, 2, 3]])
    smooth = build_edges(grid, faces, np.zeros(2, int), np.array([True]))
    assert smooth.smooth.sum() == 1
    assert build_edges(*soup(grid, faces), np.zeros(2, int), np.array([True])).smooth.sum() == 0
    assert build_edges(grid, faces, np.zeros(2, int), np.array([False])).smooth.sum() == 0


def test_no_faces_give_no_edges() -> None:
    assert len(build_edges(np.zeros((0, 3)), np.zeros((0, 3), dtype=int))) == 0


def test_a_face_out_of_range_is_refused() -> None:
    with pytest.raises(IndexError, match="names vertex 7"):
        build_edges(CORNERS[:4], np.array([[0, 1, 7]]))


@pytest.mark.slow
def test_a_million_triangles_take_seconds() -> None:
    n = 708
    x, y = np.meshgrid(np.linspace(0, 1, n), np.linspace(0, 1, n))
    positions = np.stack([x.ravel(), y.ravel(), np.sin(9 * x.ravel())], axis=1).astype(np.float32)
    at = np.arange(n * n).reshape(n, n)
    a, b, c, d = at[:-1, :-1].ravel(), at[:-1, 1:].ravel(), at[1:, :-1].ravel(), at[1:, 1:].ravel()
    faces = np.concatenate([np.stack([a, b, c], axis=1), np.stack([b, d, c], axis=1)])
    start = time.process_time()
    edges = build_edges(*soup(positions, faces))
    assert time.process_time() - start < 20
    assert edges.faces.max() == 2
    assert len(edges) == len(build_edges(positions, faces))


def test_a_surface_is_what_edges_join() -> None:
    """Seams part nothing; a shared corner joins nothing; two shapes are two surfaces; a face without area is none."""
    one, faces = soup(CORNERS, TRIANGLES)
    assert len(set(build_edges(one, faces).surface)) == 1
    both = np.concatenate([one, one + 1]), np.concatenate([faces, faces + len(one)])
    surface = build_edges(*both).surface
    assert len(set(surface)) == 2 and len(set(surface[:12])) == len(set(surface[12:])) == 1
    shapes = np.repeat([0, 1], 12)
    beside = np.concatenate([one, one + np.eye(3)[0]]), both[1]
    assert len(set(build_edges(*beside).surface)) == 1
    assert len(set(build_edges(*beside, shapes).surface)) == 2
    assert build_edges(CORNERS, np.vstack([TRIANGLES, [0, 0, 1]])).surface[-1] == -1
