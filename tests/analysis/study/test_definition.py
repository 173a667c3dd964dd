from __future__ import annotations

from dataclasses import fields
from pathlib import Path

import pytest

from axes.analysis.study.definition import (
    FOLDER,
    OPTIONS,
    StudyDefinition,
    find_study_file,
    option_types,
    read_study_file,
)
from axes.cli.study import run
from axes.ingest.models.registry import group_members
from axes.warehouse.errors import DefinitionError
from axes.warehouse.settings import options_of

LEAST = 'group = "demo"\nprompts = "p"\nalign = "a"\n'


def written(folder: Path, text: str) -> Path:
    path = folder / "study.toml"
    path.write_text(text)
    return path


def test_a_file_says_what_the_options_say_and_leaves_the_rest_to_their_defaults(tmp_path):
    text = LEAST + 'evaluate = ["e", "f"]\nridge_lambda = 100\nseed = 3\nallow_missing = true\n'
    assert read_study_file(written(tmp_path, text)).studies == (
        {
            "group": "demo",
            "prompts": "p",
            "align": "a",
            "evaluate": ("e", "f"),
            "ridge_lambda": 100.0,
            "seed": 3,
            "allow_missing": True,
        },
    )


def test_a_list_of_values_makes_a_study_for_each_combination(tmp_path):
    text = LEAST + 'ridge_lambda = ["held_out", 1, 1e4]\nseed = [0, 1]\n'
    studies = read_study_file(written(tmp_path, text)).studies
    chosen = [(study["ridge_lambda"], study["seed"]) for study in studies]
    assert chosen == [(value, seed) for value in (None, 1.0, 1e4) for seed in (0, 1)]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (LEAST + "sed = 1", "unknown key sed (did you mean seed?)"),
        (LEAST + "zzzz = 1", "unknown key zzzz: known: group"),
        (LEAST + 'label = "x"', "unknown key label"),
        (LEAST + 'seed = "1"', 'seed is "1", expected a whole number'),
        (LEAST + "seed = true", "seed is true, expected a whole number"),
        (LEAST + "seed = 1.5", "seed is 1.5, expected a whole number"),
        (LEAST + "seed = []", "seed is an empty list"),
        (LEAST + 'evaluate = "e"', 'evaluate is "e", expected a list of texts'),
        (LEAST + "ridge_lambda = 'x'", 'ridge_lambda is "x", expected a number or "held_out"'),
        (LEAST + "allow_missing = 1", "allow_missing is 1, expected true or false"),
        ('group = "demo"\nalign = "a"', "the key prompts is missing"),
        ('prompts = "p"\nalign = "a"', "give group, or models and reference"),
        (LEAST + 'models = ["a"]', "give group, or models and reference"),
        ('models = ["a"]\nprompts = "p"\nalign = "a"', "give reference with models"),
        (LEAST + "[published.m]\nnativ = 1", "published.m: unknown metric nativ (did you mean nat"),
        (LEAST + "[published.m]\nnative = 'x'", 'published.m: native is "x", expected a number'),
        (LEAST + "published = 1", "published is not a table of models"),
        (LEAST + "=", "is not TOML"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_it(tmp_path, text, message):
    with pytest.raises(DefinitionError) as caught:
        read_study_file(written(tmp_path, text))
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_study_of_the_package_goes_by_its_name_and_a_file_by_its_path(tmp_path):
    assert find_study_file("demo") == FOLDER / "demo.toml"
    mine = written(tmp_path, LEAST)
    assert find_study_file(str(mine)) == mine
    assert find_study_file("nothing") is None


def test_the_original_study_is_both_groups_with_a_figure_for_every_model():
    file = read_study_file(FOLDER / "original.toml")
    assert [study["group"] for study in file.studies] == ["pythia", "aligned"]
    models = [model for study in file.studies for model in group_members(study["group"])[0]]
    assert sorted(file.published) == sorted([*models, "*"])
    assert file.published["llama-2-13b-chat"] == {"native": 0.851, "universal": 0.235}


def test_an_option_is_declared_once_and_is_a_field_a_key_and_an_option_of_the_command():
    assert set(OPTIONS) == set(option_types())
    # Two keys give fields a value: the models of a group, and the prompts of each concept.
    assert set(OPTIONS) == {
        "group",
        "concepts",
        *(field.name for field in fields(StudyDefinition)),
    } - {"label"}
    options = {option.name: option for option in run.params}
    assert options.keys() >= {*OPTIONS}
    for name, option in options_of(StudyDefinition).items():
        assert options[name].help == option.help
        default = getattr(StudyDefinition, name, None)
        assert default is None or options[name].default == default
