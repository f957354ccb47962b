"""WebSocket messages that survive reconnects, for FastAPI."""

from importlib import import_module
from pathlib import Path
from typing import Any

# The stub beside this file is the one list of public names: a line for each, ``from home import name as name``. A name
# is imported when it is first used, so that ``import unmissed.client`` loads neither FastAPI nor python-jose.
_STUB = Path(__file__).with_suffix(".pyi").read_text(encoding="utf-8")
_HOMES = {line.split()[3]: line.split()[1] for line in _STUB.splitlines() if line.startswith("from ")}
__all__ = [*_HOMES, "__version__"]  # noqa: PLE0604  # strings from the stub


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(import_module(_HOMES[name]), name)
    elif name == "__version__":
        value = import_module("importlib.metadata").version("unmissed")
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
