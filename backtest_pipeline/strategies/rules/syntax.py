"""A rule's text as a syntax tree that is neither too long, too large nor too deep.

Python's own parser reads the text, and nothing is run. The bounds hold before anything else looks
at the tree, so what does may recurse.
"""

from __future__ import annotations

import ast
import re

from backtest_pipeline.market.errors import RuleError

LONGEST_TEXT = 2_000
MOST_NODES = 200
DEEPEST = 24

_NOT_IN_THE_LANGUAGE = re.compile(r"[\\#\x00-\x08\x0e-\x1f\x7f]")
_NUMBER = re.compile(r"(?<![\w.'\"])\d[\w.]*")
_PLAIN_NUMBER = re.compile(r"\d+(\.\d*)?([eE]\d*)?")


def tree_of(text: str, where: str) -> ast.expr:
    """The text as a tree that is neither too large nor too deep."""
    if len(text) > LONGEST_TEXT:
        raise RuleError(
            where,
            f"{len(text):,} characters are more than {LONGEST_TEXT:,}; name parts of the rule in "
            "[define]",
            text,
            LONGEST_TEXT,
        )
    _require_plain(text, where)
    start = len(text) - len(text.lstrip())
    # One line of the same length, so that places stay.
    line = re.sub(r"\s", " ", text.strip())
    if not line:
        raise RuleError(where, "the rule is empty; leave its key out instead", text, 0)
    try:
        tree = ast.parse(line, mode="eval").body
    except SyntaxError as error:
        at = start + min((error.offset or len(line) + 1) - 1, len(line))  # none at the end
        raise RuleError(where, f"this cannot be read: {error.msg}", text, at) from None
    except (ValueError, MemoryError, RecursionError) as error:
        reason = f"this cannot be read: {error or 'it is nested too deeply'}"
        raise RuleError(where, reason, text, start) from None
    waiting, n_nodes = [(tree, 1)], 0
    while waiting:
        node, depth = waiting.pop()
        at = start
        if isinstance(node, ast.expr | ast.keyword):
            node.col_offset += start
            at = node.col_offset
            n_nodes += 1
            depth += 1
        if n_nodes > MOST_NODES:
            reason = f"the rule has more than {MOST_NODES} parts; name some of them in [define]"
            raise RuleError(where, reason, text, at)
        if depth > DEEPEST + 1:
            reason = f"this is nested more than {DEEPEST} deep; name a part of it in [define]"
            raise RuleError(where, reason, text, at)
        waiting += [(child, depth) for child in ast.iter_child_nodes(node)]
    return tree


def _require_plain(text: str, where: str) -> None:
    """Raises RuleError for characters and numbers that the language does not have."""
    for at, character in enumerate(text):
        if not character.isascii():
            reason = f"{character!a} is not ASCII; names and operators are plain letters and signs"
            raise RuleError(where, reason, text, at)
    found = _NOT_IN_THE_LANGUAGE.search(text)
    if found:
        reason = f"{found[0]!r} has no meaning in a rule"
        if found[0] == "#":
            reason += "; comments stand outside its quotes"
        raise RuleError(where, reason, text, found.start())
    for number in _NUMBER.finditer(text):
        if not _PLAIN_NUMBER.fullmatch(number[0]):
            reason = f"{number[0]!r:.60} is no number; write numbers like 14, 0.5 or 1e-3"
            raise RuleError(where, reason, text, number.start())
