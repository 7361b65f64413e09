// What stands around an encoder's graph as plain C, for Kotlin and Swift; the graph itself runs in onnxruntime.
#pragma once

#include "tokenizer.h"

#ifdef __cplusplus
extern "C" {
#endif

// The graph's output that is read, the most tokens it takes, and how many threads to give it.
const char* encoder_output(void);
int encoder_context(void);
int encoder_threads(void);
// The labels with their probabilities, the scores or the numbers of the vector, of `count` numbers that the graph gave for
// `tokens` tokens.
// Returns a text that free() takes.
char* encoder_answer(const float* output, int count, int tokens);
// The profile as JSON, which free() takes. `start_ms`: from opening the model to the first answer.
char* encoder_profile(const char* path, int threads, double load_ms, double start_ms, const double* times, int count,
                      int tokens);

#ifdef __cplusplus
}
#endif
