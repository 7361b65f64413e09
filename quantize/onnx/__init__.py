"""ONNX graphs: how they are built from a checkpoint, rewritten to small weights and laid out in a file."""
