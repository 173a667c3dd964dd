"""What is found where models speak: steering, drift, routing and comparison."""

from __future__ import annotations

from axes.warehouse.tables.columns import table

ANSWER_TABLES = (
    table(
        "intervention_outcomes",
        "intervention, prompt, metric and limit of the completion",
        "intervention_id prompt_id metric new_tokens",
        """
        model
        intervention_id  text      hash of model, template and all that was changed
        model_id
        axis_id          text?     the axis steered along (axes.axis_id); null: unsteered
        layers mode
        strength         float64   in units for add and clamp; for ablate the share
        unit             float64?  what a strength of 1 is: typical norm at the layer
        positions        text      which positions were changed: all, prompt, generated
        above            float64?  only where the projection passes this, in units
        condition        text?     whether each position decides, or the row; null: all
        template prompt_id
        metric           text      refusal_openers, kl, log_perplexity, repetition, ...
        new_tokens       int32     limit of the greedy completion; 0: the prompt alone
        generation_id    text?     the completion measured; null: the prompt alone
        value            float64   the measurement
        run_id
        """,
        partition="model",
    ),
    table(
        "interventions",
        "experiment, axis, layers, strength, metric and class of prompts",
        "experiment_id axis_id layers strength metric prompt_set is_positive",
        """
        experiment_id  text      hash of the experiment and of every outcome behind it
        model model_id
        axis_id        text      the axis steered along (axes.axis_id)
        role           text      axis, or which control: random, shuffled_labels, orthogonal
        layers mode
        strength       float64?  null: the slope over all strengths
        metric         text      what was measured, as a difference from the unsteered model
        prompt_set     text      the prompts it was measured on
        is_positive    bool?     their class; null: benign prompts
        estimate       float64   mean difference over prompts, or its slope
        lower          float64   lower end of the 95 % interval
        upper          float64   upper end of the 95 % interval
        unsteered      float64   mean of the model as it is
        prompt_count   int32     prompts it rests on
        random_count   int32     random directions it is held against
        random_lower   float64?  lowest estimate of a random direction
        random_upper   float64?  highest estimate of a random direction
        p_value        float64?  rank of its size among the random directions'
        verdict        text?     in words, by the rules of docs/methods.md; null: control
        parameters     text      the experiment's definition, as JSON
        run_id
        """,
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
        change_size        float64?  mean from there on less the mean before
        change_p_value     float64?  of the change, by random orders of steps
        area_above         float64?  sum over tokens of what is above the threshold
        first_crossing     int32?    first step at or above the threshold
        decided_step       int32?    first step from which the running mean stays on its side of the
                                     threshold
        event_step         int32?    the event's step: its pattern, or the last token
        run_id
        """,
        partition="model",
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
        labeler         text?     who says the class; null: the labels of the prompts
        metric          text      slope_difference, positive_slope, negative_slope,
                                  imbalance_before, imbalance_after, drift_cosine, mean_difference,
                                  running_auroc, decided_step, lead
        control         text      none: all completions as they are; matched_prompt, matched_length,
                                  lasting, random_axes, shuffled_tokens, other_text
        step            int32?    of a curve; null for a figure of whole completions
        estimate        float64   the figure; the mean of a null
        lower           float64?  lower end of its 95 % interval, or of a null
        upper           float64?  upper end of its 95 % interval, or of a null
        band_lower      float64?  lower end of the band for the whole curve
        band_upper      float64?  upper end of the band for the whole curve
        p_value         float64?  two-sided, against 0 or against the null
        positive_count  int32     completions of the positive class
        negative_count  int32     completions of the negative class
        parameters      text      how the analysis was asked for, as JSON
        run_id
        """,
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
        generation_ids      texts     the answers (generations.generation_id)
        prompt_projection   float64   of the prompt, on the axis
        answer_projection   float64   of the answer's tokens, as one number
        prompt_probability  float64?  chance of the outcome by prompt_projection; null for a
                                      calibration row
        answer_probability  float64?  chance of the outcome by answer_projection; null for a
                                      calibration row
        outcome             float64   share of the answers that the labeler marks
        refusal             float64?  share of refusals; null where not all are labelled
        token_count         float64   generated tokens, the end token included
        is_calibration      bool      the calibration was fitted on it; nothing is judged
        is_in_sample        bool      the axis was fitted on the prompt
        run_id
        """,
    ),
    table(
        "answer_calibrations",
        "scoring, model and what is calibrated",
        "scoring_id model_id source",
        """
        scoring_id model model_id
        axis_id         text     the shared axis (axes.axis_id)
        source          text     whose projection it takes: prompt or answer
        method          text     platt or isotonic
        parameters      text     JSON: slope and intercept (platt) or knots x, y (isotonic); see
                                 calibrated()
        threshold       float64  best balanced accuracy on the calibration rows
        labeler         text     who says what the outcome is (labels.labeler)
        is_negated      bool     the outcome is the labeler's negative class
        statistic       text     how an answer's tokens became one number: mean, last, max
        positive_count  int32    calibration rows with the outcome
        negative_count  int32    calibration rows without it
        run_id
        """,
    ),
    table(
        "routings",
        "routing, policy, prompt and model that it goes to",
        "routing_id policy prompt_id model_id",
        """
        routing_id  text     hash of the scoring and of what a choice is subject to
        scoring_id
        policy      text     best_single, random, answer_projection, oracle, ...
        model model_id
        prompt_set  text     the set of the prompt
        prompt_id
        axis_id     text     the shared axis (axes.axis_id)
        share       float64  part of the prompt that goes to the model; 1: all
        cost        float64  of this model's answer, in the cost column's unit
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
        estimate      float64   the figure, a mean over prompts
        lower upper
        p_value       float64?  two-sided, of a difference: that it is 0
        prompt_count  int32     prompts judged on
        parameters    text      what was asked, as JSON
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
        warning       text?  why this figure makes the ranking unsafe to read
        prompt_count  int32  prompts judged on
        parameters    text   what was asked, as JSON
        run_id
        """,
    ),
)
