"""GGUF files for llama.cpp: metadata, tensors in their types, and vocabularies."""
