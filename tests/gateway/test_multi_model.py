"""A TargetModel on its way through the gateway, without a control plane."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.gateway.conftest import Gateway, answer, says, variant


@pytest.mark.parametrize("key", ["../m", "/m", "a//m", "a/../m", "./m", "m/", "m\tx"])
async def test_what_can_be_no_key_is_refused_without_the_control_plane(gateway: Gateway, key: str) -> None:
    container = await gateway.container(says(answer(b"ok")))
    gateway.route("e", replace(variant(container), multi_model="primary"))
    reply = await gateway.invoke("e", X_Amzn_SageMaker_Target_Model=key)
    assert reply.status == 400
    assert reply.headers["x-amzn-errortype"] == "ValidationError"
    assert not container.requests
    assert gateway.state.load == gateway.state.loading == gateway.state.deadlines == {}
