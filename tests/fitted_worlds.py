"""What a study fits, fitted to a group of `tests.worlds` in memory, at fixed lambda."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from axes.analysis.methods import AlignmentOptions
from axes.analysis.methods.directions import difference_in_means, unit
from axes.analysis.methods.maps.affine_map import Alignment
from axes.analysis.methods.maps.alignment import fit_alignment, identity_alignment
from axes.analysis.methods.universal import leave_one_out_axes, universal_axis
from axes.analysis.stats.auroc import auroc_difference
from axes.analysis.stats.baselines import STRONGEST, text_scores
from axes.analysis.study.diagnosis.case import Case
from tests.worlds import BENIGN, Group

RIDGE_LAMBDA = 1.0


@dataclass(frozen=True)
class FittedGroup:
    """Unit directions, maps and shared axes by model; `x` is activations by model and set."""

    group: Group
    reference: str
    prompts: str
    x: dict[str, dict[str, np.ndarray]]
    directions: dict[str, np.ndarray]
    alignments: dict[str, Alignment]
    aligned: dict[str, np.ndarray]
    universal: np.ndarray
    singular_values: np.ndarray
    leave_one_out: dict[str, np.ndarray]

    def pulled_back(self, model: str, axis: np.ndarray) -> np.ndarray:
        """The vector in a model's own space that ranks its prompts as the aligned axis does."""
        return self.alignments[model].pull_back(axis)[0]

    def scores(self, model: str, prompt_set: str, axis: np.ndarray) -> np.ndarray:
        """A model's aligned projections on a shared axis."""
        return self.alignments[model].project(self.x[model][prompt_set], axis)

    def premises(self, model: str, prompt_set: str) -> dict[str, str]:
        """The premise of the surface, if the universal axis does not exceed word pairs."""
        labels, pairs = self.group.labels[prompt_set], self.group.pairs[prompt_set]
        texts = self.group.texts[prompt_set]
        words = text_scores(texts, labels, pairs, baseline=STRONGEST)
        scores = self.scores(model, prompt_set, self.universal)
        difference = auroc_difference(scores, words, labels, pairs)
        if difference.lower is not None and difference.lower > 0:
            return {}
        return {"surface": f"word pairs alone come within {difference.estimate:.3f} of the axis"}

    def case(self, model: str, prompt_set: str) -> Case:
        """What a diagnosis looks at."""
        group = self.group
        return Case(
            x=self.x[model][prompt_set],
            labels=group.labels[prompt_set],
            groups=group.pairs[prompt_set],
            reference_x=self.x[self.reference][prompt_set],
            fitted_x=self.x[model][self.prompts],
            fitted_labels=group.labels[self.prompts],
            benign_x=self.x[model][BENIGN],
            benign_reference_x=self.x[self.reference][BENIGN],
            alignment=self.alignments[model],
            direction=self.directions[model],
            axis=self.universal,
            is_in_sample=prompt_set == self.prompts,
            is_reference=model == self.reference,
            premises=self.premises(model, prompt_set),
            stored=self.scores(model, prompt_set, self.universal),
        )


def fit_group(
    group: Group,
    *,
    reference: str,
    prompts: str = "labelled",
    labels: np.ndarray | None = None,
    ridge_lambda: float = RIDGE_LAMBDA,
) -> FittedGroup:
    """Directions on `prompts` (under other `labels`, if given), alignments, the shared axes."""
    x = {
        model: {prompt_set: group.activations(model, prompt_set) for prompt_set in group.labels}
        for model in group.maps
    }
    marked = group.labels[prompts] if labels is None else labels
    directions = {model: difference_in_means(x[model][prompts], marked).vector for model in x}
    alignments = {
        model: identity_alignment(x[model][BENIGN].shape[1]).alignment
        if model == reference
        else fit_alignment(
            x[model][BENIGN], x[reference][BENIGN], AlignmentOptions(ridge_lambda=ridge_lambda)
        ).alignment
        for model in x
    }
    aligned = {model: unit(alignments[model].map(directions[model])).vector for model in x}
    stacked = np.stack(list(aligned.values()))
    shared = universal_axis(stacked)
    return FittedGroup(
        group=group,
        reference=reference,
        prompts=prompts,
        x=x,
        directions=directions,
        alignments=alignments,
        aligned=aligned,
        universal=shared.vector,
        singular_values=shared.singular_values,
        leave_one_out=dict(zip(x, leave_one_out_axes(stacked), strict=True)),
    )
