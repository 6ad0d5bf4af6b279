"""Do nodes that heard the same facts, in whatever order and how often, hold the same to be true?"""

from __future__ import annotations

import functools
import operator
import random

from hypothesis import given
from hypothesis import strategies as st

from dray.model import Fact, FactKey, FactVersion, MemberState
from node.gossip.facts import FactStore, Merge, fact_hash
from node.gossip.members import is_here
from tests.contract.facts.builders import member, node_id, service_fact

NODES = ("a", "b", "c")
NAMES = ("node:address", "node:faults", "service:shop/web", "service:shop/api")

values = st.one_of(
    st.none(),
    st.binary(max_size=4),
    st.sampled_from([service_fact("a", slot).value for slot in (1, 2, 3)]),
)
facts = st.builds(
    lambda node, name, life, version, value: Fact(
        FactKey(node_id(node), name), FactVersion(life, version), value
    ),
    st.sampled_from(NODES),
    st.sampled_from(NAMES),
    st.integers(1, 3),
    st.integers(1, 3),
    values,
)


def store_of(given_facts: list[Fact]) -> FactStore:
    """Return a store of three members that has merged these facts in this order."""
    store = FactStore()
    for name in NODES:
        store.put_member(member(name))
    for fact in given_facts:
        store.merge(fact, 0.0)
    return store


def contents(store: FactStore) -> object:
    """Return everything that a store holds true, tombstones included."""
    view = store.view()
    return (
        {name: store.facts_of(node_id(name)).facts for name in NODES},
        [(service, view.endpoints(service)) for service in view.services()],
        store.bucket_digests,
    )


@given(st.lists(facts, max_size=12), st.randoms(use_true_random=False))
def test_order_does_not_matter(given_facts: list[Fact], rng: random.Random) -> None:
    """Merging is commutative and associative: any order of the same facts ends the same."""
    shuffled = list(given_facts)
    rng.shuffle(shuffled)
    assert contents(store_of(given_facts)) == contents(store_of(shuffled))


@given(st.lists(facts, max_size=12))
def test_twice_is_once(given_facts: list[Fact]) -> None:
    """Merging is idempotent: what was heard before changes nothing, not even the view's number."""
    store = store_of(given_facts)
    before, sequence = contents(store), store.sequence
    assert {store.merge(fact, 0.0) for fact in given_facts} <= {Merge.KNOWN}
    assert contents(store) == before
    assert store.sequence == sequence


@given(st.lists(facts, max_size=12), st.lists(facts, max_size=12))
def test_stores_that_exchange_all_are_equal(ours: list[Fact], theirs: list[Fact]) -> None:
    """Two nodes that tell each other everything they still hold end up with the same."""
    one, other = store_of(ours), store_of(theirs)
    for source, target in ((one, other), (other, one)):
        for name in NODES:
            for fact in source.facts_of(node_id(name)).facts.values():
                target.merge(fact, 0.0)
    assert contents(one) == contents(other)


@given(
    st.lists(
        st.one_of(
            facts,
            st.builds(
                lambda name, state, life: member(name, state, life=life),
                st.sampled_from(NODES),
                st.sampled_from(list(MemberState)[:2] + list(MemberState)[3:]),
                st.integers(1, 3),
            ),
        ),
        max_size=20,
    ),
    st.booleans(),
)
def test_sums_are_what_is_there(changes: list[object], is_pruned: bool) -> None:
    """Digests and sums that are kept up to date change by change equal those computed afresh."""
    store = store_of([])
    for change in changes:
        if isinstance(change, Fact):
            store.merge(change, 0.0)
        else:
            store.put_member(change)  # type: ignore[arg-type]
    if is_pruned:
        store.drop_tombstones(1.0)
    for name in NODES:
        held = store.facts_of(node_id(name))
        living = [fact for fact in held.facts.values() if fact.value is not None]
        digest = 0
        for fact in living:
            digest ^= fact_hash(fact)
        assert (held.digest, held.living) == (digest, len(living))
        assert held.size_bytes == sum(len(f.key.name) + len(f.value or b"") for f in living)
    assert store.tombstones == sum(
        fact.value is None
        for name in NODES
        for fact in store.facts_of(node_id(name)).facts.values()
    )
    fresh = FactStore()
    for name in NODES:
        known = store.member(node_id(name))
        assert known is not None
        fresh.put_member(known)
        for fact in store.facts_of(node_id(name)).facts.values():
            fresh.merge(fact, 0.0)
    assert fresh.bucket_digests == store.bucket_digests
    assert store.digest == functools.reduce(operator.xor, store.bucket_digests)
    if not any(is_here(m) for m in store.view().members()):
        assert store.digest == 0
