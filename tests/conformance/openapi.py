"""Runs schemathesis with all checks against the REST routes and their OpenAPI document.

Install it in an environment of its own, ``pip install schemathesis``. Then::

    python tests/conformance/openapi.py --schemathesis path/to/schemathesis
"""

import argparse
import subprocess
import sys
from pathlib import Path

from unmissed.testing import LiveServer


def main() -> None:
    """Run the checks, and exit with their exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--schemathesis", required=True, type=Path)
    parser.add_argument("--max-examples", default="50")
    arguments = parser.parse_args()
    with LiveServer() as server:
        command = [
            str(arguments.schemathesis),
            "run",
            f"{server.url}/openapi.json",
            "--checks=all",
            "--phases=examples,coverage,fuzzing",
            # An event stream does not end.
            "--exclude-path=/websocket/events",
            f"--max-examples={arguments.max_examples}",
            f"--header=Authorization: Bearer {server.token(scope='messages:publish admin', topics=['*'])}",
        ]
        sys.exit(subprocess.run(command, check=False).returncode)  # noqa: S603  # the given program


if __name__ == "__main__":
    main()
