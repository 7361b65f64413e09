// From what the graph gives to what the model says: labels with their probabilities, scores, or a vector.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <utility>
#include <vector>

#include "task.h"

struct Answer {
    std::vector<std::pair<int, double>> said;  // indices of LABELS, each with its probability or score
    std::vector<float> vector;
};

// onnxruntime 1.29 and later reports its use unless this stands before it starts.
inline void disable_telemetry() {
#ifdef _WIN32
    _putenv_s("ORT_DISABLE_TELEMETRY", "1");
#else
    setenv("ORT_DISABLE_TELEMETRY", "1", 1);
#endif
}

// `output`: the logits, or the states of `tokens` tokens.
inline Answer answer_of(const std::vector<float>& output, int tokens) {
    Answer answer;
    if (LABEL_COUNT) {
        const auto best = std::max_element(output.begin(), output.end());
        double total = 0;
        for (float logit : output) total += std::exp((static_cast<double>(logit) - *best) / TEMPERATURE);
        if (CHOOSES) answer.said.emplace_back(static_cast<int>(best - output.begin()), 1 / total);
        for (int place = 0; !CHOOSES && place < LABEL_COUNT; ++place) {
            const double logit = output[place], value = SQUASHES ? 1 / (1 + std::exp(-logit)) : logit;
            if (!DECIDES || value >= THRESHOLDS[place]) answer.said.emplace_back(place, value);
        }
        return answer;
    }
    const size_t width = output.size() / tokens;
    answer.vector.assign(output.begin(), output.begin() + static_cast<std::ptrdiff_t>(width));
    double length = 0;
    for (size_t place = 0; place < width; ++place) {
        if (!TAKES_FIRST) {
            double mean = 0;
            for (int token = 0; token < tokens; ++token) mean += output[token * width + place];
            answer.vector[place] = static_cast<float>(mean / tokens);
        }
        length += static_cast<double>(answer.vector[place]) * answer.vector[place];
    }
    if (NORMALISES)
        for (float& value : answer.vector) value = static_cast<float>(value / std::max(std::sqrt(length), 1e-12));
    return answer;
}

// A line for each label with its probability, or for each score; else the numbers of the vector, in one line.
inline std::string shown(const Answer& answer) {
    char number[32];
    std::string result;
    for (const auto& [label, value] : answer.said) {
        std::snprintf(number, sizeof number, CHOOSES || DECIDES ? "%.6f" : "%.9g", value);
        const bool named = CHOOSES || DECIDES || LABEL_COUNT > 1;
        result += (result.empty() ? "" : "\n") + (named ? std::string(LABELS[label]) + " " : "") + number;
    }
    for (float value : answer.vector) {
        std::snprintf(number, sizeof number, "%.9g", value);
        result += (result.empty() ? "" : " ") + std::string(number);
    }
    return result;
}
