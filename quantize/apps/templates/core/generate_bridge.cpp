#include "generate_bridge.h"

#include <cstring>

#include "generator.h"

struct Model {
    Generator generator;
    Started facts;
};

static void explain(const std::exception& failure, char* error, int room) {
    std::snprintf(error, static_cast<size_t>(room), "%s", failure.what());
}

Model* model_open(const char* path, int threads, char* error, int room) {
    try {
        const double started = now_ms();
        threads = threads > 0 ? threads : default_threads();
        auto* model = new Model{{path, threads}, {path, threads, 0, 0}};
        model->facts.load_ms = now_ms() - started;
        return model;
    } catch (const std::exception& failure) {
        explain(failure, error, room);
        return nullptr;
    }
}

char* model_run(Model* model, const char* text, int repeats, void* context, Show show, char* error, int room) {
    try {
        std::vector<Run> runs;
        while (static_cast<int>(runs.size()) < std::max(repeats, 1)) {
            const bool first = runs.empty();
            runs.push_back(model->generator.answer(text, [&](const std::string& piece) {
                if (first) show(context, piece.data(), static_cast<int>(piece.size()));
            }));
        }
        if (!model->facts.start_ms) model->facts.start_ms = model->facts.load_ms + runs[0].tokenize_ms + runs[0].prefill_ms;
        return strdup(profile_of_runs(model->facts, runs, CONTEXT).c_str());
    } catch (const std::exception& failure) {
        explain(failure, error, room);
        return nullptr;
    }
}

void model_close(Model* model) { delete model; }
