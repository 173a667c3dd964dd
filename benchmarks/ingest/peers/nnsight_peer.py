"""nnsight: a trace of a batch that saves every block's output."""

import nnsight
import numpy as np
import torch
from nnsight import TransformersModel
from serving import batches, mean_of_last, serve


@torch.inference_mode()
def extract(model, tokenizer, texts: list[str]) -> np.ndarray:
    pooled = []
    for batch in batches(texts):
        mask = tokenizer(batch, return_tensors="pt", padding=True).attention_mask
        with model.trace(batch):
            states = nnsight.save([layer.output for layer in model.model.layers])
        pooled.append(mean_of_last(torch.stack(list(states)), mask))
    return torch.cat(pooled, dim=1).transpose(0, 1).numpy()


if __name__ == "__main__":
    serve(
        extract,
        lambda model, tokenizer: TransformersModel(
            model, tokenizer=tokenizer, task="text-generation"
        ),
    )
