# The public names, one a line, each with its home, for type checkers: the list in __init__.py, which a test compares.

from unmissed.api.identity import Bearer as Bearer
from unmissed.api.identity import get_current_user_id as get_current_user_id
from unmissed.api.identity import get_identity as get_identity
from unmissed.api.router import create_router as create_router
from unmissed.application.hooks import Connected as Connected
from unmissed.application.hooks import Disconnected as Disconnected
from unmissed.core.audience import Identity as Identity
from unmissed.core.errors import AlreadyRunning as AlreadyRunning
from unmissed.core.errors import CommandError as CommandError
from unmissed.core.errors import ConfigurationError as ConfigurationError
from unmissed.core.errors import ConnectionRefused as ConnectionRefused
from unmissed.core.errors import Draining as Draining
from unmissed.core.errors import IdempotencyConflict as IdempotencyConflict
from unmissed.core.errors import InvalidMessage as InvalidMessage
from unmissed.core.errors import InvalidToken as InvalidToken
from unmissed.core.errors import LogUnavailable as LogUnavailable
from unmissed.core.errors import NotRunning as NotRunning
from unmissed.core.errors import UnknownConnection as UnknownConnection
from unmissed.core.errors import UnmissedError as UnmissedError
from unmissed.core.errors import WrongThread as WrongThread
from unmissed.core.messages import Draft as Draft
from unmissed.core.messages import Message as Message
from unmissed.core.messages import rfc3339 as rfc3339
from unmissed.core.receipts import Receipt as Receipt
from unmissed.core.window import Outcome as Outcome
from unmissed.core.window import Page as Page
from unmissed.core.window import Retention as Retention
from unmissed.core.window import Window as Window
from unmissed.delivery.connection import Connection as Connection
from unmissed.logs.base import Log as Log
from unmissed.logs.base import Publication as Publication
from unmissed.logs.base import WindowListener as WindowListener
from unmissed.main import create_app as create_app
from unmissed.manager import ConnectionManager as ConnectionManager
from unmissed.security.access import Access as Access
from unmissed.security.tokens import JwtVerifier as JwtVerifier
from unmissed.security.tokens import TokenVerifier as TokenVerifier
from unmissed.security.tokens import issue_token as issue_token
from unmissed.settings import Settings as Settings

__version__: str
