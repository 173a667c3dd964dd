"""Tables of ingested rows: prompts, labels, models, jobs, activations and completions."""

from __future__ import annotations

from axes.warehouse.tables.columns import table

INGEST_TABLES = (
    table(
        "prompts",
        "prompt in a prompt set",
        "prompt_set prompt_id",
        """
        prompt_set  text   the name the set was imported under
        prompt_id
        position    int32  zero-based position in the source
        text        text   the normalised text, as passed to the tokenizer
        source      text?  where the row comes from, in the words of the source
        category    text?  topic or other category, in the words of the source
        split       text?  train, test, ..., in the words of the source
        license     text?  licence of the text
        pair_id     text?  rows of one matched pair share it; never split apart
        run_id
        """,
        partition="prompt_set",
        also_unique="prompt_set position",
    ),
    table(
        "labels",
        "labelled prompt of a set, or generation, and labeler",
        "labeler prompt_set prompt_id generation_id",
        """
        labeler        text      who labelled it: dataset, refusal_substring, ...
        prompt_set     text?     the set whose import brought the label
        prompt_id      text?     the labelled prompt (prompts.prompt_id)
        generation_id  text?     the labelled completion, null for a prompt's label
        label          text      the label's text, in the words of the source
        is_positive    bool      true for the positive class of the concept, or of the labeler
        score          float64?  the labeler's confidence; null if it gives none
        run_id
        """,
        partition="labeler",
        references={"generations": "generation_id"},
    ),
    table(
        "models",
        "model at one revision, tokenizer and set of numerics",
        "model_id",
        """
        model_id         text    hash of name, revision, files, tokenizer, template, numerics
        model
        source           text    hub id, wheel or local path of the weights; imported: vectors
                                 without a model
        revision         text?   hub commit; null without one
        architecture     text    transformers model_type
        d_model          int32   width of the residual stream
        layer_count      int32   number of blocks
        parameter_count  int64   number of weights, tied ones once; 0: unknown
        context_length   int32?  longest prompt in tokens; null: no limit
        dtype            text    dtype of the weights and of the forward pass
        attention        text?   attention implementation of transformers, or vllm-0.32.0
        quantization     text?   4bit or 8bit when loaded so, else as the checkpoint
                                 stores its weights: fp8, gptq-4bit, ...; null: not at all
        adapter          text?   PEFT adapter on top: folder or hub id; null: none
        adapter_hash     text?   sha256 over the adapter's files
        blocks           text?   path of the block list; null: found by architecture
        weights_hash     text    sha256 over weight files and configuration, or of the GGUF file
        tokenizer_hash   text    sha256 over the tokenizer's files
        template_hash    text?   sha256 of the chat template; null: the model has none
        model_group      text?   group of the registry: demo, pythia, aligned
        is_reference     bool    true for the group's reference model
        license          text?   licence of the weights
        run_id
        """,
    ),
    table(
        "runs",
        "job",
        "run_id",
        """
        run_id             text      start time and a random suffix
        command            text      what was run
        parameters         text      its parameters, as JSON
        command_line       text?     the command that runs it again, but for --root
        status             text      running (or killed), finished, failed, interrupted
        message            text?     the error, or remarks such as a fall-back
        code_version       text      version of this package
        library_versions   text      versions of the libraries, as JSON
        device             text?     device of the forward passes
        seed               int64?    seed of everything random in the job
        rows               int64     rows written
        tokens             int64     tokens run through a model
        tokens_per_second  float64?  tokens over the job's wall time
        skipped            skipped   prompts left out on request, with the reason
        started_at         time      start of the job
        finished_at        time?     end of the job; null while it runs or if it was killed
        """,
    ),
    table(
        "activations",
        "model, prompt, layer, site, pooling and template",
        "model_id prompt_id layer site pooling template",
        """
        model model_id prompt_id layer site pooling template
        vector         vector   the pooled activation, float32, d_model long (router: experts)
        norm           float32  its Euclidean norm
        token_count    int32    tokens of the rendered prompt; 0: unknown
        pooled_start   int32    first pooled position, zero-based
        pooled_end     int32    one past the last pooled position
        pooled_tokens  texts    the token strings pooled over
        rendered_hash run_id
        """,
        partition="model",
        references={"models": "model_id"},
    ),
    table(
        "prompt_tokens",
        "model, prompt, layer, site, template and position",
        "model_id prompt_id layer site template position",
        """
        model model_id prompt_id layer site template
        position  int32   zero-based place in the rendered prompt
        token_id
        token     text    the token, as the tokenizer writes it
        vector    vector  the activation at this position, float32
        rendered_hash run_id
        """,
        partition="model",
        references={"models": "model_id"},
    ),
    table(
        "generations",
        "completion",
        "generation_id",
        """
        model
        generation_id       text      hash of model, prompt, template, sampling and what is stored
        model_id prompt_id template
        text                text      the completion without special tokens
        source              text?     who wrote an external text; null: the model generated it
        token_count         int32     completion tokens, the end token included
        prompt_token_count  int32?    tokens of the rendered prompt
        finish_reason       text      stop (end token), stop_string, length; given: an external text
        max_new_tokens      int32?    the limit that was set; null: external text
        temperature         float64?  0 is greedy; null: external text
        top_p               float64?  nucleus mass, 1 for all; null: external text
        seed                int64?    seed of the sampling; null: external text
        sample              int32?    which of a prompt's completions, zero-based
        stop_strings        texts?    strings that end a completion; null: none
        axis_id             text?     the axis it was steered with (axes.axis_id)
        strength            float64?  steering strength
        steering_mode       text?     add, ablate or clamp; null: not steered
        steering_layers     text?     comma list of the changed blocks
        intervention_id     text?     intervention_outcomes.intervention_id
        run_id
        """,
        partition="model",
        references={"models": "model_id"},
    ),
    table(
        "generation_tokens",
        "completion, step and layer",
        "generation_id step layer site",
        """
        model generation_id step layer site token_id
        token       text         the token as text
        logprob     float32?     its log-probability (nats) before sampling changes; null: the first
                                 of the prompt
        entropy     float32?     entropy (nats) of the distribution it came from
        top_tokens  top_tokens?  the likeliest tokens at this step, if requested
        vector      vector?      block output at the token's position; null: only projections are
                                 stored
        run_id
        """,
        partition="model",
    ),
)
