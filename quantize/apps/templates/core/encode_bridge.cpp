#include "encode_bridge.h"

#include <cstring>

#include "answer.h"
#include "profile.h"

const char* encoder_output() { return OUTPUT; }

int encoder_context() { return CONTEXT; }

int encoder_threads() { return default_threads(); }

char* encoder_answer(const float* output, int count, int tokens) {
    return strdup(shown(answer_of({output, output + count}, tokens)).c_str());
}

char* encoder_profile(const char* path, int threads, double load_ms, double start_ms, const double* times, int count,
                      int tokens) {
    return strdup(profile_of_texts(KIND, {path, threads, load_ms, start_ms}, {times, times + count}, tokens).c_str());
}
