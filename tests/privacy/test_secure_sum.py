"""The secure sum's protocol: the sum is exact whoever drops out, and no one shows more than the sum takes."""

import itertools
import time

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st

from fedrax.errors import FedraxError
from fedrax.privacy.secure_sum import masks, shamir
from fedrax.privacy.secure_sum.agent import Participant
from fedrax.privacy.secure_sum.identity import NOBODY, Identity
from fedrax.privacy.secure_sum.server import Summation
from fedrax.privacy.secure_sum.signatures import fingerprint, read_own, read_peers
from fedrax.privacy.secure_sum.terms import SecureSumError, Terms, TooFew, most_bits, threshold_of
from fedrax.privacy.secure_sum.wire import (
    MISSING,
    agents_bytes,
    entries_bytes,
    read_entries,
    read_sealed,
    read_shares,
    sealed_bytes,
)
from fedrax.runtime.flower.certificates import make_certificates

from sums import STAGES, Sum, terms_of, vectors_of


def test_masks_are_the_key_stream_of_chacha20(monkeypatch):
    """RFC 8439, section 2.4.2: its key, counter and nonce, and the first block of its key stream."""
    given = bytes.fromhex("01000000000000000000004a00000000")
    monkeypatch.setattr(masks, "nonce", lambda terms: given)
    expected = bytes.fromhex(
        "224f51f3401bd9e12fde276fb8631ded8c131f823d2c06e27e4fcaec9ef3cf78"
        "8a3b0aa372600a92b57974cded2b9334794cba40c63e34cdea212c4cf07d41b7"
    )
    assert masks.stream(bytes(range(32)), terms_of(3, 16)).astype("<u4").tobytes() == expected


def test_every_round_of_every_run_has_a_nonce_of_its_own():
    terms = terms_of(3, 16)
    assert masks.nonce(terms)[:4] == bytes(4), "the counter begins at 0"
    assert len({masks.nonce(terms._replace(**change)) for change in ({}, {"round": 4}, {"run": "other"})}) == 3


def test_a_polynomial_worked_out_by_hand_is_joined():
    """1234 + 166 x + 94 x^2, of which any three of its values are enough."""
    values = {1: 1494, 2: 1942, 3: 2578, 4: 3402, 5: 4414}
    for points in itertools.combinations(values, 3):
        assert shamir.joined({point: values[point] for point in points}) == 1234
    assert shamir.joined({1: 1494, 2: 1942}) != 1234


@settings(max_examples=50)
@given(st.data())
def test_any_threshold_of_shares_yields_the_secret_and_fewer_do_not(data):
    threshold = data.draw(st.integers(2, 8))
    points = data.draw(st.lists(st.integers(1, 10**6), min_size=threshold, max_size=12, unique=True))
    secret = data.draw(st.integers(0, 2**256 - 1))
    shares = shamir.split(secret, threshold, points)
    chosen = data.draw(st.permutations(points))
    assert shamir.joined({point: shares[point] for point in chosen[:threshold]}) == secret
    assert shamir.joined({point: shares[point] for point in chosen[: threshold - 1]}) != secret


def test_shares_below_the_threshold_say_nothing():
    """Of one share of two every secret is left: the other share makes it any."""
    share = shamir.split(5, 2, [1, 2])[1]
    for secret in (0, 5, 2**255):
        other = (2 * share - secret) % shamir.PRIME
        assert shamir.joined({1: share, 2: other}) == secret


@st.composite
def dropouts(draw):
    """How many agents, and who is silent from which stage on; as many stay as the threshold."""
    count = draw(st.integers(3, 12))
    least = threshold_of(count, draw(st.sampled_from([None, 0.6])))
    order = draw(st.permutations(range(count)))
    leaving = order[: draw(st.integers(0, count - least))]
    stages = {agent: draw(st.sampled_from(STAGES)) for agent in leaving}
    gone = {stage: [agent for agent, at in stages.items() if at == stage] for stage in STAGES}
    return count, least, gone


