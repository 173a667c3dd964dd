"""The claims of the source study, one by one, as the rows at hand decide them.

The rules are in SQL (`sql/marts/v_claims.sql` and a view for each claim) and in words in
docs/methods.md; here they are printed.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

from axes.warehouse.connection import Connection, query, rows

_VERDICTS = """
select
    claim, prompt_set, verdict, model, estimate, lower, upper, null_value, to_decide
from v_claims
where study_id = '{study_id}'
order by position, prompt_set
"""

_MODELS = """
select prompt_set, model, estimate, lower, upper, null_value, is_met, is_refuted
from v_claim_{claim}
where study_id = '{study_id}'
order by prompt_set, model
"""


@dataclass(frozen=True)
class ClaimTable:
    """A claim in words, the SQL behind it, and the rows that it brings."""

    title: str
    statement: str
    table: pa.Table


def verdicts(connection: Connection, study_id: str) -> ClaimTable:
    """Every claim with its verdict, estimate, interval and null."""
    return _asked(connection, "The claims of the source study", _VERDICTS, study_id)


def claim_tables(connection: Connection, study_id: str) -> list[ClaimTable]:
    """Every claim model by model."""
    claims = rows(
        connection,
        "select distinct position, claim, text from v_claims where study_id = ? order by position",
        [study_id],
    )
    return [
        _asked(connection, row["text"], _MODELS.replace("{claim}", row["claim"]), study_id)
        for row in claims
    ]


def _asked(connection: Connection, title: str, template: str, study_id: str) -> ClaimTable:
    statement = template.replace("{study_id}", study_id).strip()
    return ClaimTable(title, statement, query(connection, statement))
