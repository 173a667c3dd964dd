"""The planted world with one study and the tiny model, as the libraries are tested on."""

from tests.analysis.conftest import lake, studied
from tests.ingest.conftest import import_texts, llama_folder, saved_llama

__all__ = ["import_texts", "lake", "llama_folder", "saved_llama", "studied"]
