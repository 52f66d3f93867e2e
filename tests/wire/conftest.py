"""The moment at which botocore signs."""

from __future__ import annotations

from collections.abc import Iterator
from unittest import mock

import botocore.auth
import pytest

from tests.wire.signed import SIGNED_AT


@pytest.fixture(scope="module")
def signing_time() -> Iterator[None]:
    with mock.patch.object(botocore.auth, "get_current_datetime", lambda: SIGNED_AT):
        yield
