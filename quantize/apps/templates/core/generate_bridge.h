// `Generator` as plain C, for Kotlin and Swift.
#pragma once

#ifdef __cplusplus
extern "C" {
#endif

typedef struct Model Model;
// Takes a piece of the answer: `size` bytes of UTF-8, which may end inside a character.
typedef void (*Show)(void* context, const char* piece, int size);

// Open a GGUF file; null with the reason in `error` (of `room` bytes) where it cannot be opened.
Model* model_open(const char* path, int threads, char* error, int room);
// Answer `text` `repeats` times, showing the first answer. The profile as JSON, which free() takes; or null and an error.
char* model_run(Model* model, const char* text, int repeats, void* context, Show show, char* error, int room);
void model_close(Model* model);

#ifdef __cplusplus
}
#endif
