from hypothesis import given
from hypothesis import strategies as st

from server.adapters.key import AdapterKeyer, derive_key
from tests.support.server_fakes import SPEC


def keyer(secret="secret", hypernetwork="h", base_model="b", encoder="e", spec=SPEC) -> AdapterKeyer:
    return AdapterKeyer(secret, hypernetwork=hypernetwork, base_model=base_model, encoder=encoder, spec=spec)


token_ids = st.lists(st.integers(0, 2**32 - 1))


@given(token_ids, token_ids)
def test_ids_are_equal_exactly_if_tokens_are(one, other):
    assert (keyer()(one) == keyer()(other)) == (one == other)


def test_id_is_32_hex_characters_and_the_same_in_every_process():
    assert keyer()((17637, 2000, 2413, 1012)) == "deeaa0d3fc7cf777caf8cf4443523f0b"


def test_id_depends_on_everything_that_determines_the_weights():
    bigger = SPEC.model_copy(update={"rank": 3})
    keyers = [
        keyer(),
        keyer(secret="other"),
        keyer(hypernetwork="x"),
        keyer(base_model="x"),
        keyer(encoder="x"),
        keyer(spec=bigger),
        keyer(spec=SPEC.model_copy(update={"use_rslora": True})),
        keyer(hypernetwork="hb", base_model=""),  # the same concatenation of parts
    ]
    assert len({k((1, 2)) for k in keyers}) == len(keyers)
    assert len({k.namespace for k in keyers}) == len(keyers)


def test_keys_for_different_purposes_differ():
    assert derive_key("s", "one") != derive_key("s", "two")
