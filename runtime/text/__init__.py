"""Messages to token ids and back: tokenizers, chat templates, tool calls."""
