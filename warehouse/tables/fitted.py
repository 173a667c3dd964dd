"""Tables of what is fitted from activations, and of its evaluation."""

from __future__ import annotations

from axes.warehouse.tables.columns import table

FITTED_TABLES = (
    table(
        "alignments",
        "fitted map from one model's space to the reference's",
        "alignment_id",
        """
        alignment_id        text      hash of models, layers, rows and method
        model model_id layer
        reference_model     text      the model whose space is mapped into
        reference_model_id  text      its models.model_id
        reference_layer     int16     its layer
        site pooling template
        method              text      ridge, procrustes, reduced_rank, cca, anchor_projection,
                                      gradient; identity for the reference
        ridge_lambda        float64?  penalty on the squared norm of the weights
        lambda_policy       text      given by the user; chosen by held_out alignment rows or by
                                      gcv; none without a lambda
        rank                int32?    rank the map was fitted with; null: full rank
        effective_rank      float64?  (sum s^2)^2 / sum s^4 of its singular values s
        weights             vector    row-major [d_model, d_reference]: aligned = x W + b
        intercept           vector    b, d_reference long
        hidden_weights      vector?   row-major [d_model, hidden] A of a map that adds relu(x A + a)
                                      B
        hidden_intercept    vector?   a, hidden long
        hidden_output       vector?   row-major [hidden, d_reference] B
        hidden_rates        vector?   share of fitted rows on which each unit is active
        r2_held_out         float64   1 - SSE/SST over all dimensions, held-out rows
        r2_uniform          float64   mean over dimensions of the held-out R2
        r2_dimensions       vector?   held-out R2 of each dimension, 0 where one is constant
        r2_shuffled         float64?  mean of r2_held_out with the pairs shuffled
        r2_shuffled_lower   float64?  its 5th percentile
        r2_shuffled_upper   float64?  its 95th percentile
        shuffle_count       int32?    number of shufflings
        prompt_set          text      the alignment prompts
        row_count           int32     rows the final map was fitted on
        row_set_hash        text      hash of their prompt ids in order
        seed                int64     seed of the held-out split
        run_id
        """,
    ),
    table(
        "axes",
        "named direction in a stated space",
        "axis_id",
        """
        axis_id          text     hash of its inputs and settings
        name             text     kind/model or group/layer/prompt set; may repeat
        kind             text     native, aligned, universal, leave_one_out, random, difference,
                                  subspace, imported
        method           text     mean_diff, svd, ...
        space_model      text     the model in whose space the vector lies
        space_model_id   text     its models.model_id
        layer site pooling template
        vector           vector   the unit vector; the positive class projects higher
        raw_norm         float64  norm before scaling to unit length
        fitted_model     text?    the model whose rows it was fitted on; null: several
        held_out_model   text?    the model left out of a leave_one_out axis
        alignment_id     text?    the map into this space (alignments.alignment_id)
        source_axis_ids  texts    the axes it was made from
        prompt_set       text     the labelled prompts it was fitted on
        positive_count   int32    rows of the positive class
        negative_count   int32    rows of the negative class
        row_set_hash     text     hash of their prompt ids and labels in order
        query            text     the SQL that selects those rows
        parameters       text     hyper-parameters, as JSON
        run_id
        """,
        references={"alignments": "alignment_id"},
    ),
    table(
        "projections",
        "axis, model and prompt",
        "axis_id model_id prompt_id",
        """
        model
        axis_id     text     the axis (axes.axis_id)
        model_id prompt_id layer alignment_id
        projection  float64  activation . axis, after the alignment if any
        run_id
        """,
        partition="model",
        references={"axes": "axis_id", "alignments": "alignment_id"},
    ),
    table(
        "token_projections",
        "axis, completion, step and layer",
        "axis_id generation_id step layer",
        """
        model
        axis_id     text     the axis (axes.axis_id)
        generation_id step layer alignment_id
        projection  float64  token vector . axis, after the alignment if any
        run_id
        """,
        partition="model",
        references={"axes": "axis_id"},
    ),
    table(
        "evaluations",
        "study, model, layer, prompt set, scorer, what it was fitted and evaluated on, and metric",
        "study_id model layer prompt_set scorer fitted_on judged_on metric component",
        """
        study_id          text      hash of the study's definition and of every row behind it
        model             text?     the evaluated model; null for a value of the complete group
        model_id          text?     its models.model_id
        prompt_set        text?     the evaluation prompts
        scorer            text      the source of the score: native, universal, leave_one_out, ...
        fitted_on         text?     what the scorer or threshold was fitted on, if not the study's
                                    prompts: sources of prompts, another model
        judged_on         text?     the evaluated sources; null: all of the prompt set
        metric            text      auroc, cosine, r2_held_out, singular_value, ...
        component         int32?    index of a singular value, or count of labelled prompts
        axis_id           text?     the evaluated axis (axes.axis_id)
        layer             int16?    zero-based block index
        estimate lower upper
        p_value           float64?  two-sided p-value of the test; null without a test
        p_value_adjusted  float64?  the same, corrected for the tests of the same family
        positive_count    int32?    rows of the positive class
        negative_count    int32?    rows of the negative class
        is_in_sample      bool?     true where the scorer was fitted on these prompts
        parameters        text      the study's definition, as JSON
        run_id
        """,
        references={"axes": "axis_id"},
    ),
    table(
        "steps",
        "step of a study with its results",
        "step_id",
        """
        step_id     text   hash of the step's kind and inputs
        step        text   what was computed: auroc, null, baselines, ...
        model       text?  the model of the step; null for the group or the prompts
        model_id    text?  its models.model_id
        prompt_set  text?  the prompt set of the step; null for several
        inputs      text   everything that the results depend on, as JSON
        figures     text   the results, as JSON: rows of evaluations
        run_id
        """,
    ),
    table(
        "variations",
        "study, varied setting, its value, model, prompt set and metric",
        "study_id setting value model prompt_set figure",
        """
        study_id      text      the study whose setting is varied (evaluations.study_id)
        setting       text      the setting: reference, ridge_lambda, layer_fraction, align_rows or
                                prompts
        value         text      its value: a model, a factor on each model's lambda, ...
        number        float64?  the value as a number; null if it is not one
        is_own        bool      true for the value of the study
        model model_id layer
        ridge_lambda  float64?  its alignment's lambda; null: the reference
        prompt_set    text?     the evaluation prompts; null for a cosine
        figure        text      native, universal, leave_one_out (AUROC) or cosine_universal
        estimate
        is_in_sample  bool?     true where directions were fitted on these prompts
        run_id
        """,
        references={"evaluations": "study_id"},
    ),
    table(
        "calibrations",
        "model, axis, calibration rows, method and target",
        "calibration_id",
        """
        calibration_id  text     hash of its inputs and settings
        model model_id
        axis_id         text     the axis whose projections it takes (axes.axis_id)
        method          text     platt, isotonic, quantile or z_score
        parameters      text     JSON: slope and intercept (platt, z_score) or knots x, y (isotonic,
                                 quantile)
        target          text     what the threshold meets: balanced_accuracy or fpr=RATE
        threshold       float64  projections at or above it count as positive
        prompt_set      text     the calibration prompts
        prompt_ids      texts    the prompts it was fitted on: nothing is evaluated on them
        row_set_hash    text     hash of these ids and their labels in order
        positive_count  int32    calibration rows of the positive class
        negative_count  int32    calibration rows of the negative class
        run_id
        """,
        references={"axes": "axis_id", "models": "model_id"},
    ),
    table(
        "diagnostics",
        "study, model, prompt set and check",
        "study_id model prompt_set check_name",
        """
        study_id    text   the study diagnosed (evaluations.study_id)
        model model_id
        prompt_set  text   the evaluation prompts
        axis_id     text   the evaluated shared axis (axes.axis_id)
        check_name  text   name of the check; diagnosis: the first fault of all checks
        place       int16  position of the check: a fault explains those after it
        is_fault    bool   true if the check failed
        verdict     text   the result, in plain words
        figures     text   the numbers behind the verdict, as JSON
        run_id
        """,
        references={"evaluations": "study_id"},
    ),
)
