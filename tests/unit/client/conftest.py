"""What the tests of the Python client share."""

import pytest


def pytest_itemcollected(item: pytest.Item) -> None:
    """Leave the portable socket to the long tests: the client sees no difference."""
    if "portable" in item.keywords:
        item.add_marker(pytest.mark.long)
