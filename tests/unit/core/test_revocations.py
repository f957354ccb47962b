"""Users that were logged out, and single tokens that are refused."""

import pytest

from unmissed.core.audience import Identity
from unmissed.core.errors import InvalidToken
from unmissed.core.revocations import MAX_AHEAD, MAX_AHEAD_SECONDS, Revocations, Token
from unmissed.testing import ManualClock

NOW = 1_796_000_000.5
"""The true time at the start of each test."""


class Node:
    """The revocations of one node, with a clock of its own."""

    def __init__(self, *, ahead: float = 0.0, max_revoked: int = 100) -> None:
        self.wall_clock = ManualClock(NOW + ahead)
        self.revocations = Revocations(wall_clock=self.wall_clock, max_revoked=max_revoked)

    def accepts(self, issued_at: float | None, *, user_id: str = "alice", expires_at: float | None = None) -> bool:
        try:
            self.revocations.check(Identity(user_id, issued_at=issued_at, expires_at=expires_at))
        except InvalidToken:
            return False
        return True

    def hear(self, other: "Node") -> None:
        """Take over what another node refuses."""
        for user_id, logout_id, age, latest in other.revocations.users:
            self.revocations.log_out(user_id, logout_id=logout_id, age=age, latest=latest)
        self.revocations.refuse(other.revocations.tokens)


def test_the_tokens_of_a_user_that_were_issued_before_are_refused() -> None:
    node = Node()

    node.revocations.log_out("alice", logout_id="1")

    assert [False, False, True] == [node.accepts(NOW + seconds) for seconds in (-1, 0, 0.1)]
    assert node.accepts(NOW - 1, user_id="bob")
    node.wall_clock.advance(100)
    assert [False, False, True] == [node.accepts(NOW + seconds) for seconds in (-1, 0, 0.1)]


@pytest.mark.parametrize("ahead", [2.0, 3_600.0, 86_400.0])
def test_a_clock_that_is_set_back_after_a_logout_keeps_nobody_out(ahead: float) -> None:
    node = Node(ahead=ahead)
    node.revocations.log_out("alice", logout_id="1")

    node.wall_clock.advance(-ahead)
    refused = not node.accepts(NOW - 1)
    node.wall_clock.advance(10)

    assert refused
    assert [False, True] == [node.accepts(NOW + seconds) for seconds in (-1, 1)]


@pytest.mark.parametrize("behind", [2.0, 3_000.0])
def test_a_clock_that_is_behind_during_a_logout_lets_no_token_go_on_that_is_known(behind: float) -> None:
    node = Node(ahead=-behind)
    node.accepts(NOW - 1)
    latest = node.revocations.latest_ahead("alice", [])
    node.revocations.log_out("alice", logout_id="1", latest=latest)

    node.wall_clock.advance(behind)

    assert [False, True] == [node.accepts(NOW + seconds) for seconds in (-1, 1)]


@pytest.mark.parametrize("ahead", [-3_600.0, -5.0, 5.0, 3_600.0])
def test_a_node_measures_a_logout_on_another_one_with_its_own_clock(ahead: float) -> None:
    wrong, right = Node(ahead=ahead), Node()
    wrong.revocations.log_out("alice", logout_id="1")
    for node in (wrong, right):
        node.wall_clock.advance(10)

    right.hear(wrong)

    assert [False, True] == [right.accepts(NOW + seconds) for seconds in (-1, 1)]


def test_a_logout_that_is_heard_again_later_refuses_no_more() -> None:
    one, two = Node(), Node()
    one.revocations.log_out("alice", logout_id="1")
    two.hear(one)
    two.wall_clock.advance(5)  # As if a note had taken five seconds.

    two.hear(one)

    assert [False, True] == [two.accepts(NOW + seconds) for seconds in (0, 1)]
    assert not two.revocations.log_out("alice", logout_id="1")
    assert two.revocations.log_out("alice", logout_id="2")
    assert not two.accepts(NOW + 5)


def test_nodes_that_refuse_the_same_have_one_fingerprint_and_others_do_not() -> None:
    one, two = Node(), Node()
    assert 0 == one.revocations.fingerprint
    seen = {0}
    for number in range(5):
        one.revocations.log_out(f"user {number % 3}", logout_id=f"{number}", latest=NOW + number)
        one.revocations.refuse([Token("alice", NOW, NOW + number)])
        assert one.revocations.fingerprint not in seen
        seen.add(one.revocations.fingerprint)

    two.wall_clock.advance(1)
    two.hear(one)
    two.hear(one)

    assert one.revocations.fingerprint == two.revocations.fingerprint


def test_what_is_forgotten_is_not_in_the_fingerprint() -> None:
    one, two = Node(max_revoked=1), Node(max_revoked=1)
    for user_id in ("alice", "bob"):
        one.revocations.log_out(user_id, logout_id=user_id)
        one.revocations.refuse([Token(user_id, NOW, None)])
    two.revocations.log_out("bob", logout_id="bob")
    two.revocations.refuse([Token("bob", NOW, None)])

    assert one.revocations.fingerprint == two.revocations.fingerprint


