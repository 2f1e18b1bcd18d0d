"""Descriptions have the format of the published reference."""

from __future__ import annotations

import pytest

from hypernet.description_format import DescriptionFormat, last_token_format, sentence_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("all-MiniLM-L6-v2", DescriptionFormat.UNCHANGED),
        ("Alibaba-NLP/gte-large-en-v1.5", DescriptionFormat.FULL_STOP),
        ("/models/gte-large-en-v1.5", DescriptionFormat.FULL_STOP),
        ("Salesforce/SFR-Embedding-Mistral", DescriptionFormat.SFR_QUERY),
    ],
)
def test_description_format_follows_the_name_of_a_sentence_encoder(
    name: str, expected: DescriptionFormat
) -> None:
    assert sentence_format(name) is expected


def test_last_token_encoders_except_sfr_append_full_stops() -> None:
    assert last_token_format("base-model") is DescriptionFormat.FULL_STOP
    assert last_token_format("last-token:mistralai/Mistral-7B-Instruct-v0.2") is DescriptionFormat.FULL_STOP
    assert last_token_format("last-token:Salesforce/SFR-Embedding-2_R") is DescriptionFormat.SFR_QUERY


@pytest.mark.parametrize(
    ("description", "expected"),
    [
        ("Name the opposite", "Name the opposite."),
        ("  Name the opposite\n", "Name the opposite."),
        ("Name the opposite.", "Name the opposite."),
        ("Назови столицу", "Назови столицу."),
        ("Count to 3", "Count to 3"),
        ("Why?", "Why?"),
        ("", ""),
        ("   ", ""),
    ],
)
def test_only_a_final_letter_gets_a_full_stop(description: str, expected: str) -> None:
    assert DescriptionFormat.FULL_STOP.apply(description) == expected


def test_the_sfr_query_holds_the_description_as_it_is() -> None:
    text = DescriptionFormat.SFR_QUERY.apply("Name it")
    assert text.startswith("Instruct: ") and text.endswith("\nQuery: Name it")
