"""Filter patterns of fields with spaces between them."""

from __future__ import annotations

import pytest

from clary.logs.patterns import compile_pattern

ACCESS = '127.0.0.1 Prod frank [10/Oct/2000:13:25:15 -0700] "GET /index.html HTTP/1.0" 404 1534'


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("[ip, id, user, timestamp, request, status_code, size]", True),
        ("[ip, id, user, timestamp, request, status_code]", False),
        ("[ip, id, user, timestamp, request, status_code = 4*, size]", True),
        ("[ip, id, user, timestamp, request =*html*, status_code = 4*, size]", True),
        ("[..., status_code = 404, size]", True),
        ("[ip = 127.*, ...]", True),
        ("[ip, ..., size > 1000]", True),
        ("[ip, ..., size > 2000]", False),
        ("[..., status_code = 404 || status_code = 410, size]", True),
        ("[..., status_code != 404, size]", False),
        ('[ip, id, user = "frank" || user = "eve", ...]', True),
        (r"[ip = %^127\.%, ...]", True),
        ("[..., a, b, c, d, e, f, g, h]", False),
        ("[...]", True),
        ("[(ip = 1.1.1.1 || ip = 127.0.0.1) && ip != 2.2.2.2, ...]", True),
    ],
)
def test_fields(pattern: str, expected: bool) -> None:
    assert compile_pattern(pattern)(ACCESS) is expected


def test_brackets_and_quotation_marks_make_one_field() -> None:
    assert compile_pattern('[time = "10/Oct/2000:13:25:15 -0700", request = "GET / HTTP/1.0"]')(
        '[10/Oct/2000:13:25:15 -0700] "GET / HTTP/1.0"'
    )
    assert compile_pattern("[]")("")
