// The model's tokenizer: WordPiece or byte-level BPE with the tables of tables.h, and its special tokens.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

// Write the ids of `text` (UTF-8, `size` bytes) to `ids` and return how many there are: at most `room`, the special
// tokens around the text included, whose end is left out where it is longer.
int tokenize(const char* text, int size, int* ids, int room);

#ifdef __cplusplus
}
#endif