def test_an_earlier_logout_that_is_heard_later_changes_nothing() -> None:
    node = Node()
    node.wall_clock.advance(100)
    node.revocations.log_out("alice", logout_id="2")

    node.revocations.log_out("alice", logout_id="1", age=100.0)

    assert [False, True] == [node.accepts(NOW + seconds) for seconds in (99, 101)]
    assert ["2"] == [logout_id for _, logout_id, _, _ in node.revocations.users]


def test_a_logout_covers_the_newest_known_token_of_a_clock_that_is_ahead() -> None:
    node = Node()
    known = Token("alice", NOW + 4, None)

    latest = node.revocations.latest_ahead("alice", [known, Token("alice", NOW - 4, None)])
    node.revocations.log_out("alice", logout_id="1", latest=latest)

    assert NOW + 4 == latest
    assert [False, False, True] == [node.accepts(NOW + seconds) for seconds in (3, 4, 4.5)]


def test_a_token_ahead_of_the_clock_is_known_from_when_it_was_accepted() -> None:
    node = Node()
    node.accepts(NOW + 4)
    node.accepts(NOW + 2)

    assert NOW + 4 == node.revocations.latest_ahead("alice", [])
    assert 0.0 == node.revocations.latest_ahead("bob", [])
    node.wall_clock.advance(10)
    assert 0.0 == node.revocations.latest_ahead("alice", [])


@pytest.mark.parametrize("far", [NOW + 1e9, 2.0**52])
def test_no_token_and_no_note_can_ban_a_user_for_long(far: float) -> None:
    node = Node()
    latest = node.revocations.latest_ahead("alice", [Token("alice", far, None)])

    node.revocations.log_out("alice", logout_id="1", latest=far)
    node.revocations.log_out("bob", logout_id="1", latest=latest, age=-far)
    node.revocations.refuse([Token("alice", far, None)])

    assert [False, True] == [node.accepts(NOW + MAX_AHEAD_SECONDS + seconds) for seconds in (0, 1)]
    assert [False, True] == [node.accepts(NOW + seconds, user_id="bob") for seconds in (0, 1)]
    assert not node.accepts(far)


def test_only_one_token_is_refused() -> None:
    node = Node()

    node.revocations.refuse([Token("alice", NOW, NOW + 60)])

    assert [True, False, True] == [node.accepts(NOW + seconds, expires_at=NOW + 60) for seconds in (-1, 0, 1)]
    assert node.accepts(NOW, expires_at=NOW + 61)
    assert node.accepts(NOW, user_id="bob", expires_at=NOW + 60)


def test_a_token_without_a_time_of_issue_is_recognized_by_its_expiry() -> None:
    node = Node()

    node.revocations.refuse([Token("alice", None, NOW + 60)])

    assert [False, True] == [node.accepts(None, expires_at=at) for at in (NOW + 60, NOW + 61)]


def test_a_logout_refuses_tokens_without_a_time_of_issue_that_expire_within_an_hour_and_bans_nobody_for_longer() -> (
    None
):
    node = Node()

    node.revocations.log_out("alice", logout_id="1")

    assert [False, False, True] == [node.accepts(None, expires_at=NOW + seconds) for seconds in (60, 3_600, 3_601)]
    node.wall_clock.advance(3_000)
    assert [False, True] == [node.accepts(None, expires_at=NOW + 3_000 + seconds) for seconds in (60, 601)]


def test_what_states_no_time_is_never_refused_because_that_would_be_for_ever() -> None:
    node = Node()

    node.revocations.log_out("alice", logout_id="1")
    node.revocations.refuse([Token("alice", None, None)])

    assert node.accepts(None)


@pytest.mark.parametrize("bad", [{"age": "x"}, {"latest": "x"}, {"latest": None}])
def test_a_logout_that_is_malformed_changes_nothing(bad: dict[str, object]) -> None:
    node = Node()

    with pytest.raises(TypeError):
        node.revocations.log_out("alice", logout_id="1", **bad)  # type: ignore[arg-type]  # what a note may contain

    assert node.accepts(NOW - 1)
    assert [] == node.revocations.users


def test_the_number_that_is_remembered_is_bounded() -> None:
    node = Node(max_revoked=2)
    for number, user_id in enumerate("abac"):
        node.revocations.log_out(user_id, logout_id=f"{number}")
        node.revocations.refuse([Token(f"token {user_id}", NOW, None)])

    assert [False, True, False] == [node.accepts(NOW, user_id=user_id) for user_id in "abc"]
    assert ["a", "c"] == [user_id for user_id, _, _, _ in node.revocations.users]
    assert ["token b", "token c"] == [token.user_id for token in node.revocations.tokens]


def test_a_logout_after_the_clock_was_set_back_is_a_new_one() -> None:
    now = ManualClock(NOW)
    revocations = Revocations(wall_clock=now)
    revocations.log_out("alice", logout_id="before")

    now.advance(-7_200)

    assert revocations.log_out("alice", logout_id="after")
    assert revocations.refuses(Identity("alice", issued_at=now()))


def test_of_more_users_than_are_remembered_whose_tokens_are_ahead_the_oldest_is_forgotten() -> None:
    node = Node()
    for number in range(MAX_AHEAD + 1):
        node.accepts(NOW + 60, user_id=f"user {number}")

    latest = [node.revocations.latest_ahead(f"user {number}", []) for number in (0, 1, MAX_AHEAD)]

    assert [0.0, NOW + 60, NOW + 60] == latest
