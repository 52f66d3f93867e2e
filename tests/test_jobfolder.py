"""What the controller and the agent of a job tell each other, whoever of them is killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from clary.core.routing import Hop
from clary.core.transform import Outcome, Progress
from clary.jobfolder import Instances, JobFolder, find

HOLDS = """
import pathlib, sys, time
from clary.jobfolder import JobFolder
with JobFolder(pathlib.Path(sys.argv[1])).held() as held:
    print(held, flush=True)
    time.sleep(60)
"""


@pytest.fixture
def folder(tmp_path: Path) -> JobFolder:
    made = JobFolder(tmp_path / "jobs" / "one")
    made.create({"key": "one", "name": "One"})
    return made


def test_the_job_is_written_once(folder: JobFolder) -> None:
    folder.create({"key": "other", "name": "other"})
    assert folder.job() == {"key": "one", "name": "One"}
    assert folder.path.stat().st_mode & 0o777 == 0o700


def test_what_is_not_said_yet_is_none(folder: JobFolder) -> None:
    assert (folder.instances(), folder.instances_stamp(), folder.progress(), folder.outcome()) == (None,) * 4


def test_news_of_instances_have_another_stamp_and_what_is_known_has_not(folder: JobFolder) -> None:
    instances = Instances(12.5, {"a": (Hop("c1", "127.0.0.1", 1), Hop("c2", "127.0.0.1", 2, "second")), "b": ()})
    folder.offer(instances)
    assert folder.instances() == instances
    stamp = folder.instances_stamp()
    folder.offer(instances)
    assert folder.instances_stamp() == stamp
    folder.offer(Instances(12.5, {}))
    assert folder.instances_stamp() != stamp
    assert folder.instances() == Instances(12.5, {})


def test_progress_and_the_end_are_read_as_they_were_written(folder: JobFolder) -> None:
    progress, outcome = Progress(objects=1, objects_total=2, records=30, seconds=1.5), Outcome("Failed", "why")
    folder.report(progress)
    folder.end(outcome)
    assert (folder.progress(), folder.outcome()) == (progress, outcome)


def test_one_agent_at_a_time_and_none_once_it_is_killed(folder: JobFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("clary.jobfolder._PAUSE", 0.001)
    assert folder.agent() is None
    agent = subprocess.Popen([sys.executable, "-c", HOLDS, str(folder.path)], stdout=subprocess.PIPE, text=True)
    assert agent.stdout is not None
    assert agent.stdout.readline() == "True\n"
    assert folder.agent() == agent.pid
    with folder.held() as held:
        assert not held
    agent.send_signal(signal.SIGKILL)
    agent.communicate()
    assert folder.agent() is None
    with folder.held() as held:
        assert held
        assert folder.agent() == os.getpid()
    assert folder.agent() is None


def test_nobody_works_where_there_is_no_job(tmp_path: Path) -> None:
    with JobFolder(tmp_path).held() as held:
        assert not held
    assert list(tmp_path.iterdir()) == []


def test_a_job_is_found_by_its_name_in_any_case_until_it_is_removed(folder: JobFolder) -> None:
    (folder.path.parent / "being-made").mkdir()
    found = find(folder.path.parent, "oNE")
    assert found is not None
    assert found.path == folder.path
    assert find(folder.path.parent, "on") is None
    folder.remove()
    folder.remove()
    assert find(folder.path.parent, "one") is None


def test_keys_are_those_of_the_objects_that_were_found(folder: JobFolder) -> None:
    assert list(folder.keys()) == []
    folder.inputs.write_text('["s3://in/x/a", "a", 1, "e"]\n["s3://in/x/b/c", "b/c", 0, "e"]\n')
    assert list(folder.keys()) == ["a", "b/c"]
