"""The endpoint planner: single decisions."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace

import pytest

from clary.core.containers import ModelData
from clary.core.deployment import (
    Attempts,
    ContainerTemplate,
    Launch,
    LaunchFailed,
    Launching,
    Observed,
    Ping,
    Present,
    Remove,
    Sighting,
    Stop,
    Stopping,
    Variant,
)
from clary.core.endpoint import plan
from clary.core.judgement import SERVING_DELAYS
from clary.core.memory import attempts_of, with_attempts
from tests.core.endpoints import CREATING, OK, REFUSED, T0, container, desired, in_service, specs, variant


def test_ids_are_the_same_every_time_and_new_with_each_creation() -> None:
    (one,) = specs(desired())
    assert one == specs(desired())[0]
    assert one.id != specs(desired(created_at=T0 + 1))[0].id
    assert len({spec.id for spec in specs(desired(count=20))}) == 20


def test_instance_ids_look_like_those_of_ec2() -> None:
    (spec,) = specs(desired())
    assert spec.instance_id.startswith("i-")
    assert len(spec.instance_id) == 19
    int(spec.instance_id[2:], 16)


def test_a_new_endpoint_launches_all_its_instances() -> None:
    wanted = desired(count=3)
    made = plan(wanted, Observed(CREATING), T0)
    assert made.actions == tuple(Launch(spec) for spec in specs(wanted))
    assert made.status["EndpointStatus"] == "Creating"


def test_it_is_in_service_when_the_last_instance_of_the_last_variant_is_ready() -> None:
    wanted = replace(desired(), variants=(variant("blue", count=2), variant("green", weight=0.5)))
    seen: dict[str, Sighting] = {spec.id: Present(container(spec), OK) for spec in specs(wanted)}
    last = specs(wanted)[-1]
    almost = plan(wanted, Observed(CREATING, seen | {last.id: Present(container(last), REFUSED)}), T0 + 1)
    assert almost.status["EndpointStatus"] == "Creating"
    assert almost.route is not None
    assert almost.route.variants == ()
    whole = plan(wanted, Observed(CREATING, seen), T0 + 1)
    assert whole.status["EndpointStatus"] == "InService"
    assert whole.actions == ()
    assert whole.route is not None
    assert [(v.name, v.weight, len(v.targets)) for v in whole.route.variants] == [("blue", 1.0, 2), ("green", 0.5, 1)]


def test_a_status_survives_json() -> None:
    wanted = desired(count=2)
    for status in (plan(wanted, Observed(CREATING), T0).status, in_service(wanted)):
        assert json.loads(json.dumps(status)) == status


def test_what_was_ready_counts_as_ready_without_a_ping() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    made = plan(wanted, Observed(in_service(wanted), {spec.id: Present(container(spec), None)}), T0 + 1000)
    assert made.actions == ()
    assert made.route is not None
    assert made.route.variants[0].targets[0].hops[0].id == spec.id


@pytest.mark.parametrize(("failures", "stopped"), [(1, False), (2, False), (3, True), (4, True)])
def test_three_bad_pings_in_a_row_replace_a_ready_container(failures: int, stopped: bool) -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: Present(container(spec), Ping("timeout", 0, failures))}
    made = plan(wanted, Observed(in_service(wanted), seen), T0 + 1000)
    assert made.actions == ((Stop(spec.id, "replace"),) if stopped else ())
    assert made.route is not None
    assert bool(made.route.variants[0].targets) is not stopped
    assert made.status["EndpointStatus"] == "InService"
    assert made.status["_Ready"] == ([] if stopped else [spec.id])


def test_a_restarted_container_is_not_ready_because_its_forerunner_was() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    exited = container(spec, phase="exited", exit_reason="exited with 1", exited_at=T0 + 5)
    first = plan(wanted, Observed(in_service(wanted), {spec.id: Present(exited)}), T0 + 5)
    again = Present(container(spec, started_at=T0 + 6), None)
    second = plan(wanted, Observed(first.status, {spec.id: again}, first.attempts), T0 + 6)
    assert second.route is not None
    assert second.route.variants[0].targets == ()


def test_a_launch_that_is_cut_off_again_and_again_has_the_time_of_one_and_is_given_up() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    longest = spec.download_timeout + wanted.variants[0].startup_timeout
    status: Mapping[str, object] = CREATING
    for life in range(4):  # each begins it, and dies
        made = plan(wanted, Observed(status, {}, attempts_of(status)), T0 + life)
        assert made.actions == (Launch(spec),)
        status = json.loads(json.dumps(with_attempts(made.status, made.attempts)))
    last = {spec.id: Launching(T0 + 3, "download 1 of 2 MB")}
    going_on = plan(wanted, Observed(status, last, attempts_of(status)), T0 + longest - 1)
    assert (going_on.status["EndpointStatus"], going_on.wake_at) == ("Creating", T0 + longest)
    for seen in (last, {}):
        over = plan(wanted, Observed(status, seen, attempts_of(status)), T0 + longest)
        assert over.status["EndpointStatus"] == "Failed"
        assert f"launch took longer than {longest:.0f} s, and was begun 4 times; last: " in str(
            over.status["FailureReason"]
        )


def test_a_launch_that_a_machine_that_was_off_cut_off_has_all_its_time_again() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    first = plan(wanted, Observed(CREATING), T0)
    later = T0 + 100_000
    again = plan(wanted, Observed(first.status, {}, first.attempts), later)
    assert again.actions == (Launch(spec),)
    going_on = plan(wanted, Observed(again.status, {spec.id: Launching(later)}, again.attempts), later + 1)
    assert going_on.status["EndpointStatus"] == "Creating"
    there = plan(
        wanted, Observed(again.status, {spec.id: Present(container(spec, later + 2))}, going_on.attempts), later + 3
    )
    assert there.attempts[spec.id] == Attempts(), "what was launched is no launch any more"


def test_restarts_in_service_back_off_and_forget_after_five_minutes_of_readiness() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    status, attempts, now = in_service(wanted), {}, T0 + 10.0
    for delay in (*SERVING_DELAYS, SERVING_DELAYS[-1]):
        gone = container(spec, started_at=now, phase="exited", exit_reason="exited with 1", exited_at=now)
        made = plan(wanted, Observed(status, {spec.id: Present(gone)}, attempts), now)
        assert made.actions == (Stop(spec.id, "replace"),)
        waiting = plan(wanted, Observed(status, {}, made.attempts), now)
        assert (waiting.actions, waiting.wake_at) == ((), now + delay)
        assert plan(wanted, Observed(status, {}, made.attempts), now + delay).actions == (Launch(spec),)
        attempts, now = dict(made.attempts), now + delay
    now += 1
    calm = plan(wanted, Observed(status, {spec.id: Present(container(spec, now), OK)}, attempts), now)
    gone = container(spec, started_at=now, phase="exited", exit_reason="exited with 1", exited_at=now + 301)
    made = plan(wanted, Observed(status, {spec.id: Present(gone)}, calm.attempts), now + 301)
    assert made.attempts[spec.id].failures == 1


def test_seeing_one_exit_twice_counts_once() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: Present(container(spec, phase="exited", exit_reason="exited with 1", exited_at=T0 + 1))}
    attempts: Mapping[str, Attempts] = {}
    for _ in range(5):
        made = plan(wanted, Observed(CREATING, seen, attempts), T0 + 2)
        attempts = made.attempts
    assert made.status["EndpointStatus"] == "Creating"
    assert attempts[spec.id].failures == 1


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("image", "Please make sure all images included in the model for the production variant blue exist, and "),
        ("download", 'Failed to download model data for container "container_1" from URL: "'),
        ("unpack", 'Failed to extract model data archive from URL "'),
        ("environment", "CannotStartContainerError. Please ensure the model container for variant blue starts "),
        ("create", "CannotStartContainerError. Please ensure the model container for variant blue starts "),
    ],
)
def test_a_failed_launch_is_told_in_the_words_of_aws_and_then_in_detail(step: str, words: str) -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: LaunchFailed(T0 + 3, step, "the very cause", log=("line one", "line two"))}
    made = plan(wanted, Observed(CREATING, seen), T0 + 3)
    assert made.status["EndpointStatus"] == "Failed"
    reason = str(made.status["FailureReason"])
    assert reason.startswith(words)
    for part in (f"{step}: the very cause", "img:1", "3.0 s", "line one\nline two", "clary doctor ep"):
        assert part in reason
    assert "ProductionVariants" not in made.status


@pytest.mark.parametrize(
    ("ping", "words"),
    [
        (Ping("refused", 0, 9), "port never opened (it listens on 127.0.0.1:8080)"),
        (Ping("closed", 0, 9), "the connection was closed (it listens on 127.0.0.1:8080)"),
        (Ping("status", 503, 9), "ping answered 503"),
        (Ping("timeout", 0, 9), "ping too slow"),
    ],
)
def test_the_end_of_the_window_names_what_the_pings_came_to(ping: Ping, words: str) -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: Present(container(spec, T0 + 20), ping, ("warming up",), ("127.0.0.1:8080",))}
    before = plan(wanted, Observed(CREATING, seen), T0 + 499)
    assert (before.status["EndpointStatus"], before.wake_at) == ("Creating", T0 + 500)
    made = plan(wanted, Observed(CREATING, seen), T0 + 500)
    reason = str(made.status["FailureReason"])
    assert reason.startswith("The primary container for production variant blue did not pass the ping health check.")
    assert words in reason
    assert "warming up" in reason
    assert made.actions == (Stop(spec.id, "delete"),)


def test_a_launch_that_never_ends_is_given_up() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: Launching(T0, "download 1 of 9 MB")}
    assert plan(wanted, Observed(CREATING, seen), T0 + 4079).wake_at == T0 + 4080
    made = plan(wanted, Observed(CREATING, seen), T0 + 4080)
    assert made.status["EndpointStatus"] == "Failed"
    assert "download 1 of 9 MB" in str(made.status["FailureReason"])
    assert made.actions == (Stop(spec.id, "delete"),)


def test_transient_launch_failures_end_with_the_window() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    attempts: Mapping[str, Attempts] = {}
    for at in range(0, 480, 20):
        seen = {spec.id: LaunchFailed(T0 + at, "launch", "registry away", transient=True)}
        made = plan(wanted, Observed(CREATING, seen, attempts), T0 + at)
        attempts = made.attempts
        assert made.status["EndpointStatus"] == "Creating"
    seen = {spec.id: LaunchFailed(T0 + 480, "launch", "registry away", transient=True)}
    assert plan(wanted, Observed(CREATING, seen, attempts), T0 + 480).status["EndpointStatus"] == "Failed"


def test_a_launch_failure_in_service_is_only_waited_out() -> None:
    wanted = desired(count=2)
    alive, broken = specs(wanted)
    seen = {alive.id: Present(container(alive), OK), broken.id: LaunchFailed(T0 + 5, "image", "gone")}
    made = plan(wanted, Observed(in_service(wanted, [alive.id]), seen), T0 + 5)
    assert made.status["EndpointStatus"] == "InService"
    assert made.wake_at == T0 + 5.2
    (summary,) = made.status["ProductionVariants"]
    assert summary["VariantStatus"][0]["Status"] == "Updating"


def test_failure_reasons_fit_whatever_is_in_them() -> None:
    wanted = replace(
        desired(), name="e" * 63, variants=(variant("v" * 63, "i" * 255, ModelData("s3://" + "u" * 1019)),)
    )
    (spec,) = specs(wanted)
    for step in ("image", "download", "unpack", "environment", "create", "launch"):
        seen = {spec.id: LaunchFailed(T0, step, "m" * 5000, log=tuple("l" * 400 for _ in range(20)))}
        reason = str(plan(wanted, Observed(CREATING, seen), T0 + 1e6).status["FailureReason"])
        assert len(reason) <= 1024
        assert reason.endswith("Next: clary doctor " + "e" * 63)
        assert "l" * 80 in reason
        assert "m" * 40 in reason


def test_a_model_cannot_steer_the_terminal_of_who_reads_its_failure() -> None:
    (spec,) = specs(desired())
    log = ("\x1b]0;owned\x07 \x9b31m tab\there \x7f é",)
    seen = {spec.id: LaunchFailed(T0, "create", "cannot run \x1b[2Jserve", log=log)}
    reason = str(plan(desired(), Observed(CREATING, seen), T0 + 1e6).status["FailureReason"])
    assert "\ufffd]0;owned\ufffd \ufffd31m tab\there \ufffd é\nNext:" in reason
    assert "cannot run \ufffd[2Jserve" in reason


def test_a_long_explanation_is_whole_where_there_is_no_log() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    message = "unknown image; " + "to run it, add it to the catalogue, " * 12 + "as the guide shows."
    seen = {spec.id: LaunchFailed(T0, "image", message)}
    reason = str(plan(wanted, Observed(CREATING, seen), T0 + 1).status["FailureReason"])
    assert len(message) > 450
    assert f"Step: image: {message} Image: img:1. " in reason


def test_a_refusal_fails_at_once_and_runs_nothing() -> None:
    made = plan(desired(variants=(), refusal="Clary does not run X yet."), Observed(CREATING), T0)
    assert (made.status["EndpointStatus"], made.actions) == ("Failed", ())
    assert made.status["FailureReason"] == "Clary does not run X yet."


def test_a_container_of_another_deployment_is_replaced() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    seen = {spec.id: Present(container(spec, deployment="d0"), OK)}
    made = plan(wanted, Observed(in_service(wanted), seen), T0 + 1)
    assert made.actions == (Stop(spec.id, "replace"),)
    assert made.route is not None
    assert made.route.variants[0].targets == ()


def test_instances_are_known_from_before_they_start_until_they_are_deleted() -> None:
    wanted = desired(count=2)
    ids = tuple(slot.spec.instance_id for slot in wanted.slots())
    serving = Observed({"EndpointStatus": "InService"})
    for observed in (Observed(CREATING), serving):
        made = plan(wanted, observed, T0)
        assert made.route is not None and made.route.instances == ids
    gone = [plan(replace(wanted, deleting=True), serving, T0), plan(wanted, Observed({"EndpointStatus": "Failed"}), T0)]
    assert [made.route.instances for made in gone if made.route is not None] in ([()], [(), ()])


def test_deleting_cuts_a_long_stop_short_and_then_removes() -> None:
    wanted = desired(deleting=True)
    seen: dict[str, Sighting] = {"a": Stopping("replace"), "b": Stopping("delete"), "c": Launching(T0)}
    made = plan(wanted, Observed({"EndpointStatus": "Deleting"}, seen), T0)
    assert made.actions == (Stop("a", "delete"), Stop("c", "delete"))
    assert made.route is not None
    assert made.route.variants == ()
    done = plan(wanted, Observed({"EndpointStatus": "Deleting"}, {"d": LaunchFailed(T0, "image", "x")}), T0)
    assert (done.actions, done.route) == ((Remove(),), None)


PIPELINE = Variant(
    "blue", (ContainerTemplate("a", hostname="first"), ContainerTemplate("b", hostname="second")), count=2
)


def test_the_containers_of_a_pipeline_share_an_instance_and_serve_together() -> None:
    wanted = desired(variants=(PIPELINE,))
    all_specs = specs(wanted)
    assert [spec.hostname for spec in all_specs] == ["first", "second"] * 2
    assert len({spec.id for spec in all_specs}) == 4
    assert len({spec.instance_id for spec in all_specs}) == 2
    assert all_specs[1].log_stream == f"blue/{all_specs[0].instance_id}/second"
    seen: dict[str, Sighting] = {spec.id: Present(container(spec), OK) for spec in all_specs}
    whole = plan(wanted, Observed(CREATING, seen), T0 + 1)
    assert whole.route is not None
    assert [target.id for target in whole.route.variants[0].targets] == [
        all_specs[0].instance_id,
        all_specs[2].instance_id,
    ]
    assert [hop.name for hop in whole.route.variants[0].targets[0].hops] == ["first", "second"]
    gone = container(all_specs[1], phase="exited", exit_reason="exited with 1", exited_at=T0 + 2)
    half = plan(wanted, Observed(whole.status, {**seen, all_specs[1].id: Present(gone)}), T0 + 2)
    assert half.actions == (Stop(all_specs[1].id, "replace"),)
    assert half.route is not None
    assert [target.id for target in half.route.variants[0].targets] == [all_specs[2].instance_id]
    (summary,) = half.status["ProductionVariants"]
    assert (summary["CurrentInstanceCount"], summary["DesiredInstanceCount"]) == (1, 2)
    assert "second: exited with 1" in summary["VariantStatus"][0]["StatusMessage"]
    assert [image["SpecifiedImage"] for image in summary["DeployedImages"]] == ["a", "b"]


def test_in_direct_mode_the_others_of_an_instance_serve_without_a_dead_one() -> None:
    wanted = desired(variants=(replace(PIPELINE, direct=True),))
    _, second, *others = specs(wanted)
    seen: dict[str, Sighting] = {spec.id: Present(container(spec), OK) for spec in specs(wanted)}
    whole = plan(wanted, Observed(CREATING, seen), T0 + 1)
    gone = container(second, phase="exited", exit_reason="exited with 1", exited_at=T0 + 2)
    half = plan(wanted, Observed(whole.status, {**seen, second.id: Present(gone)}), T0 + 2)
    assert half.route is not None
    (route,) = half.route.variants
    assert route.direct == ("first", "second")
    assert [[hop.name for hop in target.hops] for target in route.targets] == [["first"], ["first", "second"]]
    (summary,) = half.status["ProductionVariants"]
    assert summary["CurrentInstanceCount"] == 1
    dark = plan(wanted, Observed(whole.status, {spec.id: seen[spec.id] for spec in others}), T0 + 2)
    assert dark.route is not None
    assert [target.id for target in dark.route.variants[0].targets] == [others[0].instance_id]


def test_a_failure_in_a_pipeline_names_its_container() -> None:
    wanted = desired(variants=(PIPELINE,))
    _, second, *_ = specs(wanted)
    seen = {second.id: Present(container(second), REFUSED)}
    reason = str(plan(wanted, Observed(CREATING, seen), T0 + 1000).status["FailureReason"])
    assert reason.startswith("The second container for production variant blue did not pass the ping health check.")
    assert "Image: b." in reason


def test_an_image_stays_what_it_was_resolved_to() -> None:
    wanted = desired()
    (spec,) = specs(wanted)
    assert plan(wanted, Observed(CREATING), T0).actions == (Launch(spec),)
    up = Present(container(spec, resolved_image="img@sha256:1"), OK)
    status = plan(wanted, Observed(CREATING, {spec.id: up}), T0 + 1).status
    (summary,) = status["ProductionVariants"]
    assert summary["DeployedImages"] == [
        {"SpecifiedImage": "img:1", "ResolvedImage": "img@sha256:1", "ResolutionTime": T0}
    ]
    again = plan(wanted, Observed(json.loads(json.dumps(status))), T0 + 2)
    assert again.actions == (Launch(replace(spec, resolved_image="img@sha256:1")),)
    (summary,) = again.status["ProductionVariants"]
    assert summary["DeployedImages"][0]["ResolvedImage"] == "img@sha256:1"


def test_a_shadow_variant_is_described_and_routed_apart() -> None:
    wanted = desired(variants=(variant("blue"), variant("dark", shadow=True)))
    seen: dict[str, Sighting] = {spec.id: Present(container(spec), OK) for spec in specs(wanted)}
    made = plan(wanted, Observed(CREATING, seen), T0 + 1)
    assert made.route is not None
    assert [each.name for each in made.route.variants] == ["blue"]
    assert [each.name for each in made.route.shadows] == ["dark"]
    assert [each["VariantName"] for each in made.status["ShadowProductionVariants"]] == ["dark"]
