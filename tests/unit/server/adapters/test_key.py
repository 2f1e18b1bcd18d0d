import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from server.adapters.key import AdapterKeyer, derive_key, normalise
from tests.support.server_fakes import SPEC


def keyer(secret="secret", hypernetwork="h", base_model="b", encoder="e", spec=SPEC) -> AdapterKeyer:
    return AdapterKeyer(secret, hypernetwork=hypernetwork, base_model=base_model, encoder=encoder, spec=spec)


@given(st.text())
def test_normalising_twice_changes_nothing_more(text):
    assert normalise(normalise(text)) == normalise(text)


@given(st.text(), st.sampled_from(["NFC", "NFD"]))
def test_unicode_form_and_layout_do_not_matter(text, form):
    variant = "\n  " + unicodedata.normalize(form, text).replace(" ", " \t\r\n ") + " "
    assert normalise(variant) == normalise(text)


def test_case_punctuation_and_compatibility_characters_matter():
    texts = ["Square it: x²", "square it: x²", "Square it: x2", "Square it x²"]
    assert len({keyer()(normalise(text)) for text in texts}) == 4


@given(st.text(), st.text())
def test_ids_are_equal_exactly_when_descriptions_are(one, other):
    assert (keyer()(one) == keyer()(other)) == (one == other)


def test_id_is_32_hex_characters_and_the_same_in_every_process():
    assert keyer()("Translate to French.") == "e16566d01ebf3f1f3da286fe52c65c7d"


def test_everything_that_decides_the_weights_is_in_the_id():
    bigger = SPEC.model_copy(update={"rank": 3})
    keyers = [
        keyer(),
        keyer(secret="other"),
        keyer(hypernetwork="x"),
        keyer(base_model="x"),
        keyer(encoder="x"),
        keyer(spec=bigger),
        keyer(spec=SPEC.model_copy(update={"use_rslora": True})),
        keyer(hypernetwork="hb", base_model=""),  # the same letters, cut elsewhere
    ]
    assert len({k("text") for k in keyers}) == len(keyers)
    assert len({k.namespace for k in keyers}) == len(keyers)


def test_keys_for_different_purposes_differ():
    assert derive_key("s", "one") != derive_key("s", "two")
