"""The result of a run for people."""

import io
from dataclasses import replace

from rich.console import Console

from unmissed.lab.verify.facts import Acknowledged, Delivered, Joined, Recorder, Witness
from unmissed.lab.verify.promises import Findings, Promise, Violation
from unmissed.lab.verify.report import show

LOST = Violation(
    Promise.NO_SILENT_LOSS,
    "1 lost: 8",
    "client-1",
    (8,),
    (Delivered(12.5, "client-1", "e", 9, "bytes", "x-9", "content"),),
)
BROKEN = Violation(Promise.NO_SILENT_LOSS, "1 lost: 7", "broken")


def shown(findings: Findings) -> str:
    recorder = Recorder(clock=lambda: 11.0)
    recorder.introduce(Witness("client-1", "alice"))
    recorder.add(Acknowledged(10.0, 9.9, "x-9", "e", 9, "content"))
    recorder.add(Joined(11.0, "client-1", "e", 3, 3, "gap", 1, 9))
    recorder.note("cut")
    output = io.StringIO()
    show(Console(file=output, width=100), findings, recorder, seed=7)
    return output.getvalue()


def test_a_broken_promise_is_shown_with_the_events_around_it() -> None:
    text = shown(Findings([LOST], [BROKEN]))

    assert "no silent loss is broken: client-1: 1 lost: 8" in text
    assert "   2.500 s  Delivered client=client-1 epoch=e number=9" in text
    assert 1 == text.count("│ broken")
    assert 10 == text.count("│ kept")
    assert "proves nothing" not in text


def test_the_counts_and_the_seed_are_shown() -> None:
    text = shown(Findings([], [BROKEN]))

    assert 11 == text.count("│ kept")
    assert "published 1 (repeats 0), delivered 0, reconnects 1, gaps 1, resets 0, states 0, " in text
    assert "ephemeral 0 (received 0), transactions 0 (committed 0); faults 1: cut 1" in text
    assert "--seed 7" in text


def test_transactions_are_judged_where_there_were_any() -> None:
    recorder, output = Recorder(), io.StringIO()
    recorder.counts["transactions"] = 7

    show(Console(file=output, width=100), Findings([], [BROKEN]), recorder, seed=7)

    assert 12 == output.getvalue().count("│ kept")
    assert "│ transactions" in output.getvalue()
    assert "7 transactions" in output.getvalue()


def test_a_run_that_did_not_find_the_broken_client_proves_nothing() -> None:
    assert "This run proves nothing" in shown(Findings([], []))


def test_texts_of_the_server_are_shown_without_what_a_terminal_obeys() -> None:
    delivered = Delivered(12.5, "client-1", "\x1b[2J", 9, "bytes", "\x9b2J\u202e", "content")

    text = shown(Findings([replace(LOST, excerpt=(delivered,))], [BROKEN]))

    assert r"epoch=\x1b[2J" in text
    assert all(each == "\n" or each.isprintable() for each in text)
