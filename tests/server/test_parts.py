"""What a process asks of the system."""

from __future__ import annotations

import resource

import pytest

from clary.server.parts import allow_descriptors


def test_a_gateway_may_have_as_many_descriptors_as_the_system_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    set_to: list[tuple[int, tuple[int, int]]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda what: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda *limit: set_to.append(limit))
    allow_descriptors()
    assert set_to == [(resource.RLIMIT_NOFILE, (4096, 4096))]


def test_a_system_that_refuses_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*limit: object) -> None:
        raise ValueError("not allowed to raise maximum limit")

    monkeypatch.setattr(resource, "setrlimit", refuse)
    allow_descriptors()
