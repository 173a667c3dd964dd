"""What is found where models speak: steering, drift, routing and comparison."""

from __future__ import annotations

import pyarrow as pa

from axes.warehouse.tables.columns import (
    LAYER,
    MODEL,
    MODEL_ID,
    PROMPT_ID,
    RUN,
    STRINGS,
    TEMPLATE,
    TEXT,
    Table,
    column,
    optional,
)

_LAYERS = column("layers", TEXT, "comma list of the blocks changed; empty: none")
_MODE = column("mode", TEXT, "add, ablate or clamp; none: the model as it is")

_INTERVENTION_OUTCOMES = Table(
    name="intervention_outcomes",
    grain="intervention, prompt, metric and limit of the completion",
    key=("intervention_id", "prompt_id", "metric", "new_tokens"),
    partition="model",
    schema=pa.schema(
        [
            MODEL,
            column("intervention_id", TEXT, "hash of model, template and all that was changed"),
            MODEL_ID,
            optional("axis_id", TEXT, "the axis steered along (axes.axis_id); null: unsteered"),
            _LAYERS,
            _MODE,
            column("strength", pa.float64(), "in units for add and clamp; for ablate the share"),
            optional("unit", pa.float64(), "what a strength of 1 is: typical norm at the layer"),
            column("positions", TEXT, "which positions were changed: all, prompt, generated"),
            optional("above", pa.float64(), "only where the projection passes this, in units"),
            optional("condition", TEXT, "whether each position decides, or the row; null: all"),
            TEMPLATE,
            PROMPT_ID,
            column("metric", TEXT, "refusal_openers, kl, log_perplexity, repetition, ..."),
            column("new_tokens", pa.int32(), "limit of the greedy completion; 0: the prompt alone"),
            optional("generation_id", TEXT, "the completion measured; null: the prompt alone"),
            column("value", pa.float64(), "the measurement"),
            RUN,
        ]
    ),
)

_INTERVENTIONS = Table(
    name="interventions",
    grain="experiment, axis, layers, strength, metric and class of prompts",
    key=("experiment_id", "axis_id", "layers", "strength", "metric", "prompt_set", "is_positive"),
    schema=pa.schema(
        [
            column("experiment_id", TEXT, "hash of the experiment and of every outcome behind it"),
            MODEL,
            MODEL_ID,
            column("axis_id", TEXT, "the axis steered along (axes.axis_id)"),
            column("role", TEXT, "axis, or which control: random, shuffled_labels, orthogonal"),
            _LAYERS,
            _MODE,
            optional("strength", pa.float64(), "null: the slope over all strengths"),
            column("metric", TEXT, "what was measured, as a difference from the unsteered model"),
            column("prompt_set", TEXT, "the prompts it was measured on"),
            optional("is_positive", pa.bool_(), "their class; null: benign prompts"),
            column("estimate", pa.float64(), "mean difference over prompts, or its slope"),
            column("lower", pa.float64(), "lower end of the 95 % interval"),
            column("upper", pa.float64(), "upper end of the 95 % interval"),
            column("unsteered", pa.float64(), "mean of the model as it is"),
            column("prompt_count", pa.int32(), "prompts it rests on"),
            column("random_count", pa.int32(), "random directions it is held against"),
            optional("random_lower", pa.float64(), "lowest estimate of a random direction"),
            optional("random_upper", pa.float64(), "highest estimate of a random direction"),
            optional("p_value", pa.float64(), "rank of its size among the random directions'"),
            optional("verdict", TEXT, "in words, by the rules of docs/methods.md; null: control"),
            column("parameters", TEXT, "the experiment's definition, as JSON"),
            RUN,
        ]
    ),
)

_DRIFT_ID = column(
    "drift_id", TEXT, "hash of the model, the axis, every completion behind it, and how"
)

