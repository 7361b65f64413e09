// A GGUF model that answers prompts greedily: llama.cpp, the model's own chat template, and nothing else.
#pragma once

#if __has_include(<llama.h>)
#include <llama.h>
#else
#include <llama/llama.h>  // as it stands in Apple's framework
#endif

#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

#include "profile.h"
#include "prompt.h"

class Generator {
public:
    Generator(const std::string& path, int threads) {
        llama_log_set([](ggml_log_level level, const char* text, void*) {
            if (level == GGML_LOG_LEVEL_ERROR) std::fputs(text, stderr);
        }, nullptr);
        llama_backend_init();
        llama_model_params model_options = llama_model_default_params();
        model_options.n_gpu_layers = 0;
        model_ = llama_model_load_from_file(path.c_str(), model_options);
        if (!model_) throw std::runtime_error(path + ": llama.cpp cannot load it");
        llama_context_params options = llama_context_default_params();
        options.n_ctx = CONTEXT;
        options.type_k = options.type_v = static_cast<ggml_type>(KV_TYPE);
        options.n_batch = options.n_ubatch = BATCH;
        options.n_threads = options.n_threads_batch = threads;
        context_ = llama_init_from_model(model_, options);
        if (!context_) throw std::runtime_error("llama.cpp cannot make a context of " + std::to_string(CONTEXT) + " tokens");
        vocabulary_ = llama_model_get_vocab(model_);
        chooser_ = llama_sampler_chain_init(llama_sampler_chain_default_params());
        if (*GRAMMAR) llama_sampler_chain_add(chooser_, llama_sampler_init_grammar(vocabulary_, GRAMMAR, "root"));
        llama_sampler_chain_add(chooser_, llama_sampler_init_greedy());
    }

    Generator(const Generator&) = delete;

    ~Generator() {
        if (chooser_) llama_sampler_free(chooser_);
        if (context_) llama_free(context_);
        if (model_) llama_model_free(model_);
    }

    // Answer one question from an empty cache. `show` is given the text as it comes, in pieces that may end inside a
    // UTF-8 character.
    Run answer(const std::string& question, const std::function<void(const std::string&)>& show) {
        llama_memory_clear(llama_get_memory(context_), true);
        llama_sampler_reset(chooser_);
        Run run;
        double before = now_ms();
        std::vector<llama_token> prompt = tokens_of(PROMPT_BEFORE + (TRIMS ? trimmed(question) : question) + PROMPT_AFTER);
        run.tokenize_ms = now_ms() - before;
        run.prompt_tokens = static_cast<int>(prompt.size());
        if (prompt.empty() || run.prompt_tokens + 1 > CONTEXT)
            throw std::runtime_error("a prompt of " + std::to_string(prompt.size()) + " tokens; 1 to " +
                                     std::to_string(CONTEXT - 1) + " fit");
        before = now_ms();
        for (int start = 0; start < run.prompt_tokens; start += BATCH)
            read(&prompt[start], std::min(BATCH, run.prompt_tokens - start));
        llama_token token = llama_sampler_sample(chooser_, context_, -1);
        double ready = now_ms();
        run.prefill_ms = ready - before;
        const int most = std::min(MAX_NEW_TOKENS, CONTEXT - run.prompt_tokens);
        std::string held;  // may be the beginning of the text that ends an answer
        while (!ends(token)) {
            held += piece_of(token, FIRST_STRIPS && run.new_tokens == 0);
            const size_t stop = *STOP_TEXT ? held.find(STOP_TEXT) : std::string::npos;
            const size_t sure = stop != std::string::npos ? stop : held.size() - overlap(held);
            show(held.substr(0, sure));
            held.erase(0, sure);
            if (stop != std::string::npos) return run;
            if (++run.new_tokens == most) break;
            read(&token, 1);
            token = llama_sampler_sample(chooser_, context_, -1);
            run.token_ms.push_back(now_ms() - ready);
            ready = now_ms();
        }
        show(held);
        return run;
    }

private:
    static constexpr int BATCH = 512;

    std::vector<llama_token> tokens_of(const std::string& text) const {
        std::vector<llama_token> ids(text.size() + 8);
        const int count = llama_tokenize(vocabulary_, text.data(), static_cast<int>(text.size()), ids.data(),
                                         static_cast<int>(ids.size()), false, true);
        ids.resize(std::max(count, 0));
        if (FIRST_ID >= 0) ids.insert(ids.begin(), FIRST_ID);
        return ids;
    }

    std::string piece_of(llama_token token, bool strips) const {
        std::string piece(256, '\0');
        int size = llama_token_to_piece(vocabulary_, token, &piece[0], static_cast<int>(piece.size()), 0, false);
        if (size < 0) {
            piece.resize(-size);
            size = llama_token_to_piece(vocabulary_, token, &piece[0], -size, 0, false);
        }
        piece.resize(size);
        if (strips && piece[0] == ' ') piece.erase(0, 1);
        return piece;
    }

    void read(llama_token* tokens, int count) {
        if (llama_decode(context_, llama_batch_get_one(tokens, count))) throw std::runtime_error("llama.cpp failed on a token");
    }

    bool ends(llama_token token) const {
        return llama_vocab_is_eog(vocabulary_, token) ||
               std::find(std::begin(STOP_IDS), std::end(STOP_IDS), token) != std::end(STOP_IDS);
    }

    // Length of the longest end of `text` that begins the stop text.
    static size_t overlap(const std::string& text) {
        const std::string stop = STOP_TEXT;
        for (size_t length = std::min(text.size(), stop.size()); length > 0; --length)
            if (text.compare(text.size() - length, length, stop, 0, length) == 0) return length;
        return 0;
    }

    static std::string trimmed(const std::string& text) {
        const char* blanks = " \t\n\r\v\f";
        const size_t first = text.find_first_not_of(blanks);
        return first == std::string::npos ? "" : text.substr(first, text.find_last_not_of(blanks) - first + 1);
    }

    llama_model* model_ = nullptr;
    llama_context* context_ = nullptr;
    llama_sampler* chooser_ = nullptr;
    const llama_vocab* vocabulary_ = nullptr;
};
