"""What is fitted from activations, and what was found of it."""

from __future__ import annotations

import pyarrow as pa

from axes.warehouse.tables.columns import (
    LAYER,
    MODEL,
    MODEL_ID,
    POOLING,
    PROMPT_ID,
    RUN,
    SITE,
    STRINGS,
    TEMPLATE,
    TEXT,
    VECTOR,
    Table,
    column,
    optional,
)

_ALIGNMENTS = Table(
    name="alignments",
    grain="fitted map from one model's space to the reference's",
    key=("alignment_id",),
    schema=pa.schema(
        [
            column("alignment_id", TEXT, "hash of models, layers, rows and method"),
            MODEL,
            MODEL_ID,
            LAYER,
            column("reference_model", TEXT, "the model whose space is mapped into"),
            column("reference_model_id", TEXT, "its models.model_id"),
            column("reference_layer", pa.int16(), "its layer"),
            SITE,
            POOLING,
            TEMPLATE,
            column(
                "method",
                TEXT,
                "ridge, procrustes, reduced_rank, cca, gradient; identity for the reference",
            ),
            optional("ridge_lambda", pa.float64(), "penalty on the squared norm of the weights"),
            column(
                "lambda_policy",
                TEXT,
                "given; chosen on alignment rows by held_out ones or gcv; none without a lambda",
            ),
            optional("rank", pa.int32(), "rank the map was fitted with, where it has one"),
            optional(
                "effective_rank", pa.float64(), "(sum s^2)^2 / sum s^4 of its singular values s"
            ),
            column("weights", VECTOR, "row-major [d_model, d_reference]: aligned = x W + b"),
            column("intercept", VECTOR, "b, d_reference long"),
            optional(
                "hidden_weights",
                VECTOR,
                "row-major [d_model, hidden] A of a map that adds relu(x A + a) B",
            ),
            optional("hidden_intercept", VECTOR, "a, hidden long"),
            optional("hidden_output", VECTOR, "row-major [hidden, d_reference] B"),
            optional("hidden_rates", VECTOR, "share of fitted rows on which each unit is on"),
            column("r2_held_out", pa.float64(), "1 - SSE/SST over all dimensions, held-out rows"),
            column("r2_uniform", pa.float64(), "mean over dimensions of the held-out R2"),
            optional(
                "r2_dimensions", VECTOR, "held-out R2 of each dimension, 0 where one is constant"
            ),
            optional("r2_shuffled", pa.float64(), "mean of r2_held_out with the pairs shuffled"),
            optional("r2_shuffled_lower", pa.float64(), "its 5th percentile"),
            optional("r2_shuffled_upper", pa.float64(), "its 95th percentile"),
            optional("shuffle_count", pa.int32(), "how many shufflings"),
            column("prompt_set", TEXT, "the alignment prompts"),
            column("row_count", pa.int32(), "rows the final map was fitted on"),
            column("row_set_hash", TEXT, "hash of their prompt ids in order"),
            column("seed", pa.int64(), "seed of the held-out split"),
            RUN,
        ]
    ),
)

_AXES = Table(
    name="axes",
    grain="named direction in a stated space",
    key=("axis_id",),
    schema=pa.schema(
        [
            column("axis_id", TEXT, "hash of what it was fitted from, and how"),
            column("name", TEXT, "kind/model or group/layer/prompt set; may repeat"),
            column("kind", TEXT, "native, aligned, universal, leave_one_out, random, imported"),
            column("method", TEXT, "mean_diff, svd, ..."),
            column("space_model", TEXT, "the model in whose space the vector lies"),
            column("space_model_id", TEXT, "its models.model_id"),
            LAYER,
            SITE,
            POOLING,
            TEMPLATE,
            column("vector", VECTOR, "the unit vector; the positive class projects higher"),
            column("raw_norm", pa.float64(), "norm before scaling to unit length"),
            optional("fitted_model", TEXT, "the model whose rows it was fitted on, if one"),
            optional("held_out_model", TEXT, "the model left out of a leave_one_out axis"),
            optional(
                "alignment_id", TEXT, "the map that brought it here (alignments.alignment_id)"
            ),
            column("source_axis_ids", STRINGS, "the axes it was made from"),
            column("prompt_set", TEXT, "the labelled prompts it was fitted on"),
            column("positive_count", pa.int32(), "rows of the positive class"),
            column("negative_count", pa.int32(), "rows of the negative class"),
            column("row_set_hash", TEXT, "hash of their prompt ids and labels in order"),
            column("query", TEXT, "the SQL that brings those rows"),
            column("parameters", TEXT, "hyper-parameters, as JSON"),
            RUN,
        ]
    ),
)

