"""The figures of docs/SCALING.md, at a hundredth of the size: planning stays small, and Beam stays cheap."""

import pytest

from augnet.audits.sizing import UNIT_IMAGES
from benchmarks import scale


def test_planning_needs_little_memory_per_image(tmp_path):
    small = scale.plan_synthetic(str(tmp_path), images=1_000)
    (tmp_path / "more").mkdir()
    large = scale.plan_synthetic(str(tmp_path / "more"), images=100_000)
    assert (small["units"], large["units"]) == (-(-1_000 // UNIT_IMAGES), -(-100_000 // UNIT_IMAGES))
    grown = max(0, large["peak_bytes"] - small["peak_bytes"])
    assert grown < 100_000 * 100  # bytes per image: 10 million would take 1 GiB on top of the libraries
    assert large["plan_bytes"] < 100_000 * 20


@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_beams_own_cost_is_far_below_that_of_a_unit_and_no_unit_is_lost(tmp_path):
    found = scale.run_stub_units(str(tmp_path), units=1_000)
    assert found["counted"] == 1_000
    assert found["milliseconds"] < 5 + 2_000 / 1_000  # with two seconds to start
    assert found["job_bytes"] < 100_000
