"""What is read of a model before anything is made of it: files, weights, tokenizer, templates, the float model."""
