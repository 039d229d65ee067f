"""The site of the shipped data, made once."""

from __future__ import annotations

import pytest

from readtrack.report.gather import of_shipped
from readtrack.report.site import Site, build


@pytest.fixture(scope="session")
def shipped_site() -> Site:
    return build(of_shipped())
