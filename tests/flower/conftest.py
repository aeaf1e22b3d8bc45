"""What tests of faults share."""

import json

import pytest


@pytest.fixture
def account(record_property):
    """Keeps what a fault has cost: benchmarks/federation.py makes a table of it."""

    def keep(federation, event):
        record_property("fault", json.dumps({"event": event, **federation.account()}))

    return keep
