// Answers a prompt: the text streams to standard output, the profile comes as one line of JSON on standard error.
// Usage: generate MODEL.gguf PROMPT [REPEATS [THREADS]]
#include <cstdio>
#include <cstdlib>
#include <exception>

#include "generator.h"

int main(int count, char** arguments) {
    const double started = now_ms();
    if (count < 3 || count > 5) {
        std::fprintf(stderr, "usage: %s MODEL.gguf PROMPT [REPEATS [THREADS]]\n", arguments[0]);
        return 2;
    }
    const int repeats = count > 3 ? std::atoi(arguments[3]) : 1;
    const int threads = count > 4 ? std::atoi(arguments[4]) : default_threads();
    if (repeats < 1 || threads < 1) {
        std::fprintf(stderr, "error: REPEATS and THREADS are whole numbers of 1 or more\n");
        return 2;
    }
    try {
        Generator model(arguments[1], threads);
        Started facts{arguments[1], threads, now_ms() - started, 0};
        std::vector<Run> runs{model.answer(arguments[2], [&](const std::string& text) {
            if (!facts.start_ms) facts.start_ms = now_ms() - started;
            std::fwrite(text.data(), 1, text.size(), stdout);
            std::fflush(stdout);
        })};
        std::puts("");
        while (static_cast<int>(runs.size()) < repeats) runs.push_back(model.answer(arguments[2], [](const std::string&) {}));
        std::fprintf(stderr, "%s\n", profile_of_runs(facts, runs, CONTEXT).c_str());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
