"""How logs store a draft."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core.audience import EVERYONE, Audience
from unmissed.core.messages import Draft
from unmissed.core.server_frames import RESERVED_TYPES
from unmissed.logs.codec import decode_draft, encode_draft

text = st.text(st.characters(exclude_categories=["Cs"]) | st.sampled_from('\n\r\u2028\\"[],'))
names = text.filter(bool)
topics = st.from_regex(r"[A-Za-z0-9._-]{1,20}", fullmatch=True)
json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | text,
    lambda values: st.lists(values, max_size=3) | st.dictionaries(text, values, max_size=3),
    max_leaves=10,
)


@given(
    message_type=names.filter(lambda name: name not in RESERVED_TYPES),
    data=json,
    recipients=st.fixed_dictionaries(
        {},
        optional={
            "users": st.lists(names, min_size=1, max_size=5),
            "topics": st.lists(topics, min_size=1, max_size=5),
        },
    ),
)
def test_a_draft_is_stored_and_read_unchanged(message_type: str, data: Any, recipients: dict[str, list[str]]) -> None:
    draft = Draft.of({"type": message_type, "data": data, **recipients}, max_bytes=1_000_000)

    assert draft == decode_draft(encode_draft(draft))


@given(keys=st.frozensets(text))
def test_any_keys_are_stored_and_read_unchanged(keys: frozenset[str]) -> None:
    draft = Draft(b'{"type":"a"', b"}", Audience(keys))

    assert keys == decode_draft(encode_draft(draft)).audience.keys


def test_a_draft_for_nobody_is_not_one_for_everyone() -> None:
    nobody = decode_draft(encode_draft(Draft(b'{"type":"a"', b"}", Audience(frozenset()))))
    everyone = decode_draft(encode_draft(Draft(b'{"type":"a"', b"}", EVERYONE)))

    assert frozenset() == nobody.audience.keys
    assert EVERYONE is everyone.audience


def test_the_same_draft_is_always_stored_as_the_same_bytes() -> None:
    users = [f"user {number}" for number in range(20)]
    drafts = [Draft.of({"type": "a", "users": order}, max_bytes=1_000) for order in (users, users[::-1])]

    assert 1 == len({encode_draft(draft) for draft in drafts})


@pytest.mark.parametrize(
    "stored",
    [
        b"",
        b"\n",
        b"a\n{}\n}",
        b"\n\n\n",
        b"\xff\n{\n}",
        b"\n{\n}",
        b'[7]\n{"type":"a"\n}',
        b'7\n{"type":"a"\n}',
        b'[[]]\n{"type":"a"\n}',
    ],
)
def test_bytes_that_are_no_draft_are_refused(stored: bytes) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # the text is that of JSON or of the unpacking
        decode_draft(stored)
