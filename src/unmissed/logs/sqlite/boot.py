"""Tells one boot of the machine from another: a power loss ends a boot, and the end of a process does not."""

import subprocess
import sys
from pathlib import Path

_LINUX = Path("/proc/sys/kernel/random/boot_id")


def boot_id() -> str | None:
    """Return an identifier of this boot of the machine, or None on systems that have none."""
    if sys.platform == "darwin":
        found = subprocess.run(
            ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"], capture_output=True, text=True, check=False
        )
        return found.stdout.strip() or None
    return _LINUX.read_text().strip() if _LINUX.exists() else None
