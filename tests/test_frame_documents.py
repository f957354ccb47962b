"""The protocol page and the types of the browser client are in step with the frames and close codes."""

import pytest

from frame_documents import COMMAND, PAGE, TYPES, page, tables, types


@pytest.mark.parametrize("table", tables(), ids=lambda table: table.split(" | ")[0])
def test_the_protocol_page_has_the_tables_of_frames_and_close_codes(table: str) -> None:
    assert 1 == PAGE.read_text().count(table), f"run: {COMMAND}"


def test_the_types_of_the_browser_client_end_with_those_of_the_frames() -> None:
    text = TYPES.read_text()

    assert types(text) == text, f"run: {COMMAND}"


def test_a_table_that_is_out_of_step_is_replaced_and_the_rest_is_kept() -> None:
    text = "Before.\n\n| close code | meaning | what to do |\n|---|---|---|\n| 4400 | old | old |\n\nAfter.\n"

    assert f"Before.\n\n{tables()[2]}\nAfter.\n" == page(text)
