// Text to ids in the steps of the `tokenizers` library: added tokens are cut out, the rest is normalised, split into
// words, and each word into pieces. What a character becomes and what class it is of stands in tables.h.
#include "tokenizer.h"

#include <algorithm>
#include <climits>
#include <cstdint>
#include <iterator>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "tables.h"

namespace {

using Text = std::u32string;
using Ids = std::vector<int>;

Text decode(const char* text, size_t size) {
    Text result;
    for (size_t at = 0; at < size;) {
        const unsigned char first = text[at];
        const size_t length = first < 0x80 ? 1 : first < 0xE0 ? 2 : first < 0xF0 ? 3 : 4;
        char32_t sign = length == 1 ? first : first & (0xFF >> (length + 1));
        for (size_t next = at + 1; next < std::min(at + length, size); ++next) sign = sign << 6 | (text[next] & 0x3F);
        result += sign;
        at += length;
    }
    return result;
}

Text decode(const char* text) { return decode(text, std::char_traits<char>::length(text)); }

std::string encode(char32_t sign) {
    if (sign < 0x80) return {static_cast<char>(sign)};
    std::string result;
    const int more = sign < 0x800 ? 1 : sign < 0x10000 ? 2 : 3;
    result += static_cast<char>((0xFF00 >> (more + 1)) | sign >> 6 * more);
    for (int shift = 6 * (more - 1); shift >= 0; shift -= 6) result += static_cast<char>(0x80 | (sign >> shift & 0x3F));
    return result;
}

// The kind of `sign` in a table of ranges, 0 for one that is in none.
template <size_t count>
int kind_of(const Range (&ranges)[count], char32_t sign) {
    const Range* after = std::upper_bound(std::begin(ranges), std::end(ranges), sign,
                                          [](char32_t value, const Range& range) { return value < range.first; });
    return after != ranges && sign <= (after - 1)->last ? (after - 1)->kind : 0;
}

template <size_t count>
const char* text_of(const Change (&changes)[count], char32_t sign) {
    const Change* found = std::lower_bound(std::begin(changes), std::end(changes), sign,
                                           [](const Change& change, char32_t value) { return change.sign < value; });
    return found != std::end(changes) && found->sign == sign ? found->text : nullptr;
}

void decompose_hangul(char32_t sign, Text& result) {
    const char32_t index = sign - 0xAC00;
    result += 0x1100 + index / 588;
    result += 0x1161 + index % 588 / 28;
    if (index % 28) result += 0x11A7 + index % 28;
}

// Every character by itself, as the tokenizer's normalizer changes it.
Text changed(const Text& text) {
    Text result;
    for (char32_t sign : text) {
        const int kind = kind_of(CHANGED, sign);
        if (const char* other = text_of(CHANGES, sign)) result += decode(other);
        else if (kind == HANGUL) decompose_hangul(sign, result);
        else if (kind == SPACED) result += {U' ', sign, U' '};
        else if (kind == BLANK) result += U' ';
        else if (kind != REMOVED) result += sign;
    }
    return result;
}

char32_t composed(char32_t first, char32_t second) {
    if (first >= 0x1100 && first < 0x1113 && second >= 0x1161 && second < 0x1176)
        return 0xAC00 + ((first - 0x1100) * 21 + second - 0x1161) * 28;
    if (first >= 0xAC00 && first < 0xD7A4 && (first - 0xAC00) % 28 == 0 && second > 0x11A7 && second < 0x11C3)
        return first + second - 0x11A7;
    const Pair* found = std::lower_bound(std::begin(PAIRS), std::end(PAIRS), Pair{first, second, 0},
        [](const Pair& a, const Pair& b) { return std::pair(a.first, a.second) < std::pair(b.first, b.second); });
    return found != std::end(PAIRS) && found->first == first && found->second == second ? found->composed : 0;
}

// Unicode's normalization form C: every character taken apart, marks in their order, and put together again.
Text nfc(const Text& text) {
    const Text apart = changed(text);
    std::vector<std::pair<char32_t, int>> signs;
    for (char32_t sign : apart) signs.emplace_back(sign, kind_of(MARKS, sign));
    for (auto start = signs.begin(); start != signs.end();) {
        auto end = std::find_if(start, signs.end(), [](const auto& sign) { return sign.second == 0; });
        std::stable_sort(start, end, [](const auto& a, const auto& b) { return a.second < b.second; });
        start = end == signs.end() ? end : end + 1;
    }
    Text result;
    size_t base = std::string::npos;
    int last = 0;  // the order of the mark before, of those that stayed
    for (const auto& [sign, order] : signs) {
        const bool reaches = base != std::string::npos && (base + 1 == result.size() || last < order);
        const char32_t whole = reaches ? composed(result[base], sign) : 0;
        if (whole) {
            result[base] = whole;
            continue;
        }
        if (order == 0) base = result.size();
        last = order;
        result += sign;
    }
    return result;
}

std::vector<Text> bert_words(const Text& text) {
    std::vector<Text> words;
    bool open = false;
    for (char32_t sign : text) {
        const int kind = kind_of(CLASSES, sign);
        if (kind == SPACE) open = false;
        else if (open && kind != PUNCTUATION) words.back() += sign;
        else {
            words.push_back(Text(1, sign));
            open = kind != PUNCTUATION;
        }
    }
    return words;
}

// The words of GPT-2's pattern: contractions, runs of one class with the blank before them, and other blanks.
std::vector<Text> byte_level_words(const Text& text) {
    std::vector<Text> words;
    const size_t size = text.size();
    for (size_t at = 0; at < size;) {
        size_t end = at;
        for (const Text ending : {U"'s", U"'t", U"'re", U"'ve", U"'m", U"'ll", U"'d"})
            if (text.compare(at, ending.size(), ending) == 0 && end == at) end = at + ending.size();
        if (end == at) {
            const size_t first = text[at] == U' ' && at + 1 < size ? at + 1 : at;
            const int kind = kind_of(CLASSES, text[first]);
            end = first;
            if (kind != SPACE) {
                while (end < size && kind_of(CLASSES, text[end]) == kind) ++end;
            } else {
                end = at;
                while (end < size && kind_of(CLASSES, text[end]) == SPACE) ++end;
                if (end < size && end - at > 1) --end;  // the last blank goes with the word behind it
            }
        }
        words.push_back(text.substr(at, end - at));
        at = end;
    }
    return words;
}

const std::unordered_map<std::string_view, int>& vocabulary() {
    static const auto* made = [] {
        auto* ids = new std::unordered_map<std::string_view, int>;
        for (size_t id = 0; id < std::size(VOCABULARY); ++id)
            if (VOCABULARY[id]) ids->emplace(VOCABULARY[id], static_cast<int>(id));
        return ids;
    }();
    return *made;
}

// The longest piece from the left, again and again; the unknown token for a word that is not all pieces.
void word_piece(const Text& word, Ids& ids) {
    const size_t before = ids.size();
    std::vector<std::string> signs;
    for (char32_t sign : word) signs.push_back(encode(sign));
    size_t at = signs.size() > LONGEST_WORD ? INT_MAX : 0;
    while (at < signs.size()) {
        size_t end = signs.size();
        for (; end > at; --end) {
            std::string piece = at ? INNER : "";
            for (size_t index = at; index < end; ++index) piece += signs[index];
            const auto found = vocabulary().find(piece);
            if (found == vocabulary().end()) continue;
            ids.push_back(found->second);
            break;
        }
        if (end == at) break;
        at = end;
    }
    if (at == signs.size()) return;
    ids.resize(before);
    ids.push_back(UNKNOWN);
}

// The pair that was merged first in training, again and again.
void byte_pairs(const Text& word, Ids& ids) {
    static const auto* merges = [] {
        auto* made = new std::unordered_map<uint64_t, std::pair<int, int>>;
        for (size_t rank = 0; rank < std::size(MERGES); ++rank)
            made->emplace(uint64_t(MERGES[rank][0]) << 32 | MERGES[rank][1], std::pair(int(rank), MERGES[rank][2]));
        return made;
    }();
    Ids parts;
    for (char32_t sign : word)
        for (unsigned char byte : encode(sign)) parts.push_back(BYTES[byte]);
    for (;;) {
        std::pair<int, int> best{INT_MAX, 0};
        size_t place = 0;
        for (size_t index = 0; index + 1 < parts.size(); ++index) {
            const auto found = merges->find(uint64_t(parts[index]) << 32 | parts[index + 1]);
            if (found != merges->end() && found->second.first < best.first) best = found->second, place = index;
        }
        if (best.first == INT_MAX) break;
        parts[place] = best.second;
        parts.erase(parts.begin() + static_cast<std::ptrdiff_t>(place) + 1);
    }
    ids.insert(ids.end(), parts.begin(), parts.end());
}

void words_to_ids(Text text, Ids& ids) {
    if (BYTE_LEVEL && LEADING_BLANK && !text.empty() && text[0] != U' ') text.insert(0, 1, U' ');
    for (const Text& word : BYTE_LEVEL ? byte_level_words(text) : bert_words(text))
        BYTE_LEVEL ? byte_pairs(word, ids) : word_piece(word, ids);
}

struct Cut {
    Text content;
    const Added* token;
};

template <size_t count>
std::vector<Cut> cuts_of(const Added (&added)[count]) {
    std::vector<Cut> cuts;
    for (const Added& token : added)
        if (*token.text) cuts.push_back({decode(token.text), &token});
    return cuts;
}

// Cut the added tokens out of `text`, the leftmost and there the longest first, and give what lies between to `rest`.
template <typename Rest>
void cut(const Text& text, const std::vector<Cut>& cuts, Ids& ids, Rest rest) {
    size_t begun = 0;
    for (size_t at = 0; at < text.size();) {
        const Cut* longest = nullptr;
        for (const Cut& one : cuts)
            if (text.compare(at, one.content.size(), one.content) == 0 &&
                (!longest || one.content.size() > longest->content.size())) longest = &one;
        if (!longest) {
            ++at;
            continue;
        }
        size_t start = at, end = at + longest->content.size();
        while (longest->token->strips_left && start > begun && kind_of(CLASSES, text[start - 1]) == SPACE) --start;
        while (longest->token->strips_right && end < text.size() && kind_of(CLASSES, text[end]) == SPACE) ++end;
        if (start > begun) rest(text.substr(begun, start - begun));
        ids.push_back(longest->token->id);
        begun = at = end;
    }
    if (begun < text.size()) rest(text.substr(begun));
}

}  // namespace

int tokenize(const char* text, int size, int* ids, int room) {
    static const std::vector<Cut> added = cuts_of(ADDED), normal_added = cuts_of(ADDED_NORMAL);
    Ids inner;
    cut(decode(text, static_cast<size_t>(size)), added, inner, [&](const Text& part) {
        const Text normal = COMPOSES ? nfc(part) : changed(part);
        cut(normal, normal_added, inner, [&](const Text& words) { words_to_ids(words, inner); });
    });
    Ids whole;
    for (int id : BEFORE) if (id >= 0) whole.push_back(id);
    int behind = 0;
    for (int id : AFTER) behind += id >= 0;
    const size_t most = static_cast<size_t>(std::max(0, room - behind - static_cast<int>(whole.size())));
    whole.insert(whole.end(), inner.begin(), inner.begin() + static_cast<std::ptrdiff_t>(std::min(most, inner.size())));
    for (int id : AFTER) if (id >= 0) whole.push_back(id);
    const int count = std::min(room, static_cast<int>(whole.size()));
    std::copy_n(whole.begin(), std::max(count, 0), ids);
    return count;
}
