"""What Mitsuba says of a wrong property, in one sentence of ours."""

import pytest

from pathtracer.errors import UsageError
from pathtracer.integrator_plugins import load_integrator


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"type": "prb", "near": 0.25}, "prb has no property 'near'"),
        ({"type": "path_replay", "near": -2.0}, "near is -2.0, a number of pixels"),
        ({"type": "edge_sampling", "split": "odd"}, "split is 'odd', equal or auto was expected"),
    ],
)
def test_properties_that_are_not_there_or_make_no_sense_are_usage_errors(settings: dict, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        load_integrator(settings, "estimator")
    assert str(caught.value).startswith("estimator: ")
    assert "\n" not in str(caught.value)
