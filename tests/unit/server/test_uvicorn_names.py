"""uvicorn still has every undocumented name that this package relies on."""

import inspect
from typing import Any, cast

import pytest
import uvicorn
from uvicorn.server import ServerState

from unmissed.server.uvicorn_names import (
    ATTRIBUTES,
    INSTANCE_ATTRIBUTES,
    Config,
    FlowControl,
    HttpToolsProtocol,
    RequestResponseCycle,
    Server,
)


@pytest.mark.parametrize(("owner", "name"), [(owner, name) for owner, names in ATTRIBUTES.items() for name in names])
def test_a_method_is_there(owner: type, name: str) -> None:
    assert callable(getattr(owner, name))


@pytest.fixture
async def instances() -> dict[type, object]:
    config = Config("unmissed.main:app", log_config=None, ws="none")
    config.load()
    state = ServerState()
    protocol = HttpToolsProtocol(config, state, {})
    protocol.on_message_begin()
    return {
        Config: config,
        ServerState: state,
        Server: uvicorn.Server(config),
        HttpToolsProtocol: protocol,
        FlowControl: FlowControl(cast("Any", None)),
        RequestResponseCycle: RequestResponseCycle(
            **dict.fromkeys(inspect.signature(RequestResponseCycle).parameters, cast("Any", None))
        ),
    }


@pytest.mark.parametrize(
    ("owner", "name"), [(owner, name) for owner, names in INSTANCE_ATTRIBUTES.items() for name in names]
)
async def test_an_attribute_is_there(instances: dict[type, object], owner: type, name: str) -> None:
    annotated = {key for each in type(instances[owner]).__mro__ for key in getattr(each, "__annotations__", {})}

    assert hasattr(instances[owner], name) or name in annotated | {"servers"}