_PROJECTIONS = Table(
    name="projections",
    grain="axis, model and prompt",
    key=("axis_id", "model_id", "prompt_id"),
    partition="model",
    schema=pa.schema(
        [
            MODEL,
            column("axis_id", TEXT, "the axis (axes.axis_id)"),
            MODEL_ID,
            PROMPT_ID,
            LAYER,
            optional("alignment_id", TEXT, "the map applied first; null for a native axis"),
            column("projection", pa.float64(), "activation . axis, after the alignment if any"),
            RUN,
        ]
    ),
)

_TOKEN_PROJECTIONS = Table(
    name="token_projections",
    grain="axis, completion, step and layer",
    key=("axis_id", "generation_id", "step", "layer"),
    partition="model",
    schema=pa.schema(
        [
            MODEL,
            column("axis_id", TEXT, "the axis (axes.axis_id)"),
            column("generation_id", TEXT, "the completion (generations.generation_id)"),
            column(
                "step", pa.int32(), "0 is the first completion token, -1 the last of the prompt"
            ),
            LAYER,
            optional("alignment_id", TEXT, "the map applied first; null for a native axis"),
            column("projection", pa.float64(), "token vector . axis, after the alignment if any"),
            RUN,
        ]
    ),
)

_EVALUATIONS = Table(
    name="evaluations",
    grain="study, model, layer, prompt set, scorer, what it was fitted and judged on, and metric",
    key=(
        "study_id",
        "model",
        "layer",
        "prompt_set",
        "scorer",
        "fitted_on",
        "judged_on",
        "metric",
        "component",
    ),
    schema=pa.schema(
        [
            column("study_id", TEXT, "hash of the study's definition and of every row behind it"),
            optional("model", TEXT, "the model judged; null for a figure of the whole group"),
            optional("model_id", TEXT, "its models.model_id"),
            optional("prompt_set", TEXT, "the prompts judged on"),
            column("scorer", TEXT, "what gives the score: native, universal, leave_one_out, ..."),
            optional(
                "fitted_on",
                TEXT,
                "what scorer or threshold was fitted on, where that is not the study's prompts: "
                "sources of prompts, another model",
            ),
            optional("judged_on", TEXT, "the sources judged on; null: all of the prompt set"),
            column("metric", TEXT, "auroc, cosine, r2_held_out, singular_value, ..."),
            optional(
                "component", pa.int32(), "index of a singular value, or count of labelled prompts"
            ),
            optional("axis_id", TEXT, "the axis judged (axes.axis_id)"),
            optional("layer", pa.int16(), "zero-based block index"),
            column("estimate", pa.float64(), "the figure"),
            optional("lower", pa.float64(), "lower end of the 95 % interval"),
            optional("upper", pa.float64(), "upper end of the 95 % interval"),
            optional("p_value", pa.float64(), "two-sided p-value of the test, where there is one"),
            optional(
                "p_value_adjusted", pa.float64(), "the same, corrected for the tests beside it"
            ),
            optional("positive_count", pa.int32(), "rows of the positive class"),
            optional("negative_count", pa.int32(), "rows of the negative class"),
            optional(
                "is_in_sample", pa.bool_(), "true where the scorer was fitted on these prompts"
            ),
            column("parameters", TEXT, "the study's definition, as JSON"),
            RUN,
        ]
    ),
)

