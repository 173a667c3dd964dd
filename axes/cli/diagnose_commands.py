"""`axes diagnose`: why a shared axis ranks a model's prompts as it does."""

from __future__ import annotations

from pathlib import Path

import click

from axes.cli.options import format_option, memory_limit_option, root_option

_DIAGNOSES = """
select model, prompt_set, cosine, auroc, native_auroc, normal_auroc, diagnosis
from v_diagnoses
where study_id = ? and (model = ? or ? is null)
order by model, prompt_set
"""

_CHECKS = """
select model, prompt_set, check_name, is_fault, verdict, figures
from diagnostics
where study_id = ? and (model = ? or ? is null)
order by model, prompt_set, place
"""


@click.command()
@click.argument("study_or_model", metavar="[STUDY|MODEL]", required=False)
@click.option(
    "--checks", is_flag=True, help="Every check with its numbers, not the diagnosis only."
)
@memory_limit_option
@root_option
@format_option
def diagnose(
    study_or_model: str | None,
    checks: bool,
    memory_limit: int | None,
    root: Path,
    output_format: str,
) -> None:
    """Say why the universal axis of a study ranks prompts as it does, model by model.

    STUDY is the start of a study's id, MODEL a model of one; default the last study. Of use above
    all where a cosine is high and the AUROC is not: class means and spreads along the axis, rows
    that carry the means, massive dimensions, the alignment on labelled text, lambda, intercept,
    swapped labels, words. docs/methods.md says which of these can be the cause.

    \b
    axes diagnose
    axes diagnose gemma3-270m --checks
    """
    from axes.analysis.study.diagnose import diagnose_study, find_diagnosed
    from axes.warehouse.connection import connect, query
    from axes.warehouse.render import show

    study_id, model = find_diagnosed(connect(root), study_or_model)
    diagnose_study(root, study_id, memory_limit=memory_limit)
    statement = _CHECKS if checks else _DIAGNOSES
    show(query(connect(root), statement, [study_id, model, model]), output_format)
    click.echo(f"study {study_id}", err=True)