_TRAJECTORIES = Table(
    name="trajectories",
    grain="drift analysis and completion",
    key=("drift_id", "generation_id"),
    partition="model",
    schema=pa.schema(
        [
            MODEL,
            _DRIFT_ID,
            MODEL_ID,
            column("axis_id", TEXT, "the axis (axes.axis_id)"),
            LAYER,
            column("generation_id", TEXT, "the completion (generations.generation_id)"),
            PROMPT_ID,
            column("is_positive", pa.bool_(), "its class, by the analysis's labeler"),
            column("step_count", pa.int32(), "tokens with a projection"),
            optional("prompt_projection", pa.float64(), "projection of the prompt, where stored"),
            column("mean_projection", pa.float64(), "mean over its tokens"),
            optional("slope", pa.float64(), "least-squares slope per token; null: one token"),
            optional("change_step", pa.int32(), "first step after the best single change of mean"),
            optional("change_size", pa.float64(), "mean from there on less the mean before"),
            optional("change_p_value", pa.float64(), "of the change, by random orders of steps"),
            optional("area_above", pa.float64(), "sum over tokens of what is above the threshold"),
            optional("first_crossing", pa.int32(), "first step at or above the threshold"),
            optional(
                "decided_step",
                pa.int32(),
                "first step from which the running mean stays on its side of the threshold",
            ),
            optional("event_step", pa.int32(), "the event's step: its pattern, or the last token"),
            RUN,
        ]
    ),
)

_DRIFT_FIGURES = Table(
    name="drift_figures",
    grain="drift analysis, metric, control and step",
    key=("drift_id", "metric", "control", "step"),
    schema=pa.schema(
        [
            _DRIFT_ID,
            MODEL,
            MODEL_ID,
            column("axis_id", TEXT, "the axis (axes.axis_id)"),
            LAYER,
            column("prompt_set", TEXT, "the set of the prompts"),
            optional("labeler", TEXT, "who says the class; null: the labels of the prompts"),
            column(
                "metric",
                TEXT,
                "slope_difference, positive_slope, negative_slope, imbalance_before, "
                "imbalance_after, drift_cosine, mean_difference, running_auroc, decided_step, lead",
            ),
            column(
                "control",
                TEXT,
                "none: all completions as they are; matched_prompt, matched_length, lasting, "
                "random_axes, shuffled_tokens, other_text",
            ),
            optional("step", pa.int32(), "of a curve; null for a figure of whole completions"),
            column("estimate", pa.float64(), "the figure; the mean of a null"),
            optional("lower", pa.float64(), "lower end of its 95 % interval, or of a null"),
            optional("upper", pa.float64(), "upper end of its 95 % interval, or of a null"),
            optional("band_lower", pa.float64(), "lower end of the band for the whole curve"),
            optional("band_upper", pa.float64(), "upper end of the band for the whole curve"),
            optional("p_value", pa.float64(), "two-sided, against 0 or against the null"),
            column("positive_count", pa.int32(), "completions of the positive class"),
            column("negative_count", pa.int32(), "completions of the negative class"),
            column("parameters", TEXT, "how the analysis was asked for, as JSON"),
            RUN,
        ]
    ),
)

_SCORING_ID = column(
    "scoring_id", TEXT, "hash of axis, answers, outcomes, split and calibration method"
)
_PROMPT_SET = column("prompt_set", TEXT, "the set of the prompt")
_AXIS_ID = column("axis_id", TEXT, "the shared axis (axes.axis_id)")

_SCORED_ANSWERS = Table(
    name="scored_answers",
    grain="scoring, model and prompt",
    key=("scoring_id", "model_id", "prompt_id"),
    schema=pa.schema(
        [
            _SCORING_ID,
            MODEL,
            MODEL_ID,
            _PROMPT_SET,
            PROMPT_ID,
            _AXIS_ID,
            column("generation_ids", STRINGS, "the answers (generations.generation_id)"),
            column("prompt_projection", pa.float64(), "of the prompt, on the axis"),
            column("answer_projection", pa.float64(), "of the answer's tokens, as one number"),
            optional(
                "prompt_probability",
                pa.float64(),
                "chance of the outcome by prompt_projection; null for a calibration row",
            ),
            optional(
                "answer_probability",
                pa.float64(),
                "chance of the outcome by answer_projection; null for a calibration row",
            ),
            column("outcome", pa.float64(), "share of the answers that the labeler marks"),
            optional("refusal", pa.float64(), "share of refusals; null where not all are labelled"),
            column("token_count", pa.float64(), "generated tokens, the end token included"),
            column(
                "is_calibration", pa.bool_(), "the calibration was fitted on it; nothing is judged"
            ),
            column("is_in_sample", pa.bool_(), "the axis was fitted on the prompt"),
            RUN,
        ]
    ),
)

