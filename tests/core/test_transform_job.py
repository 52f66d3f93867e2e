"""What is done next for a transform job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from clary.core.deployment import (
    Attempts,
    ContainerTemplate,
    Launch,
    LaunchFailed,
    Observed,
    Ping,
    Present,
    Sighting,
    Stop,
    Variant,
)
from clary.core.transform import Outcome, Work, environment_of
from clary.core.transform_job import Job, JobPlan, hops_of, plan
from clary.testing import running

NOW = 1_000.0

VARIANT = Variant("transform", (ContainerTemplate("image"),), count=2)
JOB = Job("night", "arn:job/night", 900.0, "d1", VARIANT)
SPECS = [slot.spec for slot in JOB.slots()]
IN_PROGRESS: dict[str, object] = {"TransformJobStatus": "InProgress"}


def box(number: int = 0, ping: Ping | None = None, **changes: Any) -> dict[str, Sighting]:
    spec = SPECS[number]
    return {spec.id: Present(running(spec, 950.0, port=5000 + number, **changes), ping)}


def decide(
    containers: dict[str, Sighting] | None = None,
    status: dict[str, object] | None = None,
    outcome: Outcome | None = None,
    job: Job = JOB,
    attempts: dict[str, Attempts] | None = None,
) -> JobPlan:
    return plan(job, Observed(status or IN_PROGRESS, containers or {}, attempts or {}), outcome, NOW)


def test_containers_are_launched_under_the_jobs_own_log_group() -> None:
    decided = decide()
    assert decided.works
    assert [action.spec.id for action in decided.actions if isinstance(action, Launch)] == [s.id for s in SPECS]
    assert SPECS[0].kind == "TransformJob"
    assert SPECS[0].log_group == "/aws/sagemaker/TransformJobs"
    assert SPECS[0].log_stream == f"night/{SPECS[0].instance_id}-900"
    assert JOB.instances == [spec.instance_id for spec in SPECS]
    assert "TransformStartTime" not in decided.status


def test_the_job_starts_with_its_first_instance() -> None:
    decided = decide(box(1, Ping("ok")))
    assert decided.status["TransformStartTime"] == NOW
    assert {id: hops[0].port for id, hops in hops_of(decided.instances).items()} == {SPECS[1].instance_id: 5001}
    later = plan(JOB, Observed(decided.status, box(1, Ping("ok"))), None, NOW + 60)
    assert later.status["TransformStartTime"] == NOW


def test_one_that_works_need_not_answer_pings() -> None:
    status = {**IN_PROGRESS, "_Ready": [SPECS[0].id]}
    decided = decide(box(0, Ping("timeout", failures=50)), status)
    assert [instance.id for instance in decided.instances] == [SPECS[0].instance_id]


def test_one_that_answered_and_died_starts_afresh() -> None:
    ready = decide(box(0, Ping("ok")), attempts={SPECS[0].id: Attempts(2)})
    assert ready.attempts[SPECS[0].id].failures == 0
    exited = box(0, None, phase="exited", exit_reason="exited with 9", exited_at=NOW)
    decided = plan(JOB, Observed(ready.status, exited, ready.attempts), None, NOW)
    assert decided.status["TransformJobStatus"] == "InProgress"
    assert Stop(SPECS[0].id, "replace") in decided.actions


def test_one_that_never_answers_fails_the_job() -> None:
    failed: dict[str, Sighting] = {SPECS[0].id: LaunchFailed(NOW, "image", "no such image")}
    decided = decide({**failed, **box(1, Ping("ok"))})
    assert decided.status["TransformJobStatus"] == "Failed"
    assert str(decided.status["FailureReason"]).startswith("ClientError: See job logs for more information.")
    assert "no such image" in str(decided.status["FailureReason"])
    assert decided.status["TransformEndTime"] == NOW
    assert decided.actions == (Stop(SPECS[1].id, "delete"),)
    assert not decided.works


def test_an_outcome_ends_the_job_then_its_containers_then_its_folder() -> None:
    decided = decide(box(0, Ping("ok")), outcome=Outcome("Completed"))
    assert decided.status["TransformJobStatus"] == "Completed"
    assert "FailureReason" not in decided.status
    assert decided.actions == (Stop(SPECS[0].id, "delete"),)
    assert not decided.is_gone
    assert plan(JOB, Observed(decided.status, {}), Outcome("Completed"), NOW + 1).is_gone
    reason = decide(outcome=Outcome("Failed", "x" * 2000)).status["FailureReason"]
    assert len(str(reason)) in (1023, 1024)


def test_a_stop_waits_for_the_containers_and_outdoes_an_outcome() -> None:
    stopping = replace(JOB, stopping=True)
    decided = decide(box(0, Ping("ok")), outcome=Outcome("Completed"), job=stopping)
    assert (decided.status["TransformJobStatus"], decided.works) == ("Stopping", False)
    decided = decide({}, dict(decided.status), job=stopping)
    assert decided.status["TransformJobStatus"] == "Stopped"
    assert decided.status["TransformEndTime"] == NOW


def test_what_clary_does_not_understand_fails() -> None:
    decided = decide(job=Job("night", "arn", 900.0, refusal="Clary cannot."))
    assert decided.status["FailureReason"] == "ClientError: See job logs for more information. Clary cannot."


def test_the_request_wins_over_the_container_and_both_over_the_defaults() -> None:
    assert Work({}).pace({}).words == "MaxConcurrentTransforms=1, MaxPayloadInMB=6, BatchStrategy=MULTI_RECORD"
    said = {"MaxConcurrentTransforms": 8, "BatchStrategy": "SINGLE_RECORD", "MaxPayloadInMB": 2}
    assert Work({}).pace(said).words == "MaxConcurrentTransforms=8, MaxPayloadInMB=2, BatchStrategy=SINGLE_RECORD"
    asked = {"MaxConcurrentTransforms": 0, "BatchStrategy": "MultiRecord", "MaxPayloadInMB": 0}
    assert Work(asked).pace(said).words == "MaxConcurrentTransforms=8, MaxPayloadInMB=0, BatchStrategy=MULTI_RECORD"


def test_containers_are_told_what_was_asked_for_and_no_more() -> None:
    assert environment_of({}) == {"SAGEMAKER_BATCH": "true"}
    asked = {
        "MaxConcurrentTransforms": 2,
        "BatchStrategy": "SingleRecord",
        "MaxPayloadInMB": 3,
        "Environment": {"A": "b"},
    }
    assert environment_of(asked) == {
        "A": "b",
        "SAGEMAKER_BATCH": "true",
        "SAGEMAKER_MAX_CONCURRENT_TRANSFORMS": "2",
        "SAGEMAKER_BATCH_STRATEGY": "SINGLE_RECORD",
        "SAGEMAKER_MAX_PAYLOAD_IN_MB": "3",
    }
