"""A tokenizer.json as llama.cpp has it, one file for each kind of vocabulary."""
