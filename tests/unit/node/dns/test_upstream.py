"""Is only the right answer taken from upstream, told as the client asked, and kept for a while?"""

from __future__ import annotations

import dns.flags
import dns.message
import dns.rcode
import dns.rrset
import pytest

from node.dns.upstream import (
    STALE_S,
    Kept,
    KeptAnswers,
    Question,
    Rejected,
    accept,
    answer_with,
    failure,
    question_bytes,
    question_of,
)
from node.dns.wire import Query, parse_query
from tests.dns_world import query_bytes, texts

IDENT = 99
ASKED = "www.example.com."
QUESTION = Question(("www", "example", "com"), 1)


def a_query(name: str = ASKED, *, ident: int = 4711, payload: int | None = None) -> Query:
    """Return a client's query."""
    query = parse_query(query_bytes(name, ident=ident, payload=payload))
    assert isinstance(query, Query)
    return query


def a_response(*addresses: str, ttl_s: int = 60, name: str = ASKED) -> dns.message.Message:
    """Return the right answer to `QUESTION`, to be spoilt by a test."""
    query = dns.message.make_query(name, "A", id=IDENT)
    response = dns.message.make_response(query, recursion_available=True)
    if addresses:
        response.answer.append(dns.rrset.from_text(name, ttl_s, "IN", "A", *addresses))
    return response


def taken(response: dns.message.Message) -> Kept:
    """Return the answer in the form that is kept."""
    kept = accept(QUESTION, IDENT, response.to_wire(), "192.0.2.53")
    assert isinstance(kept, Kept), kept
    return kept


def test_the_question_upstream() -> None:
    """What is asked upstream is the client's question, with EDNS and its marks as the client's."""
    query = dns.message.from_wire(question_bytes(question_of(a_query()), 7))
    assert (query.id, query.edns, query.question[0].name.to_text()) == (7, -1, ASKED)
    assert query.flags & dns.flags.RD
    wanted = dns.message.make_query(ASKED, "AAAA", want_dnssec=True, payload=4_096)
    wanted.flags |= dns.flags.CD
    parsed = parse_query(wanted.to_wire())
    assert isinstance(parsed, Query)
    query = dns.message.from_wire(question_bytes(question_of(parsed), 7))
    assert (query.edns, query.payload) == (0, 1_232)
    assert query.ednsflags & dns.flags.DO
    assert query.flags & dns.flags.CD


def test_the_right_answer() -> None:
    """It is told with the client's id, case, EDNS and the time that is left."""
    kept = taken(a_response("192.0.2.1", "192.0.2.2"))
    assert (kept.ttl_s, kept.code, kept.is_failure) == (60, 0, False)
    told = dns.message.from_wire(answer_with(kept, a_query("wWw.eXample.COM."), 7, 512))
    assert told.id == 4711
    assert told.question[0].name.to_text() == "wWw.eXample.COM."
    assert sorted(texts(told)) == ["192.0.2.1", "192.0.2.2"]
    assert (told.answer[0].ttl, told.edns) == (7, -1)
    with_edns = dns.message.from_wire(answer_with(kept, a_query(payload=4_096), 7, 1_232))
    assert with_edns.edns == 0


def test_too_large_for_the_client() -> None:
    """What does not fit is only said to be truncated."""
    kept = taken(a_response(*(f"192.0.2.{n}" for n in range(1, 60))))
    told = dns.message.from_wire(answer_with(kept, a_query(), 7, 512))
    assert told.flags & dns.flags.TC
    assert list(texts(told)) == []
    whole = dns.message.from_wire(answer_with(kept, a_query(), 7, 65_535))
    assert len(list(texts(whole))) == 59


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\0" * 12,
        a_response("192.0.2.1").to_wire()[:-1],
        a_response("192.0.2.1", name="www.example.net.").to_wire(),
        b"\0\0" + a_response("192.0.2.1").to_wire()[2:],
        dns.message.make_query(ASKED, "A", id=IDENT).to_wire(),
        a_response("192.0.2.1").to_wire() + b"\0",
    ],
    ids=["nothing", "a header", "cut", "another name", "another id", "a query", "more"],
)
def test_what_is_no_answer(data: bytes) -> None:
    """Anything but a whole answer to this very question is passed over."""
    assert accept(QUESTION, IDENT, data, "192.0.2.53") is Rejected.NOT_THE_ANSWER


