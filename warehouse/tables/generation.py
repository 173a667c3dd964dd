"""Tables about completions: steering, drift, routing and comparison of models."""

from __future__ import annotations

from axes.warehouse.tables.columns import table

GENERATION_TABLES = (
    table(
        "intervention_outcomes",
        "intervention, prompt, metric and limit of the completion",
        "intervention_id prompt_id metric new_tokens",
        """
        model
        intervention_id  text      hash of model, template and every change
        model_id
        axis_id          text?     the axis steered along (axes.axis_id); null: unsteered
        layers mode
        strength         float64   in units for add and clamp; the removed share for ablate
        unit             float64?  length of a strength of 1: typical norm at the layer
        positions        text      the changed positions: all, prompt, generated
        above            float64?  change only where the projection is above this, in units
        condition        text?     whether above applies to each position or to the row; null: no
                                   condition
        template prompt_id
        metric           text      refusal_openers, kl, log_perplexity, repetition, ...
        new_tokens       int32     limit of the greedy completion; 0: only the prompt
        generation_id    text?     the measured completion; null: only the prompt
        value            float64   the measurement
        run_id
        """,
        partition="model",
        references={
            "axes": "axis_id",
            "models": "model_id",
            "generations": "generation_id model",
        },
    ),
    table(
        "interventions",
        "experiment, axis, layers, strength, metric and class of prompts",
        "experiment_id axis_id layers strength metric prompt_set is_positive",
        """
        experiment_id  text      hash of the experiment and of every outcome in it
        model model_id
        axis_id        text      the axis steered along (axes.axis_id)
        role           text      axis, random, shuffled_labels, orthogonal or covariance
        layers mode
        strength       float64?  null: the slope over all strengths
        metric         text      the measurement, as a difference from the unsteered model
        prompt_set     text      the prompts it was measured on
        is_positive    bool?     their class; null: benign prompts
        estimate       float64   mean difference over prompts, or its slope
        lower          float64   lower end of the 95 % interval
        upper          float64   upper end of the 95 % interval
        unsteered      float64   mean of the unsteered model
        prompt_count   int32     prompts in the mean
        random_count   int32     random directions it is compared with
        random_lower   float64?  lowest estimate of a random direction
        random_upper   float64?  highest estimate of a random direction
        p_value        float64?  rank of its magnitude among the random directions
        verdict        text?     in words, by the rules of docs/methods.md; null: control
        parameters     text      the experiment's definition, as JSON
        run_id
        """,
        references={"axes": "axis_id"},
    ),
    table(
        "trajectories",
        "drift analysis and completion",
        "drift_id generation_id",
        """
        model drift_id model_id
        axis_id            text      the axis (axes.axis_id)
        layer generation_id prompt_id
        is_positive        bool      its class, by the analysis's labeler
        step_count         int32     tokens with a projection
        prompt_projection  float64?  projection of the prompt, where stored
        mean_projection    float64   mean over its tokens
        slope              float64?  least-squares slope per token; null: one token
        change_step        int32?    first step after the best single change of mean
        change_size        float64?  mean from that step on less the mean before
        change_p_value     float64?  of the change, by random orders of steps
        area_above         float64?  sum over tokens of the excess above the threshold
        first_crossing     int32?    first step at or above the threshold
        decided_step       int32?    first step from which the running mean stays on its side of the
                                     threshold
        event_step         int32?    the event's step: its pattern, or the last token
        run_id
        """,
        partition="model",
        references={"axes": "axis_id", "generations": "generation_id model"},
    ),
    table(
        "drift_figures",
        "drift analysis, metric, control and step",
        "drift_id metric control step",
        """
        drift_id model model_id
        axis_id         text      the axis (axes.axis_id)
        layer
        prompt_set      text      the set of the prompts
        labeler         text?     the labeler of the classes; null: the labels of the prompts
        metric          text      slope_difference, positive_slope, negative_slope,
                                  imbalance_before, imbalance_after, drift_cosine, mean_difference,
                                  running_auroc, decided_step, lead
        control         text      none: all completions, unmatched; matched_prompt, matched_length,
                                  lasting, random_axes, shuffled_tokens, other_text
        step            int32?    step of a curve; null for a value of complete completions
        estimate        float64   the value; the mean of a null
        lower           float64?  lower end of its 95 % interval, or of a null
        upper           float64?  upper end of its 95 % interval, or of a null
        band_lower      float64?  lower end of the band for the complete curve
        band_upper      float64?  upper end of the band for the complete curve
        p_value         float64?  two-sided, against 0 or against the null
        positive_count  int32     completions of the positive class
        negative_count  int32     completions of the negative class
        parameters      text      settings of the analysis, as JSON
        run_id
        """,
        references={"axes": "axis_id"},
    ),
    table(
        "scored_answers",
        "scoring, model and prompt",
        "scoring_id model_id prompt_id",
        """
        scoring_id model model_id
        prompt_set          text      the set of the prompt
        prompt_id
        axis_id             text      the shared axis (axes.axis_id)
        generation_ids      texts     the completions (generations.generation_id)
        prompt_projection   float64   projection of the prompt on the axis
        answer_projection   float64   projection of the completion's tokens, as one number
        prompt_probability  float64?  probability of the outcome by prompt_projection; null for a
                                      calibration row
        answer_probability  float64?  probability of the outcome by answer_projection; null for a
                                      calibration row
        outcome             float64   share of the completions that the labeler marks
        refusal             float64?  share of refusals; null unless all are labelled
        token_count         float64   generated tokens, the end token included
        is_calibration      bool      the calibration was fitted on it; it is not evaluated
        is_in_sample        bool      the axis was fitted on the prompt
        run_id
        """,
        references={"axes": "axis_id"},
    ),
    table(
        "answer_calibrations",
        "scoring, model and calibrated projection",
        "scoring_id model_id source",
        """
        scoring_id model model_id
        axis_id         text     the shared axis (axes.axis_id)
        source          text     the calibrated projection: of the prompt or the answer
        method          text     platt or isotonic
        parameters      text     JSON: slope and intercept (platt) or knots x, y (isotonic); see
                                 calibrated()
        threshold       float64  threshold with the threshold with the best balanced accuracy on the
                                 calibration rows
        labeler         text     the labeler of the outcome (labels.labeler)
        is_negated      bool     the outcome is the labeler's negative class
        statistic       text     how a completion's tokens become one number: mean, last, max
        positive_count  int32    calibration rows with the outcome
        negative_count  int32    calibration rows without it
        run_id
        """,
    ),
    table(
        "routings",
        "routing, policy, prompt and model that it is sent to",
        "routing_id policy prompt_id model_id",
        """
        routing_id  text     hash of the scoring and of the constraints on a choice
        scoring_id
        policy      text     best_single, random, answer_projection, oracle, ...
        model model_id
        prompt_set  text     the set of the prompt
        prompt_id
        axis_id     text     the shared axis (axes.axis_id)
        share       float64  share of the prompt that goes to the model; 1: all
        cost        float64  cost of this model's completion, in the cost column's unit
        why         text?    reason of a choice by projection, else null
        run_id
        """,
    ),
    table(
        "routing_evaluations",
        "routing, policy and metric",
        "routing_id policy metric",
        """
        routing_id    text      the routing (routings.routing_id)
        scoring_id
        policy        text      as in routings
        prompt_set    text      the set of the prompt
        axis_id       text      the shared axis (axes.axis_id)
        metric        text      outcome, regret, gain, over_raw, refusal, cost, ...
        estimate      float64   the value, a mean over prompts
        lower upper
        p_value       float64?  two-sided, of no difference
        prompt_count  int32     evaluation prompts
        parameters    text      the settings, as JSON
        run_id
        """,
    ),
    table(
        "comparisons",
        "scoring, model and metric",
        "scoring_id model_id metric",
        """
        scoring_id model model_id
        prompt_set    text   the set of the prompt
        axis_id       text   the shared axis (axes.axis_id)
        metric        text   probability, rank, rank_1, outcome, refusal, r2_held_out, ...
        estimate lower upper
        warning       text?  reason not to trust the ranking
        prompt_count  int32  evaluation prompts
        parameters    text   the settings, as JSON
        run_id
        """,
        references={"scored_answers": "scoring_id model_id"},
    ),
)
