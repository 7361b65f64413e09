plugins {
    id("com.android.application") version "8.13.0" apply false  // 8.5.1 and later align libraries for pages of 16 KB
    id("org.jetbrains.kotlin.android") version "2.2.20" apply false
}