_ANSWER_CALIBRATIONS = Table(
    name="answer_calibrations",
    grain="scoring, model and what is calibrated",
    key=("scoring_id", "model_id", "source"),
    schema=pa.schema(
        [
            _SCORING_ID,
            MODEL,
            MODEL_ID,
            _AXIS_ID,
            column("source", TEXT, "whose projection it takes: prompt or answer"),
            column("method", TEXT, "platt or isotonic"),
            column(
                "parameters",
                TEXT,
                "JSON: slope and intercept (platt) or knots x, y (isotonic); see calibrated()",
            ),
            column("threshold", pa.float64(), "best balanced accuracy on the calibration rows"),
            column("labeler", TEXT, "who says what the outcome is (labels.labeler)"),
            column("is_negated", pa.bool_(), "the outcome is the labeler's negative class"),
            column("statistic", TEXT, "how an answer's tokens became one number: mean, last, max"),
            column("positive_count", pa.int32(), "calibration rows with the outcome"),
            column("negative_count", pa.int32(), "calibration rows without it"),
            RUN,
        ]
    ),
)

_ROUTINGS = Table(
    name="routings",
    grain="routing, policy, prompt and model that it goes to",
    key=("routing_id", "policy", "prompt_id", "model_id"),
    schema=pa.schema(
        [
            column("routing_id", TEXT, "hash of the scoring and of what a choice is subject to"),
            _SCORING_ID,
            column("policy", TEXT, "best_single, random, answer_projection, oracle, ..."),
            MODEL,
            MODEL_ID,
            _PROMPT_SET,
            PROMPT_ID,
            _AXIS_ID,
            column("share", pa.float64(), "part of the prompt that goes to the model; 1: all"),
            column("cost", pa.float64(), "of this model's answer, in the cost column's unit"),
            optional("why", TEXT, "reason of a choice by projection, else null"),
            RUN,
        ]
    ),
)

_ROUTING_EVALUATIONS = Table(
    name="routing_evaluations",
    grain="routing, policy and metric",
    key=("routing_id", "policy", "metric"),
    schema=pa.schema(
        [
            column("routing_id", TEXT, "the routing (routings.routing_id)"),
            _SCORING_ID,
            column("policy", TEXT, "as in routings"),
            _PROMPT_SET,
            _AXIS_ID,
            column("metric", TEXT, "outcome, regret, gain, over_raw, refusal, cost, ..."),
            column("estimate", pa.float64(), "the figure, a mean over prompts"),
            optional("lower", pa.float64(), "lower end of the 95 % interval"),
            optional("upper", pa.float64(), "upper end of the 95 % interval"),
            optional("p_value", pa.float64(), "two-sided, of a difference: that it is 0"),
            column("prompt_count", pa.int32(), "prompts judged on"),
            column("parameters", TEXT, "what was asked, as JSON"),
            RUN,
        ]
    ),
)

_COMPARISONS = Table(
    name="comparisons",
    grain="scoring, model and metric",
    key=("scoring_id", "model_id", "metric"),
    schema=pa.schema(
        [
            _SCORING_ID,
            MODEL,
            MODEL_ID,
            _PROMPT_SET,
            _AXIS_ID,
            column("metric", TEXT, "probability, rank, rank_1, outcome, refusal, r2_held_out, ..."),
            column("estimate", pa.float64(), "the figure"),
            optional("lower", pa.float64(), "lower end of the 95 % interval"),
            optional("upper", pa.float64(), "upper end of the 95 % interval"),
            optional("warning", TEXT, "why this figure makes the ranking unsafe to read"),
            column("prompt_count", pa.int32(), "prompts judged on"),
            column("parameters", TEXT, "what was asked, as JSON"),
            RUN,
        ]
    ),
)

ANSWER_TABLES = (
    _INTERVENTION_OUTCOMES,
    _INTERVENTIONS,
    _TRAJECTORIES,
    _DRIFT_FIGURES,
    _SCORED_ANSWERS,
    _ANSWER_CALIBRATIONS,
    _ROUTINGS,
    _ROUTING_EVALUATIONS,
    _COMPARISONS,
)