_STEPS = Table(
    name="steps",
    grain="step of a study that ended in figures",
    key=("step_id",),
    schema=pa.schema(
        [
            column("step_id", TEXT, "hash of the step's kind and inputs"),
            column("step", TEXT, "what was computed: auroc, null, baselines, ..."),
            optional("model", TEXT, "the model it is of; null for the group or the prompts"),
            optional("model_id", TEXT, "its models.model_id"),
            optional("prompt_set", TEXT, "the prompts it is of, if of one set"),
            column("inputs", TEXT, "everything that the figures depend on, as JSON"),
            column("figures", TEXT, "what came out, as JSON: rows of evaluations"),
            RUN,
        ]
    ),
)

_CALIBRATIONS = Table(
    name="calibrations",
    grain="model, axis, calibration rows, method and target",
    key=("calibration_id",),
    schema=pa.schema(
        [
            column("calibration_id", TEXT, "hash of what it was fitted from, and how"),
            MODEL,
            MODEL_ID,
            column("axis_id", TEXT, "the axis whose projections it takes (axes.axis_id)"),
            column("method", TEXT, "platt, isotonic, quantile or z_score"),
            column(
                "parameters",
                TEXT,
                "JSON: slope and intercept (platt, z_score) or knots x, y (isotonic, quantile)",
            ),
            column("target", TEXT, "what the threshold meets: balanced_accuracy or fpr=RATE"),
            column("threshold", pa.float64(), "projections at or above it count as positive"),
            column("prompt_set", TEXT, "the calibration prompts"),
            column("prompt_ids", STRINGS, "those it was fitted on: nothing is judged on them"),
            column("row_set_hash", TEXT, "hash of these ids and their labels in order"),
            column("positive_count", pa.int32(), "calibration rows of the positive class"),
            column("negative_count", pa.int32(), "calibration rows of the negative class"),
            RUN,
        ]
    ),
)

_VARIATIONS = Table(
    name="variations",
    grain="study, choice varied, its value, model, prompt set and figure",
    key=("study_id", "setting", "value", "model", "prompt_set", "figure"),
    schema=pa.schema(
        [
            column("study_id", TEXT, "the study whose choice is varied (evaluations.study_id)"),
            column(
                "setting",
                TEXT,
                "the choice: reference, ridge_lambda, layer_fraction, align_rows or prompts",
            ),
            column("value", TEXT, "what was chosen: a model, a factor on each model's lambda, ..."),
            optional("number", pa.float64(), "the same as a number, where it is one"),
            column("is_own", pa.bool_(), "true where it is what the study chose"),
            MODEL,
            MODEL_ID,
            LAYER,
            optional("ridge_lambda", pa.float64(), "its alignment's lambda; null: the reference"),
            optional("prompt_set", TEXT, "the prompts judged on; null for a cosine"),
            column("figure", TEXT, "native, universal, leave_one_out (AUROC) or cosine_universal"),
            column("estimate", pa.float64(), "the figure"),
            optional(
                "is_in_sample", pa.bool_(), "true where directions were fitted on these prompts"
            ),
            RUN,
        ]
    ),
)

_DIAGNOSTICS = Table(
    name="diagnostics",
    grain="study, model, prompt set and check",
    key=("study_id", "model", "prompt_set", "check_name"),
    schema=pa.schema(
        [
            column("study_id", TEXT, "the study diagnosed (evaluations.study_id)"),
            MODEL,
            MODEL_ID,
            column("prompt_set", TEXT, "the prompts judged on"),
            column("axis_id", TEXT, "the shared axis judged (axes.axis_id)"),
            column(
                "check_name", TEXT, "what was looked for; diagnosis: the first fault of all checks"
            ),
            column("place", pa.int16(), "order of the checks: one explains those after it"),
            column("is_fault", pa.bool_(), "true where the check found it"),
            column("verdict", TEXT, "what was found, in plain words"),
            column("figures", TEXT, "the numbers behind the verdict, as JSON"),
            RUN,
        ]
    ),
)

FITTED_TABLES = (
    _ALIGNMENTS,
    _AXES,
    _PROJECTIONS,
    _TOKEN_PROJECTIONS,
    _EVALUATIONS,
    _STEPS,
    _VARIATIONS,
    _CALIBRATIONS,
    _DIAGNOSTICS,
)
