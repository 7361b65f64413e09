"""Models that read a text at once: classifiers, rerankers and embedders."""
