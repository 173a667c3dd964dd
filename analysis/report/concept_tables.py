"""The tables of a k-way evaluation: of its id, or in the report of a study that is one concept."""

from __future__ import annotations

import pyarrow as pa

from axes.analysis.report.section import Section
from axes.warehouse.handle import Warehouse

_OF = """study_id in (
        select study_id from v_concepts where $study_id in (study_id, concept_study_id)
    )"""
_MISSING = "This study is not one of several concepts: run `axes study --concepts A,B,...`."

ACCURACY = Section(
    name="concept_accuracy",
    title="Which concept differs within a pair",
    explanation="Share of items predicted as their concept, the mean over concepts, out of fold. "
    "`native`: by the model's axes. `leave_one_out`: by axes of the other models, through "
    "alignments. `null_95`: 95th percentile where concepts are dealt again among the items. "
    "`baseline`: the same items in features of the prompts' surface, without a model.",
    sql=f"""
select
    model, scorer, accuracy,
    format('{{:.3f}} to {{:.3f}}', accuracy_lower, accuracy_upper) as accuracy_95,
    chance, null_95, p_value, best_baseline_accuracy as baseline, best_baseline
from v_concept_accuracy
where model is not null and {_OF}
order by study_id, scorer desc, model
""",
    missing=_MISSING,
)

CONCEPTS = Section(
    name="concepts",
    title="Concepts and models",
    explanation="`recall`: share of the concept's items predicted right by the model's axes; "
    "`recall_leave_one_out` by those of the other models, and `transfers` where the lower end of "
    "its interval is above chance. `native` and `leave_one_out` are AUROCs of the concept's study.",
    sql=f"""
select
    concept, model, recall, recall_leave_one_out,
    format('{{:.3f}} to {{:.3f}}', recall_leave_one_out_lower, recall_leave_one_out_upper)
        as leave_one_out_95,
    transfers, recall_baseline, native, leave_one_out, best_baseline_auroc as baseline_auroc
from v_concepts
where {_OF}
order by study_id, concept, model
""",
    missing=_MISSING,
)

CONFUSION = Section(
    name="confusion",
    title="Confusions of concepts",
    explanation="Mean over models of the share of a concept's items predicted right, and as the "
    "other concept that they are most often taken for. `v_confusion` has every cell.",
    sql=f"""
with cells as (
    select study_id, scorer, concept, predicted, is_right, avg(share) as share
    from v_confusion
    where model is not null and {_OF}
    group by all
)

select
    concept, scorer,
    max(share) filter (where is_right) as recall,
    arg_max(predicted, share order by predicted) filter (where not is_right) as taken_for,
    max(share) filter (where not is_right) as taken_for_share
from cells
group by study_id, concept, scorer
order by study_id, scorer desc, concept
""",
    missing=_MISSING,
)

OVERLAP = Section(
    name="concept_overlap",
    title="Angles between the shared axes of concepts",
    explanation="90 degrees is no overlap. `null_90`: 5th to 95th percentile of the cosine of two "
    "axes of nothing, drawn from how pairs differ anyway. `holm_p` is corrected for all pairs of "
    "concepts. `v_concept_overlap` has each model's own axes too.",
    sql=f"""
select
    concept, other_concept, angle, cosine,
    format('{{:.3f}} to {{:.3f}}', null_lower, null_upper) as null_90, p_value_adjusted as holm_p
from v_concept_overlap
where scorer = 'universal' and {_OF}
order by study_id, concept, other_concept
""",
    missing=_MISSING,
)

K_WAY = (ACCURACY, CONCEPTS, CONFUSION, OVERLAP)


def concept_tables(warehouse: Warehouse, study_id: str) -> dict[Section, pa.Table]:
    """The tables of a k-way evaluation."""
    return {each: warehouse.query(each.sql, {"study_id": study_id}) for each in K_WAY}
