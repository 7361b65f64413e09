"""A GGUF file as a Hugging Face folder: config, tokenizer and weights of the file itself, proven against llama.cpp."""
