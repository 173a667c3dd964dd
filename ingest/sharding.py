"""A part of the prompts, so that a job can be spread by hand over processes or machines.

Which part a prompt falls into follows from its id alone: the parts are disjoint and together
complete whatever else is in the warehouse, and the files they write can be put into one root.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from axes.warehouse.errors import PromptError


@dataclass(frozen=True)
class Shard:
    """Part `number`, from 1, of `count`."""

    number: int
    count: int

    @classmethod
    def parse(cls, text: str) -> Shard:
        """`3/8` is the third of eight parts; raises `PromptError` for anything else.

        >>> Shard.parse("3/8")
        Shard(number=3, count=8)
        """
        match = re.fullmatch(r"(\d+)/(\d+)", text)
        if match is None or not 1 <= int(match[1]) <= int(match[2]):
            raise PromptError(f"shard {text}: 1/8, 2/8, ... 8/8 is expected")
        return cls(int(match[1]), int(match[2]))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def takes(self, prompt_id: str) -> bool:
        """Whether the prompt falls into this part.

        >>> [Shard(number, 3).takes("ff01") for number in (1, 2, 3)]
        [False, True, False]
        """
        return int(prompt_id, 16) % self.count == self.number - 1
