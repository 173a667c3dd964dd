"""The loop that people write: padded batches and `output_hidden_states=True`."""

import numpy as np
import torch
from serving import batches, mean_of_last, serve


@torch.inference_mode()
def extract(model, tokenizer, texts: list[str]) -> np.ndarray:
    pooled = []
    for batch in batches(texts):
        inputs = tokenizer(batch, return_tensors="pt", padding=True)
        states = model(**inputs, output_hidden_states=True).hidden_states[1:]
        pooled.append(mean_of_last(torch.stack(states), inputs.attention_mask))
    return torch.cat(pooled, dim=1).transpose(0, 1).numpy()


if __name__ == "__main__":
    serve(extract)
