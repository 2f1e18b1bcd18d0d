"""Forms of prompt that training and evaluation share.

bare         the question alone
description  the task's description and the question, in one turn
examples     solved examples as earlier turns of the chat, then the question
"""

from __future__ import annotations


def with_description(description: str, question: str) -> str:
    """One user turn: the description, an empty line, the question.

    The question alone if there is none.
    """
    return f"{description}\n\n{question}" if description else question
