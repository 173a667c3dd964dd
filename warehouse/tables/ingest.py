"""What comes in: prompts, labels, models, jobs, and what models were seen to do."""

from __future__ import annotations

import pyarrow as pa

from axes.warehouse.tables.columns import (
    LAYER,
    MODEL,
    MODEL_ID,
    POOLING,
    PROMPT_ID,
    RENDERED_HASH,
    RUN,
    SITE,
    SKIPPED,
    STRINGS,
    TEMPLATE,
    TEXT,
    TIME,
    TOP_TOKENS,
    VECTOR,
    Table,
    column,
    optional,
)

_PROMPTS = Table(
    name="prompts",
    grain="prompt in a prompt set",
    key=("prompt_set", "prompt_id"),
    partition="prompt_set",
    schema=pa.schema(
        [
            column("prompt_set", TEXT, "the name the set was imported under"),
            PROMPT_ID,
            column("position", pa.int32(), "zero-based place in the source's own order"),
            column("text", TEXT, "the normalised text, as given to the tokenizer"),
            optional("source", TEXT, "where the row comes from, as the source says"),
            optional("category", TEXT, "topic or other category, as the source says"),
            optional("split", TEXT, "train, test, ..., as the source says"),
            optional("license", TEXT, "licence of the text"),
            optional("pair_id", TEXT, "rows of one matched pair share it; never split apart"),
            RUN,
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
            column("labeler", TEXT, "who says so: dataset, refusal_substring, ..."),
            optional("prompt_set", TEXT, "the set whose import brought the label"),
            optional("prompt_id", TEXT, "the labelled prompt (prompts.prompt_id)"),
            optional("generation_id", TEXT, "the labelled completion, null for a prompt's label"),
            column("label", TEXT, "the label's text, as the source says"),
            column(
                "is_positive",
                pa.bool_(),
                "true for the positive class: the concept's, or of labeler",
            ),
            optional("score", pa.float64(), "the labeler's confidence, where it gives one"),
            RUN,
        ]
    ),
)

_MODELS = Table(
    name="models",
    grain="model at one revision, tokenizer and set of numerics",
    key=("model_id",),
    schema=pa.schema(
        [
            column(
                "model_id", TEXT, "hash of name, revision, files, tokenizer, template, numerics"
            ),
            MODEL,
            column(
                "source",
                TEXT,
                "hub id, wheel or local path of the weights; imported: only vectors were given",
            ),
            optional("revision", TEXT, "hub commit, where there is one"),
            column("architecture", TEXT, "transformers model_type"),
            column("d_model", pa.int32(), "width of the residual stream"),
            column("layer_count", pa.int32(), "number of blocks"),
            column("parameter_count", pa.int64(), "number of weights, tied ones once; 0: unknown"),
            optional("context_length", pa.int32(), "longest prompt in tokens; null: no limit"),
            column("dtype", TEXT, "dtype of the weights and of the forward pass"),
            optional("attention", TEXT, "attention implementation, as transformers names it"),
            optional("quantization", TEXT, "4bit or 8bit when loaded so; null: as stored"),
            optional("adapter", TEXT, "PEFT adapter on top: folder or hub id; null: none"),
            optional("adapter_hash", TEXT, "sha256 over the adapter's files"),
            optional("blocks", TEXT, "path of the block list, where the user named it"),
            column("weights_hash", TEXT, "sha256 over the weight files and the configuration"),
            column("tokenizer_hash", TEXT, "sha256 over the tokenizer's files"),
            optional(
                "template_hash", TEXT, "sha256 of the chat template; null: the model has none"
            ),
            optional("model_group", TEXT, "group of the registry: demo, pythia, aligned"),
            column("is_reference", pa.bool_(), "true for the group's reference model"),
            optional("license", TEXT, "licence of the weights"),
            RUN,
        ]
    ),
)

