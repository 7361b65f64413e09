package com.example.smallmodel

import android.content.Context
import java.io.File

/**
 * The asset folder `name` as real files, which engines map into memory. Copied once for every version of the app: a large
 * model lies on the device twice, so an app of your own may rather download it, or ship it through the store's asset packs.
 */
fun Context.copiedAsset(name: String): File {
    val version = packageManager.getPackageInfo(packageName, 0).lastUpdateTime
    val target = File(filesDir, "$name-$version")
    if (target.isDirectory) return target
    filesDir.listFiles { file -> file.name.startsWith("$name-") }?.forEach(File::deleteRecursively)
    val temporary = File(filesDir, "$name-new").apply { mkdirs() }
    for (file in assets.list(name).orEmpty()) {
        assets.open("$name/$file").use { from -> File(temporary, file).outputStream().use { to -> from.copyTo(to) } }
    }
    check(temporary.renameTo(target)) { "$target cannot be made" }
    return target
}