@settings(max_examples=40)
@given(dropouts(), st.integers(0, 2**32 - 1), st.sampled_from([8, 20, 28]))
def test_the_sum_is_that_of_those_whose_vectors_came(case, seed, bits):
    count, least, gone = case
    terms = Terms("run", 7, count, least, bits, 9)
    vectors = vectors_of(terms, seed)
    total = Sum(terms).run(vectors, gone)
    missing = {agent for stage in STAGES[:3] for agent in gone[stage]}
    expected = np.sum([vector.astype(np.int64) for k, vector in vectors.items() if k not in missing], axis=0)
    np.testing.assert_array_equal(total, expected)


@pytest.mark.parametrize("stage", STAGES)
def test_below_the_threshold_the_round_is_lost_and_no_later_stage_is_asked_for(stage):
    terms = terms_of(5, 4)
    run = Sum(terms)
    with pytest.raises(TooFew, match=r"3 agents .*, and the threshold is 4"):
        run.run(vectors_of(terms), {stage: [1, 3]})
    stages = {len(agent._answers) for k, agent in run.agents.items() if k not in (1, 3)}
    assert stages == {STAGES.index(stage) + 1}, "who stayed has answered that stage, and no other"


@settings(max_examples=10)
@given(st.integers(3, 7), st.integers(0, 2**32 - 1))
def test_no_part_of_any_vector_is_in_what_the_server_receives(count, seed):
    terms = terms_of(count, 256)
    run = Sum(terms)
    vectors = vectors_of(terms, seed)
    floats = {k: (vector / 2**19).astype(np.float32) for k, vector in vectors.items()}
    run.run(vectors, {"masked": [0]} if terms.threshold < count else {})
    heard = b"|".join(run.heard)
    assert not found(heard, [*vectors.values(), *floats.values()])
    leaked = heard + vectors[1].tobytes()[100:164]
    assert found(leaked, vectors.values()), "a window of 64 bytes would be seen"


def found(heard, vectors):
    """Whether a window of 64 bytes of a vector is there: every such window holds one of these of 32."""
    return any(
        data[start : start + 32] in heard
        for data in (vector.tobytes() for vector in vectors)
        for start in range(0, len(data) - 31, 4)
    )


def test_an_agent_shows_the_share_of_a_seed_or_of_a_key_and_never_both():
    terms = terms_of(4, 3)
    run = Sum(terms)
    run.run(vectors_of(terms))
    agent = run.agents[0]
    everyone, without = agents_bytes(range(4)), agents_bytes([0, 1, 2])
    before = agent.unmasked(everyone)
    assert agent.unmasked(everyone) == before, "the same request has the same answer"
    with pytest.raises(SecureSumError, match="another request of the stage unmasked, which was answered before"):
        agent.unmasked(without)


def test_of_each_peer_an_agent_shows_one_share():
    terms = terms_of(4, 3)
    run = Sum(terms)
    run.run(vectors_of(terms), {"masked": [2]})
    agent = run.agents[0]
    shares = read_shares(run.heard[-3], 4)
    for peer, share in enumerate(shares):
        seed, key = agent._held[peer]
        assert share == (key if peer == 2 else seed)


def at(stage):
    """A sum of four whose agents have answered the stages before this one, and what they would be asked next."""
    terms = terms_of(4, 3)
    run = Sum(terms)
    server = run.server
    roster = server.enrol({k: server.check_keys(k, a.keys()) for k, a in run.agents.items()})
    if stage == "shares":
        return run, roster
    relayed = server.relay({k: server.check_shares(k, a.shares(roster)) for k, a in run.agents.items()})
    if stage == "masked":
        return run, relayed
    vectors = vectors_of(terms)
    masked = {k: server.check_masked(k, a.masked(relayed[k], vectors[k])) for k, a in run.agents.items()}
    return run, server.add(masked)


