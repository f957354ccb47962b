"""The source of the package, for the tests that read it."""

import ast
from functools import cache
from pathlib import Path

import unmissed

SOURCE = Path(unmissed.__file__).parent


@cache
def trees() -> dict[str, ast.Module]:
    """Return all modules by their paths below SOURCE, and the stub that lists the public names."""
    paths = sorted(path for kind in ("*.py", "*.pyi") for path in SOURCE.rglob(kind))
    return {str(path.relative_to(SOURCE)): ast.parse(path.read_text()) for path in paths}
