// Labels a text, or gives its vector, on standard output; the profile comes as one line of JSON on standard error.
// Usage: encode MODEL.onnx TEXT [REPEATS [THREADS]]
#include <onnxruntime_c_api.h>

#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <exception>
#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

#include "answer.h"
#include "answer.h"
#include "profile.h"
#include "task.h"
#include "tokenizer.h"

static const OrtApi* ort = nullptr;

static void check(OrtStatus* status) {
    if (!status) return;
    const std::string message = ort->GetErrorMessage(status);
    ort->ReleaseStatus(status);
    throw std::runtime_error(message);
}

template <typename T>
using Owned = std::unique_ptr<T, void (*)(T*)>;

class Encoder {
public:
    Encoder(const std::string& path, int threads) {
        OrtEnv* environment;
        check(ort->CreateEnv(ORT_LOGGING_LEVEL_WARNING, "edgestill", &environment));
        environment_.reset(environment);
        check(ort->DisableTelemetryEvents(environment));
        OrtSessionOptions* options;
        check(ort->CreateSessionOptions(&options));
        const Owned<OrtSessionOptions> released(options, [](OrtSessionOptions* one) { ort->ReleaseSessionOptions(one); });
        check(ort->SetIntraOpNumThreads(options, threads));
#ifdef _WIN32
        const std::wstring file(path.begin(), path.end());
#else
        const std::string& file = path;
#endif
        OrtSession* session;
        check(ort->CreateSession(environment, file.c_str(), options, &session));
        session_.reset(session);
        OrtAllocator* allocator;
        check(ort->GetAllocatorWithDefaultOptions(&allocator));
        size_t count;
        check(ort->SessionGetInputCount(session, &count));
        for (size_t index = 0; index < count; ++index) {
            char* name;
            check(ort->SessionGetInputName(session, index, allocator, &name));
            inputs_.push_back(name);
            check(ort->AllocatorFree(allocator, name));
        }
    }

    // Logits of a classifier; of an embedder the states of all tokens, one after the other.
    std::vector<float> run(const std::vector<int>& ids) {
        const int64_t shape[] = {1, static_cast<int64_t>(ids.size())};
        std::vector<std::vector<int64_t>> values;
        for (const std::string& name : inputs_) {
            if (name == "input_ids") values.emplace_back(ids.begin(), ids.end());
            else values.emplace_back(ids.size(), name == "attention_mask" ? 1 : 0);
        }
        OrtMemoryInfo* memory;
        check(ort->CreateCpuMemoryInfo(OrtArenaAllocator, OrtMemTypeDefault, &memory));
        const Owned<OrtMemoryInfo> released(memory, [](OrtMemoryInfo* one) { ort->ReleaseMemoryInfo(one); });
        std::vector<const char*> names;
        std::vector<OrtValue*> given;
        std::vector<Owned<OrtValue>> owned;
        for (size_t index = 0; index < inputs_.size(); ++index) {
            OrtValue* value;
            check(ort->CreateTensorWithDataAsOrtValue(memory, values[index].data(), values[index].size() * sizeof(int64_t),
                                                      shape, 2, ONNX_TENSOR_ELEMENT_DATA_TYPE_INT64, &value));
            owned.emplace_back(value, [](OrtValue* one) { ort->ReleaseValue(one); });
            names.push_back(inputs_[index].c_str());
            given.push_back(value);
        }
        const char* wanted[] = {OUTPUT};
        OrtValue* output = nullptr;
        check(ort->Run(session_.get(), nullptr, names.data(), given.data(), given.size(), wanted, 1, &output));
        owned.emplace_back(output, [](OrtValue* one) { ort->ReleaseValue(one); });
        OrtTensorTypeAndShapeInfo* type;
        check(ort->GetTensorTypeAndShape(output, &type));
        size_t size;
        check(ort->GetTensorShapeElementCount(type, &size));
        ort->ReleaseTensorTypeAndShapeInfo(type);
        void* data;
        check(ort->GetTensorMutableData(output, &data));
        const float* numbers = static_cast<const float*>(data);
        return {numbers, numbers + size};
    }

private:
    Owned<OrtEnv> environment_{nullptr, [](OrtEnv* one) { ort->ReleaseEnv(one); }};
    Owned<OrtSession> session_{nullptr, [](OrtSession* one) { ort->ReleaseSession(one); }};
    std::vector<std::string> inputs_;
};

int main(int count, char** arguments) {
    const double started = now_ms();
    if (count < 3 || count > 5) {
        std::fprintf(stderr, "usage: %s MODEL.onnx TEXT [REPEATS [THREADS]]\n", arguments[0]);
        return 2;
    }
    const int repeats = count > 3 ? std::atoi(arguments[3]) : 1;
    const int threads = count > 4 ? std::atoi(arguments[4]) : default_threads();
    if (repeats < 1 || threads < 1) {
        std::fprintf(stderr, "error: REPEATS and THREADS are whole numbers of 1 or more\n");
        return 2;
    }
    disable_telemetry();
    try {
        ort = OrtGetApiBase()->GetApi(ORT_API_VERSION);
        if (!ort) throw std::runtime_error(std::string("onnxruntime ") + OrtGetApiBase()->GetVersionString() +
                                           " is older than the header this was built with");
        Encoder model(arguments[1], threads);
        Started facts{arguments[1], threads, now_ms() - started, 0};
        std::vector<int> ids(CONTEXT);
        std::vector<double> times;
        Answer answer;
        for (int index = 0; index < repeats; ++index) {
            const double before = now_ms();
            ids.resize(CONTEXT);
            ids.resize(tokenize(arguments[2], static_cast<int>(std::strlen(arguments[2])), ids.data(), CONTEXT));
            answer = answer_of(model.run(ids), static_cast<int>(ids.size()));
            times.push_back(now_ms() - before);
            if (!facts.start_ms) facts.start_ms = now_ms() - started;
        }
        std::printf("%s\n", shown(answer).c_str());
        std::fprintf(stderr, "%s\n", profile_of_texts(KIND, facts, times, static_cast<int>(ids.size())).c_str());
    } catch (const std::exception& error) {
        std::fprintf(stderr, "error: %s\n", error.what());
        return 1;
    }
    return 0;
}
