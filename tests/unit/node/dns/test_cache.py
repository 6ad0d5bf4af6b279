"""Are kept answers sent in turn, dropped when they should be, and bounded?"""

from __future__ import annotations

from node.dns.cache import KEPT_VARIANT_BYTES_MAX, AnswerCache
from node.dns.resolver import Answer
from node.dns.zone import NODE_ASKER
from tests.dns_world import an_asker

SHOP = an_asker("shop")
BLOG = an_asker("blog")


def an_answer(
    *variants: bytes, keys: tuple[str, ...] = ("web.shop",), brief: bool = False
) -> Answer:
    """Return an answer of these variants; each gets an id in front."""
    return Answer(tuple(b"ID" + each for each in variants or (b"x",)), frozenset(keys), brief)


def test_variants_in_turn() -> None:
    """Each variant is sent in turn, without its id."""
    cache = AnswerCache()
    cache.put(SHOP, b"q", an_answer(b"1", b"2"))
    sent = cache.ready(SHOP)[b"q"]
    assert [next(sent) for _ in range(5)] == [b"1", b"2", b"1", b"2", b"1"]


def test_askers_are_apart() -> None:
    """An answer for one asker is not another's."""
    cache = AnswerCache()
    cache.put(SHOP, b"q", an_answer())
    assert b"q" not in cache.ready(BLOG)
    assert b"q" in cache.ready(SHOP)


def test_forget_by_key() -> None:
    """A changed key drops what depends on it, in a table that is in use, and nothing else."""
    cache = AnswerCache()
    table = cache.ready(SHOP)
    cache.put(SHOP, b"1", an_answer(keys=("a", "b")))
    cache.put(SHOP, b"2", an_answer(keys=("b",)))
    cache.put(SHOP, b"3", an_answer(keys=("c",)))
    cache.forget(["b", "nothing"])
    assert list(table) == [b"3"]
    cache.forget(["c"])
    assert (list(table), cache.size_bytes, len(cache)) == ([], 0, 0)
    cache.put(SHOP, b"4", an_answer())
    assert list(table) == [b"4"]


def test_what_was_asked_for_is_told_when_it_is_dropped() -> None:
    """An answer that was made ahead counts from the first time that somebody gets it."""
    cache = AnswerCache()
    table = cache.ready(SHOP)
    cache.put(SHOP, b"1", an_answer())
    cache.put(SHOP, b"2", an_answer(b"1", b"2"), is_ahead=True)
    cache.put(SHOP, b"3", an_answer(), is_ahead=True)
    assert [next(table[b"2"]) for _ in range(3)] == [b"1", b"2", b"1"]
    assert sorted(cache.forget(["web.shop"])) == [(SHOP, b"1"), (SHOP, b"2")]
    assert cache.lacks(SHOP, b"1")
    assert not cache.lacks(BLOG, b"1")  # it is not known
    cache.put(SHOP, b"1", an_answer(), is_ahead=True)
    assert not cache.lacks(SHOP, b"1")
    assert cache.forget(["web.shop"]) == []


def test_brief_answers() -> None:
    """A brief answer goes with the next second; the others stay."""
    cache = AnswerCache()
    cache.put(SHOP, b"1", an_answer(brief=True))
    cache.put(SHOP, b"2", an_answer())
    cache.drop_brief()
    assert list(cache.ready(SHOP)) == [b"2"]


def test_only_what_can_come_again_is_kept() -> None:
    """An answer to a query that never comes again is not kept."""
    cache = AnswerCache()
    cache.put(SHOP, b"1", Answer((b"IDx",), is_reusable=False))
    assert len(cache) == 0


def test_bounded_by_asker() -> None:
    """One asker's answers are bounded; the oldest go."""
    cache = AnswerCache(answers_per_asker_max=2)
    for query in (b"1", b"2", b"3"):
        cache.put(SHOP, query, an_answer())
    assert list(cache.ready(SHOP)) == [b"2", b"3"]


def test_bounded_in_bytes() -> None:
    """When bytes run out, the asker that has most loses its oldest answers; the other keeps its."""
    cache = AnswerCache(bytes_max=20_000)
    cache.put(BLOG, b"q", an_answer())
    for number in range(100):
        cache.put(SHOP, b"%d" % number, an_answer(b"x" * 500))
        assert cache.size_bytes <= 20_000
    assert b"q" in cache.ready(BLOG)
    assert 5 < len(cache.ready(SHOP)) < 30
    assert b"99" in cache.ready(SHOP)


def test_many_large_variants() -> None:
    """Of an answer with many large variants only as many are kept as one answer may take."""
    cache = AnswerCache()
    cache.put(SHOP, b"q", an_answer(*(bytes(20_000) for _ in range(64))))
    assert cache.size_bytes < KEPT_VARIANT_BYTES_MAX + 2_000


def test_replaced() -> None:
    """A newer answer to the same query replaces the older one and its keys."""
    cache = AnswerCache()
    cache.put(SHOP, b"q", an_answer(b"old", keys=("a",)))
    size = cache.size_bytes
    cache.put(SHOP, b"q", an_answer(b"new", keys=("b",)))
    assert cache.size_bytes == size
    cache.forget(["a"])
    assert next(cache.ready(SHOP)[b"q"]) == b"new"


def test_retain() -> None:
    """Who asks no more loses its answers, and the room they took."""
    cache = AnswerCache()
    cache.put(SHOP, b"q", an_answer())
    cache.put(NODE_ASKER, b"q", an_answer())
    cache.retain([NODE_ASKER])
    assert len(cache) == 1
    cache.retain([])
    assert cache.size_bytes == 0
    assert b"q" not in cache.ready(SHOP)
