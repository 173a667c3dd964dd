"""Which tokens several prompts begin with, planned without a model.

The prefixes that prompts share (a system prompt, examples before a question, turns of a chat) form
a tree. Each is run once, from the end of the one that it lies in. Every process that runs some of
the prompts follows the same plan, so that rows have the same bits wherever they are run.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter

Tokens = list[int]

# Below this the second pass over the cache costs more than the tokens saved.
SHORTEST_PREFIX = 8


@dataclass(frozen=True)
class Family:
    """Prompts run after the same `tokens`, which may be none.

    `ends` are those of the prefixes to run one after the other; the last is the number of tokens.
    """

    tokens: Tokens
    ends: tuple[int, ...]
    names: list[str]

    def prefixes(self) -> list[Tokens]:
        """What is run before the prompts, each within the next."""
        return [self.tokens[:end] for end in self.ends]


def prefix_families(token_ids: Mapping[str, Tokens], min_saved: int) -> list[Family]:
    """The prompts by the prefix they are run after, each family behind those that it lies in.

    What all have in common is a prefix whatever that saves. A part of the prompts has one of its
    own where it saves `min_saved` tokens, since these are then batches of their own. A prompt keeps
    a token after its prefix. Those without one are the last, so that the first is the trial's.

    >>> rows = {"a": [1, *range(9), 40], "b": [1, *range(9), 41, 42], "c": [1, 70]}
    >>> [(each.ends, each.names) for each in prefix_families(rows, 8)]
    [((10,), ['a', 'b']), ((), ['c'])]
    """
    families = [Family([], (), [])]
    # Prompts in lexical order that begin with the same `known` tokens, and what they lie in.
    order = sorted(token_ids, key=token_ids.__getitem__)
    waiting = [(order, 0, families[0])] if order else []
    while waiting:
        names, known, family = waiting.pop()
        first = token_ids[names[0]]
        common = known + _common(first[known:], token_ids[names[-1]][known:])
        length = min(common, min(len(token_ids[name]) for name in names) - 1)
        added = length - len(family.tokens)
        worth = min_saved if len(names) < len(token_ids) else 1
        if added >= SHORTEST_PREFIX and (len(names) - 1) * added >= worth:
            family = Family(first[:length], (*family.ends, length), [])
            families.append(family)
        for token, same in itertools.groupby(
            ((token_ids[name][common : common + 1], name) for name in names), itemgetter(0)
        ):
            if len(part := [name for _, name in same]) > 1 and token:
                waiting.append((part, common, family))
            else:
                family.names.extend(part)
    found = [family for family in families if family.names]
    return sorted(found, key=lambda family: not family.ends)


def prefix_length(token_ids: Sequence[Tokens]) -> int:
    """How many tokens all rows begin with; 0 where that is too few to run them once.

    >>> prefix_length([[1] * 9 + [2], [1] * 10]), prefix_length([[1, 2], [1, 3]])
    (9, 0)
    """
    # What the first and the last in lexical order begin with, all others do; each keeps a token.
    length = min(_common(min(token_ids), max(token_ids)), min(map(len, token_ids)) - 1)
    return 0 if length < SHORTEST_PREFIX or len(token_ids) < 2 else length


def trial_rows(families: Iterable[Family], token_ids: Mapping[str, Tokens]) -> list[Tokens]:
    """Some of the prompts that lie in the first prefix, which is all that these have in common.

    On the longest a model shows whether it gives the same after a prefix; none, where none is
    shared.
    """
    first = next((family.prefixes()[0] for family in families if family.ends), None)
    if first is None:
        return []
    alike = (family for family in families if first in family.prefixes()[:1])
    rows = [token_ids[name] for family in alike for name in family.names]
    return [max(rows, key=len), min(rows), max(rows), min(rows, key=len)]


def count_tokens(families: Iterable[Family], token_ids: Mapping[str, Tokens]) -> int:
    """The tokens that are run: those of each prefix once, and what is left of each prompt.

    >>> rows = {"a": [1, *range(9), 40], "b": [1, *range(9), 41, 42], "c": [1, 70]}
    >>> count_tokens(prefix_families(rows, 8), rows)
    15
    """
    of_prefixes: dict[tuple[int, ...], int] = {}
    left = 0
    for family in families:
        left += sum(len(token_ids[name]) - len(family.tokens) for name in family.names)
        for start, end in itertools.pairwise((0, *family.ends)):
            of_prefixes[tuple(family.tokens[:end])] = end - start
    return left + sum(of_prefixes.values())


def _common(first: Tokens, last: Tokens) -> int:
    pairs = zip(first, last, strict=False)
    return sum(1 for _ in itertools.takewhile(lambda pair: pair[0] == pair[1], pairs))
