"""Open any model: an artifact of ours, a bare GGUF file, an ONNX or Hugging Face folder."""
