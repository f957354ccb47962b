"""The README and the pages of the documentation, and the code in them."""

import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
DOCS = {path.name: path.read_text() for path in (ROOT / ".github" / "docs").glob("*.md")}


def blocks(language: str, text: str = README) -> list[str]:
    """Return the blocks of code in this language."""
    return re.findall(rf"```{language}\n(.*?)```", text, re.DOTALL)


def executed(page: str) -> dict[str, Any]:
    """Run the Python of a page in order, as one program, and return its names."""
    names: dict[str, Any] = {"__name__": page}
    for block in blocks("python", DOCS.get(page, README)):
        exec(compile(block, page, "exec"), names)  # noqa: S102  # that is the point
    return names