_RUNS = Table(
    name="runs",
    grain="job",
    key=("run_id",),
    schema=pa.schema(
        [
            column("run_id", TEXT, "start time and a random suffix"),
            column("command", TEXT, "what was run"),
            column("parameters", TEXT, "its parameters, as JSON"),
            optional("command_line", TEXT, "the command that runs it again, but for --root"),
            column("status", TEXT, "running (or killed), finished, failed, interrupted"),
            optional("message", TEXT, "the error, or remarks such as a fall-back"),
            column("code_version", TEXT, "version of this package"),
            column("library_versions", TEXT, "versions of the libraries, as JSON"),
            optional("device", TEXT, "device of the forward passes"),
            optional("seed", pa.int64(), "seed of everything random in the job"),
            column("rows", pa.int64(), "rows written"),
            column("tokens", pa.int64(), "tokens run through a model"),
            optional("tokens_per_second", pa.float64(), "tokens over the job's wall time"),
            column("skipped", SKIPPED, "prompts left out on request, and why"),
            column("started_at", TIME, "start of the job"),
            optional("finished_at", TIME, "end of the job; null while it runs or if it was killed"),
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
            MODEL,
            MODEL_ID,
            PROMPT_ID,
            LAYER,
            SITE,
            POOLING,
            TEMPLATE,
            column("vector", VECTOR, "the pooled activation, float32, d_model long"),
            column("norm", pa.float32(), "its Euclidean norm"),
            column("token_count", pa.int32(), "tokens of the rendered prompt; 0: unknown"),
            column("pooled_start", pa.int32(), "first pooled position, zero-based"),
            column("pooled_end", pa.int32(), "one past the last pooled position"),
            column("pooled_tokens", STRINGS, "the token strings pooled over"),
            RENDERED_HASH,
            RUN,
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
            MODEL,
            MODEL_ID,
            PROMPT_ID,
            LAYER,
            SITE,
            TEMPLATE,
            column("position", pa.int32(), "zero-based place in the rendered prompt"),
            column("token_id", pa.int32(), "the token's number in the vocabulary"),
            column("token", TEXT, "the token, as the tokenizer writes it"),
            column("vector", VECTOR, "the activation at this position, float32"),
            RENDERED_HASH,
            RUN,
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
            MODEL,
            column(
                "generation_id", TEXT, "hash of model, prompt, template, sampling and what is kept"
            ),
            MODEL_ID,
            PROMPT_ID,
            TEMPLATE,
            column("text", TEXT, "the completion, special tokens left out"),
            optional("source", TEXT, "who wrote a given text; null: the model generated it"),
            column("token_count", pa.int32(), "completion tokens, the end token included"),
            optional("prompt_token_count", pa.int32(), "tokens of the rendered prompt"),
            column(
                "finish_reason", TEXT, "stop (end token), stop_string, length; given: not generated"
            ),
            optional("max_new_tokens", pa.int32(), "the limit that was set; null: given text"),
            optional("temperature", pa.float64(), "0 is greedy; null: given text"),
            optional("top_p", pa.float64(), "nucleus mass, 1 for all; null: given text"),
            optional("seed", pa.int64(), "seed of the sampling; null: given text"),
            optional("sample", pa.int32(), "which of a prompt's completions, zero-based"),
            optional("stop_strings", STRINGS, "strings that end a completion; null: none"),
            optional("axis_id", TEXT, "the axis it was steered with (axes.axis_id)"),
            optional("strength", pa.float64(), "steering strength"),
            optional("steering_mode", TEXT, "add, ablate or clamp; null: not steered"),
            optional("steering_layers", TEXT, "comma list of the blocks changed"),
            optional("intervention_id", TEXT, "intervention_outcomes.intervention_id"),
            RUN,
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
            MODEL,
            column("generation_id", TEXT, "the completion (generations.generation_id)"),
            column(
                "step", pa.int32(), "0 is the first completion token, -1 the last of the prompt"
            ),
            LAYER,
            SITE,
            column("token_id", pa.int32(), "the token's number in the vocabulary"),
            column("token", TEXT, "the token as text"),
            optional(
                "logprob",
                pa.float32(),
                "its log-probability (nats) before sampling changes; null: the first of the prompt",
            ),
            optional("entropy", pa.float32(), "entropy (nats) of the distribution it came from"),
            optional("top_tokens", TOP_TOKENS, "the likeliest tokens there, where asked for"),
            optional(
                "vector",
                VECTOR,
                "block output at the token's own position; null: only projections were kept",
            ),
            RUN,
        ]
    ),
)

INGEST_TABLES = (
    _PROMPTS,
    _LABELS,
    _MODELS,
    _RUNS,
    _ACTIVATIONS,
    _PROMPT_TOKENS,
    _GENERATIONS,
    _GENERATION_TOKENS,
)
