"""Log lines: JSON off a terminal, with their area, without secrets."""

from __future__ import annotations

import io
import json

from clary import telemetry


def test_events_are_json_with_their_area_and_secrets_are_hidden() -> None:
    stream = io.StringIO()
    early = telemetry.logger("early")  # as modules make theirs, before anything is set up
    telemetry.set_up("info", "control", stream)
    early.info("made", name="x", secret_access_key="hush", Authorization="hush")
    early.debug("not this")
    (line,) = stream.getvalue().splitlines()
    event = json.loads(line)
    assert (event["event"], event["area"], event["process"], event["name"]) == ("made", "early", "control", "x")
    assert "hush" not in line