@pytest.mark.parametrize(
    ("survivors", "why"),
    [
        ([0, 1], "2 agents, and the threshold is 3"),
        ([1, 2, 3], "survivors without this agent"),
        ([0, 1, 2, 9], "some that did not go on"),
    ],
)
def test_a_false_list_of_survivors_is_refused_and_shows_nothing(survivors, why):
    run, right = at("unmasked")
    with pytest.raises(SecureSumError, match=why):
        run.agents[0].unmasked(agents_bytes(survivors))
    assert run.agents[0].unmasked(right), "the right one is answered afterwards"


def test_a_vector_is_masked_once():
    run, relayed = at("masked")
    agent, vector = run.agents[0], vectors_of(run.terms)[0]
    agent.masked(relayed[0], vector)
    fewer = {k: data for k, data in read_sealed(relayed[0]).items() if k != 3}
    with pytest.raises(SecureSumError, match="another request of the stage masked"):
        agent.masked(sealed_bytes(fewer), vector)


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda rows: dict(list(rows.items())[:1]), "2 agents, and the threshold is 3"),
        (lambda rows: rows | {9: rows[1]}, "not on the roster"),
        (lambda rows: rows | {0: rows[1]}, "or from this one"),
    ],
)
def test_a_false_list_of_who_goes_on_is_refused(change, why):
    run, relayed = at("masked")
    with pytest.raises(SecureSumError, match=why):
        run.agents[0].masked(sealed_bytes(change(read_sealed(relayed[0]))), vectors_of(run.terms)[0])


def test_shares_that_were_swapped_or_bent_are_as_if_they_were_not_there():
    run, relayed = at("masked")
    rows = read_sealed(relayed[0])
    bent = {1: rows[2], 2: rows[2][:-1] + bytes([rows[2][-1] ^ 1]), 3: rows[3]}
    vectors = vectors_of(run.terms)
    relayed[0] = sealed_bytes(bent)
    server = run.server
    survivors = server.add({k: server.check_masked(k, a.masked(relayed[k], vectors[k])) for k, a in run.agents.items()})
    answer = run.agents[0].unmasked(survivors)
    assert [share is None for share in read_shares(answer, 4)] == [False, True, True, False]
    assert answer.count(MISSING) == 2
    # The shares of the other three are enough.
    total = server.total({k: server.check_unmasked(k, a.unmasked(survivors)) for k, a in run.agents.items()})
    np.testing.assert_array_equal(total, sum(vectors.values()))


def test_a_vector_beyond_its_levels_is_refused():
    run, relayed = at("masked")
    for vector in (np.full(3, 2**19 + 1, np.int32), np.full(3, -(2**31), np.int32), np.zeros(4, np.int32)):
        with pytest.raises(SecureSumError, match="a vector that is not as the terms say"):
            run.agents[0].masked(relayed[0], vector)


@pytest.mark.parametrize("count", [2, 4])
def test_a_roster_of_too_few_or_too_many_or_without_the_own_keys_is_refused(count):
    run, roster = at("shares")
    entries = read_entries(roster)
    fresh = Participant(run.terms, 0, NOBODY)
    fresh.keys()
    with pytest.raises(SecureSumError):
        fresh.shares(entries_bytes(entries[:count]))
    with pytest.raises(SecureSumError, match="more than take part"):
        run.agents[0].shares(entries_bytes([*entries, entries[0]._replace(agent=9)]))


def test_stages_are_in_order():
    agent = Participant(terms_of(3, 2), 0, NOBODY)
    with pytest.raises(SecureSumError, match="the stage unmasked out of its order"):
        agent.unmasked(agents_bytes([0, 1, 2]))


def test_a_node_that_lies_about_its_shares_makes_no_false_sum():
    terms = terms_of(4, 64)
    run = Sum(terms)
    vectors = vectors_of(terms)
    with pytest.raises(TooFew):
        run.run(vectors, {"unmasked": [0, 1]})
    for missing in ([], [3]):
        run = Sum(terms)
        run.run(vectors, {"masked": missing})
        there = [k for k in range(4) if k not in missing]
        survivors = agents_bytes(there)
        shown = {k: run.server.check_unmasked(k, run.agents[k].unmasked(survivors)) for k in there}
        for peer in range(4):
            # The lowest bits of a key do not count.
            lie = {k: dict(shares) for k, shares in shown.items()}
            lie[0][peer] = (lie[0][peer] + 2**100) % shamir.PRIME
            with pytest.raises(SecureSumError, match="lied"):
                run.server.total(lie)


