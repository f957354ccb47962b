"""Strict JSON: Python values to compact UTF-8 and back."""

import json
from typing import Any, NoReturn

from pydantic_core import to_jsonable_python

_encoder = json.JSONEncoder(ensure_ascii=False, allow_nan=False, separators=(",", ":"), default=to_jsonable_python)


def encode_json(value: object) -> bytes:
    """Return ``value`` as compact JSON. Datetimes, Decimal, UUID and pydantic models are accepted.

    Raises ValueError for NaN, Infinity, lone surrogates, reference cycles, values nested too deeply, and values that
    have no JSON form.
    """
    try:
        return encode_text(_encoder.encode(value))
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except TypeError as error:
        raise ValueError(str(error)) from None


def encode_text(text: str) -> bytes:
    """Return ``text`` as UTF-8. Raises ValueError for lone surrogates."""
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise ValueError("a lone surrogate is not Unicode text") from None


def decode_json(text: str | bytes) -> Any:
    """Return the value of a JSON text, strictly as RFC 8259: no NaN, no Infinity. Raises ValueError."""
    try:
        if isinstance(text, bytes):
            text = text.decode()
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")
