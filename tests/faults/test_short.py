"""The short forms of the fault campaigns; ``make faults`` has the whole ones."""

from __future__ import annotations

import pytest

from tests.faults.__main__ import CAMPAIGNS
from tests.faults.reports import Asked, printed


@pytest.mark.parametrize("name", [name for name, campaign in CAMPAIGNS.items() if campaign.short])
def test_no_promise_is_broken(name: str) -> None:
    """A campaign, cut down to some seconds, finds nothing."""
    report = CAMPAIGNS[name].hold(Asked())
    print(printed(report))
    if report.skipped:
        pytest.skip(report.skipped)
    assert report.violations == []
