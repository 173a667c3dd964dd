"""Run the notebooks of the docs on a warehouse and store their outputs.

`python -m docs.notebook --root lake` runs them on the demo's warehouse: docs/notebook.ipynb, of the
cells below, and one for each page of docs/notebooks, which has a question. Tests run the same cells
and pages on a tiny warehouse, so they name no model, prompt set or axis.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import click
import nbformat
from nbclient import NotebookClient

FILE = Path(__file__).with_name("notebook.ipynb")
PAGES = sorted(Path(__file__).with_name("notebooks").glob("*.md"))
_BLOCK = re.compile(r"^```python\n(.*?)\n```$", re.MULTILINE | re.DOTALL)

# Text first, then the code below it. No cell shows prompts or completions.
CELLS = (
    (
        """# A warehouse in a notebook

Python functions do what the commands do, and SQL queries every result. The cells below read the
warehouse that `make demo` writes to `lake`; `python -m docs.notebook --root lake` runs them again.
Start Jupyter with `AXES_ROOT` set, or pass `root=` to each function.""",
        """import axes
import numpy as np
import polars as pl

lake = axes.connect()
lake.sql("select model, architecture, d_model, layer_count from models order by model").pl()""",
    ),
    (
        """## A study

`axes.study("demo")` runs a study unless it is stored; `axes.read_study()` reads the latest. A value
and its 95 % interval share a cell; warnings are below the table.""",
        """study = axes.read_study()
study""",
    ),
    (
        "`figures` has all numbers of the study; `sql` is the query that returns the table.",
        """print(study.sql)
{name: round(value, 3) for name, value in enumerate(study.figures["singular_values"])}""",
    ),
    (
        """## One model, every layer

`axes.fit` fits the direction of a model at each of its layers. These AUROCs are in sample: they
show at which layers the direction separates the classes, but not how well it does so on held-out
prompts.""",
        """definition = study.figures["definition"]
model, prompts = definition["models"][0].partition("@")[0], definition["prompts"]
fitted = axes.fit(model, prompts)
fitted.pl().select("layer", "auroc", "is_in_sample")""",
    ),
    (
        "",
        """import matplotlib.pyplot as plt

layers = fitted.pl().sort("layer")
figure, area = plt.subplots(figsize=(5, 2.5))
area.plot(layers["layer"], layers["auroc"], marker=".")
area.axhline(0.5, color="grey", linestyle=":")
area.set(xlabel="layer", ylabel="AUROC, in sample", title=f"{model} on {prompts}")
plt.show()""",
    ),
    (
        """## An axis

`axes.load_axis` returns the unit vector with its card: its space, the rows that fitted it, and its
evaluation.""",
        """shared = lake.sql("select name from axes where kind = 'universal' order by name limit 1")
((name,),) = shared.fetchall()
axis = axes.load_axis(name)
axis""",
    ),
    (
        "`project` maps activations of the axis's own space to the projections that are stored.",
        """is_model = pl.col("model") == axis.card["space_model"]
is_layer = pl.col("layer") == axis.card["layer"]
rows = axes.scan("activations").filter(is_model & is_layer)
activations = rows.select("prompt_id", "vector").collect()
stored = lake.sql(
    "select prompt_id, projection from v_projections where axis_id = ? and model = ?",
    params=[axis.card["axis_id"], axis.card["space_model"]],
).pl()
projections = activations.with_columns(
    computed=axis.project(np.stack(activations["vector"].to_list()))
).join(stored, on="prompt_id")
difference = (projections["computed"] - projections["projection"]).abs().max()
print(f"{projections.height} prompts, largest difference {difference:.1g}")""",
    ),
    (
        """`axes.score` projects activations of other models through their alignments.""",
        """axes.score(name)""",
    ),
    (
        """## SQL

The page *Tables, views, macros* describes every column; docs/cookbook.md has thirty questions.""",
        """lake.sql(\"\"\"
    select model, kind, prompt_set, round(auroc, 3) as auroc, positive_count, negative_count
    from v_auroc where kind != 'native' order by all limit 8
\"\"\").pl()""",
    ),
)


def page_cells(page: Path) -> list[tuple[str, str]]:
    """The text and the code below it of each cell of a page, charts as pictures."""
    parts = _BLOCK.split(page.read_text())
    linked = re.sub(r"\[As a notebook\]\(.*?\)\. ", "", parts[0])
    found = [
        (text.strip(), code)
        for text, code in zip([linked, *parts[2::2]], parts[1::2], strict=False)
    ]
    (text, code), *others = found
    pictures = 'import altair as alt\n\nalt.renderers.enable("png")'
    return [(text, f"{pictures}\n{code}"), *others]


def cells(texts: Sequence[tuple[str, str]] = CELLS) -> list[nbformat.NotebookNode]:
    """A notebook's cells, not run."""
    made = []
    for text, code in texts:
        made += [nbformat.v4.new_markdown_cell(text)] if text else []
        made.append(nbformat.v4.new_code_cell(code))
    for number, cell in enumerate(made):
        cell["id"] = f"cell-{number}"
    return made


def run(root: Path, texts: Sequence[tuple[str, str]] = CELLS) -> nbformat.NotebookNode:
    """A notebook, run on a warehouse; raises `CellExecutionError` where a cell does."""
    notebook = nbformat.v4.new_notebook(cells=cells(texts))
    environment = {**os.environ, "AXES_ROOT": str(root.resolve())}
    client = NotebookClient(notebook, timeout=300, kernel_name="python3", record_timing=False)
    # Files that a cell writes are not of the docs.
    with TemporaryDirectory() as folder:
        client.execute(env=environment, cwd=folder)
    # The stored notebook has no metadata of the machine that ran it.
    notebook.metadata = {"kernelspec": {"name": "python3", "display_name": "Python 3"}}
    return notebook


@click.command()
@click.option(
    "--root",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    required=True,
    help="The demo's warehouse.",
)
def main(root: Path) -> None:
    """Run the notebooks and write them."""
    texts = {FILE: CELLS} | {page.with_suffix(".ipynb"): page_cells(page) for page in PAGES}
    for file, cells_of in texts.items():
        nbformat.write(run(root, cells_of), file)
        click.echo(file)


if __name__ == "__main__":
    main()