def registered(tmp_path, count):
    """Identities of so many nodes that were given each other's public keys, and one that is no member's."""
    make_certificates(tmp_path / "c", ["127.0.0.1"], count)
    folder = tmp_path / "c" / "nodes"
    peers = read_peers(folder)
    assert len(peers) == count
    return [Identity(read_own(folder / f"node-{k}"), peers) for k in range(count)]


@pytest.fixture
def identities(tmp_path):
    return registered(tmp_path, 4)


def test_signed_keys_are_taken_and_said_to_be_authenticated(identities):
    terms = terms_of(4, 3)
    run = Sum(terms, dict(enumerate(identities)))
    vectors = vectors_of(terms)
    np.testing.assert_array_equal(run.run(vectors), sum(vectors.values()))
    assert run.server.authenticated
    partly = Sum(terms, {0: identities[0]._replace(peers=None), **dict(enumerate(identities[1:], 1))})
    np.testing.assert_array_equal(partly.run(vectors), sum(vectors.values()))
    assert not partly.server.authenticated, "one of them would have taken anything"


def forged(identities, forge):
    """A roster in which the server has put keys of its own in agent 1's place, and agent 0, who is shown it."""
    terms = terms_of(4, 3)
    agents = [Participant(terms, k, identity) for k, identity in enumerate(identities)]
    entries = [read_entries(agent.keys())[0] for agent in agents]
    own = read_entries(Participant(terms, 1, NOBODY).keys())[0]
    entries[1] = forge(entries, own)
    return agents[0], entries_bytes(entries)


@pytest.mark.parametrize(
    ("forge", "why"),
    [
        (lambda entries, own: own, "keys of agent 1 that no registered key signed"),
        (
            lambda entries, own: own._replace(signer=entries[1].signer, signature=entries[1].signature),
            "keys of agent 1 that its registered key did not sign",
        ),
        (lambda entries, own: entries[1]._replace(masking=own.masking), "its registered key did not sign"),
        (lambda entries, own: entries[2]._replace(agent=1), "its registered key did not sign"),
    ],
)
def test_keys_that_the_server_forges_are_refused(identities, forge, why):
    agent, roster = forged(identities, forge)
    with pytest.raises(SecureSumError, match=why):
        agent.shares(roster)


def test_a_stranger_and_a_node_that_signs_twice_are_refused(identities):
    stranger = ec.generate_private_key(ec.SECP384R1())
    terms = terms_of(4, 3)
    for own, why in ((stranger, "no registered key signed"), (identities[2].own, "signed for several agents")):
        agent, roster = forged(
            identities,
            lambda entries, _, own=own: read_entries(Participant(terms, 1, Identity(own)).keys())[0],
        )
        with pytest.raises(SecureSumError, match=why):
            agent.shares(roster)
    assert fingerprint(stranger.public_key()) not in identities[0].peers


@pytest.mark.parametrize(
    "change", [{"round": 4}, {"run": "other"}, {"participants": 5, "threshold": 4}, {"length": 4}, {"context": b"x"}]
)
def test_keys_of_another_round_or_of_other_terms_are_no_good(identities, change):
    """The server knows the keys of who dropped out of the last round: replayed, they would open this one."""
    old = read_entries(Participant(terms_of(4, 3)._replace(**change), 1, identities[1]).keys())[0]
    agent, roster = forged(identities, lambda entries, own: old)
    with pytest.raises(SecureSumError, match="keys of agent 1 that its registered key did not sign"):
        agent.shares(roster)


