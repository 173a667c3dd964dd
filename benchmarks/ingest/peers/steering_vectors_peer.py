"""steering-vectors: `record_activations` around the model's forward pass."""

import numpy as np
import torch
from serving import batches, mean_of_last, serve
from steering_vectors import record_activations


@torch.inference_mode()
def extract(model, tokenizer, texts: list[str]) -> np.ndarray:
    pooled = []
    for batch in batches(texts):
        inputs = tokenizer(batch, return_tensors="pt", padding=True)
        with record_activations(model, layer_type="decoder_block") as recorded:
            model(**inputs)
        states = torch.stack([recorded[layer][0] for layer in sorted(recorded)])
        pooled.append(mean_of_last(states, inputs.attention_mask))
    return torch.cat(pooled, dim=1).transpose(0, 1).numpy()


if __name__ == "__main__":
    serve(extract)
