plugins {
    id("com.android.application")
    id("org.jetbrains.kotlin.android")
}

android {
    namespace = "com.example.smallmodel"
    compileSdk = 35
    ndkVersion = "28.2.13676358"  // r28 and later link for pages of 16 KB by themselves
    defaultConfig {
        applicationId = "com.example.smallmodel"
        minSdk = 26
        targetSdk = 35
        versionCode = 1
        versionName = "1"
        ndk { abiFilters += listOf("arm64-v8a", "x86_64") }
        externalNativeBuild { cmake { arguments += "-DCMAKE_BUILD_TYPE=Release" } }  // a debug build is many times slower
    }
    externalNativeBuild { cmake { path = file("src/main/cpp/CMakeLists.txt") } }
    androidResources { noCompress += listOf("gguf", "onnx", "onnx_data") }
}

kotlin { jvmToolchain(17) }
