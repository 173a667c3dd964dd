"""The commands of traces and labels, from one end to the other on a tiny model."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest

from axes.warehouse.connection import connect, rows
from tests.commands import ok, printed, refused
from tests.ingest.conftest import ImportTexts


def test_completions_are_generated_read_back_and_labelled(
    root: Path, llama_folder: Path, import_texts: ImportTexts, tmp_path: Path
) -> None:
    import_texts(["hello", "what is a duck"])
    traces = ["ingest", "traces", llama_folder, "--root", root]
    options = ["--temperature", "1", "--samples", "2", "--stop", "zz", "--top-tokens", "2"]
    (row,) = printed(
        *traces, "--prompts", "texts", "--max-new-tokens", "3", "--prompt-tokens", *options
    )
    assert (row["prompt_count"], row["new_count"]) == (4, 4)
    answers = tmp_path / "answers.csv"
    pl.DataFrame({"prompt": ["hello"], "completion": ["I'm sorry, no."]}).write_csv(answers)
    assert printed(*traces, "--completions", answers)[0]["new_count"] == 1
    (label,) = printed("label", "refusals", "--root", root, "--model", "tiny-llama")
    assert (label["completion_count"], label["positive_count"]) == (5, 1)
    ids = [row["generation_id"] for row in rows(connect(root), "from generations")]
    given = tmp_path / "labels.csv"
    pl.DataFrame({"generation_id": ids, "label": ["unsafe"] * 5}).write_csv(given)
    assert printed("label", "import", "anna", given, "--root", root)[0]["labelled_count"] == 5
    (agreement,) = rows(connect(root), "from v_labeler_agreement")
    assert (agreement["count"], agreement["agreement"]) == (5, 0.2)


def test_options_of_the_chat_template_and_a_prefill_make_other_rows_and_are_read_before_the_text(
    root: Path, llama_folder: Path, import_texts: ImportTexts
) -> None:
    import_texts(["hello"])
    words = ["--root", root, "--prompts", "texts", "--template", "chat"]
    variants = [
        [],
        ["--template-option", "enable_thinking=false"],
        ["--template-option", "enable_thinking=true"],
        ["--assistant-prefill", "Sure, "],
    ]
    names = ["chat", "chat+enable_thinking=false", "chat+enable_thinking=true"]
    for options in variants:
        for kind in ("activations", "traces"):
            limits = ["--max-new-tokens", "2", "--prompt-tokens"] if kind == "traces" else []
            ingest = ["ingest", kind, llama_folder, *words, *options, *limits]
            result = ok(*ingest, "--format", "json")
            assert json.loads(result.stdout)[0]["new_count"] == 1
            # The tiny template reads no option.
            warned = "--template-option" in options
            assert result.stderr.count("changes nothing: the chat template of tiny") == warned
            assert printed(*ingest)[0]["new_count"] == 0, "it is stored"
    stored = rows(connect(root), "select distinct template from activations order by template")
    assert [row["template"] for row in stored[:3]] == names
    assert stored[3]["template"].startswith("chat+prefill:") and len(stored) == 4
    prompts = rows(
        connect(root),
        "select template, string_agg(token, '' order by step) as text from generations "
        "inner join (select distinct generation_id, step, token from generation_tokens) as tokens "
        "using (generation_id) where step < 0 group by template order by template",
    )
    assert prompts[0]["text"] == prompts[1]["text"] == "<s><user>hello<assistant>"
    assert prompts[3]["text"].replace("Ġ", " ") == "<s><user>hello<assistant>Sure, "
    (run,) = rows(connect(root), "select parameters from runs order by started_at desc limit 1")
    assert json.loads(run["parameters"])["assistant_prefill"] == "Sure, "


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ([], "give --prompts, or --completions with a file"),
        (["--prompts", "texts", "--completions", "FILE"], "give --prompts, or --completions"),
        (["--completions", "FILE", "--seed", "0"], "--seed does not go with --completions"),
        (["--completions", "FILE", "--stop", "x"], "--stop does not go with --completions"),
        (["--prompts", "texts", "--token-budget", "9"], "--token-budget needs --completions"),
        (["--prompts", "texts", "--samples", "2"], "2 greedy completions would be one"),
        (["--prompts", "texts", "--axis", "nonsense"], "no axis nonsense"),
        (["--prompts", "texts", "--template-option", "a=1"], "needs the chat template"),
        (["--prompts", "texts", "--template", "chat", "--template-option", "a"], "NAME=VALUE"),
        (["--completions", "FILE", "--assistant-prefill", "Sure,"], "needs the chat template"),
    ],
)
def test_options_that_do_not_go_together_are_one_line(
    root, llama_folder, import_texts, tmp_path, options, message
):
    import_texts(["hello"])
    file = tmp_path / "answers.csv"
    pl.DataFrame({"prompt": ["hello"], "completion": ["no"]}).write_csv(file)
    given = [str(file) if option == "FILE" else option for option in options]
    assert message in refused("ingest", "traces", llama_folder, "--root", root, *given)
