// Between Model.kt and generate_bridge.h. Texts cross as bytes of UTF-8: JNI's own strings are another encoding.
#include <jni.h>

#include <cstdlib>
#include <string>

#include "generate_bridge.h"

static std::string text_of(JNIEnv* env, jbyteArray bytes) {
    std::string text(static_cast<size_t>(env->GetArrayLength(bytes)), '\0');
    env->GetByteArrayRegion(bytes, 0, static_cast<jsize>(text.size()), reinterpret_cast<jbyte*>(&text[0]));
    return text;
}

static jbyteArray bytes_of(JNIEnv* env, const char* text, int size) {
    jbyteArray bytes = env->NewByteArray(size);
    env->SetByteArrayRegion(bytes, 0, size, reinterpret_cast<const jbyte*>(text));
    return bytes;
}

static void fail(JNIEnv* env, const char* message) {
    env->ThrowNew(env->FindClass("java/lang/IllegalStateException"), message);
}

struct Listener {
    JNIEnv* env;
    jobject object;
    jmethodID method;
};

extern "C" JNIEXPORT jlong JNICALL Java_com_example_smallmodel_Model_open(JNIEnv* env, jobject, jbyteArray path, jint threads) {
    char error[512];
    Model* model = model_open(text_of(env, path).c_str(), threads, error, sizeof error);
    if (!model) fail(env, error);
    return reinterpret_cast<jlong>(model);
}

extern "C" JNIEXPORT jbyteArray JNICALL Java_com_example_smallmodel_Model_generate(
        JNIEnv* env, jobject, jlong model, jbyteArray text, jint repeats, jobject listener) {
    Listener shown{env, listener, env->GetMethodID(env->GetObjectClass(listener), "piece", "([B)V")};
    char error[512];
    char* profile = model_run(
        reinterpret_cast<Model*>(model), text_of(env, text).c_str(), repeats, &shown,
        [](void* context, const char* piece, int size) {
            const auto* to = static_cast<Listener*>(context);
            jbyteArray bytes = bytes_of(to->env, piece, size);
            to->env->CallVoidMethod(to->object, to->method, bytes);
            to->env->DeleteLocalRef(bytes);
        },
        error, sizeof error);
    if (!profile) {
        fail(env, error);
        return nullptr;
    }
    jbyteArray result = bytes_of(env, profile, static_cast<int>(std::string(profile).size()));
    std::free(profile);
    return result;
}

extern "C" JNIEXPORT void JNICALL Java_com_example_smallmodel_Model_free(JNIEnv*, jobject, jlong model) {
    model_close(reinterpret_cast<Model*>(model));
}
