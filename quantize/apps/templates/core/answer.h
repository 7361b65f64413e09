// From what the graph gives to what the model says: a label with its probability, or a vector.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <string>
#include <vector>

#include "task.h"

struct Answer {
    int label = -1;  // an index of LABELS; -1 for a vector
    double probability = 0;
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
        answer.label = static_cast<int>(best - output.begin());
        answer.probability = 1 / total;
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

// One line: the label and its probability, or the numbers of the vector.
inline std::string shown(const Answer& answer) {
    char number[32];
    if (answer.label >= 0) {
        std::snprintf(number, sizeof number, "%.6f", answer.probability);
        return std::string(LABELS[answer.label]) + " " + number;
    }
    std::string result;
    for (float value : answer.vector) {
        std::snprintf(number, sizeof number, "%.9g", value);
        result += (result.empty() ? "" : " ") + std::string(number);
    }
    return result;
}
