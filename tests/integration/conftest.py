"""Which tests of sessions run on PostgreSQL in `make test`: each of them once, as it is first told.

On the other stores they run with all of their cases; `make soak` runs all cases on PostgreSQL too.
"""

from __future__ import annotations

from pathlib import Path

import pytest

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark all but the first case of each test on PostgreSQL."""
    seen: set[tuple[Path, str]] = set()
    for item in items:
        if not isinstance(item, pytest.Function) or HERE not in item.path.parents:
            continue
        call = getattr(item, "callspec", None)
        if call is None or call.params.get("place") != "postgres":
            continue
        name = (item.path, item.originalname)
        if name in seen:
            item.add_marker(pytest.mark.soak)
        seen.add(name)
