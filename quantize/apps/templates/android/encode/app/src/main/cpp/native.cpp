// Between Model.kt and encode_bridge.h. Texts cross as bytes of UTF-8: JNI's own strings are another encoding.
#include <jni.h>

#include <cstdlib>
#include <string>
#include <vector>

#include "encode_bridge.h"

static std::string text_of(JNIEnv* env, jbyteArray bytes) {
    std::string text(static_cast<size_t>(env->GetArrayLength(bytes)), '\0');
    env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(text.size()), reinterpret_cast<jbyte*>(&text[0]));
    return text;
}

static jbyteArray taken(JNIEnv* env, char* text) {
    const auto size = static_cast<jsize>(std::string(text).size());
    jbyteArray bytes = env->NewByteArray(size);
    env->SetByteArrayRegion(bytes, 0, size, reinterpret_cast<const jbyte*>(text));
    std::free(text);
    return bytes;
}

extern "C" JNIEXPORT jintArray JNICALL Java_com_example_smallmodel_Model_tokens(JNIEnv* env, jobject, jbyteArray bytes) {
    const std::string text = text_of(env, bytes);
    std::vector<int> ids(static_cast<size_t>(encoder_context()));
    const int count = tokenize(text.data(), static_cast<int>(text.size()), ids.data(), encoder_context());
    jintArray result = env->NewIntArray(count);
    env->SetIntArrayRegion(result, 0, count, ids.data());
    return result;
}

extern "C" JNIEXPORT jstring JNICALL Java_com_example_smallmodel_Model_outputName(JNIEnv* env, jobject) {
    return env->NewStringUTF(encoder_output());
}

extern "C" JNIEXPORT jint JNICALL Java_com_example_smallmodel_Model_threads(JNIEnv*, jobject) { return encoder_threads(); }

extern "C" JNIEXPORT jbyteArray JNICALL Java_com_example_smallmodel_Model_answerOf(
        JNIEnv* env, jobject, jfloatArray output, jint tokens) {
    std::vector<float> numbers(static_cast<size_t>(env->GetArrayLength(output)));
    env->GetFloatArrayRegion(output, 0, static_cast<jsize>(numbers.size()), numbers.data());
    return taken(env, encoder_answer(numbers.data(), static_cast<int>(numbers.size()), tokens));
}

extern "C" JNIEXPORT jbyteArray JNICALL Java_com_example_smallmodel_Model_profile(
        JNIEnv* env, jobject, jbyteArray path, jint threads, jdouble load_ms, jdouble start_ms, jdoubleArray times, jint tokens) {
    std::vector<double> values(static_cast<size_t>(env->GetArrayLength(times)));
    env->GetDoubleArrayRegion(times, 0, static_cast<jsize>(values.size()), values.data());
    return taken(env, encoder_profile(text_of(env, path).c_str(), threads, load_ms, start_ms, values.data(),
                                      static_cast<int>(values.size()), tokens));
}
