from __future__ import annotations

from .conftest import Api


async def test_the_caller_is_clarys_one_user(api: Api) -> None:
    assert await api("GetCallerIdentity") == {
        "UserId": "AKIAEXAMPLE",
        "Account": "123456789012",
        "Arn": "arn:aws:iam::123456789012:user/clary",
    }