def test_another_type_is_no_answer() -> None:
    """The type must agree as well."""
    other = Question(QUESTION.labels, 28)
    found = accept(other, IDENT, a_response("192.0.2.1").to_wire(), "192.0.2.53")
    assert found is Rejected.NOT_THE_ANSWER


def test_truncated() -> None:
    """A truncated answer is to be asked for again."""
    response = a_response()
    response.flags |= dns.flags.TC
    found = accept(QUESTION, IDENT, response.to_wire(), "192.0.2.53")
    assert found is Rejected.TRUNCATED


def test_how_long_a_no_holds() -> None:
    """A no holds as long as its SOA record says, within a bound; a failure for a second."""
    response = a_response()
    response.set_rcode(dns.rcode.NXDOMAIN)
    assert taken(response).ttl_s == 1
    soa = dns.rrset.from_text("example.com.", 3_600, "IN", "SOA", "a. b. 1 2 3 4 20")
    response.authority.append(soa)
    assert taken(response).ttl_s == 20
    response.set_rcode(dns.rcode.SERVFAIL)
    assert (taken(response).ttl_s, taken(response).is_failure) == (1, True)


@pytest.mark.parametrize(("given", "kept"), [(0, 1), (1, 1), (60, 60), (86_400, 300)])
def test_how_long_a_yes_holds(given: int, kept: int) -> None:
    """An answer holds as long as its shortest record, within bounds."""
    assert taken(a_response("192.0.2.1", ttl_s=given)).ttl_s == kept


def test_a_failure_is_told() -> None:
    """Without any answer the client is told SERVFAIL, with its question."""
    told = dns.message.from_wire(failure(a_query(payload=1_232), 1_232))
    assert told.rcode() == dns.rcode.SERVFAIL
    assert told.question[0].name.to_text() == ASKED


def test_kept_until_it_runs_out() -> None:
    """An answer is known until its time is over, and for a while as what it was."""
    answers = KeptAnswers()
    kept = taken(a_response("192.0.2.1", ttl_s=60))
    answers.put(QUESTION, kept, 0.0)
    assert answers.get(QUESTION, 0.0) == (kept, 60)
    assert answers.get(QUESTION, 59.5) == (kept, 1)
    assert answers.get(QUESTION, 60.0) is None
    assert answers.stale(QUESTION, 60.0) == kept
    assert answers.stale(QUESTION, 60.0 + STALE_S) is None


def test_a_failure_does_not_displace_an_answer() -> None:
    """While an old answer may still serve, a failure is not kept in its place."""
    response = a_response()
    response.set_rcode(dns.rcode.SERVFAIL)
    failed = taken(response)
    answers = KeptAnswers()
    answers.put(QUESTION, failed, 0.0)
    assert answers.get(QUESTION, 0.5) == (failed, 1)
    assert answers.stale(QUESTION, 0.5) is None
    kept = taken(a_response("192.0.2.1"))
    answers.put(QUESTION, kept, 1.0)
    answers.put(QUESTION, failed, 100.0)
    assert answers.stale(QUESTION, 100.0) == kept


def test_bounds() -> None:
    """Beyond the bounds the answer that was unused for longest goes."""
    kept = taken(a_response("192.0.2.1"))
    questions = [Question((f"n{number}",), 1) for number in range(4)]
    answers = KeptAnswers(kept_max=3)
    for question in questions[:3]:
        answers.put(question, kept, 0.0)
    assert answers.get(questions[0], 0.0) is not None
    answers.put(questions[3], kept, 0.0)
    assert answers.get(questions[1], 0.0) is None
    assert answers.get(questions[0], 0.0) is not None
    small = KeptAnswers(bytes_max=2 * len(kept.data))
    for question in questions:
        small.put(question, kept, 0.0)
    assert len(small) == 2
    small.clear()
    assert len(small) == 0
