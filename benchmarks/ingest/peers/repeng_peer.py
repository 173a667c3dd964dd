"""repeng: what `ControlVector.train` calls to read hidden states. It reads the last token alone."""

import numpy as np
from repeng.extract import batched_get_hiddens
from serving import BATCH_SIZE, serve


def extract(model, tokenizer, texts: list[str]) -> np.ndarray:
    layers = list(range(model.config.num_hidden_layers))
    hiddens = batched_get_hiddens(model, tokenizer, texts, layers, BATCH_SIZE)
    return np.stack([hiddens[layer] for layer in layers], axis=1)


if __name__ == "__main__":
    serve(extract)
