// What a run cost, as the JSON document that `edgestill profile --json` prints and `edgestill compare` reads.
#pragma once

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <thread>
#include <vector>

#ifdef _WIN32
#include <windows.h>
#include <psapi.h>  // link psapi
#else
#include <sys/resource.h>
#include <sys/utsname.h>
#endif

inline double now_ms() {
    using namespace std::chrono;
    return duration<double, std::milli>(steady_clock::now().time_since_epoch()).count();
}

// Half of the logical processors, four at most: beyond a phone's fast cores decoding can become a hundred times slower.
inline int default_threads() {
    return std::max(1, std::min(4, static_cast<int>(std::thread::hardware_concurrency()) / 2));
}

inline long long peak_rss_bytes() {
#ifdef _WIN32
    PROCESS_MEMORY_COUNTERS counters{};
    GetProcessMemoryInfo(GetCurrentProcess(), &counters, sizeof counters);
    return static_cast<long long>(counters.PeakWorkingSetSize);
#else
    rusage usage{};
    getrusage(RUSAGE_SELF, &usage);
#ifdef __APPLE__
    return usage.ru_maxrss;
#else
    return usage.ru_maxrss * 1024LL;
#endif
#endif
}

// The model file and its external data, which onnxruntime keeps in FILE_data.
inline long long file_bytes(const std::string& path) {
    long long size = 0;
    for (const std::string& name : {path, path + "_data"}) {
        std::ifstream file(name, std::ios::binary | std::ios::ate);
        if (file) size += static_cast<long long>(file.tellg());
    }
    return size;
}

namespace json {

inline std::string number(double value) {
    if (!std::isfinite(value)) return "null";
    char text[32];
    std::snprintf(text, sizeof text, "%.6g", value);
    return text;
}

inline std::string text(const std::string& value) {
    std::string result = "\"";
    for (unsigned char letter : value) {
        char escaped[8];
        std::snprintf(escaped, sizeof escaped, letter < 0x20 || letter == '"' || letter == '\\' ? "\\u%04x" : "%c", letter);
        result += escaped;
    }
    return result + "\"";
}

inline std::string list(const std::vector<double>& values) {
    std::string result = "[";
    for (double value : values) result += (result.size() > 1 ? ", " : "") + number(value);
    return result + "]";
}

}  // namespace json

// The value below which `share` of the values lie, interpolated; not a number for no values.
inline double percentile(std::vector<double> values, double share) {
    if (values.empty()) return NAN;
    std::sort(values.begin(), values.end());
    const double place = share * static_cast<double>(values.size() - 1);
    const size_t below = static_cast<size_t>(place), above = std::min(below + 1, values.size() - 1);
    return values[below] + (place - static_cast<double>(below)) * (values[above] - values[below]);
}

inline double sum(const std::vector<double>& values) {
    double total = 0;
    for (double value : values) total += value;
    return total;
}

inline std::string percentiles(const std::vector<double>& values) {
    if (values.empty()) return "null";
    return "{\"p50\": " + json::number(percentile(values, 0.5)) + ", \"p90\": " + json::number(percentile(values, 0.9)) +
           ", \"p99\": " + json::number(percentile(values, 0.99)) + ", \"max\": " +
           json::number(percentile(values, 1)) + "}";
}

inline std::string machine() {
    std::string processor, system = "Windows", architecture;
#ifndef _WIN32
    utsname name{};
    uname(&name);
    system = std::string(name.sysname) + " " + name.release;
    architecture = name.machine;
    std::ifstream file("/proc/cpuinfo");
    for (std::string line; processor.empty() && std::getline(file, line);) {
        const bool named = line.rfind("model name", 0) == 0 || line.rfind("Hardware", 0) == 0;
        const size_t colon = line.find(": ");
        if (named && colon != std::string::npos) processor = line.substr(colon + 2);
    }
#endif
    return "{\"cpu\": " + json::text(processor.empty() ? architecture : processor) + ", \"cores_logical\": " +
           std::to_string(std::thread::hardware_concurrency()) + ", \"system\": " + json::text(system) +
           ", \"machine\": " + json::text(architecture) + "}";
}

// One answer of a generator.
struct Run {
    int prompt_tokens = 0, new_tokens = 0;
    double tokenize_ms = 0, prefill_ms = 0;
    std::vector<double> token_ms;  // every token after the first
};

struct Started {
    std::string model;
    int threads;
    double load_ms;   // from the program's start to a model that is ready
    double start_ms;  // from the program's start to its first token or label
};

inline std::string profile_head(const char* kind, const Started& started) {
    return std::string("{\"kind\": \"") + kind + "\", \"threads\": " + std::to_string(started.threads) +
           ", \"file_bytes\": " + std::to_string(file_bytes(started.model)) + ", \"peak_rss_bytes\": " +
           std::to_string(peak_rss_bytes()) + ", \"load_ms\": " + json::number(started.load_ms) + ", \"start_ms\": " +
           json::number(started.start_ms) + ", \"machine\": " + machine();
}

// The profile of answers to one prompt; `runs` holds one answer or more.
inline std::string profile_of_runs(const Started& started, const std::vector<Run>& runs, int context) {
    std::vector<double> first, prefill, decode, tokens;
    std::string raw;
    for (const Run& run : runs) {
        first.push_back(run.tokenize_ms + run.prefill_ms);
        prefill.push_back(1000 * run.prompt_tokens / run.prefill_ms);
        if (!run.token_ms.empty()) decode.push_back(1000 * run.token_ms.size() / sum(run.token_ms));
        tokens.insert(tokens.end(), run.token_ms.begin(), run.token_ms.end());
        raw += (raw.empty() ? "" : ", ") + std::string("{\"tokenize_ms\": ") + json::number(run.tokenize_ms) +
               ", \"prefill_ms\": " + json::number(run.prefill_ms) + ", \"token_ms\": " + json::list(run.token_ms) + "}";
    }
    return profile_head("generate", started) + ", \"prompt_tokens\": " + std::to_string(runs[0].prompt_tokens) +
           ", \"new_tokens\": " + std::to_string(runs[0].new_tokens) + ", \"context\": " + std::to_string(context) +
           ", \"ttft_ms\": " + json::number(percentile(first, 0.5)) + ", \"prefill_tokens_per_s\": " +
           json::number(percentile(prefill, 0.5)) + ", \"decode_tokens_per_s\": " + json::number(percentile(decode, 0.5)) +
           ", \"token_ms\": " + percentiles(tokens) + ", \"latency_ms\": null, \"texts_per_s\": null, \"raw\": " +
           "{\"prompt_source\": \"argument\", \"repeats\": " + std::to_string(runs.size()) + ", \"runs\": [" + raw + "]}}";
}

// The profile of reading one text as often as there are times.
inline std::string profile_of_texts(const char* kind, const Started& started, const std::vector<double>& times, int tokens) {
    return profile_head(kind, started) + ", \"prompt_tokens\": " + std::to_string(tokens) +
           ", \"new_tokens\": null, \"context\": null, \"ttft_ms\": null, \"prefill_tokens_per_s\": null" +
           ", \"decode_tokens_per_s\": null, \"token_ms\": null, \"latency_ms\": " + percentiles(times) +
           ", \"texts_per_s\": " + json::number(1000 * static_cast<double>(times.size()) / sum(times)) +
           ", \"raw\": {\"prompt_source\": \"argument\", \"repeats\": " + std::to_string(times.size()) +
           ", \"latency_ms\": " + json::list(times) + "}}";
}
