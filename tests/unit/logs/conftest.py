"""The logs under test: each in a place of its own that outlives it, and may be opened again."""

import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from unmissed.core.messages import Draft
from unmissed.core.window import Retention, Window
from unmissed.logs.base import Log
from unmissed.logs.urls import log_from_url
