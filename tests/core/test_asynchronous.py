"""What is decided about asynchronous requests, before and after an attempt."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from clary.core.asynchronous import (
    MAX_ATTEMPTS,
    Again,
    AsyncRequest,
    Broken,
    Completed,
    Failed,
    Invoke,
    Past,
    Refusal,
    Refused,
    TimedOut,
    Unavailable,
    Unusable,
    Wait,
    judge,
    locations,
    next_step,
)
from clary.core.routing import AsyncInference, EndpointRoute, Hop, RouteTable, Target, VariantRoute

CONFIG = AsyncInference("q", "s3://bucket/out/", "s3://bucket/failed", concurrency=2)
REQUEST = AsyncRequest("id", "q", "ep", "mine", 100.0, 200.0, 60.0, "s3://bucket/out/id.out")


def variant(name: str, *ids: str, weight: float = 1.0) -> VariantRoute:
    return VariantRoute(name, weight, tuple(Target(id, (Hop(id, "h", 1),)) for id in ids))


def route(*variants: VariantRoute, status: str = "InService", config: AsyncInference | None = CONFIG) -> EndpointRoute:
    return EndpointRoute("ep", status, variants, asynchronous=config)


def test_an_asynchronous_route_travels_as_json() -> None:
    table = RouteTable(1, {"ep": route(replace(variant("v", "i"), role_arn="arn:r"))})
    assert RouteTable.from_json(table.to_json()) == table


@pytest.mark.parametrize(
    ("extension", "filename", "output", "failure"),
    [
        ("", "", "s3://bucket/out/id.out", "s3://bucket/failed/id-error.out"),
        ("/a/b/", "", "s3://bucket/out/a/b/id.out", "s3://bucket/failed/a/b/id-error.out"),
        ("", "x.json", "s3://bucket/out/x.json", "s3://bucket/failed/x-error.json"),
        ("a", "x", "s3://bucket/out/a/x", "s3://bucket/failed/a/x-error"),
    ],
)
def test_an_answer_and_a_failure_have_places_of_their_own(
    extension: str, filename: str, output: str, failure: str
) -> None:
    assert locations(CONFIG, "id", extension, filename) == (output, failure)


def test_without_a_failure_path_there_is_no_place_for_one() -> None:
    assert locations(replace(CONFIG, failure_path=""), "id", "a", "") == ("s3://bucket/out/a/id.out", "")


@pytest.mark.parametrize("extension", ["a//b", "..", "a/../b", "."])
def test_folders_that_a_store_would_read_as_others_are_refused(extension: str) -> None:
    with pytest.raises(Refusal, match="empty or dots"):
        locations(CONFIG, "id", extension, "")


def test_without_an_output_path_nothing_is_taken() -> None:
    with pytest.raises(Refusal, match="no S3OutputPath"):
        locations(replace(CONFIG, output_path=""), "id", "", "")


# -- before an attempt


def step(found: EndpointRoute | None, now: float = 150.0, load: dict[str, int] | None = None, **more: Any) -> object:
    past = Past(more.get("avoid", ""), more.get("breaks", 0))
    return next_step(REQUEST, found, now, load or {}, more.get("served", {}), past)


def test_the_least_busy_instance_with_room_gets_the_request() -> None:
    found = step(route(variant("v", "a", "b", "c")), load={"a": 2, "b": 1})
    assert isinstance(found, Invoke)
    assert found.target.id == "c"


def test_a_request_waits_while_all_instances_are_full_and_while_there_are_none() -> None:
    assert step(route(variant("v", "a")), load={"a": 2}) == Wait()
    assert step(route(variant("v"))) == Wait()
    assert step(route(variant("v", "a", weight=0.0))) == Wait()
    assert step(route(variant("v", "a"), status="Creating")) == Invoke(variant("v", "a"), variant("v", "a").targets[0])


def test_the_instance_that_broke_is_taken_only_where_no_other_has_room() -> None:
    both = route(variant("v", "a", "b"))
    found = step(both, avoid="a")
    assert isinstance(found, Invoke)
    assert found.target.id == "b"
    only = step(both, load={"b": 2}, avoid="a")
    assert isinstance(only, Invoke)
    assert only.target.id == "a"


def test_before_its_last_attempt_a_request_waits_for_an_instance_that_it_then_has_alone() -> None:
    both = route(variant("v", "a", "b"))
    for breaks in range(MAX_ATTEMPTS - 1):
        found = step(both, load={"a": 1, "b": 1}, breaks=breaks)
        assert isinstance(found, Invoke)
        assert found.room == 1
    assert step(both, load={"a": 1, "b": 1}, breaks=MAX_ATTEMPTS - 1) == Wait()
    found = step(both, load={"a": 1}, breaks=MAX_ATTEMPTS - 1)
    assert isinstance(found, Invoke)
    assert (found.target.id, found.room) == ("b", CONFIG.concurrency)


def test_a_request_expires_only_while_it_waits() -> None:
    assert isinstance(step(route(variant("v", "a")), now=199.9), Invoke)
    found = step(route(variant("v")), now=200.0)
    assert isinstance(found, Failed)
    assert found.kind == "expired"
    assert "100 seconds" in found.text


@pytest.mark.parametrize(
    "gone",
    [
        None,
        route(status="Deleting"),
        route(status="Failed"),
        route(config=None),
        route(config=replace(CONFIG, queue="x")),
    ],
    ids=["unknown", "deleting", "failed", "not asynchronous", "another one of its name"],
)
def test_a_request_whose_endpoint_is_gone_fails(gone: EndpointRoute | None) -> None:
    found = step(gone)
    assert isinstance(found, Failed)
    assert found.kind == "deleted"


@settings(deadline=None)
@given(
    weights=st.lists(st.integers(1, 5), min_size=1, max_size=4),
    requests=st.integers(1, 200),
)
def test_variants_get_their_weights_share(weights: list[int], requests: int) -> None:
    variants = [variant(f"v{n}", f"i{n}", weight=float(weight)) for n, weight in enumerate(weights)]
    served: Counter[str] = Counter()
    for _ in range(requests):
        found = next_step(REQUEST, route(*variants), 150.0, {}, served)
        assert isinstance(found, Invoke)
        served[found.variant.name] += 1
    for n, weight in enumerate(weights):
        assert abs(served[f"v{n}"] - requests * weight / sum(weights)) <= len(weights)


@settings(deadline=None)
@given(st.data())
def test_no_instance_ever_gets_more_than_its_concurrency_and_none_is_idle_while_one_waits(data: st.DataObject) -> None:
    ids = ["a", "b", "c", "d"]
    split = data.draw(st.integers(0, 4))
    found_route = route(variant("x", *ids[:split]), variant("y", *ids[split:], weight=2.0))
    load: Counter[str] = Counter()
    served: Counter[str] = Counter()
    for leaves in data.draw(st.lists(st.sampled_from(["", *ids]), max_size=60)):
        if leaves and load[leaves]:
            load[leaves] -= 1
        found = next_step(REQUEST, found_route, 150.0, load, served)
        if isinstance(found, Invoke):
            load[found.target.id] += 1
            served[found.variant.name] += 1
            assert load[found.target.id] <= CONFIG.concurrency
        else:
            assert all(load[id] == CONFIG.concurrency for id in ids)


# -- after an attempt


def verdict(outcome: Any, attempts: int = 1, breaks: int = 0, *, removed: bool = False) -> object:
    return judge(REQUEST, outcome, attempts, breaks, removed=removed)


def test_a_whole_answer_is_the_end() -> None:
    done = Completed("text/plain", 200, b"x")
    assert verdict(done) is done


def test_a_container_that_breaks_is_asked_again_and_then_given_up_in_the_services_words() -> None:
    assert isinstance(verdict(Broken("primary"), 1, 1), Again)
    found = verdict(Broken("primary"), MAX_ATTEMPTS, MAX_ATTEMPTS)
    assert isinstance(found, Failed)
    assert found.text.startswith('Received server error (0) from primary with message "Amazon SageMaker could not get')
    assert found.reason == (
        "ClientError: Received server error (0) from primary. See the SageMaker Endpoint logs in your account for "
        "more information."
    )


def test_what_says_nothing_of_the_request_is_tried_for_ever() -> None:
    assert isinstance(verdict(Broken("primary", reached=False), 50, 0), Again)
    assert isinstance(verdict(Broken("primary"), 50, 50, removed=True), Again)
    assert isinstance(verdict(Unavailable("S3 is away"), 50), Again)


def test_waits_between_attempts_grow_and_stay() -> None:
    delays = [verdict(Unavailable("away"), attempts) for attempts in (1, 2, 3, 4, 5, 6, 100)]
    assert delays == sorted(delays)
    assert delays[-1] == Again(10.0, "away")


def test_what_a_model_says_no_to_is_not_asked_again() -> None:
    found = verdict(Refused("primary", 500, b"oh"))
    assert found == Failed(
        "model",
        'Received server error (500) from primary with message "oh"',
        "ClientError: Received server error (500) from primary. See the SageMaker Endpoint logs in your account for "
        "more information.",
        500,
        b"oh",
    )
    unread = verdict(Refused("container-2", 413, None))
    assert isinstance(unread, Failed)
    assert unread.text == "Received client error (413) from container-2 and could not load the entire response body"


def test_a_model_that_is_too_slow_is_not_asked_again() -> None:
    found = verdict(TimedOut("primary"))
    assert isinstance(found, Failed)
    assert found.text.startswith('Received server error (0) from primary with message "Your invocation timed out')


def test_an_input_that_cannot_be_had_is_a_failure_of_its_own_kind() -> None:
    assert verdict(Unusable("download", "no such object")) == Failed(
        "download", "no such object", "ClientError: no such object"
    )