def test_agents_that_were_shown_different_models_have_masks_that_do_not_cancel():
    """So a server that makes all updates but one vanish learns nothing of that one."""
    terms = terms_of(4, 64)
    run = Sum(terms)
    run.agents[0] = Participant(terms._replace(context=b"another model"), 0, NOBODY)
    with pytest.raises(SecureSumError):
        run.run(vectors_of(terms))


def test_keys_that_make_no_secret_are_refused_by_the_server_and_by_agents():
    run, roster = at("shares")
    entries = read_entries(roster)
    zero = entries[1]._replace(sealing=bytes(32))
    with pytest.raises(SecureSumError, match="makes no secret"):
        Summation(run.terms).check_keys(1, entries_bytes([zero]))
    with pytest.raises(SecureSumError, match="makes no secret"):
        run.agents[0].shares(entries_bytes([entries[0], zero, *entries[2:]]))


def test_answers_that_are_not_what_was_asked_for_are_refused():
    run, roster = at("shares")
    server = run.server
    entries = read_entries(roster)
    shares = {k: read_sealed(agent.shares(roster)) for k, agent in run.agents.items()}
    for check, answer in (
        (server.check_keys, entries_bytes(entries[1:2])),
        (server.check_keys, entries_bytes(entries)),
        (server.check_keys, b"x"),
        (server.check_shares, sealed_bytes({1: shares[0][1]})),
        (server.check_shares, sealed_bytes({9: shares[0][1], **shares[0]})),
        (server.check_shares, sealed_bytes(shares[0]) * 2),
        (server.check_shares, bytes(7)),
        (server.check_masked, bytes(13)),
        (server.check_unmasked, bytes(66)),
    ):
        with pytest.raises(SecureSumError):
            check(0, answer)


def test_keys_that_cannot_be_read_are_one_line(tmp_path):
    make_certificates(tmp_path / "c", ["127.0.0.1"], 1)
    nodes = tmp_path / "c" / "nodes"
    for path, read in ((nodes / "node-0.pub", read_own), (tmp_path / "none", read_own), (tmp_path, read_peers)):
        with pytest.raises(FedraxError, match=r"^[^\n]+$"):
            read(path)
    (nodes / "bad.pub").write_text("ssh-ed25519 AAAA")
    with pytest.raises(FedraxError, match=r"bad\.pub is no public key"):
        read_peers(nodes)
    assert read_own(tmp_path / "c" / "server.key"), "PEM is read too"


@pytest.mark.parametrize(
    ("terms", "why"),
    [
        (Terms("r", 0, 2, 2, 20, 3), "a sum of 2 agents would show their parts"),
        (Terms("r", 0, 4, 2, 20, 3), "no majority"),
        (Terms("r", 0, 4, 5, 20, 3), "no majority"),
        (Terms("r", 0, 4, 3, 30, 3), "pass 32 bits"),
    ],
)
def test_terms_that_would_show_somebodys_part_are_refused_at_both_ends(terms, why):
    for refuses in (Summation, lambda t: Participant(t, 0, NOBODY)):
        with pytest.raises(SecureSumError, match=why):
            refuses(terms)


def test_the_threshold_is_two_thirds_and_one_more_or_a_share_of_all():
    assert [threshold_of(n, None) for n in range(3, 11)] == [3, 3, 4, 5, 5, 6, 7, 7]
    assert [threshold_of(n, 0.5000001) for n in (3, 4, 10)] == [2, 3, 6]
    assert [threshold_of(n, 1.0) for n in (3, 4)] == [3, 4]


@given(st.integers(3, 10**6))
def test_the_bits_that_fit_are_the_most_of_which_a_sum_fits(count):
    bits = most_bits(count)
    assert count * 2 ** (bits - 1) < 2**31 <= count * 2**bits


def test_masks_of_a_million_weights_take_far_less_than_a_second():
    terms = terms_of(3, 1_000_000)
    began = time.perf_counter()
    words = masks.stream(bytes(32), terms)
    assert words.shape == (1_000_000,)
    assert time.perf_counter() - began < 0.5
