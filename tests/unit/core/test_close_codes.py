"""Close codes: what clients do after them, and the exceptions that lead to them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from unmissed.core import errors
from unmissed.core.close_codes import CloseCode, Reaction, close_reason, code_of, reaction_to


@pytest.mark.parametrize(
    ("reaction", "codes"),
    [
        (Reaction.STOP, {1009, 4400, 4403}),
        (Reaction.RENEW, {4401, 4408}),
        (Reaction.SLOW, {4429}),
        (Reaction.RESUME, {1000, 1001, 1005, 1006, 1007, 1011, 1012, 1013}),
    ],
)
def test_each_code_has_one_reaction(reaction: Reaction, codes: set[int]) -> None:
    assert codes == {int(code) for code in CloseCode if code.reaction is reaction}
    assert {reaction} == {reaction_to(code) for code in codes}


@pytest.mark.parametrize("code", [0, 999, 1002, 3000, 4404, 4999])
def test_a_client_resumes_after_a_code_of_others(code: int) -> None:
    assert Reaction.RESUME is reaction_to(code)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (errors.InvalidToken("t"), CloseCode.UNAUTHORIZED),
        (errors.MessageTooLarge("m", limit=65_536), CloseCode.BAD_MESSAGE),
        (errors.IdempotencyConflict(), CloseCode.BAD_MESSAGE),
        (errors.TooManyRequests("r", retry_after=1), CloseCode.TOO_MANY),
        (errors.LogUnavailable("l"), CloseCode.TRY_AGAIN_LATER),
        (errors.WrongThread(right_call="c"), CloseCode.INTERNAL_ERROR),
        (ValueError("v"), CloseCode.INTERNAL_ERROR),
    ],
)
def test_an_exception_has_the_code_of_its_nearest_kind(error: Exception, expected: CloseCode) -> None:
    assert expected is code_of(error)


def test_a_short_close_reason_is_kept() -> None:
    assert "come back later" == close_reason("come back later")


def test_a_close_reason_is_not_cut_inside_a_character() -> None:
    assert close_reason("a" + "é" * 100) == "a" + "é" * 61
    assert close_reason("é" * 100) == "é" * 61


@given(text=st.text(alphabet=st.characters(exclude_categories=[]), max_size=200))
def test_a_close_reason_fits_whatever_the_text(text: str) -> None:
    assert len(close_reason(text).encode()) <= 123
