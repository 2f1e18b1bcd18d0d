"""The text that an encoder reads for a description, as the published reference prepares it.

The reference ends a description that ends in a letter with a full stop, for every encoder but SFR.
SFR was trained on instructions and reads the description as a retrieval query. Encoders that the
reference never used, such as all-MiniLM-L6-v2, read descriptions unchanged.

Source: Charakorn et al. 2025 (arXiv 2506.06105) and its published code.
"""

from __future__ import annotations

from enum import StrEnum


class DescriptionFormat(StrEnum):
    """How a description is prepared. The value is part of the encoder's fingerprint."""

    UNCHANGED = ""
    FULL_STOP = "full stops"
    SFR_QUERY = "SFR query"

    def apply(self, description: str) -> str:
        """The text that the encoder reads."""
        match self:
            case DescriptionFormat.UNCHANGED:
                return description
            case DescriptionFormat.FULL_STOP:
                text = description.strip()
                return f"{text}." if text[-1:].isalpha() else text
            case DescriptionFormat.SFR_QUERY:
                return f"Instruct: Retrieve semantically similar text.\nQuery: {description}"


def sentence_format(name: str) -> DescriptionFormat:
    """Format for a sentence encoder, by its name or folder."""
    if "SFR" in name:
        return DescriptionFormat.SFR_QUERY
    return DescriptionFormat.FULL_STOP if "gte-" in name else DescriptionFormat.UNCHANGED


def last_token_format(name: str) -> DescriptionFormat:
    """Format for the last-token state of a causal language model, by its name or folder."""
    return DescriptionFormat.SFR_QUERY if "SFR" in name else DescriptionFormat.FULL_STOP
