"""Runs the Autobahn test suite against the native WebSocket class, and checks its report.

The suite needs Python 2.7: ``pip install autobahntestsuite`` there provides ``wstest``. Then::

    python tests/conformance/autobahn.py --wstest path/to/wstest
"""

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from fastapi import FastAPI, WebSocket, WebSocketDisconnect
from pydantic import SecretStr

from unmissed import ConnectionManager, Settings
from unmissed.testing import SECRET, LiveServer

CASES = ["1.*", "2.*", "3.*", "4.*", "5.*", "6.*", "7.*", "9.*", "10.*"]
PASSED = {"OK", "NON-STRICT", "INFORMATIONAL"}
ALLOWED = {
    "7.1.5": "the client closes within a fragmented message, which the websockets library reports as a protocol error",
}
"""Cases that may fail, and why."""

MAX_MESSAGE_BYTES = 17 * 1024 * 1024
"""More than the largest message of group 9, which is 16 MiB."""

app = FastAPI()


@app.websocket("/")
async def echo(websocket: WebSocket) -> None:
    """Send every message back."""
    await websocket.accept()
    try:
        while True:
            event = await websocket.receive()
            if event["type"] == "websocket.disconnect":
                return
            if event.get("text") is not None:
                await websocket.send_text(event["text"])
            else:
                await websocket.send_bytes(event["bytes"])
    except WebSocketDisconnect:
        return


def main() -> None:
    """Run the suite, print what failed, and exit with 1 if something failed that is not allowed to."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--wstest", required=True, type=Path)
    arguments = parser.parse_args()
    manager = ConnectionManager(Settings(jwt_secret=SecretStr(SECRET)))
    options: dict[str, Any] = {
        "http": "unmissed.server:HttpProtocol",
        "ws": "unmissed.server:WebSocketProtocol",
        "ws_max_size": MAX_MESSAGE_BYTES,
    }
    with LiveServer(app, manager=manager, **options) as server, tempfile.TemporaryDirectory() as folder:
        results = run(arguments.wstest, server.url.replace("http", "ws"), Path(folder))
    sys.exit(judge(results))


def run(wstest: Path, url: str, folder: Path) -> dict[str, str]:
    """Return the behavior of the server in each case, such as ``{"1.1.1": "OK"}``."""
    spec = {"outdir": str(folder), "servers": [{"agent": "unmissed", "url": url}], "cases": CASES, "exclude-cases": []}
    (folder / "spec.json").write_text(json.dumps(spec))
    command = [str(wstest), "--mode", "fuzzingclient", "--spec", str(folder / "spec.json")]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)  # noqa: S603  # the given program
    report = json.loads((folder / "index.json").read_text())["unmissed"]
    return {case: result["behavior"] for case, result in report.items()}


def judge(results: dict[str, str]) -> int:
    """Print the cases that failed, and return how many of them are not allowed to."""
    failed = {case: behavior for case, behavior in results.items() if behavior not in PASSED}
    for case, behavior in sorted(failed.items()):
        print(f"{case}: {behavior} ({ALLOWED.get(case, 'not allowed')})")
    print(f"{len(results)} cases, {len(results) - len(failed)} passed")
    return len(failed.keys() - ALLOWED.keys())


if __name__ == "__main__":
    main()
